"""Files of results: draws, figures, fitted data and shards."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heterodyne._errors import ConfigError, DataError
from heterodyne._typing import ArrayLike, FloatArray, PathArg
from heterodyne.io import files
from heterodyne.optimization.cmc._paths import existing, in_folder, npz_path
from heterodyne.optimization.cmc._summary import by_chain

if TYPE_CHECKING:
    import xarray

    from heterodyne.optimization.cmc.results import CMCResult

_VERSION = 1
_DIAGNOSTICS = ("r_hat", "ess_bulk", "ess_tail", "bfmi")
_SHARD = re.compile(r"shard_(\d+)\.npz")


def save_inference_data(idata: xarray.DataTree, path: PathArg) -> Path:
    """Write ArviZ groups as NetCDF.

    Args:
        idata: Groups, such as ``CMCResult.inference_data``.
        path: File to write; its folder is made if it is missing.

    Returns:
        The file.

    Raises:
        ConfigError: It cannot be written.
    """
    with files.replacing(in_folder(path)) as partial:
        idata.to_netcdf(partial, engine="h5netcdf")
    return Path(path)


def load_inference_data(path: PathArg) -> xarray.DataTree:
    """Read ArviZ groups from NetCDF into memory.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no NetCDF file.
    """
    import xarray

    found = existing(path)
    try:
        with xarray.open_datatree(found, engine="h5netcdf") as tree:
            return tree.load()
    except OSError as error:
        raise ConfigError(f"not a NetCDF file ({error})", where=found) from None


def save_samples_npz(result: CMCResult, output_path: PathArg) -> Path:
    """Write the draws of a result, with their diagnostics.

    The archive holds ``posterior_samples``, shape (chains, draws, n), NaN where draws are
    missing; ``param_names``; where there are draws of other quantities, as of sigma,
    ``other_samples``, shape (chains, draws, m), and ``other_names``; ``r_hat``, ``ess_bulk``,
    ``ess_tail`` (n,) and ``bfmi`` (chains,) where they are known; ``divergences``,
    ``num_warmup``, ``num_shards``, ``convergence_status``, ``per_angle_mode`` and
    ``schema_version``.

    Args:
        result: A result with draws.
        output_path: File to write, ending in .npz; its folder is made if it is missing.

    Raises:
        ConfigError: The file cannot be written.
        ValueError: The name does not end in .npz, or the result holds no draws.
    """
    path = npz_path(output_path)
    held = by_chain(result.samples or {}, result.num_chains)
    if not held:
        raise DataError("the result holds no draws", where="samples")
    others = {name: x for name, x in held.items() if name not in result.parameter_names}
    arrays: dict[str, ArrayLike] = {
        "schema_version": _VERSION,
        "posterior_samples": result.get_samples_array(),
        "param_names": np.array(result.parameter_names, dtype=str),
        "divergences": result.divergences,
        "num_warmup": result.num_warmup,
        "num_shards": result.num_shards,
        "convergence_status": result.convergence_status,
        "per_angle_mode": result.per_angle_mode,
    }
    if others:
        arrays["other_samples"] = np.stack(list(others.values()), axis=-1)
        arrays["other_names"] = np.array(list(others), dtype=str)
    for name in _DIAGNOSTICS:
        values = getattr(result, name)
        if values is not None:
            arrays[name] = np.asarray(values, float)
    return files.write_npz(in_folder(path), arrays)


def load_samples_npz(input_path: PathArg) -> dict[str, Any]:
    """Read what ``save_samples_npz`` wrote.

    Returns:
        Arrays, numbers and texts by name; ``param_names`` and ``other_names`` are lists.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not an .npz file of draws; pickled objects are refused.
    """
    path = npz_path(existing(input_path))
    found = files.read_npz(path)
    absent = [name for name in ("posterior_samples", "param_names") if name not in found]
    if absent:
        raise ConfigError(
            f"the archive has no {' and no '.join(absent)}",
            where=path,
            remedy="Give a file that save_samples_npz wrote",
        )
    scalars = {name: x.item() if x.ndim == 0 else x for name, x in found.items()}
    lists = {
        name: [str(entry) for entry in found[name]]
        for name in ("param_names", "other_names")
        if name in found
    }
    return scalars | lists


def samples_to_arviz(samples_data: Mapping[str, Any]) -> xarray.DataTree:
    """Turn loaded draws into ArviZ groups.

    Args:
        samples_data: What ``load_samples_npz`` returns.

    Raises:
        DataError: The draws do not fit the names.
    """
    from heterodyne.optimization.cmc._convert import draws_tree

    by_name = _by_name(samples_data, "posterior_samples", "param_names")
    if "other_samples" in samples_data:
        by_name |= _by_name(samples_data, "other_samples", "other_names")
    return draws_tree(by_name, samples_data.get("bfmi"))


def _by_name(samples_data: Mapping[str, Any], key: str, names_key: str) -> dict[str, FloatArray]:
    draws = np.asarray(samples_data[key], float)
    names: Sequence[str] = samples_data[names_key]
    if draws.ndim != 3 or draws.shape[2] != len(names) or not names:
        raise DataError(
            f"draws of the shape {draws.shape} for {len(names)} names",
            where=key,
            allowed="(chains, draws, names)",
        )
    return {name: draws[..., k] for k, name in enumerate(names)}


def save_parameters_json(result: CMCResult, output_path: PathArg) -> Path:
    """Write the figures of every parameter as JSON.

    NaN becomes null, infinity "Infinity" or "-Infinity".

    Args:
        result: The result.
        output_path: File to write; its folder is made if it is missing.

    Raises:
        ConfigError: The file cannot be written.
    """
    stats = result.get_posterior_stats()
    units = result.metadata.get("units", {})
    parameters = {
        name: {
            "unit": units.get(name),
            **result.get_param_summary(name),
            **stats.get(name, {}),
        }
        for name in result.parameter_names
    }
    document = {
        "verdict": result.metadata.get("verdict"),
        "convergence_status": result.convergence_status,
        "per_angle_mode": result.per_angle_mode,
        "parameters": parameters,
        "plain": result.metadata.get("plain", {}),
        "fixed_parameters": result.metadata.get("fixed_parameters", {}),
    }
    return files.write_json(in_folder(output_path), _worded(document))


def save_diagnostics_json(
    result: CMCResult, output_path: PathArg, warnings: Sequence[str] | None = None
) -> Path:
    """Write the convergence of a result as JSON.

    Args:
        result: The result.
        output_path: File to write; its folder is made if it is missing.
        warnings: Sentences to keep with it.

    Raises:
        ConfigError: The file cannot be written.
    """
    document: dict[str, Any] = {
        "convergence_status": result.convergence_status,
        "convergence_passed": result.convergence_passed,
        "quality_flag": result.quality_flag,
        "verdict": result.metadata.get("verdict"),
        "limits": result.metadata.get("limits"),
        "warnings": list(warnings or ()),
        "bfmi": result.bfmi,
        "divergences": result.divergences,
        "num_chains": result.num_chains,
        "num_warmup": result.num_warmup,
        "num_samples": result.num_samples,
        "num_shards": result.num_shards,
        "wall_time_seconds": result.wall_time_seconds,
        "warmup_time": result.warmup_time,
    }
    summaries = {name: result.get_param_summary(name) for name in result.parameter_names}
    for what in ("r_hat", "ess_bulk", "ess_tail"):
        document[what] = {name: summary[what] for name, summary in summaries.items()}
    return files.write_json(in_folder(output_path), _worded(document))


def save_result(result: CMCResult, output_dir: PathArg, run_id: str | None = None) -> Path:
    """Write draws, figures and convergence of a result into a folder, which is made.

    The files are ``samples.npz``, ``parameters.json``, ``diagnostics.json`` and, where the
    result holds ArviZ groups, ``posterior.nc``.

    Args:
        result: The result.
        output_dir: The folder.
        run_id: Name of the run, which file names then start with.

    Returns:
        The folder.

    Raises:
        ConfigError: A file cannot be written.
    """
    folder = Path(output_dir)
    stem = "" if run_id is None else f"{run_id}_"
    save_samples_npz(result, folder / f"{stem}samples.npz")
    save_parameters_json(result, folder / f"{stem}parameters.json")
    save_diagnostics_json(result, folder / f"{stem}diagnostics.json")
    if result.inference_data is not None:
        save_inference_data(result.inference_data, folder / f"{stem}posterior.nc")
    return folder


def save_fitted_data_npz(
    result: CMCResult,
    c2_exp: ArrayLike,
    c2_fitted: ArrayLike,
    c2_fitted_std: ArrayLike | None,
    t1: ArrayLike,
    t2: ArrayLike,
    phi_angles: ArrayLike,
    q: float,
    output_path: PathArg,
) -> Path:
    """Write measured and fitted correlation, and the parameters of the fit.

    ``data.open_two_time`` reads the measured part: ``phi_angles_list`` and ``wavevector_q_list``
    repeat ``phi_angles`` and ``q`` for each matrix, under the names of files of measurements.

    Args:
        result: Parameters, written as ``parameters``, ``uncertainties``, ``parameter_names``.
        c2_exp: Measured correlation, shape (n_angles, N, N), or (N, N) of one angle;
            ``residuals`` is it minus ``c2_fitted``.
        c2_fitted: Fitted correlation, of the same shape.
        c2_fitted_std: Its standard deviation, left out if None.
        t1: First times in s.
        t2: Second times in s.
        phi_angles: Detector angles in degrees, shape (n_angles,).
        q: Wavevector in 1/Å.
        output_path: File to write, ending in .npz; its folder is made if it is missing.

    Raises:
        ValueError: Shapes that differ, another number of angles than of matrices, or a name
            that does not end in .npz.
    """
    measured, fitted = np.asarray(c2_exp, float), np.asarray(c2_fitted, float)
    given = {"c2_exp": measured, "c2_fitted": fitted}
    if c2_fitted_std is not None:
        given["c2_fitted_std"] = np.asarray(c2_fitted_std, float)
    if len({x.shape for x in given.values()}) > 1:
        shapes = ", ".join(f"{name} {x.shape}" for name, x in given.items())
        raise DataError(f"arrays of several shapes: {shapes}", allowed="one shape")
    angles, matrices = np.ravel(np.asarray(phi_angles, float)), int(np.prod(measured.shape[:-2]))
    if angles.size != matrices:
        raise DataError(
            f"{angles.size} angles for {matrices} matrices",
            where="phi_angles",
            allowed=f"one angle in degrees for each matrix of c2_exp, shape {measured.shape}",
        )
    arrays: dict[str, ArrayLike] = {
        **given,
        "residuals": measured - fitted,
        "t1": t1,
        "t2": t2,
        "phi_angles": phi_angles,
        "phi_angles_list": angles,
        "q": q,
        "wavevector_q_list": np.full(matrices, float(q)),
        "parameters": result.parameters,
        "uncertainties": result.uncertainties,
        "parameter_names": np.array(result.parameter_names, dtype=str),
    }
    return files.write_npz(in_folder(npz_path(output_path)), arrays)


def save_shard_results(
    results: CMCResult | Mapping[str, ArrayLike | None], output_dir: PathArg, shard_id: int
) -> Path:
    """Write the draws of one shard as ``shard_<shard_id>.npz``.

    Args:
        results: A result with draws, or draws by name; a name whose draws are None is left
            out.
        output_dir: Folder, made if it is missing.
        shard_id: Number of the shard, 0 or more.

    Returns:
        The file.

    Raises:
        ValueError: A negative number, no draws at all, or draws that are no numbers.
    """
    given = results if isinstance(results, Mapping) else results.samples or {}
    draws = {name: x for name, x in given.items() if x is not None}
    if not draws:
        raise DataError("the shard holds no draws", where=f"shard {shard_id}")
    return files.write_npz(in_folder(_shard_path(output_dir, shard_id)), draws)


def load_shard_results(output_dir: PathArg, shard_id: int) -> dict[str, FloatArray]:
    """Read the draws of one shard by name.

    Raises:
        FileNotFoundError: The shard was not saved.
        ValueError: Its file is damaged; pickled objects are refused.
    """
    return files.read_npz(existing(_shard_path(output_dir, shard_id)))


def list_shards(output_dir: PathArg) -> list[int]:
    """Return the numbers of the shards that are saved in a folder, in order."""
    found = (_SHARD.fullmatch(path.name) for path in Path(output_dir).glob("shard_*.npz"))
    return sorted(int(match[1]) for match in found if match)


def _shard_path(output_dir: PathArg, shard_id: int) -> Path:
    if shard_id < 0:
        raise ConfigError(f"shard {shard_id}", where="shard_id", allowed="0 or more")
    return Path(output_dir) / f"shard_{int(shard_id)}.npz"


def _worded(value: Any) -> Any:
    """Write infinity as a word, everywhere in nested values."""
    if isinstance(value, Mapping):
        return {key: _worded(entry) for key, entry in value.items()}
    if hasattr(value, "tolist"):
        return _worded(value.tolist())
    if isinstance(value, list | tuple):
        return [_worded(entry) for entry in value]
    if isinstance(value, float) and math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value
