"""Pooled values, each with its times and angle, as matrices on a time grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from heterodyne._errors import DataError
from heterodyne._typing import FloatArray
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core.heterodyne_model import HeterodyneModel
from heterodyne.optimization.cmc._pair_split import frames_of
from heterodyne.optimization.cmc._pooled import extract_phi_info, validate_pooled_data

# How far, in frame spacings, a time may lie off the grid.
_OFF_GRID = 1e-3


class Pool(NamedTuple):
    """Matrices and the model that describes them.

    Attributes:
        model: Time grid, wavevector and parameters.
        c2: Matrices, NaN where nothing was given, shape (n_phi, N, N).
        phi: Angles in degrees, increasing, shape (n_phi,).
    """

    model: HeterodyneModel
    c2: FloatArray
    phi: FloatArray

    @classmethod
    def of(
        cls,
        data: np.ndarray,
        t1: np.ndarray,
        t2: np.ndarray,
        phi: np.ndarray,
        q: float,
        dt: float | None = None,
        space: ParameterSpace | None = None,
        values: Mapping[str, float] | None = None,
    ) -> Pool:
        """Put pooled values in their places.

        Args:
            data: Values, shape (n,).
            t1: First times in s, shape (n,).
            t2: Second times in s, shape (n,).
            phi: Angles in degrees, shape (n,).
            q: Wavevector in 1/Å.
            dt: Frame spacing in s; None takes the smallest spacing of the times.
            space: Bounds and priors; defaults if None.
            values: Start values by name.

        Raises:
            DataError: Lengths that differ, values that are not finite, times off the grid, or
                a place that is given twice or not at all.
            ConfigError: A start value that is not known or outside its bounds.
        """
        validate_pooled_data(data, t1, t2, phi)
        value, first, second = (np.asarray(x, float) for x in (data, t1, t2))
        times, _, _ = frames_of(first, second)
        t, step = _grid(times, dt)
        angles, of_angle = extract_phi_info(np.asarray(phi, float))
        rows, at = (np.rint((x - t[0]) / step).astype(int) for x in (first, second))
        c2 = np.full((angles.size, t.size, t.size), np.nan)
        places = np.ravel_multi_index((of_angle, rows, at), c2.shape)
        _check_places(places, c2.shape, angles, t)
        c2.ravel()[places] = value
        space = space or ParameterSpace()
        model = HeterodyneModel(t, q, step, space.with_values(values or {}))
        return cls(model, c2, angles)


def _grid(times: FloatArray, dt: float | None) -> tuple[FloatArray, float]:
    """Frame times from the first to the last, and their spacing."""
    if times.size < 2:
        raise DataError(f"the only time is {times[0]:g} s", where="t1", allowed="at least 2")
    step = float(np.diff(times).min()) if dt is None else float(dt)
    if not (np.isfinite(step) and step > 0):
        raise DataError(f"dt is {step:g} s", where="dt", allowed="above 0 s")
    place = (times - times[0]) / step
    off = np.abs(place - np.rint(place))
    if off.max() > _OFF_GRID * max(1.0, place[-1] * 1e-3):
        worst = times[int(np.argmax(off))]
        raise DataError(
            f"the time {worst:g} s is not a whole number of steps of {step:g} s after "
            f"{times[0]:g} s",
            where="t1, t2",
            allowed="times of an even grid",
            remedy="Give dt, or the times as they are in the file",
        )
    count = int(np.rint(place[-1])) + 1
    return times[0] + step * np.arange(count), step


def _check_places(
    places: np.ndarray, shape: tuple[int, ...], angles: FloatArray, t: FloatArray
) -> None:
    """Refuse a place that is given twice, and a pair that is given in no order."""
    given = np.bincount(places, minlength=int(np.prod(shape))).reshape(shape)
    if given.max() > 1:
        k, i, j = np.unravel_index(int(np.argmax(given)), shape)
        raise DataError(
            f"{given[k, i, j]} values at t1 = {t[i]:g} s, t2 = {t[j]:g} s, phi = {angles[k]:g}°",
            where="pooled data",
            allowed="one value in each place",
        )
    either = given + given.swapaxes(1, 2)
    missing = np.triu(either == 0, 1)
    if missing.any():
        k, i, j = np.unravel_index(int(np.argmax(missing)), shape)
        raise DataError(
            f"{missing.sum()} pairs of the {shape[1]} times are missing, the first at "
            f"{t[i]:g} s and {t[j]:g} s, phi = {angles[k]:g}°",
            where="pooled data",
            allowed="every pair of times at every angle, in one order or in both",
            remedy="Give the whole matrices, and exclude frames by selecting a window",
        )
