"""Units as beamline files spell them."""

from __future__ import annotations

import math
import unicodedata

from heterodyne._errors import DataError

_ANGSTROM = ("å", "a", "angstrom", "angstroms", "ang")
_NANOMETRE = ("nm", "nanometer", "nanometers", "nanometre", "nanometres")
_Q = {f"1/{name}": 1.0 for name in _ANGSTROM} | {f"{name}-1": 1.0 for name in _ANGSTROM}
_Q |= {f"1/{name}": 0.1 for name in _NANOMETRE} | {f"{name}-1": 0.1 for name in _NANOMETRE}
_ANGLE: dict[str, float] = {
    **dict.fromkeys(("deg", "degs", "degree", "degrees", "°"), 1.0),
    **dict.fromkeys(("rad", "radian", "radians"), 180.0 / math.pi),
}
_TIME: dict[str, float] = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("us", "μs", "microsecond", "microseconds"), 1e-6),
}
_ENERGY = {"kev": 1.0, "ev": 1e-3}


def q_factor(unit: str | None, where: str) -> float:
    """Factor from a unit of q to 1/Å; a missing unit means 1/Å.

    Raises:
        DataError: If the unit is neither 1/Å nor 1/nm.
    """
    return _factor(_Q, unit, where, "q in 1/Å or 1/nm")


def angle_factor(unit: str | None, where: str) -> float:
    """Factor from a unit of angle to degrees; a missing unit means degrees.

    Raises:
        DataError: If the unit is neither degrees nor radians.
    """
    return _factor(_ANGLE, unit, where, "angles in degrees or radians")


def time_factor(unit: str | None, where: str) -> float:
    """Factor from a unit of time to s; a missing unit means s.

    Raises:
        DataError: If the unit is none of s, ms and µs.
    """
    return _factor(_TIME, unit, where, "times in s, ms or µs")


def energy_factor(unit: str | None) -> float | None:
    """Factor from a unit of energy to keV; None for a unit other than keV and eV."""
    return _ENERGY.get(_normal(unit)) if unit else None


def _factor(table: dict[str, float], unit: str | None, where: str, allowed: str) -> float:
    if unit is None or not unit.strip():
        return 1.0
    try:
        return table[_normal(unit)]
    except KeyError:
        raise DataError(f"the unit {unit!r} is not known", where=where, allowed=allowed) from None


def _normal(unit: str) -> str:
    """Lower-case spelling without blanks, powers and mark-up; superscripts become digits."""
    plain = unicodedata.normalize("NFKC", unit).replace("−", "-").lower()
    return "".join(c for c in plain if c not in " \t^*{}()$_\\")
