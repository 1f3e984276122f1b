"""A fit beside the data: maps, cuts and residuals."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from heterodyne._typing import ArrayLike, FloatArray, IntArray
from heterodyne.viz import style
from heterodyne.viz.maps import angle_text, draw_map, robust_limits, symmetric_limit

_AGES = ((0.1, "early"), (0.4, "middle"), (0.7, "late"))
_BAND = 0.04
_POINTS = 120


@style.styled
def fit_maps(
    measured: ArrayLike,
    model: ArrayLike,
    residual: ArrayLike,
    t: ArrayLike,
    phi: ArrayLike,
    *,
    limits: tuple[float, float] | None = None,
    residual_limit: float | None = None,
) -> Figure:
    """Draw measured, model and residual maps, one row per angle.

    Args:
        measured: Measured c2, shape (n, M, M).
        model: Model, shape (n, M, M).
        residual: Measured minus model, shape (n, M, M); NaN where nothing was fitted.
        t: Times in s, shape (M,).
        phi: Detector angles in degrees, shape (n,).
        limits: Ends of the scale of c2; from the measured values if not given.
        residual_limit: End of the residual scale; from the residuals if not given.
    """
    data, fit, rest = (np.asarray(x, float) for x in (measured, model, residual))
    times, angles = np.asarray(t, float), np.asarray(phi, float)
    limits = robust_limits(data) if limits is None else limits
    end = symmetric_limit(rest) if residual_limit is None else residual_limit
    figure = style.new_figure(style.WIDTH, 2.75 * angles.size + 0.1)
    axes = figure.subplots(angles.size, 3, squeeze=False, sharex=True, sharey=True)
    for row, angle, *maps in zip(axes, angles, data, fit, rest, strict=True):
        image = draw_map(row[0], maps[0], times, limits)
        draw_map(row[1], maps[1], times, limits)
        row[0].set_title(f"{angle_text(angle)}: measured")
        row[1].set_title("Model")
        figure.colorbar(image, ax=list(row[:2]), label="c2", extend="both", pad=0.015)
        shown = draw_map(row[2], maps[2], times, (-end, end), style.DIVERGING)
        row[2].set_title("Measured − model")
        figure.colorbar(shown, ax=row[2], label="residual", extend="both", pad=0.02)
        row[0].set_ylabel("t2 (s)")
    for panel in axes[-1]:
        panel.set_xlabel("t1 (s)")
    return figure


@style.styled
def fit_cuts(
    measured: ArrayLike,
    model: ArrayLike,
    residual: ArrayLike,
    t: ArrayLike,
    lags: ArrayLike,
    lag_measured: ArrayLike,
    lag_model: ArrayLike,
    phi: float,
) -> Figure:
    """Draw the cuts of one angle: over lag, at three ages, and the residuals' histogram.

    Args:
        measured: Measured c2, shape (M, M).
        model: Model, shape (M, M).
        residual: Measured minus model, shape (M, M).
        t: Times in s, shape (M,).
        lags: Lags in s, shape (L,).
        lag_measured: Mean of the measured pairs at each lag, shape (L,).
        lag_model: Mean of the model at each lag, shape (L,).
        phi: Detector angle in degrees.
    """
    figure = style.new_figure(style.WIDTH, 2.7)
    over_lag, at_ages, histogram = figure.subplots(1, 3, width_ratios=(1.1, 1.1, 0.8))
    _lag_cut(over_lag, *(np.asarray(x, float) for x in (lags, lag_measured, lag_model)))
    over_lag.set_title(f"{angle_text(phi)}: mean over all pairs")
    _age_cuts(at_ages, *(np.asarray(x, float) for x in (measured, model, t)))
    _residual_histogram(histogram, np.asarray(residual, float))
    return figure


def _lag_cut(panel: Axes, lags: FloatArray, measured: FloatArray, model: FloatArray) -> None:
    keep = np.flatnonzero(lags > 0)
    few = keep[_spread(keep.size)]
    panel.plot(
        lags[few], measured[few], ".", ms=3.5, color=style.MEASURED, alpha=0.7, label="measured"
    )
    panel.plot(lags[keep], model[keep], color=style.MODEL, label="model")
    panel.set_xscale("log")
    style.plain_log(panel.xaxis)
    panel.set(xlabel="lag t2 − t1 (s)", ylabel="c2")
    panel.grid(True, which="major")
    panel.legend(loc="best")


def _age_cuts(panel: Axes, measured: FloatArray, model: FloatArray, t: FloatArray) -> None:
    for (position, word), colour in zip(_AGES, style.CYCLE, strict=False):
        start = round(position * (t.size - 1))
        lags, points = age_cut(measured, t, start)
        _, line = age_cut(model, t, start)
        label = f"{word}, t1 = {t[start]:.3g} s"
        few = _spread(lags.size)
        panel.plot(lags[few], points[few], ".", ms=3, color=colour, alpha=0.45)
        panel.plot(lags, line, color=colour, label=label)
    panel.set_title("Cuts at fixed t1")
    panel.set(xlabel="lag t2 − t1 (s)", ylabel="c2")
    panel.grid(True)
    panel.legend(loc="best")


@style.styled
def draw_predicted(
    panel: Axes,
    x: ArrayLike,
    measured: ArrayLike,
    ends: tuple[ArrayLike, ArrayLike] | None,
    *,
    by_lag: bool = False,
    title: str = "",
) -> None:
    """Draw measured values over the central 90 % of predicted ones.

    Args:
        panel: Where to draw.
        x: Times or lags in s, shape (n,).
        measured: Measured values, shape (n,).
        ends: 5 % and 95 % of the predictions, shape (n,) each; None where there are none.
        by_lag: Whether x are lags.
        title: What the values belong to.
    """
    places, points = np.asarray(x, float), np.asarray(measured, float)
    if ends is not None:
        low, high = (np.asarray(end, float) for end in ends)
        panel.fill_between(
            places, low, high, color=style.MODEL, alpha=0.35, lw=0, label="predicted, 5 to 95 %"
        )
    few = _spread(places.size) if by_lag else np.arange(places.size)
    panel.plot(
        places[few], points[few], ".", ms=3.5, color=style.MEASURED, alpha=0.7, label="measured"
    )
    panel.set(xlabel="lag t2 − t1 (s)" if by_lag else "t (s)", ylabel="c2")
    if by_lag:
        panel.set_xscale("log")
        style.plain_log(panel.xaxis)
        title = f"{title}: mean over all pairs" if title else "Mean over all pairs"
    panel.set_title(style.literal(title), loc="left")
    panel.grid(True, which="major")
    without = None if ends is not None else "no predictions were kept"
    panel.legend(loc="best", title=without)


def _spread(size: int) -> IntArray:
    """Indices of at most ``_POINTS`` points, close at short lags and wide at long ones."""
    if size <= _POINTS:
        return np.arange(size)
    return np.unique(np.geomspace(1, size, _POINTS).round().astype(np.int64)) - 1


def age_cut(matrix: FloatArray, t: FloatArray, start: int) -> tuple[FloatArray, FloatArray]:
    """Average a matrix at equal lag over a narrow band of t1.

    Args:
        matrix: Values, shape (M, M).
        t: Equally spaced times in s, shape (M,).
        start: First index of t1 in the band.

    Returns:
        Lags in s above 0 and the means, both of the length that the whole band reaches.
    """
    width = max(1, round(_BAND * t.size))
    rows = np.arange(start, min(start + width, t.size - 1))
    reach = np.arange(1, t.size - rows[-1])
    values = matrix[rows[:, None], rows[:, None] + reach]
    used = np.isfinite(values)
    number = used.sum(axis=0)
    means = np.where(used, values, 0.0).sum(axis=0) / np.maximum(number, 1)
    return t[reach] - t[0], np.where(number > 0, means, np.nan)


def _residual_histogram(panel: Axes, residual: FloatArray) -> None:
    """Residuals against a normal curve of the same width; pairs count once."""
    upper = residual[np.triu_indices_from(residual, 1)]
    values = upper[np.isfinite(upper)]
    panel.set_title("Residuals in the map")
    panel.set(xlabel="measured − model", yticks=[])
    panel.spines["left"].set_visible(False)
    if values.size < 2 or np.ptp(values) == 0:
        return
    width = float(values.std())
    edges = np.linspace(-4.5 * width, 4.5 * width, 46)
    panel.hist(
        values, edges.tolist(), density=True, color=style.PRIOR, alpha=0.55, label="residuals"
    )
    curve = np.exp(-0.5 * (edges / width) ** 2) / (width * np.sqrt(2 * np.pi))
    panel.plot(edges, curve, color=style.INK, lw=1.1, label="normal")
    panel.set_ylim(0, 1.45 * float(curve.max()))
    style.few_ticks(panel, x=3, y=None)
    panel.legend(loc="upper center", ncols=2)
