"""Files of the NeXus application definition NXxpcs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

import h5py

from heterodyne._errors import DataError
from heterodyne.data._matrices import Populated
from heterodyne.data.digest import file_sha256
from heterodyne.data.readers import _source
from heterodyne.data.readers._common import (
    Request,
    converted,
    energy_details,
    frame_times,
    make_bins,
    of_labels,
    seconds,
    time_details,
)
from heterodyne.data.readers._units import angle_factor, q_factor
from heterodyne.data.two_time import Layout, ReadMatrices, TwoTimeFile

MAPS = "twotime/two_time_corr_func"


class _Storage(StrEnum):
    Q_FIRST = "one_array_q_first"
    Q_LAST = "one_array_q_last"
    KEYS = "data_exchange_keys"


class _Origin(StrEnum):
    UPPER_LEFT = "upper_left"
    LOWER_LEFT = "lower_left"


class _Baseline(StrEnum):
    ZERO = "0"
    ONE = "1"


@dataclass(frozen=True)
class _Matrices:
    """Where the matrices are: labels counted from 1, number of frames, how to read them."""

    labels: Sequence[int]
    N: int
    read: ReadMatrices


def matches(source: _source.Source) -> bool:
    """Whether the open file is of this layout."""
    return any(f"{entry}/twotime" in source for entry in _entries(source))


def read(source: _source.Source, request: Request) -> TwoTimeFile:
    """Read everything but the matrices; frame i is at i dt.

    Args:
        source: The open file.
        request: The user's path and dt.

    Returns:
        The file with one bin per matrix, labelled by its place in the lists of q and phi.

    Raises:
        DataError: If something is missing or contradicts itself.
    """
    path = request.path
    entry = _entry(source, path)
    maps = f"{entry}/{MAPS}"
    if maps not in source:
        raise _source.missing(path, maps, source)
    holder = source[maps]
    populated = _choice(Populated, holder, path, maps, "populated_elements", Populated.UNKNOWN)
    baseline = _choice(_Baseline, holder, path, maps, "baseline_reference", _Baseline.ONE)
    matrices = _matrices(source, path, maps)
    instrument = _child(source, entry, "instrument", "NXinstrument")
    q_list, phi_list = (f"{instrument}/masks/dynamic_{name}_list" for name in ("q", "phi"))
    _check_list(source, path, q_list, maps, matrices)
    q = of_labels(source, path, q_list, matrices.labels, q_factor)
    has_phi = phi_list in source
    phi = of_labels(source, path, phi_list, matrices.labels, angle_factor) if has_phi else None
    where = _frame_time(source, instrument)
    stored = seconds(source, path, where) if where in source else None
    dt, dt_source = request.resolve_dt(stored, where)
    t = frame_times(matrices.N, dt)
    beam = _child(source, instrument, "incident_beam", "NXbeam")
    return TwoTimeFile(
        path=path,
        layout=Layout.NEXUS,
        bins=make_bins(matrices.labels, q, phi, f"{path}:{q_list}"),
        dt=dt,
        t=t,
        details=time_details(t, "absolute", dt_source)
        | energy_details(source, path, f"{beam}/incident_energy"),
        matrices=matrices.read,
        digest=partial(file_sha256, path),
        populated=populated,
        baseline_shift=1.0 if baseline is _Baseline.ZERO else 0.0,
    )


def _matrices(source: _source.Source, path: str, maps: str) -> _Matrices:
    holder = source[maps]
    storage = _choice(_Storage, holder, path, maps, "storage_mode", None)
    origin = _choice(_Origin, holder, path, maps, "time_origin_location", _Origin.UPPER_LEFT)
    flip = origin is _Origin.LOWER_LEFT
    if storage is _Storage.KEYS:
        labels, keys = zip(*_source.numbered(source, path, maps), strict=True)
        names = [f"{maps}/{key}" for key in keys]
        N = _source.square(path, names, source)
        return _Matrices(labels, N, partial(_source.read_named, path, names, flip))
    shape = _source.dataset(source, path, maps).shape
    expected = "(n, N, N)" if storage is _Storage.Q_FIRST else "(N, N, n)"
    frames = shape[1:] if storage is _Storage.Q_FIRST else shape[:2]
    if len(shape) != 3 or frames[0] != frames[1]:
        raise DataError(
            f"the matrices have shape {shape}",
            where=f"{path}:{maps}",
            allowed=f"{expected} for storage_mode {storage}",
        )
    n = shape[0] if storage is _Storage.Q_FIRST else shape[2]
    rule = _source.read_stacked if storage is _Storage.Q_FIRST else _source.read_interleaved
    return _Matrices(range(1, n + 1), frames[0], partial(rule, path, maps, flip))


def _check_list(
    source: _source.Source, path: str, name: str, maps: str, matrices: _Matrices
) -> None:
    """Refuse a list of q that does not have one entry per matrix of an array."""
    size = len(converted(source, path, name, q_factor))
    if isinstance(matrices.labels, range) and size != len(matrices.labels):
        shape = _source.dataset(source, path, maps).shape
        raise DataError(
            f"{name} has shape ({size},), but {maps} has shape {shape}",
            where=path,
            allowed="one q per matrix",
        )


def _choice(kind: Any, holder: Any, path: str, maps: str, name: str, default: Any) -> Any:
    """Member of an enum that an attribute names; the default stands in for a missing attribute."""
    value = _source.attribute(holder, name)
    words = ", ".join(member.value for member in kind if member is not Populated.UNKNOWN)
    if value is None and default is not None:
        return default
    if value not in words.split(", "):
        seen = "is missing" if value is None else f"is {value!r}"
        raise DataError(f"the attribute {name} {seen}", where=f"{path}:{maps}", allowed=words)
    return kind(value)


def _entries(source: _source.Source) -> Iterator[str]:
    """Names of the top groups of an HDF5 file."""
    if isinstance(source, h5py.File):
        yield from (f"/{name}" for name in source if isinstance(source.get(name), h5py.Group))


def _entry(source: _source.Source, path: str) -> str:
    """The entry with two-time data; of several, the one the file calls its default."""
    entries = [entry for entry in _entries(source) if f"{entry}/twotime" in source]
    if len(entries) > 1:
        default = _source.attribute(source, "default")
        entries = [entry for entry in entries if entry == f"/{default}"]
        if not entries:
            raise DataError(
                "several entries have two-time data and none is the default",
                where=path,
                remedy='Name the arrays with layout="plain" and keys',
            )
    if not entries:
        raise _source.missing(path, f"/entry/{MAPS}", source)
    return entries[0]


def _child(source: _source.Source, parent: str, name: str, nx_class: str) -> str:
    """Path of a group by name, or else by its NeXus class."""
    children = _source.members(source, parent)
    if name not in children:
        for other, group in children.items():
            if _source.attribute(group, "NX_class") == nx_class:
                return f"{parent}/{other}"
    return f"{parent}/{name}"


def _frame_time(source: _source.Source, instrument: str) -> str:
    """Path of the detector's frame time, whether it exists or not."""
    for name in _source.members(source, instrument):
        if "frame_time" in _source.members(source, f"{instrument}/{name}"):
            return f"{instrument}/{name}/frame_time"
    return f"{instrument}/detector_1/frame_time"
