"""The figures that say whether a sampler has converged, with their limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from heterodyne.report.numbers import NONE, Rounding, count, exact, known, significant


@dataclass(frozen=True)
class Check:
    """A figure of the sampler with its limit.

    Attributes:
        words: What it is.
        short: The same in a few words.
        value: What was found.
        limit: What is allowed; None where nothing is asked.
        write: Writes the value.
        above: Whether values above the limit fail, rather than those below.
    """

    words: str
    short: str
    value: float
    limit: float | None
    write: Callable[[float], str]
    above: bool = False

    @property
    def fails(self) -> bool:
        """Whether the value is on the wrong side of its limit."""
        if self.limit is None:
            return False
        return self.value > self.limit if self.above else self.value < self.limit

    @property
    def allowed(self) -> str:
        """The limit in words; a dash where there is none."""
        bound = f"{'at most' if self.above else 'at least'} {exact(self.limit)}"
        return NONE if self.limit is None else bound


def checks(summary: Mapping[str, Any]) -> list[Check]:
    """Figures of the sampler that a summary holds, with their limits."""
    s, limits = summary.get("sampler") or {}, summary.get("thresholds") or {}
    listed: list[tuple[str, str, Any, Any, Callable[[float], str], bool]] = [
        ("Agreement of chains or groups: largest R-hat", "R-hat", s.get("r_hat_max"),
         limits.get("r_hat"), Rounding(3), True),
        ("Fewest effective draws, centre", "effective draws (centre)", s.get("ess_bulk_min"),
         limits.get("ess"), count, False),
        ("Fewest effective draws, tails", "effective draws (tails)", s.get("ess_tail_min"),
         limits.get("ess"), count, False),
        ("Stability of the weights: Pareto k-hat", "Pareto k-hat", s.get("k_hat"),
         limits.get("k_hat"), Rounding(2), True),
        ("Independent draws that the weights are worth", "worth of the weights", s.get("kish"),
         limits.get("kish"), count, False),
        ("Change of the widths of intervals while walkers moved", "change of widths",
         _size(s.get("growth")), limits.get("growth"), significant, True),
        ("Smallest BFMI (steps in energy)", "BFMI", s.get("bfmi_min"), limits.get("bfmi"),
         significant, False),
        ("Divergences (places where the sampler failed)", "divergences", s.get("divergences"),
         _most_divergences(s, limits), count, True),
    ]  # fmt: skip
    return [
        Check(words, short, value, limit if known(limit) else None, write, above)
        for words, short, value, limit, write, above in listed
        if known(value)
    ]


def _size(change: Any) -> Any:
    return abs(change) if known(change) else change


def _most_divergences(s: Mapping[str, Any], limits: Mapping[str, Any]) -> int:
    """Divergences that are too few to matter."""
    share, chains, draws = limits.get("divergent_share"), s.get("chains"), s.get("draws")
    if known(share) and known(chains) and known(draws):
        return int(share * chains * draws)
    return 0
