"""The documented result: what it says, and that it says it of the draws it holds."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from arviz_stats.base.array import array_stats
from cmc_results import CENTRES, CHAINS, DRAWS, NAMES, WIDTHS, make_draws, make_result
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from heterodyne._errors import ConfigError, DataError
from heterodyne.optimization.cmc._summary import narrowest
from heterodyne.optimization.cmc.results import (
    CMCResult,
    ParameterStats,
    cmc_result_summary_table,
    cmc_result_to_arviz,
    compare_cmc_nlsq,
)
from heterodyne.optimization.nlsq.results import NLSQResult


@given(st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False)))
def test_parameter_stats_find_by_name_and_position(figures):
    found = ParameterStats(figures, list(figures.values()))
    assert dict(found) == figures
    assert [found[k] for k in range(len(found))] == [found[name] for name in figures]
    np.testing.assert_array_equal(found.as_array, list(figures.values()))
    again = pickle.loads(pickle.dumps(found))
    assert type(again) is ParameterStats
    assert again == found


def test_parameter_stats_refuse_what_they_do_not_hold():
    found = ParameterStats(["a", "b"], np.array([1.0, 2.0]))
    assert found[-1] == found["b"] == 2.0
    assert "a" in found
    assert found.get("c") is None
    with pytest.raises(IndexError):
        found[2]
    with pytest.raises(KeyError):
        found["c"]
    with pytest.raises(ValueError, match="zip"):
        ParameterStats(["a"], [1.0, 2.0])


def test_arguments_stand_in_the_documented_order():
    documented = [
        "parameter_names", "posterior_mean", "posterior_std", "credible_intervals",
        "convergence_passed", "r_hat", "ess_bulk", "ess_tail", "bfmi", "samples",
        "map_estimate", "num_warmup", "num_samples", "num_chains", "num_shards",
        "divergences", "wall_time_seconds", "metadata", "convergence_status",
        "warmup_time", "per_angle_mode", "chi_squared", "quality_flag", "mean_contrast",
        "std_contrast", "mean_offset", "std_offset", "inference_data",
    ]  # fmt: skip
    assert list(inspect.signature(CMCResult).parameters) == documented
    least = CMCResult(["a"], np.ones(1), np.ones(1), {}, False)
    assert (least.num_shards, least.per_angle_mode) == (1, "auto")
    assert (least.convergence_status, least.divergences) == ("not_converged", 0)
    assert least.metadata == {}
    assert least.metadata is not CMCResult(["a"], np.ones(1), np.ones(1), {}, False).metadata


def test_result_answers_by_name():
    result = make_result()
    assert result.n_params == 4
    assert result.parameters is result.posterior_mean
    assert result.uncertainties is result.posterior_std
    summary = result.get_param_summary("alpha_ref")
    assert summary["mean"] == result.posterior_mean[1]
    assert summary["95"] == result.credible_intervals["alpha_ref"]["95"]
    assert (summary["r_hat"], summary["ess_bulk"], summary["ess_tail"]) == (1.002, 910.0, 810.0)
    np.testing.assert_array_equal(result.get_samples("offset_0"), make_draws()[..., 3])
    with pytest.raises(KeyError, match="nonsense"):
        result.get_param_summary("nonsense")
    with pytest.raises(KeyError, match="nonsense"):
        result.get_samples("nonsense")


def test_what_was_not_measured_is_nan_and_draws_not_kept_are_none():
    result = make_result(r_hat=None, samples=None)
    assert np.isnan(result.get_param_summary("D0_ref")["r_hat"])
    assert result.get_samples("D0_ref") is None
    assert result.get_posterior_stats() == {}
    np.testing.assert_array_equal(
        result.get_samples_array(), np.full((CHAINS, DRAWS, len(NAMES)), np.nan)
    )


def test_limits_are_compared_one_by_one():
    result = make_result()
    assert result.validate_convergence() == []
    assert len(result.validate_convergence(r_hat_threshold=1.0025)) == 2
    tail = result.validate_convergence(min_ess=805)
    assert len(tail) == 1
    assert tail[0].startswith("D0_ref has 800 effective draws (tail")
    assert "BFMI is 0.90" in result.validate_convergence(min_bfmi=0.95)[0]
    unknown = make_result(bfmi=None, ess_bulk=None).validate_convergence()
    assert len(unknown) == 5


@pytest.mark.parametrize("flat", [False, True])
def test_draws_come_as_one_array(flat):
    draws = make_draws()
    samples = {
        name: draws[..., k].ravel() if flat else draws[..., k] for k, name in enumerate(NAMES)
    }
    np.testing.assert_array_equal(make_result(samples=samples).get_samples_array(), draws)


def test_missing_draws_are_nan():
    samples = {"D0_ref": make_draws()[..., 0], "alpha_ref": None}
    found = make_result(samples=samples).get_samples_array()
    np.testing.assert_array_equal(found[..., 0], samples["D0_ref"])
    assert np.isnan(found[..., 1:]).all()


@pytest.mark.parametrize(
    "samples",
    [
        {"D0_ref": np.zeros(7)},
        {"D0_ref": np.zeros((3, 4, 2))},
        {"D0_ref": np.zeros((3, 4)), "alpha_ref": np.zeros((3, 5))},
    ],
)
def test_draws_of_a_wrong_shape_are_refused(samples):
    with pytest.raises(DataError, match="shape"):
        make_result(samples=samples).get_samples_array()


def test_stats_are_those_of_the_draws():
    result = make_result(samples={n: make_draws()[..., k] for k, n in enumerate(NAMES[:3])})
    found = result.get_posterior_stats()
    assert list(found) == NAMES[:3]
    for k, name in enumerate(NAMES[:3]):
        x, at = make_draws()[..., k], found[name]
        assert at["mean"] == pytest.approx(x.mean())
        assert at["std"] == pytest.approx(x.std(ddof=1))
        assert at["median"] == np.median(x)
        assert at["hdi_95%"] - at["hdi_5%"] <= np.ptp(np.quantile(x, (0.05, 0.95))) * 1.001
        # The narrowest 90 % interval of a normal distribution is 3.29 deviations wide.
        assert at["hdi_95%"] - at["hdi_5%"] == pytest.approx(3.29 * WIDTHS[k], rel=0.12)
        assert at["r_hat"] == result.r_hat[k]


def test_diagnostics_that_are_not_held_are_measured():
    found = make_result(r_hat=None, ess_tail=None).get_posterior_stats()
    x = make_draws()[..., 1]
    at = found["alpha_ref"]
    assert at["r_hat"] == pytest.approx(float(array_stats.rhat(x, method="rank")), rel=1e-12)
    assert at["ess_tail"] == pytest.approx(
        float(array_stats.ess(x, method="tail", prob=(0.05, 0.95)))
    )
    assert at["ess_bulk"] == 910.0


def test_narrowest_interval_of_an_exponential_starts_at_its_mode():
    x = stats.expon.ppf((np.arange(10_000) + 0.5) / 10_000)
    low, high = narrowest(x, 0.9)
    assert low < 1e-3
    assert high == pytest.approx(stats.expon.ppf(0.9), rel=1e-3)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(0.05, 1.0))
def test_narrowest_interval_is_no_wider_than_any_other(values, share):
    x = np.array(values)
    low, high = narrowest(x, share)
    assert np.mean((x >= low) & (x <= high)) >= share - 1e-12
    ends = [b - a for a in x for b in x if a <= b and np.mean((x >= a) & (x <= b)) >= share]
    assert high - low <= min(ends)


def raw_samples(draws, **changes):
    given_ = {
        "samples": {name: draws[..., k].ravel() for k, name in enumerate(NAMES)},
        "param_names": list(NAMES),
        "n_chains": CHAINS,
        "n_samples": DRAWS,
    }
    return SimpleNamespace(**(given_ | changes))


def test_result_of_raw_draws_has_their_moments_and_convergence():
    draws = make_draws()
    raw = raw_samples(draws)
    found = CMCResult.from_mcmc_samples(
        raw, SimpleNamespace(num_divergent=2, wall_time=3.5), "static_ref", n_warmup=70
    )
    np.testing.assert_allclose(found.posterior_mean, draws.mean(axis=(0, 1)), rtol=1e-12)
    np.testing.assert_allclose(
        found.posterior_mean, CENTRES, atol=5 * WIDTHS.max() / np.sqrt(CHAINS * DRAWS), rtol=0.02
    )
    low, high = found.credible_intervals["alpha_ref"]["89"]
    assert (low, high) == tuple(np.quantile(draws[..., 1], (0.055, 0.945)))
    assert found.r_hat.max() < 1.02
    assert found.convergence_passed
    assert found.convergence_status == "converged"
    assert (found.divergences, found.wall_time_seconds, found.warmup_time) == (2, 3.5, None)
    assert (found.num_warmup, found.num_chains, found.num_samples) == (70, CHAINS, DRAWS)
    assert found.metadata == {"analysis_mode": "static_ref"}
    assert found.bfmi is None


@pytest.mark.parametrize("why", ["one chain elsewhere", "too few draws", "divergences", "shape"])
def test_raw_draws_that_did_not_converge_do_not_pass(why):
    draws, few, divergent = make_draws(), None, 0
    if why == "one chain elsewhere":
        draws[0, :, 1] += 3 * WIDTHS[1]
    elif why == "too few draws":
        few = 1e5
    elif why == "divergences":
        divergent = CHAINS * DRAWS // 5
    raw = raw_samples(draws)
    if why == "shape":
        raw = raw_samples(draws[:, :3], n_samples=3)
    found = CMCResult.from_mcmc_samples(raw, SimpleNamespace(num_divergent=divergent), min_ess=few)
    assert not found.convergence_passed
    assert found.convergence_status == "not_converged"


def test_names_without_raw_draws_are_refused():
    with pytest.raises(DataError, match="phi0"):
        CMCResult.from_mcmc_samples(
            raw_samples(make_draws(), param_names=[*NAMES, "phi0"]),
            SimpleNamespace(num_divergent=0),
        )


def test_energies_of_other_chains_are_not_dropped_in_silence(caplog):
    tree = cmc_result_to_arviz(make_result(bfmi=np.ones(12)))
    assert "sample_stats" not in tree.children
    assert "BFMI of 12 chains is left out, since there are 3" in caplog.text


def test_tree_holds_draws_and_bfmi():
    sigma = np.abs(make_draws(1)[..., 2])
    result = make_result()
    result.samples["sigma"] = sigma
    tree = cmc_result_to_arviz(result)
    assert set(tree["posterior"].data_vars) == {*NAMES, "sigma"}
    assert tree["posterior"]["D0_ref"].dims == ("chain", "draw")
    np.testing.assert_array_equal(tree["posterior"]["D0_ref"], make_draws()[..., 0])
    np.testing.assert_array_equal(tree["sample_stats"]["bfmi"], result.bfmi)


def test_tree_splits_flat_draws_into_chains():
    samples = {name: make_draws()[..., k].ravel() for k, name in enumerate(NAMES)}
    tree = cmc_result_to_arviz(make_result(samples=samples, bfmi=None))
    np.testing.assert_array_equal(tree["posterior"]["alpha_ref"], make_draws()[..., 1])
    assert "sample_stats" not in tree
    single = cmc_result_to_arviz(make_result(samples=samples, bfmi=None, num_chains=1))
    assert single["posterior"].sizes["chain"] == 1
    assert single["posterior"].sizes["draw"] == CHAINS * DRAWS


@pytest.mark.parametrize("samples", [None, {}])
def test_a_tree_of_no_draws_is_refused(samples):
    with pytest.raises(ValueError, match="no draws"):
        cmc_result_to_arviz(make_result(samples=samples))


def test_comparison_is_in_posterior_deviations():
    result = make_result(
        posterior_mean=np.array([10.0, 2.0, 5.0, 1.0]), posterior_std=np.array([2.0, 1.0, 0.0, 0.0])
    )
    fit = NLSQResult(
        np.array([15.0, 2.5, 5.0, 3.0, 1.5]),
        ("D0_ref", "alpha_ref", "contrast_0", "phi0", "offset_0"),
        np.ones(5),
        np.eye(5),
        True,
    )
    found = compare_cmc_nlsq(result, fit)
    assert found["common_parameters"] == NAMES
    assert found["differences"]["D0_ref"] == -5.0
    assert found["relative_deviations"] == {
        "D0_ref": 2.5, "alpha_ref": 0.5, "contrast_0": 0.0, "offset_0": np.inf
    }  # fmt: skip
    assert found["consistent"] == {
        "D0_ref": False, "alpha_ref": True, "contrast_0": True, "offset_0": False
    }  # fmt: skip
    assert (found["n_consistent"], found["n_inconsistent"]) == (2, 2)
    assert compare_cmc_nlsq(result, fit, 3.0)["n_consistent"] == 3


@pytest.mark.parametrize("level", ["95", "89"])
@pytest.mark.parametrize("width", [53, 60, 72, 80, 100])
def test_table_shows_every_figure_to_its_precision(level, width):
    result = make_result()
    lines = cmc_result_summary_table(result, level, width).splitlines()
    assert all(len(line) == width for line in lines)
    assert f"{level}% low" in lines[0]
    for k, line in enumerate(lines[2:]):
        name, mean, std, low, high, r_hat, ess = line.split()
        width_of = result.posterior_std[k]
        assert name == NAMES[k]
        assert float(mean) == pytest.approx(result.posterior_mean[k], abs=0.1 * width_of)
        assert float(std) == pytest.approx(width_of, rel=0.1)
        interval = result.credible_intervals[name][level]
        assert (float(low), float(high)) == pytest.approx(interval, abs=0.1 * width_of)
        assert (float(r_hat), float(ess)) == (result.r_hat[k], result.ess_bulk[k])


def test_a_narrow_table_cuts_gaps_before_names():
    names = ["D_offset_sample", *NAMES[1:]]
    result = make_result(parameter_names=names)
    for width, shown in ((60, "D_offset_sample "), (56, "D_offset_samp… "), (53, "D_offset_s… ")):
        lines = cmc_result_summary_table(result, width=width).splitlines()
        assert {len(line) for line in lines} == {width}
        assert lines[2].startswith(shown)
        assert [len(line.split()) for line in lines[2:]] == [7] * 4
    with pytest.raises(ConfigError, match=r"width: a table of 52 characters.*at least 53"):
        cmc_result_summary_table(result, width=52)


def test_figures_that_need_more_than_80_characters_have_them():
    wide = {"posterior_mean": np.full(4, 1.2345678e7), "posterior_std": np.full(4, 1e-6)}
    result = make_result(credible_intervals={n: {"95": (1.2e7, 1.3e7)} for n in NAMES}, **wide)
    assert str(result).splitlines()[-1].split()[1] == "12345678.0000000"
    with pytest.raises(ConfigError, match="width"):
        cmc_result_summary_table(result)


def test_table_says_what_is_not_known():
    result = make_result(r_hat=None, ess_bulk=None, credible_intervals={})
    assert cmc_result_summary_table(result).splitlines()[2].split()[3:] == ["N/A"] * 4
    with pytest.raises(ValueError, match="90"):
        cmc_result_summary_table(result, "90")


def verdict(*, converged):
    return {
        "verdict": {"headline": "Look <here>.", "converged": converged},
        "limits": {"r_hat": 1.1, "ess": 400.0},
    }


def test_verdict_comes_before_the_table():
    assert str(make_result()).startswith("Converged.\n")
    failed = make_result(convergence_passed=False, convergence_status="not_converged")
    assert str(failed).startswith("Not converged")
    assert "4 parameters, 3 chains of 400 draws, not_converged" in repr(failed)
    judged = make_result(metadata=verdict(converged=True), quality_flag="good")
    assert str(judged).splitlines()[0] == "Look <here>."
    assert "wider limits" not in str(judged)
    assert repr(judged).endswith("converged, good)")
    html = judged._repr_html_()
    assert html.index("Look &lt;here&gt;.") < html.index("<table>")
    assert html.count("<tr>") == 1 + len(NAMES)


def test_wider_limits_are_told_apart_from_the_verdict():
    text = str(make_result(metadata=verdict(converged=False)))
    assert "The wider limits of the configuration were reached (R-hat 1.1, 400" in text


def test_plain_figures_are_shown_below_the_corrected_ones():
    mixed = {"r_hat": 1.234, "ess_bulk": 77.0, "ess_tail": 66.0}
    narrow = {
        name: mixed
        | {"mean": m, "std": 3 * s, "95": (m - 6 * s, m + 6 * s), "89": (m - 5 * s, m + 5 * s)}
        for name, m, s in zip(NAMES, CENTRES, WIDTHS, strict=True)
    }
    result = make_result(metadata=verdict(converged=True) | {"plain": narrow})
    corrected, plain = str(result).split("For independent pairs")
    row = next(line for line in plain.splitlines() if line.startswith("D0_ref"))
    assert row.split()[1:] == ["10000", "900", "8200", "11800", "1.234", "77"]
    assert "900 " not in corrected
    assert result._repr_html_().count("<table>") == 2


def test_settings_and_results_load_without_jax():
    code = (
        "import sys; from heterodyne.optimization.cmc import CMCConfig, CMCResult; "
        "import heterodyne.optimization.cmc.io; print('jax' in sys.modules); "
        "import heterodyne.optimization.cmc as cmc; print(set(cmc.__all__) <= set(dir(cmc)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == ["False", "True"]


def test_names_of_the_package_are_found():
    import heterodyne.optimization.cmc as cmc

    assert cmc.CMCResult is CMCResult
    assert all(callable(getattr(cmc, name)) for name in cmc.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = cmc.nonsense
