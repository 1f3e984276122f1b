"""Coordinates of m exp(a x) + offset along what the data inform.

Transport coefficients and velocity follow m (t/t0)**a + offset, the sample fraction
m exp(a (t - t0)) + offset. With x = log(t/t0) or t - t0 all of them are

    value(x) = level + m (exp(a x) - 1),      level = m + offset,

and the data inform the level at t0, the slope g = a m there and, through the curvature
g**2 / (2 m), the amplitude m. (level, log m, g) is smooth at a = 0, where m is free, and
where the offset makes the value negative. The Jacobian determinant of (log m, a, offset)
is 1/m. Walls of the documented bounds are imposed on the loosest coordinate that can
carry them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from heterodyne._typing import JaxArray
from heterodyne.config.parameter_space import Parameter
from heterodyne.core._jax import jnp
from heterodyne.optimization.coordinates.walls import bend, unbend

# exp(-600) keeps amplitudes positive in float64; no fraction or rate comes near it.
LOG_TINY = -600.0
WALL = 0.05
LOG_WALL = 0.3


class CurveValues(NamedTuple):
    """Amplitude, exponent and offset at the reference time."""

    log_amplitude: JaxArray
    exponent: JaxArray
    offset: JaxArray


@dataclass(frozen=True)
class CurveChart:
    """Level, log amplitude and slope of m exp(a x) + offset, any of them fixed.

    Attributes:
        exponent: Its parameter (alpha, beta or f1).
        offset: Its parameter.
        log_prefactor_range: Logarithms of the bounds of the prefactor, equal where it
            is fixed, None where another coordinate carries them.
        prefactor_varies: Whether the amplitude is free.
    """

    exponent: Parameter
    offset: Parameter
    log_prefactor_range: tuple[float, float] | None
    prefactor_varies: bool

    @property
    def labels(self) -> tuple[str, ...]:
        """What each coordinate is."""
        varies = (self.offset.vary, self.prefactor_varies, self.exponent.vary)
        words = ("level", "log amplitude", "slope" if all(varies) else "exponent")
        return tuple(w for w, v in zip(words, varies, strict=True) if v)

    @property
    def _sheared(self) -> bool:
        """Whether the slope replaces the exponent."""
        return self.exponent.vary and self.offset.vary and self.prefactor_varies

    @property
    def _exponent_width(self) -> float:
        return WALL * (self.exponent.max - self.exponent.min)

    @property
    def _offset_width(self) -> float:
        return 0.4 * WALL * (self.offset.max - self.offset.min)

    def forward(self, y: JaxArray, shift: JaxArray | float) -> tuple[CurveValues, JaxArray]:
        """Return amplitude, exponent and offset, and log |d(log m, a, offset) / d y|.

        Args:
            y: Coordinates in the order of ``labels``.
            shift: log(prefactor) = log m - exponent * shift.
        """
        rest = list(y)
        log_det = jnp.zeros(())
        exponent = jnp.asarray(self.exponent.value)
        if self.exponent.vary and not self._sheared:
            limits = (self.exponent.min, self.exponent.max, self._exponent_width)
            exponent, slope = bend(rest.pop(), *limits)
            log_det += slope
        lowest, highest = self._amplitude_range(exponent, shift)
        level = None
        if self.offset.vary:
            level, slope = bend(rest[0], *self._level_walls(lowest, highest))
            log_det += slope
        log_m = lowest
        if self.prefactor_varies:
            walls = self._amplitude_walls(level, lowest, highest)
            log_m, slope = bend(rest[1 if self.offset.vary else 0], *walls)
            log_det += slope
        if self._sheared:
            walls = self._slope_walls(log_m, shift)
            g, slope = bend(rest[2], *walls)
            exponent = g * jnp.exp(-log_m)
            log_det += slope - log_m
        offset = jnp.asarray(self.offset.value) if level is None else level - jnp.exp(log_m)
        return CurveValues(log_m, exponent, offset), log_det

    def inverse(self, core: CurveValues, shift: JaxArray | float) -> JaxArray:
        """Return the coordinates of amplitude, exponent and offset."""
        amplitude = jnp.exp(core.log_amplitude)
        level = core.offset + amplitude
        lowest, highest = self._amplitude_range(core.exponent, shift)
        y = []
        if self.offset.vary:
            y.append(unbend(level, *self._level_walls(lowest, highest)))
        if self.prefactor_varies:
            walls = self._amplitude_walls(level if self.offset.vary else None, lowest, highest)
            y.append(unbend(core.log_amplitude, *walls))
        if self._sheared:
            walls = self._slope_walls(core.log_amplitude, shift)
            y.append(unbend(core.exponent * amplitude, *walls))
        elif self.exponent.vary:
            limits = (self.exponent.min, self.exponent.max, self._exponent_width)
            y.append(unbend(core.exponent, *limits))
        return jnp.stack(y) if y else jnp.zeros(0)

    def _amplitude_range(
        self, exponent: JaxArray, shift: JaxArray | float
    ) -> tuple[JaxArray, JaxArray]:
        """Bounds of log m that the prefactor's bounds leave, whatever the exponent."""
        if self.log_prefactor_range is None:
            return jnp.asarray(LOG_TINY), jnp.asarray(-LOG_TINY)
        low, high = self.log_prefactor_range
        if not self._sheared:
            return low + exponent * shift, high + exponent * shift
        ends = jnp.stack([self.exponent.min * shift, self.exponent.max * shift])
        return low + ends.min(), high + ends.max()

    def _level_walls(self, lowest: JaxArray, highest: JaxArray) -> tuple[JaxArray, JaxArray, float]:
        return (
            self.offset.min + jnp.exp(lowest),
            self.offset.max + jnp.exp(highest),
            self._offset_width,
        )

    def _amplitude_walls(
        self, level: JaxArray | None, lowest: JaxArray, highest: JaxArray
    ) -> tuple[JaxArray, JaxArray, float]:
        if level is None:
            return lowest, highest, LOG_WALL
        tiny = math.exp(LOG_TINY)
        at_least = jnp.log(jnp.maximum(level - self.offset.max, tiny))
        at_most = jnp.log(jnp.maximum(level - self.offset.min, tiny))
        return jnp.maximum(lowest, at_least), jnp.minimum(highest, at_most), LOG_WALL

    def _slope_walls(
        self, log_m: JaxArray, shift: JaxArray | float
    ) -> tuple[JaxArray, JaxArray, JaxArray]:
        low, high = jnp.asarray(self.exponent.min), jnp.asarray(self.exponent.max)
        if self.log_prefactor_range is not None:
            down = log_m - self.log_prefactor_range[1]
            up = log_m - self.log_prefactor_range[0]
            safe = jnp.where(shift == 0.0, 1.0, shift)
            ends = jnp.stack([down / safe, up / safe])
            low = jnp.where(shift == 0.0, low, jnp.maximum(low, ends.min()))
            high = jnp.where(shift == 0.0, high, jnp.minimum(high, ends.max()))
        m = jnp.exp(log_m)
        return low * m, high * m, self._exponent_width * m
