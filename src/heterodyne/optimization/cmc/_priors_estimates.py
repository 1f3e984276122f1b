"""Contrast and offset read off measured correlations, to start a fit from."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from heterodyne._errors import ConfigError, DataError
from heterodyne._log import get_logger
from heterodyne._typing import ArrayLike, FloatArray
from heterodyne.core.likelihood import mean_by_lag
from heterodyne.optimization.cmc._priors_start import within

_LOG = get_logger(__name__)


def estimate_per_angle_scaling(
    data_dict: Mapping[Any, Any], angle_keys: Sequence[Hashable] | None = None
) -> dict[Any, tuple[float, float]]:
    """Guess contrast and offset of each angle from its decay with the lag.

    The contrast is the range of the decay, max - min: noise makes it too large. The offset is
    the mean of the last tenth, brought within 0 to 1, which is logged where it acts: noise puts
    the offset of normalised data above 1 as often as below. Both are meant for start values;
    ``estimate_contrast_offset_from_data`` is less sensitive to noise.

    Args:
        data_dict: For each angle, g2 in the order of increasing lag, shape (n,), or c2, shape
            (N, N), which is averaged over the pairs of each lag without the diagonal; or a
            mapping that holds either under ``g2`` or ``c2``. What is not finite is left out.
        angle_keys: Keys of the angles; all if None.

    Returns:
        (contrast, offset) by key. An angle that cannot be read is left out, which is logged.
    """
    estimates = {}
    for key in data_dict if angle_keys is None else angle_keys:
        try:
            decay = _decay(data_dict, key)
        except DataError as error:
            _LOG.warning("No contrast and offset for the angle %r: %s", key, error)
            continue
        tail = float(np.mean(decay[-max(1, decay.size // 10) :]))
        estimates[key] = (float(np.ptp(decay)), within(f"offset of {key!r}", tail, 0.0, 1.0))
    return estimates


def _decay(data: Mapping[Any, Any], key: Hashable) -> FloatArray:
    """Finite g2 of an angle in the order of the lag, shape (n,), n > 1."""
    if key not in data:
        raise DataError("there are no data of it", where=f"data_dict[{key!r}]")
    entry = data[key]
    if isinstance(entry, Mapping):
        entry = entry.get("g2", entry.get("c2"))
    try:
        values = np.asarray(entry, float)
    except (TypeError, ValueError):
        raise DataError("no array of numbers", where=f"data_dict[{key!r}]") from None
    if values.ndim == 2 and values.shape[0] == values.shape[1]:
        used = np.isfinite(values) & ~np.eye(values.shape[0], dtype=bool)
        values = mean_by_lag(used[None].astype(float), np.where(used, values, 0.0)[None])[0]
    elif values.ndim != 1:
        raise DataError(
            f"an array of shape {values.shape}",
            where=f"data_dict[{key!r}]",
            allowed="g2 of shape (n,), or c2 of shape (N, N)",
        )
    values = values[np.isfinite(values)]
    if values.size < 2:
        raise DataError(
            f"{values.size} finite values", where=f"data_dict[{key!r}]", allowed="at least 2"
        )
    return values


def estimate_contrast_offset_from_data(
    c2_data: ArrayLike,
    t1: ArrayLike,
    t2: ArrayLike,
    contrast_bounds: tuple[float, float] = (0.0, 1.0),
    offset_bounds: tuple[float, float] = (0.5, 1.5),
    lag_floor_quantile: float = 0.80,
    lag_ceiling_quantile: float = 0.20,
    value_quantile_low: float = 0.10,
    value_quantile_high: float = 0.90,
) -> tuple[float, float]:
    """Estimate contrast and offset of one angle from quantiles of c2.

    The model is c2 = offset + contrast G, with G near 1 at short lags and near 0 at long ones.
    The offset is a low quantile of c2 over the long lags, the contrast the distance from there
    to a high quantile over the short lags. Quantiles are insensitive to single wrong pairs, but
    both numbers are biased: errors of standard deviation sigma lower the offset by up to
    1.28 sigma and raise the contrast by up to 2.56 sigma with the default quantiles; decay
    within the short lags lowers the contrast, often by a tenth; and correlation that is left at
    the longest lags raises the offset. Use them to start a fit.

    Args:
        c2_data: Correlation, shape (N, N) or (n,); the diagonal and what is not finite are
            not used.
        t1: First time of each pair in s, of the shape of ``c2_data``, or (N,) for the rows of
            a matrix.
        t2: Second time of each pair in s, likewise; (N,) for the columns.
        contrast_bounds: What the contrast is moved into, with a warning.
        offset_bounds: What the offset is moved into, with a warning.
        lag_floor_quantile: Lags from this quantile up are long.
        lag_ceiling_quantile: Lags up to this quantile are short.
        value_quantile_low: Quantile of c2 that is taken at long lags.
        value_quantile_high: Quantile of c2 that is taken at short lags.

    Returns:
        (contrast, offset).

    Raises:
        ConfigError: Bounds or quantiles that cannot be used.
        DataError: Shapes that do not fit, or no two different lags.
    """
    _check_quantiles(
        lag_ceiling_quantile=lag_ceiling_quantile,
        lag_floor_quantile=lag_floor_quantile,
        value_quantile_low=value_quantile_low,
        value_quantile_high=value_quantile_high,
    )
    for name, (low, high) in (
        ("contrast_bounds", contrast_bounds),
        ("offset_bounds", offset_bounds),
    ):
        if not low <= high:
            raise ConfigError(f"{low!r} to {high!r}", where=name, allowed="lower bound first")
    values, lags = _pairs_and_lags(c2_data, t1, t2)
    short, long = np.quantile(lags, (lag_ceiling_quantile, lag_floor_quantile))
    floor = float(np.quantile(values[lags >= long], value_quantile_low))
    ceiling = float(np.quantile(values[lags <= short], value_quantile_high))
    offset = within("offset", floor, *offset_bounds)
    return within("contrast", ceiling - offset, *contrast_bounds), offset


def _check_quantiles(**quantiles: float) -> None:
    for name, value in quantiles.items():
        if not 0.0 <= value <= 1.0:
            raise ConfigError(f"quantile {value!r}", where=name, allowed="0 to 1")
    names = list(quantiles)
    for low, high in (names[:2], names[2:]):
        if not quantiles[low] < quantiles[high]:
            raise ConfigError(
                f"{quantiles[low]:g} is not below {high} = {quantiles[high]:g}", where=low
            )


def _pairs_and_lags(
    c2_data: ArrayLike, t1: ArrayLike, t2: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Finite values off the diagonal and their lags in s, both of shape (n,)."""
    c2, first, second = (np.asarray(x, float) for x in (c2_data, t1, t2))
    if c2.ndim == 2 and first.ndim == second.ndim == 1:
        if (first.size, second.size) != c2.shape:
            raise _misfit(c2, first, second)
        first, second = np.meshgrid(first, second, indexing="ij")
    if not c2.shape == first.shape == second.shape:
        raise _misfit(c2, first, second)
    lags = np.abs(first - second)
    used = np.isfinite(c2) & (lags > 0)
    n = np.count_nonzero(used)
    if n == 0 or np.ptp(lags[used]) == 0:
        raise DataError(
            f"{n} finite pairs off the diagonal, without two different lags",
            where="c2_data",
            remedy="Give a correlation that decays with the lag",
        )
    return c2[used], lags[used]


def _misfit(c2: FloatArray, first: FloatArray, second: FloatArray) -> DataError:
    return DataError(
        f"shapes {c2.shape}, {first.shape}, {second.shape} of c2_data, t1, t2",
        where="c2_data",
        allowed="equal shapes, or (N, N) with (N,) and (N,)",
    )
