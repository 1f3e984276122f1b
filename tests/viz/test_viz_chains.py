from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_hex
from scipy import stats

from heterodyne.viz import style
from heterodyne.viz.chains import autocorrelations, growth, ranks, trace_densities
from heterodyne.viz.sampler import diagnostics, energies

RNG = np.random.default_rng(2)


def chains(n, shape=(3, 300)):
    return {f"q{k}": RNG.normal(10.0**k, 0.1 * 10.0**k, size=shape) for k in range(n)}


def test_density_of_each_chain_is_that_of_its_draws():
    draws = {"x": np.stack([RNG.normal(m, 1.0, 20_000) for m in (0.0, 3.0)])}
    density, trace = trace_densities(draws, {"x": "Å/s"}).axes
    assert density.get_title(loc="left") == "x (Å/s)"
    for line, centre, colour in zip(density.get_lines(), (0.0, 3.0), style.CYCLE, strict=False):
        x, y = line.get_data()
        np.testing.assert_allclose(y, stats.norm.pdf(x, centre, 1.0), atol=0.02)
        assert line.get_color() == colour
    assert len(trace.get_lines()) == 2


@pytest.mark.parametrize(("n", "columns"), [(1, 2), (6, 2), (7, 4), (21, 4)])
def test_many_quantities_stand_in_two_blocks(n, columns):
    figure = trace_densities(chains(n, (2, 40)))
    assert figure.axes[0].get_gridspec().ncols == columns
    assert sum(panel.get_visible() for panel in figure.axes) == 2 * n
    named = [panel.get_xlabel() for panel in figure.axes[1::2] if panel.get_visible()]
    assert named == [""] * (n - min(n, columns // 2)) + ["draw"] * min(n, columns // 2)


@pytest.mark.parametrize("spread", [0.0, 1e-15])
def test_what_does_not_vary_is_said_to(spread):
    still = {"x": 3.0 * (1 + spread * (np.arange(100) % 2).reshape(2, 50))}
    assert trace_densities(still).axes[0].texts[0].get_text() == "does not vary"
    assert autocorrelations(still).axes[0].texts[0].get_text() == "does not vary"


def test_tick_labels_do_not_run_into_each_other():
    draws = {f"x{k}": RNG.normal(0.0123, 1e-5, size=(2, 500)) for k in range(9)}
    figure = trace_densities(draws)
    style.svg(figure)
    for panel in figure.axes[: 2 * len(draws) : 2]:
        boxes = [
            label.get_window_extent()
            for tick, label in zip(panel.get_xticks(), panel.get_xticklabels(), strict=True)
            if panel.get_xlim()[0] <= tick <= panel.get_xlim()[1]
        ]
        assert len(boxes) >= 2
        assert all(a.x1 < b.x0 for a, b in pairwise(boxes))


def test_ranks_share_one_axis_and_carry_their_labels():
    draws = chains(5)
    draws["q3"][0] += 2e4
    figure = ranks(draws, {"q3": "R-hat 2"})
    shown = [panel for panel in figure.axes if panel.get_visible()]
    assert [panel.get_title(loc="left") for panel in shown] == [
        "q0",
        "q1",
        "q2",
        "q3  R-hat 2",
        "q4",
    ]
    assert len({panel.get_ylim() for panel in shown}) == 1
    assert shown[0].get_ylim()[1] > 3.0
    # The panel above the gap is the lowest of its column.
    assert [bool(panel.get_xlabel()) for panel in shown] == [False, True, True, True, True]
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["chain 1", "chain 2", "chain 3"]


def test_chains_beyond_the_colours_are_not_named():
    assert ranks(chains(1, (len(style.CYCLE) + 1, 40))).legends == []


def test_autocorrelation_of_an_autoregressive_chain_falls_geometrically():
    x = np.zeros((1, 40_000))
    for k in range(1, x.shape[1]):
        x[0, k] = 0.9 * x[0, k - 1] + RNG.normal()
    panel = autocorrelations({"x": x}).axes[0]
    lags, memory = panel.get_lines()[1].get_data()
    np.testing.assert_allclose(memory[:30], 0.9 ** lags[:30], atol=0.08)
    assert panel.patches[0].get_height() == pytest.approx(2 * 1.96 / 200)


def test_autocorrelation_of_few_draws_ends_with_them():
    panel = autocorrelations({"x": RNG.normal(size=(2, 5))}).axes[0]
    assert list(panel.get_lines()[1].get_xdata()) == [0, 1, 2, 3, 4]


def test_growth_names_the_quantities_with_the_fewest_draws():
    totals = np.array([100.0, 200.0, 300.0])
    bulk = {f"q{k}": totals / (k + 1) for k in range(20)}
    bulk["q19"] = np.full(3, np.nan)
    figure = growth(totals, bulk, bulk, 40.0)
    left, _ = figure.axes
    named = [text.get_text() for text in left.get_legend().get_texts()]
    assert named == [f"q{k}: {300 / (k + 1):.0f}" for k in range(18, 12, -1)]
    grey = [line for line in left.get_lines() if to_hex(line.get_color()) == style.RULE]
    assert len(grey) == 14
    assert left.get_lines()[-1].get_ydata()[0] == 40.0


@pytest.mark.parametrize("swap", [False, True])
def test_growth_shows_everything_in_both_panels(swap):
    totals = np.array([100.0, 200.0])
    few, many = {"x": totals / 10}, {"x": totals}
    figure = growth(totals, *((many, few) if swap else (few, many)), 5.0)
    limits = {axes.get_ylim() for axes in figure.axes}
    assert len(limits) == 1
    assert limits.pop()[1] >= 200


def test_growth_says_what_is_not_known():
    totals = np.array([10.0, 20.0])
    figure = growth(totals, {"x": np.full(2, np.nan)}, {"x": totals}, 5.0)
    named = [axes.get_legend().get_texts()[0].get_text() for axes in figure.axes]
    assert named == ["x: not known", "x: 20"]


def test_bfmi_that_is_not_known_is_no_bar():
    energy = RNG.normal(size=(2, 100))
    bars = energies(energy, [0.9, np.nan]).axes[1]
    assert [(text.get_position()[1], text.get_text()) for text in bars.texts] == [(2, "not known")]
    empty = energies(energy, (), name="potential energy")
    assert empty.axes[1].patches[:] == []
    assert empty.axes[0].get_title(loc="left") == "Potential energy"


def test_diagnostics_show_all_rows_and_name_the_unknown():
    rows = [
        {"name": f"q{k}", "r_hat": 1.002 * k, "ess_bulk": 10.0 * k, "ess_tail": 20.0 * k}
        for k in range(1, 41)
    ]
    rows.append({"name": "still", "r_hat": np.nan, "ess_bulk": np.nan, "ess_tail": np.nan})
    left, middle, right = diagnostics(rows, [0.1], 1.01, 400.0, 0.3).axes
    names = [text.get_text() for text in left.get_yticklabels()]
    assert names == [f"q{k}" for k in range(40, 0, -1)] + ["still"]
    assert [text.get_text() for text in left.texts] == ["not known"]
    colours = middle.collections[0].get_edgecolors()
    assert to_hex(colours[0]) == style.PLAIN.lower()
    assert to_hex(colours[1]) == style.CORRECTED.lower()
    assert right.patches[0].get_width() == 0.1
