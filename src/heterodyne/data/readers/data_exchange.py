"""APS data exchange results (xpcs-eigen, boost_corr before 2024)."""

from __future__ import annotations

from functools import partial

from heterodyne.data.digest import file_sha256
from heterodyne.data.readers import _source
from heterodyne.data.readers._common import (
    Request,
    frame_times,
    make_bins,
    of_labels,
    seconds,
    time_details,
)
from heterodyne.data.readers._units import angle_factor, q_factor
from heterodyne.data.two_time import Layout, TwoTimeFile

MAPS = "/exchange/C2T_all"
Q_LIST = "/xpcs/dqlist"
PHI_LIST = "/xpcs/dphilist"
STRIDE = "/xpcs/stride_frames"
AVERAGE = "/xpcs/avg_frames"
PERIOD = "/measurement/instrument/detector/exposure_period"


def matches(source: _source.Source) -> bool:
    """Whether the open file is of this layout."""
    return MAPS in source or ("/exchange" in source and Q_LIST in source)


def read(source: _source.Source, request: Request) -> TwoTimeFile:
    """Read everything but the matrices; frame i of a matrix is at i dt.

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
    labels, keys = zip(*_source.numbered(source, path, MAPS), strict=True)
    names = [f"{MAPS}/{key}" for key in keys]
    q, phi = (
        of_labels(source, path, name, labels, rule)
        for name, rule in ((Q_LIST, q_factor), (PHI_LIST, angle_factor))
    )
    stride, avg = (_source.count(source, path, name) for name in (STRIDE, AVERAGE))
    stored = seconds(source, path, PERIOD) * stride * avg if PERIOD in source else None
    dt, dt_source = request.resolve_dt(stored, f"{PERIOD} × stride_frames × avg_frames")
    t = frame_times(_source.square(path, names, source), dt)
    return TwoTimeFile(
        path=path,
        layout=Layout.DATA_EXCHANGE,
        bins=make_bins(labels, q, phi, f"{path}:{Q_LIST}"),
        dt=dt,
        t=t,
        details=time_details(t, "absolute", dt_source)
        | {"stride_frames": stride, "avg_frames": avg},
        matrices=partial(_source.read_named, path, names, False),
        digest=partial(file_sha256, path),
    )
