"""Pictures of draws: what they show, and what they say where something is missing."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray
from arviz_stats.base.array import array_stats
from cmc_results import CHAINS, DRAWS, NAMES, make_draws, make_result
from matplotlib.figure import Figure
from PIL import Image

from heterodyne._errors import ConfigError, DataError
from heterodyne.optimization.cmc import plotting
from heterodyne.optimization.cmc._diagnostics import bfmi
from heterodyne.optimization.cmc._draws import Draws, Proposals
from heterodyne.optimization.cmc._record import data_tree
from heterodyne.optimization.cmc._summary import mixing, narrowest
from heterodyne.optimization.cmc.io import load_inference_data, save_inference_data
from heterodyne.optimization.cmc.results import cmc_result_to_arviz
from heterodyne.viz import chains as chain_pictures
from heterodyne.viz import posterior, sampler, style

RNG = np.random.default_rng(3)
SAVED = {
    "forest": plotting.plot_forest,
    "autocorr": plotting.plot_autocorr,
    "rank": plotting.plot_rank,
    "ess": plotting.plot_ess,
}


def dataset(values):
    """Arrays by name, shape (chains, draws, ...) or (chains,)."""
    found = {}
    for name, x in values.items():
        x = np.asarray(x)
        rest = [f"{name}_{k}" for k in range(x.ndim - 2)]
        found[name] = (("chain", "draw", *rest) if x.ndim > 1 else "chain", x)
    return xarray.Dataset(found)


def groups(stats=None, draws=None, **others):
    """ArviZ groups of known draws."""
    draws = make_draws() if draws is None else draws
    found = {"posterior": {name: draws[..., k] for k, name in enumerate(NAMES)}, **others}
    if stats is not None:
        found["sample_stats"] = stats
    return tree_of(**found)


def tree_of(**found):
    return xarray.DataTree.from_dict({f"/{k}": dataset(values) for k, values in found.items()})


def size_of(path):
    """Pixels of a picture that can be read."""
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        return image.size


def texts(figure):
    """Everything that is written in a figure, line breaks as spaces."""
    found = [figure, *figure.axes]
    return " ".join(t.get_text() for part in found for t in part.findobj(plt.Text)).replace(
        "\n", " "
    )


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """No picture may stay open or change matplotlib's settings."""
    before = dict(plt.rcParams)
    yield
    assert plt.get_fignums() == []
    assert dict(plt.rcParams) == before


@pytest.fixture
def drawn(monkeypatch):
    """Figures that were saved, in order."""
    seen = []
    original = style.png

    def keep(figure, scale=2.0):
        seen.append(figure)
        return original(figure, scale)

    monkeypatch.setattr(style, "png", keep)
    return seen


def test_importing_loads_nothing_that_draws():
    # arviz_base itself reads the settings of matplotlib.
    heavy = ("matplotlib.figure", "matplotlib.pyplot", "heterodyne.viz.style", "jax")
    code = (
        "import sys, heterodyne.optimization.cmc.plotting; "
        f"print(*(m for m in {heavy} if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


def test_traces_show_the_draws_of_each_chain_beside_their_density():
    figure = plotting.plot_trace_summary(cmc_result_to_arviz(make_result()))
    assert isinstance(figure, Figure)
    density, trace = figure.axes[:2]
    assert density.get_title(loc="left") == r"D0_ref (Å²/s$^{1+\alpha}$)"
    assert len(density.get_lines()) == len(trace.get_lines()) == CHAINS
    draws = make_draws()[..., 0]
    for line, chain in zip(trace.get_lines(), draws, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), chain)
    for line, chain in zip(density.get_lines(), draws, strict=True):
        x, y = line.get_data()
        assert np.trapezoid(y, x) == pytest.approx(1.0, abs=0.03)
        assert np.trapezoid(x * y, x) == pytest.approx(chain.mean(), rel=1e-3)


def test_traces_take_names_and_a_size():
    tree = cmc_result_to_arviz(make_result())
    figure = plotting.plot_trace_summary(tree, ["offset_0", "alpha_ref"], (5, 4))
    assert [axes.get_title(loc="left") for axes in figure.axes[::2]] == ["offset_0", "alpha_ref"]
    np.testing.assert_allclose(figure.get_size_inches(), (5, 4))
    one = plotting.plot_trace_summary(tree, "alpha_ref")
    assert len(one.axes) == 2


def test_pairs_have_draws_below_and_correlations_above_the_diagonal():
    draws = make_draws()
    draws[..., 1] = -0.5 + (draws[..., 0] - 1e4) / 3000
    diverging = np.zeros((CHAINS, DRAWS), bool)
    diverging[1, 7] = True
    tree = groups({"diverging": diverging}, draws)
    figure = plotting.plot_pair_plot(tree, ["D0_ref", "alpha_ref", "offset_0"])
    clouds = [axes for axes in figure.axes if len(axes.get_lines()) == 2]
    assert len(clouds) == 3
    bad = clouds[0].get_lines()[1]
    np.testing.assert_array_equal(bad.get_data(), draws[1, 7, :2][:, None])
    assert set(clouds[0].get_lines()[0].get_xdata()) <= set(draws[..., 0].ravel())
    shown = [text.get_text() for text in figure.texts if text.get_text() != figure.get_supxlabel()]
    r = np.corrcoef(draws.reshape(-1, 4).T)
    found = [float(text.replace("−", "-")) for text in shown]
    np.testing.assert_allclose(found, r[[0, 0, 1], [1, 3, 3]], atol=0.0051)
    assert shown[0] == "1.00"
    assert "1 divergent draw" in [t.get_text() for t in figure.legends[0].get_texts()]


@pytest.mark.parametrize(
    ("stats", "divergences", "words"),
    [
        (None, True, "is not known"),
        ({"diverging": np.zeros((CHAINS, DRAWS), bool)}, True, "No draw diverged"),
        (None, False, ""),
    ],
)
def test_pairs_say_what_is_known_of_divergences(stats, divergences, words):
    figure = plotting.plot_pair_plot(groups(stats), NAMES[:2], divergences)
    note = figure.get_supxlabel()
    assert (words in note) if words else note == ""


def test_pairs_of_many_quantities_say_that_they_are_the_first():
    many = {f"q{k}": RNG.normal(size=(2, 30)) for k in range(26)}
    figure = plotting.plot_pair_plot(tree_of(posterior=many))
    assert "first 24 of 26 quantities" in figure.get_supxlabel().replace("\n", " ")
    assert len(figure.axes) == 24 * 25 / 2
    assert figure.axes[-1].get_xlabel() == "q23"


def test_divergences_of_other_draws_are_refused():
    tree = xarray.DataTree.from_dict(
        {
            "/posterior": groups()["posterior"].to_dataset(),
            "/sample_stats": dataset({"diverging": np.zeros((CHAINS, DRAWS - 1), bool)}),
        }
    )
    with pytest.raises(DataError, match="diverging"):
        plotting.plot_pair_plot(tree)


def predictions(shape, n=(2, 500)):
    return RNG.normal(1.2, 0.02, size=(*n, *shape))


def test_predicted_values_span_their_5_and_95_percent():
    t = np.linspace(0.1, 2.0, 20)
    draws = predictions((20,))
    tree = tree_of(posterior_predictive={"c2_pred": draws})
    figure = plotting.plot_posterior_predictive(tree, np.full(20, 1.2), t)
    (panel,) = figure.axes
    corners = panel.collections[0].get_paths()[0].vertices
    low, high = np.percentile(draws.reshape(-1, 20), (5, 95), axis=0)
    assert corners[:, 1].min() == pytest.approx(low.min())
    assert corners[:, 1].max() == pytest.approx(high.max())
    np.testing.assert_array_equal(panel.get_lines()[0].get_data(), [t, np.full(20, 1.2)])
    assert panel.get_xlabel() == "t (s)"


def test_predicted_matrices_are_averaged_over_lags():
    t = 0.5 * np.arange(1, 9)
    lag = np.abs(t[:, None] - t)
    measured = 1 + 0.2 * np.exp(-np.stack([lag, 2 * lag]))
    measured[0, 2, 5] = np.nan
    draws = measured[1] + predictions((2, 8, 8), (1, 40)) - 1.2
    tree = tree_of(posterior_predictive={"c2_pred": draws})
    figure = plotting.plot_posterior_predictive(tree, measured, t)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Angle 1 of 2: mean over all pairs",
        "Angle 2 of 2: mean over all pairs",
    ]
    for axes, slow in zip(figure.axes, (1, 2), strict=True):
        x, y = axes.get_lines()[0].get_data()
        np.testing.assert_allclose(x, 0.5 * np.arange(1, 8))
        np.testing.assert_allclose(y, 1 + 0.2 * np.exp(-slow * x))
    corners = figure.axes[1].collections[0].get_paths()[0].vertices
    first = np.percentile([np.diagonal(d, 1).mean() for d in draws[0, :, 1]], (5, 95))
    at_first = np.unique(corners[np.isclose(corners[:, 0], 0.5), 1])
    np.testing.assert_allclose(at_first, first)


def test_without_predictions_the_data_are_drawn_and_the_picture_says_so():
    axes = Figure().subplots()
    figure = plotting.plot_posterior_predictive(groups(), np.ones((5, 5)), np.arange(5.0), axes)
    assert figure is axes.figure
    assert "no predictions were kept" in axes.get_legend().get_title().get_text()
    assert axes.collections[:] == []
    np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), np.ones(4))


def test_lags_without_pairs_have_no_range():
    t = np.arange(1.0, 6.0)
    draws = predictions((5, 5))
    draws[..., 0, 4] = np.nan
    tree = tree_of(posterior_predictive={"c2_pred": draws})
    (panel,) = plotting.plot_posterior_predictive(tree, np.ones((5, 5)), t).axes
    corners = panel.collections[0].get_paths()[0].vertices
    assert corners[:, 0].max() == 3.0
    assert panel.get_lines()[0].get_xdata()[-1] == 4.0


@pytest.mark.parametrize(
    ("c2", "times", "match"),
    [
        (np.ones((4, 5)), np.arange(5.0), "shape"),
        (np.ones(5), np.arange(4.0), "shape"),
        (np.ones((3, 3)), np.array([0.0, 1.0, 3.0]), "spaced"),
    ],
)
def test_predicted_values_must_fit(c2, times, match):
    with pytest.raises(DataError, match=match):
        plotting.plot_posterior_predictive(groups(), c2, times)


def test_predictions_of_another_shape_and_several_angles_for_one_panel_are_refused():
    tree = tree_of(posterior_predictive={"c2_pred": predictions((4,))})
    with pytest.raises(DataError, match="c2_pred"):
        plotting.plot_posterior_predictive(tree, np.ones(5), np.arange(5.0))
    with pytest.raises(ConfigError, match="2 angles"):
        plotting.plot_posterior_predictive(
            groups(), np.ones((2, 3, 3)), np.arange(3.0), Figure().subplots()
        )


def test_diagnostics_are_those_of_the_draws():
    draws = make_draws()
    draws[0, :, 2] += 0.02
    figure = plotting.plot_diagnostics_summary(groups({"bfmi": [0.2, 0.9, 1.1]}, draws))
    left, middle, right = figure.axes
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names[0] == "contrast_0"
    assert set(names) == set(NAMES)
    measured = mixing({name: draws[..., k] for k, name in enumerate(NAMES)})
    order = [NAMES.index(name) for name in names]
    excess = left.collections[1].get_offsets()[:, 0]
    np.testing.assert_allclose(excess, np.maximum(measured["r_hat"][order] - 1, 1e-4))
    bulk = middle.collections[0].get_offsets()[:, 0]
    np.testing.assert_allclose(bulk, measured["ess_bulk"][order])
    np.testing.assert_allclose([bar.get_width() for bar in right.patches], [0.2, 0.9, 1.1])
    assert "0.01" in left.get_xlabel()
    assert "400" in middle.get_xlabel()
    assert "0.3" in right.get_xlabel()


def test_bfmi_is_measured_on_energies_or_called_unknown():
    energy = RNG.normal(size=(CHAINS, DRAWS))
    right = plotting.plot_diagnostics_summary(groups({"energy": energy})).axes[2]
    np.testing.assert_allclose([bar.get_width() for bar in right.patches], bfmi(energy))
    partly = groups({"bfmi": [0.9, np.nan, 1.1]})
    right = plotting.plot_diagnostics_summary(partly).axes[2]
    assert [text.get_text() for text in right.texts] == ["not known"]
    right = plotting.plot_diagnostics_summary(groups()).axes[2]
    assert right.patches[:] == []
    assert "not known" in right.texts[0].get_text()


def test_r_hat_of_a_constant_is_called_unknown():
    draws = make_draws()
    draws[..., 3] = 1.0
    left = plotting.plot_diagnostics_summary(groups(draws=draws)).axes[0]
    assert [label.get_text() for label in left.get_yticklabels()][-1] == "offset_0"
    assert left.texts[0].get_text() == "not known"
    assert left.texts[0].get_position()[1] == 3


def test_forest_shows_medians_and_narrowest_94_percent(drawn, tmp_path):
    path = plotting.plot_forest(groups(), tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "forest_plot.png"
    (figure,) = drawn
    panel = figure.axes[0]
    interval, median = panel.get_lines()
    x = make_draws()[..., 0]
    low, high = narrowest(x, 0.94)
    assert list(interval.get_xdata()) == [low, high]
    assert np.mean((x >= low) & (x <= high)) == pytest.approx(0.94, abs=1e-3)
    assert median.get_xdata() == pytest.approx(np.median(x))
    assert panel.get_title(loc="left") == r"D0_ref (Å²/s$^{1+\alpha}$)"
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["median and narrowest 94 %"]


def test_forest_shows_corrected_intervals_where_there_are_some(drawn, tmp_path):
    wide = {name: 3 * x for name, x in zip(NAMES, np.moveaxis(make_draws(), -1, 0), strict=True)}
    plotting.plot_forest(groups(corrected=wide), tmp_path, ["alpha_ref"])
    outer, inner, _ = drawn[0].axes[0].get_lines()
    np.testing.assert_allclose(outer.get_xdata(), 3 * inner.get_xdata())
    words = [t.get_text() for t in drawn[0].legends[0].get_texts()]
    assert words == ["plain, median and narrowest 94 %", "corrected for shared speckle noise"]


def test_energies_and_their_steps_are_drawn(drawn, tmp_path):
    energy = RNG.normal(500.0, 3.0, size=(CHAINS, DRAWS))
    plotting.plot_energy(groups({"energy": energy}), tmp_path)
    histogram, bars = drawn[0].axes
    assert histogram.get_xlabel() == "energy"
    np.testing.assert_allclose([bar.get_width() for bar in bars.patches], bfmi(energy))


def test_potential_energies_are_named_and_have_no_bfmi(drawn, tmp_path):
    plotting.plot_energy(groups({"potential_energy": RNG.normal(size=(CHAINS, DRAWS))}), tmp_path)
    histogram, bars = drawn[0].axes
    assert histogram.get_xlabel() == "potential energy"
    assert len(histogram.patches) > 0
    assert bars.patches[:] == []
    assert "not known" in bars.texts[0].get_text()


NO_ENERGIES = [None, {"energy": np.full((CHAINS, DRAWS), np.nan)}, {"energy": np.ones((CHAINS, 1))}]


@pytest.mark.parametrize("stats", NO_ENERGIES)
def test_without_energies_the_picture_says_so(drawn, tmp_path, stats):
    path = plotting.plot_energy(groups(stats), tmp_path)
    assert path.name == "energy_plot.png"
    assert "No energies" in texts(drawn[0])
    assert size_of(path) == (1500, 900)


def test_autocorrelations_are_those_of_the_chains(drawn, tmp_path):
    plotting.plot_autocorr(groups(), tmp_path)
    panel = drawn[0].axes[1]
    _, *lines = panel.get_lines()
    assert len(lines) == CHAINS
    for line, chain in zip(lines, make_draws()[..., 1], strict=True):
        np.testing.assert_array_equal(line.get_xdata(), np.arange(21))
        np.testing.assert_allclose(line.get_ydata(), array_stats.autocorr(chain)[:21])
    band = panel.patches[0].get_height() / 2
    assert band == pytest.approx(1.96 / np.sqrt(DRAWS))


def test_ranks_carry_their_r_hat_and_betray_a_chain_elsewhere(drawn, tmp_path):
    draws = make_draws()
    draws[1, :, 0] += 5000
    plotting.plot_rank(groups(draws=draws), tmp_path, ["D0_ref", "alpha_ref"])
    away, even = drawn[0].axes
    r_hat = mixing({"D0_ref": draws[..., 0]})["r_hat"][0]
    assert away.get_title(loc="left") == f"D0_ref  R-hat {r_hat:.3f}"
    shares = np.array([patch.get_data().values for patch in away.patches])
    assert shares[1][:12].sum() == 0
    shares = np.array([patch.get_data().values for patch in even.patches])
    np.testing.assert_allclose(shares.sum(axis=0), CHAINS, atol=0.2)
    assert np.abs(shares - 1).max() < 0.8


def test_one_chain_has_no_ranks_to_compare(drawn, tmp_path):
    plotting.plot_rank(groups(draws=make_draws()[:1]), tmp_path)
    assert "one chain only" in texts(drawn[0])


def test_effective_draws_grow_to_those_of_all_draws(drawn, tmp_path):
    plotting.plot_ess(groups(), tmp_path)
    measured = mixing({name: make_draws()[..., k] for k, name in enumerate(NAMES)})
    for panel, what in zip(drawn[0].axes, ("ess_bulk", "ess_tail"), strict=True):
        lines = panel.get_lines()[:-1]
        last = {line.get_label().split(":")[0]: line.get_ydata()[-1] for line in lines}
        assert last == pytest.approx(dict(zip(NAMES, measured[what], strict=True)))
        assert lines[0].get_xdata()[-1] == CHAINS * DRAWS
        assert list(last.values()) == sorted(last.values())
        limit = panel.get_lines()[-1]
        assert set(limit.get_ydata()) == {400.0}


@pytest.mark.parametrize("kind", SAVED)
def test_files_have_the_size_asked_for(tmp_path, kind):
    path = SAVED[kind](groups(), tmp_path, NAMES[:2], (6, 4), 50)
    assert path == tmp_path / f"{kind}_plot.png"
    assert size_of(path) == (300, 200)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_all_plots_are_saved(tmp_path):
    energy = RNG.normal(size=(CHAINS, DRAWS))
    found = plotting.generate_diagnostic_plots(groups({"energy": energy}), tmp_path, NAMES[:2], 40)
    assert found == {
        kind: tmp_path / f"{kind}_plot.png"
        for kind in ("forest", "energy", "autocorr", "rank", "ess")
    }
    sizes = {kind: size_of(path) for kind, path in found.items()}
    assert sizes["energy"] == sizes["ess"] == (400, 240)


def test_a_broken_plot_does_not_stop_the_others(tmp_path, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("out of ink")

    monkeypatch.setattr(chain_pictures, "autocorrelations", broken)
    with caplog.at_level(logging.WARNING, "heterodyne"):
        found = plotting.generate_diagnostic_plots(groups(), tmp_path, NAMES[:1], 40)
    assert set(found) == {"forest", "energy", "rank", "ess"}
    assert not (tmp_path / "autocorr_plot.png").exists()
    assert "autocorr" in caplog.text
    assert "out of ink" in caplog.text


def test_an_error_of_the_program_is_not_hidden(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise TypeError("a defect")

    monkeypatch.setattr(posterior, "forest", broken)
    with pytest.raises(TypeError, match="a defect"):
        plotting.generate_diagnostic_plots(groups(), tmp_path)


def test_wrong_arguments_stop_all_plots_at_once(tmp_path):
    with pytest.raises(DataError, match="D0_ref, alpha_ref"):
        plotting.generate_diagnostic_plots(groups(), tmp_path, ["nonsense"])
    taken = tmp_path / "file"
    taken.write_text("")
    with pytest.raises(ConfigError, match="folder cannot be made"):
        plotting.generate_diagnostic_plots(groups(), taken)


@pytest.mark.parametrize(
    ("idata", "match"),
    [
        (make_result(), "cmc_result_to_arviz"),
        (xarray.DataTree(), "no draws"),
        (tree_of(prior={"x": np.zeros((1, 5))}), "no draws"),
        (groups(draws=np.full((CHAINS, DRAWS, 4), np.nan)), "no finite draws"),
        (tree_of(posterior={"x": [1.0, 2.0]}), "dimensions"),
    ],
)
@pytest.mark.parametrize(
    "draw",
    [
        plotting.plot_trace_summary,
        plotting.plot_pair_plot,
        plotting.plot_diagnostics_summary,
        lambda idata: plotting.plot_forest(idata, "unused"),
    ],
)
def test_what_holds_no_draws_is_refused(draw, idata, match):
    with pytest.raises(DataError, match=match):
        draw(idata)


def test_quantities_without_draws_are_named_not_drawn(caplog):
    draws = make_draws()
    draws[..., 2] = np.nan
    draws[0, 5, 3] = np.inf
    with caplog.at_level(logging.WARNING, "heterodyne"):
        figure = plotting.plot_trace_summary(groups(draws=draws))
    assert len([axes for axes in figure.axes if axes.get_visible()]) == 4
    assert "contrast_0, offset_0" in figure.get_supxlabel().replace("\n", " ")
    assert "contrast_0, offset_0" in caplog.text


def test_plain_draws_beside_corrected_ones_are_called_so():
    wide = {"D0_ref": make_draws()[..., 0]}
    figure = plotting.plot_trace_summary(groups(corrected=wide))
    assert "independent" in figure.get_supxlabel()


def test_notes_fit_into_a_narrow_picture(drawn, tmp_path):
    wide = {"D0_ref": make_draws()[..., 0]}
    plotting.plot_autocorr(groups(corrected=wide), tmp_path, NAMES[:2], (4, 3))
    (figure,) = drawn
    (note,) = (t for t in figure.findobj(plt.Text) if t.get_text() == figure.get_supxlabel())
    box = note.get_window_extent(figure.canvas.get_renderer())
    assert 2 * figure.dpi < box.x1 <= 4 * figure.dpi


def test_draws_picked_by_weight_are_called_so():
    tree = groups({"lp": np.ones((CHAINS, DRAWS))})
    tree["sample_stats"].attrs["engine"] = "importance"
    for draw in (plotting.plot_trace_summary, plotting.plot_diagnostics_summary):
        assert "picked these draws by weight" in draw(tree).get_supxlabel().replace("\n", " ")
    tree["sample_stats"].attrs["engine"] = "nuts"
    assert plotting.plot_trace_summary(tree).get_supxlabel() == ""


def test_groups_of_a_run_name_their_engine():
    x = {"D0_ref": make_draws()[..., 0]}
    weights = np.full(5, 0.2)
    draws = Draws(np.zeros((2, 3, 1)), np.zeros((2, 3)))
    picked = replace(draws, proposals=Proposals(np.zeros((5, 1)), weights, weights, 0.1, 1))
    analysis = SimpleNamespace(
        draws=draws,
        plain=SimpleNamespace(parameters=x, derived=x),
        prior=SimpleNamespace(all=lambda: x),
        corrected=SimpleNamespace(all=lambda: x),
        corrected_draws=picked,
        rows=(),
        verdict=SimpleNamespace(usable=False, headline="Not converged."),
    )
    tree = data_tree(analysis)
    assert tree["sample_stats"].attrs["engine"] == "nuts"
    assert tree["corrected_sample_stats"].attrs["engine"] == "importance"
    believed = cmc_result_to_arviz(make_result(inference_data=tree, samples=x, bfmi=None))
    assert believed["sample_stats"].attrs["engine"] == "importance"
    assert believed.attrs == tree.attrs == {"converged": 0, "verdict": "Not converged."}


def test_the_verdict_of_a_run_stands_above_its_pictures(drawn, tmp_path):
    tree = groups({"energy": np.ones((CHAINS, DRAWS)) + RNG.normal(size=(CHAINS, DRAWS))})
    tree.attrs = {"converged": 0, "verdict": "Not converged: do not use these numbers."}
    back = load_inference_data(save_inference_data(tree, tmp_path / "groups.nc"))
    figures = [
        plotting.plot_trace_summary(back),
        plotting.plot_pair_plot(back, divergences=False),
        plotting.plot_diagnostics_summary(back),
        plotting.plot_posterior_predictive(back, np.ones(5), np.arange(5.0)),
    ]
    plotting.generate_diagnostic_plots(back, tmp_path)
    assert len(drawn) == 5
    for figure in [*figures, *drawn]:
        assert figure.get_suptitle() == "Not converged: do not use these numbers."
    tree.attrs["converged"] = 1
    assert plotting.plot_trace_summary(tree).get_suptitle() == ""


@pytest.mark.parametrize(
    ("chains", "draws", "shift", "words"),
    [
        (4, 500, 0.0, ""),
        (4, 500, 1.0, "R-hat of x is"),
        (2, 100, 0.0, "effective draws (needed 400)"),
        (1, 500, 0.0, "one chain has no R-hat"),
    ],
)
def test_draws_that_have_not_converged_are_called_so(chains, draws, shift, words):
    x = np.random.default_rng(1).normal(size=(chains, draws)) + shift * np.arange(chains)[:, None]
    warning = plotting.plot_trace_summary(tree_of(posterior={"x": x})).get_suptitle()
    assert words in warning.replace("\n", " ")
    assert bool(warning) == bool(words)


def test_groups_of_corrected_draws_hold_their_own_record():
    plain, corrected = np.ones((CHAINS, DRAWS)), np.full((CHAINS, DRAWS), 2.0)
    known = groups({"energy": plain}, corrected_sample_stats={"energy": corrected})
    tree = cmc_result_to_arviz(make_result(inference_data=known))
    np.testing.assert_array_equal(tree["sample_stats"]["energy"], corrected)
    alone = cmc_result_to_arviz(make_result(inference_data=groups({"energy": plain})))
    np.testing.assert_array_equal(alone["sample_stats"]["energy"], plain)


def test_further_dimensions_become_quantities_of_their_own():
    tree = tree_of(posterior={"x": RNG.normal(size=(2, 50, 3))})
    figure = plotting.plot_trace_summary(tree)
    titles = [axes.get_title(loc="left") for axes in figure.axes[::2]]
    assert titles == ["x[0]", "x[1]", "x[2]"]
    np.testing.assert_array_equal(
        figure.axes[3].get_lines()[1].get_ydata(), tree["posterior"]["x"].values[1, :, 1]
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [({"figsize": (6, 0)}, "figsize"), ({"dpi": 0}, "dpi")],
)
def test_sizes_that_are_none_are_refused(tmp_path, change, match):
    with pytest.raises(ConfigError, match=match):
        plotting.plot_forest(groups(), tmp_path, **change)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("draw", [plotting.plot_autocorr, plotting.plot_ess])
def test_too_few_draws_are_refused(tmp_path, draw):
    with pytest.raises(DataError, match="or more"):
        draw(groups(draws=make_draws()[:, :1]), tmp_path)


def test_figures_show_themselves_in_a_notebook():
    figure = plotting.plot_diagnostics_summary(groups())
    content, size = figure._repr_png_()
    image = Image.open(io.BytesIO(content))
    assert image.format == "PNG"
    assert image.size[0] == pytest.approx(2 * size["width"], abs=2)
    assert size["width"] == pytest.approx(96 * figure.get_figwidth())


def test_limits_are_those_of_the_verdict(monkeypatch, tmp_path):
    seen = {}

    def note(rows, values, r_hat, ess, threshold):
        seen.update(r_hat=r_hat, ess=ess, bfmi=threshold)
        return style.notice("")

    monkeypatch.setattr(sampler, "diagnostics", note)
    plotting.plot_diagnostics_summary(groups())
    assert seen == {"r_hat": 1.01, "ess": 400.0, "bfmi": 0.3}
