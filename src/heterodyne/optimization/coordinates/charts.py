"""Charts: coordinates of one group of parameters each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from heterodyne._typing import JaxArray
from heterodyne.config.parameter_space import Parameter, PriorKind
from heterodyne.core._jax import jnp
from heterodyne.optimization.coordinates.curve import (
    LOG_TINY,
    LOG_WALL,
    WALL,
    CurveChart,
    CurveValues,
)
from heterodyne.optimization.coordinates.walls import bend, unbend

Values = dict[str, JaxArray]


class Chart(Protocol):
    """Coordinates of a group of parameters.

    Attributes:
        labels: One text per coordinate, for reports.
        names: The parameters that the coordinates determine.
    """

    labels: tuple[str, ...]
    names: tuple[str, ...]

    def forward(self, y: JaxArray) -> tuple[Values, JaxArray]:
        """Return the parameters and log |d parameters / d y|."""
        ...

    def inverse(self, values: Mapping[str, JaxArray]) -> JaxArray:
        """Return the coordinates of parameters inside their bounds."""
        ...


@dataclass(frozen=True)
class ScalarChart:
    """A parameter that is its own coordinate, bent at its bounds."""

    parameter: Parameter

    @property
    def names(self) -> tuple[str, ...]:
        """The parameter."""
        return (self.parameter.info.name,)

    @property
    def labels(self) -> tuple[str, ...]:
        """The parameter."""
        return self.names

    @property
    def _walls(self) -> tuple[float, float, float]:
        p = self.parameter
        return p.min, p.max, WALL * (p.max - p.min)

    def forward(self, y: JaxArray) -> tuple[Values, JaxArray]:
        """Return the parameter and log |d parameter / d y|."""
        x, log_slope = bend(y[0], *self._walls)
        return {self.names[0]: x}, log_slope

    def inverse(self, values: Mapping[str, JaxArray]) -> JaxArray:
        """Return the coordinate of a value inside the bounds."""
        return unbend(values[self.names[0]], *self._walls)[None]


def log_range(parameter: Parameter) -> tuple[float, float]:
    """Logarithms of the bounds of a positive parameter; of its value if it is fixed."""
    if not parameter.vary:
        value = math.log(parameter.value) if parameter.value > 0 else LOG_TINY
        return value, value
    low = math.log(parameter.min) if parameter.min > 0 else LOG_TINY
    return low, math.log(parameter.max)


@dataclass(frozen=True)
class PowerLawChart:
    """Coordinates of prefactor * t**exponent + offset at a reference time.

    Attributes:
        prefactor: D0 or v0.
        curve: Chart of exponent and offset.
        t_ref: Reference time in s.
    """

    prefactor: Parameter
    curve: CurveChart
    t_ref: float

    @classmethod
    def of(
        cls, prefactor: Parameter, exponent: Parameter, offset: Parameter, t_ref: float
    ) -> PowerLawChart:
        """Build the chart of a power law plus offset."""
        curve = CurveChart(exponent, offset, log_range(prefactor), prefactor.vary)
        return cls(prefactor, curve, t_ref)

    @property
    def names(self) -> tuple[str, ...]:
        """Prefactor, exponent and offset."""
        curve = self.curve
        return tuple(p.info.name for p in (self.prefactor, curve.exponent, curve.offset))

    @property
    def labels(self) -> tuple[str, ...]:
        """What each coordinate is."""
        return tuple(f"{self.prefactor.info.name}: {label}" for label in self.curve.labels)

    def forward(self, y: JaxArray) -> tuple[Values, JaxArray]:
        """Return the parameters and log |d varying parameters / d y|."""
        shift = math.log(self.t_ref)
        core, log_det = self.curve.forward(y, shift)
        log_prefactor = core.log_amplitude - core.exponent * shift
        prefactor = jnp.asarray(self.prefactor.value)
        if self.prefactor.vary:
            prefactor = jnp.exp(log_prefactor)
            log_det += log_prefactor
        values = (prefactor, core.exponent, core.offset)
        return dict(zip(self.names, values, strict=True)), log_det

    def inverse(self, values: Mapping[str, JaxArray]) -> JaxArray:
        """Return the coordinates of parameters inside their bounds."""
        prefactor, exponent, offset = (values[name] for name in self.names)
        shift = math.log(self.t_ref)
        core = CurveValues(jnp.log(prefactor) + exponent * shift, exponent, offset)
        return self.curve.inverse(core, shift)


@dataclass(frozen=True)
class FractionChart:
    """Coordinates of f0 exp(f1 (t - f2)) + f3.

    Only f0 exp(-f1 f2) enters the model. Where both are free, f2 has an axis of its own
    that only the priors inform: f2 = centre + scale * u, with centre and scale those of
    the conditional prior in its normal approximation, smooth at f1 = 0.

    Attributes:
        f0: Amplitude.
        f2: Time origin.
        curve: Chart of f1 and f3.
        t_ref: Reference time in s.
    """

    f0: Parameter
    f2: Parameter
    curve: CurveChart
    t_ref: float

    names = ("f0", "f1", "f2", "f3")

    @classmethod
    def of(
        cls, f0: Parameter, f1: Parameter, f2: Parameter, f3: Parameter, t_ref: float
    ) -> FractionChart:
        """Build the chart of the sample fraction."""
        carried = f0.vary and f2.vary
        curve = CurveChart(f1, f3, None if carried else log_range(f0), f0.vary)
        return cls(f0, f2, curve, t_ref)

    @property
    def labels(self) -> tuple[str, ...]:
        """What each coordinate is."""
        own = tuple(f"fraction: {label}" for label in self.curve.labels)
        return (*own, "f2") if self.f2.vary else own

    @property
    def _ridge(self) -> bool:
        return self.f0.vary and self.f2.vary

    def forward(self, y: JaxArray) -> tuple[Values, JaxArray]:
        """Return the parameters and log |d varying parameters / d y|."""
        f2, log_det = jnp.asarray(self.f2.value), jnp.zeros(())
        if self.f2.vary and not self._ridge:
            f2, log_det = bend(y[-1], *self._free_walls())
        core, change = self.curve.forward(y[:-1] if self.f2.vary else y, self.t_ref - f2)
        log_det += change
        if self._ridge:
            centre, scale, low, high = self._conditional(core)
            u, slope = bend(y[-1], low, high, LOG_WALL)
            f2 = centre + scale * u
            log_det += jnp.where(low < high, jnp.log(scale) + slope, -jnp.inf)
        log_f0 = core.log_amplitude - core.exponent * (self.t_ref - f2)
        f0 = jnp.asarray(self.f0.value)
        if self.f0.vary:
            f0 = jnp.exp(log_f0)
            log_det += log_f0
        return dict(zip(self.names, (f0, core.exponent, f2, core.offset), strict=True)), log_det

    def inverse(self, values: Mapping[str, JaxArray]) -> JaxArray:
        """Return the coordinates of parameters inside their bounds."""
        f0, f1, f2, f3 = (values[name] for name in self.names)
        core = CurveValues(jnp.log(f0) + f1 * (self.t_ref - f2), f1, f3)
        y = self.curve.inverse(core, self.t_ref - f2)
        if self._ridge:
            centre, scale, low, high = self._conditional(core)
            y = jnp.append(y, unbend((f2 - centre) / scale, low, high, LOG_WALL))
        elif self.f2.vary:
            y = jnp.append(y, unbend(f2, *self._free_walls()))
        return y

    def _free_walls(self) -> tuple[float, float, float]:
        return self.f2.min, self.f2.max, WALL * (self.f2.max - self.f2.min)

    def _conditional(self, core: CurveValues) -> tuple[JaxArray, JaxArray, JaxArray, JaxArray]:
        """Centre and scale of f2 given amplitude and rate, and the walls of (f2 - c) / s."""
        f1 = core.exponent
        mean, std = _moments(self.f2, np.asarray)
        log_mean, log_std = _moments(self.f0, lambda x: np.log(np.maximum(x, 1e-12)))
        precision = 1.0 / std**2 + (f1 / log_std) ** 2
        pull = f1 * (f1 * self.t_ref + log_mean - core.log_amplitude) / log_std**2
        centre, scale = (mean / std**2 + pull) / precision, precision**-0.5
        low, high = self._f2_range(core)
        return centre, scale, (low - centre) / scale, (high - centre) / scale

    def _f2_range(self, core: CurveValues) -> tuple[JaxArray, JaxArray]:
        """The f2 within bounds for which f0 is within its bounds."""
        f1 = core.exponent
        safe = jnp.where(f1 == 0.0, 1.0, f1)
        log_low, log_high = log_range(self.f0)
        at = [self.t_ref + (x - core.log_amplitude) / safe for x in (log_low, log_high)]
        low, high = jnp.minimum(*at), jnp.maximum(*at)
        low = jnp.where(f1 == 0.0, self.f2.min, jnp.maximum(low, self.f2.min))
        high = jnp.where(f1 == 0.0, self.f2.max, jnp.minimum(high, self.f2.max))
        return low, high


def _moments(parameter: Parameter, function) -> tuple[float, float]:
    """Mean and standard deviation of a function of a parameter under its prior."""
    x = np.linspace(parameter.min, parameter.max, 20001)[1:-1]
    prior = parameter.prior
    axis = np.log(x) if prior.kind is PriorKind.LOGNORMAL else x
    weight = np.exp(-0.5 * ((axis - prior.loc) / prior.scale) ** 2)
    if prior.kind is PriorKind.LOGNORMAL:
        weight = weight / x
    weight /= weight.sum()
    y = function(x)
    mean = float(weight @ y)
    return mean, float(np.sqrt(weight @ (y - mean) ** 2))
