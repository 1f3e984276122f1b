"""Coordinates of four curves m exp(a x) + offset along what the data inform.

Transport coefficients and velocity follow m (t/t0)**a + offset, the sample fraction
m exp(a (t - t0)) + offset. With x = log(t/t0) or t - t0 all of them are

    value(x) = level + m (exp(a x) - 1),      level = m + offset,

and the data inform level and slope g = a m and, through the curvature, the amplitude m. (level,
log m, g) is smooth at a = 0, where m is free, and where the offset makes the value negative.
The Jacobian determinant of (log m, a, offset) is 1/m. Walls of the documented bounds are imposed
on the loosest coordinate that can carry them. The four curves are computed as vectors of length 4.

Sampled are not level and slope at t0 but mean and slope between two knots x = -h and h,

    m (cosh(a h) - 1) + level,      m sinh(a h) / h,

because a change of curvature moves the former and hardly the latter: at the nodes of a Gauss
rule a parabola has its mean and its mean slope.

Priors in which f1 f2 is large let log m of the fraction reach any size, where the fraction is
constant. Level and slope of the fraction therefore hold, in place of m, a function that grows no
faster than log m where the fraction is clipped. Both are shears, so that determinants stay exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from heterodyne._typing import BoolArray, FloatArray, JaxArray
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jnp
from heterodyne.optimization.coordinates.walls import bend, unbend

# What a fraction or rate of less than exp(-200) adds is nothing, and second derivatives stay in
# range.
LOG_TINY = -200.0
# Beyond the log amplitude of any fraction, so that the priors of f0, f1 and f2 bound it.
_FAR = 1e9
# Log amplitudes from which on the curves' levels grow with log m alone. A fraction is clipped
# long before; no rate comes near.
_CLIPPED = np.array([-LOG_TINY, -LOG_TINY, -LOG_TINY, 3.0])
WALL = 0.05
LOG_WALL = 0.3
# Product of exponent and distance of the knots beyond which digits would be lost: there the
# curve grows sevenfold from the reference to a knot. A fraction, which is 1 at most, may grow
# as long as it is below 1 at the knots.
_STRAIGHT, _STEEPEST = 2.0, 100.0

PREFACTORS = ("D0_ref", "D0_sample", "v0", "f0")
EXPONENTS = ("alpha_ref", "alpha_sample", "beta", "f1")
OFFSETS = ("D_offset_ref", "D_offset_sample", "v_offset", "f3")
CURVE_PARAMETERS = tuple(zip(PREFACTORS, EXPONENTS, OFFSETS, strict=True))
"""Prefactor, exponent and offset of J of reference and sample, of the velocity, the fraction."""


class CurveValues(NamedTuple):
    """Logarithm of the amplitude at the reference time, exponent, offset: shape (4,)."""

    log_amplitude: JaxArray
    exponent: JaxArray
    offset: JaxArray


class CurveCoordinates(NamedTuple):
    """Coordinates of the amplitude, exponent or slope, and level, shape (4,) each."""

    amplitude: JaxArray
    exponent: JaxArray
    level: JaxArray


class _Settings(NamedTuple):
    """Bounds, values and what varies for one kind of parameter, shape (4,) each."""

    low: FloatArray
    high: FloatArray
    value: FloatArray
    vary: BoolArray

    @classmethod
    def of(cls, space: ParameterSpace, names: tuple[str, ...]) -> _Settings:
        rows = [space[n] for n in names]
        columns = [[p.min for p in rows], [p.max for p in rows], [p.value for p in rows]]
        low, high, value = map(np.array, columns)
        return cls(low, high, value, np.array([p.vary for p in rows]))


@dataclass(frozen=True)
class Curves:
    """The chart of the four curves.

    Attributes:
        space: Bounds, values and what varies.
        ridge: Whether f0 and f2 both vary, so that f2's axis carries the bounds of f0.
        knots: Distance in x from the reference of the two points at which level and slope
            are taken.
        charts: Whether slope and level take the places of exponent and offset, by curve.
    """

    space: ParameterSpace
    ridge: bool
    knots: tuple[float, float, float, float]
    charts: tuple[bool, bool, bool, bool] = (True, True, True, True)

    @cached_property
    def prefactor(self) -> _Settings:
        """Settings of the prefactors, as logarithms; a fixed one is its own range."""
        raw = _Settings.of(self.space, PREFACTORS)
        tiny = math.exp(LOG_TINY)
        low, high, value = (np.log(np.maximum(x, tiny)) for x in raw[:3])
        free = np.array([False, False, False, self.ridge])
        low = np.where(free, -_FAR, np.where(raw.vary, low, value))
        high = np.where(free, _FAR, np.where(raw.vary, high, value))
        return _Settings(low, high, value, raw.vary)

    @cached_property
    def exponent(self) -> _Settings:
        """Settings of the exponents."""
        return _Settings.of(self.space, EXPONENTS)

    @cached_property
    def offset(self) -> _Settings:
        """Settings of the offsets."""
        return _Settings.of(self.space, OFFSETS)

    @cached_property
    def sheared(self) -> BoolArray:
        """Where the slope replaces the exponent: all three parameters vary."""
        vary = self.prefactor.vary & self.exponent.vary & self.offset.vary
        return vary & np.array(self.charts)

    def _wall_shift(self, shift: JaxArray | FloatArray) -> JaxArray:
        return jnp.where(np.array([False, False, False, self.ridge]), 0.0, shift)

    def forward(
        self, y: CurveCoordinates, shift: JaxArray | FloatArray
    ) -> tuple[CurveValues, JaxArray]:
        """Return the curves, and log |d(log m, a, offset) / d y| over what varies.

        Args:
            y: Coordinates; those of fixed parameters are ignored.
            shift: log(prefactor) = log m - exponent * shift, shape (4,).
        """
        e, o = self.exponent, self.offset
        alone = e.vary & ~self.sheared
        y, of_knots = self._at_reference(y)
        exponent, log_slopes = bend(y.exponent, e.low, e.high, WALL * (e.high - e.low))
        exponent = jnp.where(alone, exponent, e.value)
        log_det = of_knots + jnp.where(alone, log_slopes, 0.0)

        lowest, highest = self._amplitude_range(exponent, shift)
        level, log_slopes = bend(y.level, *self._level_walls(lowest, highest))
        log_det += jnp.where(o.vary, log_slopes, 0.0)

        walls = self._amplitude_walls(level, lowest, highest)
        log_m, log_slopes = bend(y.amplitude, *walls)
        log_m = jnp.where(self.prefactor.vary, log_m, lowest)
        log_det += jnp.where(self.prefactor.vary, log_slopes, 0.0)

        slope, log_slopes = bend(y.exponent, *self._slope_walls(log_m, shift))
        exponent = jnp.where(self.sheared, slope / _growth(log_m), exponent)
        log_det += jnp.where(self.sheared, log_slopes - _log_growth(log_m), 0.0)
        offset = jnp.where(o.vary, level - _height(log_m), o.value)
        return CurveValues(log_m, exponent, offset), log_det.sum()

    def inverse(self, values: CurveValues, shift: JaxArray | FloatArray) -> CurveCoordinates:
        """Return the coordinates of curves inside their bounds."""
        e = self.exponent
        log_m, exponent, offset = values
        lowest, highest = self._amplitude_range(exponent, shift)
        level = offset + _height(log_m)
        y_level = unbend(level, *self._level_walls(lowest, highest))
        y_amplitude = unbend(log_m, *self._amplitude_walls(level, lowest, highest))
        alone = unbend(exponent, e.low, e.high, WALL * (e.high - e.low))
        slope = unbend(exponent * _growth(log_m), *self._slope_walls(log_m, shift))
        return self._at_knots(
            CurveCoordinates(y_amplitude, jnp.where(self.sheared, slope, alone), y_level)
        )

    def _at_reference(self, y: CurveCoordinates) -> tuple[CurveCoordinates, JaxArray]:
        """Take level and slope from the knots to the reference, where bounds are imposed.

        Bounds bend coordinates near them only, and this map does not know of them.

        Returns:
            Coordinates at the reference, and log of the derivative of the slope.
        """
        m, knots = _growth(y.amplitude), np.array(self.knots)
        most = _most_turn(m)
        turn, log_slope = _arcsinh(y.exponent * knots / m, most)
        return (
            CurveCoordinates(
                y.amplitude,
                jnp.where(self.sheared, m / knots * turn, y.exponent),
                y.level - jnp.where(self.sheared, m * _cosh_less_one(turn, most), 0.0),
            ),
            jnp.where(self.sheared, log_slope, 0.0),
        )

    def _at_knots(self, y: CurveCoordinates) -> CurveCoordinates:
        """Undo ``_at_reference``."""
        m, knots = _growth(y.amplitude), np.array(self.knots)
        most, turn = _most_turn(m), y.exponent * knots / m
        return CurveCoordinates(
            y.amplitude,
            jnp.where(self.sheared, m / knots * _sinh(turn, most), y.exponent),
            y.level + jnp.where(self.sheared, m * _cosh_less_one(turn, most), 0.0),
        )

    def _amplitude_range(
        self, exponent: JaxArray, shift: JaxArray | FloatArray
    ) -> tuple[JaxArray, JaxArray]:
        """Bounds of log m that the prefactor's bounds leave at any allowed exponent."""
        wall_shift = self._wall_shift(shift)
        ends = (self.exponent.low * wall_shift, self.exponent.high * wall_shift)
        at = exponent * wall_shift
        low = jnp.where(self.sheared, jnp.minimum(*ends), at) + self.prefactor.low
        high = jnp.where(self.sheared, jnp.maximum(*ends), at) + self.prefactor.high
        return low, high

    def _level_walls(
        self, lowest: JaxArray, highest: JaxArray
    ) -> tuple[JaxArray, JaxArray, FloatArray]:
        o = self.offset
        return _height(lowest) + o.low, _height(highest) + o.high, 0.4 * WALL * (o.high - o.low)

    def _amplitude_walls(
        self, level: JaxArray, lowest: JaxArray, highest: JaxArray
    ) -> tuple[JaxArray, JaxArray, float]:
        o = self.offset
        at_least, at_most = _log_amplitude(level - o.high), _log_amplitude(level - o.low)
        low = jnp.where(o.vary, jnp.maximum(lowest, at_least), lowest)
        high = jnp.where(o.vary, jnp.minimum(highest, at_most), highest)
        # Where the prefactor is fixed the range is a point; the result is not used then.
        return low, jnp.where(self.prefactor.vary, high, low + 1.0), LOG_WALL

    def _slope_walls(
        self, log_m: JaxArray, shift: JaxArray | FloatArray
    ) -> tuple[JaxArray, JaxArray, JaxArray]:
        e, p = self.exponent, self.prefactor
        wall_shift = self._wall_shift(shift)
        flat = wall_shift == 0.0
        inverse = 1.0 / jnp.where(flat, 1.0, wall_shift)
        ends = ((log_m - p.high) * inverse, (log_m - p.low) * inverse)
        low = jnp.where(flat, e.low, jnp.maximum(e.low, jnp.minimum(*ends)))
        high = jnp.where(flat, e.high, jnp.minimum(e.high, jnp.maximum(*ends)))
        m = _growth(log_m)
        low, high = jnp.where(self.sheared, low, -1.0), jnp.where(self.sheared, high, 1.0)
        return low * m, high * m, m * (WALL * (e.high - e.low))


def _log_growth(log_m: JaxArray) -> JaxArray:
    return jnp.clip(log_m, LOG_TINY, _CLIPPED)


def _growth(log_m: JaxArray) -> JaxArray:
    """Return m, within the range in which it makes a difference: shape (4,)."""
    return jnp.exp(_log_growth(log_m))


def _height(log_m: JaxArray) -> JaxArray:
    """Return m, straight in log m where a fraction is clipped: shape (4,)."""
    near = jnp.minimum(log_m, _CLIPPED)
    return jnp.exp(near) * (1.0 + log_m - near)


def _log_amplitude(height: JaxArray) -> JaxArray:
    """Invert ``_height``, shape (4,); far below all amplitudes where there is none."""
    top = np.exp(_CLIPPED)
    known = height > math.exp(LOG_TINY)
    inner = jnp.log(jnp.where(known, jnp.minimum(height, top), 1.0))
    return jnp.where(known, inner + jnp.maximum(height / top - 1.0, 0.0), -_FAR)


def _most_turn(m: JaxArray) -> JaxArray:
    """Product of exponent and distance of the knots up to which curves are exact, shape (4,)."""
    of_fraction = jnp.clip(-jnp.log(m[3]), _STRAIGHT, _STEEPEST)
    return jnp.append(jnp.full(3, _STRAIGHT), of_fraction)


def _sinh(turn: JaxArray, most: JaxArray) -> JaxArray:
    """Sinh up to an argument, and straight from there on."""
    near = jnp.clip(turn, -most, most)
    return jnp.sinh(near) + jnp.cosh(most) * (turn - near)


def _arcsinh(ratio: JaxArray, most: JaxArray) -> tuple[JaxArray, JaxArray]:
    """Return the inverse of ``_sinh``, and the logarithm of its derivative."""
    top = jnp.sinh(most)
    near = jnp.clip(ratio, -top, top)
    turn = jnp.arcsinh(near) + (ratio - near) / jnp.cosh(most)
    return turn, -jnp.log(jnp.hypot(1.0, near))


def _cosh_less_one(turn: JaxArray, most: JaxArray) -> JaxArray:
    """Cosh - 1 up to an argument, and straight from there on."""
    near = jnp.clip(turn, -most, most)
    bent = 2.0 * jnp.sinh(0.5 * near) ** 2
    return bent + jnp.sinh(most) * jnp.abs(turn - near)
