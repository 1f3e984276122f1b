"""How well the sampler explored: traces, ranks, energies, R-hat and sample sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import rankdata

from heterodyne._typing import ArrayLike, FloatArray
from heterodyne.viz import style

_POINTS = 600
_BINS = 20
_MOST_BARS = 20


@style.styled
def traces(draws: Mapping[str, ArrayLike], labels: Mapping[str, str] | None = None) -> Figure:
    """Draw traces and rank histograms, one row per quantity, one colour per chain.

    Chains that agree overlap in the trace and have flat rank histograms.

    Args:
        draws: Draws by name, shape (chains, draws).
        labels: Words to add to the title of a row, such as its R-hat.
    """
    figure = style.new_figure(style.WIDTH, 1.6 * len(draws) + 0.2)
    axes = figure.subplots(len(draws), 2, squeeze=False, width_ratios=(1.6, 1))
    for (trace, ranks), (name, values) in zip(axes, draws.items(), strict=True):
        chains = np.asarray(values, float)
        draw_trace(trace, chains)
        draw_ranks(ranks, chains)
        extra = (labels or {}).get(name, "")
        trace.set_title(style.literal(f"{name}  {extra}".rstrip()))
        ranks.set_title("Ranks")
    axes[-1, 0].set_xlabel("draw")
    axes[-1, 1].set_xlabel("rank among all draws")
    return figure


def draw_trace(panel: Axes, chains: FloatArray) -> None:
    """Draw one quantity along the chains, shape (chains, draws), one colour per chain."""
    step = max(1, chains.shape[1] // _POINTS)
    x = np.arange(0, chains.shape[1], step)
    for chain, colour in zip(chains, chain_colours(len(chains)), strict=True):
        panel.plot(x, chain[::step], color=colour, lw=0.6, alpha=0.75)
    panel.set_xlim(0, chains.shape[1])
    style.few_ticks(panel, x=5, y=3)


def draw_ranks(panel: Axes, chains: FloatArray) -> None:
    """Draw the rank histogram of each chain, shape (chains, draws), relative to an even one."""
    ranks = rankdata(chains.ravel(), nan_policy="omit").reshape(chains.shape)
    edges = np.linspace(0.5, chains.size + 0.5, _BINS + 1)
    expected = chains.shape[1] / _BINS
    top = 2.0
    for chain, colour in zip(ranks, chain_colours(len(chains)), strict=True):
        share = np.histogram(chain, edges)[0] / expected
        panel.stairs(share, edges, baseline=None, color=colour, lw=1.1, alpha=0.85)
        top = max(top, 1.1 * float(share.max()))
    panel.axhline(1.0, color=style.INK, lw=0.8, ls="--")
    panel.set(xlim=(edges[0], edges[-1]), ylim=(0, top), yticks=[0, 1, 2], ylabel="share / even")
    style.few_ticks(panel, x=3, y=None)


@style.styled
def energies(
    energy: ArrayLike, bfmi: ArrayLike, threshold: float = 0.3, name: str = "energy"
) -> Figure:
    """Draw each chain's energies against the steps between them, with their BFMI.

    Where steps are much narrower than the energies the sampler creeps through the tails.

    Args:
        energy: Energy of each draw, shape (chains, draws).
        bfmi: Energy-based fraction of missing information of each chain, shape (chains,);
            NaN or nothing where it is not known.
        threshold: Smallest BFMI that counts as good.
        name: What the energy is.
    """
    chains = np.asarray(energy, float)
    figure = style.new_figure(style.WIDTH, 2.4)
    histogram, bars = figure.subplots(1, 2, width_ratios=(1.6, 1))
    centred = (chains - chains.mean(axis=1, keepdims=True)).ravel()
    steps = np.diff(chains, axis=1).ravel()
    end = float(np.percentile(np.abs(np.concatenate([centred, steps])), 99.5)) or 1.0
    edges = np.linspace(-end, end, 50).tolist()
    for values, colour, label in (
        (centred, style.PRIOR, f"{name}, less its mean"),
        (steps, style.PLAIN, "step from draw to draw"),
    ):
        histogram.hist(values, edges, density=True, color=colour, alpha=0.45, label=label)
    histogram.set(xlabel=name, yticks=[], title=name.capitalize())
    histogram.set_ylim(0, 1.25 * histogram.get_ylim()[1])
    histogram.spines["left"].set_visible(False)
    histogram.legend(loc="upper right")
    _bfmi_bars(bars, np.asarray(bfmi, float), threshold)
    return figure


def _bfmi_bars(panel: Axes, values: FloatArray, threshold: float) -> None:
    panel.set_title("BFMI of each chain")
    if not np.isfinite(values).any():
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
        style.message(panel, "BFMI is not known: the total energy was not kept")
        return
    chains = np.arange(1, len(values) + 1)
    panel.barh(chains, np.nan_to_num(values), color=chain_colours(len(values)), height=0.6)
    for y in chains[~np.isfinite(values)]:
        panel.text(0.02, y, "not known", va="center", color=style.MUTED)
    panel.axvline(threshold, color=style.INK, ls="--", lw=1.0)
    panel.set(
        xlabel=f"BFMI (good: at least {threshold:g})", ylabel="chain",
        yticks=chains, ylim=(len(values) + 0.6, 0.4),
        xlim=(0, max(1.2, 1.1 * float(np.nanmax(values)))),
    )  # fmt: skip


@style.styled
def overview(rows: Sequence[Mapping[str, Any]], r_hat: float, ess: float) -> Figure:
    """Draw R-hat and effective sample sizes, the worst first, with their thresholds.

    Args:
        rows: Mappings with ``name``, ``r_hat``, ``ess_bulk`` and ``ess_tail``, which may
            be None.
        r_hat: Largest R-hat that counts as good.
        ess: Smallest effective sample size that counts as good.
    """
    known = [row for row in rows if row["r_hat"] is not None]
    worst = sorted(known, key=lambda row: -row["r_hat"])[:_MOST_BARS]
    figure = style.new_figure(style.WIDTH, 0.19 * len(worst) + 0.95)
    left, right = figure.subplots(1, 2, sharey=True)
    _r_hats(left, worst, r_hat)
    left.set_title("R-hat" if len(worst) == len(known) else f"R-hat, worst {len(worst)}")
    _sizes(right, worst, ess)
    right.set_title("Effective sample size")
    return figure


@style.styled
def diagnostics(
    rows: Sequence[Mapping[str, Any]], bfmi: ArrayLike, r_hat: float, ess: float, threshold: float
) -> Figure:
    """Draw R-hat and effective sample sizes of all quantities, and BFMI of all chains.

    Args:
        rows: Mappings with ``name``, ``r_hat``, ``ess_bulk`` and ``ess_tail``; NaN where
            one is not known.
        bfmi: Energy-based fraction of missing information of each chain, shape (chains,);
            NaN or nothing where it is not known.
        r_hat: Largest R-hat that counts as good.
        ess: Smallest effective sample size that counts as good.
        threshold: Smallest BFMI that counts as good.
    """
    worst = sorted(rows, key=lambda row: -np.nan_to_num(row["r_hat"], nan=-np.inf))
    figure = style.new_figure(style.WIDTH, max(2.4, 0.19 * len(worst) + 0.95))
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.0, 1.0, 0.75))
    middle.sharey(left)
    middle.tick_params(labelleft=False)
    _r_hats(left, worst, r_hat)
    left.set_title("R-hat")
    _sizes(middle, worst, ess)
    middle.set_title("Effective draws")
    _bfmi_bars(right, np.asarray(bfmi, float), threshold)
    return figure


def _r_hats(panel: Axes, rows: Sequence[Mapping[str, Any]], limit: float) -> None:
    """R-hat of each row, names on the axis."""
    y = np.arange(len(rows))
    values = np.array([row["r_hat"] for row in rows], float)
    excess = np.maximum(values - 1.0, 1e-4)
    colours = np.where(values <= limit, style.PLAIN, style.CORRECTED)
    panel.hlines(y, 1e-4, excess, color=colours, lw=1.2)
    panel.scatter(excess, y, c=colours, s=16, zorder=3)
    for k in np.flatnonzero(np.isnan(values)).tolist():
        panel.text(1.1e-4, k, "not known", va="center", color=style.MUTED)
    panel.axvline(limit - 1.0, color=style.INK, ls="--", lw=1.0)
    panel.set(xscale="log", xlabel=f"R-hat − 1 (good: at most {limit - 1:g})", xlim=(1e-4, None))
    style.plain_log(panel.xaxis)
    panel.set_yticks(y, [style.literal(row["name"]) for row in rows])
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.grid(True, axis="both")
    panel.tick_params(axis="y", length=0)


def _sizes(panel: Axes, rows: Sequence[Mapping[str, Any]], least: float) -> None:
    """Effective sample sizes of each row, beside the names of another panel."""
    for key, marker, label in (("ess_bulk", "o", "centre"), ("ess_tail", "D", "tails")):
        sizes = np.array([np.nan if row[key] is None else row[key] for row in rows], float)
        colours = np.where(sizes >= least, style.PLAIN, style.CORRECTED).tolist()
        face = colours if marker == "o" else "none"
        panel.scatter(
            sizes, np.arange(len(rows)), facecolors=face, edgecolors=colours, marker=marker, s=16,
            label=label,
        )  # fmt: skip
    panel.axvline(least, color=style.INK, ls="--", lw=1.0)
    panel.set(xscale="log", xlabel=f"effective draws (good: at least {least:g})")
    style.plain_log(panel.xaxis, (1.0, 2.0, 5.0))
    panel.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderpad=0.1)
    panel.grid(True, axis="both")
    panel.tick_params(axis="y", length=0)


def chain_colours(n: int) -> list[str]:
    """Return a colour for each chain; they repeat beyond the length of the cycle."""
    return [style.CYCLE[k % len(style.CYCLE)] for k in range(n)]
