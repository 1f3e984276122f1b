"""From judged draws to the documented result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from heterodyne._typing import FloatArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.optimization.cmc._analysis import Analysis
from heterodyne.optimization.cmc._diagnostics import Diagnosis, bfmi, limits_of
from heterodyne.optimization.cmc._draws import Draws
from heterodyne.optimization.cmc._frame import posterior_mode
from heterodyne.optimization.cmc._quantities import Quantities
from heterodyne.optimization.cmc._record import data_tree
from heterodyne.optimization.cmc._shard_plan import schedule_of_shard
from heterodyne.optimization.cmc._summary import (
    KINDS,
    deviation,
    intervals,
    mixing,
    moments,
    status_of,
)
from heterodyne.optimization.cmc.results import CMCResult
from heterodyne.optimization.scaling import ScalingParameter

_NOISE = "sigma"
# By how many of the two sets of limits are reached: of the configuration, of the verdict.
_QUALITY = ("poor", "marginal", "good")


def result_of(analysis: Analysis, config: CMCConfig, per_angle_mode: str) -> CMCResult:
    """Put the documented result together, from the draws to believe.

    Those are the corrected ones where speckle noise is likely; the plain ones are then in
    ``metadata["plain"]``.

    Args:
        analysis: Judged draws.
        config: Limits that decide on ``convergence_passed``; the verdict in ``metadata``
            is by stricter ones.
        per_angle_mode: How contrast and offset depend on the angle, in its documented word.
    """
    believed, draws = _believed(analysis)
    samples = dict(believed.parameters)
    named = {name: x for name, x in samples.items() if name != _NOISE}
    scaling = analysis.posterior.scaling
    mean_contrast, std_contrast = _per_angle(scaling.contrast, samples)
    mean_offset, std_offset = _per_angle(scaling.offset, samples)
    passed = analysis.diagnosis.passed(limits_of(config))
    return CMCResult(
        parameter_names=list(named),
        **moments(named),
        **_mixing(analysis, draws, named),
        convergence_passed=passed,
        bfmi=_energies(analysis, draws),
        samples=samples,
        map_estimate=_mode(analysis, list(named)),
        num_warmup=_warmup(analysis, draws, config),
        num_samples=draws.n_draws,
        num_chains=draws.n_chains,
        num_shards=1 if analysis.combination is None else analysis.combination.sharding.n_shards,
        divergences=analysis.believed.divergences or 0,
        wall_time_seconds=analysis.seconds,
        metadata=_metadata(analysis, config),
        convergence_status=status_of(passed),
        per_angle_mode=per_angle_mode,
        chi_squared=_chi_squared(analysis),
        quality_flag=_QUALITY[passed + analysis.verdict.usable],
        mean_contrast=mean_contrast,
        std_contrast=std_contrast,
        mean_offset=mean_offset,
        std_offset=std_offset,
        inference_data=data_tree(analysis),
    )


def _mixing(analysis: Analysis, draws: Draws, named: Mapping[str, FloatArray]) -> dict[str, Any]:
    """R-hat and effective numbers of draws; of draws picked by weights, those of the weights."""
    if draws.proposals is None:
        return mixing(named)
    found = analysis.diagnosis
    return {key: np.array([getattr(found, key)[n] for n in named]) for key in KINDS}


def _energies(analysis: Analysis, draws: Draws) -> FloatArray | None:
    """Fraction of missing information of each chain.

    Draws that no chain of NUTS has followed are made from those of several, as of all shards:
    each of their chains is as bad as the worst of these.
    """
    if draws.trajectories is not None:
        return np.array(bfmi(draws.trajectories.energy))
    found = _energies_of_shards(analysis, draws) or analysis.diagnosis.bfmi
    return np.full(draws.n_chains, np.min(found)) if found else None


def _energies_of_shards(analysis: Analysis, draws: Draws) -> tuple[float, ...]:
    """BFMI of the chains of NUTS whose draws were combined; nothing for other draws."""
    known = analysis.combination
    if known is None or draws.proposals is None or not draws.proposals.combined:
        return ()
    kept = (d for k, d in enumerate(known.shards) if d is not None and k not in known.failed)
    return tuple(x for d in kept for x in d.bfmi)


def _warmup(analysis: Analysis, draws: Draws, config: CMCConfig) -> int:
    """Warm-up steps of each chain, or of each chain of the shards whose draws were combined."""
    if draws.trajectories is not None:
        return draws.trajectories.warmup_steps
    known = analysis.combination
    if known is None or not _energies_of_shards(analysis, draws):
        return 0
    n_pairs, size = analysis.fit.problem.n_pairs, analysis.posterior.size
    schedule = schedule_of_shard(config, n_pairs, known.sharding.n_shards, size)
    return schedule.n_stages * schedule.n_adapt


def _believed(analysis: Analysis) -> tuple[Quantities, Draws]:
    if analysis.corrected is None or analysis.corrected_draws is None:
        return analysis.plain, analysis.draws
    return analysis.corrected, analysis.corrected_draws


def _per_angle(
    part: ScalingParameter, samples: Mapping[str, FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of contrast or offset at each angle."""
    if not part.free:
        return np.array(part.low), np.zeros(len(part.low))
    spread = part.spread()
    mean = np.array([samples[name].mean() for name in part.names])
    std = np.array([deviation(samples[name]) for name in part.names])
    return spread @ mean, spread @ std


def _mode(analysis: Analysis, names: list[str]) -> FloatArray:
    y = posterior_mode(analysis.posterior, analysis.fit)
    there = Quantities.of(analysis.posterior, y[None, None], analysis.derived)
    return np.array([there.parameters[name].item() for name in names])


def _chi_squared(analysis: Analysis) -> float | None:
    reduced = analysis.fit.result.reduced_chi_square
    degrees = analysis.fit.problem.degrees_of_freedom
    return reduced * degrees if np.isfinite(reduced) else None


def _metadata(analysis: Analysis, config: CMCConfig) -> dict[str, Any]:
    data, noise = analysis.fit.problem.data, analysis.noise
    believed, draws = _believed(analysis)
    plain = {} if believed is analysis.plain else analysis.plain.all()
    times = analysis.fit.problem.fitted_times
    return {
        "engine": draws.engine,
        "verdict": analysis.verdict.as_dict(),
        "limits": asdict(limits_of(config)),
        "plain": _with_mixing(plain),
        "derived": {name: _figures(x) for name, x in believed.derived.items()},
        "sigma": _figures(believed.parameters[_NOISE]),
        "noise": asdict(noise),
        "fixed_parameters": dict(analysis.fit.result.fixed_parameters),
        "units": {row.name: row.unit for row in analysis.rows},
        "q": float(data.q),
        "dt": float(data.dt),
        "phi_angles": np.asarray(data.phi),
        # Prefactors and f2 depend on the origin of time.
        "fitted_times": (float(times[0]), float(times[-1])),
        **_counts(analysis.believed),
        **_of_shards(analysis),
    } | ({} if config.run_id is None else {"run_id": config.run_id})


def _counts(believed: Diagnosis) -> dict[str, Any]:
    """Number of divergences, and of the draws that they are among."""
    if believed.divergences is None:
        return {}
    return {"divergences": {"divergent": believed.divergences, "draws": believed.n_draws}}


def _of_shards(analysis: Analysis) -> dict[str, Any]:
    if analysis.combination is None:
        return {}
    found = analysis.combination
    return {"combination": found.as_dict(), "shard_diagnostics": found.of_shards()}


def _figures(x: FloatArray) -> dict[str, Any]:
    return {"mean": float(x.mean()), "std": deviation(x), **intervals(x)}


def _with_mixing(draws: Mapping[str, FloatArray]) -> dict[str, dict[str, Any]]:
    measured = mixing(draws)
    return {
        name: _figures(x) | {what: float(values[k]) for what, values in measured.items()}
        for k, (name, x) in enumerate(draws.items())
    }
