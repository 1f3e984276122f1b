"""Importance sampling from mixtures of Student t, adapted to the posterior in rounds.

The first round draws from the normal approximations of the modes that the fit found, with
heavier tails and a wide component as a defence. Each later round draws from a mixture with
the weighted moments of all points so far (population Monte Carlo; Cappé, Douc, Guillin,
Marin and Robert, Statistics and Computing 18, 447, 2008). A point is weighted by the
density over the mean of all rounds' mixtures (deterministic mixture weights; Owen and Zhou,
JASA 95, 135, 2000), the largest weights are Pareto-smoothed, and draws of equal weight are
picked among the points of independent groups.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from arviz_stats.base.array import array_stats
from scipy.linalg import solve_triangular
from scipy.special import gammaln, logsumexp

from heterodyne._events import Progress
from heterodyne._typing import FloatArray, IntArray, JaxArray
from heterodyne.core._jax import jax, jnp
from heterodyne.optimization.cmc._draws import Draws, Proposals
from heterodyne.optimization.cmc._frame import Frame
from heterodyne.optimization.cmc._nuts import Target
from heterodyne.optimization.posterior import Posterior

_ROUND = 4096
_ROUNDS = 5
_BLOCK = 1024
_PART = 256
_BATCH = 64
# Draws of each group.
_PICKED = 1000
# (share, factor on the width, degrees of freedom) of the components around a mode.
_FIRST = ((0.9, 1.05, 8.0), (0.1, 1.6, 4.0))
_LATER = ((0.8, 1.0, 8.0), (0.1, 1.5, 5.0))
_ANCHOR = (0.1, 1.2, 5.0)
# A mode keeps at least this share of the points, however light it is.
_LEAST_SHARE = 0.02
# Points of equal weight, over the number of coordinates, that moments are taken from.
_FOR_MOMENTS = 8.0
# A covariance is trusted like that of this many more points of the old one.
_SHRINKAGE = 10.0
# Log weights this far below the largest count nothing.
_NEGLIGIBLE = 600.0
# A tail cannot be judged by fewer points.
_FEWEST = 100


class Component(NamedTuple):
    """A Student t distribution in a mixture.

    Attributes:
        share: Share of the points.
        centre: Shape (d,).
        factor: Cholesky factor of its scale matrix, shape (d, d).
        degrees: Degrees of freedom.
    """

    share: float
    centre: FloatArray
    factor: FloatArray
    degrees: float

    def draw(self, rng: np.random.Generator, n: int) -> FloatArray:
        """Draw n points, shape (n, d)."""
        normal = rng.normal(size=(n, self.centre.size))
        stretch = np.sqrt(rng.chisquare(self.degrees, n) / self.degrees)
        return self.centre + (normal / stretch[:, None]) @ self.factor.T

    def log_density(self, z: FloatArray) -> FloatArray:
        """Return the log density of points, shape (n, d) to (n,)."""
        d, nu = self.centre.size, self.degrees
        distance = solve_triangular(self.factor, (z - self.centre).T, lower=True)
        norm = gammaln(0.5 * (nu + d)) - gammaln(0.5 * nu) - 0.5 * d * np.log(nu * np.pi)
        norm -= np.log(np.diagonal(self.factor)).sum()
        return norm - 0.5 * (nu + d) * np.log1p((distance**2).sum(0) / nu)


Mixture = tuple[Component, ...]


class ImportanceState(NamedTuple):
    """Everything that decides how sampling goes on.

    Attributes:
        z: Points in the frame of the best mode, shape (n, d).
        log_density: Log density of their coordinates, shape (n,).
    """

    z: FloatArray
    log_density: FloatArray


@dataclass(frozen=True)
class ImportanceSampler:
    """Importance sampling of one posterior.

    Attributes:
        posterior: Map and density.
        target: What it is conditioned on.
        frames: Normal approximations of the modes, the best one first.
        seed: Seed of all random numbers.
        n_groups: Number of independent groups of points, which stand in for chains.
        n_draws: Number of draws of a group.
        stage: Name of the work in progress events.
    """

    posterior: Posterior
    target: Target
    frames: tuple[Frame, ...]
    seed: int
    n_groups: int = 4
    n_draws: int = _PICKED
    stage: str = "draws"
    # Mixtures of the rounds so far; seed and frames decide the points they are adapted to.
    _rounds: list[Mixture] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Name of the engine."""
        return "importance"

    def start(self) -> ImportanceState:
        """Return the state before the first round."""
        return ImportanceState(np.empty((0, self.posterior.size)), np.empty(0))

    def advance(self, state: ImportanceState) -> ImportanceState:
        """Draw and weigh one block of points."""
        n = len(state.z)
        rng = np.random.default_rng((self.seed, n))
        z = _draw(self._mixtures(state)[-1], rng, _BLOCK)
        run = partial(
            _log_densities, target=self.target, frame=self.frames[0], posterior=self.posterior
        )
        parts = [jnp.asarray(part) for part in z.reshape(-1, _PART, z.shape[1])]
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            values = np.concatenate(list(pool.map(lambda part: np.asarray(run(part)), parts)))
        values = np.where(np.isfinite(values), values, -np.inf)
        return ImportanceState(
            np.concatenate([state.z, z]), np.concatenate([state.log_density, values])
        )

    def looked_at(self, state: ImportanceState) -> bool:
        """Whether a round has ended."""
        return len(state.z) > 0 and len(state.z) % _ROUND == 0

    def finished(self, state: ImportanceState) -> bool:
        """Whether all rounds have ended."""
        return len(state.z) >= _ROUND * _ROUNDS

    def progress(self, state: ImportanceState) -> Progress:
        """Say how many points there are."""
        return Progress(self.stage, len(state.z), _ROUND * _ROUNDS)

    def draws(self, state: ImportanceState) -> Draws:
        """Pick draws of equal weight; there is at least one block of points."""
        weights, k_hat = smoothed(self._log_weights(state, self._mixtures(state)))
        rng = np.random.default_rng((self.seed, 1, len(weights)))
        picked = np.stack(
            [_pick(weights, k, self.n_groups, self.n_draws, rng) for k in range(self.n_groups)]
        )
        y = np.asarray(self.frames[0].place(jnp.asarray(state.z)))
        rounds = -(-len(weights) // _ROUND)
        return Draws(
            y[picked],
            state.log_density[picked],
            proposals=Proposals(y, state.log_density, weights, k_hat, rounds),
        )

    def to_arrays(self, state: ImportanceState) -> dict[str, FloatArray]:
        """Return everything that a state holds, by name."""
        return dict(state._asdict())

    def from_arrays(self, arrays: Mapping[str, FloatArray]) -> ImportanceState:
        """Rebuild the state that ``to_arrays`` took apart."""
        return ImportanceState(*(np.asarray(arrays[n]) for n in ImportanceState._fields))

    def _first(self) -> Mixture:
        """The mixture around the normal approximations of the modes, in the best one's frame."""
        centre, factor = (np.asarray(x) for x in self.frames[0])
        places = []
        for frame in self.frames:
            shift = solve_triangular(factor, np.asarray(frame.centre) - centre, lower=True)
            places.append((shift, solve_triangular(factor, np.asarray(frame.factor), lower=True)))
        share = 1.0 / len(places)
        return tuple(
            Component(share * part, shift, width * inner, degrees)
            for shift, inner in places
            for part, width, degrees in _FIRST
        )

    def _mixtures(self, state: ImportanceState) -> list[Mixture]:
        """The mixtures of all rounds up to the one that is to be drawn from or has ended."""
        known, needed = self._rounds, min(len(state.z) // _ROUND + 1, _ROUNDS)
        while len(known) < needed:
            done = _ROUND * len(known)
            past = ImportanceState(state.z[:done], state.log_density[:done])
            known.append(self._adapted(past, known) if known else self._first())
        return known[:needed]

    @staticmethod
    def _log_weights(state: ImportanceState, mixtures: list[Mixture]) -> FloatArray:
        """Log density over the mean density of the rounds that the points come from."""
        counts = [min(_ROUND, len(state.z) - _ROUND * k) for k in range(len(mixtures))]
        used = [(n, mixture) for n, mixture in zip(counts, mixtures, strict=True) if n > 0]
        proposed = [np.log(n / len(state.z)) + log_mixture(m, state.z) for n, m in used]
        return state.log_density - logsumexp(proposed, axis=0)

    def _adapted(self, past: ImportanceState, mixtures: list[Mixture]) -> Mixture:
        """A mixture with the weighted moments of the points around each mode."""
        d = past.z.shape[1]
        weights = tempered(self._log_weights(past, mixtures), _FOR_MOMENTS * d)
        anchors = mixtures[0][:: len(_FIRST)]
        cores = mixtures[-1][:: len(_FIRST) if len(mixtures) == 1 else len(_LATER) + 1]
        nearest = np.argmax([core.log_density(past.z) for core in cores], axis=0)
        masses = np.array([weights[nearest == k].sum() for k in range(len(cores))])
        shares = np.maximum(masses, _LEAST_SHARE)
        shares /= shares.sum()
        found = []
        for k, (share, core, anchor) in enumerate(zip(shares, cores, anchors, strict=True)):
            centre, factor = _moments(past.z[nearest == k], weights[nearest == k], core)
            found += [
                Component(share * part, centre, width * factor, degrees)
                for part, width, degrees in _LATER
            ]
            part, width, degrees = _ANCHOR
            found.append(Component(share * part, anchor.centre, width * anchor.factor, degrees))
        return tuple(found)


def log_mixture(mixture: Mixture, z: FloatArray) -> FloatArray:
    """Return the log density of a mixture at points, shape (n, d) to (n,)."""
    return np.asarray(logsumexp([np.log(c.share) + c.log_density(z) for c in mixture], axis=0))


def tempered(log_weights: FloatArray, least: float) -> FloatArray:
    """Return weights raised to the largest power, at most 1, at which enough points count.

    Args:
        log_weights: Shape (n,).
        least: Number of points of equal weight that must be worth as much.
    """
    top = log_weights.max()
    if not np.isfinite(top):
        return np.full(log_weights.size, 1.0 / log_weights.size)
    power = 1.0
    while True:
        weights = np.exp(power * (log_weights - top))
        weights /= weights.sum()
        if 1.0 / (weights**2).sum() >= least or power < 1e-3:
            return weights
        power *= 0.8


def smoothed(log_weights: FloatArray) -> tuple[FloatArray, float]:
    """Return Pareto-smoothed weights that add up to 1, and the shape of their tail."""
    top = log_weights.max()
    ratios = log_weights - (top if np.isfinite(top) else 0.0)
    counted = ratios > -_NEGLIGIBLE
    if counted.sum() < _FEWEST:
        weights = np.where(counted, 1.0, 0.0) if counted.any() else np.ones(ratios.size)
        return weights / weights.sum(), float("inf")
    statistics: Any = array_stats
    with np.errstate(all="ignore"):
        # ArviZ takes the logarithm of the inverse weights.
        smooth, k_hat = statistics.psislw(-ratios[counted])
    smooth = np.asarray(smooth, float)
    if not (np.isfinite(k_hat) and np.isfinite(smooth).all()):
        smooth, k_hat = ratios[counted], np.inf
    weights = np.zeros(ratios.size)
    weights[counted] = np.exp(smooth - smooth.max())
    weights /= weights.sum()
    return weights, float(k_hat)


def _draw(mixture: Mixture, rng: np.random.Generator, n: int) -> FloatArray:
    """Draw from a mixture, in random order, so that every group gets of every component."""
    counts = rng.multinomial(n, [c.share for c in mixture])
    z = np.concatenate([c.draw(rng, m) for c, m in zip(mixture, counts, strict=True)])
    return z[rng.permutation(n)]


def _moments(z: FloatArray, weights: FloatArray, old: Component) -> tuple[FloatArray, FloatArray]:
    """Weighted mean, and Cholesky factor of the weighted covariance, as far as they are known."""
    total = weights.sum()
    worth = total**2 / (weights**2).sum() if total > 0 else 0.0
    d = old.centre.size
    if worth < d:
        return old.centre, old.factor
    w = weights / total
    mean = w @ z
    centred = (z - mean) * np.sqrt(w)[:, None]
    share = worth / (worth + _SHRINKAGE)
    covariance = share * centred.T @ centred + (1.0 - share) * old.factor @ old.factor.T
    return mean, np.linalg.cholesky(covariance)


def weighted_frame(proposals: Proposals, frame: Frame) -> Frame | None:
    """Return the frame in which weighted points have unit covariance.

    Args:
        proposals: Points and weights.
        frame: An earlier frame, towards which the covariance is shrunk.

    Returns:
        None where the weights are worth too few points.
    """
    d = proposals.y.shape[1]
    if proposals.kish < _FOR_MOMENTS * d:
        return None
    centre, factor = (np.asarray(x) for x in frame)
    old = Component(1.0, centre, factor, np.inf)
    return Frame(*map(jnp.asarray, _moments(proposals.y, proposals.weights, old)))


def _pick(
    weights: FloatArray, group: int, n_groups: int, n: int, rng: np.random.Generator
) -> IntArray:
    """Pick n of the points of a group with their weights (systematic resampling).

    Copies of a point stay neighbours, so that measures of autocorrelation count them once.
    """
    members = rng.permutation(np.arange(group, weights.size, n_groups))
    cumulative = np.cumsum(weights[members])
    places = (np.arange(n) + rng.random()) / n * cumulative[-1]
    return members[np.minimum(np.searchsorted(cumulative, places), members.size - 1)]


@partial(jax.jit, static_argnames="posterior")
def _log_densities(z: JaxArray, target: Target, frame: Frame, posterior: Posterior) -> JaxArray:
    def one(point: JaxArray) -> JaxArray:
        adjustment = (target.centre, target.matrix)
        return posterior.log_density(
            frame.place(point), target.data, target.noise_scale, adjustment
        )

    return jax.lax.map(one, z, batch_size=_BATCH)
