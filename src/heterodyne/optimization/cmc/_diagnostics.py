"""Convergence of draws, measured on every quantity that is reported.

Rank-normalised split R-hat and bulk and tail effective sample sizes: Vehtari, Gelman,
Simpson, Carpenter and Bürkner, Bayesian Analysis 16 (2), 667, 2021.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from scipy.special import ndtri

from heterodyne._typing import FloatArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.optimization.cmc._draws import Proposals, Walks
from heterodyne.optimization.cmc._statistics import array_stats


@dataclass(frozen=True)
class Thresholds:
    """What a converged run must reach: the one table of limits behind verdict and exit code.

    Attributes:
        r_hat: Largest R-hat.
        ess: Smallest bulk and tail effective number of draws.
        bfmi: Smallest energy-based fraction of missing information of a chain.
        divergent_share: Largest share of divergent draws.
        k_hat: Pareto shape of importance weights, which must lie below.
        kish: Smallest number of independent draws that importance weights are worth.
        growth: Largest mean change of the log of widths of intervals while walkers walk.
    """

    r_hat: float = 1.01
    ess: float = 400.0
    bfmi: float = 0.3
    divergent_share: float = 0.001
    k_hat: float = 0.7
    kish: float = 1000.0
    growth: float = 0.03

    def at_least(self, r_hat: float, ess: float) -> Thresholds:
        """Return these limits, or others of R-hat and effective draws where they are stricter."""
        return replace(self, r_hat=min(self.r_hat, r_hat), ess=max(self.ess, ess))


THRESHOLDS = Thresholds()


def limits_of(config: CMCConfig) -> Thresholds:
    """Read the limits of a configuration, by which documented results pass."""
    return Thresholds(
        config.max_r_hat, float(config.min_ess), config.min_bfmi, config.max_divergence_rate
    )


# The tail is effective if both of these quantiles are.
_TAILS = (0.05, 0.95)
_NONE = (float("nan"),) * 3
_Figure = TypeVar("_Figure", int, float)
# Points beyond have scores of 6 standard deviations.
_SCORED = (1e-9, 1.0 - 1e-9)


@dataclass(frozen=True)
class Diagnosis:
    """Convergence of a set of chains, or of groups of weighted points.

    Attributes:
        r_hat: Rank-normalised split R-hat by quantity; NaN for one that is constant.
        ess_bulk: Bulk effective number of draws by quantity.
        ess_tail: Tail effective number of draws by quantity.
        bfmi: Energy-based fraction of missing information of each chain of NUTS.
        divergences: Number of divergent draws; None where no trajectories were simulated.
        n_draws: Number of draws of all chains.
        k_hat: Pareto shape of importance weights; None without them.
        kish: Number of independent draws that the weights are worth; None without them, or
            where effective numbers of draws are enough to go by.
        growth: How far intervals still grew or shrank while walkers walked, as ``Walks.growth``;
            None for another engine.
    """

    r_hat: Mapping[str, float]
    ess_bulk: Mapping[str, float]
    ess_tail: Mapping[str, float]
    bfmi: tuple[float, ...]
    divergences: int | None
    n_draws: int
    k_hat: float | None = None
    kish: float | None = None
    growth: float | None = None

    @property
    def worst_r_hat(self) -> tuple[str, float]:
        """Quantity of the largest R-hat, and its value."""
        return _extreme(self.r_hat, np.nanargmax)

    @property
    def worst_ess_bulk(self) -> tuple[str, float]:
        """Quantity of the smallest bulk effective number of draws, and its value."""
        return _extreme(self.ess_bulk, np.nanargmin)

    @property
    def worst_ess_tail(self) -> tuple[str, float]:
        """Quantity of the smallest tail effective number of draws, and its value."""
        return _extreme(self.ess_tail, np.nanargmin)

    @property
    def worst_bfmi(self) -> float:
        """Smallest fraction of missing information of a chain; NaN if one is, or without any."""
        return float(np.min(self.bfmi)) if self.bfmi else float("nan")

    @property
    def divergent_share(self) -> float:
        """Share of draws whose trajectory diverged; 0 where none were simulated."""
        return (self.divergences or 0) / max(self.n_draws, 1)

    def joined(self, other: Diagnosis) -> Diagnosis:
        """Return the worse of two diagnoses of the same quantities, and all their draws."""
        return Diagnosis(
            {name: _worse(x, other.r_hat[name], max) for name, x in self.r_hat.items()},
            {name: _worse(x, other.ess_bulk[name], min) for name, x in self.ess_bulk.items()},
            {name: _worse(x, other.ess_tail[name], min) for name, x in self.ess_tail.items()},
            (*self.bfmi, *other.bfmi),
            _known(self.divergences, other.divergences, operator.add),
            self.n_draws + other.n_draws,
            _known(self.k_hat, other.k_hat, max),
            _known(self.kish, other.kish, min),
            _known(self.growth, other.growth, _farther),
        )

    def after(self, walks: Diagnosis) -> Diagnosis:
        """Return the diagnosis of draws that were picked by weight among those of walks.

        Errors of both add up.
        """

        def both(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
            return {name: 1.0 / (1.0 / x + 1.0 / second[name]) for name, x in first.items()}

        joined = self.joined(walks)
        return replace(
            joined,
            ess_bulk=both(self.ess_bulk, walks.ess_bulk),
            ess_tail=both(self.ess_tail, walks.ess_tail),
            n_draws=self.n_draws,
        )

    def mixed(self, limits: Thresholds = THRESHOLDS) -> bool:
        """Whether R-hat, effective numbers, weights and widths of intervals reach the limits."""
        return (
            self.worst_r_hat[1] <= limits.r_hat
            and self.worst_ess_bulk[1] >= limits.ess
            and self.worst_ess_tail[1] >= limits.ess
            and self.well_weighted(limits)
            and self.settled(limits)
        )

    def well_weighted(self, limits: Thresholds = THRESHOLDS) -> bool:
        """Whether importance weights, if there are any, reach the limits."""
        if self.k_hat is None:
            return True
        return self.k_hat < limits.k_hat and (self.kish is None or self.kish >= limits.kish)

    def settled(self, limits: Thresholds = THRESHOLDS) -> bool:
        """Whether intervals of walkers, if there are any, have stopped growing."""
        return self.growth is None or abs(self.growth) <= limits.growth

    def passed(self, limits: Thresholds = THRESHOLDS) -> bool:
        """Whether every limit is reached."""
        return (
            self.mixed(limits)
            and (not self.bfmi or self.worst_bfmi >= limits.bfmi)
            and self.divergent_share <= limits.divergent_share
        )


def _worse(first: float, second: float, pick: Callable[[float, float], float]) -> float:
    if np.isnan(first) or np.isnan(second):
        return second if np.isnan(first) else first
    return pick(first, second)


def _known(
    first: _Figure | None, second: _Figure | None, pick: Callable[[_Figure, _Figure], _Figure]
) -> _Figure | None:
    if first is None or second is None:
        return second if first is None else first
    return pick(first, second)


def _farther(first: float, second: float) -> float:
    return max(first, second, key=abs)


def _extreme(values: Mapping[str, float], position: Callable[..., Any]) -> tuple[str, float]:
    names, figures = list(values), np.array(list(values.values()))
    if not np.isfinite(figures).any():
        return (names[0] if names else "", float("nan"))
    k = int(position(figures))
    return names[k], float(figures[k])


def diagnose(
    values: Mapping[str, FloatArray], energy: FloatArray, diverging: FloatArray
) -> Diagnosis:
    """Measure convergence.

    Args:
        values: Draws by name, shape (chains, draws) each.
        energy: Hamiltonian of each draw, shape (chains, draws).
        diverging: Whether a draw's trajectory diverged, shape (chains, draws).
    """
    r_hat, bulk, tail = {}, {}, {}
    for name, x in values.items():
        r_hat[name], bulk[name], tail[name] = _NONE if _constant(x) else _of_one(x)
    return Diagnosis(r_hat, bulk, tail, bfmi(energy), int(np.sum(diverging)), energy.size)


def diagnose_walks(values: Mapping[str, FloatArray], walks: Walks) -> Diagnosis:
    """Measure convergence of groups of walkers.

    R-hat compares groups, and within them early with late draws of all walkers: halves of the
    walkers would hide that all of them drift. It does not see tails that all of them still
    lack; whether intervals grow does.

    Args:
        values: Draws by name, shape (groups, draws) each, those of a walker side by side.
        walks: What was recorded of them.
    """
    r_hat, bulk, tail = {}, {}, {}
    for name, x in values.items():
        if _constant(x):
            r_hat[name], bulk[name], tail[name] = _NONE
            continue
        by_walker = x.reshape(x.shape[0], walks.n_walkers // x.shape[0], -1)
        r_hat[name] = rank_r_hat(by_walker.swapaxes(1, 2).reshape(x.shape))
        bulk[name], tail[name] = _effective(x)
    n_draws = next(iter(values.values())).size
    return Diagnosis(r_hat, bulk, tail, (), None, n_draws, growth=walks.growth)


def diagnose_weighted(
    values: Mapping[str, FloatArray], points: Mapping[str, FloatArray], proposals: Proposals
) -> Diagnosis:
    """Measure how well draws picked among weighted points describe the posterior.

    R-hat compares the groups of draws. Effective numbers are those of weighted means: of
    normal scores for the bulk, of the share of draws below the 5 % and 95 % quantiles for
    the tails.

    Args:
        values: Draws by name, shape (groups, draws) each.
        points: All weighted points by the same names, shape (n,) each.
        proposals: The points and their weights.
    """
    r_hat, bulk, tail = {}, {}, {}
    for name, x in values.items():
        if _constant(x):
            r_hat[name], bulk[name], tail[name] = _NONE
            continue
        r_hat[name] = rank_r_hat(x)
        bulk[name], tail[name] = _weighted(points[name], proposals.weights, x.size)
    n_draws = next(iter(values.values())).size
    return Diagnosis(r_hat, bulk, tail, (), None, n_draws, proposals.k_hat, proposals.kish)


def _weighted(x: FloatArray, weights: FloatArray, n_picked: int) -> tuple[float, float]:
    """Effective numbers of draws of bulk and tails, of n draws picked among the points."""
    order = np.argsort(x)
    below = np.empty(x.size)
    below[order] = np.clip(np.cumsum(weights[order]) - 0.5 * weights[order], *_SCORED)
    functions = [ndtri(below), *(below <= level for level in _TAILS)]
    found = [weighted_effective(np.asarray(f, float), weights) for f in functions]
    bulk, *tails = (1.0 / (1.0 / n + 1.0 / n_picked) for n in found)
    return bulk, min(tails)


def weighted_effective(x: FloatArray, weights: FloatArray) -> float:
    """Number of independent draws that give the weighted mean of x with as small an error.

    Args:
        x: Values, shape (n,).
        weights: Weights that add up to 1, shape (n,).
    """
    spread = (x - weights @ x) ** 2
    error = weights**2 @ spread
    return float(weights @ spread / error) if error > 0 else 1.0


def _constant(x: FloatArray) -> bool:
    return bool(np.ptp(x) <= 1e-12 * np.abs(x).max(initial=0.0))


def _of_one(x: FloatArray) -> tuple[float, float, float]:
    return (rank_r_hat(x), *_effective(x))


def _effective(x: FloatArray) -> tuple[float, float]:
    """Effective numbers of draws of bulk and tails."""
    statistics = array_stats()
    return (
        float(statistics.ess(x, method="bulk")),
        float(statistics.ess(x, method="tail", prob=_TAILS)),
    )


def rank_r_hat(x: FloatArray) -> float:
    """Rank-normalised R-hat of chains, shape (chains, draws)."""
    half = x.shape[1] // 2
    # R-hat needs two chains; a single one is compared with itself, first half with second.
    chains = x if x.shape[0] > 1 else np.concatenate([x[:, :half], x[:, -half:]])
    statistics = array_stats()
    # Chains that each stay elsewhere have an infinite one.
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(statistics.rhat(np.asarray(chains, float), method="rank"))


def bfmi(energy: FloatArray) -> tuple[float, ...]:
    """Energy-based fraction of missing information of each chain.

    Betancourt, arXiv:1604.00695: mean squared change of the energy over its variance.

    Args:
        energy: Hamiltonian of each draw, shape (chains, draws).
    """
    change = np.mean(np.diff(energy, axis=1) ** 2, axis=1)
    return tuple(float(x) for x in change / np.var(energy, axis=1))
