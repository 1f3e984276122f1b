"""Checks of arrays that come from a user, before anything is computed from them."""

from __future__ import annotations

from numbers import Integral

import numpy as np

from heterodyne._errors import ConfigError, DataError
from heterodyne._log import get_logger
from heterodyne._typing import FloatArray
from heterodyne.data._matrices import complete
from heterodyne.data.readers._source import floats

_LOG = get_logger(__name__)


def finite(values: object, where: str) -> FloatArray:
    """Return real numbers as float64.

    Raises:
        DataError: They are of another type, or one of them is NaN or infinite.
    """
    array = floats(values, where)
    wrong = np.flatnonzero(~np.isfinite(array))
    if wrong.size:
        position = tuple(int(k) for k in np.unravel_index(wrong[0], array.shape))
        raise DataError(
            f"{wrong.size} of {array.size} values are not finite, the first of them "
            f"({array[position]}) at position {position}",
            where=where,
            allowed="finite numbers",
            remedy="Leave such values out: a mask does, a number in their place would be fitted",
        )
    return array


def of_shape(array: np.ndarray, shape: tuple[int, ...], where: str, like: str) -> None:
    """Refuse an array of another shape than that of the argument ``like``.

    Raises:
        DataError: The shape differs.
    """
    if array.shape != shape:
        raise DataError(f"the shape is {array.shape}", where=where, allowed=f"{shape}, as {like}")


def likelihood_weights(values: object, shape: tuple[int, ...]) -> FloatArray:
    """Return the argument ``weights`` for ``c2_data`` of a shape, as float64.

    Raises:
        DataError: Another shape, a weight that is negative or not finite, or none above 0.
    """
    weights = finite(values, "weights")
    of_shape(weights, shape, "weights", "c2_data")
    if np.any(weights < 0) or not np.any(weights > 0):
        raise DataError(
            f"the weights go from {weights.min():g} to {weights.max():g}",
            where="weights",
            allowed="at least 0, and one of them above 0",
        )
    return weights


def count(value: object, where: str) -> int:
    """Return a whole number of at least 1.

    Raises:
        ConfigError: It is another.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ConfigError(f"the value is {value!r}", where=where, allowed="whole numbers from 1")
    return int(value)


def both_halves(matrix: FloatArray, where: str) -> FloatArray:
    """Return a two-time matrix with both halves, as given where both are stored.

    A half that holds only zeros was not stored, and is filled from the other one. Halves
    that differ by more than rounding are kept. Both cases are logged.

    Args:
        matrix: Matrix as stored, NaN where a value is masked, shape (N, N).
        where: What to call it.

    Raises:
        DataError: There is no value off the diagonal.
    """
    completed = complete(matrix)
    if completed is None:
        raise DataError("no value is stored off the diagonal", where=where)
    full, asymmetry = completed
    if asymmetry.significant:
        _LOG.warning(
            "%s: the halves differ by up to %.3g, at row %d and column %d (counted from 0). "
            "One of them is wrong; both are kept, as two values of the same pair.",
            where, asymmetry.difference, asymmetry.row, asymmetry.column,
        )  # fmt: skip
    rows, columns = np.triu_indices(len(matrix), 1)
    for name, half in (("upper", matrix[rows, columns]), ("lower", matrix[columns, rows])):
        known = half[~np.isnan(half)]
        if known.size and not known.any():
            _LOG.info("%s: the %s half is not stored and is filled from the other.", where, name)
            return np.asarray(full, float)
    return matrix
