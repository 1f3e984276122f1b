"""Measured pairs of one angle, read in stretches of rows and cut into blocks.

A matrix of N frames may fill a good part of the memory, so nothing of its size exists here
but the matrix as given and the blocks that are filled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from heterodyne._typing import BoolArray, FloatArray, StoredArray
from heterodyne.core.rows import row_slices
from heterodyne.core.separable import Layout


class Stretch(NamedTuple):
    """Some rows of the upper triangle.

    Attributes:
        first: First of the m rows; columns are those from it on.
        values: c2, zero where the weight is, shape (m, N - first).
        weights: Weights of the pairs i < j of fitted frames, zero elsewhere, likewise.
    """

    first: int
    values: FloatArray
    weights: FloatArray


class Pairs(NamedTuple):
    """What was measured at one angle.

    Attributes:
        c2: Correlation, shape (N, N); only pairs i < j are read.
        frames: 1 for fitted frames, shape (N,).
        weights: Weight of each pair, shape (N, N), or None where all count 1.
    """

    c2: StoredArray
    frames: FloatArray
    weights: FloatArray | None

    def stretches(self) -> Iterator[Stretch]:
        """Yield all rows in order."""
        for rows in row_slices(*self.c2.shape):
            later = slice(rows.start, None)
            weights = np.triu(np.outer(self.frames[rows], self.frames[later]), 1)
            if self.weights is not None:
                weights *= self.weights[rows, later]
            values = self.c2[rows, later].astype(np.float64)
            values[~(weights > 0)] = 0.0
            yield Stretch(rows.start, values, weights)


class Level(NamedTuple):
    """Sums over the pairs of an angle that its other sums are counted from.

    Attributes:
        baseline: Weighted mean of c2.
        total_weight: Sum of the weights.
        n_pairs: Number of pairs with a weight above 0.
    """

    baseline: float
    total_weight: float
    n_pairs: int

    @classmethod
    def of(cls, pairs: Pairs) -> Level:
        """Sum over all pairs; without any the baseline is not a number."""
        total, count, weighted = 0.0, 0, 0.0
        for part in pairs.stretches():
            total += float(part.weights.sum())
            count += int(np.count_nonzero(part.weights > 0))
            weighted += float(np.vdot(part.weights, part.values))
        return cls(weighted / total if count else np.nan, total, count)


class Moments(NamedTuple):
    """Further sums over the pairs of an angle, values counted from the baseline.

    Attributes:
        residue: Weighted sum of the values.
        square: Weighted sum of their squares.
        lag_mean: Weighted mean of c2 at each lag, NaN where there is no pair, shape (N,).
        noise: Standard deviation of the errors that neighbouring pairs do not share.
    """

    residue: float
    square: float
    lag_mean: FloatArray
    noise: float


def fill_blocks(
    pairs: Pairs,
    level: Level,
    blocks: tuple[FloatArray, ...],
    of_weights: tuple[FloatArray, ...] | None,
) -> Moments:
    """Write the pairs of one angle into blocks, and sum over them on the way.

    Args:
        pairs: What was measured.
        level: Its level.
        blocks: Receive w (c2 - baseline), see ``Layout.empty_blocks``.
        of_weights: Receive w, if given.
    """
    layout = Layout.of(len(pairs.frames))
    residue = square = 0.0
    by_lag, weight_by_lag = np.zeros(layout.n_frames), np.zeros(layout.n_frames)
    noise = _LocalNoise()
    for first, values, weights in pairs.stretches():
        used = weights > 0
        values -= level.baseline
        values[~used] = 0.0
        products = values if pairs.weights is None else weights * values
        layout.place(blocks, first, products)
        if of_weights is not None:
            layout.place(of_weights, first, weights)
        residue += float(products.sum())
        square += float(np.vdot(products, values))
        add_by_lag(by_lag, first, products)
        add_by_lag(weight_by_lag, first, weights)
        noise.add(first, values, used)
    lag_mean = over_weights(by_lag, weight_by_lag) + level.baseline
    return Moments(residue, square, lag_mean, noise.estimate)


def add_by_lag(totals: FloatArray, first: int, upper: FloatArray) -> None:
    """Add pairs i < j to the sums at their lags in frames.

    Args:
        totals: Sum at each lag, shape (N,); changed.
        first: First of the m rows.
        upper: The rows from column ``first`` on, shape (m, N - first); what is on and below
            the diagonal is not read.
    """
    n_columns = upper.shape[1]
    for k, row in enumerate(upper):
        totals[1 : n_columns - k] += row[k + 1 :]


def over_weights(totals: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the mean at each lag from sums there, NaN where there is no weight, shape (N,)."""
    return np.divide(totals, weights, out=np.full(totals.shape, np.nan), where=weights > 0)


class _LocalNoise:
    """The error of a pair from mixed differences, which cancel smooth signals."""

    def __init__(self) -> None:
        self._squares, self._count = 0.0, 0
        self._last: tuple[int, FloatArray, BoolArray] | None = None

    def add(self, first: int, values: FloatArray, used: BoolArray) -> None:
        """Add rows, which follow those added before; columns are those from ``first`` on."""
        if self._last is not None:
            shift = first - self._last[0]
            values = np.concatenate([self._last[1][:, shift:], values])
            used = np.concatenate([self._last[2][:, shift:], used])
        whole = used[1:, 1:] & used[:-1, 1:] & used[1:, :-1] & used[:-1, :-1]
        mixed = values[1:, 1:] - values[:-1, 1:]
        mixed -= values[1:, :-1]
        mixed += values[:-1, :-1]
        mixed[~whole] = 0.0
        self._squares += float(np.vdot(mixed, mixed))
        self._count += int(np.count_nonzero(whole))
        self._last = first, values[-1:].copy(), used[-1:].copy()

    @property
    def estimate(self) -> float:
        """Standard deviation of the error of one pair."""
        return 0.5 * float(np.sqrt(self._squares / max(self._count, 1)))
