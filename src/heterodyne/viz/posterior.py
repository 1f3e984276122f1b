"""Posteriors: densities against priors, intervals of quantities, bands of curves."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.ndimage import gaussian_filter1d

from heterodyne._typing import ArrayLike, FloatArray
from heterodyne.viz import style

CURVES: Mapping[str, tuple[str, str]] = {
    "J_ref": ("Transport coefficient J, reference", "Å²/s"),
    "J_sample": ("Transport coefficient J, sample", "Å²/s"),
    "v": ("Velocity v", "Å/s"),
    "s": ("Sample fraction s", ""),
}
"""Title and unit of each curve over the window."""

_CENTRAL = (2.5, 97.5)
_PRIOR = (0.5, 99.5)
_ZOOM = 4.0
_CELLS = 480
_POINTS = 120
# Draws next to the outermost one, as a share and in all, that are a pile at a bound.
_PILED, _PILE = 0.02, 20
UNBOUNDED = (-math.inf, math.inf)
_COLUMNS = 4
_LONG = 4
# Relative spread that is rounding error.
_STILL = 1e-12


@style.styled
def marginals(
    plain: Mapping[str, ArrayLike],
    *,
    prior: Mapping[str, ArrayLike] | None = None,
    corrected: Mapping[str, ArrayLike] | None = None,
    units: Mapping[str, str] | None = None,
    truth: Mapping[str, float] | None = None,
) -> Figure:
    """Draw the density of each quantity, with its prior behind.

    A panel shows the whole prior unless that is far wider than the posterior; then it
    shows the surroundings of the posterior, where such a prior is a low floor.

    Args:
        plain: Draws by name, any shape; one panel each.
        prior: Draws of the priors, by name.
        corrected: Draws corrected for shared speckle noise, by name.
        units: Unit of each quantity; none where it is missing.
        truth: Known values, marked by a line.
    """
    columns = min(4, len(plain))
    rows = math.ceil(len(plain) / columns)
    figure = style.new_figure(style.WIDTH, 1.75 * rows + 0.35)
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat[len(plain) :]:
        panel.set_visible(False)
    for panel, (name, draws) in zip(axes.flat, plain.items(), strict=False):
        layers = {
            key: _finite(source[name])
            for key, source in (
                ("prior", prior),
                ("corrected", corrected),
                ("plain", {name: draws}),
            )
            if source is not None and name in source
        }
        _marginal(panel, layers)
        panel.set_title(style.with_unit(name, (units or {}).get(name, "")))
        if truth is not None and name in truth:
            panel.axvline(truth[name], color=style.TRUTH, ls="--", lw=1.0)
    _legend(figure, prior is not None, corrected is not None, truth is not None)
    return figure


def _marginal(panel: Axes, layers: Mapping[str, FloatArray]) -> None:
    window = _window(layers)
    panel.set(xlim=window, yticks=[])
    panel.spines["left"].set_visible(False)
    top = 0.0
    for key, draws in layers.items():
        grid, height = density(draws, window)
        if key == "prior":
            panel.fill_between(grid, height, color=style.PRIOR, alpha=0.4, lw=0)
        else:
            colour = style.PLAIN if key == "plain" else style.CORRECTED
            panel.plot(grid, height, color=colour, lw=1.1 if key == "plain" else 2.2)
            panel.fill_between(grid, height, color=colour, alpha=0.12, lw=0)
        top = max(top, float(height.max(initial=0.0)))
    panel.set_ylim(0, 1.08 * top if top > 0 else 1.0)
    style.few_ticks(panel, x=3, y=None)


def _window(layers: Mapping[str, FloatArray]) -> tuple[float, float]:
    ends = {
        key: np.percentile(d, _PRIOR if key == "prior" else _CENTRAL)
        for key, d in layers.items()
        if d.size
    }
    posterior = np.array([e for key, e in ends.items() if key != "prior"])
    if posterior.size == 0:
        return 0.0, 1.0
    low, high = float(posterior[:, 0].min()), float(posterior[:, 1].max())
    width = high - low or max(abs(low), 1.0) * 1e-3
    if "prior" in ends and np.ptp(ends["prior"]) < _ZOOM * width:
        low, high = min(low, float(ends["prior"][0])), max(high, float(ends["prior"][1]))
        width = high - low
        return low - 0.03 * width, high + 0.03 * width
    return low - 0.6 * width, high + 0.6 * width


def density(
    draws: FloatArray, window: tuple[float, float], support: tuple[float, float] | None = None
) -> tuple[FloatArray, FloatArray]:
    """Estimate a density by a smoothed histogram.

    Bounded parameters often pile up at a bound; there the draws are reflected, which
    keeps the density from falling off.

    Args:
        draws: Draws, shape (n,).
        window: Range in which the density is wanted.
        support: Range beyond which it vanishes; read off the draws if None.

    Returns:
        Values in and around the window and their densities, with zeros beyond the draws.
    """
    bandwidth = _bandwidth(draws, window)
    low, high = support_of(draws, window) if support is None else support
    # Counts beyond the window smooth those within.
    beyond = 4 * bandwidth
    a, b = max(low, window[0] - beyond), min(high, window[1] + beyond)
    if not (b > a and bandwidth > _STILL * max(abs(a), abs(b))):
        return np.array(window), np.zeros(2)
    counts, edges = np.histogram(draws, _CELLS, range=(a, b))
    cell = (b - a) / _CELLS
    smooth = gaussian_filter1d(counts / (draws.size * cell), bandwidth / cell, mode="reflect")
    grid = 0.5 * (edges[1:] + edges[:-1])
    grid, smooth = grid[:: _CELLS // _POINTS], smooth[:: _CELLS // _POINTS]
    return np.concatenate([[a], grid, [b]]), np.concatenate([[0.0], smooth, [0.0]])


def window(draws: FloatArray, span: tuple[float, float], margin: float) -> tuple[float, float]:
    """Return ends of an axis that shows most draws.

    Args:
        draws: Draws, any shape.
        span: Percentiles of the outermost draws to show.
        margin: Room beyond them, as a share of their distance.
    """
    low, high = (float(end) for end in np.percentile(draws, span))
    room = 1e-3 * max(abs(low), 1.0) if still(draws) else margin * (high - low)
    return low - room, high + room


def still(draws: FloatArray) -> bool:
    """Whether draws differ by rounding errors at most."""
    return bool(np.ptp(draws) <= _STILL * np.abs(draws).max())


def support_of(
    draws: FloatArray,
    window: tuple[float, float],
    bounds: tuple[float, float] = UNBOUNDED,
) -> tuple[float, float]:
    """Return where a density ends: where draws pile up, elsewhere beyond them.

    Args:
        draws: Draws, any shape; of several chains, so that all end at the same place.
        window: Range in which the density is wanted.
        bounds: Range that the density cannot leave; draws lie within.
    """
    bandwidth = _bandwidth(draws, window)
    low, high = float(draws.min()), float(draws.max())
    pile = max(_PILED * draws.size, _PILE)
    at_low = np.count_nonzero(draws < low + bandwidth) > pile
    at_high = np.count_nonzero(draws > high - bandwidth) > pile
    return (
        max(bounds[0], low - (0 if at_low else 3) * bandwidth),
        min(bounds[1], high + (0 if at_high else 3) * bandwidth),
    )


def _bandwidth(draws: FloatArray, window: tuple[float, float]) -> float:
    inside = draws[(draws >= window[0]) & (draws <= window[1])]
    spread = float(np.std(inside)) if inside.size > 1 else 0.0
    return 0.9 * spread * max(inside.size, 1) ** -0.2


@style.styled
def forest(
    rows: Sequence[Mapping[str, Any]],
    truth: Mapping[str, float] | None = None,
    words: str = "plain",
) -> Figure:
    """Draw medians and intervals, one panel for quantities of one kind.

    ``J_ref(2 s)`` and ``J_ref(5 s)`` share a panel, as do ``contrast_0`` and
    ``contrast_1``. Kinds of many quantities come last.

    Args:
        rows: Mappings with ``name``, ``unit``, ``median``, ``low``, ``high`` and
            ``corrected``, which is None or has ``low`` and ``high``.
        truth: Known values, marked by a cross.
        words: What the intervals are, for the legend.
    """
    panels: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        panels.setdefault((_split(row["name"])[0], row["unit"]), []).append(row)
    columns = min(_COLUMNS, len(panels))
    lines = _lines(list(panels.items()))
    heights = [0.85 + 0.27 * max(len(members) for _, members in line) for line in lines]
    figure = style.new_figure(style.WIDTH * min(1.0, 0.3 * columns + 0.1), sum(heights) + 0.3)
    axes = figure.subplots(len(lines), columns, squeeze=False, height_ratios=heights)
    for line, beside in zip(lines, axes, strict=True):
        for panel, ((base, unit), members) in zip(beside, line, strict=False):
            _intervals(panel, members, truth or {})
            panel.set_title(style.with_unit(base, unit))
        for panel in beside[len(line) :]:
            panel.set_visible(False)
    corrected = any(row.get("corrected") for row in rows)
    _legend(figure, False, corrected, bool(truth), lines=True, words=words)
    return figure


_Kind = tuple[tuple[str, str], list[Mapping[str, Any]]]


def _lines(kinds: Sequence[_Kind]) -> list[list[_Kind]]:
    """Kinds to stand beside each other; long lists come last, so that short ones stay low."""
    short = [kind for kind in kinds if len(kind[1]) <= _LONG]
    long = [kind for kind in kinds if len(kind[1]) > _LONG]
    return [
        group[start : start + _COLUMNS]
        for group in (short, long)
        for start in range(0, len(group), _COLUMNS)
    ]


def _intervals(panel: Axes, rows: Sequence[Mapping[str, Any]], truth: Mapping[str, float]) -> None:
    for y, row in enumerate(rows):
        outer = row.get("corrected")
        if outer:
            panel.plot(
                [outer["low"], outer["high"]], [y, y], color=style.CORRECTED, lw=1.8, zorder=2
            )
        panel.plot(
            [row["low"], row["high"]], [y, y], color=style.PLAIN, lw=5, zorder=3,
            solid_capstyle="butt",
        )  # fmt: skip
        panel.plot(row["median"], y, "|", ms=10, mew=1.3, color=style.INK, zorder=4)
        if row["name"] in truth:
            panel.plot(truth[row["name"]], y, "x", ms=6, mew=1.5, color=style.TRUTH, zorder=5)
    panel.set_yticks(range(len(rows)), [style.literal(_split(r["name"])[1]) for r in rows])
    panel.set_ylim(len(rows) - 0.45, -0.55)
    panel.margins(x=0.12)
    panel.grid(True, axis="x")
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    style.few_ticks(panel, x=3, y=None)


def _split(name: str) -> tuple[str, str]:
    """Base name and member: ``J_ref(2 s)`` is the member ``2 s`` of ``J_ref``."""
    found = re.fullmatch(r"(.+?)(?:\((.*)\)|_(\d+))", name)
    return (found[1], found[2] or found[3]) if found else (name, "")


@style.styled
def bands(
    t: ArrayLike,
    curves: Mapping[str, ArrayLike],
    truth: Mapping[str, ArrayLike] | None = None,
) -> Figure:
    """Draw medians and 95 % bands of J, v and s over the window.

    Args:
        t: Times in s, shape (T,).
        curves: ``<curve>_plain`` and, where known, ``<curve>_corrected``: 2.5 %, median
            and 97.5 %, shape (3, T); curves as in ``CURVES``.
        truth: Known curves by name, shape (T,).
    """
    times = np.asarray(t, float)
    names = [name for name in CURVES if f"{name}_plain" in curves]
    figure = style.new_figure(style.WIDTH, 2.35 * math.ceil(len(names) / 2) + 0.35)
    axes = figure.subplots(math.ceil(len(names) / 2), 2, squeeze=False)
    for panel in axes.flat[len(names) :]:
        panel.set_visible(False)
    for panel, name in zip(axes.flat, names, strict=False):
        inner = np.asarray(curves[f"{name}_plain"], float)
        outer = curves.get(f"{name}_corrected")
        _band(panel, times, inner, None if outer is None else np.asarray(outer, float))
        if truth is not None and name in truth:
            panel.plot(times, np.asarray(truth[name]), "--", color=style.TRUTH, lw=1.0)
        panel.set_title(style.with_unit(*CURVES[name]))
        panel.set_xlabel("t (s)")
    corrected = any(f"{name}_corrected" in curves for name in names)
    words = "plain median and 95 %" if corrected else "median and 95 %"
    _legend(figure, False, corrected, truth is not None, words=words)
    return figure


def _band(panel: Axes, t: FloatArray, inner: FloatArray, outer: FloatArray | None) -> None:
    everything = inner if outer is None else np.stack([inner, outer])
    if outer is not None:
        panel.fill_between(t, outer[0], outer[2], color=style.CORRECTED, alpha=0.28, lw=0)
    panel.fill_between(t, inner[0], inner[2], color=style.PLAIN, alpha=0.55, lw=0)
    panel.plot(t, inner[1], color=style.INK, lw=1.1)
    finite = everything[np.isfinite(everything)]
    if finite.size and finite.min() > 0 and finite.max() > 30 * finite.min():
        panel.set_yscale("log")
        style.plain_log(panel.yaxis, (1.0, 3.0))
    else:
        style.few_ticks(panel, x=None)
    panel.set_xlim(t[0], t[-1])
    panel.grid(True)


def _legend(
    figure: Figure,
    prior: bool,
    corrected: bool,
    truth: bool,
    *,
    lines: bool = False,
    words: str = "plain",
) -> None:
    """One legend for the whole figure, above its panels."""

    def swatch(colour: str, width: float) -> Line2D | Patch:
        return Line2D([], [], color=colour, lw=width) if lines else Patch(color=colour, alpha=0.6)

    handles: list[tuple[Line2D | Patch, str]] = []
    if prior:
        handles.append((Patch(color=style.PRIOR, alpha=0.4), "prior"))
    handles.append((swatch(style.PLAIN, 5), words))
    if corrected:
        handles.append((swatch(style.CORRECTED, 1.8), "corrected for shared speckle noise"))
    if truth:
        marker = Line2D([], [], color=style.TRUTH, ls="", marker="x") if lines else None
        handles.append((marker or Line2D([], [], color=style.TRUTH, ls="--", lw=1.0), "truth"))
    figure.legend(
        [h for h, _ in handles], [text for _, text in handles], loc="outside upper right",
        ncols=len(handles),
    )  # fmt: skip


def _finite(draws: ArrayLike) -> FloatArray:
    values = np.asarray(draws, float).ravel()
    return values[np.isfinite(values)]
