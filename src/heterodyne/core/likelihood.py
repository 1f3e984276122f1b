"""The Gaussian sum of squares of all angles, for independent errors of equal size.

    SSE_a = sum over pairs of w (c2 - offset_a - contrast_a G_a)**2

Contrast and offset enter in closed form: given them, or profiled out.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from heterodyne._errors import DataError
from heterodyne._typing import ArrayLike, FloatArray, JaxArray
from heterodyne.core import separable
from heterodyne.core._jax import jax, jnp
from heterodyne.core.correlation import correlate_pairs
from heterodyne.core.frames import frame_functions
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
    holds each pair twice. Frames at t = 0 are not fitted.

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
    c2 = np.asarray(c2, float)
    t, phi = np.asarray(t, float), np.atleast_1d(np.asarray(phi, float))
    shape = (phi.size, t.size, t.size)
    if c2.shape != shape:
        raise DataError(
            f"c2 has the shape {c2.shape}, but {phi.size} angles and {t.size} times need {shape}"
        )
    frames = fitted_frames(t, mask)
    full = _pair_weights(frames, weights, shape)
    total = full.sum((1, 2))
    baseline = np.einsum("aij,aij->a", full, np.where(full > 0, c2, 0.0)) / total
    centred = np.where(full > 0, c2 - baseline[:, None, None], 0.0)
    layout = Layout.of(t.size)
    return PairData(
        *map(jnp.asarray, (t, q, dt, phi, frames)),
        blocks=tuple(map(jnp.asarray, layout.split(full * centred))),
        weights=None if weights is None else tuple(map(jnp.asarray, layout.split(full))),
        baseline=jnp.asarray(baseline),
        total_weight=jnp.asarray(total),
        n_pairs=jnp.asarray((full > 0).sum((1, 2))),
        residue=jnp.asarray(np.einsum("aij,aij->a", full, centred)),
        square=jnp.asarray(np.einsum("aij,aij,aij->a", full, centred, centred)),
        lag_mean=jnp.asarray(mean_by_lag(full, centred) + baseline[:, None]),
        noise=jnp.asarray(_local_noise(full, centred)),
    )


def _pair_weights(
    frames: FloatArray, weights: ArrayLike | None, shape: tuple[int, int, int]
) -> FloatArray:
    """Weights of the fitted pairs i < j, zero elsewhere."""
    if frames.sum() < 2:
        raise DataError(f"{int(frames.sum())} frames are left to fit", allowed="at least 2")
    pairs = np.triu(np.outer(frames, frames), 1)
    full = np.broadcast_to(pairs if weights is None else pairs * np.asarray(weights), shape)
    empty = np.flatnonzero((full > 0).sum((1, 2)) == 0)
    if empty.size:
        raise DataError(
            f"no pair has a weight above 0 at angle {empty[0]} (counted from 0)",
            where="weights",
            allowed="at least 1 pair per angle",
        )
    return full


def _local_noise(weights: FloatArray, values: FloatArray) -> FloatArray:
    """Estimate the error of a pair from mixed differences, which cancel smooth signals."""
    used = weights > 0
    whole = used[:, 1:, 1:] & used[:, :-1, 1:] & used[:, 1:, :-1] & used[:, :-1, :-1]
    mixed = values[:, 1:, 1:] - values[:, :-1, 1:] - values[:, 1:, :-1] + values[:, :-1, :-1]
    count = np.maximum(whole.sum((1, 2)), 1)
    return 0.5 * np.sqrt(np.where(whole, mixed**2, 0.0).sum((1, 2)) / count)


def mean_by_lag(weights: FloatArray, values: FloatArray) -> FloatArray:
    """Weighted mean of the pairs at each lag in frames, NaN where there is none.

    Args:
        weights: Weight of each pair, zero on the diagonal, shape (n, N, N).
        values: Finite values of the pairs, shape (n, N, N).

    Returns:
        Array of shape (n, N).
    """
    n = weights.shape[-1]
    products = weights * values
    mean = np.full(weights.shape[:2], np.nan)
    for lag in range(1, n):
        total = np.diagonal(weights, lag, 1, 2).sum(-1)
        there = total > 0
        mean[there, lag] = np.diagonal(products, lag, 1, 2).sum(-1)[there] / total[there]
    return mean


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
