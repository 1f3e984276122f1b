"""Pairs of quantities: their draws against each other, and how they are correlated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath

from heterodyne._typing import ArrayLike, BoolArray, FloatArray
from heterodyne.viz import style
from heterodyne.viz.posterior import UNBOUNDED, density, still, support_of, window

MOST_QUANTITIES = 24
"""Number of quantities whose pairs stay readable on one page."""

_FEW = 6
_SMALL_CELL = 0.68
_POINTS = 600
_SPAN = (0.25, 99.75)


@style.styled
def pairs(
    draws: Mapping[str, ArrayLike],
    *,
    units: Mapping[str, str] | None = None,
    divergent: ArrayLike | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """Draw every pair of quantities: draws below the diagonal, correlations above.

    Panels show the central 99.5 % of the draws. Of many quantities, panels have no ticks.

    Args:
        draws: Draws by name, any shape.
        units: Unit of each quantity; none where it is missing.
        divergent: Whether a draw diverged, of the same shape; divergent ones are marked.
        bounds: Range that a quantity cannot leave; none where it is missing.
    """
    names = list(draws)
    values = np.stack([np.asarray(draws[name], float).ravel() for name in names])
    marked = np.zeros(values.shape[1], bool)
    if divergent is not None:
        marked = np.asarray(divergent, bool).ravel()
    labels = [style.with_unit(name, (units or {}).get(name, "")) for name in names]
    few = len(names) <= _FEW
    figure, grid, cell = _grid(labels, few)
    windows = [window(x, _SPAN, 0.04) for x in values]
    for row in range(len(names)):
        for column in range(row + 1):
            panel = figure.add_subplot(grid[row, column])
            panel.set_xlim(windows[column])
            if row == column:
                ends = (bounds or {}).get(names[row], UNBOUNDED)
                _diagonal(panel, values[row], windows[row], ends)
            else:
                _cloud(panel, values[column], values[row], marked, 3.2 if few else 1.6)
                panel.set_ylim(windows[row])
            _label(panel, labels, (row, column), cell if few else None)
    _correlations(figure, grid, values, few)
    count = int(marked.sum())
    if count:
        handle = Line2D([], [], color=style.CORRECTED, marker="o", ls="", ms=3)
        words = f"{count} divergent draw{'s' if count > 1 else ''}"
        figure.legend([handle], [words], loc="upper right")
    return figure


def _grid(labels: Sequence[str], few: bool) -> tuple[Figure, GridSpec, float]:
    """Figure, cells and their width in inches.

    Margins are fixed, because arranging hundreds of panels is slow.
    """
    n = len(labels)
    margin = 0.85 if few else max(map(_inches, labels)) + 0.2
    cell = (style.WIDTH - margin - 0.1) / max(n, 3) if few else _SMALL_CELL
    below = margin + 0.3
    width, height = margin + n * cell + 0.1, below + n * cell + 0.3
    figure = style.new_figure(width, height)
    figure.set_layout_engine("none")
    gap = 0.12 if few else 0.06
    grid = GridSpec(
        n, n, figure, left=margin / width, right=1 - 0.1 / width, bottom=below / height,
        top=1 - 0.3 / height, wspace=gap, hspace=gap,
    )  # fmt: skip
    return figure, grid, cell


def _inches(label: str) -> float:
    """Width of a label."""
    path = TextPath((0, 0), label, size=mpl.rcParams["axes.labelsize"])
    return float(path.get_extents().width) / 72.0


def _diagonal(
    panel: Axes, x: FloatArray, ends: tuple[float, float], bounds: tuple[float, float]
) -> None:
    grid, height = density(x, ends, support_of(x, ends, bounds))
    panel.plot(grid, height, color=style.PLAIN, lw=1.0)
    panel.fill_between(grid, height, color=style.PLAIN, alpha=0.12, lw=0)
    panel.set(yticks=[], ylim=(0, 1.1 * float(height.max()) or 1.0))
    panel.spines["left"].set_visible(False)


def _cloud(panel: Axes, x: FloatArray, y: FloatArray, marked: BoolArray, size: float) -> None:
    shown = np.flatnonzero(~marked)
    shown = shown[:: max(1, shown.size // _POINTS)]
    panel.plot(x[shown], y[shown], ".", ms=size, mew=0, alpha=0.5, color=style.PLAIN)
    bad = np.flatnonzero(marked)
    bad = bad[:: max(1, bad.size // _POINTS)]
    if bad.size:
        panel.plot(x[bad], y[bad], "o", ms=1.2 + 0.8 * size, mew=0, color=style.CORRECTED)


def _label(panel: Axes, labels: Sequence[str], at: tuple[int, int], cell: float | None) -> None:
    """Names and ticks on the outer panels only; no ticks in cells without a width in inches."""
    row, column = at
    if cell is None:
        panel.set(xticks=[], yticks=[])
    else:
        style.short_ticks(panel.xaxis, cell / style.LETTER)
        if row != column:
            style.few_ticks(panel, x=None, y=3)
    if row == len(labels) - 1:
        panel.set_xlabel(labels[column], rotation=90 if cell is None else 0)
    else:
        panel.tick_params(labelbottom=False)
    if column > 0:
        panel.tick_params(labelleft=False)
    elif cell is None:
        panel.set_ylabel(labels[row], rotation=0, ha="right", va="center")
    elif row > 0:
        panel.set_ylabel(labels[row])


def _correlations(figure: Figure, grid: GridSpec, values: FloatArray, few: bool) -> None:
    """Pearson's correlation of each pair, in the cells above the diagonal."""
    moves = np.array([not still(x) for x in values])
    found = np.full((len(values), len(values)), np.nan)
    found[np.ix_(moves, moves)] = np.corrcoef(values[moves]) if moves.sum() > 1 else 1.0
    colours = mpl.colormaps[style.DIVERGING]
    for row, column in combinations(range(len(values)), 2):
        value = float(found[row, column])
        cell = grid[row, column].get_position(figure)
        words = "–"
        if np.isfinite(value):
            fill = (*colours(0.5 + 0.5 * value)[:3], 0.75)
            figure.add_artist(Rectangle(cell.min, cell.width, cell.height, color=fill, lw=0))
            words = f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")
        figure.text(
            0.5 * (cell.x0 + cell.x1), 0.5 * (cell.y0 + cell.y1), words, ha="center", va="center",
            fontsize=9 if few else 7.5, color="white" if abs(value) > 0.75 else style.INK,
        )  # fmt: skip
