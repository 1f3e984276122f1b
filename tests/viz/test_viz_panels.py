"""Parts that pictures share: panels, texts in place of pictures, predictions, notebooks."""

import io
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from heterodyne.viz import style
from heterodyne.viz.fits import draw_predicted
from heterodyne.viz.posterior import forest


@pytest.mark.parametrize(("n", "rows", "columns"), [(1, 1, 1), (4, 1, 4), (5, 2, 4)])
def test_small_panels_fill_rows(n, rows, columns):
    figure, panels = style.small_panels(n, 1.5)
    assert panels[0].get_gridspec().get_geometry() == (rows, columns)
    assert [panel for panel in figure.axes if panel.get_visible()] == panels
    assert len(panels) == n


def test_notice_says_its_text_and_nothing_else():
    figure = style.notice("No $ were kept")
    assert figure.axes[0].texts[0].get_text() == r"No \$ were kept"
    assert not figure.axes[0].axison


def test_footnote_is_wrapped_to_the_figure():
    figure = style.new_figure(3.0, 2.0)
    figure.subplots()
    style.footnote(figure, "")
    assert figure.get_supxlabel() == ""
    style.footnote(figure, "word " * 30)
    style.svg(figure)
    (note,) = (text for text in figure.findobj(Text) if text.get_text() == figure.get_supxlabel())
    box = note.get_window_extent(figure.canvas.get_renderer())
    assert 2.0 * figure.dpi < box.x1 <= 3.0 * figure.dpi
    assert "\n" in figure.get_supxlabel()


def test_a_notebook_shows_the_figure_at_its_size():
    figure = style.new_figure(4.0, 2.0)
    figure.subplots().plot([0, 1])
    content, size = figure._repr_png_()
    assert size == {"width": 384.0, "height": 192.0}
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == (768, 384)


def test_style_holds_when_others_save_the_figure():
    figure = style.new_figure(4.0, 2.0)
    style.styled(lambda: figure.subplots().plot([0.0, 1e-3], [1.0, 1.0001]))()
    before = dict(mpl.rcParams)
    figure.savefig(io.BytesIO())
    assert dict(mpl.rcParams) == before
    axes = figure.axes[0]
    assert {label.get_fontsize() for label in axes.get_yticklabels()} == {7.5}
    assert axes.yaxis.get_offset_text().get_text() == ""


def test_predictions_are_a_range_behind_the_data():
    axes = Figure().subplots()
    x = np.arange(1.0, 6.0)
    draw_predicted(axes, x, x**2, (x, 3 * x), by_lag=True, title="Angle 1 of 2")
    corners = axes.collections[0].get_paths()[0].vertices
    for k in x:
        assert {k, 3 * k} <= set(corners[corners[:, 0] == k, 1])
    assert to_hex(axes.collections[0].get_facecolor()[0]) == style.MODEL.lower()
    np.testing.assert_array_equal(axes.get_lines()[0].get_data(), [x, x**2])
    assert axes.get_xscale() == "log"
    assert axes.get_title(loc="left") == "Angle 1 of 2: mean over all pairs"
    assert axes.get_xlabel() == "lag t2 − t1 (s)"
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert words == ["predicted, 5 to 95 %", "measured"]


def test_forest_gives_long_lists_the_room_and_short_ones_little():
    def row(name):
        return {"name": name, "unit": "", "median": 1.0, "low": 0.0, "high": 2.0}

    long = [row(f"contrast_{k}") for k in range(12)]
    rows = [row("a"), row("b"), *long, row("sigma")]
    figure = forest(rows, words="94 %")
    style.svg(figure)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == ["a", "b", "sigma", "contrast"]
    heights = [axes.get_position().height for axes in shown]
    assert heights[3] > 3 * heights[0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["94 %"]


def test_drawing_chains_and_pairs_does_without_pyplot():
    code = "import sys, heterodyne.viz.chains, heterodyne.viz.pairs; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert "heterodyne.viz.pairs" in done.stdout.split()
    assert "matplotlib.pyplot" not in done.stdout.split()
