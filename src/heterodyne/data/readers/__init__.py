"""Two-time files of every known convention, told apart by their content."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType, ModuleType

from heterodyne._errors import DataError
from heterodyne._typing import PathArg
from heterodyne.data.readers import _source, apsu, chx, data_exchange, nexus, plain
from heterodyne.data.readers._common import Key, Request
from heterodyne.data.two_time import Layout, TwoTimeFile, parse_choice

READERS: Mapping[Layout, ModuleType] = MappingProxyType(
    {
        Layout.APS_U: apsu,
        Layout.DATA_EXCHANGE: data_exchange,
        Layout.NEXUS: nexus,
        Layout.CHX: chx,
        Layout.PLAIN: plain,
    }
)
"""Readers in the order in which they are asked whether they know a file."""


def open_two_time(
    path: PathArg,
    *,
    dt: float | None = None,
    layout: Layout | str | None = None,
    keys: Mapping[str, Key] | None = None,
) -> TwoTimeFile:
    """Open a two-time file and read everything but its matrices.

    The file is opened for reading only, and closed again on return.

    Args:
        path: HDF5 or .npz file; its name plays no role.
        dt: Time between the frames of the matrices in s, for files that do not give it.
        layout: Convention to read the file by; None to recognise it.
        keys: For files without a convention, by role (``c2``, ``t``, ``t2``, ``phi``, ``q``,
            ``dt``) the name of a dataset or, except for ``c2``, its values in 1/Å, s and
            degrees. Implies the layout ``plain``.

    Returns:
        The file; ``load`` or ``heterodyne.data.select`` reads matrices from it.

    Raises:
        DataError: If the file cannot be read or contradicts itself or ``dt``.
    """
    given = None if layout is None else parse_choice(Layout, layout, "layout")
    if keys:
        if given not in (None, Layout.PLAIN):
            raise DataError(
                f"keys cannot be combined with the layout {given}", where="keys", allowed="plain"
            )
        given = Layout.PLAIN
    request = Request(os.fspath(path), dt, dict(keys or {}))
    with _source.open_source(request.path) as source:
        chosen = _recognise(source, request.path) if given is None else given
        return READERS[chosen].read(source, request)


def _recognise(source: _source.Source, path: str) -> Layout:
    for layout, reader in READERS.items():
        if reader.matches(source):
            return layout
    held = ", ".join(sorted(map(str, source))[:12]) or "nothing"
    raise DataError(
        f"no two-time data were recognised; the file holds {held}",
        where=path,
        allowed=f"the layouts {', '.join(READERS)}",
        remedy="Name the arrays with keys={'c2': ..., 't': ..., 'q': ..., 'phi': ...}",
    )
