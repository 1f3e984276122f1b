"""The error of a pair, measured where the signal cancels."""

from __future__ import annotations

import numpy as np
from scipy.stats import median_abs_deviation

from heterodyne._log import get_logger
from heterodyne._typing import FloatArray, IntArray

_LOG = get_logger(__name__)

_FEWEST_DIFFERENCES = 10
_MAD_TO_SIGMA = 1.4826

_STEP, _BEND = (1.0, -1.0), (1.0, -2.0, 1.0)
_ALONG_BOTH = ((_BEND, _BEND), (_STEP, _STEP))
_ALONG_ONE = (((1.0,), _STEP), (_STEP, (1.0,)))


def noise_scale(values: FloatArray, keys: IntArray, n_frames: int) -> float:
    """Estimate the standard deviation of the error of a pair, robust to outliers.

    Differences of neighbouring pairs along both times hold little signal: first ones,
    c(i, j) - c(i+1, j) - c(i, j+1) + c(i+1, j+1), and second ones along each. Divided by what
    they make of independent errors, both have the wanted deviation, which is 1.4826 times
    their median absolute deviation. What is left of the signal, and outliers, only add to
    it, so the smaller one is taken. With fewer than 10 differences, steps along one time
    take their place, and then the deviations of all values from their median.

    Args:
        values: Value of each distinct pair, shape (m,).
        keys: Keys by ``pair_keys``, increasing, shape (m,).
        n_frames: Number of frames N.

    Returns:
        The estimate; 0 where all differences are 0, which is logged.
    """
    off = np.flatnonzero(keys // n_frames % n_frames != keys % n_frames)
    for stencils in (_ALONG_BOTH, _ALONG_ONE):
        found = [
            _differences(values[off], keys[off], n_frames, rows, columns)
            for rows, columns in stencils
        ]
        spreads = [_spread(x) for x in found if x.size >= _FEWEST_DIFFERENCES]
        if spreads:
            return _told(min(spreads))
    _LOG.warning(
        "Too few neighbouring pairs to tell noise from signal: noise_scale is the spread of all "
        "values, and too large."
    )
    return _told(_spread(values))


def _told(scale: float) -> float:
    if scale == 0:
        _LOG.warning("The data show no noise: noise_scale is 0, and no prior can rest on it.")
    return scale


def _spread(differences: FloatArray) -> float:
    scale = _MAD_TO_SIGMA * float(median_abs_deviation(differences))
    # Where more than half of the values are equal, as in rare counts, the median says nothing.
    return scale if scale > 0 else float(np.std(differences))


def _differences(
    values: FloatArray,
    keys: IntArray,
    n_frames: int,
    rows: tuple[float, ...],
    columns: tuple[float, ...],
) -> FloatArray:
    """Differences that are complete, scaled to the error of one value."""
    total = np.zeros_like(values)
    for a, row in enumerate(rows):
        for b, column in enumerate(columns):
            total += row * column * _at(values, keys, a * n_frames + b)
    return total[np.isfinite(total)] / (np.linalg.norm(rows) * np.linalg.norm(columns))


def _at(values: FloatArray, keys: IntArray, shift: int) -> FloatArray:
    """Values of the pairs at shifted keys, NaN where there are none, shape (m,).

    A shift past the last frame may hit a pair of the next row or angle. It spoils nothing: all
    differences that reach so far also need a pair on the diagonal, and that is never there.
    """
    found = np.full(values.shape, np.nan)
    position = np.searchsorted(keys, keys + shift)
    inside = np.flatnonzero(position < keys.size)
    there = inside[keys[position[inside]] == keys[inside] + shift]
    found[there] = values[position[there]]
    return found
