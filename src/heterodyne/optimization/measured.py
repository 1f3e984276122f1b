"""Two-time matrices that a user hands to a fit, checked before anything is computed from them."""

from __future__ import annotations

import numpy as np

from heterodyne._errors import DataError
from heterodyne._typing import ArrayLike, BoolArray, FloatArray
from heterodyne.core.heterodyne_model import HeterodyneModel
from heterodyne.data import TwoTimeData, from_arrays

_WHERE = "c2_data"
_NAMED = 10


def two_time_data(model: HeterodyneModel, c2: ArrayLike, phi: ArrayLike) -> TwoTimeData:
    """Put matrices and angles together.

    Frames whose pairs are all NaN, or masked in a NumPy masked array, at all angles are left out
    of the fit.

    Args:
        model: Time grid and wavevector.
        c2: Symmetric matrices, shape (N, N) for one angle, or (n_phi, N, N).
        phi: Angles in degrees, scalar or shape (n_phi,).

    Raises:
        DataError: Shapes that do not match, halves that differ, values that are no real numbers,
            or frames that hold nothing but zeros.
    """
    matrices = _numbers(c2)
    matrices = matrices[None] if matrices.ndim == 2 else matrices
    angles = np.atleast_1d(np.asarray(phi, float))
    shape = (angles.size, model.t.size, model.t.size)
    if angles.ndim != 1 or matrices.shape != shape:
        raise DataError(
            f"{angles.size} angles and {model.t.size} times with c2 of shape {matrices.shape}",
            where=_WHERE,
            allowed=f"(N, N) for one angle, or (n_phi, N, N): {shape}",
        )
    empty = _throughout(matrices == 0.0).any(axis=0)
    if empty.any():
        named = ", ".join(str(k) for k in (np.flatnonzero(empty)[:_NAMED] + 1).tolist())
        more = " and others" if empty.sum() > _NAMED else ""
        raise DataError(
            f"all pairs of {int(empty.sum())} frames are 0, which no measurement gives: frames "
            f"{named}{more} (counted from 1)",
            where=_WHERE,
            remedy="Set what was not measured to NaN, as the attribute c2_with_gaps of read data "
            "does, and it is left out of the fit",
        )
    gaps = np.flatnonzero(_throughout(np.isnan(matrices)).all(axis=0)) + 1
    return from_arrays(
        matrices,
        q=model.q,
        phi=angles,
        t=model.t,
        dt=model.dt,
        bad_frames=gaps.tolist(),
        source=_WHERE,
    )


def _numbers(c2: ArrayLike) -> FloatArray:
    """Return float64, with NaN for what is masked."""
    given = np.asanyarray(c2)
    if given.dtype.kind not in "fiu":
        raise DataError(f"values of type {given.dtype}", where=_WHERE, allowed="real numbers")
    if isinstance(given, np.ma.MaskedArray):
        return np.asarray(np.ma.filled(given.astype(float), np.nan))
    return np.asarray(given, float)


def _throughout(found: BoolArray) -> BoolArray:
    """Whether something holds for all pairs of a frame, (n, N, N) to (n, N)."""
    of_pairs = found | np.eye(found.shape[-1], dtype=bool)
    return np.asarray(of_pairs.all(axis=1) & of_pairs.all(axis=2))
