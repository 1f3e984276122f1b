"""Correlation at chosen pairs of frames, without an N x N matrix."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from heterodyne._errors import DataError
from heterodyne._typing import ArrayLike, JaxArray
from heterodyne.core._jax import jnp
from heterodyne.core.correlation import correlate_pairs
from heterodyne.core.frames import frame_functions


class ShardGrid(NamedTuple):
    """Pairs of frames on a time grid.

    Attributes:
        t: Frame times in s, shape (N,).
        i1: Index of the first time of each pair, shape (n_pairs,).
        i2: Index of the second time of each pair, shape (n_pairs,).
    """

    t: JaxArray
    i1: JaxArray
    i2: JaxArray


def precompute_shard_grid(t: ArrayLike, t1: ArrayLike, t2: ArrayLike) -> ShardGrid:
    """Find the frames that pairs of times belong to.

    Args:
        t: Frame times in s, increasing, shape (N,).
        t1: First time of each pair in s, shape (n_pairs,).
        t2: Second time of each pair in s, shape (n_pairs,).

    Raises:
        DataError: A time lies further than 1 % of the frame spacing from every frame.
    """
    grid = np.asarray(t, dtype=float)
    return ShardGrid(
        jnp.asarray(grid), jnp.asarray(_nearest(grid, t1)), jnp.asarray(_nearest(grid, t2))
    )


def _nearest(grid: np.ndarray, times: ArrayLike) -> np.ndarray:
    times = np.asarray(times, dtype=float)
    spacing = float(np.min(np.diff(grid)))
    right = np.clip(np.searchsorted(grid, times), 1, grid.size - 1)
    index = np.where(times - grid[right - 1] < grid[right] - times, right - 1, right)
    distance = np.abs(grid[index] - times)
    if distance.size and distance.max() > 0.01 * spacing:
        worst = float(times.flat[int(distance.argmax())])
        raise DataError(
            f"time {worst:g} s lies on no frame",
            allowed=f"the frame times {grid[0]:g} to {grid[-1]:g} s in steps of {spacing:g} s",
        )
    return index


def compute_c2_elementwise(
    params: ArrayLike,
    shard_grid: ShardGrid,
    q: float,
    dt: float,
    phi_angle: float,
    contrast: float = 1.0,
    offset: float = 1.0,
) -> JaxArray:
    """Return c2 = offset + contrast * G at the pairs of a grid.

    Args:
        params: The 14 physics parameters in canonical order.
        shard_grid: Pairs of frames.
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        phi_angle: Detector angle in degrees.
        contrast: Speckle contrast.
        offset: Baseline.

    Returns:
        Array of shape (n_pairs,).
    """
    functions = frame_functions(jnp.asarray(params), shard_grid.t)
    g = correlate_pairs(functions, shard_grid.i1, shard_grid.i2, q, dt, phi_angle)
    return offset + contrast * g
