"""Thinning of two-time matrices for pictures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from heterodyne._typing import ArrayLike, FloatArray
from heterodyne.core.rows import row_slices

DEFAULT_SIZE = 256
"""Largest number of rows of a thinned matrix."""


def block_means(
    c2: ArrayLike, t: ArrayLike, size: int = DEFAULT_SIZE
) -> tuple[FloatArray, FloatArray]:
    """Average square blocks of two-time matrices.

    The diagonal carries shot noise; where blocks hold more than one pair it is left out
    of their means, and matrices that need no thinning come back as they are.

    Args:
        c2: Matrices, shape (n, N, N); values that are not finite are left out.
        t: Frame times in s, shape (N,).
        size: Largest number of blocks along an axis.

    Returns:
        The means, shape (n, M, M), NaN for blocks without a value, and the mean time of
        each block, shape (M,).
    """
    matrices, times = np.asarray(c2), np.asarray(t, float)
    thinning = Thinning.of(times.size, size)
    means = np.empty((len(matrices), thinning.n_blocks, thinning.n_blocks))
    for matrix, out in zip(matrices, means, strict=True):
        for rows in row_slices(times.size, times.size, thinning.step):
            out[thinning.blocks(rows)] = thinning.means(matrix[rows], rows.start)
    return means, thinning.times(times)


class Thinning(NamedTuple):
    """How N frames are cut into blocks.

    Attributes:
        n_frames: N.
        step: Number of frames in a block; the last may have fewer.
    """

    n_frames: int
    step: int

    @classmethod
    def of(cls, n_frames: int, size: int = DEFAULT_SIZE) -> Thinning:
        """Choose the smallest blocks of which there are at most ``size``."""
        return cls(n_frames, -(-n_frames // size))

    @property
    def n_blocks(self) -> int:
        """Number of blocks, M."""
        return -(-self.n_frames // self.step)

    def blocks(self, rows: slice) -> slice:
        """Return the blocks that whole blocks of frames are."""
        return slice(rows.start // self.step, -(-rows.stop // self.step))

    def times(self, t: FloatArray) -> FloatArray:
        """Return the mean time of each block in s, shape (M,)."""
        edges = np.arange(0, self.n_frames, self.step)
        return np.add.reduceat(t, edges) / np.diff(np.append(edges, self.n_frames))

    def means(self, values: ArrayLike, first: int) -> FloatArray:
        """Average rows that are whole blocks.

        Args:
            values: The m rows, shape (m, N).
            first: First of them.

        Returns:
            Array of shape (number of blocks, M), NaN for blocks without a value.
        """
        rows = np.array(values, dtype=np.float64)
        if self.step == 1:
            return rows
        used = np.isfinite(rows)
        np.fill_diagonal(used[:, first:], False)
        rows[~used] = 0.0
        edges = [np.arange(0, count, self.step) for count in rows.shape]
        total, number = (
            np.add.reduceat(np.add.reduceat(x, edges[0], axis=0), edges[1], axis=1)
            for x in (rows, used.astype(np.float64))
        )
        return np.where(number > 0, total / np.maximum(number, 1.0), np.nan)
