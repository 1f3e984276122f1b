import numpy as np
import pytest
from matplotlib.colors import to_hex

from heterodyne.viz import style
from heterodyne.viz.pairs import pairs

RNG = np.random.default_rng(4)


def draws(n, size=400):
    return {f"q{k}": RNG.normal(10.0 * k, 1.0 + k, size=(2, size)) for k in range(n)}


def cells(figure):
    """Panels by row and column."""
    found = {}
    for panel in figure.axes:
        spec = panel.get_subplotspec()
        found[spec.rowspan.start, spec.colspan.start] = panel
    return found


def test_every_pair_has_a_cell_below_the_diagonal():
    values = draws(4)
    panels = cells(pairs(values))
    assert set(panels) == {(row, column) for row in range(4) for column in range(row + 1)}
    for (row, column), panel in panels.items():
        if row != column:
            x, y = panel.get_lines()[0].get_data()
            shown = set(zip(x, y, strict=True))
            known = zip(values[f"q{column}"].ravel(), values[f"q{row}"].ravel(), strict=True)
            assert shown <= set(known)
            assert len(shown) >= 400


def test_labels_and_units_stand_outside():
    panels = cells(pairs(draws(3), units={"q0": "Å/s", "q2": "s"}))
    assert [panels[2, k].get_xlabel() for k in range(3)] == ["q0 (Å/s)", "q1", "q2 (s)"]
    assert [panels[k, 0].get_ylabel() for k in range(3)] == ["", "q1", "q2 (s)"]
    assert panels[1, 1].get_xlabel() == ""
    assert len(panels[2, 0].get_xticks()) > 0


@pytest.mark.parametrize("n", [7, 12])
def test_many_quantities_have_labels_within_the_picture_and_no_ticks(n):
    values = draws(n, 50)
    values["D_offset_sample_of_a_long_name"] = RNG.normal(size=(2, 50))
    figure = pairs(values, units={"D_offset_sample_of_a_long_name": "Å²/s^(1+alpha)"})
    style.svg(figure)
    for (row, column), panel in cells(figure).items():
        assert panel.get_xticks().size == 0
        if column == 0:
            assert panel.yaxis.label.get_window_extent().x0 >= 0
        if row == n:
            assert panel.xaxis.label.get_window_extent().y0 >= 0
    assert cells(figure)[0, 0].get_ylabel() == "q0"


def test_correlations_are_pearsons_and_unknown_for_what_does_not_vary():
    x = RNG.normal(size=2000)
    values = {"a": x, "b": -2.0 * x, "c": x + RNG.normal(size=2000), "still": np.ones(2000)}
    shown = [text.get_text() for text in pairs(values).texts]
    r = np.corrcoef(values["a"], values["c"])[0, 1]
    assert shown == ["−1.00", f"{r:.2f}", "–", f"−{r:.2f}", "–", "–"]


def test_divergent_draws_are_all_marked():
    values = draws(2)
    marked = np.zeros((2, 400), bool)
    marked[1, :3] = True
    figure = pairs(values, divergent=marked)
    _, bad = cells(figure)[1, 0].get_lines()
    assert to_hex(bad.get_color()) == style.CORRECTED.lower()
    np.testing.assert_array_equal(bad.get_xdata(), values["q0"][1, :3])
    assert figure.legends[0].get_texts()[0].get_text() == "3 divergent draws"
    assert pairs(values, divergent=np.zeros((2, 400), bool)).legends == []
