"""The Gaussian sum of squares of all angles, for independent errors of equal size.

    SSE_a = sum over pairs of w (c2 - offset_a - contrast_a G_a)**2

Contrast and offset enter in closed form: given them, or profiled out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from heterodyne._errors import DataError
from heterodyne._typing import ArrayLike, FloatArray, JaxArray, StoredArray
from heterodyne.core import separable
from heterodyne.core._jax import jax, jnp
from heterodyne.core.correlation import correlate_pairs
from heterodyne.core.frames import frame_functions
from heterodyne.core.packing import (
    Level,
    Moments,
    Pairs,
    add_by_lag,
    fill_blocks,
    over_weights,
)
from heterodyne.core.rows import row_slices
from heterodyne.core.separable import Layout, PairSums


class PairData(NamedTuple):
    """Measured pairs in the form that the separable kernel reads (a JAX pytree).

    Attributes:
        t: Frame times in s, shape (N,).
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        phi: Detector angles in degrees, shape (n_angles,).
        mask: 1 for fitted frames, shape (N,).
        blocks: w (c2 - baseline), cut by ``Layout.split``.
        weights: w cut likewise, or None where every pair counts 1.
        baseline: Mean of the fitted pairs, subtracted so that no digits are lost at
            small errors, shape (n_angles,).
        total_weight: Sum of w, shape (n_angles,).
        n_pairs: Number of pairs with w > 0, shape (n_angles,).
        residue: Sum of w (c2 - baseline), zero but for rounding, shape (n_angles,).
        square: Sum of w (c2 - baseline)**2, shape (n_angles,).
        lag_mean: Weighted mean of c2 at each lag in frames, NaN where there is no pair,
            shape (n_angles, N); for pictures and first guesses.
        noise: Standard deviation of the errors that neighbouring pairs do not share,
            shape (n_angles,).
    """

    t: JaxArray
    q: JaxArray
    dt: JaxArray
    phi: JaxArray
    mask: JaxArray
    blocks: tuple[JaxArray, ...]
    weights: tuple[JaxArray, ...] | None
    baseline: JaxArray
    total_weight: JaxArray
    n_pairs: JaxArray
    residue: JaxArray
    square: JaxArray
    lag_mean: JaxArray
    noise: JaxArray

    @property
    def layout(self) -> Layout:
        """How the frames are cut into blocks."""
        return Layout.of(self.t.shape[0])

    @property
    def n_angles(self) -> int:
        """Number of detector angles."""
        return self.phi.shape[0]


def fitted_frames(t: FloatArray, mask: ArrayLike | None = None) -> FloatArray:
    """Return 1 for frames that are fitted: selected ones, t = 0 excluded.

    Args:
        t: Frame times in s, shape (N,).
        mask: True for selected frames, shape (N,); None selects all.
    """
    selected = np.ones(t.shape, bool) if mask is None else np.asarray(mask, bool)
    return (selected & (t > 0)).astype(float)


def pack_pairs(
    c2: ArrayLike,
    t: ArrayLike,
    q: float,
    dt: float,
    phi: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> PairData:
    """Prepare measured correlations for the kernel.

    Only pairs i < j are read: the diagonal holds shot noise, and a symmetric matrix
    holds each pair twice. Frames at t = 0 are not fitted. The matrices are read in
    stretches of rows, so float32 ones are never held as float64.

    Args:
        c2: Measured correlation, shape (n_angles, N, N).
        t: Frame times in s, equally spaced, shape (N,).
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        phi: Detector angles in degrees, shape (n_angles,).
        mask: True for frames to fit, shape (N,).
        weights: Weight of each pair, not negative, shape (N, N) or (n_angles, N, N).

    Raises:
        DataError: Shapes that do not match, or no pair to fit.
    """
    t, phi = np.asarray(t, float), np.atleast_1d(np.asarray(phi, float))
    shape = (phi.size, t.size, t.size)
    values = _stored(c2, shape)
    frames = fitted_frames(t, mask)
    if frames.sum() < 2:
        raise DataError(f"{int(frames.sum())} frames are left to fit", allowed="at least 2")
    given = None if weights is None else np.broadcast_to(np.asarray(weights, float), shape)
    angles = [
        Pairs(matrix, frames, None if given is None else given[k])
        for k, matrix in enumerate(values)
    ]
    levels = _levels(angles)
    layout = Layout.of(t.size)
    blocks = layout.empty_blocks(phi.size)
    of_weights = None if given is None else layout.empty_blocks(phi.size)
    moments = [
        fill_blocks(pairs, level, _at(blocks, k), of_weights and _at(of_weights, k))
        for k, (pairs, level) in enumerate(zip(angles, levels, strict=True))
    ]
    return PairData(
        *(jax.device_put(x) for x in (t, q, dt, phi)),
        mask=jax.device_put(frames),
        blocks=jax.device_put(blocks),
        weights=None if of_weights is None else jax.device_put(of_weights),
        **_of_angles(levels),
        **_of_angles(moments),
    )


def _of_angles(found: Sequence[Level] | Sequence[Moments]) -> dict[str, JaxArray]:
    """What was found at each angle, by name, with the angles as first axis."""
    columns = zip(*found, strict=True)
    return {
        name: jax.device_put(np.array(x)) for name, x in zip(found[0]._fields, columns, strict=True)
    }


def _stored(c2: ArrayLike, shape: tuple[int, int, int]) -> StoredArray:
    """Return c2 in float32 or float64, if it has the shape."""
    values = np.asarray(c2)
    if values.shape != shape:
        raise DataError(
            f"c2 has the shape {values.shape}, but {shape[0]} angles and {shape[1]} times "
            f"need {shape}"
        )
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)


def _at(blocks: tuple[FloatArray, ...], angle: int) -> tuple[FloatArray, ...]:
    return tuple(block[angle] for block in blocks)


def _levels(angles: Sequence[Pairs]) -> list[Level]:
    """Level of each angle; angles without any pair are refused."""
    levels = [Level.of(pairs) for pairs in angles]
    empty = [k for k, level in enumerate(levels) if level.n_pairs == 0]
    if empty:
        raise DataError(
            f"no pair has a weight above 0 at angle {empty[0]} (counted from 0)",
            where="weights",
            allowed="at least 1 pair per angle",
        )
    return levels


def mean_by_lag(weights: FloatArray, values: FloatArray) -> FloatArray:
    """Weighted mean of the pairs i < j at each lag in frames, NaN where there is none.

    Args:
        weights: Weight of each pair, shape (n, N, N).
        values: Finite values of the pairs, shape (n, N, N).

    Returns:
        Array of shape (n, N).
    """
    means = np.empty(weights.shape[:2])
    for w, v, out in zip(weights, values, means, strict=True):
        totals, counts = np.zeros(len(w)), np.zeros(len(w))
        for rows in row_slices(*w.shape):
            later = slice(rows.start, None)
            add_by_lag(totals, rows.start, w[rows, later] * v[rows, later])
            add_by_lag(counts, rows.start, w[rows, later])
        out[:] = over_weights(totals, counts)
    return means


def sums(parameters: JaxArray, data: PairData) -> PairSums:
    """Evaluate the sums over pairs for the 14 physics parameters."""
    return separable.pair_sums(separable_form(parameters, data), data.blocks, data.weights)


def separable_form(parameters: JaxArray, data: PairData) -> separable.Terms:
    """Factor G at the 14 physics parameters into functions of single frames."""
    functions = frame_functions(parameters, data.t)
    return separable.separable_terms(functions, data.q, data.dt, data.phi, data.mask)


def sum_of_squares(
    parameters: JaxArray, contrast: JaxArray, offset: JaxArray, data: PairData
) -> JaxArray:
    """Return SSE of each angle, shape (n_angles,).

    Args:
        parameters: The 14 physics parameters in canonical order.
        contrast: Contrast of each angle, shape (n_angles,) or scalar.
        offset: Offset of each angle, shape (n_angles,) or scalar.
        data: Measured pairs.
    """
    return expand_squares(sums(parameters, data), contrast, offset, data)


def expand_squares(s: PairSums, contrast: JaxArray, offset: JaxArray, data: PairData) -> JaxArray:
    """Return SSE of each angle from the sums over pairs, shape (n_angles,)."""
    o = offset - data.baseline
    return (
        data.square
        - 2.0 * o * data.residue
        + o**2 * data.total_weight
        + contrast * (contrast * s.gg + 2.0 * o * s.g - 2.0 * s.dg)
    )


def log_likelihood_of_squares(squares: JaxArray, sigma: JaxArray, n_pairs: JaxArray) -> JaxArray:
    """Return the log likelihood of independent normal errors from their sum of squares."""
    return -0.5 * squares / sigma**2 - n_pairs * (jnp.log(sigma) + 0.5 * math.log(2.0 * math.pi))


def direct_sum_of_squares(
    parameters: JaxArray,
    contrast: JaxArray,
    offset: JaxArray,
    data: PairData,
    c2: JaxArray,
    weights: JaxArray | None = None,
) -> JaxArray:
    """Return SSE of each angle, evaluated pair by pair: the slow reference.

    Args:
        parameters: The 14 physics parameters in canonical order.
        contrast: Contrast of each angle, shape (n_angles,).
        offset: Offset of each angle, shape (n_angles,).
        data: Measured pairs; only the coordinates are used.
        c2: Measured correlation, shape (n_angles, N, N).
        weights: Weights as in ``pack_pairs``.
    """
    i, j = np.triu_indices(data.t.shape[0], 1)
    w = (data.mask[i] * data.mask[j])[None]
    if weights is not None:
        w = w * jnp.broadcast_to(weights, c2.shape)[:, i, j]
    functions = frame_functions(parameters, data.t)

    def at_angle(phi: JaxArray) -> JaxArray:
        return correlate_pairs(functions, i, j, data.q, data.dt, phi)

    model = offset[:, None] + contrast[:, None] * jax.vmap(at_angle)(data.phi)
    return (w * jnp.where(w > 0, c2[:, i, j] - model, 0.0) ** 2).sum(1)
