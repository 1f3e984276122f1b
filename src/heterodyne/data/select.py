"""Choosing frames, one q and angles from a two-time file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import StrEnum

import numpy as np

from heterodyne._errors import DataError
from heterodyne._typing import BoolArray, IntArray, StoredArray
from heterodyne.core.rows import row_slices
from heterodyne.data.findings import Finding
from heterodyne.data.two_time import (
    COMMON_Q_RTOL,
    Asymmetric,
    Bin,
    TwoTimeData,
    TwoTimeFile,
    one_q,
    parse_choice,
)

ANGLE_ATOL = 1e-6
"""How far outside a range an angle in degrees may lie and still count as on its edge."""

_NAMED = 20


class TimeOrigin(StrEnum):
    """What frame times count from."""

    ABSOLUTE = "absolute"
    WINDOW = "window"


def select(
    file: TwoTimeFile,
    *,
    q: float | None = None,
    q_tolerance: float = 0.02,
    phi_ranges: Sequence[tuple[float, float]] = (),
    frames: tuple[int, int | None] | None = None,
    bad_frames: Iterable[int] = (),
    time_origin: TimeOrigin | str = TimeOrigin.ABSOLUTE,
    asymmetric: Asymmetric | str = Asymmetric.REFUSE,
) -> TwoTimeData:
    """Read the matrices of one q in some ranges of angle, cut to a window of frames.

    Args:
        file: Where to read from.
        q: Wavevector in 1/Å, of which the nearest in the file is taken; None where
            the file has only one.
        q_tolerance: Largest relative distance of the nearest q.
        phi_ranges: Pairs of first and last angle in degrees, ends included. Angles are
            equal modulo 360; a range whose first angle is the larger runs through the wrap.
            Without ranges all angles are taken.
        frames: First and last frame, counted from 1, both included; None for all, and
            None in place of the last for those up to the end.
        bad_frames: Frames of the file that are kept but excluded from fits, counted from 1;
            ``c2_with_gaps`` of the data tells fit functions of them.
        time_origin: ``absolute`` keeps the file's times; ``window`` puts the first
            frame of the window at dt.
        asymmetric: ``refuse`` full matrices whose halves differ, or ``average`` the halves.

    Returns:
        The data; its notes name every bin taken.

    Raises:
        DataError: If nothing is selected, or a frame to be fitted holds NaN.
    """
    origin = parse_choice(TimeOrigin, time_origin, "time_origin")
    chosen, notes, findings = _choose_q(file, q, q_tolerance)
    chosen = _choose_angles(file, chosen, phi_ranges)
    data = file.load(chosen, frames=frames, asymmetric=asymmetric)
    bad = _checked_frames(bad_frames, file.n_frames, file.path)
    t = data.t
    if origin is TimeOrigin.WINDOW:
        t = t - t[0] + data.dt
    details = dict(data.provenance.details)
    if origin is TimeOrigin.WINDOW:
        details["time_origin"] = origin.value
    details |= {"t_first": float(t[0]), "frames": [int(data.frames[0]), int(data.frames[-1])]}
    notes += [f"Took {one}." for one in data.bins]
    notes.append(
        f"Took frames {data.frames[0]} to {data.frames[-1]} of {file.n_frames}, "
        f"the first at {t[0]:g} s (time origin: {details['time_origin']})."
    )
    data = replace(
        data,
        t=t,
        provenance=replace(data.provenance, details=details),
        notes=(*data.notes, *notes),
        findings=(*data.findings, *findings),
    )
    return exclude_frames(data, [frame for frame in bad if frame in data.frames])


def _choose_q(
    file: TwoTimeFile, q: float | None, tolerance: float
) -> tuple[list[int], list[str], list[Finding]]:
    """Positions of the bins at the q asked for, with what there is to say about it."""
    values = np.array([one.q for one in file.bins])
    if q is None:
        if not one_q(values):
            raise DataError(
                "the file has more than one q and none was chosen",
                where=file.path,
                allowed=listed_q(file.bins),
                remedy="Choose one: the argument q, or analyzer_parameters.scattering.wavevector_q "
                "in a run file",
            )
        return list(range(len(values))), [], []
    if not (np.isfinite(q) and q > 0):
        raise DataError(f"q is {q} 1/Å", where="q", allowed="a positive number in 1/Å")
    nearest = float(values[np.argmin(np.abs(values - q))])
    distance = abs(nearest - q) / q
    if distance > tolerance:
        raise DataError(
            f"the q nearest to {q:.6g} 1/Å is {nearest:.6g} 1/Å, {distance:.2%} away",
            where=file.path,
            allowed=f"a distance up to {tolerance:.2%}; the file has {listed_q(file.bins)}",
            remedy="Choose a q of the file, or raise q_tolerance",
        )
    near = np.abs(values - nearest) <= COMMON_Q_RTOL / 2 * nearest
    notes = [f"Asked for q = {q:.6g} 1/Å, took q = {nearest:.6g} 1/Å, {distance:.2%} away."]
    left = ~near & (np.abs(values - q) <= tolerance * q)
    return np.flatnonzero(near).tolist(), notes, _left_out(file.bins, left)


def _left_out(bins: Sequence[Bin], left: BoolArray) -> list[Finding]:
    if not left.any():
        return []
    names = ", ".join(str(one) for one, out in zip(bins, left, strict=True) if out)
    text = f"Within the tolerance, but at another q, and therefore not taken: {names}."
    advice = "Fit each q on its own, since the model holds one q."
    return [Finding("other_q_near", "info", text, advice)]


def listed_q(bins: Sequence[Bin]) -> str:
    """Name the wavevectors of bins, the first of them where there are many."""
    values = sorted({f"{one.q:.6g}" for one in bins}, key=float)
    more = f", ... ({len(values)} in all)" if len(values) > _NAMED else ""
    return f"q = {', '.join(values[:_NAMED])}{more} 1/Å"


def _choose_angles(
    file: TwoTimeFile, chosen: list[int], ranges: Sequence[tuple[float, float]]
) -> list[int]:
    if not ranges:
        return chosen
    angles = [file.bins[index].phi for index in chosen]
    kept = [
        index
        for index, phi in zip(chosen, angles, strict=True)
        if phi is not None and any(in_range(phi, low, high) for low, high in ranges)
    ]
    if not kept:
        asked = ", ".join(f"{low:g} to {high:g}" for low, high in ranges)
        known = ", ".join(f"{phi:g}" for phi in angles if phi is not None)
        raise DataError(
            f"no angle lies in {asked} degrees",
            where=file.path,
            allowed=f"the file has phi = {known} degrees at this q"
            if known
            else "the file gives no angles, so none can be chosen",
            remedy="Change phi_ranges" if known else "Leave phi_ranges out",
        )
    return kept


def in_range(phi: float, low: float, high: float) -> bool:
    """Whether an angle lies on the arc from ``low`` up to ``high``, all in degrees.

    Angles are equal modulo 360. A range of 360 degrees or more holds every angle.
    """
    width = 360.0 if high - low >= 360.0 else (high - low) % 360.0
    above = (phi - low) % 360.0
    return above <= width + ANGLE_ATOL or above >= 360.0 - ANGLE_ATOL


def exclude_frames(data: TwoTimeData, bad_frames: Iterable[int]) -> TwoTimeData:
    """Exclude frames from fits and make the rest safe for arithmetic.

    Values that are not finite and not fitted are replaced by 0: those of excluded
    frames, of frames at t = 0 and of the diagonal.

    Args:
        data: Data as loaded, NaN included.
        bad_frames: Frames to exclude, counted from 1 as in the file.

    Returns:
        The data without NaN.

    Raises:
        DataError: If a bad frame is not in the data, or a pair to be fitted is not finite.
    """
    bad = _checked_frames(bad_frames, int(data.frames[-1]), data.provenance.path)
    mask = data.frame_mask & ~np.isin(data.frames, bad)
    details = dict(data.provenance.details) | {"bad_frames": data.frames[~mask].tolist()}
    masked = replace(data, frame_mask=mask, provenance=replace(data.provenance, details=details))
    count = 0
    for one, matrix in zip(masked.bins, masked.c2, strict=True):
        found, among_fitted = _count_unknown(matrix, masked.fitted)
        if among_fitted:
            _refuse_unknown(masked, one, ~np.isfinite(matrix))
        count += found
    if count == 0:
        return masked
    text = (
        f"{count} values that are not finite, all of excluded frames "
        "or on the diagonal, were set to 0."
    )
    finding = Finding("nan_replaced", "info", text, "Nothing needs to be done; none is fitted.")
    return replace(masked, c2=_without_unknown(masked.c2), findings=(*masked.findings, finding))


def _count_unknown(matrix: StoredArray, fitted: BoolArray) -> tuple[int, bool]:
    """Number of values that are not finite, and whether one is of a pair to be fitted.

    Args:
        matrix: Values, shape (N, N).
        fitted: Frames to be fitted, shape (N,).
    """
    count, among_fitted = 0, False
    for rows in row_slices(*matrix.shape):
        unknown = ~np.isfinite(matrix[rows])
        found = int(np.count_nonzero(unknown))
        count += found
        if found and not among_fitted:
            pairs = unknown & fitted & fitted[rows, None]
            np.fill_diagonal(pairs[:, rows.start :], False)
            among_fitted = bool(pairs.any())
    return count, among_fitted


def _without_unknown(c2: StoredArray) -> StoredArray:
    """Return a copy of matrices, shape (n, N, N), with 0 for what is not finite."""
    copy = c2.copy()
    for matrix in copy:
        for rows in row_slices(*matrix.shape):
            block = matrix[rows]
            block[~np.isfinite(block)] = 0.0
    return copy


def _checked_frames(bad_frames: Iterable[int], last: int, where: str) -> list[int]:
    bad = sorted(set(bad_frames))
    wrong = [frame for frame in bad if not 1 <= frame <= last]
    if wrong:
        raise DataError(
            f"the bad frame {wrong[0]} does not exist", where=where, allowed=f"frames 1 to {last}"
        )
    return bad


def _refuse_unknown(data: TwoTimeData, one: Bin, unknown: BoolArray) -> None:
    """Refuse a matrix, shape (N, N), that is not finite where it is to be fitted."""
    fitted = data.fitted
    pairs = unknown & fitted & fitted[:, None]
    np.fill_diagonal(pairs, False)
    found = data.frames[_cover(pairs)]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    named = ", ".join(map(str, found[:_NAMED].tolist()))
    raise DataError(
        f"{one} is not finite in frames {named}{more}",
        where=data.provenance.path,
        allowed="finite values in all frames that are fitted",
        remedy=f"Exclude them with bad_frames: [{named}]{' and so on' if more else ''}",
    )


def _cover(pairs: BoolArray) -> IntArray:
    """Few rows that touch every True of a symmetric matrix, shape (N, N), in order.

    A frame without data makes every other frame's row unknown at one place, so the
    frames to name are found by taking the fullest row, again and again.
    """
    left = pairs.copy()
    counts = left.sum(axis=1)
    rows = []
    while counts.any():
        row = int(np.argmax(counts))
        rows.append(row)
        counts = counts - left[row]
        left[row], left[:, row] = False, False
        counts[row] = 0
    return np.sort(np.array(rows, dtype=np.int64))
