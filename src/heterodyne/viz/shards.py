"""Shards beside each other, and beside what was made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from heterodyne._typing import FloatArray
from heterodyne.viz import style

_MOST = 12
# From this number of shards on, the intervals would touch.
_CROWDED = 40


@style.styled
def compared(
    shards: Mapping[str, Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    failed: Sequence[int] = (),
) -> Figure:
    """Draw median and 95 % interval of each shard, of their combination, and of the result.

    Args:
        shards: By quantity, ``shards``, shape (n, 3), and ``combined``, shape (3,): low end,
            median and high end; NaN or None where a shard has no draws.
        rows: Results of these quantities, with ``name``, ``unit``, ``low``, ``median`` and
            ``high``; one panel each.
        failed: Numbers of shards that were left out, counted from 0.
    """
    shown = [row for row in rows if row["name"] in shards][:_MOST]
    figure, panels = style.small_panels(len(shown), 1.7, columns=3)
    for panel, row in zip(panels, shown, strict=True):
        found = shards[row["name"]]
        _panel(panel, np.array(found["shards"], float), np.array(found["combined"], float), row)
        _mark(panel, np.array(found["shards"], float), failed)
        panel.set_title(style.with_unit(row["name"], row["unit"]))
    for panel in panels[-3:]:
        panel.set_xlabel("shard")
    if panels:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
    return figure


def _panel(panel: Axes, shards: FloatArray, combined: FloatArray, row: Mapping[str, Any]) -> None:
    numbers = np.arange(1, len(shards) + 1)
    low, median, high = shards.T
    panel.vlines(numbers, low, high, color=style.PRIOR, lw=1.4 if len(shards) < _CROWDED else 0.7)
    panel.plot(numbers, median, ".", color=style.INK, ms=4, label="shard")
    panel.axhspan(row["low"], row["high"], color=style.PLAIN, alpha=0.25, lw=0, label="result")
    panel.axhline(row["median"], color=style.PLAIN, lw=1.2)
    for end in combined[[0, 2]]:
        panel.axhline(end, color=style.CORRECTED, lw=0.9, ls="--")
    panel.plot([], [], color=style.CORRECTED, lw=0.9, ls="--", label="combined, before correction")
    panel.set_xlim(0.4, len(shards) + 0.6)
    style.few_ticks(panel, x=None, y=4)
    panel.xaxis.set_major_locator(MaxNLocator(8, integer=True))


def _mark(panel: Axes, shards: FloatArray, failed: Sequence[int]) -> None:
    """Mark what was left out at the bottom of the panel."""
    if len(failed):
        low = panel.get_ylim()[0]
        at = np.array(failed) + 1
        panel.plot(at, np.full(len(at), low), "x", color=style.CORRECTED, ms=5, clip_on=False,
                   label="left out")  # fmt: skip
