"""What a finished NUTS run says about itself: divergences, acceptance, tree depth, time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heterodyne._typing import FloatArray

DIVERGENCE_RATE_TARGET = 0.01
"""Share of divergent draws below which a run is as it should be."""

DIVERGENCE_RATE_HIGH = 0.05
"""Share of divergent draws above which a run is tried again."""

DIVERGENCE_RATE_CRITICAL = 0.1
"""Share of divergent draws above which smaller steps are unlikely to help."""

_LOWEST_ACCEPTANCE = 0.6


@dataclass(frozen=True)
class SamplingStats:
    """Summary of one finished NUTS run.

    Attributes:
        num_samples: Draws of each chain.
        num_warmup: Steps of adaptation of each chain.
        num_divergences: Divergent draws of all chains.
        divergence_rate: Share of draws that diverged.
        mean_accept_prob: Mean acceptance probability of the draws.
        max_tree_depth_fraction: Share of draws at the largest tree depth.
        wall_time_seconds: Duration of the run in s, compilation included.
    """

    num_samples: int
    num_warmup: int
    num_divergences: int
    divergence_rate: float
    mean_accept_prob: float
    max_tree_depth_fraction: float
    wall_time_seconds: float

    @property
    def is_healthy(self) -> bool:
        """Whether fewer than 5 % of draws diverged and more than 60 % were accepted on average.

        A number that is not known (NaN) is not healthy.
        """
        return (
            self.divergence_rate < DIVERGENCE_RATE_HIGH
            and self.mean_accept_prob > _LOWEST_ACCEPTANCE
        )


def remarks(stats: SamplingStats) -> list[str]:
    """Say what is wrong with a run and what to do; empty if nothing is."""
    found = []
    rate = f"{stats.divergence_rate:.1%} of the draws diverged"
    if stats.divergence_rate > DIVERGENCE_RATE_CRITICAL:
        found.append(
            f"{rate}: the posterior has corners or a neck that NUTS does not follow, and the "
            "draws leave them out; write the model in other parameters"
        )
    elif stats.divergence_rate > DIVERGENCE_RATE_TARGET:
        found.append(f"{rate}, more than {DIVERGENCE_RATE_TARGET:.0%}; raise target_accept")
    if not stats.mean_accept_prob > _LOWEST_ACCEPTANCE:
        found.append(
            f"the mean acceptance probability is {stats.mean_accept_prob:.2f}, not above "
            f"{_LOWEST_ACCEPTANCE}: the step size is too large; take more warm-up steps or a "
            "larger target_accept"
        )
    return found


def tree_depths(num_steps: FloatArray) -> FloatArray:
    """Tree depth of trajectories from their numbers of steps, floor(log2(n)) + 1, any shape."""
    return np.floor(np.log2(num_steps)) + 1.0
