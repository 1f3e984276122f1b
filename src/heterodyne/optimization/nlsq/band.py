"""Residuals of the pairs of small lags, where data and model are compared lag by lag."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from heterodyne._typing import FloatArray, JaxArray
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.core._jax import RUNS_ONCE
from heterodyne.core.ahead import compile_ahead
from heterodyne.core.kept import kept
from heterodyne.core.likelihood import PairData, separable_form
from heterodyne.core.separable import DECAY_OF_ROW, Layout, Terms


class Band(NamedTuple):
    """Residuals of the pairs (i, i + lag) of frames, lag = 1 ... L.

    Attributes:
        weights: Weights, zero where there is no fitted pair, shape (n_angles, N, L).
        whole: Weights times residuals, likewise.
        without: Weights times residuals of the model without its cross term, likewise.
    """

    weights: FloatArray
    whole: FloatArray
    without: FloatArray


def compile_band(data: PairData) -> None:
    """Have the code of ``band_at`` compiled in the background.

    Args:
        data: As they will be given.
    """
    compile_ahead(_terms, np.zeros(len(PHYSICS_PARAM_NAMES)), data)


def near_diagonal(blocks: tuple[JaxArray, ...], n_frames: int, n_lags: int) -> FloatArray:
    """Pick the pairs of small lags out of what ``Layout.split`` has cut.

    Args:
        blocks: Blocks of n_angles matrices.
        n_frames: N.
        n_lags: L, at most N - 1.

    Returns:
        Values of the pairs (i, i + lag), lag = 1 ... L, zero past the last frame, shape
        (n_angles, N, L).
    """
    layout = Layout.of(n_frames)
    first = np.arange(n_frames)[:, None]
    second = first + np.arange(1, n_lags + 1)
    # A pair is in the block of the largest halving that parts its leaves.
    halving = np.frexp((first // layout.leaf) ^ (second // layout.leaf))[1]
    found = np.zeros((blocks[0].shape[0], n_frames, n_lags))
    for level, block in enumerate(blocks):
        part = np.asarray(block)
        height = part.shape[-1]
        shift = 0 if level == layout.levels else height
        i, k = np.nonzero((second < n_frames) & (halving == layout.levels - level))
        which, row = np.divmod(i, height + shift)
        column = second[i, k] - which * (height + shift) - shift
        found[:, i, k] = part[:, which, row, column]
    return found


def band_at(
    parameters: FloatArray, contrast: FloatArray, offset: FloatArray, data: PairData, n_lags: int
) -> Band:
    """Compare data and model at small lags.

    Args:
        parameters: The 14 physics parameters.
        contrast: Contrast of each angle, shape (n_angles,).
        offset: Offset of each angle, shape (n_angles,).
        data: Measured pairs.
        n_lags: L.
    """
    n = data.t.shape[0]
    values = near_diagonal(data.blocks, n, n_lags)
    if data.weights is None:
        mask = np.asarray(data.mask)
        weights = np.broadcast_to(mask[:, None] * _later(mask, n_lags), values.shape)
    else:
        weights = near_diagonal(data.weights, n, n_lags)
    own, cross = _correlations(_terms(parameters, data), n, n_lags)
    scale = weights * contrast[:, None, None]
    base = (offset - np.asarray(data.baseline))[:, None, None]
    without = values - weights * base - scale * own
    return Band(weights, without - scale * cross, without)


@kept(returns=Terms, compiler_options=RUNS_ONCE)
def _terms(parameters: JaxArray, data: PairData) -> Terms:
    return separable_form(parameters, data)


def _later(x: FloatArray, n_lags: int) -> FloatArray:
    """Values 1 ... L frames later, 0 past the end, shape (..., N) to (..., N, L)."""
    padded = np.concatenate([x, np.zeros((*x.shape[:-1], n_lags))], axis=-1)
    return np.lib.stride_tricks.sliding_window_view(padded, n_lags + 1, axis=-1)[..., 1:]


def _correlations(terms: Terms, n_frames: int, n_lags: int) -> tuple[FloatArray, FloatArray]:
    """Terms of G of single components, and the one of both, shape (n_angles, N, L) each."""
    decays = np.asarray(terms.decays)[:, :n_frames]
    decayed = np.exp(np.minimum(decays[..., None] - _later(decays, n_lags), 0.0))
    amplitudes = np.asarray(terms.amplitudes)[..., :n_frames]
    parts = [
        amplitudes[:, k, :, None] * _later(amplitudes[:, k], n_lags) * decayed[row]
        for k, row in enumerate(DECAY_OF_ROW)
    ]
    return parts[0] + parts[1], parts[2] + parts[3]
