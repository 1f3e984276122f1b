"""Arrays with names: .npz archives, and HDF5 files without a convention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from heterodyne._errors import DataError
from heterodyne._typing import FloatArray
from heterodyne.data.digest import file_sha256
from heterodyne.data.findings import Finding
from heterodyne.data.readers import _source
from heterodyne.data.readers._common import (
    DT_RTOL,
    Key,
    Request,
    frame_times,
    make_bins,
    time_details,
)
from heterodyne.data.readers._units import angle_factor, q_factor, time_factor
from heterodyne.data.two_time import (
    Layout,
    ReadMatrices,
    TwoTimeFile,
    check_time_axis,
)

NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "c2": ("c2_exp", "c2"),
        "t": ("t1", "t"),
        "t2": ("t2",),
        "phi": ("phi_angles_list", "phi"),
        "q": ("wavevector_q_list", "q"),
        "dt": ("dt",),
    }
)
"""Names looked for, by role, the first that exists counts."""

_FACTORS = MappingProxyType({"q": q_factor, "phi": angle_factor, "t": time_factor})


@dataclass(frozen=True)
class Part:
    """Values of one role.

    Attributes:
        name: What to call them in messages.
        values: Numbers in Å, s and degrees, any shape.
    """

    name: str
    values: FloatArray


def matches(source: _source.Source) -> bool:
    """Whether the open file is of this layout."""
    return any(name in source for name in NAMES["c2"])


def read(source: _source.Source, request: Request) -> TwoTimeFile:
    """Read everything but the matrices; times in the file win over frame numbers.

    Args:
        source: The open file.
        request: The user's path and dt, and by role (``c2``, ``t``, ``t2``, ``phi``, ``q``, ``dt``)
            the name of a dataset or, except for ``c2``, its values in 1/Å, s and degrees.

    Returns:
        The file with one bin per matrix, labelled from 1.

    Raises:
        DataError: If something is missing or contradicts itself.
    """
    path = request.path
    unknown = sorted(set(request.keys) - set(NAMES))
    if unknown:
        raise DataError(
            f"the role {unknown[0]!r} is not known", where="keys", allowed=", ".join(NAMES)
        )
    name = _name(source, request, "c2")
    if name is None:
        raise _source.missing(path, NAMES["c2"][0], source, "Name it with keys={'c2': ...}")
    stack = _source.dataset(source, path, name)
    parts = {
        role: part
        for role in NAMES
        if role != "c2" and (part := _part(source, request, role)) is not None
    }
    return assemble(
        stack.shape,
        parts,
        request,
        where=name,
        matrices=partial(_read, path, name, len(stack.shape) == 2),
        digest=partial(file_sha256, path),
    )


def _read(path: str, name: str, single: bool, indices: Any, window: slice) -> Any:
    rule = (
        partial(_source.read_named, path, [name])
        if single
        else partial(_source.read_stacked, path, name)
    )
    return rule(False, indices, window)


def _name(source: _source.Source, request: Request, role: str) -> str | None:
    """Name of the dataset that has a role; None if none of the usual names exists."""
    key: Key | None = request.keys.get(role)
    if isinstance(key, str):
        return key
    if key is not None:
        raise DataError(f"{role!r} needs a name, not values", where="keys")
    return next((name for name in NAMES[role] if name in source), None)


def _part(source: _source.Source, request: Request, role: str) -> Part | None:
    key = request.keys.get(role)
    if key is not None and not isinstance(key, str):
        return Part(f"keys[{role!r}]", _source.floats(key, f"keys[{role!r}]"))
    name = _name(source, request, role)
    if name is None:
        return None
    found = _source.dataset(source, request.path, name)
    where = f"{request.path}:{name}"
    rule = _FACTORS.get(role, time_factor)
    factor = rule(_source.attribute(found, "units"), where)
    return Part(name, _source.floats(found[()], where) * factor)


def assemble(
    shape: tuple[int, ...],
    parts: Mapping[str, Part],
    request: Request,
    *,
    where: str,
    matrices: ReadMatrices,
    digest: Any,
) -> TwoTimeFile:
    """Combine named arrays into a file.

    Args:
        shape: Shape of the matrices, (n, N, N) or (N, N).
        parts: The other arrays by role.
        request: Source and dt.
        where: Name of the matrices.
        matrices: Reads them.
        digest: Computes the digest of the source.

    Returns:
        The file.

    Raises:
        DataError: If something is missing or shapes do not fit.
    """
    path = request.path
    if len(shape) not in (2, 3) or shape[-1] != shape[-2]:
        raise DataError(
            f"the matrices have shape {shape}", where=f"{path}:{where}", allowed="(n, N, N)"
        )
    n, N = (1 if len(shape) == 2 else shape[0]), shape[-1]
    if "q" not in parts:
        raise DataError(
            f"q is missing; looked for {', '.join(NAMES['q'])}",
            where=path,
            remedy="Give keys={'q': ...}, a name or the value in 1/Å",
        )
    q = _per_matrix(parts["q"], n, path, where, shape)
    phi = _per_matrix(parts["phi"], n, path, where, shape) if "phi" in parts else None
    t, dt, details, findings = _times(parts, N, request, f"{where} has shape {shape}")
    return TwoTimeFile(
        path=path,
        layout=Layout.PLAIN,
        bins=make_bins(range(1, n + 1), q, phi, path),
        dt=dt,
        t=t,
        details=details,
        matrices=matrices,
        digest=digest,
        findings=findings,
    )


def _per_matrix(part: Part, n: int, path: str, where: str, shape: tuple[int, ...]) -> FloatArray:
    """One value per matrix, shape (n,); a single value serves for all."""
    values = part.values.reshape(-1)
    if len(values) not in (1, n):
        raise DataError(
            f"{part.name} has shape {part.values.shape}, but {where} has shape {shape}",
            where=path,
            allowed=f"one value, or {n}",
        )
    return np.broadcast_to(values, (n,))


def _times(
    parts: Mapping[str, Part], N: int, request: Request, matrices: str
) -> tuple[FloatArray, float, dict[str, object], tuple[Finding, ...]]:
    """Frame times in s, shape (N,), their step, details and what was odd."""
    stored = parts.get("dt")
    if stored is not None and stored.values.size != 1:
        raise DataError(
            f"{stored.name} has shape {stored.values.shape}",
            where=request.path,
            allowed="one value",
        )
    stored_dt = None if stored is None else float(stored.values.reshape(-1)[0])
    if "t" not in parts:
        name = "dt" if stored is None else stored.name
        dt, dt_source = request.resolve_dt(stored_dt, name)
        t = frame_times(N, dt)
        return t, dt, time_details(t, "absolute", dt_source), ()
    t = _axis(parts["t"], N, request.path, matrices)
    if "t2" in parts and not np.allclose(_axis(parts["t2"], N, request.path, matrices), t):
        raise DataError(
            f"{parts['t'].name} and {parts['t2'].name} are different time axes", where=request.path
        )
    check_time_axis(t, f"{request.path}:{parts['t'].name}")
    name = f"the steps of {parts['t'].name}"
    dt, dt_source = request.resolve_dt(_step(t), name)
    findings = ()
    if stored_dt is not None and not np.isclose(stored_dt, dt, rtol=DT_RTOL):
        text = f"The file gives dt = {stored_dt:g} s, but its times are {dt:g} s apart."
        advice = "The times are used; check which of the two is right."
        findings = (Finding("dt_contradicts_times", "warning", text, advice),)
    return t, dt, time_details(t, "file", dt_source), findings


def _axis(part: Part, N: int, path: str, matrices: str) -> FloatArray:
    """Time axis in s, shape (N,), from an axis or from a grid of it, shape (N, N)."""
    values = part.values
    if values.shape == (N, N) and N > 1:
        for axis, grid in ((values[0], values), (values[:, 0], values.T)):
            if np.allclose(grid, axis[None, :], rtol=1e-9, atol=0.0):
                return axis
        raise DataError(
            f"{part.name} of shape {values.shape} varies along both directions",
            where=path,
            allowed="a time axis, or its grid of shape (N, N)",
        )
    if values.size != N:
        raise DataError(
            f"{part.name} has shape {values.shape}, but {matrices}",
            where=path,
            allowed=f"shape ({N},)",
        )
    return values.reshape(-1)


def _step(t: FloatArray) -> float | None:
    """Time between frames in s: the mean step, or the median of steps that differ."""
    if len(t) < 2:
        return None
    steps = np.diff(t)
    mean = float(steps.mean())
    return mean if np.allclose(steps, mean, rtol=1e-2) else float(np.median(steps))
