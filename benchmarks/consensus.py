"""Shards against one pass over all pairs: ``python -m benchmarks.consensus [STRATEGY ...]``.

Without strategies all are run, and all rules of combination with random shards.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace

from benchmarks.performance import Section, machine, write
from benchmarks.recovery import bound
from heterodyne._typing import FloatArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.core.simulate import creep_flow, simulate_pairs
from heterodyne.optimization.cmc._analysis import Analysis, analyse
from heterodyne.optimization.cmc._assign import STRATEGIES, Sharding
from heterodyne.optimization.nlsq.core import fit_problem

N_FRAMES, SIGMA, SHARDS = 300, 0.02, 8
COLUMNS = (
    "strategy", "rule", "Pareto k-hat", "combined means off by, sd", "sd off by",
    "held against all", "final means off by, sd", "sd off by", "s",
)  # fmt: skip
TEXT = (
    "3 angles of {frames} frames of the creeping flow with independent errors, {pairs:,} unique "
    "pairs in {shards} shards, against all pairs in one pass with the same engine ({seconds:.0f} "
    "s). The largest difference over all unknowns but f0 and f2 and over rates and fraction at "
    "reference times, of the combined draws and of the result, which weights or importance "
    "sampling of all pairs have corrected. Machine: {machine}."
)
RULES = ("consensus_mc", "robust_consensus_mc", "simple_average")


def differences(first: Mapping[str, FloatArray], second: Mapping[str, FloatArray]) -> list[str]:
    """Largest differences of means, in standard deviations, and of standard deviations."""
    names = [name for name in second if name not in ("f0", "f2")]
    shift = max(abs(first[n].mean() - second[n].mean()) / second[n].std() for n in names)
    width = max(abs(first[n].std() / second[n].std() - 1.0) for n in names)
    return [f"{shift:.2f}", f"{width:.0%}"]


def main(strategies: list[str]) -> None:
    """Run strategies with one rule; without any named, all rules with one strategy as well."""
    flow = creep_flow(N_FRAMES)
    c2 = simulate_pairs(flow, 0.2, 1.0, SIGMA, seed=1)
    fit = fit_problem(bound(flow, c2))
    config = CMCConfig(min_success_rate=0.0, heterogeneity_abort=False)
    whole = analyse(fit, c2, config)
    rows = []
    cases = [(strategy, RULES[0]) for strategy in strategies or STRATEGIES]
    others = [] if strategies else [("random", rule) for rule in RULES[1:]]
    for strategy, rule in [*cases, *others]:
        chosen = replace(config, combination_method=rule)
        found = analyse(fit, c2, chosen, sharding=Sharding(SHARDS, strategy, 1))
        rows.append(row(found, whole, strategy, rule))
        print(rows[-1], flush=True)
    text = TEXT.format(
        frames=N_FRAMES,
        pairs=fit.problem.n_pairs,
        shards=SHARDS,
        seconds=whole.seconds,
        machine=machine(),
    )
    section = Section("Shards", text, COLUMNS, rows)
    print(section.markdown())
    write(section)


def row(found: Analysis, whole: Analysis, strategy: str, rule: str) -> list[str]:
    """Describe one combination."""
    assert found.combination is not None
    expected = whole.plain.all()
    before = differences(found.combination.combined, expected)
    after = differences(found.plain.all(), expected)
    k_hat, held = f"{found.combination.k_hat:.2f}", found.combination.held
    return [strategy, rule, k_hat, *before, held, *after, f"{found.seconds:.0f}"]


if __name__ == "__main__":
    main(sys.argv[1:])
