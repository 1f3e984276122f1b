import numpy as np
import pytest

from heterodyne.viz.sampler import energies, overview, traces

RNG = np.random.default_rng(9)


def test_energies_have_a_bar_per_chain():
    energy = RNG.normal(size=(3, 200))
    bars = energies(energy, [0.9, np.nan, 1.1], 0.3).axes[1].patches
    np.testing.assert_allclose([bar.get_width() for bar in bars], [0.9, 0.0, 1.1])


def test_traces_show_every_chain_and_even_ranks_where_they_agree():
    figure = traces({"v0": RNG.normal(size=(4, 5000))}, {"v0": "(R-hat 1.001)"})
    trace, ranks = figure.axes
    assert trace.get_title(loc="left") == "v0  (R-hat 1.001)"
    assert len(trace.get_lines()) == 4
    shares = np.array([patch.get_data().values for patch in ranks.patches])
    np.testing.assert_allclose(shares.sum(axis=0), 4.0)
    assert np.abs(shares - 1).max() < 0.3


def test_ranks_betray_a_chain_that_went_elsewhere():
    chains = RNG.normal(size=(4, 500))
    chains[2] += 10.0
    shares = [patch.get_data().values for patch in traces({"v0": chains}).axes[1].patches]
    assert shares[2][:14].sum() == 0
    assert shares[2].max() == pytest.approx(4.0)


def rows(n):
    return [
        {"name": f"q{k}", "r_hat": 1 + 0.002 * k, "ess_bulk": 2000.0 / (1 + k), "ess_tail": None}
        for k in range(n)
    ]


def test_overview_lists_the_worst_first_and_drops_the_unknown():
    unknown = {"name": "fixed", "r_hat": None, "ess_bulk": None, "ess_tail": None}
    left, right = overview([*rows(5), unknown], 1.005, 400).axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["q4", "q3", "q2", "q1", "q0"]
    colours = left.collections[1].get_facecolors()
    assert (colours[:2] == colours[0]).all()
    assert (colours[2:] != colours[0]).any(axis=1).all()
    assert "400" in right.get_xlabel()


def test_overview_of_many_quantities_says_that_it_shows_the_worst():
    left, _ = overview(rows(50), 1.01, 400).axes
    assert left.get_title(loc="left") == "R-hat, worst 20"
    assert left.get_yticklabels()[0].get_text() == "q49"
