"""ArviZ groups as plain arrays by name, for pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray

from heterodyne._errors import DataError
from heterodyne._log import get_logger
from heterodyne._typing import BoolArray, FloatArray
from heterodyne.config.parameter_registry import DEFAULT_REGISTRY, parameter_info
from heterodyne.optimization.cmc._diagnostics import THRESHOLDS, bfmi
from heterodyne.optimization.cmc._summary import mixing

CONVERGED, VERDICT = "converged", "verdict"
"""Attributes of the groups of a run: whether its verdict is good, and its headline."""

_LOG = get_logger(__name__)
_SAMPLED = ("chain", "draw")
_PREDICTED = "c2_pred"
_PREDICTED_ENDS = (5.0, 95.0)
# Entries of matrices that are averaged at a time.
_MOST_ENTRIES = 20_000_000


@dataclass(frozen=True)
class Chains:
    """Draws to show.

    Attributes:
        draws: Finite draws by name, shape (chains, draws).
        units: Unit of each quantity, empty where it has none.
        bounds: Range that a quantity cannot leave, where there is one.
        warning: That the chains have not converged; empty where they have.
        absent: What is not shown, in words; empty if there is nothing to say.
        note: That, and which draws these are.
    """

    draws: dict[str, FloatArray]
    units: dict[str, str]
    bounds: dict[str, tuple[float, float]]
    warning: str
    absent: str
    note: str

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of chains and of draws of each."""
        chains, draws = next(iter(self.draws.values())).shape
        return chains, draws

    def of_length(self, fewest: int) -> Chains:
        """Return these draws.

        Raises:
            DataError: The chains are shorter.
        """
        if self.shape[1] < fewest:
            raise DataError(
                f"{self.shape[1]} draws of each chain",
                where="posterior",
                allowed=f"{fewest} or more",
            )
        return self


def tree(idata: xarray.DataTree) -> xarray.DataTree:
    """Return the groups.

    Raises:
        DataError: Something else than ArviZ groups.
    """
    if isinstance(idata, xarray.DataTree):
        return idata
    raise DataError(
        f"a {type(idata).__name__} holds no ArviZ groups",
        where="idata",
        allowed="xarray.DataTree",
        remedy="Give result.inference_data or cmc_result_to_arviz(result)",
    )


def chains_of(idata: xarray.DataTree, var_names: str | Sequence[str] | None) -> Chains:
    """Read the draws of the group ``posterior``.

    Quantities with further dimensions become one for each entry, ``x[0]`` and so on.

    Args:
        idata: ArviZ groups.
        var_names: Quantities to read; all if None.

    Raises:
        DataError: There are none of that name, or none that is finite.
    """
    groups = tree(idata).children
    if "posterior" not in groups or not groups["posterior"].data_vars:
        raise DataError("there are no draws", where="idata", allowed="a group posterior")
    posterior = groups["posterior"].to_dataset()
    draws: dict[str, FloatArray] = {}
    units: dict[str, str] = {}
    for name in _chosen(posterior, var_names):
        for full, values in _entries(name, posterior[name]):
            draws[full], units[full] = values, unit_of(name, posterior[name])
    bad = [name for name, x in draws.items() if not (x.size and np.isfinite(x).all())]
    if len(bad) == len(draws):
        raise DataError(f"no finite draws of {', '.join(bad)}", where="posterior")
    absent = f"Not shown, because draws are missing or not finite: {', '.join(bad)}." if bad else ""
    if bad:
        _LOG.warning("%s", absent)
    finite = {name: x for name, x in draws.items() if name not in bad}
    notes = filter(None, (absent, _origin(idata), _engine(idata)))
    bounds = {name: _bounds(name, x) for name, x in finite.items()}
    return Chains(finite, units, bounds, unconverged(idata, finite), absent, " ".join(notes))


def unconverged(idata: xarray.DataTree, draws: Mapping[str, FloatArray]) -> str:
    """Say that chains have not converged; nothing where they have.

    Args:
        idata: ArviZ groups; those of a run hold its verdict.
        draws: Finite draws by name, shape (chains, draws), on which it is measured elsewhere.
    """
    known = tree(idata).attrs
    if CONVERGED in known:
        return "" if known[CONVERGED] else str(known[VERDICT])
    return _unmixed(draws)


def _unmixed(draws: Mapping[str, FloatArray]) -> str:
    if not draws:
        return ""
    measured, names = mixing(draws), list(draws)
    r_hat = np.nan_to_num(measured["r_hat"], nan=-np.inf)
    ess = np.nan_to_num(np.minimum(measured["ess_bulk"], measured["ess_tail"]), nan=np.inf)
    worst, fewest = int(np.argmax(r_hat)), int(np.argmin(ess))
    if r_hat[worst] > THRESHOLDS.r_hat:
        return (
            f"Not converged: R-hat of {names[worst]} is {r_hat[worst]:.3f} "
            f"(allowed {THRESHOLDS.r_hat:g})."
        )
    if ess[fewest] < THRESHOLDS.ess:
        return (
            f"Not converged: {names[fewest]} has {ess[fewest]:.0f} effective draws "
            f"(needed {THRESHOLDS.ess:g})."
        )
    if len(draws[names[worst]]) < 2:
        return "Whether these draws have converged is not known: one chain has no R-hat."
    return ""


def _bounds(name: str, draws: FloatArray) -> tuple[float, float]:
    """Range of the parameter table, or the positive numbers for sigma; unless draws leave it."""
    try:
        row = parameter_info(name)
        low, high = row.min_bound, row.max_bound
    except KeyError:
        low, high = (0.0 if name == "sigma" else -math.inf), math.inf
    return (low if draws.min() >= low else -math.inf), (high if draws.max() <= high else math.inf)


def _origin(idata: xarray.DataTree) -> str:
    if "corrected" not in idata.children:
        return ""
    return (
        "These draws take pairs as independent; cmc_result_to_arviz gives those corrected for "
        "shared speckle noise."
    )


def _engine(idata: xarray.DataTree) -> str:
    stats = idata.children.get("sample_stats")
    if stats is None or stats.attrs.get("engine") != "importance":
        return ""
    return (
        "Importance sampling picked these draws by weight, so they have no order, and what is "
        "measured on them leaves the weights out; the verdict counts them."
    )


def _chosen(posterior: xarray.Dataset, var_names: str | Sequence[str] | None) -> list[str]:
    known = [str(name) for name in posterior.data_vars]
    wanted = (
        [var_names]
        if isinstance(var_names, str)
        else list(known if var_names is None else var_names)
    )
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise DataError(
            f"no draws of {', '.join(unknown) or 'nothing'}",
            where="var_names",
            allowed=", ".join(known),
        )
    return wanted


def _ordered(name: str, values: xarray.DataArray) -> FloatArray:
    """Return draws with the leading axes (chain, draw)."""
    if not set(_SAMPLED) <= set(values.dims):
        raise DataError(
            f"the dimensions are {', '.join(map(str, values.dims)) or 'none'}",
            where=name,
            allowed="chain, draw and others",
        )
    return np.asarray(values.transpose(*_SAMPLED, ...).values, float)


def corrected_draws(idata: xarray.DataTree) -> dict[str, FloatArray]:
    """Read the finite draws of the group ``corrected`` by name; none without it."""
    group = tree(idata).children.get("corrected")
    if group is None:
        return {}
    found = {str(name): _ordered(str(name), x) for name, x in group.data_vars.items()}
    return {name: x for name, x in found.items() if x.size and np.isfinite(x).all()}


def _entries(name: str, values: xarray.DataArray) -> list[tuple[str, FloatArray]]:
    ordered = _ordered(name, values)
    if ordered.ndim == 2:
        return [(name, ordered)]
    return [
        (f"{name}[{', '.join(map(str, at))}]", ordered[(..., *at)])
        for at in np.ndindex(ordered.shape[2:])
    ]


def unit_of(name: str, values: xarray.DataArray) -> str:
    """Unit of a quantity: as recorded with its draws, else from the table of parameters."""
    if "units" in values.attrs:
        return str(values.attrs["units"])
    return DEFAULT_REGISTRY[name].unit if name in DEFAULT_REGISTRY else ""


def statistic(idata: xarray.DataTree, name: str) -> FloatArray | None:
    """Read what the sampler recorded, chains first; None where nothing of it is finite."""
    group = tree(idata).children.get("sample_stats")
    if group is None or name not in group.data_vars:
        return None
    found = group[name]
    first = [dim for dim in _SAMPLED if dim in found.dims]
    values = np.asarray(found.transpose(*first, ...).values, float)
    return values if np.isfinite(values).any() else None


def energies(idata: xarray.DataTree, name: str) -> FloatArray | None:
    """Read energies, shape (chains, draws); None where some are missing or there are no steps."""
    found = statistic(idata, name)
    if found is None or found.ndim != 2 or found.shape[1] < 2 or not np.isfinite(found).all():
        return None
    return found


def diverging(idata: xarray.DataTree, shape: tuple[int, int]) -> BoolArray | None:
    """Which draws diverged; None where it is not known.

    Args:
        idata: ArviZ groups.
        shape: Numbers of chains and draws.

    Raises:
        DataError: There are more or fewer of them than draws.
    """
    found = statistic(idata, "diverging")
    if found is not None and found.shape != shape:
        raise DataError(
            f"the shape is {found.shape}", where="sample_stats, diverging", allowed=str(shape)
        )
    return None if found is None else found.astype(bool)


def bfmi_of(idata: xarray.DataTree) -> FloatArray:
    """Fraction of missing information of each chain, recorded or measured; empty if unknown."""
    recorded = statistic(idata, "bfmi")
    if recorded is not None:
        return np.atleast_1d(recorded)
    energy = energies(idata, "energy")
    return np.array([] if energy is None else bfmi(energy))


@dataclass(frozen=True)
class Predicted:
    """Measured values, and the range of the predicted ones, one row per angle.

    Attributes:
        x: Times or lags in s, shape (m,).
        by_lag: Whether they are lags.
        measured: Measured values, shape (n, m).
        ends: Ends of the central 90 % of the draws, shape (2, n, m); None without draws.
    """

    x: FloatArray
    by_lag: bool
    measured: FloatArray
    ends: FloatArray | None


def predicted(idata: xarray.DataTree, measured: FloatArray, t: FloatArray) -> Predicted:
    """Compare measured values with draws of them.

    Args:
        idata: ArviZ groups; ``c2_pred`` in ``posterior_predictive`` has the dimensions
            chain and draw, then those of the measured values.
        measured: Values at the times, shape (N,), a matrix (N, N), or several (n, N, N).
        t: Times in s, shape (N,), equally spaced for matrices.

    Raises:
        DataError: Shapes that do not fit, or times of several distances.
    """
    by_lag = measured.ndim > 1
    N = t.size
    if t.ndim != 1 or N < 2 or measured.shape not in {(N,), (N, N), (*measured.shape[:1], N, N)}:
        raise DataError(
            f"values of the shape {measured.shape} at times of the shape {t.shape}",
            where="c2_data",
            allowed="(N,), (N, N) or (angles, N, N) at 2 times or more",
        )
    if by_lag and not np.allclose(np.diff(t), t[1] - t[0], rtol=1e-3):
        raise DataError("the times are not equally spaced", where="times")
    reduce = lag_means if by_lag else np.asarray
    draws = _predictions(idata, measured.shape)
    ends = None
    if draws is not None:
        chunk = max(1, _MOST_ENTRIES // measured.size)
        parts = [reduce(draws[k : k + chunk]) for k in range(0, len(draws), chunk)]
        ends = _percentiles(np.concatenate(parts))
        ends = ends.reshape(2, -1, ends.shape[-1])
    return Predicted(t[1:] - t[0] if by_lag else t, by_lag, np.atleast_2d(reduce(measured)), ends)


def _percentiles(values: FloatArray) -> FloatArray:
    """Ends of the finite values over the first axis; NaN where there are none."""
    known = np.isfinite(values).any(axis=0)
    ends = np.full((2, *values.shape[1:]), np.nan)
    ends[:, known] = np.nanpercentile(values[:, known], _PREDICTED_ENDS, axis=0)
    return ends


def _predictions(idata: xarray.DataTree, shape: tuple[int, ...]) -> FloatArray | None:
    """Draws of the measured values, all chains one after the other."""
    group = tree(idata).children.get("posterior_predictive")
    if group is None or _PREDICTED not in group.data_vars:
        return None
    values = _ordered(_PREDICTED, group.data_vars[_PREDICTED])
    if values.shape[2:] != shape:
        raise DataError(
            f"draws of the shape {values.shape[2:]} for values of the shape {shape}",
            where=_PREDICTED,
        )
    return values.reshape(-1, *shape)


def lag_means(matrices: FloatArray) -> FloatArray:
    """Mean of the finite pairs at each lag above 0, shape (..., N, N) to (..., N - 1)."""
    from heterodyne.core.likelihood import mean_by_lag

    N = matrices.shape[-1]
    flat = matrices.reshape(-1, N, N)
    used = np.isfinite(flat)
    means = mean_by_lag(used.astype(float), np.where(used, flat, 0.0))
    return means[:, 1:].reshape(*matrices.shape[:-2], N - 1)
