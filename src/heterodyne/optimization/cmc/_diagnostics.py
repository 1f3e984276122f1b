"""Convergence of draws, measured on every quantity that is reported.

Rank-normalised split R-hat and bulk and tail effective sample sizes: Vehtari, Gelman,
Simpson, Carpenter and Bürkner, Bayesian Analysis 16 (2), 667, 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from arviz_stats.base.array import array_stats

from heterodyne._typing import FloatArray


@dataclass(frozen=True)
class Thresholds:
    """What a converged run must reach: the one table of limits behind verdict and exit code.

    Attributes:
        r_hat: Largest R-hat.
        ess: Smallest bulk and tail effective number of draws.
        bfmi: Smallest energy-based fraction of missing information of a chain.
        divergent_share: Largest share of divergent draws.
    """

    r_hat: float = 1.01
    ess: float = 400.0
    bfmi: float = 0.3
    divergent_share: float = 0.001


THRESHOLDS = Thresholds()
# The tail is effective if both of these quantiles are.
_TAILS = (0.05, 0.95)


@dataclass(frozen=True)
class Diagnosis:
    """Convergence of a set of chains.

    Attributes:
        r_hat: Rank-normalised split R-hat by quantity; NaN for one that is constant.
        ess_bulk: Bulk effective number of draws by quantity.
        ess_tail: Tail effective number of draws by quantity.
        bfmi: Energy-based fraction of missing information of each chain.
        divergences: Number of divergent draws.
        n_draws: Number of draws of all chains.
    """

    r_hat: Mapping[str, float]
    ess_bulk: Mapping[str, float]
    ess_tail: Mapping[str, float]
    bfmi: tuple[float, ...]
    divergences: int
    n_draws: int

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
        """Smallest fraction of missing information of a chain; NaN if one is."""
        return float(np.min(self.bfmi))

    @property
    def divergent_share(self) -> float:
        """Share of draws whose trajectory diverged."""
        return self.divergences / max(self.n_draws, 1)

    def joined(self, other: Diagnosis) -> Diagnosis:
        """Return the worse of two diagnoses of the same quantities, and all their draws."""
        return Diagnosis(
            {name: _worse(x, other.r_hat[name], max) for name, x in self.r_hat.items()},
            {name: _worse(x, other.ess_bulk[name], min) for name, x in self.ess_bulk.items()},
            {name: _worse(x, other.ess_tail[name], min) for name, x in self.ess_tail.items()},
            (*self.bfmi, *other.bfmi),
            self.divergences + other.divergences,
            self.n_draws + other.n_draws,
        )

    def mixed(self, limits: Thresholds = THRESHOLDS) -> bool:
        """Whether R-hat and effective numbers of draws reach the limits."""
        return (
            self.worst_r_hat[1] <= limits.r_hat
            and self.worst_ess_bulk[1] >= limits.ess
            and self.worst_ess_tail[1] >= limits.ess
        )

    def passed(self, limits: Thresholds = THRESHOLDS) -> bool:
        """Whether every limit is reached."""
        return (
            self.mixed(limits)
            and self.worst_bfmi >= limits.bfmi
            and self.divergent_share <= limits.divergent_share
        )


def _worse(first: float, second: float, pick: Callable[[float, float], float]) -> float:
    if np.isnan(first) or np.isnan(second):
        return second if np.isnan(first) else first
    return pick(first, second)


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
        constant = bool(np.ptp(x) <= 1e-12 * np.abs(x).max(initial=0.0))
        r_hat[name], bulk[name], tail[name] = (
            (float("nan"),) * 3 if constant else _of_one(np.asarray(x, float))
        )
    return Diagnosis(r_hat, bulk, tail, bfmi(energy), int(np.sum(diverging)), energy.size)


def _of_one(x: FloatArray) -> tuple[float, float, float]:
    half = x.shape[1] // 2
    # R-hat needs two chains; a single one is compared with itself, first half with second.
    chains = x if x.shape[0] > 1 else np.concatenate([x[:, :half], x[:, -half:]])
    statistics: Any = array_stats
    r_hat = float(statistics.rhat(chains, method="rank"))
    return (
        r_hat,
        float(statistics.ess(x, method="bulk")),
        float(statistics.ess(x, method="tail", prob=_TAILS)),
    )


def bfmi(energy: FloatArray) -> tuple[float, ...]:
    """Energy-based fraction of missing information of each chain.

    Betancourt, arXiv:1604.00695: mean squared change of the energy over its variance.

    Args:
        energy: Hamiltonian of each draw, shape (chains, draws).
    """
    change = np.mean(np.diff(energy, axis=1) ** 2, axis=1)
    return tuple(float(x) for x in change / np.var(energy, axis=1))
