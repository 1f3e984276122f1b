"""Ensemble sampling: many walkers from different starts, moved until their groups agree.

Half of the groups start from weighted points of importance sampling around the modes of the
fit, the others from populations that have come from the prior. The walkers then move along
differences of earlier ones and to draws from a mixture that covers all of them, which lets
them change between modes. Mixture and differences are adapted first and then stay, so that
the chains are Markov chains of the posterior. Where groups of different starts agree, they
have forgotten them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtri

from heterodyne._events import Progress
from heterodyne._typing import BoolArray, FloatArray
from heterodyne.optimization.cmc._diagnostics import rank_r_hat
from heterodyne.optimization.cmc._draws import Draws, Proposals, Walks
from heterodyne.optimization.cmc._ensemble_state import EnsembleState, Kind
from heterodyne.optimization.cmc._frame import Frame
from heterodyne.optimization.cmc._importance import picked
from heterodyne.optimization.cmc._linear import narrowed, searched
from heterodyne.optimization.cmc._mixture import (
    Mixture,
    around_modes,
    covering,
    independent,
    marginal,
    weighed,
)
from heterodyne.optimization.cmc._nuts import Target
from heterodyne.optimization.cmc._renewal import (
    beside_fraction,
    of_course,
    of_fraction,
    renewed,
    reshaped,
    swapped,
)
from heterodyne.optimization.cmc._tempering import from_prior, tempered_step
from heterodyne.optimization.cmc._walkers import (
    Density,
    Walkers,
    accepted,
    along_axes,
    differences,
)
from heterodyne.optimization.posterior import Posterior

# Walkers of a group, and of a population.
_WALKERS, _POPULATION = 256, 512
# Powers of the likelihood at which a population gives up.
_MOST_POWERS = 150
# Steps of a block, and after how many of them walkers are kept.
_BLOCK, _KEEP = 40, 8
# Fewest and most blocks of adaptation, which ends when walkers of different groups mingle. What is
# adapted to walkers that are still on their way fits none of them later.
_ADAPTED, _MOST_ADAPTED, _MINGLED = 8, 24, 1.05
# Blocks of draws after which to look at them. Tails fill slowly, and in all groups alike, so that
# R-hat does not see what is missing; parts of that many blocks tell whether intervals grow.
_LOOK = 16
# The order of steps.
_KINDS = (
    Kind.DIFFERENCE, Kind.INDEPENDENT, Kind.AXIS, Kind.RENEWED, Kind.DIFFERENCE, Kind.SWAPPED,
    Kind.DIFFERENCE, Kind.BESIDE, Kind.AXIS, Kind.RESHAPED,
)  # fmt: skip
_OF_PRIORS = {Kind.RENEWED: renewed, Kind.RESHAPED: reshaped, Kind.SWAPPED: swapped}
_COMPONENTS, _FIRST_COMPONENTS = 24, 12
_FITTED = 0.7
_BROAD = 0.05
# Root of the power of the likelihood that grows about evenly with time.
_EVENLY = 0.25
# Points that stand for weighted ones.
_PICKED = 2000
# Interval whose width shows whether tails are still filling, and the least share outside.
_CENTRAL = (0.05, 0.95)
_LEAST_OUTSIDE = 1e-3
# Most draws of each walker.
_MOST_KEPT = 16


@dataclass(frozen=True)
class EnsembleSampler:
    """Ensemble sampling of one posterior.

    Attributes:
        posterior: Map and density.
        target: What it is conditioned on.
        points: Weighted points that half of the groups start from.
        seed: Seed of all random numbers.
        n_groups: Number of groups, which stand in for chains, at least 2.
        n_steps: Largest number of steps of a walker after adaptation, up to whole looks.
        frames: Normal approximations of modes that compete, between which walkers jump.
        stage: Name of the work in progress events.
    """

    posterior: Posterior
    target: Target
    points: Proposals
    seed: int
    n_groups: int = 4
    n_steps: int = 800
    frames: tuple[Frame, ...] = ()
    stage: str = "draws"

    @property
    def name(self) -> str:
        """Name of the engine."""
        return "ensemble"

    @cached_property
    def _density(self) -> Density:
        return Density(self.posterior, self.target)

    @property
    def _most_blocks(self) -> int:
        return _LOOK * -(-self.n_steps // (_LOOK * _BLOCK))

    @property
    def _n_populations(self) -> int:
        return self.n_groups // 2

    @property
    def _beside(self) -> BoolArray:
        """Which of the coordinates that are searched are not the fraction's."""
        return ~of_fraction(self.posterior)

    def _rng(self, block: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, 3, block))

    def start(self) -> EnsembleState:
        """Return the state before the first power."""
        count = self._n_populations * _POPULATION
        walkers = from_prior(self._density, count, self._rng(0))
        m, d = walkers.x.shape[1], walkers.y.shape[1]
        return EnsembleState(
            walkers,
            power=0.0,
            block=1,
            started=0,
            adapted=0,
            reference=np.empty((0, m)),
            mixture=(),
            first=(),
            beside=(),
            kept=np.empty((0, 0, d)),
            log_density=np.empty((0, 0)),
            accepted=np.zeros((len(Kind), 2)),
        )

    def advance(self, state: EnsembleState) -> EnsembleState:
        """Raise the power of the likelihood once, or make a block of steps."""
        rng = self._rng(state.block)
        if state.in_groups:
            return self._walked(state, rng)
        if state.power < 1.0 and state.block < _MOST_POWERS:
            walkers, power = tempered_step(
                self._density, state.walkers, state.power, self._n_populations, rng
            )
            return state._replace(walkers=walkers, power=power, block=state.block + 1)
        return self._grouped(state, rng)

    def _grouped(self, state: EnsembleState, rng: np.random.Generator) -> EnsembleState:
        """Put groups together from weighted points and populations."""
        known, weights = self.points.y[:, searched(self.posterior)], self.points.weights
        populations = np.split(state.walkers.x, self._n_populations)
        starts = picked(weights, self.n_groups - self._n_populations, _WALKERS, rng)
        of_population = rng.permutation(_POPULATION)[:_WALKERS]
        x = np.concatenate(
            [*(known[rows] for rows in starts), *(p[of_population] for p in populations)]
        )
        standing = known[picked(weights, 1, _PICKED, rng)[0]]
        of_modes = self._around_modes(known, weights, rng)
        of_points = 0.25 if of_modes else 0.5
        mixture = weighed(covering(standing, _COMPONENTS, _BROAD, rng), of_points)
        mixture += weighed(of_modes, 0.5 - of_points)
        for population in populations:
            found = covering(population, _FIRST_COMPONENTS, _BROAD, rng)
            mixture += weighed(found, 0.5 / len(populations))
        return state._replace(
            walkers=self._density.at(x, rng),
            block=state.block + 1,
            started=state.block + 1,
            reference=x,
            mixture=mixture,
            first=mixture,
            beside=marginal(mixture, self._beside),
        )

    def _around_modes(
        self, x: FloatArray, weights: FloatArray, rng: np.random.Generator
    ) -> Mixture:
        """Cover the modes of the fit alike: picked points leave out those of little weight."""
        if not self.frames:
            return ()
        frames = (narrowed(self.posterior, frame) for frame in self.frames)
        modes = [(np.asarray(f.centre), np.asarray(f.factor)) for f in frames]
        return around_modes(x, weights, modes, rng)

    def _walked(self, state: EnsembleState, rng: np.random.Generator) -> EnsembleState:
        adapting = state.adapted == 0
        walkers = state.walkers
        counts, kept = np.zeros((len(Kind), 2)), []
        for step in range(1, _BLOCK + 1):
            kind = _KINDS[step % len(_KINDS)]
            proposed, ratio = self._proposed(kind, state, walkers.x, rng)
            new = self._density.at(proposed, rng)
            where = accepted(walkers, new, ratio, 1.0, rng)
            walkers = walkers.changed(np.flatnonzero(where), new.at(where))
            counts[kind] += where.sum(), where.size
            if step % _KEEP == 0:
                kept.append(walkers)
        state = state._replace(walkers=walkers, block=state.block + 1)
        return self._adapted(state, kept, rng) if adapting else _recorded(state, kept, counts)

    def _proposed(
        self, kind: Kind, state: EnsembleState, x: FloatArray, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray | float]:
        """Propose steps of one kind, and the log ratio of proposing them backwards."""
        if kind == Kind.INDEPENDENT:
            return independent(x, state.mixture, rng)
        if kind == Kind.BESIDE:
            return beside_fraction(x, state.beside, self.posterior, rng)
        if kind in _OF_PRIORS:
            return _OF_PRIORS[kind](x, self.posterior, rng)
        if kind == Kind.AXIS:
            return along_axes(x, state.reference, rng), 0.0
        return differences(x, state.reference, rng, of_course(self.posterior)), 0.0

    def _adapted(
        self, state: EnsembleState, kept: list[Walkers], rng: np.random.Generator
    ) -> EnsembleState:
        """Take differences and mixture from where walkers have been."""
        x = np.concatenate([walkers.x for walkers in kept])
        places = self._beside

        def covered(x: FloatArray, first: Mixture) -> Mixture:
            fitted = covering(x, _COMPONENTS, _BROAD, rng)
            return (*weighed(fitted, _FITTED), *weighed(first, 1.0 - _FITTED))

        done = state.block - state.started
        ended = done >= _MOST_ADAPTED or (done >= _ADAPTED and self._mingled(kept))
        return state._replace(
            adapted=state.block if ended else 0,
            reference=x,
            mixture=covered(x, state.first),
            beside=covered(x[:, places], marginal(state.first, places)),
        )

    def _mingled(self, kept: list[Walkers]) -> bool:
        """Whether walkers of different groups are in the same places, by their coordinates."""
        x = np.stack([walkers.x for walkers in kept], axis=1)
        by_group = x.reshape(self.n_groups, -1, x.shape[-1])
        return all(rank_r_hat(column) <= _MINGLED for column in np.moveaxis(by_group, -1, 0))

    def looked_at(self, state: EnsembleState) -> bool:
        """Whether there are draws of enough blocks to judge."""
        return state.in_groups and state.n_blocks > 0 and state.n_blocks % _LOOK == 0

    def finished(self, state: EnsembleState) -> bool:
        """Whether all blocks are done."""
        return state.in_groups and state.n_blocks >= self._most_blocks

    def progress(self, state: EnsembleState) -> Progress:
        """Say how far the populations are, then how many blocks of the groups are done.

        These are two stages: how long one takes says nothing about the other.
        """
        if not state.in_groups:
            detail = {"power of the likelihood": f"{state.power:.2g}"}
            return Progress(f"{self.stage} (populations)", state.power**_EVENLY, 1.0, detail)
        adaptation = (state.adapted or state.block + 1) - state.started
        total = max(adaptation, _ADAPTED) + self._most_blocks
        return Progress(self.stage, state.block - state.started, total)

    def draws(self, state: EnsembleState) -> Draws:
        """Return where the walkers were in the later half of the blocks."""
        count = len(state.kept)
        first = count // 2
        rows = np.linspace(first, count - 1, min(count - first, _MOST_KEPT)).round().astype(int)

        def in_groups(x: FloatArray) -> FloatArray:
            by_walker = x[rows].swapaxes(0, 1)
            return by_walker.reshape(self.n_groups, _WALKERS * len(rows), *x.shape[2:])

        done, proposed = state.accepted[:, 0], np.maximum(state.accepted[:, 1], 1.0)
        walks = Walks(
            n_walkers=len(state.walkers.x),
            n_steps=_BLOCK * state.n_blocks,
            n_powers=state.started - 2,
            acceptance=tuple((done / proposed).tolist()),
            growth=_growth(state.kept),
        )
        return Draws(in_groups(state.kept), in_groups(state.log_density), walks=walks)

    def to_arrays(self, state: EnsembleState) -> dict[str, FloatArray]:
        """Return everything that a state holds, by name."""
        return state.to_arrays()

    def from_arrays(self, arrays: Mapping[str, FloatArray]) -> EnsembleState:
        """Rebuild the state that ``to_arrays`` took apart."""
        return EnsembleState.of_arrays(arrays)


def _recorded(state: EnsembleState, kept: list[Walkers], counts: FloatArray) -> EnsembleState:
    """Add where walkers have been to the draws."""
    y, log_density = (np.stack([getattr(w, name) for w in kept]) for name in ("y", "log_density"))
    if len(state.kept) > 0:
        y = np.concatenate([state.kept, y])
        log_density = np.concatenate([state.log_density, log_density])
    return state._replace(kept=y, log_density=log_density, accepted=state.accepted + counts)


def _growth(kept: FloatArray) -> float:
    """Change of the log of widths of intervals on the way to the draws, (k, n, d).

    It is that of a normal distribution that loses as many draws from its intervals. Shares
    outside are the same on any scale: some coordinates reach over many orders.
    """
    half = len(kept) // 2
    # What the later half lacks is about what it has gained on the quarter before it; the first
    # quarter still shows the start.
    before = kept[half // 2 : half]
    if len(before) == 0:
        return float("nan")
    low, high = np.quantile(before.reshape(-1, kept.shape[2]), _CENTRAL, axis=0)
    moving = low < high
    outside = ((kept[half:] < low) | (kept[half:] > high))[..., moving].mean()
    reached = ndtri(0.5 * np.maximum(outside, _LEAST_OUTSIDE))
    return float(np.log(ndtri(_CENTRAL[0]) / reached))
