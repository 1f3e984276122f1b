"""Importance sampling from mixtures of Student t, adapted to the posterior in rounds.

The first round draws from the normal approximations of the modes that the fit found, with
heavier tails and a wide component as a defence, in coordinates that straighten the best mode.
Each later round draws from a mixture that is fitted to all points so far. A point is weighted
by its density, contrast, offset and f2 integrated out, over the mean of all rounds' mixtures
(deterministic mixture weights; Owen and Zhou, JASA 95, 135, 2000), the largest weights are
Pareto-smoothed, and draws of equal weight are picked among the points of independent groups.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

from heterodyne._events import Progress
from heterodyne._typing import FloatArray, IntArray
from heterodyne.core._jax import jax, jnp
from heterodyne.core.ahead import compile_ahead
from heterodyne.optimization.cmc._bend import Bend
from heterodyne.optimization.cmc._draws import Draws, Proposals, systematic
from heterodyne.optimization.cmc._frame import Frame
from heterodyne.optimization.cmc._linear import PART, complete, complete_all, n_drawn, narrowed
from heterodyne.optimization.cmc._mixture import (
    Component,
    Round,
    draw_mixture,
    first_round,
    log_mixture,
    moments,
    next_round,
    tempered,
)
from heterodyne.optimization.cmc._nuts import Target
from heterodyne.optimization.cmc._statistics import array_stats
from heterodyne.optimization.posterior import Posterior

_BLOCK = 1024
# Points at the ends of rounds. The first rounds, which are far from the posterior, are short,
# and too few to be judged.
_ENDS = tuple(_BLOCK * k for k in (1, 2, *range(4, 52, 4)))
_JUDGED = _ENDS[2]
FEW, MOST = _ENDS[5], _ENDS[-1]
"""Points after which to stop, where another way is near and where none is."""
# Draws of each group.
_PICKED = 1000
# Points of equal weight, over the number of coordinates, that moments are taken from.
_FOR_MOMENTS = 16.0
# Log weights this far below the largest count nothing.
_NEGLIGIBLE = 600.0
# A tail cannot be judged by fewer points.
_FEWEST = 100


class ImportanceState(NamedTuple):
    """Everything that decides how sampling goes on.

    Attributes:
        z: Points as they are drawn, in the frame of the best mode or where ``bend`` takes
            them there, contrast, offset and f2 left out, (n, m).
        y: Coordinates of the points, these drawn, shape (n, d).
        log_density: Log density of these, shape (n,).
        log_integrated: The same over the density of what was drawn.
    """

    z: FloatArray
    y: FloatArray
    log_density: FloatArray
    log_integrated: FloatArray

    def first(self, n: int) -> ImportanceState:
        """Return the first n points."""
        return ImportanceState(*(part[:n] for part in self))


@dataclass(frozen=True)
class ImportanceSampler:
    """Importance sampling of one posterior.

    Attributes:
        posterior: Map and density.
        target: What it is conditioned on.
        frames: Normal approximations of the modes, the best one first.
        seed: Seed of all random numbers.
        bend: Takes what is drawn to the frame of the best mode; None where that is all.
        n_groups: Number of independent groups of points, which stand in for chains.
        n_draws: Number of draws of a group.
        stage: Name of the work in progress events.
        most: Number of points after which to stop.
    """

    posterior: Posterior
    target: Target
    frames: tuple[Frame, ...]
    seed: int
    bend: Bend | None = None
    n_groups: int = 4
    n_draws: int = _PICKED
    stage: str = "draws"
    most: int = MOST
    # What the rounds draw from, and its densities: both follow from seed and frames.
    _rounds: list[Round] = field(default_factory=list, init=False, repr=False, compare=False)
    _log_densities: dict[int, FloatArray] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def name(self) -> str:
        """Name of the engine."""
        return "importance"

    def start(self) -> ImportanceState:
        """Return the state before the first round."""
        d, k = self.posterior.size, n_drawn(self.posterior)
        return ImportanceState(np.empty((0, d - k)), np.empty((0, d)), np.empty(0), np.empty(0))

    def advance(self, state: ImportanceState) -> ImportanceState:
        """Draw and weigh one block of points."""
        n = len(state.z)
        rng = np.random.default_rng((self.seed, n))
        z = draw_mixture(self._rounds_until(state)[-1].mixture, rng, _BLOCK)
        normal = rng.normal(size=(_BLOCK, n_drawn(self.posterior)))
        placed = z if self.bend is None else self.bend.place(z)
        points = np.asarray(self._frames[0].place(jax.device_put(placed)))
        centre = self.frames[0].centre
        found = complete_all(points, normal, self.target, centre, self.posterior)
        new = ImportanceState(z, *found)
        return ImportanceState(*(np.concatenate(c) for c in zip(state, new, strict=True)))

    def looked_at(self, state: ImportanceState) -> bool:
        """Whether a round has ended, and there are enough points to judge."""
        return len(state.z) in _ENDS and len(state.z) >= _JUDGED

    def finished(self, state: ImportanceState) -> bool:
        """Whether all rounds have ended."""
        return len(state.z) >= self.most

    def progress(self, state: ImportanceState) -> Progress:
        """Say how many points there are."""
        return Progress(self.stage, len(state.z), self.most)

    def draws(self, state: ImportanceState) -> Draws:
        """Pick draws of equal weight; there is at least one block of points.

        Only points of late rounds count, each weighed by the round that it was drawn from,
        which knows nothing of the point: weights by all rounds together are smaller where later
        rounds went after heavy points, never larger where there were none, and so make tails
        too light.
        """
        first = _first_counted(len(state.z))
        weights, k_hat = smoothed(self._log_weights_alone(state)[first:])
        rng = np.random.default_rng((self.seed, 1, len(state.z)))
        chosen = picked(weights, self.n_groups, self.n_draws, rng)
        rounds = bisect_left(_ENDS, len(state.z)) + 1
        y, log_density = state.y[first:], state.log_density[first:]
        return Draws(
            y[chosen],
            log_density[chosen],
            proposals=Proposals(y, log_density, weights, k_hat, rounds),
        )

    def to_arrays(self, state: ImportanceState) -> dict[str, FloatArray]:
        """Return everything that a state holds, by name."""
        return dict(state._asdict())

    def from_arrays(self, arrays: Mapping[str, FloatArray]) -> ImportanceState:
        """Rebuild the state that ``to_arrays`` took apart."""
        return ImportanceState(*(np.asarray(arrays[n]) for n in ImportanceState._fields))

    @cached_property
    def _frames(self) -> tuple[Frame, ...]:
        """Frames of the coordinates that are searched."""
        return tuple(narrowed(self.posterior, frame) for frame in self.frames)

    def _first(self) -> Round:
        """The round around the normal approximations of the modes, in the best one's frame."""
        centre, factor = (np.asarray(x) for x in self._frames[0])

        def seen(frame: Frame) -> tuple[FloatArray, FloatArray]:
            shift = np.asarray(frame.centre) - centre
            parts = (shift, np.asarray(frame.factor))
            first, second = (solve_triangular(factor, x, lower=True) for x in parts)
            return (first, second) if self.bend is None else self.bend.carried(first, second)

        return first_round([seen(frame) for frame in self._frames])

    def _rounds_until(self, state: ImportanceState) -> list[Round]:
        """All rounds up to the one that is to be drawn from or has ended."""
        known, needed = self._rounds, min(bisect_right(_ENDS, len(state.z)) + 1, len(_ENDS))
        while len(known) < needed:
            known.append(self._next(state.first(_ENDS[len(known) - 1])) if known else self._first())
        return known[:needed]

    def _next(self, past: ImportanceState) -> Round:
        """The round that follows points."""
        log_weights = self._log_weights(past, self._rounds)
        weights = tempered(log_weights, _FOR_MOMENTS * past.z.shape[1])
        rng = np.random.default_rng((self.seed, 2, len(weights)))
        return next_round(past.z, weights, self._rounds[-1], self._rounds[0], rng)

    def _log_weights_alone(self, state: ImportanceState) -> FloatArray:
        """Log density over that of the round that each point comes from."""
        log_weights = state.log_integrated.copy()
        self._rounds_until(state)
        for k, (start, end) in enumerate(pairwise((0, *_ENDS))):
            if start < len(state.z):
                log_weights[start:end] -= self._log_proposed(k, state.z)[start:end]
        return log_weights

    def _log_weights(self, state: ImportanceState, rounds: list[Round]) -> FloatArray:
        """Log density over the mean density of the rounds that the points come from."""
        ends = np.minimum(_ENDS[: len(rounds)], len(state.z))
        counts = np.diff(ends, prepend=0)
        proposed = [
            np.log(n / len(state.z)) + self._log_proposed(k, state.z)
            for k, n in enumerate(counts)
            if n > 0
        ]
        return state.log_integrated - logsumexp(proposed, axis=0)

    def _log_proposed(self, k: int, z: FloatArray) -> FloatArray:
        """Log density of points under the mixture of round k, kept from look to look."""
        known = self._log_densities.get(k, np.empty(0))
        if len(known) < len(z):
            new = log_mixture(self._rounds[k].mixture, z[len(known) :])
            known = self._log_densities[k] = np.concatenate([known, new])
        return known[: len(z)]


def _first_counted(n: int) -> int:
    """Number of points that are left out: those of the rounds that began in the first half."""
    starts = (0, *_ENDS)
    return next((start for start in starts if n <= 2 * start < 2 * n), 0)


def compile_weights(
    posterior: Posterior, target: Target, compiler: Callable[..., Future[None]] = compile_ahead
) -> Future[None]:
    """Have the code that weighs points compiled in the background.

    Args:
        posterior: Map and density.
        target: As it will be given.
        compiler: Takes a function and its arguments to be compiled.

    Returns:
        When the code is ready.
    """
    d, k = posterior.size, n_drawn(posterior)
    points, normal = np.zeros((PART, d - k)), np.zeros((PART, k))
    return compiler(
        complete, points, normal, target=target, centre=np.zeros(d), posterior=posterior
    )


def smoothed(log_weights: FloatArray) -> tuple[FloatArray, float]:
    """Return Pareto-smoothed weights that add up to 1, and the shape of their tail."""
    top = log_weights.max()
    ratios = log_weights - (top if np.isfinite(top) else 0.0)
    counted = ratios > -_NEGLIGIBLE
    if counted.sum() < _FEWEST:
        weights = np.where(counted, 1.0, 0.0) if counted.any() else np.ones(ratios.size)
        return weights / weights.sum(), float("inf")
    statistics = array_stats()
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
    return Frame(*map(jnp.asarray, moments(proposals.y, proposals.weights, old)))


def picked(weights: FloatArray, n_groups: int, n_draws: int, rng: np.random.Generator) -> IntArray:
    """Pick draws of equal weight among points, apart in groups that share no point.

    Args:
        weights: Weights of the points, shape (n,).
        n_groups: Number of groups.
        n_draws: Draws of each group.
        rng: Random numbers.

    Returns:
        Numbers of points, shape (n_groups, n_draws).
    """
    return np.stack([_pick(weights, k, n_groups, n_draws, rng) for k in range(n_groups)])


def _pick(
    weights: FloatArray, group: int, n_groups: int, n: int, rng: np.random.Generator
) -> IntArray:
    """Pick n of the points of a group with their weights.

    Copies of a point stay neighbours, so that measures of autocorrelation count them once.
    """
    members = rng.permutation(np.arange(group, weights.size, n_groups))
    return members[systematic(weights[members], n, rng)]
