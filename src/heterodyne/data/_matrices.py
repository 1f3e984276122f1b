"""From the matrix as stored to the full symmetric one: halves, asymmetry, diagonal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heterodyne._typing import FloatArray, StoredArray
from heterodyne.core.rows import row_slices

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


class _Counts(Enum):
    """What of a stored matrix counts."""

    UPPER = "upper half"
    LOWER = "lower half"
    MEAN = "mean of the halves"


@dataclass(frozen=True, eq=False)
class Completion:
    """How the full symmetric matrix follows from what a file stores.

    Attributes:
        stored: Matrix as in the file, shape (N, N).
        counts: What of it counts.
        asymmetry: How far the halves are apart.
    """

    stored: NDArray[np.generic]
    counts: _Counts
    asymmetry: Asymmetry

    @classmethod
    def of_upper(cls, stored: NDArray[np.generic]) -> Completion:
        """Let the upper half count, whatever it holds."""
        return cls(stored, _Counts.UPPER, Asymmetry())

    @property
    def dtype(self) -> np.dtype[np.floating[Any]]:
        """The least precision that holds the values of the full matrix."""
        if self.counts is _Counts.MEAN:
            return np.dtype(np.float64)
        return kept_precision(self.stored.dtype)

    def rows(self, rows: slice) -> StoredArray:
        """Return the upper triangle of some rows.

        Args:
            rows: The m rows to return.

        Returns:
            Array of shape (m, N - rows.start), its columns those from the first row on;
            what is below the diagonal does not count.
        """
        upper, lower = self.stored[rows, rows.start :], self.stored[rows.start :, rows].T
        if self.counts is _Counts.MEAN:
            return (upper.astype(np.float64) + lower.astype(np.float64)) / 2
        return (upper if self.counts is _Counts.UPPER else lower).astype(self.dtype)

    def fill(self, out: StoredArray) -> None:
        """Write the full matrix into an array of sufficient precision, maybe the stored one.

        Args:
            out: Array of shape (N, N). What is read of the stored matrix is never what was
                written before.
        """
        for rows in row_slices(*out.shape):
            part = self.rows(rows)
            square = part[:, : len(part)]
            part[:, : len(part)] = np.triu(square) + np.triu(square, 1).T
            out[rows, rows.start :] = part
            out[rows.start :, rows] = part.T


def kept_precision(stored: np.dtype[Any]) -> np.dtype[np.floating[Any]]:
    """Return float32 for numbers that it holds exactly, else float64."""
    small = stored.kind == "f" and stored.itemsize <= 4
    return np.dtype(np.float32 if small else np.float64)


def examine(
    stored: NDArray[np.generic], declared: Populated = Populated.UNKNOWN
) -> Completion | None:
    """Find out what of a stored matrix counts.

    A half that holds nothing but zeros and NaN was not stored. Where both halves
    hold values, a declared half decides which of them counts.

    Args:
        stored: Matrix as in the file, shape (N, N), any real type.
        declared: What the file says about itself.

    Returns:
        How to build the full matrix: from the mean of the halves where they are apart
        by more than rounding. None where there is no value off the diagonal.
    """
    upper, lower = _halves_with_values(stored)
    if not (upper or lower):
        return None
    if upper and lower and declared in (Populated.UNKNOWN, Populated.ALL):
        asymmetry = _asymmetry(stored)
        counts = _Counts.MEAN if asymmetry.significant else _Counts.UPPER
        return Completion(stored, counts, asymmetry)
    use_lower = not upper or (lower and declared is Populated.LOWER)
    return Completion(stored, _Counts.LOWER if use_lower else _Counts.UPPER, Asymmetry())


def complete(
    stored: NDArray[np.generic], declared: Populated = Populated.UNKNOWN
) -> tuple[StoredArray, Asymmetry] | None:
    """Build the full matrix from what a file stores; the diagonal is kept.

    Args:
        stored: Matrix as in the file, shape (N, N), any real type.
        declared: What the file says about itself.

    Returns:
        The symmetric matrix, shape (N, N), and how far the halves were apart
        (their mean is returned where that exceeds rounding). None where the
        matrix holds no value off the diagonal.
    """
    found = examine(stored, declared)
    if found is None:
        return None
    full = np.empty(stored.shape, found.dtype)
    found.fill(full)
    return full, found.asymmetry


def _halves_with_values(stored: NDArray[np.generic]) -> tuple[bool, bool]:
    """Whether the upper and the lower half hold a value other than zero and NaN."""
    upper = lower = False
    kind = kept_precision(stored.dtype)
    for rows in row_slices(*stored.shape):
        block = stored[rows].astype(kind)
        values = (block != 0) & ~np.isnan(block)
        upper = upper or bool(np.triu(values, rows.start + 1).any())
        lower = lower or bool(np.tril(values, rows.start - 1).any())
        if upper and lower:
            break
    return upper, lower


def _asymmetry(stored: NDArray[np.generic]) -> Asymmetry:
    largest, scale, place = 0.0, 0.0, (0, 0)
    for rows in row_slices(*stored.shape):
        upper = stored[rows, rows.start :].astype(np.float64)
        lower = stored[rows.start :, rows].T.astype(np.float64)
        np.fill_diagonal(upper, 0.0)
        np.fill_diagonal(lower, 0.0)
        scale = max(scale, _largest(upper), _largest(lower))
        both = np.isfinite(upper) & np.isfinite(lower)
        differences = np.zeros(upper.shape)
        np.subtract(upper, lower, where=both, out=differences)
        np.abs(differences, out=differences)
        row, column = divmod(int(np.argmax(differences)), upper.shape[1])
        if differences[row, column] > largest:
            largest = float(differences[row, column])
            place = rows.start + row, rows.start + column
    return Asymmetry(largest, scale, *place)


def _largest(values: FloatArray) -> float:
    """Largest finite magnitude."""
    return float(np.max(np.abs(values), where=np.isfinite(values), initial=0.0))


def diagonal_is_raw(c2: StoredArray) -> bool | None:
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


def _one_diagonal_is_raw(matrix: StoredArray) -> bool | None:
    diagonal, beside = (np.diagonal(matrix, lag).astype(np.float64) for lag in (0, 1))
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
