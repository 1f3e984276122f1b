"""The axis of f2: only f0 exp(-f1 f2) enters the model, so priors alone inform it.

    f2 = centre + scale * u

with centre and scale those of f2's conditional prior in its normal approximation, given
the amplitude at the reference time and the rate f1. Both are smooth at f1 = 0, where the
conditional prior is f2's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from heterodyne._typing import FloatArray, JaxArray
from heterodyne.config.parameter_space import Parameter, PriorKind
from heterodyne.core._jax import jnp
from heterodyne.optimization.coordinates.curves import LOG_TINY, LOG_WALL
from heterodyne.optimization.coordinates.walls import bend, unbend


@dataclass(frozen=True)
class Ridge:
    """Coordinate along the ridge of f0 and f2.

    Attributes:
        f0: Amplitude of the fraction.
        f2: Time origin of the fraction.
        t_ref: Reference time of the amplitude in s.
    """

    f0: Parameter
    f2: Parameter
    t_ref: float

    @cached_property
    def _prior(self) -> tuple[float, float, float, float]:
        """Mean and standard deviation of f2 and of log f0."""
        mean, std = _moments(self.f2, np.asarray(_grid(self.f2)))
        log_mean, log_std = _moments(self.f0, np.log(np.maximum(_grid(self.f0), 1e-12)))
        return mean, std, log_mean, log_std

    def forward(
        self, u: JaxArray, log_amplitude: JaxArray, f1: JaxArray
    ) -> tuple[JaxArray, JaxArray]:
        """Return f2 in s and log |df2/du|; minus infinity where no f2 is allowed."""
        centre, scale, low, high = self._conditional(log_amplitude, f1)
        possible = low < high
        x, log_slope = bend(u, low, jnp.where(possible, high, low + 1.0), LOG_WALL)
        return centre + scale * x, jnp.where(possible, jnp.log(scale) + log_slope, -jnp.inf)

    def inverse(self, f2: JaxArray, log_amplitude: JaxArray, f1: JaxArray) -> JaxArray:
        """Return the coordinate of an allowed f2."""
        centre, scale, low, high = self._conditional(log_amplitude, f1)
        return unbend((f2 - centre) / scale, low, high, LOG_WALL)

    def nearest(self, log_amplitude: JaxArray, f1: JaxArray) -> JaxArray:
        """Return the coordinate nearest to the centre of the prior that bounds allow."""
        _, _, low, high = self._conditional(log_amplitude, f1)
        return jnp.clip(0.0, jnp.minimum(low, high), high)

    def _conditional(
        self, log_amplitude: JaxArray, f1: JaxArray
    ) -> tuple[JaxArray, JaxArray, JaxArray, JaxArray]:
        """Centre and scale of f2, and the walls of (f2 - centre) / scale."""
        mean, std, log_mean, log_std = self._prior
        precision = 1.0 / std**2 + (f1 / log_std) ** 2
        pull = f1 * (f1 * self.t_ref + log_mean - log_amplitude) / log_std**2
        centre, scale = (mean / std**2 + pull) / precision, precision**-0.5
        low, high = self._range(log_amplitude, f1)
        return centre, scale, (low - centre) / scale, (high - centre) / scale

    def _range(self, log_amplitude: JaxArray, f1: JaxArray) -> tuple[JaxArray, JaxArray]:
        """The f2 within bounds at which f0 = amplitude * exp(-f1 (t_ref - f2)) is too."""
        bottom = np.log(self.f0.min) if self.f0.min > 0 else LOG_TINY
        flat = f1 == 0.0
        inverse = 1.0 / jnp.where(flat, 1.0, f1)
        ends = [self.t_ref + (x - log_amplitude) * inverse for x in (bottom, np.log(self.f0.max))]
        # At f1 = 0 f0 is the amplitude: within its bounds every f2 is allowed, else none.
        allowed = (bottom < log_amplitude) & (log_amplitude < np.log(self.f0.max))
        flat_high = jnp.where(allowed, self.f2.max, self.f2.min)
        low = jnp.where(flat, self.f2.min, jnp.maximum(self.f2.min, jnp.minimum(*ends)))
        high = jnp.where(flat, flat_high, jnp.minimum(self.f2.max, jnp.maximum(*ends)))
        return low, high


def _grid(parameter: Parameter) -> FloatArray:
    return np.linspace(parameter.min, parameter.max, 20001)[1:-1]


def _moments(parameter: Parameter, values: FloatArray) -> tuple[float, float]:
    """Mean and standard deviation of values on the grid under the prior."""
    x, prior = _grid(parameter), parameter.prior
    lognormal = prior.kind is PriorKind.LOGNORMAL
    axis = np.log(x) if lognormal else x
    weight = np.exp(-0.5 * ((axis - prior.loc) / prior.scale) ** 2)
    weight = weight / x if lognormal else weight
    weight /= weight.sum()
    # These are constants of compiled code, and products of vectors depend on the number of threads:
    # workers would compile anew what the run has compiled.
    mean = float((weight * values).sum())
    return mean, float(np.sqrt((weight * (values - mean) ** 2).sum()))
