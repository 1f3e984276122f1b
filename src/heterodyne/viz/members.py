"""J, v and s of many runs, over q or from file to file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from heterodyne._typing import FloatArray
from heterodyne.viz import style
from heterodyne.viz.posterior import CURVES

_MARKERS = ("o", "s", "^", "D", "v", "P")
_HEIGHT = 2.7
_SPREAD, _WIDEST = 0.08, 0.32
_MOST_NAMES = 12
_LONGEST_NAME = 18
# A normal 95 % interval is this many standard deviations wide.
_WIDTH_OF_95 = 2 * 1.96


@dataclass(frozen=True)
class Point:
    """A quantity of one run.

    Attributes:
        x: q in 1/Å, or the number of the file, from 0.
        median: Median.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        converged: Whether the run has converged.
        informed: Whether the data, rather than the prior, set the quantity.
    """

    x: float
    median: float
    low: float
    high: float
    converged: bool = True
    informed: bool = True

    @property
    def used(self) -> bool:
        """Whether the quantity was measured."""
        return self.converged and self.informed


Series = Mapping[str, Sequence[Point]]


@style.styled
def over_members(
    curves: Mapping[str, Series],
    *,
    names: Sequence[str] | None = None,
    note: str = "",
) -> Figure:
    """Draw J, v and s of many runs with their 95 % intervals, one panel each.

    Over q, a dashed line shows the precision-weighted mean of J and v: the model has q in
    exp(-q² ∫J dt) and cos(q cos φ ∫v dt) alone, so neither depends on q where it holds.

    Args:
        curves: For each curve of ``CURVES`` the points of each series, by its label.
        names: Names of the runs, where x is a number of theirs; without them x is q.
        note: Sentence below the panels.
    """
    shown = [name for name in CURVES if any(curves.get(name, {}).values())]
    rows = math.ceil(len(shown) / 2)
    figure = style.new_figure(style.WIDTH, _HEIGHT * rows + 0.5)
    axes = figure.subplots(rows, 2, squeeze=False)
    for panel in axes.flat[len(shown) :]:
        panel.set_visible(False)
    guided = False
    for panel, name in zip(axes.flat, shown, strict=False):
        guide = names is None and name != "s"
        guided |= _panel(
            panel, curves[name], log=name.startswith("J"), guide=guide, q=names is None
        )
        panel.set_title(style.with_unit(*CURVES[name]))
        _horizontal(panel, curves[name], names)
    series = {label: points for name in shown for label, points in curves[name].items()}
    points = [p for name in shown for some in curves[name].values() for p in some]
    _legend(figure, list(series), points, guided)
    style.footnote(figure, note)
    return figure


def _panel(panel: Axes, series: Series, *, log: bool, guide: bool, q: bool) -> bool:
    """Draw the points of a panel; returns whether a mean was drawn."""
    points = [p for some in series.values() for p in some]
    used = [p for p in points if p.used] or points
    log = log and all(p.median > 0 for p in points)
    if log:
        panel.set_yscale("log", nonpositive="clip")
    shifts = _shifts([p.x for p in points], len(series), q)
    guided = False
    for k, some in enumerate(series.values()):
        colour, marker = _look(k)
        for p in some:
            _point(panel, p, shifts(p.x, k), colour, marker)
        mean = _mean([p for p in some if p.used], log) if guide else None
        if mean is not None:
            panel.axhline(mean, color=colour, ls=(0, (5, 4)), lw=0.9, alpha=0.7, zorder=1)
            guided = True
    _vertical(panel, used, [p.median for p in points], log)
    panel.grid(True)
    return guided


def _point(panel: Axes, p: Point, x: float, colour: str, marker: str) -> None:
    alpha = 1.0 if p.informed else 0.35
    face = colour if p.converged else "white"
    panel.plot([x, x], [p.low, p.high], color=colour, lw=1.3, alpha=alpha, zorder=2)
    panel.plot(
        x, p.median, marker, ms=5, mfc=face, mec=colour, mew=1.2, alpha=alpha, zorder=3, ls=""
    )


def _look(k: int) -> tuple[str, str]:
    """Colour and marker of the k-th series."""
    n = len(style.CYCLE)
    return style.CYCLE[k % n], _MARKERS[(k if k < n else k // n) % len(_MARKERS)]


class _Shifts:
    """Moves the series of one x a little apart.

    Args:
        step: Distance of neighbouring x, as a factor where ``log``.
        n: Number of series.
        log: Whether x is on a logarithmic axis.
    """

    def __init__(self, step: float, n: int, log: bool) -> None:
        self._step, self._n, self._log = step, n, log

    def __call__(self, x: float, k: int) -> float:
        half = 0.5 * max(1, self._n - 1)
        share = min(2 * _SPREAD * half, _WIDEST) * (k - 0.5 * (self._n - 1)) / half
        return x * self._step**share if self._log else x + self._step * share


def _shifts(values: Sequence[float], n: int, q: bool) -> _Shifts:
    x = np.unique(values)
    if not q:
        return _Shifts(1.0, n, False)
    factor = float(np.min(x[1:] / x[:-1])) if x.size > 1 else 1.1
    return _Shifts(min(factor, 2.0), n, True)


def _mean(points: Sequence[Point], log: bool) -> float | None:
    """Mean of the medians, weighted by the widths of their intervals; None for fewer than two."""
    ends: FloatArray = np.array([(p.low, p.median, p.high) for p in points], float).reshape(-1, 3)
    if log:
        ends = np.log(ends[ends[:, 0] > 0])
    sd = (ends[:, 2] - ends[:, 0]) / _WIDTH_OF_95
    if len(ends) < 2 or not np.all(sd > 0):
        return None
    mean = float(np.average(ends[:, 1], weights=sd**-2))
    return math.exp(mean) if log else mean


def _vertical(panel: Axes, used: Sequence[Point], medians: Sequence[float], log: bool) -> None:
    """Show the intervals that count and every median; other intervals may leave the panel."""
    ends = [*medians, *(p.low for p in used), *(p.high for p in used)]
    values = np.array([value for value in ends if math.isfinite(value) and (value > 0 or not log)])
    if log:
        low, high = np.log(values.min()), np.log(values.max())
        room = max(0.06 * (high - low), 0.02)
        panel.set_ylim(math.exp(low - room), math.exp(high + room))
        decades = (high - low) / math.log(10)
        style.plain_log(panel.yaxis, (1.0, 2.0, 5.0) if decades < 3 else (1.0,))
        if decades < 0.7:
            _even_ticks(panel)
        return
    low, high = float(values.min()), float(values.max())
    room = 0.06 * (high - low) or 0.05 * max(abs(high), 1e-6)
    panel.set_ylim(low - room, high + room)
    style.few_ticks(panel, x=None, y=5)


def _even_ticks(panel: Axes) -> None:
    """Ticks of a logarithmic axis too short to hold a 1, a 2 and a 5."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    panel.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _horizontal(panel: Axes, series: Series, names: Sequence[str] | None) -> None:
    if names is not None:
        step = math.ceil(len(names) / _MOST_NAMES)
        ticks = range(0, len(names), step)
        labels = [style.literal(_short(names[k])) for k in ticks]
        panel.set_xticks(ticks, labels, rotation=30, ha="right", rotation_mode="anchor")
        panel.set_xlim(-0.5, len(names) - 0.5)
        return
    x = np.unique([p.x for some in series.values() for p in some])
    panel.set_xscale("log")
    # Series are moved apart, the outermost ones beyond the first and the last q.
    moved = _shifts(x.tolist(), len(series), True)
    low, high = moved(float(x[0]), 0), moved(float(x[-1]), len(series) - 1)
    room = max((high / low) ** 0.06, 1.06)
    panel.set_xlim(low / room, high * room)
    _ticks_at(panel, x)
    panel.set_xlabel("q (1/Å)")


def _ticks_at(panel: Axes, x: FloatArray) -> None:
    """Ticks at the q themselves, as many of them as have room."""
    from matplotlib.ticker import NullLocator

    room = (math.log(x[-1] / x[0]) / 7) if x.size > 1 else 0.0
    kept = [float(x[0])]
    for value in x[1:]:
        if math.log(value / kept[-1]) >= room:
            kept.append(float(value))
    panel.set_xticks(kept, [f"{value:.3g}" for value in kept])
    panel.xaxis.set_minor_locator(NullLocator())


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"


def _legend(figure: Figure, labels: list[str], points: Sequence[Point], guided: bool) -> None:
    handles = []
    for k, label in enumerate(labels):
        colour, marker = _look(k)
        handles.append(Line2D([], [], color=colour, marker=marker, ms=5, lw=1.3, label=label))
    grey = {"color": style.MUTED, "marker": "o", "ms": 5}
    if not all(p.converged for p in points):
        handles.append(Line2D([], [], **grey, lw=1.3, mfc="white", label="not converged"))
    if not all(p.informed for p in points):
        handles.append(Line2D([], [], **grey, lw=1.3, alpha=0.35, label="set by the prior"))
    if guided:
        line = {"color": style.MUTED, "ls": (0, (5, 4)), "lw": 0.9}
        handles.append(Line2D([], [], **line, label="weighted mean"))
    figure.legend(handles=handles, loc="outside upper right", ncols=min(len(handles), 6))
