"""Rough estimates of the error of c2, to scale the prior of sigma."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import uniform_filter

from heterodyne._errors import ConfigError, DataError
from heterodyne._log import get_logger
from heterodyne._typing import ArrayLike, FloatArray
from heterodyne.config._suggest import not_known
from heterodyne.core._jax import jax
from heterodyne.optimization.cmc._array_checks import count, finite

if TYPE_CHECKING:
    from heterodyne.optimization.nlsq.results import NLSQResult

_LOG = get_logger(__name__)

_METHODS = ("diagonal", "constant", "local", "residual", "bootstrap")
_FLOOR = 0.01
_WINDOW = 5


def estimate_sigma(
    c2_data: ArrayLike,
    method: str = "diagonal",
    nlsq_result: NLSQResult | None = None,
    n_bootstrap: int = 200,
    bootstrap_seed: int = 0,
) -> FloatArray | np.float64:
    """Estimate the standard deviation of the errors of c2.

    Only ``residual``, with a fit that describes the data, estimates the error of a pair. The
    other methods give a scale for the prior of sigma, not a result:

    - ``diagonal``: standard deviation of the diagonal around its mean, at least 1 % of the
      mean absolute c2. The diagonal of measured data holds shot noise, which pairs off the
      diagonal do not have, so this is mostly too large; and so is the floor for good data.
    - ``constant``: standard deviation of all of c2, signal and diagonal included: too large.
    - ``local``: standard deviation in a window of 5 points along each axis. It is too large
      where the signal bends within the window, and next to the diagonal.
    - ``residual``: root mean square residual of a fit, too large if the model does not fit.
      Without residuals it is ``diagonal``, with a warning in the log.
    - ``bootstrap``: standard deviation of the means of resampled diagonals. This is the
      error of a mean over n points: too small for that of one by the square root of n.

    ``pack_pairs(...).noise`` measures the error on differences of neighbouring pairs, in
    which a smooth signal cancels.

    Args:
        c2_data: Correlation, shape (N, N) or (n_phi, N, N). Shapes without a diagonal, (n,)
            and (n_phi, n) with another n than n_phi, are taken as diagonals.
        method: One of the methods.
        nlsq_result: Fit of the data, for ``residual``.
        n_bootstrap: Number of replicates, at least 2.
        bootstrap_seed: Seed of the replicates.

    Returns:
        An array of the shape of ``c2_data`` for ``local``, else one number.

    Raises:
        ConfigError: A method that is not known, or fewer than 2 replicates.
        DataError: Values that are not finite, or no values.
    """
    if method not in _METHODS:
        raise ConfigError(
            not_known("method", method, _METHODS), where="method", allowed=", ".join(_METHODS)
        )
    c2 = finite(c2_data, "c2_data")
    if c2.ndim not in (1, 2, 3) or c2.size < 2:
        raise DataError(
            f"the shape is {c2.shape}", where="c2_data", allowed="(N, N) or (n_phi, N, N), N > 1"
        )
    if method == "local":
        return _local(c2)
    if method == "constant":
        return np.float64(c2.std())
    if method == "bootstrap":
        return _bootstrap(c2, count(n_bootstrap, "n_bootstrap"), bootstrap_seed)
    return _diagonal(c2) if method == "diagonal" else _residual(c2, nlsq_result)


def _diagonal(c2: FloatArray) -> np.float64:
    return np.maximum(_rms(_around_mean(c2)), _FLOOR * np.abs(c2).mean())


def _residual(c2: FloatArray, result: NLSQResult | None) -> np.float64:
    residuals = None if result is None else result.residuals
    if residuals is not None and np.size(residuals):
        return _rms(finite(residuals, "nlsq_result.residuals"))
    _LOG.warning("There are no residuals: sigma is estimated on the diagonal instead.")
    return _diagonal(c2)


def _rms(values: FloatArray) -> np.float64:
    return np.sqrt(np.mean(values**2))


def _around_mean(c2: FloatArray) -> FloatArray:
    """Deviations of the diagonals from their means, all in one row."""
    whole = c2.ndim > 1 and c2.shape[-1] == c2.shape[-2]
    diagonals = np.diagonal(c2, 0, -2, -1) if whole else c2
    return (diagonals - diagonals.mean(axis=-1, keepdims=True)).ravel()


def _local(c2: FloatArray) -> FloatArray:
    whole = c2.ndim > 1 and c2.shape[-1] == c2.shape[-2]
    axes = (-2, -1) if whole else (-1,)

    def averaged(values: FloatArray) -> FloatArray:
        return uniform_filter(values, _WINDOW, axes=axes)

    # Without the mean, squares keep their digits.
    centred = c2 - c2.mean()
    variance = averaged(centred**2) - averaged(centred) ** 2
    n = _WINDOW ** len(axes)
    return np.sqrt(np.maximum(variance, 0.0) * n / (n - 1))


def _bootstrap(c2: FloatArray, n_bootstrap: int, seed: int) -> np.float64:
    if n_bootstrap < 2:
        raise ConfigError(f"{n_bootstrap} replicates", where="n_bootstrap", allowed="at least 2")
    values = _around_mean(c2)
    key = jax.random.key(seed)
    drawn = np.asarray(jax.random.randint(key, (n_bootstrap, values.size), 0, values.size))
    return np.float64(values[drawn].mean(axis=1).std())
