"""What is known about shards and the draws that were combined from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heterodyne._typing import FloatArray
from heterodyne.optimization.cmc._assign import Sharding
from heterodyne.optimization.cmc._diagnostics import Diagnosis
from heterodyne.optimization.cmc._passes import Sampled

SOUND, CORRECTED, UNSOUND = "sound", "corrected", "unsound"
_INTERVAL = (0.025, 0.5, 0.975)


@dataclass(frozen=True)
class Combination:
    """What is known about shards and their combination.

    Attributes:
        sharding: How the pairs were divided.
        method: Rule of combination.
        shards: Convergence of each shard; None where it has no draws.
        pairs: Number of pairs of each shard.
        failed: Numbers of the shards, counted from 0, that did not converge or have no draws,
            and were left out.
        problems: Why shards have no draws, by number.
        scatter: Largest distance of the shards' means in widths of a shard's posterior, by
            quantity; 0 where sound shards lie as far apart.
        k_hat: Pareto shape of the weights of the combined draws.
        kish: Number of independent draws that these are worth.
        shift: Largest distance of a mean of the combined draws from that of the result, in
            posterior standard deviations.
        held: ``SOUND`` where the draws were picked with these weights, ``CORRECTED`` where
            importance sampling went on from them, ``UNSOUND`` where neither held.
        combined: Unknowns and derived quantities of the combined draws before, by name.
        intervals: Median and ends of the 95 % interval of each shard by quantity, shape
            (shards, 3) as (low, median, high); NaN where a shard has no draws.
    """

    sharding: Sharding
    method: str
    shards: tuple[Diagnosis | None, ...]
    pairs: tuple[int, ...]
    failed: tuple[int, ...]
    problems: Mapping[int, str]
    scatter: dict[str, float]
    k_hat: float
    kish: float
    shift: float
    held: str
    combined: Mapping[str, FloatArray]
    intervals: Mapping[str, FloatArray]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for ``metadata``."""
        return {
            "num_shards": self.sharding.n_shards,
            "strategy": self.sharding.strategy,
            "seed": self.sharding.seed,
            "method": self.method,
            "failed": list(self.failed),
            "scatter": dict(self.scatter),
            "k_hat": self.k_hat,
            "kish": self.kish,
            "shift": self.shift,
            "held_against_all": self.held,
        }

    def of_shards(self) -> list[dict[str, Any]]:
        """Plain values of each shard."""
        return [self._of_shard(k) for k in range(len(self.shards))]

    def _of_shard(self, k: int) -> dict[str, Any]:
        d = self.shards[k]
        figures = dict.fromkeys(
            ("r_hat_max", "ess_bulk_min", "ess_tail_min", "divergences", "k_hat")
        )
        if d is not None:
            values = (
                d.worst_r_hat[1], d.worst_ess_bulk[1], d.worst_ess_tail[1], d.divergences, d.k_hat,
            )  # fmt: skip
            figures = dict(zip(figures, values, strict=True))
        converged, problem = k not in self.failed, self.problems.get(k)
        return {"shard": k, "n_pairs": self.pairs[k], **figures, "converged": converged} | (
            {} if problem is None else {"problem": problem}
        )

    def compared(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Medians and 95 % intervals of some quantities: of each shard, and combined."""
        return {
            name: {
                "shards": self.intervals[name],
                "combined": np.quantile(self.combined[name], _INTERVAL),
            }
            for name in names
        }


def interval_of_shards(found: Sequence[Sampled | None]) -> dict[str, FloatArray]:
    """Median and ends of the 95 % interval of each shard by quantity, as in ``Combination``."""
    drawn = {k: one.quantities.all() for k, one in enumerate(found) if one is not None}
    names = next(iter(drawn.values()), {})
    rows = {name: np.full((len(found), len(_INTERVAL)), np.nan) for name in names}
    for k, values in drawn.items():
        for name, x in values.items():
            rows[name][k] = np.quantile(x, _INTERVAL)
    return rows


def which_failed(failed: Sequence[int], problems: Mapping[int, str]) -> str:
    """Name shards that failed, counted from 1 as their tasks are, and why some have no draws.

    Args:
        failed: Their numbers, counted from 0.
        problems: Why there are no draws, by number.
    """
    return "; ".join(_failures(failed, problems))


def _failures(failed: Sequence[int], problems: Mapping[int, str]) -> Iterator[str]:
    listed = ", ".join(str(k + 1) for k in failed)
    yield f"number{'s' if len(failed) > 1 else ''} {listed}, counted from 1"
    for k, problem in sorted(problems.items()):
        yield f"number {k + 1} was not drawn: {problem}"
