"""Two-time correlation data: the arrays, their geometry and where they came from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from heterodyne._errors import DataError
from heterodyne._typing import BoolArray, FloatArray, IntArray, StoredArray
from heterodyne.data._matrices import (
    Asymmetry,
    Completion,
    Populated,
    diagonal_is_raw,
    examine,
    kept_precision,
)
from heterodyne.data.findings import Finding

_Choice = TypeVar("_Choice", bound=StrEnum)

COMMON_Q_RTOL = 1e-3
"""Largest spread of q, relative to its mean, that still counts as one q."""


class Layout(StrEnum):
    """File conventions that can be read."""

    APS_U = "aps_u"
    DATA_EXCHANGE = "data_exchange"
    CHX = "chx"
    NEXUS = "nexus"
    PLAIN = "plain"


class Asymmetric(StrEnum):
    """What to do with a full matrix whose halves differ."""

    REFUSE = "refuse"
    AVERAGE = "average"


@dataclass(frozen=True)
class Bin:
    """One region of the detector that has a two-time matrix.

    Attributes:
        label: Number by which the file calls the region.
        q: Wavevector in 1/Å.
        phi: Azimuth in degrees; None where the file gives none.
    """

    label: int
    q: float
    phi: float | None = None

    def __str__(self) -> str:
        angle = "no phi" if self.phi is None else f"phi = {self.phi:g}°"
        return f"bin {self.label} (q = {self.q:.6g} 1/Å, {angle})"


@dataclass(frozen=True)
class Provenance:
    """Where data came from.

    Attributes:
        path: File, or a description of another source.
        layout: Convention by which the file was read.
        sha256: Digest of the whole file.
        details: Figures from the file that the arrays do not show, the time origin among them.
    """

    path: str
    layout: Layout
    sha256: str
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class TwoTimeData:
    """Two-time matrices of some bins on a common time axis.

    Attributes:
        c2: Symmetric matrices with the diagonal as stored, shape (n, N, N). They are float32
            where that holds the values of the file exactly; sums need float64.
        t: Frame times in s, shape (N,), increasing.
        dt: Time between frames in s.
        frames: Frame numbers in the file, counted from 1, shape (N,).
        bins: Label, q and phi of each matrix, n entries.
        frame_mask: False where a frame is excluded from fits, shape (N,).
        provenance: Source of the data.
        diagonal_is_raw: Whether the diagonal is measured; None if that is not known.
        findings: What reading and selecting noticed.
        notes: What reading and selecting did, one sentence each.

    Raises:
        DataError: If shapes do not fit together or t does not increase.
    """

    c2: StoredArray
    t: FloatArray
    dt: float
    frames: IntArray
    bins: tuple[Bin, ...]
    frame_mask: BoolArray
    provenance: Provenance
    diagonal_is_raw: bool | None = None
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        c2 = kept_precision(np.asarray(self.c2).dtype)
        kinds = (("c2", c2), ("t", float), ("frames", np.int64), ("frame_mask", bool))
        for name, kind in kinds:
            view = np.asarray(getattr(self, name), dtype=kind).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)
        self._check_shapes()
        check_time_axis(self.t, self.provenance.path)

    @property
    def c2_with_gaps(self) -> FloatArray:
        """Matrices with NaN at excluded frames, which fit functions leave out, shape (n, N, N)."""
        kept = self.frame_mask & self.frame_mask[:, None]
        return np.where(kept, self.c2.astype(float), np.nan)

    def _check_shapes(self) -> None:
        where = self.provenance.path
        if self.c2.ndim != 3 or self.c2.shape[1] != self.c2.shape[2]:
            raise DataError(f"c2 has shape {self.c2.shape}", where=where, allowed="(n, N, N)")
        n, N, _ = self.c2.shape
        for name in ("t", "frames", "frame_mask"):
            shape = getattr(self, name).shape
            if shape != (N,):
                text = f"{name} has shape {shape} and c2 has shape {self.c2.shape}"
                raise DataError(text, where=where, allowed=f"{name} of shape ({N},)")
        if len(self.bins) != n:
            raise DataError(f"{len(self.bins)} bins for c2 of shape {self.c2.shape}", where=where)
        if not (np.isfinite(self.dt) and self.dt > 0):
            raise DataError(f"dt is {self.dt} s", where=where, allowed="a positive time in s")

    @property
    def n_angles(self) -> int:
        """Number of matrices."""
        return self.c2.shape[0]

    @property
    def n_frames(self) -> int:
        """Number of frames, excluded ones included."""
        return self.c2.shape[1]

    @property
    def q(self) -> float:
        """The q of all bins, in 1/Å (their median).

        Raises:
            DataError: If the bins have different q.
        """
        values = np.array([b.q for b in self.bins])
        if not one_q(values):
            raise DataError(
                f"the bins have q from {values.min():.6g} to {values.max():.6g} 1/Å",
                where=self.provenance.path,
                allowed=f"one q, within {COMMON_Q_RTOL:.1%}",
                remedy="Select one q first",
            )
        return float(np.median(values))

    @property
    def phi(self) -> FloatArray:
        """Azimuths in degrees, shape (n,); NaN where a bin has none."""
        return np.array([np.nan if b.phi is None else b.phi for b in self.bins])

    @property
    def fitted(self) -> BoolArray:
        """Frames that enter a fit, shape (N,): not excluded, and later than t = 0."""
        return self.frame_mask & (self.t > 0)

    @property
    def unique_pairs(self) -> int:
        """Number of pairs i < j per matrix with both frames fitted."""
        count = int(np.count_nonzero(self.fitted))
        return count * (count - 1) // 2


ReadMatrices = Callable[[Sequence[int], slice], Iterator[NDArray[np.generic]]]
"""Yield stored matrices by position, cut to the window; those not read-only may be changed."""


@dataclass(frozen=True, eq=False)
class TwoTimeFile:
    """A two-time file after a look at everything but its matrices.

    Attributes:
        path: The file.
        layout: Convention by which it is read.
        bins: All matrices of the file, in file order.
        dt: Time between frames in s.
        t: Times of all frames in s, shape (N,).
        details: Further figures from the file.
        matrices: Reads matrices by position in ``bins``.
        digest: Computes the SHA-256 of the source.
        populated: Which part of the matrices the file says it stores.
        baseline_shift: What must be added so that uncorrelated values are 1.
        findings: What opening noticed.
    """

    path: str
    layout: Layout
    bins: tuple[Bin, ...]
    dt: float
    t: FloatArray
    details: Mapping[str, object]
    matrices: ReadMatrices = field(repr=False)
    digest: Callable[[], str] = field(repr=False)
    populated: Populated = Populated.UNKNOWN
    baseline_shift: float = 0.0
    findings: tuple[Finding, ...] = ()

    @property
    def n_frames(self) -> int:
        """Number of frames of the matrices, N."""
        return len(self.t)

    def load(
        self,
        indices: Iterable[int] | None = None,
        *,
        frames: tuple[int, int | None] | None = None,
        asymmetric: Asymmetric | str = Asymmetric.REFUSE,
    ) -> TwoTimeData:
        """Read some matrices, and of them only a window of frames.

        Args:
            indices: Positions in ``bins``; None for all.
            frames: First and last frame, counted from 1, both included; None for all,
                and None in place of the last for those up to the end.
            asymmetric: ``refuse`` full matrices whose halves differ, or ``average`` the halves.

        Returns:
            The data, with NaN where the file has NaN and every frame marked as fitted.

        Raises:
            DataError: If a matrix cannot be read, is empty or asymmetric, or if an
                argument names what the file does not have.
        """
        chosen = self._chosen(indices)
        window = self._window(frames)
        policy = parse_choice(Asymmetric, asymmetric, "asymmetric")
        size = window.stop - window.start
        # A shift would cost float32 values their last digits.
        c2 = np.empty((0, size, size), np.float64 if self.baseline_shift else np.float32)
        findings = list(self.findings)
        matrices = self.matrices(chosen, window)
        for row, index in enumerate(chosen):
            completion, found = self._examine(next(matrices), self.bins[index], window, policy)
            c2 = _with_room(c2, len(chosen), completion)
            completion.fill(c2[row])
            findings.extend(found)
            # Let go of the stored matrix before the next one is read.
            del completion
        if self.baseline_shift:
            c2 += self.baseline_shift
        return TwoTimeData(
            c2=c2,
            t=self.t[window],
            dt=self.dt,
            frames=np.arange(window.start + 1, window.stop + 1),
            bins=tuple(self.bins[index] for index in chosen),
            frame_mask=np.ones(size, dtype=bool),
            provenance=Provenance(self.path, self.layout, self.digest(), dict(self.details)),
            diagonal_is_raw=diagonal_is_raw(c2),
            findings=tuple(findings),
        )

    def _chosen(self, indices: Iterable[int] | None) -> list[int]:
        chosen = list(range(len(self.bins)) if indices is None else indices)
        wrong = [index for index in chosen if not 0 <= index < len(self.bins)]
        if wrong or not chosen:
            raise DataError(
                f"no matrix at positions {wrong}" if wrong else "no matrix was asked for",
                where=self.path,
                allowed=f"0 to {len(self.bins) - 1}",
            )
        return chosen

    def _window(self, frames: tuple[int, int | None] | None) -> slice:
        start, last = (1, None) if frames is None else frames
        end = self.n_frames if last is None else last
        if not 1 <= start < end <= self.n_frames:
            raise DataError(
                f"frames {start} to {end} cannot be taken",
                where=self.path,
                allowed=f"at least two frames within 1 to {self.n_frames}",
            )
        return slice(start - 1, end)

    def _examine(
        self, stored: NDArray[np.generic], which: Bin, window: slice, policy: Asymmetric
    ) -> tuple[Completion, tuple[Finding, ...]]:
        found = examine(stored, self.populated)
        if found is None:
            raise DataError(
                f"{which} holds no value off its diagonal in frames "
                f"{window.start + 1} to {window.stop}",
                where=self.path,
                remedy="Leave this bin out",
            )
        if not found.asymmetry.significant:
            return found, ()
        text = _asymmetry_text(which, found.asymmetry, window.start + 1)
        if policy is Asymmetric.REFUSE:
            raise DataError(
                text,
                where=self.path,
                allowed="halves that agree to rounding",
                remedy="Find out which half is right; for their mean, set asymmetric to average "
                "(an argument of load and from_arrays; experimental_data.asymmetric in a run "
                "file), or average the matrices themselves",
            )
        advice = "Ask the author of the file why the halves differ; their mean is used here."
        return found, (Finding("asymmetry_averaged", "warning", f"{text}.", advice),)


def _with_room(c2: StoredArray, count: int, completion: Completion) -> StoredArray:
    """Return room for ``count`` matrices, with what was in ``c2``, for one more of them."""
    kind, stored = np.promote_types(c2.dtype, completion.dtype), completion.stored
    if len(c2):
        return c2.astype(kind, copy=False)
    # A single matrix is completed where it is.
    own = stored.flags.writeable and stored.flags.c_contiguous
    if count == 1 and own and stored.dtype == kind:
        return stored.astype(kind, copy=False)[None]
    return np.empty((count, *c2.shape[1:]), kind)


def _asymmetry_text(which: Bin, asymmetry: Asymmetry, first: int) -> str:
    return (
        f"the halves of {which} differ by up to {asymmetry.difference:.3g} "
        f"({asymmetry.difference / asymmetry.scale:.2g} of the largest value), "
        f"at frames {asymmetry.row + first} and {asymmetry.column + first}"
    )


def one_q(values: FloatArray) -> bool:
    """Whether all q, shape (n,), agree to within ``COMMON_Q_RTOL`` of their mean."""
    return bool(np.ptp(values) <= COMMON_Q_RTOL * values.mean())


def check_time_axis(t: FloatArray, where: str) -> None:
    """Refuse frame times in s, shape (N,), that are not finite and increasing.

    Raises:
        DataError: With the first frame that is out of order.
    """
    wrong = np.flatnonzero(~np.isfinite(t))
    if len(wrong) == 0:
        wrong = np.flatnonzero(np.diff(t) <= 0) + 1
    if len(wrong):
        raise DataError(
            f"the time axis has {t[wrong[0]]} s at position {wrong[0] + 1} of {len(t)}",
            where=where,
            allowed="finite, increasing times",
        )


def parse_choice(kind: type[_Choice], value: str, argument: str) -> _Choice:
    """Turn a word from a user into a member of an enum.

    Raises:
        DataError: If the word is none of the enum's values.
    """
    try:
        return kind(value)
    except ValueError as error:
        words = ", ".join(member.value for member in kind)
        raise DataError(f"{value!r} is not known", where=argument, allowed=words) from error
