"""What every reader does with frame times and with what the user said."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from heterodyne._errors import DataError
from heterodyne._typing import FloatArray
from heterodyne.data.readers import _source
from heterodyne.data.readers._units import energy_factor, time_factor
from heterodyne.data.two_time import Bin

DT_RTOL = 1e-4
"""Relative difference above which two values of dt contradict each other."""

DT_ARGUMENT = "the argument dt"
"""How details name the source of a dt that the user gave and the file lacks."""

UnitRule = Callable[[str | None, str], float]
Key = str | float | Sequence[float]


@dataclass(frozen=True)
class Request:
    """What the user said about a file.

    Attributes:
        path: The file.
        dt: Time between the frames of the matrices in s, if given.
        keys: Names of datasets by role, or values in their place.
    """

    path: str
    dt: float | None = None
    keys: Mapping[str, Key] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dt is not None and not _positive(self.dt):
            raise DataError(f"dt is {self.dt} s", where="dt", allowed="a positive time in s")

    def resolve_dt(self, stored: float | None, where: str) -> tuple[float, str]:
        """Settle the time between frames.

        Args:
            stored: What the file says, in s; None where it says nothing.
            where: Dataset that says it, or should.

        Returns:
            The time between frames in s and where it is from.

        Raises:
            DataError: If there is none, or if file and user disagree.
        """
        known = None if stored is None or not _positive(stored) else stored
        if self.dt is None:
            if known is None:
                seen = "is missing" if stored is None else f"is {stored} s"
                raise DataError(
                    f"the time between frames, {where}, {seen}",
                    where=self.path,
                    allowed="a positive time in s",
                    remedy="Give the time between frames of the two-time matrices in s: "
                    "the argument dt, or analyzer_parameters.dt in a run file",
                )
            return known, where
        if known is None:
            return self.dt, DT_ARGUMENT
        if not math.isclose(self.dt, known, rel_tol=DT_RTOL):
            raise DataError(
                f"dt = {self.dt:g} s from the argument dt contradicts {known:g} s from {where}",
                where=self.path,
                allowed=f"a relative difference up to {DT_RTOL:g}",
                remedy="Leave dt out to use the file's, or correct it",
            )
        return known, where


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def seconds(source: _source.Source, path: str, name: str) -> float:
    """Read a time and convert it to s by its ``units`` attribute."""
    unit = _source.attribute(_source.dataset(source, path, name), "units")
    return _source.scalar(source, path, name) * time_factor(unit, f"{path}:{name}")


def frame_times(N: int, dt: float) -> FloatArray:
    """Times in s of frames 1 to N, shape (N,), where frame i is at i dt."""
    return np.arange(1, N + 1, dtype=np.float64) * dt


def time_details(t: FloatArray, origin: str, dt_source: str) -> dict[str, object]:
    """The facts about the time axis that every result keeps.

    Args:
        t: Frame times in s, shape (N,).
        origin: ``absolute`` where times follow from frame numbers, ``file`` where they were read.
        dt_source: Where dt is from.
    """
    return {"time_origin": origin, "t_first": float(t[0]), "dt_source": dt_source}


def energy_details(source: _source.Source, path: str, name: str) -> dict[str, object]:
    """The photon energy in keV if the file has it, else nothing; odd units are kept as text."""
    if name not in source:
        return {}
    unit = _source.attribute(_source.dataset(source, path, name), "units")
    value = _source.scalar(source, path, name)
    factor = energy_factor(unit)
    return {"energy": f"{value:g} {unit}"} if factor is None else {"energy_keV": value * factor}


def of_labels(
    source: _source.Source, path: str, name: str, labels: Sequence[int], rule: UnitRule
) -> FloatArray:
    """Take the entries of some bins from a list that has one entry per bin of the map.

    Args:
        source: The open file.
        path: Its path.
        name: Dataset with the list.
        labels: Bins, counted from 1.
        rule: Factor from the unit of the list to the one wanted.

    Returns:
        The entries in the wanted unit, shape (n,).

    Raises:
        DataError: If the list is too short for a label.
    """
    values = converted(source, path, name, rule)
    wrong = [label for label in labels if not 1 <= label <= len(values)]
    if wrong:
        raise DataError(
            f"there is a matrix of bin {wrong[0]}, but the list has {len(values)} entries",
            where=f"{path}:{name}",
            allowed=f"bins 1 to {len(values)}",
        )
    return values[[label - 1 for label in labels]]


def converted(source: _source.Source, path: str, name: str, rule: UnitRule) -> FloatArray:
    """All values of a dataset, converted by its ``units`` attribute, shape (n,)."""
    unit = _source.attribute(_source.dataset(source, path, name), "units")
    return _source.vector(source, path, name) * rule(unit, f"{path}:{name}")


def make_bins(
    labels: Sequence[int], q: FloatArray, phi: FloatArray | None, where: str
) -> tuple[Bin, ...]:
    """Combine labels with q in 1/Å and phi in degrees, both of shape (n,).

    Raises:
        DataError: If a q is not a positive number or a phi not a number.
    """
    angles: list[float | None] = [None] * len(labels) if phi is None else [float(x) for x in phi]
    bins = tuple(Bin(int(k), float(v), a) for k, v, a in zip(labels, q, angles, strict=True))
    for one in bins:
        if not _positive(one.q):
            raise DataError(f"{one} has no usable q", where=where, allowed="q > 0 in 1/Å")
        if one.phi is not None and not math.isfinite(one.phi):
            raise DataError(f"{one} has no usable angle", where=where, allowed="phi in degrees")
    return bins
