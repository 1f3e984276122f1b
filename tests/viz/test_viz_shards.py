import numpy as np
import pytest

from heterodyne.viz.shards import compared

ROWS = [
    {"name": f"v({t} s)", "unit": "Å/s", "low": 90.0, "median": 100.0, "high": 112.0}
    for t in (1, 2, 3, 4)
]
SHARDS = [[60.0, 95.0, 130.0], [None] * 3, [70.0, 108.0, 150.0]]
FOUND = {"shards": SHARDS, "combined": [92.0, 101.0, 113.0]}


def panels(figure):
    return [panel for panel in figure.axes if panel.get_visible()]


def test_each_panel_shows_the_shards_their_combination_and_the_result():
    figure = compared({row["name"]: FOUND for row in ROWS[:3]}, ROWS, failed=[1])
    # Rows that were not compared have no panel.
    assert [panel.get_title(loc="left") for panel in panels(figure)] == [
        "v(1 s) (Å/s)", "v(2 s) (Å/s)", "v(3 s) (Å/s)",
    ]  # fmt: skip
    panel = panels(figure)[0]
    (bars,) = [c for c in panel.collections if hasattr(c, "get_segments")]
    # A shard without draws has a segment without points.
    drawn = [segment for segment in bars.get_segments() if len(segment)]
    np.testing.assert_allclose(drawn, [[[1, 60], [1, 130]], [[3, 70], [3, 150]]])
    lines = {line.get_label(): line for line in panel.lines}
    np.testing.assert_allclose(lines["shard"].get_ydata(), [95, np.nan, 108])
    np.testing.assert_array_equal(lines["left out"].get_xdata(), [2])
    level = [line.get_ydata()[0] for line in panel.lines if len(set(line.get_xdata())) == 2]
    assert sorted(level) == pytest.approx([92.0, 100.0, 113.0])
    (band,) = panel.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == (90.0, 112.0)


def test_without_failures_nothing_is_marked():
    figure = compared({ROWS[0]["name"]: {**FOUND, "shards": SHARDS[::2]}}, ROWS)
    (panel,) = panels(figure)
    assert "left out" not in {line.get_label() for line in panel.lines}
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {
        "shard", "result", "combined, before correction",
    }  # fmt: skip
