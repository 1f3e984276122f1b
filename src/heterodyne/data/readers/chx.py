"""Results of pyCHX at NSLS-II."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from heterodyne._errors import DataError
from heterodyne._typing import FloatArray
from heterodyne.data.digest import file_sha256
from heterodyne.data.readers import _source
from heterodyne.data.readers._common import Request, frame_times, make_bins, time_details
from heterodyne.data.two_time import Layout, TwoTimeFile

MAPS = "/g12b"
BINS = "/qval_dict"
META = "/md"
FRAME_TIMES = ("frame_time", "acquire period")


def matches(source: _source.Source) -> bool:
    """Whether the open file is of this layout."""
    return BINS in source and (MAPS in source or META in source)


def read(source: _source.Source, request: Request) -> TwoTimeFile:
    """Read everything but the matrices; frame i is at i dt.

    Args:
        source: The open file.
        request: The user's path and dt.

    Returns:
        The file with one bin per matrix, labelled by its key in ``qval_dict``.

    Raises:
        DataError: If something is missing or contradicts itself.
    """
    path = request.path
    shape = _source.dataset(source, path, MAPS).shape
    if len(shape) != 3 or shape[0] != shape[1]:
        raise DataError(
            f"the matrices have shape {shape}", where=f"{path}:{MAPS}", allowed="(N, N, n)"
        )
    labels, q, phi = _geometry(source, path)
    if len(labels) != shape[2]:
        raise DataError(
            f"{MAPS} has shape {shape}, but {BINS} has shape ({len(labels)},)",
            where=path,
            allowed="one entry per matrix",
        )
    stored, where, details = _frame_time(source, path)
    dt, dt_source = request.resolve_dt(stored, where)
    t = frame_times(shape[0], dt)
    return TwoTimeFile(
        path=path,
        layout=Layout.CHX,
        bins=make_bins(labels, q, phi, f"{path}:{BINS}"),
        dt=dt,
        t=t,
        details=time_details(t, "absolute", dt_source) | details,
        matrices=partial(_source.read_interleaved, path, MAPS, False),
        digest=partial(file_sha256, path),
    )


def _geometry(source: _source.Source, path: str) -> tuple[list[int], FloatArray, FloatArray | None]:
    """Labels, q in 1/Å and phi in degrees of the regions, ordered by label."""
    attributes = _attributes(source, path, BINS)
    keys = sorted((key for key in attributes if key.isdecimal()), key=int)
    if not keys:
        raise DataError("no region is listed", where=f"{path}:{BINS}", allowed="attributes 0, 1, …")
    entries = [_source.floats(attributes[key], f"{path}:{BINS}@{key}").reshape(-1) for key in keys]
    sizes = {len(entry) for entry in entries}
    if sizes not in ({1}, {2}):
        raise DataError(
            f"the regions have {', '.join(map(str, sorted(sizes)))} values",
            where=f"{path}:{BINS}",
            allowed="[q] for all, or [q, angle] for all",
        )
    table = np.array(entries)
    return [int(key) for key in keys], table[:, 0], table[:, 1] if sizes == {2} else None


def _frame_time(source: _source.Source, path: str) -> tuple[float | None, str, dict[str, object]]:
    """Frame time in s if there is one, where it is from or should be, and details."""
    attributes = _attributes(source, path, META)
    details = {
        name: float(attributes[name]) for name in FRAME_TIMES if _is_number(attributes, name)
    }
    for name, value in details.items():
        return value, f"{META}@{name}", dict(details)
    return None, f"{META}@{FRAME_TIMES[0]}", {}


def _is_number(attributes: Any, name: str) -> bool:
    return name in attributes and np.asarray(attributes[name]).dtype.kind in "iuf"


def _attributes(source: _source.Source, path: str, name: str) -> Any:
    if name not in source:
        raise _source.missing(path, name, source)
    return getattr(source[name], "attrs", {})
