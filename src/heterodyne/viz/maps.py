"""Maps of two-time correlations, one per detector angle."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from heterodyne._typing import ArrayLike, FloatArray
from heterodyne.viz import style
from heterodyne.viz.thin import block_means

MOST_ANGLES = 24
"""Number of maps that stay readable on one page."""

_COLUMNS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 3, 6: 3, 7: 4, 8: 4}
_PERCENTILES = (1.0, 99.5)


@style.styled
def two_time_maps(
    c2: ArrayLike,
    t: ArrayLike,
    phi: ArrayLike,
    q: float | None = None,
    title: str | None = None,
) -> Figure:
    """Draw one map per angle on a shared colour scale.

    Args:
        c2: Matrices, shape (n, N, N).
        t: Frame times in s, shape (N,).
        phi: Detector angles in degrees, shape (n,); NaN where there is none.
        q: Wavevector in 1/Å, for the title.
        title: First words of the title.

    Returns:
        A figure with at most ``MOST_ANGLES`` maps; the title says so where more were given.
    """
    angles = np.asarray(phi, float)
    shown = min(angles.size, MOST_ANGLES)
    maps, times = block_means(np.asarray(c2)[:shown], t)
    columns = _COLUMNS.get(shown, 4 if shown <= 12 else 6)
    rows = math.ceil(shown / columns)
    width = style.WIDTH if columns > 2 else 4.2 * columns
    figure = style.new_figure(
        width, rows * (0.88 * width / columns + 0.3) + 0.5, _heading(title, q, shown, angles.size)
    )
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    limits = robust_limits(maps)
    image = None
    for k, panel in enumerate(axes.flat):
        if k >= shown:
            panel.set_visible(False)
            continue
        image = draw_map(panel, maps[k], times, limits)
        panel.set_title(angle_text(angles[k]))
        _label_outside(panel, below=k + columns >= shown, left=k % columns == 0)
    if image is not None:
        figure.colorbar(
            image, ax=list(axes.flat), label="c2", extend="both", aspect=18 * rows, pad=0.01
        )
    return figure


def draw_map(
    panel: Axes,
    matrix: FloatArray,
    t: FloatArray,
    limits: tuple[float, float],
    cmap: str = style.MAP,
) -> AxesImage:
    """Draw one matrix with its time axes.

    Args:
        panel: Where to draw.
        matrix: Values, shape (M, M); values that are not finite stay grey.
        t: Times in s, shape (M,).
        limits: Ends of the colour scale.
        cmap: Name of the colour map.
    """
    half = 0.5 * float(np.median(np.diff(t)))
    low, high = float(t[0]) - half, float(t[-1]) + half
    panel.set_facecolor(style.RULE)
    panel.spines[:].set_visible(True)
    image = panel.imshow(
        np.ma.masked_invalid(matrix),
        origin="lower",
        extent=(low, high, low, high),
        cmap=cmap,
        vmin=limits[0],
        vmax=limits[1],
        interpolation="nearest",
    )
    style.few_ticks(panel, x=5, y=5)
    return image


def robust_limits(maps: FloatArray) -> tuple[float, float]:
    """Percentiles of the finite values off the diagonal, as ends of a colour scale.

    Args:
        maps: Matrices, shape (..., M, M).
    """
    off = maps[..., ~np.eye(maps.shape[-1], dtype=bool)]
    values = off[np.isfinite(off)]
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(x) for x in np.percentile(values, _PERCENTILES))
    if high > low:
        return low, high
    margin = 1e-3 * max(abs(low), 1.0)
    return low - margin, high + margin


def symmetric_limit(maps: FloatArray) -> float:
    """Largest magnitude of a residual scale around 0: a robust one, above 0."""
    values = np.abs(maps[np.isfinite(maps)])
    return max(float(np.percentile(values, 99.0)), 1e-12) if values.size else 1.0


def angle_text(phi: float) -> str:
    """Name of a detector angle in degrees."""
    if not np.isfinite(phi):
        return "no angle"
    number = f"{phi:.1f}".removesuffix(".0").replace("-", "−")
    return f"φ = {number}°"


def _heading(title: str | None, q: float | None, shown: int, n: int) -> str | None:
    parts = [] if title is None else [title]
    if q is not None:
        parts.append(f"q = {q:.4g} 1/Å")
    if shown < n:
        parts.append(f"first {shown} of {n} angles")
    return ", ".join(parts) or None


def _label_outside(panel: Axes, *, below: bool, left: bool) -> None:
    """Axis labels on the outer panels only; a panel above a gap counts as an outer one."""
    if below:
        panel.set_xlabel("t1 (s)")
        panel.xaxis.set_tick_params(labelbottom=True)
    if left:
        panel.set_ylabel("t2 (s)")
