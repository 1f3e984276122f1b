"""Populations of walkers that go from the prior to the posterior.

The likelihood counts with a power that grows from 0 to 1. At each power the walkers are
picked by their weights and moved (Del Moral, Doucet and Jasra, Journal of the Royal
Statistical Society B 68, 411, 2006). Populations know nothing of the fit nor of each other, so
they reach parts of the posterior that hang together with no mode that the fit found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from heterodyne._typing import FloatArray
from heterodyne.optimization.cmc._draws import kish, systematic
from heterodyne.optimization.cmc._linear import searched
from heterodyne.optimization.cmc._mixture import Mixture, covering, independent
from heterodyne.optimization.cmc._renewal import (
    beside_fraction,
    of_course,
    of_fraction,
    physics_from_prior,
    renewed,
    reshaped,
    swapped,
)
from heterodyne.optimization.cmc._walkers import (
    Density,
    Walkers,
    accepted,
    differences,
)
from heterodyne.optimization.posterior import Posterior

# Share of the walkers of a population that weights of the next power must be worth.
_WORTH = 0.5
# Steps at each power, and which of them draw from mixtures, which are fitted before the first of
# these, when walkers that were picked several times have parted; the second of them leaves the
# fraction out.
_STEPS, _EVERY, _FIRST = 12, 4, 3
_BESIDE = _FIRST + _EVERY
# Proposals that priors make, one after the other in place of every fourth step.
_OF_PRIORS, _AFTER = (renewed, reshaped, swapped), 1
_COMPONENTS = 6
# Share of a broad component beside the mixture that is fitted.
_BROAD = 0.1
# A smaller rise of the power is no progress.
_SMALLEST = 1e-12
_HALVINGS = 50
# Points, and the log density of proposing the old ones over that of these.
_Proposed = tuple[FloatArray, FloatArray]
_Proposals = Callable[[int, FloatArray, FloatArray], _Proposed]


def from_prior(density: Density, count: int, rng: np.random.Generator) -> Walkers:
    """Draw walkers from the priors.

    Args:
        density: The posterior.
        count: Number of walkers.
        rng: Random numbers.
    """
    x = _drawn(density.posterior, float(density.target.noise_scale), count, rng)
    return density.divided_at(x, rng)


def _drawn(
    posterior: Posterior, noise_scale: float, count: int, rng: np.random.Generator
) -> FloatArray:
    physics = physics_from_prior(posterior.coordinates, count, rng)
    sigma = float(posterior.sigma_width(noise_scale)) * np.abs(rng.normal(size=count))
    y = np.zeros((count, posterior.size))
    y[:, : posterior.coordinates.size] = physics
    y[:, -1] = np.log(np.maximum(sigma, np.finfo(float).tiny))
    return y[:, searched(posterior)]


def tempered_step(
    density: Density, walkers: Walkers, power: float, n_populations: int, rng: np.random.Generator
) -> tuple[Walkers, float]:
    """Raise the power as far as the weights allow, pick walkers and move them.

    Args:
        density: The posterior.
        walkers: All populations, one after the other.
        power: Power of the likelihood that they follow.
        n_populations: Number of populations.
        rng: Random numbers.

    Returns:
        Walkers that follow the next power, and this.
    """
    each = walkers.log_likelihood.reshape(n_populations, -1)
    raised = next_power(each, power)
    size = each.shape[1]
    rows = [
        k * size + systematic(weights_of(one, raised - power), size, rng)
        for k, one in enumerate(each)
    ]
    walkers = walkers.at(np.concatenate(rows))
    covers: list[_Cover] = []
    for step in range(_STEPS):
        if step % _EVERY == _AFTER:
            propose = _OF_PRIORS[step // _EVERY % len(_OF_PRIORS)]
            proposed, ratio = propose(walkers.x, density.posterior, rng)
            walkers = _stepped(density, walkers, proposed, ratio, raised, rng)
            continue
        if step == _FIRST:
            populations = np.split(walkers.x, n_populations)
            covers = [_Cover.of(x, density.posterior, rng) for x in populations]
        proposals = _proposals(step, density.posterior, covers, rng)
        walkers = _moved(density, walkers, n_populations, proposals, raised, rng)
    return walkers, raised


class _Cover(NamedTuple):
    """What covers a population: all coordinates, and those beside the fraction's."""

    whole: Mixture
    beside: Mixture

    @classmethod
    def of(cls, x: FloatArray, posterior: Posterior, rng: np.random.Generator) -> _Cover:
        beside = ~of_fraction(posterior)
        return cls(*(covering(part, _COMPONENTS, _BROAD, rng) for part in (x, x[:, beside])))


def _proposals(
    step: int, posterior: Posterior, covers: Sequence[_Cover], rng: np.random.Generator
) -> _Proposals:
    """How walkers of a population move, which see others of it, at a step."""
    course = of_course(posterior)

    def along(_: int, x: FloatArray, others: FloatArray) -> _Proposed:
        return differences(x, others, rng, course), np.zeros(len(x))

    def anywhere(population: int, x: FloatArray, _: FloatArray) -> _Proposed:
        return independent(x, covers[population].whole, rng)

    def beside(population: int, x: FloatArray, _: FloatArray) -> _Proposed:
        return beside_fraction(x, covers[population].beside, posterior, rng)

    if step == _BESIDE:
        return beside
    return anywhere if step % _EVERY == _FIRST else along


def weights_of(log_likelihood: FloatArray, rise: float) -> FloatArray:
    """Weights that raise the power of the likelihood, shape (n,), which add up to 1."""
    possible = np.isfinite(log_likelihood)
    if not possible.any():
        return np.full(log_likelihood.size, 1.0 / log_likelihood.size)
    log_weights = rise * np.where(possible, log_likelihood, -np.inf)
    weights = np.exp(log_weights - log_weights[possible].max())
    return weights / weights.sum()


def next_power(log_likelihood: FloatArray, power: float) -> float:
    """Largest power, at most 1, at which the weights of each population are worth enough.

    Args:
        log_likelihood: Shape (populations, n).
        power: Power that the walkers follow.
    """

    def suffices(rise: float) -> bool:
        worth = min(kish(weights_of(one, rise)) for one in log_likelihood)
        # Walkers without density drop out at any power.
        most = np.isfinite(log_likelihood).sum(axis=1).min()
        return worth >= _WORTH * most

    if suffices(1.0 - power):
        return 1.0
    low, high = np.log(_SMALLEST), np.log(1.0 - power)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if suffices(float(np.exp(middle))) else (low, middle)
    return power + float(np.exp(low))


def _moved(
    density: Density,
    walkers: Walkers,
    n_populations: int,
    propose: _Proposals,
    power: float,
    rng: np.random.Generator,
) -> Walkers:
    """Move one half of each population, which may see the other half, and then this."""
    size = len(walkers.x) // n_populations
    order = [k * size + rng.permutation(size) for k in range(n_populations)]
    halves = np.stack(order).reshape(n_populations, 2, size // 2)
    for moving, still in ((0, 1), (1, 0)):
        found = [
            propose(k, walkers.x[half[moving]], walkers.x[half[still]])
            for k, half in enumerate(halves)
        ]
        points, ratio = (np.concatenate(column) for column in zip(*found, strict=True))
        rows = halves[:, moving].ravel()
        moved = _stepped(density, walkers.at(rows), points, ratio, power, rng)
        walkers = walkers.changed(rows, moved)
    return walkers


def _stepped(
    density: Density,
    walkers: Walkers,
    proposed: FloatArray,
    log_ratio: FloatArray,
    power: float,
    rng: np.random.Generator,
) -> Walkers:
    """Move walkers to the proposed points that are accepted."""
    new = density.divided_at(proposed, rng)
    where = accepted(walkers, new, log_ratio, power, rng)
    return walkers.changed(np.flatnonzero(where), new.at(where))
