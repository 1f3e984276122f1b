"""Log density of the documented priors, as one vectorised expression."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import log_ndtr, ndtri_exp

from heterodyne._typing import FloatArray, JaxArray
from heterodyne.config.parameter_space import Parameter, ParameterSpace, PriorKind
from heterodyne.core._jax import jax, jnp
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates

# Width of a uniform distribution over its standard deviation.
_UNIFORM = math.sqrt(12.0)


@dataclass(frozen=True)
class LogPrior:
    """Independent truncated priors of some parameters.

    Attributes:
        parameters: The parameters, in the order of the values.
    """

    parameters: tuple[Parameter, ...]

    @classmethod
    def of(cls, space: ParameterSpace, names: tuple[str, ...]) -> LogPrior:
        """Collect the priors of the named parameters."""
        return cls(tuple(space[n] for n in names))

    @cached_property
    def _columns(self) -> dict[str, FloatArray]:
        rows = [p.prior for p in self.parameters]
        lognormal = np.array([r.kind is PriorKind.LOGNORMAL for r in rows], bool)
        return {
            "lognormal": lognormal,
            "loc": np.array([r.loc for r in rows]),
            "precision": np.array([1.0 / r.scale for r in rows]),
            "log_norm": np.array([_log_norm(p) for p in self.parameters]),
        }

    def standardised(self, values: JaxArray) -> JaxArray:
        """Distances from the centres in prior widths, shape (n,); 0 if uniform."""
        c = self._columns
        positive = jnp.where(c["lognormal"], values, 1.0)
        axis = jnp.where(c["lognormal"], jnp.log(positive), values)
        return (axis - c["loc"]) * c["precision"]

    def standardised_slopes(self, values: JaxArray) -> JaxArray:
        """Derivatives of the standardised distances by the values, shape (n,)."""
        return jax.jvp(self.standardised, (values,), (jnp.ones_like(values),))[1]

    def __call__(self, values: JaxArray) -> JaxArray:
        """Return the log density at values inside the bounds, scalar.

        Args:
            values: Parameters in their units, shape (n,).
        """
        return self.each(values)

    def each(self, values: JaxArray) -> JaxArray:
        """Return the log density of rows of values, shape (..., n) to (...)."""
        c = self._columns
        positive = jnp.where(c["lognormal"], values, 1.0)
        density = -0.5 * self.standardised(values) ** 2 - jnp.log(positive) - c["log_norm"]
        return density.sum(axis=-1)


def log_prior_of(
    parameters: JaxArray, log_det: JaxArray, coordinates: PhysicsCoordinates
) -> JaxArray:
    """Log prior density of coordinates of the physics parameters, scalar.

    Args:
        parameters: What ``coordinates.forward`` makes of them.
        log_det: Likewise.
        coordinates: The map, with the priors.
    """
    prior = LogPrior.of(coordinates.space, coordinates.names)
    return prior(parameters[coordinates.indices]) + log_det


def prior_width(parameter: Parameter, *, logarithmic: bool) -> float:
    """Standard deviation of a prior, at most that of a uniform one between the bounds.

    Args:
        parameter: Bounds and prior.
        logarithmic: Whether the width is that of the logarithm.
    """
    prior, low, high = parameter.prior, parameter.min, parameter.max
    lognormal = prior.kind is PriorKind.LOGNORMAL
    if logarithmic:
        scale = prior.scale if lognormal else math.inf
        return min(scale, math.log(high / low) / _UNIFORM)
    scale = prior.mean * prior.scale if lognormal else prior.scale
    return min(scale, (high - low) / _UNIFORM)


def draw_prior(parameter: Parameter, rng: np.random.Generator, count: int) -> FloatArray:
    """Draw from the truncated prior of a parameter, shape (count,), in its unit.

    Args:
        parameter: Bounds and prior.
        rng: Random numbers.
        count: Number of draws.
    """
    prior, share = parameter.prior, rng.random(count)
    if prior.kind is PriorKind.UNIFORM:
        return parameter.min + share * (parameter.max - parameter.min)
    low, high = _standardised_bounds(parameter)
    # In the upper tail probabilities from below are all 1: its mirror image keeps digits.
    sign = -1.0 if low > 0 else 1.0
    first, last = sorted((sign * low, sign * high))
    below = np.logaddexp(log_ndtr(first), np.log1p(-share) + log_mass(first, last))
    z = sign * np.clip(ndtri_exp(np.minimum(below, 0.0)), first, last)
    value = prior.loc + prior.scale * z
    value = np.exp(value) if prior.kind is PriorKind.LOGNORMAL else value
    return np.clip(value, parameter.min, parameter.max)


def draw_columns(
    space: ParameterSpace, names: Iterable[str], rng: np.random.Generator, count: int
) -> FloatArray:
    """Draw parameters from their priors; fixed ones keep their values.

    Args:
        space: Parameters and priors.
        names: Names of the columns, which may repeat.
        rng: Random numbers.
        count: Number of draws.

    Returns:
        Array of shape (count, columns).
    """
    columns = np.empty((count, 0))
    for parameter in (space[name] for name in names):
        fixed = np.full(count, parameter.value)
        column = draw_prior(parameter, rng, count) if parameter.vary else fixed
        columns = np.column_stack([columns, column])
    return columns


def _standardised_bounds(p: Parameter) -> tuple[float, float]:
    ends = np.array([p.min, p.max])
    if p.prior.kind is PriorKind.LOGNORMAL:
        ends = np.log(ends)
    low, high = ((ends - p.prior.loc) / p.prior.scale).tolist()
    return low, high


def _log_norm(p: Parameter) -> float:
    """Logarithm of the integral of exp(-z**2 / 2) over the bounds."""
    prior = p.prior
    if prior.kind is PriorKind.UNIFORM:
        return math.log(p.max - p.min)
    return (
        log_mass(*_standardised_bounds(p)) + math.log(prior.scale) + 0.5 * math.log(2.0 * math.pi)
    )


def log_mass(low: float, high: float) -> float:
    """Logarithm of the probability of the standard normal distribution between two points."""
    # Work in the tail that holds less, where the difference keeps its digits.
    if low > 0:
        low, high = -high, -low
    below = float(log_ndtr(high))
    return below + math.log(-math.expm1(min(float(log_ndtr(low)) - below, -1e-300)))
