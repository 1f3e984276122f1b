"""Populations of walkers that go from the prior to the posterior.

The likelihood counts with a power that grows from 0 to 1. At each power the walkers are
picked by their weights and moved (Del Moral, Doucet and Jasra, Journal of the Royal
Statistical Society B 68, 411, 2006). Populations know nothing of the fit nor of each other, so
they reach parts of the posterior that hang together with no mode that the fit found.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from heterodyne._typing import FloatArray, IntArray
from heterodyne.optimization.cmc._draws import kish, systematic
from heterodyne.optimization.cmc._linear import searched
from heterodyne.optimization.cmc._mixture import Mixture, covering
from heterodyne.optimization.cmc._renewal import (
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
    independent,
)
from heterodyne.optimization.posterior import Posterior

# Share of the walkers of a population that weights of the next power must be worth.
_WORTH = 0.5
# Steps at each power, and which of them draw from a mixture, which is fitted before the first of
# these, when walkers that were picked several times have parted.
_STEPS, _EVERY, _FIRST = 12, 4, 3
# Proposals that priors make, one after the other in place of every fourth step.
_OF_PRIORS, _AFTER = (renewed, reshaped, swapped), 1
_COMPONENTS = 6
# Share of a broad component beside the mixture that is fitted.
_BROAD = 0.1
# A smaller rise of the power is no progress.
_SMALLEST = 1e-12
_HALVINGS = 50


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
    mixtures: list[Mixture] = []
    for step in range(_STEPS):
        if step == _FIRST:
            mixtures = [
                covering(x, _COMPONENTS, _BROAD, rng) for x in np.split(walkers.x, n_populations)
            ]
        if step % _EVERY == _AFTER:
            propose = _OF_PRIORS[step // _EVERY % len(_OF_PRIORS)]
            proposed, ratio = propose(walkers.x, density.posterior, rng)
            walkers = _stepped(density, walkers, proposed, ratio, raised, rng)
            continue
        order = [k * size + rng.permutation(size) for k in range(n_populations)]
        halves = np.stack(order).reshape(n_populations, 2, size // 2)
        for moving, still in ((0, 1), (1, 0)):
            walkers = _moved(
                density, walkers, halves[:, moving], halves[:, still], raised,
                mixtures if step % _EVERY == _FIRST else (), rng,
            )  # fmt: skip
    return walkers, raised


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
    moving: IntArray,
    still: IntArray,
    power: float,
    mixtures: Sequence[Mixture],
    rng: np.random.Generator,
) -> Walkers:
    """Move half of each population along differences of the other half, or by its mixture."""
    proposed, log_ratio = [], []
    for k, (rows, others) in enumerate(zip(moving, still, strict=True)):
        x = walkers.x[rows]
        if mixtures:
            new, ratio = independent(x, mixtures[k], rng)
        else:
            new, ratio = differences(x, walkers.x[others], rng), np.zeros(len(x))
        proposed.append(new)
        log_ratio.append(ratio)
    rows = moving.ravel()
    points, ratio = np.concatenate(proposed), np.concatenate(log_ratio)
    return walkers.changed(rows, _stepped(density, walkers.at(rows), points, ratio, power, rng))


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
