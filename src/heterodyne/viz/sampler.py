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
        _trace(trace, chains)
        _ranks(ranks, chains)
        extra = (labels or {}).get(name, "")
        trace.set_title(style.literal(f"{name}  {extra}".rstrip()))
        ranks.set_title("Ranks")
    axes[-1, 0].set_xlabel("draw")
    axes[-1, 1].set_xlabel("rank among all draws")
    return figure


def _trace(panel: Axes, chains: FloatArray) -> None:
    step = max(1, chains.shape[1] // _POINTS)
    x = np.arange(0, chains.shape[1], step)
    for chain, colour in zip(chains, _colours(len(chains)), strict=True):
        panel.plot(x, chain[::step], color=colour, lw=0.6, alpha=0.75)
    panel.set_xlim(0, chains.shape[1])
    style.few_ticks(panel, x=5, y=3)


def _ranks(panel: Axes, chains: FloatArray) -> None:
    ranks = rankdata(chains.ravel(), nan_policy="omit").reshape(chains.shape)
    edges = np.linspace(0.5, chains.size + 0.5, _BINS + 1)
    expected = chains.shape[1] / _BINS
    top = 2.0
    for chain, colour in zip(ranks, _colours(len(chains)), strict=True):
        share = np.histogram(chain, edges)[0] / expected
        panel.stairs(share, edges, color=colour, lw=1.1, alpha=0.85)
        top = max(top, 1.1 * float(share.max()))
    panel.axhline(1.0, color=style.INK, lw=0.8, ls="--")
    panel.set(xlim=(edges[0], edges[-1]), ylim=(0, top), yticks=[0, 1, 2], ylabel="share / even")
    style.few_ticks(panel, x=3, y=None)


@style.styled
def energies(energy: ArrayLike, bfmi: ArrayLike, threshold: float = 0.3) -> Figure:
    """Draw each chain's energies against the steps between them, with their BFMI.

    Where steps are much narrower than the energies the sampler creeps through the tails.

    Args:
        energy: Energy of each draw, shape (chains, draws).
        bfmi: Energy-based fraction of missing information of each chain, shape (chains,).
        threshold: Smallest BFMI that counts as good.
    """
    chains = np.asarray(energy, float)
    figure = style.new_figure(style.WIDTH, 2.4)
    histogram, bars = figure.subplots(1, 2, width_ratios=(1.6, 1))
    centred = (chains - chains.mean(axis=1, keepdims=True)).ravel()
    steps = np.diff(chains, axis=1).ravel()
    end = float(np.percentile(np.abs(np.concatenate([centred, steps])), 99.5)) or 1.0
    edges = np.linspace(-end, end, 50).tolist()
    for values, colour, label in (
        (centred, style.PRIOR, "energy, less its mean"),
        (steps, style.PLAIN, "step from draw to draw"),
    ):
        histogram.hist(values, edges, density=True, color=colour, alpha=0.45, label=label)
    histogram.set(xlabel="energy", yticks=[], title="Energy")
    histogram.set_ylim(0, 1.25 * histogram.get_ylim()[1])
    histogram.spines["left"].set_visible(False)
    histogram.legend(loc="upper right")
    values = np.nan_to_num(np.asarray(bfmi, float))
    bars.barh(np.arange(1, len(values) + 1), values, color=_colours(len(values)), height=0.6)
    bars.axvline(threshold, color=style.INK, ls="--", lw=1.0)
    bars.set(
        xlabel=f"BFMI (good: at least {threshold:g})", ylabel="chain", title="BFMI of each chain",
        yticks=np.arange(1, len(values) + 1), ylim=(len(values) + 0.6, 0.4),
        xlim=(0, max(1.2, 1.1 * float(values.max()))),
    )  # fmt: skip
    return figure


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
    y = np.arange(len(worst))
    figure = style.new_figure(style.WIDTH, 0.19 * len(worst) + 0.95)
    left, right = figure.subplots(1, 2, sharey=True)
    values = np.array([row["r_hat"] for row in worst], float)
    excess = np.maximum(values - 1.0, 1e-4)
    good = values <= r_hat
    colours = np.where(good, style.PLAIN, style.CORRECTED)
    left.hlines(y, 1e-4, excess, color=colours, lw=1.2)
    left.scatter(excess, y, c=colours, s=16, zorder=3)
    left.axvline(r_hat - 1.0, color=style.INK, ls="--", lw=1.0)
    left.set(xscale="log", xlabel=f"R-hat − 1 (good: at most {r_hat - 1:g})", xlim=(1e-4, None))
    left.set_title("R-hat" if len(worst) == len(known) else f"R-hat, worst {len(worst)}")
    for key, marker, label in (("ess_bulk", "o", "centre"), ("ess_tail", "D", "tails")):
        sizes = np.array([np.nan if row[key] is None else row[key] for row in worst], float)
        colours = np.where(sizes >= ess, style.PLAIN, style.CORRECTED)
        face = colours if marker == "o" else "none"
        right.scatter(
            sizes, y, facecolors=face, edgecolors=colours, marker=marker, s=16, label=label
        )
    right.axvline(ess, color=style.INK, ls="--", lw=1.0)
    right.set(xscale="log", xlabel=f"effective draws (good: at least {ess:g})")
    style.plain_log(left.xaxis)
    style.plain_log(right.xaxis, (1.0, 2.0, 5.0))
    right.set_title("Effective sample size")
    right.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderpad=0.1)
    left.set_yticks(y, [style.literal(row["name"]) for row in worst])
    left.set_ylim(len(worst) - 0.4, -0.6)
    for panel in (left, right):
        panel.grid(True, axis="both")
        panel.tick_params(axis="y", length=0)
    return figure


def _colours(n: int) -> list[str]:
    return [style.CYCLE[k % len(style.CYCLE)] for k in range(n)]
