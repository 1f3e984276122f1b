"""From the matrix as stored to the full symmetric one: halves, asymmetry, diagonal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from heterodyne._typing import FloatArray

ASYMMETRY_RTOL = 1e-5
"""Largest difference between the halves, relative to the largest value.

Correlators that accumulate in float32 leave differences of some 1e-6.
"""


class Populated(StrEnum):
    """Which part of a matrix a file says it stores."""

    UNKNOWN = "unknown"
    ALL = "all"
    UPPER = "upper_half"
    LOWER = "lower_half"


@dataclass(frozen=True)
class Asymmetry:
    """Largest difference between the two halves of a matrix.

    Attributes:
        difference: Largest ``|c2[i, j] - c2[j, i]|``; 0 where one half was stored.
        scale: Largest absolute value off the diagonal.
        row: Zero-based row of the largest difference.
        column: Zero-based column of the largest difference.
    """

    difference: float = 0.0
    scale: float = 0.0
    row: int = 0
    column: int = 0

    @property
    def significant(self) -> bool:
        """Whether the difference exceeds what rounding explains."""
        return self.difference > ASYMMETRY_RTOL * self.scale


def complete(
    stored: NDArray[np.generic], declared: Populated = Populated.UNKNOWN
) -> tuple[FloatArray, Asymmetry] | None:
    """Build the full matrix from what a file stores.

    A half that holds nothing but zeros and NaN was not stored. Where both halves
    hold values, a declared half decides which of them counts. The diagonal is kept.

    Args:
        stored: Matrix as in the file, shape (N, N), any real type.
        declared: What the file says about itself.

    Returns:
        The symmetric matrix, shape (N, N), and how far the halves were apart
        (their mean is returned where that exceeds rounding). None where the
        matrix holds no value off the diagonal.
    """
    matrix = np.array(stored, dtype=np.float64)
    upper, lower = _has_values(np.triu(matrix, 1)), _has_values(np.tril(matrix, -1))
    if not (upper or lower):
        return None
    if upper and lower and declared in (Populated.UNKNOWN, Populated.ALL):
        asymmetry = _asymmetry(matrix)
        if asymmetry.significant:
            return (matrix + matrix.T) / 2, asymmetry
        return _mirror(matrix), asymmetry
    use_lower = not upper or (lower and declared is Populated.LOWER)
    return _mirror(matrix.T if use_lower else matrix), Asymmetry()


def _has_values(half: FloatArray) -> bool:
    return bool(np.any((half != 0) & ~np.isnan(half)))


def _mirror(matrix: FloatArray) -> FloatArray:
    return np.triu(matrix) + np.triu(matrix, 1).T


def _asymmetry(matrix: FloatArray) -> Asymmetry:
    known = np.isfinite(matrix)
    values = np.where(known, matrix, 0.0)
    np.fill_diagonal(values, 0.0)
    differences = np.where(known & known.T, np.abs(values - values.T), 0.0)
    row, column = divmod(int(np.argmax(differences)), len(matrix))
    return Asymmetry(float(differences[row, column]), float(np.abs(values).max()), row, column)


def diagonal_is_raw(c2: FloatArray) -> bool | None:
    """Tell a measured diagonal from one that was overwritten.

    Shot noise lifts a measured diagonal above its neighbours. An overwritten one
    is constant, missing, or equal to a mean of its neighbours.

    Args:
        c2: Full matrices, shape (n, N, N).

    Returns:
        True if measured, False if overwritten, None if the data do not tell.
    """
    verdicts = {_one_diagonal_is_raw(matrix) for matrix in c2}
    return verdicts.pop() if len(verdicts) == 1 else None


def _one_diagonal_is_raw(matrix: FloatArray) -> bool | None:
    diagonal, beside = np.diagonal(matrix), np.diagonal(matrix, 1)
    finite = np.isfinite(diagonal)
    if not finite.any():
        return False
    usable = finite[1:-1] & np.isfinite(beside[:-1]) & np.isfinite(beside[1:])
    if np.count_nonzero(usable) < 3:
        return None
    measured = diagonal[1:-1][usable]
    if np.ptp(measured) == 0:
        return False
    left, right = beside[:-1][usable], beside[1:][usable]
    rounding = 1e-6 * float(np.abs(measured).max())
    if any(np.median(np.abs(measured - v)) <= rounding for v in (left, right, (left + right) / 2)):
        return False
    excess = float(np.median(measured - (left + right) / 2))
    noise = 1.4826 * float(np.median(np.abs(left - right))) / np.sqrt(2)
    return True if excess > 5 * 1.25 * noise / np.sqrt(len(measured)) else None
