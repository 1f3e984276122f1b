"""One result from the results of shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import norm

from heterodyne._errors import DataError
from heterodyne._log import get_logger
from heterodyne._typing import FloatArray
from heterodyne.optimization.cmc._summary import INTERVALS, by_chain, moments, status_of
from heterodyne.optimization.cmc.combine import combine_shard_samples

if TYPE_CHECKING:
    from heterodyne.optimization.cmc.results import CMCResult

_LOG = get_logger(__name__)


def merge_shard_cmc_results(
    shard_results: Sequence[CMCResult], parameter_names: Sequence[str] | None = None
) -> CMCResult:
    """Combine results of shards whose priors multiply to the prior.

    Where every shard holds draws, these are combined by ``combine_shard_samples`` and the
    figures are those of the combined draws. Elsewhere means are weighted by the inverse
    variances that the results state, and intervals are those of a normal distribution.
    Diagnostics are the worst of all shards: R-hat and effective numbers of each parameter; and
    BFMI of any chain, which every combined chain has, as its draws are averages over all shards.

    Args:
        shard_results: Results of the shards, at least one.
        parameter_names: Parameters of the result; those of the shards if None. Draws of the
            others are combined too, since they are correlated, and left out in the end; those of
            sigma, which is no parameter, stay.

    Returns:
        The combined result; ``metadata["shard_diagnostics"]`` has the figures of each shard
        and ``metadata["combined_from"]`` says ``draws`` or ``moments``.

    Raises:
        DataError: No shard, or names that some shard lacks.
    """
    results = list(shard_results)
    names = _names(results, parameter_names)
    places = [[one.parameter_names.index(name) for name in names] for one in results]
    found = _from_draws(results, names) or _from_moments(results, places, names)
    passed, chains = all(one.convergence_passed for one in results), results[0].num_chains
    worst: dict[str, Callable[[FloatArray], FloatArray]] = {
        "r_hat": lambda x: x.max(axis=0),
        "ess_bulk": lambda x: x.min(axis=0),
        "ess_tail": lambda x: x.min(axis=0),
    }
    diagnostics = {
        what: _worst([getattr(one, what) for one in results], places, pick)
        for what, pick in worst.items()
    }
    return replace(
        results[0],
        parameter_names=names,
        **found,
        **diagnostics,
        convergence_passed=passed,
        convergence_status=status_of(passed),
        bfmi=_worst_energy([one.bfmi for one in results], found.get("num_chains", chains)),
        map_estimate=None,
        num_shards=len(results),
        divergences=sum(one.divergences for one in results),
        wall_time_seconds=_sum([one.wall_time_seconds for one in results]),
        warmup_time=_sum([one.warmup_time for one in results]),
        chi_squared=_sum([one.chi_squared for one in results]),
        quality_flag=None,
        mean_contrast=None,
        std_contrast=None,
        mean_offset=None,
        std_offset=None,
        inference_data=None,
    )


def _names(results: Sequence[CMCResult], asked: Sequence[str] | None) -> list[str]:
    if not results:
        raise DataError("there is no shard to merge", where="shard_results")
    names = list(results[0].parameter_names if asked is None else asked)
    for k, one in enumerate(results):
        known = one.parameter_names
        missing = [name for name in names if name not in known]
        if missing or (asked is None and list(known) != names):
            raise DataError(
                f"shard {k} has the parameters {', '.join(known)}",
                where="shard_results",
                allowed=f"{', '.join(names)}, as {'shard 0' if asked is None else 'asked'}",
            )
    return names


def _from_draws(results: Sequence[CMCResult], names: list[str]) -> dict[str, Any] | None:
    """Figures of combined draws; None where a shard holds none, or another number."""
    shards = []
    for one in results:
        held = by_chain(one.samples or {}, one.num_chains)
        if any(name not in held for name in names):
            return None
        shards.append(held)
    common = [name for name in shards[0] if all(name in held for held in shards)]
    if len({held[names[0]].shape for held in shards}) > 1:
        _LOG.warning("Shards have different numbers of draws: their moments are combined.")
        return None
    combined = combine_shard_samples([{name: held[name] for name in common} for held in shards])
    left_out = {name for one in results for name in one.parameter_names} - set(names)
    draws = {name: x for name, x in combined.items() if name not in left_out}
    named = {name: draws[name] for name in names}
    chains, count = named[names[0]].shape
    return {
        **moments(named),
        "samples": draws,
        "num_chains": chains,
        "num_samples": count,
        "metadata": _metadata(results, "draws"),
    }


def _from_moments(
    results: Sequence[CMCResult], places: list[list[int]], names: list[str]
) -> dict[str, Any]:
    """Figures of the product of normal distributions without correlations."""
    means = np.array([one.posterior_mean[k] for one, k in zip(results, places, strict=True)])
    deviations = np.array([one.posterior_std[k] for one, k in zip(results, places, strict=True)])
    wrong = ~(np.isfinite(means) & np.isfinite(deviations) & (deviations > 0))
    if wrong.any():
        shard, k = np.argwhere(wrong)[0]
        raise DataError(
            f"shard {shard} has {names[k]} = {means[shard, k]:g} ± {deviations[shard, k]:g}",
            where="shard_results",
            allowed="a finite mean and a standard deviation above 0",
        )
    weights = deviations**-2.0
    mean = (weights * means).sum(axis=0) / weights.sum(axis=0)
    std = weights.sum(axis=0) ** -0.5
    intervals = {
        name: {level: tuple((m + s * norm.ppf(ends)).tolist()) for level, ends in INTERVALS.items()}
        for name, m, s in zip(names, mean, std, strict=True)
    }
    return {
        "posterior_mean": mean,
        "posterior_std": std,
        "credible_intervals": intervals,
        "samples": None,
        "metadata": _metadata(results, "moments"),
    }


def _metadata(results: Sequence[CMCResult], combined_from: str) -> dict[str, Any]:
    return {
        "combined_from": combined_from,
        "shard_diagnostics": [
            {
                "shard": k,
                "r_hat_max": _extreme(one.r_hat, np.max),
                "ess_bulk_min": _extreme(one.ess_bulk, np.min),
                "bfmi_min": _extreme(one.bfmi, np.min),
                "divergences": one.divergences,
                "converged": one.convergence_passed,
            }
            for k, one in enumerate(results)
        ],
    }


def _extreme(values: Any, pick: Callable[[FloatArray], Any]) -> float:
    known = values is not None and np.size(values) > 0
    return float(pick(np.asarray(values, float))) if known else float("nan")


def _worst(
    values: Sequence[FloatArray | None],
    places: list[list[int]],
    pick: Callable[[FloatArray], FloatArray],
) -> FloatArray | None:
    """Worst figure of each parameter; NaN, which is not known, is worse than any."""
    if any(x is None for x in values):
        return None
    rows = [np.asarray(x, float)[k] for x, k in zip(values, places, strict=True)]
    return pick(np.array(rows))


def _worst_energy(values: Sequence[Any], num_chains: int) -> FloatArray | None:
    """Smallest BFMI of any chain of any shard, once for each combined chain."""
    if any(x is None for x in values):
        return None
    return np.full(num_chains, np.min([_extreme(x, np.min) for x in values]))


def _sum(values: Sequence[float | None]) -> float | None:
    known = [x for x in values if x is not None]
    return sum(known) if len(known) == len(values) else None
