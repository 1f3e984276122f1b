"""Thinning of two-time matrices for pictures."""

from __future__ import annotations

import numpy as np

from heterodyne._typing import ArrayLike, FloatArray

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
    matrices, times = np.asarray(c2, float), np.asarray(t, float)
    N = times.size
    step = -(-N // size)
    if step == 1:
        return matrices.copy(), times.copy()
    edges = np.arange(0, N, step)
    counts = np.diff(np.append(edges, N))
    thinned = np.empty((len(matrices), edges.size, edges.size))
    for k, matrix in enumerate(matrices):
        used = np.isfinite(matrix) & ~np.eye(N, dtype=bool)
        total = _block_sums(np.where(used, matrix, 0.0), edges)
        number = _block_sums(used.astype(float), edges)
        thinned[k] = np.where(number > 0, total / np.maximum(number, 1.0), np.nan)
    return thinned, np.add.reduceat(times, edges) / counts


def _block_sums(matrix: FloatArray, edges: np.ndarray) -> FloatArray:
    return np.add.reduceat(np.add.reduceat(matrix, edges, axis=0), edges, axis=1)
