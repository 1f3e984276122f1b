"""Whether a result, or the results of shards, reach limits of convergence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from heterodyne.optimization.cmc.results import CMCResult


@dataclass(frozen=True)
class ConvergenceReport:
    """What a check of convergence found.

    Attributes:
        passed: Whether all three criteria were met.
        r_hat_passed: Whether R-hat of every parameter is known and small enough.
        ess_passed: Whether bulk and tail effective numbers of draws of every parameter are
            known and large enough.
        bfmi_passed: Whether the energy-based fraction of missing information of every chain
            is known and large enough.
        messages: One sentence per problem; for shards, their worst figures first.
    """

    passed: bool
    r_hat_passed: bool
    ess_passed: bool
    bfmi_passed: bool
    messages: list[str]


def validate_convergence(
    result: CMCResult, r_hat_threshold: float = 1.1, min_ess: float = 100, min_bfmi: float = 0.3
) -> ConvergenceReport:
    """Compare the diagnostics of a result with limits.

    Figures at a limit meet it. What was not measured does not, nor does R-hat of a result
    with a single chain, which no other chain could contradict.

    Args:
        result: The result.
        r_hat_threshold: Largest R-hat.
        min_ess: Smallest bulk and tail effective number of draws.
        min_bfmi: Smallest energy-based fraction of missing information of a chain.
    """
    r_hat = list(r_hat_problems(_figures(result, "r_hat"), result.num_chains, r_hat_threshold))
    ess = [
        problem
        for what in ("bulk", "tail")
        for problem in ess_problems(_figures(result, f"ess_{what}"), what, min_ess)
    ]
    bfmi = list(_bfmi_problems(result, min_bfmi))
    messages = [*r_hat, *ess, *bfmi]
    return ConvergenceReport(not messages, not r_hat, not ess, not bfmi, messages)


def r_hat_problems(r_hat: Mapping[str, float], n_chains: int, limit: float) -> Iterator[str]:
    """Say what is wrong with R-hat by parameter; a single chain has none."""
    if not r_hat:
        yield "There are no parameters, so R-hat is not known."
    if n_chains == 1:
        yield "R-hat needs chains to compare, and there is one: run 2 or more (num_chains)."
    for name, x in r_hat.items():
        if math.isnan(x):
            yield f"R-hat of {name} is not known (allowed {limit:g})."
        elif x > limit:
            yield f"R-hat of {name} is {x:.3f} (allowed {limit:g})."


def ess_problems(ess: Mapping[str, float], what: str, limit: float) -> Iterator[str]:
    """Say what is wrong with effective numbers of draws, of bulk or tail, by parameter."""
    if not ess:
        yield f"There are no parameters, so effective draws are not known ({what})."
    for name, x in ess.items():
        if math.isnan(x):
            yield f"Effective draws of {name} are not known ({what}; needed {limit:g})."
        elif x < limit:
            yield f"{name} has {x:.0f} effective draws ({what}; needed {limit:g})."


def _bfmi_problems(result: CMCResult, limit: float) -> Iterator[str]:
    values = np.array([] if result.bfmi is None else result.bfmi, float)
    lowest = float(values.min()) if values.size else math.nan
    if math.isnan(lowest):
        yield f"BFMI is not known (needed {limit:g})."
    elif lowest < limit:
        yield f"BFMI is {lowest:.2f} (needed {limit:g})."


def _figures(result: CMCResult, what: str) -> dict[str, float]:
    return {name: result.get_param_summary(name)[what] for name in result.parameter_names}


def validate_convergence_sharded(
    results: Sequence[CMCResult],
    r_hat_threshold: float = 1.1,
    min_ess: float = 100,
    min_bfmi: float = 0.3,
) -> ConvergenceReport:
    """Compare the diagnostics of every shard with limits.

    Args:
        results: Result of each shard.
        r_hat_threshold: Largest R-hat.
        min_ess: Smallest bulk and tail effective number of draws.
        min_bfmi: Smallest energy-based fraction of missing information of a chain.

    Returns:
        A report that passes where every shard does, and never without shards. Its first
        message gives the largest R-hat and the smallest effective number of draws of all
        shards; the others name the shard, counted from 0.
    """
    if not results:
        return ConvergenceReport(False, False, False, False, ["There are no shards to check."])
    reports = [validate_convergence(r, r_hat_threshold, min_ess, min_bfmi) for r in results]
    return ConvergenceReport(
        all(report.passed for report in reports),
        all(report.r_hat_passed for report in reports),
        all(report.ess_passed for report in reports),
        all(report.bfmi_passed for report in reports),
        [_worst(results), *(f"Shard {k}: {m}" for k, r in enumerate(reports) for m in r.messages)],
    )


def _worst(results: Sequence[CMCResult]) -> str:
    found = {
        what: [(x, name, k) for k, r in enumerate(results) for name, x in _figures(r, what).items()]
        for what in ("r_hat", "ess_bulk", "ess_tail")
    }
    r_hat, ess = found["r_hat"], found["ess_bulk"] + found["ess_tail"]
    shards = f"{len(results)} shard{'s' if len(results) > 1 else ''}"
    return (
        f"Of {shards}, the largest R-hat is {_extreme(r_hat, 1, '.3f')}; "
        f"the fewest effective draws are {_extreme(ess, -1, '.0f')}."
    )


def _extreme(figures: Sequence[tuple[float, str, int]], sign: int, digits: str) -> str:
    known = [figure for figure in figures if not math.isnan(figure[0])]
    if not known:
        return "not known"
    x, name, shard = max(known, key=lambda figure: sign * figure[0])
    unknown = len(figures) - len(known)
    more = f"; {unknown} not known" if unknown else ""
    return f"{x:{digits}} ({name}, shard {shard}{more})"
