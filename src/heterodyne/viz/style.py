"""How pictures look: fonts, colours, sizes, and their export to bytes.

Figures are made without pyplot, so drawing leaves no state behind.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, Final, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from PIL import Image

_P = ParamSpec("_P")
_R = TypeVar("_R")

WIDTH: Final = 9.6
"""Width of a figure that fills a page, in inches."""

MAP: Final = "viridis"
"""Perceptually uniform map for correlations."""

DIVERGING: Final = "RdBu_r"
"""Map for residuals, white at 0."""

# Okabe and Ito's palette, told apart with every common form of colour blindness.
CYCLE: Final = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#8C7A00",
    "#5A5A5A",
)

INK: Final = "#22272e"
MUTED: Final = "#6b7480"
RULE: Final = "#c9ced6"
PRIOR: Final = "#9aa3af"
PLAIN: Final = "#0072B2"
CORRECTED: Final = "#D55E00"
MEASURED: Final = "#3d4550"
MODEL: Final = "#D55E00"
TRUTH: Final = "#000000"

LETTER: Final = 0.065
"""Mean width of a letter of a tick label, in inches."""

_STEPS: Final = [1, 2, 2.5, 5, 10]

# Stubs of matplotlib differ in the type of the keys.
_RC: Final[dict[Any, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "mathtext.fontset": "dejavusans",
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": 8.5,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.limits": (-4, 5),
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": True,
    "figure.titlesize": 10,
    "figure.titleweight": "bold",
    "figure.facecolor": "white",
    "grid.color": "#e6e9ed",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "lines.linewidth": 1.4,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "heterodyne",
}


def styled(draw: Callable[_P, _R]) -> Callable[_P, _R]:
    """Run a drawing function under the style, and leave matplotlib's settings alone."""

    @wraps(draw)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with mpl.rc_context(_RC):
            return draw(*args, **kwargs)

    return wrapper


class Picture(Figure):
    """A figure that a notebook shows although pyplot does not know it."""

    @styled
    def draw(self, renderer: RendererBase) -> None:
        """Draw everything; ticks that are made only now have the style as well."""
        super().draw(renderer)

    def _repr_png_(self) -> tuple[bytes, dict[str, float]]:
        width, height = (96.0 * float(x) for x in self.get_size_inches())
        return png(self), {"width": width, "height": height}


def new_figure(width: float, height: float, title: str | None = None) -> Figure:
    """Return an empty figure with its own canvas.

    Args:
        width: Width in inches.
        height: Height in inches.
        title: Title of the whole figure.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06)
    figure = Picture(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(literal(title), x=0.01, ha="left")
    return figure


@styled
def small_panels(n: int, height: float, columns: int = 4) -> tuple[Figure, list[Axes]]:
    """Return a figure with a grid of panels, row by row.

    Args:
        n: Number of panels.
        height: Height of a row in inches.
        columns: Largest number of panels in a row.
    """
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    figure = new_figure(WIDTH * min(1.0, 0.3 * columns + 0.1), height * rows + 0.5)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel in panels[n:]:
        panel.set_visible(False)
    return figure, panels[:n]


def message(panel: Axes, text: str, width: int = 24) -> None:
    """Write a text into the middle of a panel, in lines of at most ``width`` characters."""
    panel.text(
        0.5, 0.5, textwrap.fill(literal(text), width),
        transform=panel.transAxes, ha="center", va="center", color=MUTED,
    )  # fmt: skip


@styled
def notice(text: str) -> Figure:
    """Return a figure that holds a text in place of a picture."""
    figure = new_figure(WIDTH, 2.4)
    panel = figure.subplots()
    panel.set_axis_off()
    message(panel, text, 80)
    return figure


def footnote(figure: Figure, text: str) -> None:
    """Write a text below all panels of a figure whose size is final; an empty one is left out."""
    if text:
        lines = textwrap.fill(literal(text), round(15.0 * figure.get_figwidth()))
        figure.supxlabel(lines, x=0.01, ha="left", fontsize=7.5, color=MUTED)


def warning(figure: Figure, text: str) -> None:
    """Write a text that nobody must miss above all panels; an empty one is left out."""
    if text:
        lines = textwrap.fill(literal(text), round(13.0 * figure.get_figwidth()))
        # A layout engine makes room for it; other figures have a margin at their upper edge.
        arranged = isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine)
        place = {} if arranged else {"y": 1.0 - 0.08 / figure.get_figheight(), "va": "top"}
        figure.suptitle(lines, x=0.01, ha="left", fontsize=8.5, color=CORRECTED, **place)


def literal(text: str) -> str:
    """Keep dollar signs of a text from being read as mathematics."""
    return text.replace("$", r"\$")


def with_unit(name: str, unit: str) -> str:
    """Axis label such as ``v (Å/s)``, with exponents raised."""
    if not unit:
        return literal(name)
    base, caret, power = literal(unit).partition("^(")
    if caret and power.endswith(")"):
        for word in ("alpha", "beta"):
            power = power.replace(word, rf"\{word}")
        return f"{literal(name)} ({base}$^{{{power[:-1]}}}$)"
    return f"{literal(name)} ({literal(unit)})"


def few_ticks(axes: Axes, x: int | None = 4, y: int | None = 4) -> None:
    """Limit the number of ticks on linear axes; None leaves an axis as it is."""
    if x is not None:
        axes.xaxis.set_major_locator(MaxNLocator(x, steps=_STEPS))
    if y is not None:
        axes.yaxis.set_major_locator(MaxNLocator(y, steps=_STEPS))


def short_ticks(axis: Axis, letters: float) -> None:
    """Take few ticks, and only the outermost two where labels would run into each other.

    Args:
        axis: A linear axis whose limits are set.
        letters: How many letters there is room for.
    """
    axis.set_major_locator(MaxNLocator(3, steps=_STEPS))
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_majorticklocs() if low <= tick <= high]
    labels = axis.get_major_formatter().format_ticks(ticks)
    if len(ticks) > 2 and sum(len(label) + 2 for label in labels) > letters:
        axis.set_major_locator(FixedLocator([ticks[0], ticks[-1]]))


def plain_log(axis: Axis, subs: tuple[float, ...] = (1.0,)) -> None:
    """Write the ticks of a logarithmic axis as 0.01 and 500, not as powers."""
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_locator(NullLocator())


def png(figure: Figure, scale: float = 2.0) -> bytes:
    """Return a PNG with ``scale`` pixels per CSS pixel of 1/96 inch.

    It has 256 colours of both maps, the cycle and greys, which take a third of the bytes.
    """
    full = Image.open(io.BytesIO(_saved(figure, format="png", dpi=96.0 * scale)))
    colours = Image.new("P", (1, 1))
    colours.putpalette(_palette())
    reduced = full.convert("RGB").quantize(palette=colours, dither=Image.Dither.NONE)
    stream = io.BytesIO()
    reduced.save(stream, format="png", optimize=True)
    return stream.getvalue()


@cache
def _palette() -> bytes:
    """Red, green and blue of 256 colours."""
    maps = [mpl.colormaps[name](np.linspace(0, 1, n)) for name, n in ((MAP, 118), (DIVERGING, 89))]
    cycle = np.array([to_rgb(colour) for colour in CYCLE])
    tints = [1 - strength * (1 - cycle) for strength in (1.0, 0.65, 0.35)]
    fixed = np.array([to_rgb(colour) for colour in (INK, MUTED, RULE, PRIOR, MEASURED)])
    greys = np.repeat(np.linspace(0, 1, 20)[:, None], 3, axis=1)
    rows = [*(colours[:, :3] for colours in maps), *tints, fixed, greys]
    return np.round(255 * np.concatenate(rows)).astype(np.uint8).tobytes()


def svg(figure: Figure) -> bytes:
    """Return an SVG document; the same figure gives the same bytes."""
    return _saved(figure, format="svg", metadata={"Date": None, "Creator": None})


@styled
def _saved(figure: Figure, **options: Any) -> bytes:
    layout = figure.get_layout_engine()
    if layout is not None:
        # Arranged here; savefig would draw everything a second time to do it. Panels of a
        # fixed aspect move in the first round, and the second makes room for their titles.
        fixed = any(axes.get_aspect() != "auto" for axes in figure.axes)
        for _ in range(2 if fixed else 1):
            layout.execute(figure)
        figure.set_layout_engine("none")
    stream = io.BytesIO()
    figure.savefig(stream, **options)
    return stream.getvalue()
