"""Results of boost_corr at APS-U (8-ID, 9-ID)."""

from __future__ import annotations

from functools import partial

import numpy as np

from heterodyne._errors import DataError
from heterodyne._typing import FloatArray, IntArray
from heterodyne.data.digest import file_sha256
from heterodyne.data.readers import _source
from heterodyne.data.readers._common import (
    Request,
    energy_details,
    make_bins,
    seconds,
    time_details,
)
from heterodyne.data.readers._units import angle_factor, q_factor
from heterodyne.data.two_time import Layout, TwoTimeFile

MAPS = "/xpcs/twotime/correlation_map"
BINS = "/xpcs/twotime/processed_bins"
CONFIG = "/xpcs/twotime/config"
QMAP = "/xpcs/qmap"
DETECTOR = "/entry/instrument/detector_1"
SCHEMA = "/entry/schema_version"
ENERGY = "/entry/instrument/incident_beam/incident_energy"


def matches(source: _source.Source) -> bool:
    """Whether the open file is of this layout."""
    return MAPS in source or (SCHEMA in source and "/xpcs" in source)


def read(source: _source.Source, request: Request) -> TwoTimeFile:
    """Read everything but the matrices.

    Args:
        source: The open file.
        request: The user's path and dt.

    Returns:
        The file with one bin per matrix.

    Raises:
        DataError: If something is missing or contradicts itself.
    """
    path = request.path
    if MAPS not in source:
        raise _source.missing(path, MAPS, source, "Was the two-time correlation switched on?")
    names = [f"{MAPS}/{name}" for _, name in _source.numbered(source, path, MAPS)]
    labels = _source.integers(source, path, BINS)
    if len(labels) != len(names):
        raise DataError(
            f"{BINS} has {len(labels)} labels, but {MAPS} has {len(names)} matrices", where=path
        )
    q, phi = _geometry(source, path, labels)
    t, dt, details = _times(source, request, _source.square(path, names, source))
    return TwoTimeFile(
        path=path,
        layout=Layout.APS_U,
        bins=make_bins(labels.tolist(), q, phi, f"{path}:{QMAP}"),
        dt=dt,
        t=t,
        details=details,
        matrices=partial(_source.read_named, path, names, False),
        digest=partial(file_sha256, path),
    )


def _geometry(source: _source.Source, path: str, labels: IntArray) -> tuple[FloatArray, FloatArray]:
    """Look up q in 1/Å and phi in degrees of each label, shape (n,) each.

    Labels count the grid cells that hold pixels, so only the index mapping leads
    from a label to its cell.
    """
    mapping = _source.integers(source, path, f"{QMAP}/dynamic_index_mapping")
    axes = [_source.vector(source, path, f"{QMAP}/dynamic_v_list_dim{k}") for k in (0, 1)]
    shape = _source.integers(source, path, f"{QMAP}/dynamic_num_pts")
    if tuple(shape) != tuple(len(axis) for axis in axes):
        raise DataError(
            f"{QMAP}/dynamic_num_pts is {tuple(shape.tolist())}, but the axes have "
            f"{len(axes[0])} and {len(axes[1])} values",
            where=path,
        )
    where = f"{QMAP}/dynamic_index_mapping"
    _check_range(labels, 1, len(mapping), f"{path}:{BINS}", f"labels of {where}")
    cells = mapping[labels - 1]
    _check_range(cells, 0, len(axes[0]) * len(axes[1]) - 1, f"{path}:{where}", "grid cells")
    factors = _axis_factors(source, path)
    values = dict(zip(factors, axes, strict=True))
    picks = dict(zip(factors, np.divmod(cells, len(axes[1])), strict=True))
    q, phi = (values[name][picks[name]] * factors[name] for name in ("q", "phi"))
    return q, phi


def _check_range(values: IntArray, low: int, high: int, where: str, what: str) -> None:
    wrong = values[(values < low) | (values > high)]
    if len(wrong):
        raise DataError(
            f"the value {wrong[0]} is out of range", where=where, allowed=f"{what}, {low} to {high}"
        )


def _axis_factors(source: _source.Source, path: str) -> dict[str, float]:
    """Factor to 1/Å or degrees by the name of the map axis, in the order of the axes."""
    names, units = (
        _source.words(_source.dataset(source, path, f"{QMAP}/{name}")[()])
        for name in ("map_names", "map_units")
    )
    plain = [name.strip().lower() for name in names]
    if sorted(plain) != ["phi", "q"] or len(units) != 2:
        raise DataError(
            f"the map axes are {', '.join(names)} in {', '.join(units)}",
            where=f"{path}:{QMAP}/map_names",
            allowed="q and phi, each with a unit",
            remedy="Two-time data of this model need a map of q and phi",
        )
    rule = {"q": q_factor, "phi": angle_factor}
    return {
        name: rule[name](unit, f"{path}:{QMAP}/map_units")
        for name, unit in zip(plain, units, strict=True)
    }


def _times(
    source: _source.Source, request: Request, N: int
) -> tuple[FloatArray, float, dict[str, object]]:
    """Frame times in s, shape (N,), their step in s, and details.

    Detector frame i, counted from 1, is at i times the frame time. Frame k of a
    matrix averages ``avg`` detector frames that are ``stride`` apart, the first of
    them being ``begin + (k - 1) avg stride``; its time is the mean of theirs.
    """
    path = request.path
    stride, avg, begin = (
        _source.count(source, path, f"{CONFIG}/{name}_frame") for name in ("stride", "avg", "begin")
    )
    where = f"{DETECTOR}/frame_time"
    frame_time = seconds(source, path, where) if where in source else None
    stored = None if frame_time is None else frame_time * stride * avg
    dt, dt_source = request.resolve_dt(stored, f"{where} × stride_frame × avg_frame")
    frame_time = dt / (stride * avg)
    first = (begin + (avg - 1) / 2 * stride) * frame_time
    t = first + np.arange(N, dtype=np.float64) * dt
    details = time_details(t, "absolute", dt_source) | {
        "frame_time": frame_time,
        "stride_frame": stride,
        "avg_frame": avg,
        "begin_frame": begin,
    }
    if f"{CONFIG}/end_frame" in source:
        details["end_frame"] = int(_source.scalar(source, path, f"{CONFIG}/end_frame"))
    if f"{DETECTOR}/count_time" in source:
        details["count_time"] = seconds(source, path, f"{DETECTOR}/count_time")
    if SCHEMA in source:
        details["schema_version"] = _source.words(_source.dataset(source, path, SCHEMA)[()])[0]
    return t, dt, details | energy_details(source, path, ENERGY)
