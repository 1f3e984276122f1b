"""What an engine returns: draws of equal weight, and what it recorded of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heterodyne._typing import FloatArray, IntArray


def kish(weights: FloatArray) -> float:
    """Number of points of equal weight that are worth as much (Kish), shape (n,) to scalar."""
    # Squares of tiny weights vanish.
    top = weights.max(initial=0.0)
    if not top > 0:
        return 0.0
    shares = weights / top
    return float(shares.sum() ** 2 / (shares**2).sum())


def systematic(weights: FloatArray, n: int, rng: np.random.Generator) -> IntArray:
    """Pick n points with their weights, by places at equal distances (systematic resampling).

    Args:
        weights: Weights, shape (m,).
        n: Number of picks.
        rng: Random numbers.

    Returns:
        Numbers of points in ascending order, shape (n,), so that copies are neighbours.
    """
    cumulative = np.cumsum(weights)
    places = (np.arange(n) + rng.random()) / n * cumulative[-1]
    return np.minimum(np.searchsorted(cumulative, places), weights.size - 1)


@dataclass(frozen=True)
class Trajectories:
    """What NUTS recorded, leading axes (chain, draw).

    Attributes:
        energy: Hamiltonian at the end of each step.
        n_gradients: Gradients of each step.
        acceptance: Mean acceptance probability of each step.
        diverging: Whether a step diverged.
        step_size: Step size of each chain in the whitened frame, shape (chains,).
        warmup_steps: Steps of adaptation of each chain.
        warmup_gradients: Gradients of adaptation of all chains.
    """

    energy: FloatArray
    n_gradients: FloatArray
    acceptance: FloatArray
    diverging: np.ndarray
    step_size: FloatArray
    warmup_steps: int
    warmup_gradients: int


@dataclass(frozen=True)
class Proposals:
    """Weighted points, among which draws were picked.

    Attributes:
        y: Coordinates, shape (n, d).
        log_density: Log density of the coordinates, up to a constant, shape (n,).
        weights: Pareto-smoothed weights, which add up to 1, shape (n,).
        k_hat: Shape of the Pareto tail of the raw weights; above 0.7 their mean is not
            to be trusted (Vehtari, Simpson, Gelman, Yao and Gabry, JMLR 25 (72), 2024).
        rounds: Rounds of adaptation; 0 for points that are draws of another posterior.
    """

    y: FloatArray
    log_density: FloatArray
    weights: FloatArray
    k_hat: float
    rounds: int = 0

    @property
    def combined(self) -> bool:
        """Whether the points are draws of another posterior, such as one of shards."""
        return self.rounds == 0

    @property
    def kish(self) -> float:
        """Number of points of equal weight that are worth as much (Kish)."""
        return kish(self.weights)


@dataclass(frozen=True)
class Walks:
    """What ensemble sampling recorded.

    Attributes:
        n_walkers: Number of walkers in all groups.
        n_steps: Steps of each walker after adaptation.
        n_powers: Powers of the likelihood between prior and posterior.
        acceptance: Share of accepted steps: along differences, from the mixture, from the
            priors, of shapes from the priors, along axes, swaps of the components, and from
            the mixture beside the fraction.
        growth: Change of the log of the widths of central 90 % intervals of the coordinates,
            from the second quarter of the blocks to the later half.
    """

    n_walkers: int
    n_steps: int
    n_powers: int
    acceptance: tuple[float, ...]
    growth: float


AVERAGED = "ensemble of averaged frames"
"""Engine whose walkers explore averages, and whose draws are weighed by all pairs."""


@dataclass(frozen=True)
class Draws:
    """Draws from the posterior, leading axes (chain, draw).

    Attributes:
        y: Coordinates, shape (chains, draws, d).
        log_density: Log density of the coordinates, up to a constant.
        trajectories: What NUTS recorded; None for another engine.
        proposals: What importance sampling drew from; None for another engine.
        walks: What ensemble sampling recorded; None for another engine.
    """

    y: FloatArray
    log_density: FloatArray
    trajectories: Trajectories | None = None
    proposals: Proposals | None = None
    walks: Walks | None = None

    @property
    def engine(self) -> str:
        """Name of the engine."""
        if self.walks is not None:
            return "ensemble" if self.proposals is None else AVERAGED
        if self.proposals is None:
            return "nuts"
        return "consensus" if self.proposals.combined else "importance"

    @property
    def n_chains(self) -> int:
        """Number of chains, or of independent groups of proposals."""
        return self.y.shape[0]

    @property
    def n_draws(self) -> int:
        """Number of draws of each chain."""
        return self.y.shape[1]
