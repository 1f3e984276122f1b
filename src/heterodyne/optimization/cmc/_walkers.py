"""Walkers: points that explore a posterior together, each by Metropolis steps.

Contrast, offset and f2 are not walked in: each proposal draws them anew, and the density
that decides on its acceptance has them integrated out, or an unbiased estimate of that, which
leaves the stationary distribution exact (Andrieu and Roberts, Annals of Statistics 37, 697,
2009).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from heterodyne._typing import BoolArray, FloatArray, IntArray, JaxArray
from heterodyne.core._jax import jnp
from heterodyne.optimization.cmc._linear import complete_all, n_drawn
from heterodyne.optimization.cmc._nuts import Target
from heterodyne.optimization.cmc._renewal import log_prior
from heterodyne.optimization.posterior import Posterior

# Best size of a step in d normal dimensions, over sqrt(2 d), and how much shorter steps are
# tried: a bent posterior is narrower than the differences of its points.
_STEP, _SHORTEST = 2.38, 0.05
# Share of steps as long as the difference, which lead from mode to mode.
_WHOLE = 0.1
# Share of steps that change a random part of the coordinates, and of those that leave what is
# apart where it is.
_PARTIAL, _APART = 0.5, 0.5
# Shortest and longest steps along an axis, over the spread of the points.
_AXIS_STEPS = (0.02, 3.0)
# Added to steps, over the spread of the points: keeps them from a subspace.
_JITTER = 1e-5


class Walkers(NamedTuple):
    """Where walkers are, n as the leading axis.

    Attributes:
        x: Coordinates that are walked in, shape (n, m).
        y: Coordinates of all unknowns, the rest drawn, shape (n, d).
        log_density: Log density of these, shape (n,).
        log_prior: Log prior density of x up to a constant, shape (n,); 0 where it is not told
            apart.
        log_likelihood: Log density of x with the rest integrated out, less that.
    """

    x: FloatArray
    y: FloatArray
    log_density: FloatArray
    log_prior: FloatArray
    log_likelihood: FloatArray

    def at(self, rows: IntArray | BoolArray) -> Walkers:
        """Return some walkers."""
        return Walkers(*(part[rows] for part in self))

    def changed(self, rows: IntArray, to: Walkers) -> Walkers:
        """Return the walkers with some of them elsewhere."""
        parts = tuple(part.copy() for part in self)
        for part, new in zip(parts, to, strict=True):
            part[rows] = new
        return Walkers(*parts)

    def log_power(self, power: float) -> FloatArray:
        """Log of prior times likelihood to a power, shape (n,)."""
        return self.log_prior + power * self.log_likelihood


@dataclass(frozen=True)
class Density:
    """The density that walkers explore.

    Attributes:
        posterior: Map and density.
        target: What it is conditioned on.
    """

    posterior: Posterior
    target: Target

    @cached_property
    def _centre(self) -> JaxArray:
        """Coordinates in the middle of the ranges of contrast and offset."""
        p, space = self.posterior.coordinates.size, self.posterior.space
        middle = [space[name].value for name in self.posterior.scaling_kinds]
        y = np.zeros(self.posterior.size)
        y[p:-1] = np.asarray(self.posterior.unbend_scaling(jnp.asarray(middle)))
        return jnp.asarray(y)

    def at(self, x: FloatArray, rng: np.random.Generator) -> Walkers:
        """Put walkers at points, shape (n, m)."""
        normal = rng.normal(size=(len(x), n_drawn(self.posterior)))
        y, log_density, found = complete_all(x, normal, self.target, self._centre, self.posterior)
        return Walkers(x, y, log_density, np.zeros(len(x)), found)

    def log_prior(self, x: FloatArray) -> FloatArray:
        """Log prior density at points, up to a constant, (n, m) to (n,)."""
        width = float(self.posterior.sigma_width(self.target.noise_scale))
        log_sigma = x[:, -1]
        of_sigma = log_sigma - 0.5 * np.exp(2.0 * log_sigma) / width**2
        return log_prior(x, self.posterior) + of_sigma

    def divided_at(self, x: FloatArray, rng: np.random.Generator) -> Walkers:
        """Put walkers at points, shape (n, m), and tell prior and likelihood apart."""
        whole, prior = self.at(x, rng), self.log_prior(x)
        possible = np.isfinite(prior) & np.isfinite(whole.log_likelihood)
        likelihood = np.full(len(x), -np.inf)
        likelihood[possible] = whole.log_likelihood[possible] - prior[possible]
        return whole._replace(
            log_prior=np.where(possible, prior, -np.inf), log_likelihood=likelihood
        )


def differences(
    x: FloatArray, others: FloatArray, rng: np.random.Generator, apart: BoolArray | None = None
) -> FloatArray:
    """Propose steps along differences of two other points (ter Braak, 2006).

    Statistics and Computing 16, 239. The proposal is symmetric as long as the others do
    not move with x. Some steps change a random part of the coordinates (Vrugt and others,
    International Journal of Nonlinear Sciences and Numerical Simulation 10, 273, 2009): what
    follows a wide prior then does not keep the rest from moving.

    Args:
        x: Points, shape (n, m).
        others: Points that the differences are of, shape (k, m).
        rng: Random numbers.
        apart: Coordinates that half of the steps do not change, shape (m,): differences of
            what follows curved priors alone lead nowhere, and would keep the rest in place.
    """
    n, k = len(x), len(others)
    first = rng.integers(0, k, n)
    second = (first + rng.integers(1, k, n)) % k
    share = np.where(rng.random(n) < _PARTIAL, rng.random(n), 1.0)
    chosen = rng.random(x.shape) < share[:, None]
    if apart is not None:
        chosen &= ~(apart & (rng.random((n, 1)) < _APART))
    size = np.maximum(chosen.sum(axis=1), 1)
    length = _STEP / np.sqrt(2.0 * size) * np.exp(rng.uniform(np.log(_SHORTEST), 0.0, n))
    length = np.where(rng.random(n) < _WHOLE, 1.0, length)
    noise = _JITTER * others.std(axis=0) * rng.normal(size=x.shape)
    return x + np.where(chosen, length[:, None] * (others[first] - others[second]) + noise, 0.0)


def along_axes(x: FloatArray, others: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Propose steps of all lengths along one coordinate of each point, with equal chances back.

    Args:
        x: Points, shape (n, m).
        others: Points whose spread is the unit of the lengths, shape (k, m).
        rng: Random numbers.
    """
    n, m = x.shape
    shortest, longest = np.log(_AXIS_STEPS)
    length = np.exp(rng.uniform(shortest, longest, n)) * rng.normal(size=n)
    axis = np.eye(m)[rng.integers(0, m, n)]
    return x + length[:, None] * axis * others.std(axis=0)


def accepted(
    old: Walkers,
    new: Walkers,
    log_ratio: FloatArray | float,
    power: float,
    rng: np.random.Generator,
) -> BoolArray:
    """Decide on proposals (Metropolis and Hastings).

    Args:
        old: Where walkers are.
        new: Where they may go.
        log_ratio: Log density of proposing the old point over that of the new one.
        power: Power of the likelihood.
        rng: Random numbers.
    """
    with np.errstate(invalid="ignore"):
        gain = new.log_power(power) - old.log_power(power) + log_ratio
    # From a point without density any other is reached.
    gain = np.where(np.isfinite(old.log_power(power)), gain, np.inf)
    possible = np.isfinite(new.log_power(power))
    return possible & (np.log(rng.random(len(gain))) < np.nan_to_num(gain, nan=-np.inf))
