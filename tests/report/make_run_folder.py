"""Fabricates the folder of a finished run: small, with numbers as a real run leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_registry import DEFAULT_REGISTRY
from heterodyne.core.simulate import Experiment, simulate_pairs
from heterodyne.io import files
from heterodyne.optimization.derived import Derived

TRUTH = {
    "D0_ref": 3.1e4, "alpha_ref": -0.35, "D_offset_ref": 120.0,
    "D0_sample": 8.4e3, "alpha_sample": 0.2, "D_offset_sample": -40.0,
    "v0": 620.0, "beta": -0.4, "v_offset": 8.0, "f0": 0.46, "f1": -0.03, "f2": 0.0,
    "f3": 0.05, "phi0": 2.2,
}  # fmt: skip
WIDTH = {
    "D0_ref": 640.0, "alpha_ref": 0.012, "D_offset_ref": 880.0,
    "D0_sample": 310.0, "alpha_sample": 0.03, "D_offset_sample": 930.0,
    "v0": 21.0, "beta": 0.05, "v_offset": 22.0, "f0": 0.11, "f1": 0.006, "f2": 930.0,
    "f3": 0.012, "phi0": 1.4,
}  # fmt: skip
OPEN = ("D_offset_ref", "D_offset_sample", "v_offset", "f2")
CONTRAST, OFFSET, SIGMA = 0.18, 1.005, 0.012
INFLATION = 2.7
CHAINS, DRAWS = 4, 400
THRESHOLDS = {"r_hat": 1.01, "ess": 400, "bfmi": 0.3}


def make_run_folder(
    folder: Path,
    *,
    converged: bool = True,
    corrected: bool = True,
    phi: tuple[float, ...] = (-30.0, 15.0, 75.0),
    n_frames: int = 96,
    seed: int = 0,
) -> Path:
    """Write every file of a run; the data are simulated, the draws are made up."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    truth = np.array([TRUTH[name] for name in PHYSICS_PARAM_NAMES])
    experiment = Experiment(truth, n_frames, 0.25, 0.0054, phi)
    groups, units = _draws(rng, experiment, converged=converged, corrected=corrected)
    rows = [_row(name, units[name], groups, converged=converged) for name in units]
    write = {
        "config.json": _config(experiment),
        "manifest.json": _manifest(seed),
        "data.json": _data(experiment),
        "fit.json": _fit(experiment),
        "summary.json": _summary(rows, experiment, converged=converged, corrected=corrected),
    }
    for name, value in write.items():
        files.write_json(folder / name, value)
    files.write_npz(folder / "maps.npz", _maps(experiment, seed))
    files.write_npz(folder / "curves.npz", _curves(rng, experiment, groups))
    _write_posterior(folder / "posterior.nc", groups)
    return folder


def _units(experiment: Experiment) -> dict[str, str]:
    units = {name: DEFAULT_REGISTRY[name].unit for name in PHYSICS_PARAM_NAMES}
    for base in ("contrast", "offset"):
        units |= {f"{base}_{k}": "" for k in range(len(experiment.phi))}
    units["sigma"] = ""
    derived = Derived.of(experiment.t)
    return units | dict(zip(derived.names, derived.units, strict=True))


def _draws(
    rng: np.random.Generator, experiment: Experiment, *, converged: bool, corrected: bool
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, str]]:
    centres, widths = dict(TRUTH), dict(WIDTH)
    for base, value in (("contrast", CONTRAST), ("offset", OFFSET)):
        for k in range(len(experiment.phi)):
            centres[f"{base}_{k}"], widths[f"{base}_{k}"] = value, 0.004
    centres["sigma"], widths["sigma"] = SIGMA, 3e-5
    plain = {n: _chains(rng, n, centres[n], widths[n], converged=converged) for n in centres}
    groups = {"posterior": plain, "derived": _derived(experiment, plain)}
    if corrected:
        wider = {
            n: d if n in OPEN else _within(n, centres[n] + INFLATION * (d - centres[n]))
            for n, d in plain.items()
        }
        groups["corrected"] = wider
        groups["corrected_derived"] = _derived(experiment, wider)
    groups["prior"] = {n: _prior(rng, n) for n in plain if n != "sigma"}
    return groups, _units(experiment)


def _chains(
    rng: np.random.Generator, name: str, centre: float, width: float, *, converged: bool
) -> np.ndarray:
    """Autoregressive chains; where not converged, slow ones around different levels."""
    keep = 0.3 if converged else 0.97
    noise = rng.normal(size=(CHAINS, DRAWS))
    for k in range(1, DRAWS):
        noise[:, k] = keep * noise[:, k - 1] + np.sqrt(1 - keep**2) * noise[:, k]
    if not converged:
        noise += np.array([-1.0, 0.0, 0.2, 1.4])[:, None]
    return _within(name, centre + width * noise)


def _within(name: str, draws: np.ndarray) -> np.ndarray:
    if name not in DEFAULT_REGISTRY:
        return draws
    return np.clip(draws, DEFAULT_REGISTRY[name].min_bound, DEFAULT_REGISTRY[name].max_bound)


def _prior(rng: np.random.Generator, name: str) -> np.ndarray:
    info = DEFAULT_REGISTRY[name if name in DEFAULT_REGISTRY else name.rsplit("_", 1)[0]]
    noise = rng.normal(size=20_000)
    if info.log_space:
        draws = info.prior_mean * np.exp(info.log_prior_scale * noise)
    else:
        draws = info.prior_mean + info.prior_std * noise
    return draws[(draws > info.min_bound) & (draws < info.max_bound)][None, :2000]


def _flat(draws: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack([draws[name].ravel() for name in PHYSICS_PARAM_NAMES], axis=1)


def _identified(draws: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Draws with the open parameters held, so that curves stay near the truth."""
    return draws | {n: np.full((CHAINS, DRAWS), TRUTH[n]) for n in OPEN}


def _derived(experiment: Experiment, draws: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    derived = Derived.of(experiment.t)
    values = derived.batch(_flat(_identified(draws))).T.reshape(-1, CHAINS, DRAWS)
    return dict(zip(derived.names, values, strict=True))


def _row(
    name: str, unit: str, groups: dict[str, dict[str, np.ndarray]], *, converged: bool
) -> dict[str, Any]:
    derived = "(" in name
    base = name if name in DEFAULT_REGISTRY else name.rsplit("_", 1)[0]
    kind = "derived" if derived else "noise" if name == "sigma" else "parameter"
    kind = "scaling" if base in ("contrast", "offset") else kind
    draws = groups["derived" if derived else "posterior"][name]
    low, median, high = np.percentile(draws, [2.5, 50, 97.5])
    wide = groups.get("corrected_derived" if derived else "corrected")
    ends = None if wide is None else np.percentile(wide[name], [2.5, 50, 97.5])
    prior = groups["prior"].get(name)
    rng = np.random.default_rng(list(name.encode()))
    good = rng.uniform(1.0002, 1.006), rng.uniform(900, 1500), rng.uniform(700, 1300)
    bad = rng.uniform(1.05, 1.9), rng.uniform(8, 60), rng.uniform(12, 80)
    r_hat, bulk, tail = good if converged else bad
    return {
        "name": name,
        "unit": unit,
        "kind": kind,
        "description": _description(name, base, derived=derived),
        "mean": draws.mean(), "sd": draws.std(), "median": median, "low": low, "high": high,
        "corrected": None if wide is None or ends is None
        else {
            "mean": wide[name].mean(), "sd": wide[name].std(),
            "low": ends[0], "median": ends[1], "high": ends[2],
        },
        "r_hat": r_hat, "ess_bulk": bulk, "ess_tail": tail,
        "contraction": None if prior is None else max(0.0, 1 - draws.std() / prior.std()),
        "identified": name not in OPEN,
        "prior": None if prior is None
        else {"text": "as in the run file", "mean": prior.mean(), "sd": prior.std()},
    }  # fmt: skip


def _description(name: str, base: str, *, derived: bool) -> str:
    if derived:
        curves = {
            "J_ref": "transport coefficient J of the reference",
            "J_sample": "transport coefficient J of the sample",
            "v": "velocity",
            "s": "sample fraction",
        }
        curve, time = name[:-1].split("(")
        return f"{curves[curve]} at t = {time}"
    if name == "sigma":
        return "standard deviation of the noise of one pair"
    return DEFAULT_REGISTRY[base].description


def _summary(
    rows: list[dict[str, Any]], experiment: Experiment, *, converged: bool, corrected: bool
) -> dict[str, Any]:
    n = len(experiment.phi)
    if converged:
        verdict = {
            "converged": True,
            "headline": "The sampler has converged; 14 of 18 quantities are set by the data.",
            "sentences": [
                "All four chains agree (largest R-hat 1.006), and every quantity has at least "
                "700 effective draws.",
                "D_offset_ref, D_offset_sample, v_offset and f2 are set by their priors.",
            ],
            "advice": ["Quote J, v and s at the reference times rather than D0, alpha and f2."],
        }
    else:
        verdict = {
            "converged": False,
            "headline": "The sampler has not converged: do not use these numbers.",
            "sentences": ["The chains disagree (largest R-hat 1.84, allowed 1.01)."],
            "advice": ["Sample longer: set sampling.draws to 4000 and sampling.warmup to 2000."],
        }
    verdict["believe"] = "corrected" if corrected else "plain"
    return {
        "verdict": verdict,
        "rows": rows,
        "sampler": {
            "engine": "nuts", "chains": CHAINS, "draws": DRAWS, "warmup": 500,
            "divergences": 0 if converged else 37,
            "r_hat_max": max(r["r_hat"] for r in rows),
            "ess_bulk_min": min(r["ess_bulk"] for r in rows),
            "ess_tail_min": min(r["ess_tail"] for r in rows),
            "bfmi_min": 0.91 if converged else 0.12,
            "gradients_per_draw": 14.6, "step_size": 0.31, "acceptance": 0.89,
            "seconds_fit": 3.21, "seconds_sampling": 48.7, "longest_trajectory": 31,
        },
        "noise": {
            "likely_speckle": corrected,
            "neighbour_correlation": 0.62 if corrected else 0.01,
            "effective_speckles": [2150.0 + 90 * k for k in range(n)],
            "shot_noise": [0.041 + 0.002 * k for k in range(n)],
            "misfit": 0.43,
            "inflation": {r["name"]: INFLATION for r in rows if r["kind"] == "parameter"}
            if corrected else {},
            "text": "Errors of neighbouring pairs move together, as speckle noise does; "
            "intervals for independent errors are too narrow."
            if corrected else "Errors of neighbouring pairs are independent.",
        },
        "thresholds": THRESHOLDS,
    }  # fmt: skip


def _config(experiment: Experiment) -> dict[str, Any]:
    return {
        "experimental_data": {"file_path": "/data/2024-3/sheared <gel> & ink.hdf"},
        "analyzer_parameters": {"dt": experiment.dt, "start_frame": 1, "end_frame": 96},
        "output": {"directory": "results"},
    }


def _manifest(seed: int) -> dict[str, Any]:
    return {
        "heterodyne": "0.1.0", "python": "3.11.9",
        "versions": {"jax": "0.10.2", "numpyro": "0.22.0", "numpy": "2.2.1", "arviz-stats": "0.8"},
        "created": "2026-11-25T09:30:00+00:00",
        "command": ["heterodyne", "sample", "run.yaml"],
        "seed": seed, "config_sha256": "c0ffee" * 10 + "c0ff",
        "data": {
            "path": "/data/2024-3/sheared <gel> & ink.hdf", "sha256": "ab12" * 16,
            "layout": "aps_u", "details": {"time origin": "frame 1 at dt", "stride": 1},
        },
    }  # fmt: skip


def _data(experiment: Experiment) -> dict[str, Any]:
    N, n = experiment.n_frames, len(experiment.phi)
    return {
        "q": experiment.q, "dt": experiment.dt,
        "t_first": experiment.t[0], "t_last": experiment.t[-1], "time_origin": "absolute",
        "n_frames": N, "n_fitted_frames": N - 2, "unique_pairs": n * (N - 2) * (N - 3) // 2,
        "bins": [
            {"label": 12 + k, "q": experiment.q, "phi": phi}
            for k, phi in enumerate(experiment.phi)
        ],
        "findings": [
            {"code": "dropped_frames", "severity": "warning",
             "text": "frames 40 and 41 are darker than their neighbours by 31 %.",
             "advice": "They are left out of the fit; look at the beam monitor."},
            {"code": "diagonal_replaced", "severity": "info",
             "text": "the diagonal is smooth, so it was replaced when the file was written.",
             "advice": "Nothing needs to be done: the diagonal is not fitted."},
        ],
        "notes": ["Frames 1 to 96 of 1000 were read.", "3 of 24 bins were chosen by q."],
    }  # fmt: skip


def _fit(experiment: Experiment) -> dict[str, Any]:
    names = [*TRUTH, *(f"contrast_{k}" for k in range(len(experiment.phi)))]
    widths = WIDTH | {n: 0.004 for n in names if n not in WIDTH}
    values = TRUTH | {n: CONTRAST for n in names if n not in TRUTH}
    p = len(TRUTH)
    return {
        "success": True,
        "message": "The best of 24 starts converged.",
        "parameters": [
            {"name": n, "unit": DEFAULT_REGISTRY[n].unit if n in DEFAULT_REGISTRY else "",
             "value": values[n], "error": None if n in OPEN else widths[n]}
            for n in names
        ],
        "fixed": {},
        "derived": [],
        "sigma": SIGMA, "reduced_chi_square": 1.02, "sum_of_squares": 1.93, "n_pairs": 13_000,
        "modes": [14.2, 380.0],
        "identifiability": {
            "sentences": [
                "The data inform f0·exp(−f1·f2), not f0 and f2 apart.",
                "D_offset_ref is set by its prior (the data hold 0.02 times the information of "
                "the prior).",
            ],
            "contraction": {n: 0.0 if n in OPEN else 0.97 for n in TRUTH},
            "names": list(TRUTH), "information": [10.0 ** (6 - k) for k in range(p)],
            "directions": np.eye(p),
        },
    }  # fmt: skip


def _maps(experiment: Experiment, seed: int) -> dict[str, np.ndarray]:
    measured = simulate_pairs(experiment, CONTRAST, OFFSET, SIGMA, seed)
    model = OFFSET + CONTRAST * experiment.correlation()
    residual = measured - model
    diagonal = np.arange(experiment.n_frames)
    residual[:, diagonal, diagonal] = np.nan
    residual[:, 39:41, :] = residual[:, :, 39:41] = np.nan
    lags = np.arange(1, experiment.n_frames)
    mean = [[np.diagonal(m, k).mean() for k in lags] for m in measured]
    line = [[np.diagonal(m, k).mean() for k in lags] for m in model]
    return {
        "t": experiment.t, "phi": np.array(experiment.phi),
        "measured": measured.astype(np.float32), "model": model.astype(np.float32),
        "residual": residual.astype(np.float32), "lags": lags * experiment.dt,
        "lag_measured": np.array(mean), "lag_model": np.array(line), "times": experiment.t,
    }  # fmt: skip


def _curves(
    rng: np.random.Generator, experiment: Experiment, groups: dict[str, dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    t = np.linspace(experiment.t[0], experiment.t[-1], 60)
    curves = {"t": t}
    for group, suffix in (("posterior", "plain"), ("corrected", "corrected")):
        if group not in groups:
            continue
        points = _flat(_identified(groups[group]))[rng.integers(0, CHAINS * DRAWS, 150)]
        values = Derived(tuple(t)).batch(points).reshape(len(points), 4, t.size)
        for k, name in enumerate(("J_ref", "J_sample", "v", "s")):
            curves[f"{name}_{suffix}"] = np.percentile(values[:, k], [2.5, 50, 97.5], axis=0)
    return curves


def _write_posterior(path: Path, groups: dict[str, dict[str, np.ndarray]]) -> None:
    rng = np.random.default_rng(3)
    stats = {
        "energy": 100 + rng.normal(size=(CHAINS, DRAWS)) * 3,
        "diverging": np.zeros((CHAINS, DRAWS), bool),
        "n_steps": np.full((CHAINS, DRAWS), 15),
        "acceptance_rate": rng.beta(9, 1, size=(CHAINS, DRAWS)),
    }
    kept = {n: d for n, d in groups.items() if n != "corrected_derived"} | {"sample_stats": stats}
    tree = xr.DataTree.from_dict(
        {
            name: xr.Dataset({n: (("chain", "draw"), v) for n, v in draws.items()})
            for name, draws in kept.items()
        }
    )
    tree.to_netcdf(path, engine="h5netcdf")
