"""An analysis as the files of a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray

from heterodyne._typing import FloatArray
from heterodyne.core._jax import jnp
from heterodyne.core.correlation import correlation_stretches
from heterodyne.core.packing import add_by_lag, over_weights
from heterodyne.data import TwoTimeData
from heterodyne.optimization.cmc._analysis import Analysis
from heterodyne.optimization.cmc._diagnostics import THRESHOLDS
from heterodyne.optimization.cmc._draws import Draws, Trajectories, Walks
from heterodyne.optimization.cmc._groups import CONVERGED, VERDICT
from heterodyne.optimization.cmc._quantities import curve_bands
from heterodyne.optimization.nlsq.core import Fit
from heterodyne.viz.thin import Thinning

_CURVE_POINTS = 120
_CURVE_DRAWS = 1000


def data_tree(analysis: Analysis) -> xarray.DataTree:
    """Return the draws as ArviZ groups.

    ``posterior`` holds the documented parameters, ``derived`` rates and fraction at
    reference times, ``corrected`` both from the likelihood corrected for speckle noise where
    that is likely, ``sample_stats`` and ``corrected_sample_stats`` what the sampler
    recorded, with its name, ``prior`` draws from the priors. Attributes hold the verdict.
    """
    draws = analysis.draws
    groups: dict[str, Mapping[str, FloatArray]] = {
        "posterior": analysis.plain.parameters,
        "derived": analysis.plain.derived,
        "sample_stats": _statistics(draws),
        "prior": analysis.prior.all(),
    }
    if analysis.corrected is not None:
        groups["corrected"] = analysis.corrected.all()
    if analysis.corrected_draws is not None:
        groups["corrected_sample_stats"] = _statistics(analysis.corrected_draws)
    units = {row.name: row.unit for row in analysis.rows}
    datasets = {name: _dataset(values, units) for name, values in groups.items()}
    datasets["sample_stats"].attrs["engine"] = draws.engine
    if analysis.corrected_draws is not None:
        datasets["corrected_sample_stats"].attrs["engine"] = analysis.corrected_draws.engine
    tree = xarray.DataTree.from_dict({f"/{name}": values for name, values in datasets.items()})
    # NetCDF has no truth values.
    tree.attrs = {CONVERGED: int(analysis.verdict.usable), VERDICT: analysis.verdict.headline}
    return tree


def _statistics(draws: Draws) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {"lp": draws.log_density}
    if draws.trajectories is not None:
        t = draws.trajectories
        found |= {
            "diverging": t.diverging,
            "energy": t.energy,
            "n_steps": t.n_gradients,
            "acceptance_rate": t.acceptance,
            "tree_depth": np.ceil(np.log2(t.n_gradients + 1)).astype(int),
        }
    return found


def _dataset(values: Mapping[str, FloatArray], units: Mapping[str, str]) -> xarray.Dataset:
    chains, count = next(iter(values.values())).shape
    variables = {
        name: xarray.Variable(("chain", "draw"), x, {"units": units[name]} if name in units else {})
        for name, x in values.items()
    }
    return xarray.Dataset(variables, {"chain": np.arange(chains), "draw": np.arange(count)})


def summary(analysis: Analysis, fit_seconds: float) -> dict[str, Any]:
    """Return what ``summary.json`` holds: verdict, table, sampler health, noise, shards."""
    inflation = {row.name: row.inflation for row in analysis.rows if row.corrected is not None}
    return {
        "verdict": analysis.verdict.as_dict(),
        "rows": [row.as_dict() for row in analysis.rows],
        "sampler": _sampler_health(analysis, fit_seconds),
        "noise": {
            "likely_speckle": analysis.noise.likely,
            "neighbour_correlation": analysis.noise.neighbour_correlation,
            "effective_speckles": list(analysis.noise.effective_speckles),
            "shot_noise": list(analysis.noise.shot_noise),
            "misfit": analysis.noise.misfit,
            "inflation": inflation,
            "text": _noise_text(analysis),
        },
        "thresholds": asdict(THRESHOLDS),
    } | _shards(analysis)


def _shards(analysis: Analysis) -> dict[str, Any]:
    """How the data were divided, how each shard fared, and how they compare."""
    found = analysis.combination
    if found is None:
        return {}
    derived = [row.name for row in analysis.rows if row.kind == "derived"]
    return {
        "shards": found.as_dict() | {"each": found.of_shards(), "compared": found.compared(derived)}
    }


def _sampler_health(analysis: Analysis, fit_seconds: float) -> dict[str, Any]:
    draws, d = analysis.draws, analysis.diagnosis
    found = {
        "engine": _engines(analysis),
        "chains": draws.n_chains,
        "draws": draws.n_draws,
        "r_hat_max": d.worst_r_hat[1],
        "ess_bulk_min": d.worst_ess_bulk[1],
        "ess_tail_min": d.worst_ess_tail[1],
        "seconds_fit": fit_seconds,
        "seconds_sampling": analysis.seconds,
    }
    if d.k_hat is not None:
        found |= {"k_hat": d.k_hat, "kish": d.kish}
    if d.growth is not None:
        found["growth"] = d.growth
    if draws.proposals is not None:
        found |= {"points": len(draws.proposals.weights), "rounds": draws.proposals.rounds}
    if d.divergences is not None:
        found |= {"divergences": d.divergences, "bfmi_min": d.worst_bfmi}
    if draws.trajectories is not None:
        found |= _trajectories(draws.trajectories)
    if draws.walks is not None:
        found |= _walks(draws.walks)
    return found


def _engines(analysis: Analysis) -> str:
    """Name the engine, or that of each pass where they differ."""
    plain, corrected = analysis.draws, analysis.corrected_draws
    if corrected is None or corrected.engine == plain.engine:
        return plain.engine
    return f"{plain.engine} (plain), {corrected.engine} (corrected)"


def _walks(w: Walks) -> dict[str, Any]:
    along, jumps, renewed, reshaped, axes, swaps, beside = w.acceptance
    return {
        "walkers": w.n_walkers,
        "steps": w.n_steps,
        "powers": w.n_powers,
        "acceptance": along,
        "acceptance_of_jumps": jumps,
        "acceptance_of_prior": renewed,
        "acceptance_of_shapes": reshaped,
        "acceptance_of_axes": axes,
        "acceptance_of_swaps": swaps,
        "acceptance_beside_fraction": beside,
    }


def _trajectories(t: Trajectories) -> dict[str, Any]:
    return {
        "warmup": t.warmup_steps,
        "gradients_per_draw": float(t.n_gradients.mean()),
        "gradients": int(t.n_gradients.sum()) + t.warmup_gradients,
        "longest_trajectory": int(t.n_gradients.max()),
        "step_size": float(np.median(t.step_size)),
        "acceptance": float(t.acceptance.mean()),
    }


def _noise_text(analysis: Analysis) -> str:
    noise = analysis.noise
    if not noise.likely:
        return (
            "Residuals of neighbouring pairs are not correlated, so the errors of pairs are "
            "taken as independent."
        )
    return (
        "Pairs that share a frame share its speckles, so their errors are correlated. The "
        "corrected intervals come from a likelihood whose width is that of speckle noise "
        "(sandwich), with the number of speckles and the shot noise read off the residuals."
    )


def curves(analysis: Analysis, t: FloatArray) -> dict[str, FloatArray]:
    """Return what ``curves.npz`` holds: bands of rates and fraction over the window.

    Args:
        analysis: Judged draws.
        t: Times of the fitted frames in s.
    """
    index = np.unique(np.linspace(0, t.size - 1, _CURVE_POINTS).round().astype(int))
    times = t[index]
    bands: dict[str, FloatArray] = {"t": times}
    layers = {"plain": analysis.plain, "corrected": analysis.corrected}
    for layer, quantities in layers.items():
        if quantities is not None:
            physics = quantities.physics.reshape(-1, quantities.physics.shape[-1])
            every = max(1, physics.shape[0] // _CURVE_DRAWS)
            found = curve_bands(physics[::every], times)
            bands |= {f"{name}_{layer}": values for name, values in found.items()}
    return bands


def maps(fit: Fit, data: TwoTimeData) -> dict[str, np.ndarray]:
    """Return what ``maps.npz`` holds: data, model and residuals, thinned, and lag cuts."""
    packed = fit.problem.data
    thinning = Thinning.of(data.n_frames)
    found = [_angle_maps(fit, data, k, thinning) for k in range(data.n_angles)]
    arrays = {name: np.stack([one[name] for one in found]) for name in found[0]}
    return arrays | {
        "t": thinning.times(data.t),
        "phi": np.asarray(packed.phi),
        "lags": data.dt * np.arange(1, data.n_frames),
        "lag_measured": np.asarray(packed.lag_mean)[:, 1:],
    }


def _angle_maps(fit: Fit, data: TwoTimeData, k: int, thinning: Thinning) -> dict[str, np.ndarray]:
    """Thinned maps of one angle, and the mean of the model at each lag."""
    at, packed, fitted = fit.least_squares, fit.problem.data, data.fitted
    pictures = {
        name: np.empty((thinning.n_blocks,) * 2, np.float32)
        for name in ("measured", "model", "residual")
    }
    totals, counts = np.zeros(data.n_frames), np.zeros(data.n_frames)
    for rows, correlation in correlation_stretches(
        jnp.asarray(fit.parameters),
        packed.t,
        packed.q,
        packed.dt,
        packed.phi[k],
        multiple=thinning.step,
    ):
        measured = data.c2[k, rows].astype(np.float64)
        model = at.offset[0, k] + at.contrast[0, k] * correlation
        used = fitted[rows, None] & fitted
        np.fill_diagonal(used[:, rows.start :], False)
        parts = (measured, model, np.where(used, measured - model, np.nan))
        for name, part in zip(pictures, parts, strict=True):
            pictures[name][thinning.blocks(rows)] = thinning.means(part, rows.start)
        later = slice(rows.start, None)
        add_by_lag(totals, rows.start, np.where(used, model, 0.0)[:, later])
        add_by_lag(counts, rows.start, used[:, later].astype(float))
    return pictures | {"lag_model": over_weights(totals, counts)[1:]}
