"""Errors of correlations measured on a finite number of speckles.

Pairs of frames share speckles: c2(t1, t2) and c2(t1, t3) have frame t1 in common. With
intensities of covariance Sigma = contrast * G + shot noise on the diagonal, and P
independent speckles,

    cov(c2_ij, c2_kl) = (Sigma_ik Sigma_jl + Sigma_il Sigma_jk) / P .

The sums over pairs that a fit for independent errors forms with functions A_a of the
pairs, symmetric matrices with zero diagonals, then have the covariance
tr(A_a Sigma A_b Sigma) / (2 P).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from heterodyne._typing import ArrayLike, FloatArray, IntArray, JaxArray
from heterodyne.core._jax import jax, jnp
from heterodyne.core.correlation import correlation_matrix
from heterodyne.core.likelihood import PairData
from heterodyne.core.separable import Layout

# Products held at a time, in bytes, and the part of them that is copied at a time.
_STORE = 2**30
_CHUNK = 2**24


def speckle_covariance(
    correlation: FloatArray, contrast: float, shot_noise: ArrayLike
) -> FloatArray:
    """Return the covariance Sigma of the normalised intensities of one angle.

    Args:
        correlation: G with ones on the diagonal, shape (N, N).
        contrast: Contrast of the angle.
        shot_noise: What shot noise adds to the diagonal, scalar or shape (N,).
    """
    return contrast * correlation + np.diag(np.broadcast_to(shot_noise, len(correlation)))


def correlation_slope(
    parameters_of: Callable[[JaxArray], JaxArray],
    y: JaxArray,
    direction: JaxArray,
    data: PairData,
    phi: JaxArray,
) -> JaxArray:
    """Return the derivative of G along a direction, zero on the diagonal.

    Args:
        parameters_of: Map from coordinates, shape (p,), to the 14 physics parameters.
        y: Coordinates, shape (p,).
        direction: Direction in coordinates, shape (p,).
        data: Times and wavevector; the measured values are not used.
        phi: Detector angle in degrees.

    Returns:
        Symmetric array of shape (N, N).
    """

    def correlation(x: JaxArray) -> JaxArray:
        return correlation_matrix(parameters_of(x), data.t, data.q, data.dt, phi)

    slope = jax.jvp(correlation, (y,), (direction,))[1]
    return jnp.where(np.eye(slope.shape[0], dtype=bool), 0.0, slope)


def fitted_pairs(data: PairData) -> tuple[IntArray, list[FloatArray]]:
    """Return the fitted frames and the weights of their pairs.

    Returns:
        Indices of the n frames, and for each angle a symmetric matrix of shape (n, n)
        with a zero diagonal.
    """
    mask = np.asarray(data.mask)
    frames = np.flatnonzero(mask)
    if data.weights is None:
        return frames, [np.ones((frames.size, frames.size)) - np.eye(frames.size)] * data.n_angles
    upper = _join(data.layout, [np.asarray(block) for block in data.weights])
    upper = upper[:, frames[:, None], frames]
    return frames, list(upper + upper.swapaxes(1, 2))


def _join(layout: Layout, blocks: list[FloatArray]) -> FloatArray:
    """Undo ``Layout.split`` for the strict upper triangle, shape (n_angles, N, N)."""
    whole = np.zeros((blocks[0].shape[0], layout.padded, layout.padded))
    for level, block in enumerate(blocks):
        leaf = level == layout.levels
        size = block.shape[-1]
        step, shift = (size, 0) if leaf else (2 * size, size)
        for k in range(block.shape[-3]):
            row = k * step
            column = row + shift
            whole[:, row : row + size, column : column + size] = block[..., k, :, :]
    return whole[:, : layout.n_frames, : layout.n_frames]


def trace_products(
    function_of: Callable[[int], FloatArray], count: int, sigma: FloatArray
) -> FloatArray:
    """Return tr(A_a Sigma A_b Sigma) / 2 for all pairs of functions.

    One product A Sigma of N**3 multiplications is formed for each function; functions
    whose products do not fit in a gibibyte are taken in groups, and again for each group.

    Args:
        function_of: Gives the symmetric matrix A_a with a zero diagonal, shape (N, N).
        count: Number of functions.
        sigma: Covariance of the intensities, symmetric, shape (N, N).

    Returns:
        Symmetric matrix of shape (count, count).
    """
    traces = np.zeros((count, count))
    held: FloatArray | None = None
    for group, other in _schedule(count, len(sigma)):
        products = np.stack([function_of(a) @ sigma for a in other])
        held = products if group == other or held is None else held
        rows, columns = np.array(group), np.array(other)
        block = 0.5 * _traces(held, products)
        traces[rows[:, None], columns] = block
        traces[columns[:, None], rows] = block.T
    return traces


def number_of_products(count: int, n_frames: int) -> int:
    """Return how often ``trace_products`` asks for a function."""
    return sum(len(other) for _, other in _schedule(count, n_frames))


def _schedule(count: int, n_frames: int) -> Iterator[tuple[range, range]]:
    """Pairs of groups of functions; the first of each group is with itself."""
    fit = max(1, _STORE // (8 * n_frames**2))
    size = count if count <= fit else max(1, fit // 2)
    groups = [range(k, min(k + size, count)) for k in range(0, count, size)]
    for k, group in enumerate(groups):
        for other in groups[k:]:
            yield group, other


def _traces(left: FloatArray, right: FloatArray) -> FloatArray:
    """Return tr(L_a R_b), in slices of rows so that each is one matrix product."""
    n = left.shape[-1]
    step = max(1, _CHUNK // (8 * n * max(len(left), len(right))))
    total = np.zeros((len(left), len(right)))
    for k in range(0, n, step):
        rows = left[:, k : k + step].reshape(len(left), -1)
        columns = right[:, :, k : k + step].swapaxes(1, 2).reshape(len(right), -1)
        total += rows @ columns.T
    return total
