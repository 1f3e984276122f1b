"""Chains of every quantity, in small panels: densities and traces, ranks, memory, growth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from arviz_stats.base.array import array_stats
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from heterodyne._typing import ArrayLike, FloatArray
from heterodyne.viz import style
from heterodyne.viz.posterior import UNBOUNDED, density, still, support_of, window
from heterodyne.viz.sampler import chain_colours, draw_ranks, draw_trace

_COLUMNS = 4
_ROW = 1.35
_ONE_BLOCK = 6
_SPAN = (0.1, 99.9)
_SHORTEST_LAG, _LONGEST_LAG = 20, 100
# Half width of the central 95 % of a normal distribution.
_NORMAL_95 = 1.96


@style.styled
def trace_densities(
    draws: Mapping[str, ArrayLike],
    units: Mapping[str, str] | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """Draw the density of each quantity beside its trace, one colour per chain.

    Args:
        draws: Draws by name, shape (chains, draws).
        units: Unit of each quantity; none where it is missing.
        bounds: Range that a quantity cannot leave; none where it is missing.
    """
    blocks = 1 if len(draws) <= _ONE_BLOCK else 2
    rows = math.ceil(len(draws) / blocks)
    figure = style.new_figure(style.WIDTH, 1.25 * rows + 0.45)
    axes = figure.subplots(rows, 2 * blocks, squeeze=False, width_ratios=(1.0, 1.5) * blocks)
    pairs = axes.reshape(-1, 2)
    for panel in pairs[len(draws) :].flat:
        panel.set_visible(False)
    chains = np.zeros((0, 0))
    for (left, right), (name, values) in zip(pairs, draws.items(), strict=False):
        chains = np.asarray(values, float)
        _densities(left, chains, (bounds or {}).get(name, UNBOUNDED))
        style.short_ticks(left.xaxis, 0.36 * style.WIDTH / blocks / style.LETTER)
        left.set_title(style.with_unit(name, (units or {}).get(name, "")))
        draw_trace(right, chains)
    _label_lowest([right for _, right in pairs[: len(draws)]], blocks, "draw")
    _chain_legend(figure, len(chains))
    return figure


def _densities(panel: Axes, chains: FloatArray, bounds: tuple[float, float]) -> None:
    ends = window(chains, _SPAN, 0.15)
    support = support_of(chains, ends, bounds)
    top = 0.0
    for chain, colour in zip(chains, chain_colours(len(chains)), strict=True):
        grid, height = density(chain, ends, support)
        panel.plot(grid, height, color=colour, lw=1.0)
        top = max(top, float(height.max(initial=0.0)))
    panel.set(xlim=ends, yticks=[], ylim=(0, 1.08 * top if top > 0 else 1.0))
    panel.spines["left"].set_visible(False)
    if top == 0:
        style.message(panel, "does not vary")


@style.styled
def ranks(draws: Mapping[str, ArrayLike], labels: Mapping[str, str] | None = None) -> Figure:
    """Draw the rank histograms of the chains of each quantity.

    Chains that agree have as many draws of every rank: their histograms are flat.

    Args:
        draws: Draws by name, shape (chains, draws), of two chains at least.
        labels: Words to add to the title of a panel, such as its R-hat.
    """
    figure, panels = style.small_panels(len(draws), _ROW, _COLUMNS)
    chains = np.zeros((0, 0))
    for panel, (name, values) in zip(panels, draws.items(), strict=True):
        chains = np.asarray(values, float)
        draw_ranks(panel, chains)
        panel.set_title(style.literal(f"{name}  {(labels or {}).get(name, '')}".rstrip()))
    _share_axes(panels, "rank among all draws", "share / even")
    _chain_legend(figure, len(chains))
    return figure


@style.styled
def autocorrelations(draws: Mapping[str, ArrayLike]) -> Figure:
    """Draw the autocorrelation of the chains of each quantity.

    The grey band holds 95 % of the autocorrelations of as many independent draws.

    Args:
        draws: Draws by name, shape (chains, draws), of two draws at least.
    """
    figure, panels = style.small_panels(len(draws), _ROW, _COLUMNS)
    found = {name: _memory(np.asarray(values, float)) for name, values in draws.items()}
    chains, n_draws = np.shape(next(iter(draws.values())))
    band = _NORMAL_95 / math.sqrt(n_draws)
    last = _last_lag(list(found.values()), band)
    for panel, (name, memory) in zip(panels, found.items(), strict=True):
        panel.set_title(style.literal(name))
        panel.axhspan(-band, band, color=style.PRIOR, alpha=0.4, lw=0)
        panel.axhline(0.0, color=style.INK, lw=0.7)
        for chain, colour in zip(memory, chain_colours(chains), strict=True):
            if np.isfinite(chain).any():
                panel.plot(chain[: last + 1], color=colour, lw=1.0)
        if not np.isfinite(memory).any():
            style.message(panel, "does not vary")
        panel.set(xlim=(0, last), ylim=(min(-0.15, panel.get_ylim()[0]), 1.05))
    _share_axes(panels, "lag (draws)", "autocorrelation")
    _chain_legend(figure, chains)
    return figure


def _memory(chains: FloatArray) -> FloatArray:
    """Autocorrelation of each chain at each lag, shape (chains, draws); NaN where it is still."""
    statistics: Any = array_stats
    found = np.full(chains.shape, np.nan)
    for row, chain in zip(found, chains, strict=True):
        if not still(chain):
            row[:] = statistics.autocorr(chain, axis=-1)
    return found


def _last_lag(memories: list[FloatArray], band: float) -> int:
    """Lag at which to end the axis: well after the last chain has forgotten its start."""
    all_chains = np.concatenate(memories)
    moving = all_chains[np.isfinite(all_chains).all(axis=1)]
    small = moving < band
    forgotten = np.where(small.any(axis=1), small.argmax(axis=1), moving.shape[1])
    wanted = max(_SHORTEST_LAG, 3 * int(forgotten.max(initial=0)))
    return min(wanted, _LONGEST_LAG, all_chains.shape[1] - 1)


@style.styled
def growth(
    totals: ArrayLike,
    bulk: Mapping[str, ArrayLike],
    tail: Mapping[str, ArrayLike],
    least: float,
) -> Figure:
    """Draw effective sample sizes against the number of draws they come from.

    Chains that mix make them grow in proportion. The quantities with the fewest at the end
    are coloured and named.

    Args:
        totals: Numbers of draws of all chains, shape (k,).
        bulk: Bulk effective sample sizes by name, shape (k,); NaN where not known.
        tail: Tail effective sample sizes by name, shape (k,).
        least: Smallest effective sample size that counts as good.
    """
    x = np.asarray(totals, float)
    figure = style.new_figure(style.WIDTH, 3.6)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for panel, sizes, title in zip(panels, (bulk, tail), ("Centre", "Tails"), strict=True):
        _growing(panel, x, {name: np.asarray(y, float) for name, y in sizes.items()})
        panel.axhline(least, color=style.INK, ls="--", lw=1.0)
        panel.set_title(f"{title}: effective sample size")
        panel.set(xlabel="draws of all chains", xlim=(0, x[-1]))
        panel.grid(True)
    # Both panels share this axis, so it is fixed only once both are drawn.
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel(f"effective draws (good: at least {least:g})")
    return figure


def _growing(panel: Axes, x: FloatArray, sizes: Mapping[str, FloatArray]) -> None:
    order = sorted(sizes, key=lambda name: np.nan_to_num(sizes[name][-1], nan=np.inf))
    worst = order[: len(style.CYCLE) - 2]
    for name in order[len(worst) :]:
        panel.plot(x, sizes[name], color=style.RULE, lw=0.9, zorder=1)
    for name, colour in zip(worst, style.CYCLE, strict=False):
        known = np.isfinite(sizes[name][-1])
        label = f"{name}: {sizes[name][-1]:.0f}" if known else f"{name}: not known"
        panel.plot(x, sizes[name], ".-", ms=4, color=colour, lw=1.2, label=style.literal(label))
    panel.legend(loc="upper left", title="fewest at the end", alignment="left")


def _share_axes(panels: list[Axes], x: str, y: str) -> None:
    """Give panels of one kind the same vertical axis, labelled on the outer panels only."""
    columns = min(_COLUMNS, len(panels))
    low = min(panel.get_ylim()[0] for panel in panels)
    high = max(panel.get_ylim()[1] for panel in panels)
    for k, panel in enumerate(panels):
        panel.set_ylim(low, high)
        if k % columns:
            panel.set_ylabel("")
            panel.yaxis.set_major_formatter(NullFormatter())
        else:
            panel.set_ylabel(y)
    _label_lowest(panels, columns, x)


def _label_lowest(panels: list[Axes], columns: int, words: str) -> None:
    """Label the horizontal axes of the lowest panel of each column only."""
    for k, panel in enumerate(panels):
        if k + columns >= len(panels):
            panel.set_xlabel(words)
        else:
            panel.tick_params(labelbottom=False)


def _chain_legend(figure: Figure, chains: int) -> None:
    """Name the chains above the panels, as far as colours tell them apart."""
    if 1 < chains <= len(style.CYCLE):
        handles = [Line2D([], [], color=colour, lw=2) for colour in chain_colours(chains)]
        words = [f"chain {k}" for k in range(1, chains + 1)]
        figure.legend(handles, words, loc="outside upper right", ncols=chains)
