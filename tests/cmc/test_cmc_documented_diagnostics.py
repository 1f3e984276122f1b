"""The documented diagnostics: measures, limits, words and advice."""

from __future__ import annotations

import json
import logging
import math
from types import SimpleNamespace

import numpy as np
import pytest
from arviz_stats.base.array import array_stats
from cmc_results import NAMES, make_result
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.signal import lfilter

from heterodyne._errors import ConfigError, DataError
from heterodyne.config.cmc import CMCConfig
from heterodyne.optimization.cmc import diagnostics
from heterodyne.optimization.cmc._sampler import Schedule
from heterodyne.optimization.cmc.diagnostics import (
    ConvergenceReport,
    DivergenceReport,
    analyze_divergences,
    check_convergence,
    compute_bfmi,
    compute_ess,
    compute_nlsq_comparison_metrics,
    compute_pair_correlations,
    compute_posterior_contraction,
    compute_precision_analysis,
    compute_r_hat,
    compute_trace_diagnostics,
    create_diagnostics_dict,
    get_convergence_recommendations,
    log_analysis_summary,
    log_precision_analysis,
    summarize_diagnostics,
    validate_convergence,
    validate_convergence_sharded,
)

NAN = math.nan
LOGGER = "heterodyne.optimization.cmc.diagnostics"


def autoregressive(rho, chains, draws, seed=0):
    """Normal draws of unit variance with autocorrelation rho**lag, shape (chains, draws)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(chains, draws))
    x[:, 1:] *= math.sqrt(1 - rho**2)
    return lfilter([1.0], [1.0, -rho], x, axis=1)


# --- limits ---------------------------------------------------------------------------


def test_a_good_result_passes_every_criterion():
    assert validate_convergence(make_result()) == ConvergenceReport(True, True, True, True, [])


@pytest.mark.parametrize(
    ("changes", "failing", "message"),
    [
        ({"r_hat": np.array([1.0, 1.2, 1.0, 1.0])}, "r_hat", "R-hat of alpha_ref is 1.200 (allo"),
        ({"r_hat": np.array([1.0, NAN, 1.0, 1.0])}, "r_hat", "R-hat of alpha_ref is not known"),
        ({"ess_bulk": np.array([99.0, 1e3, 1e3, 1e3])}, "ess", "D0_ref has 99 effective draws (b"),
        ({"ess_tail": np.array([1e3, 1e3, 1e3, 7.0])}, "ess", "offset_0 has 7 effective draws (t"),
        ({"ess_tail": np.array([1e3, NAN, 1e3, 7e2])}, "ess", "Effective draws of alpha_ref are"),
        ({"bfmi": np.array([0.9, 0.2, 0.9])}, "bfmi", "BFMI is 0.20 (needed 0.3)"),
        ({"bfmi": np.array([0.9, NAN, 0.9])}, "bfmi", "BFMI is not known"),
        ({"bfmi": None}, "bfmi", "BFMI is not known"),
        ({"num_chains": 1}, "r_hat", "R-hat needs chains to compare"),
    ],
)
def test_each_criterion_fails_on_its_own(changes, failing, message):
    report = validate_convergence(make_result(**changes))
    passed = {"r_hat": report.r_hat_passed, "ess": report.ess_passed, "bfmi": report.bfmi_passed}
    assert passed == {name: name != failing for name in passed}
    assert not report.passed
    (sentence,) = report.messages
    assert sentence.startswith(message)


def test_what_was_not_measured_does_not_pass():
    report = validate_convergence(make_result(r_hat=None, ess_bulk=None, ess_tail=None, bfmi=None))
    assert (report.r_hat_passed, report.ess_passed, report.bfmi_passed) == (False,) * 3
    assert len(report.messages) == 3 * len(NAMES) + 1
    empty = make_result(parameter_names=[], posterior_mean=np.zeros(0), posterior_std=np.zeros(0))
    report = validate_convergence(empty)
    assert (report.r_hat_passed, report.ess_passed) == (False, False)


def test_limits_are_arguments_and_figures_at_a_limit_meet_it():
    result = make_result()
    assert validate_convergence(result, 1.004, 800.0, 0.9).passed
    assert not validate_convergence(result, r_hat_threshold=1.0039).r_hat_passed
    assert not validate_convergence(result, min_ess=800.1).ess_passed
    assert not validate_convergence(result, min_bfmi=0.91).bfmi_passed
    assert result.validate_convergence(1.0, 1e4, 2.0) == (
        validate_convergence(result, 1.0, 1e4, 2.0).messages
    )


def test_one_bad_shard_fails_all_and_the_worst_figures_come_first():
    bad = make_result(
        r_hat=np.array([1.0, 1.3, NAN, 1.0]),
        ess_tail=np.array([900.0, 900.0, 50.0, 900.0]),
        bfmi=np.array([0.1, 1.0, 1.0]),
    )
    report = validate_convergence_sharded([make_result(), bad, make_result()])
    assert (report.passed, report.r_hat_passed) == (False, False)
    assert (report.ess_passed, report.bfmi_passed) == (False, False)
    first, *others = report.messages
    assert "largest R-hat is 1.300 (alpha_ref, shard 1; 1 not known)" in first
    assert "fewest effective draws are 50 (contrast_0, shard 1)" in first
    assert others == [f"Shard 1: {text}" for text in validate_convergence(bad).messages]


def test_good_shards_pass_and_no_shards_do_not():
    report = validate_convergence_sharded([make_result(), make_result()])
    assert report.passed
    assert len(report.messages) == 1
    assert not validate_convergence_sharded([]).passed
    assert not validate_convergence_sharded([make_result()], min_bfmi=0.95).bfmi_passed
    unknown = make_result(r_hat=None)
    assert "largest R-hat is not known" in validate_convergence_sharded([unknown]).messages[0]


# --- measures -------------------------------------------------------------------------


def test_measures_are_those_of_arviz_for_arrays_and_by_name():
    x, y = autoregressive(0.5, 4, 400), autoregressive(0.0, 4, 400, 1) + np.arange(4)[:, None]
    r_hat, ess = compute_r_hat({"x": x, "y": y}), compute_ess({"x": x, "y": y})
    for name, draws in {"x": x, "y": y}.items():
        assert r_hat[name] == pytest.approx(float(array_stats.rhat(draws, method="rank")))
        assert ess[name] == pytest.approx(float(array_stats.ess(draws, method="bulk")))
    assert compute_r_hat(x) == r_hat["x"] < 1.02
    assert compute_ess(x) == ess["x"]
    assert r_hat["y"] > 1.5


def test_effective_draws_of_one_chain_are_those_of_theory():
    x = autoregressive(0.6, 1, 40_000)
    assert compute_ess(x[0]) == pytest.approx(40_000 * 0.4 / 1.6, rel=0.1)


@pytest.mark.parametrize(
    "draws",
    [np.arange(50.0), np.ones((2, 50)), np.ones((2, 3)), np.full((2, 50), NAN)],
    ids=["one chain", "constant", "too few", "not finite"],
)
def test_r_hat_that_cannot_be_known_is_nan(draws):
    assert math.isnan(compute_r_hat(draws))
    if draws.ndim == 2:
        assert math.isnan(compute_ess(draws))


def test_draws_of_another_shape_are_refused():
    with pytest.raises(DataError, match="shape"):
        compute_r_hat(np.ones((2, 3, 4)))


def test_bfmi_is_that_of_arviz():
    energy = autoregressive(0.8, 3, 1000, 2)
    found = compute_bfmi(energy)
    # ArviZ divides the variance by n - 1.
    np.testing.assert_allclose(found, array_stats.bfmi(energy) * 1000 / 999, rtol=1e-12)
    one = compute_bfmi(energy[1])
    assert isinstance(one, float)
    assert one == found[1]
    assert np.isnan(compute_bfmi(np.ones((2, 9)))).all()
    assert math.isnan(compute_bfmi(np.ones(1)))


# --- divergences ----------------------------------------------------------------------


def test_divergences_are_counted_over_chains_and_told_by_chain():
    flags = np.zeros((4, 500), bool)
    flags[2, :30] = flags[3, :10] = True
    report = analyze_divergences({"x": np.zeros((4, 500)), "diverging": flags})
    assert report.divergence_rate == 40 / 2000
    assert (report.n_divergent, report.n_total, report.severity) == (40, 2000, "moderate")
    text = " ".join(report.messages)
    assert "Chain 2: 30 of 500 draws (6%)" in text
    assert "Chain 3: 10 of 500" in text
    assert "Chain 0" not in text
    assert "target_accept_prob" in text


@pytest.mark.parametrize(
    ("count", "severity"),
    [(0, "none"), (1, "low"), (10, "low"), (11, "moderate"), (1000, "moderate"), (1001, "severe")],
)
def test_severity_grows_with_the_rate(count, severity):
    report = analyze_divergences({"diverging": np.arange(10_000) < count})
    assert (report.n_divergent, report.severity) == (count, severity)
    assert any("target_accept" in text for text in report.messages) is (count > 10)


def test_divergences_of_a_result_count_over_chains_and_shards():
    result = make_result(divergences=60, num_chains=3, num_samples=400, num_shards=5)
    report = analyze_divergences(result)
    assert (report.n_divergent, report.n_total) == (60, 6000)
    assert report.divergence_rate == 0.01
    result.extra_fields = {"diverging": np.eye(3, 400)}
    assert analyze_divergences(result).n_divergent == 3
    assert analyze_divergences(result).n_total == 1200


def test_unknown_divergences_are_not_taken_for_none():
    too_many = make_result(divergences=1201)
    for given_ in ({"x": np.zeros((2, 9))}, make_result(num_samples=0), too_many):
        report = analyze_divergences(given_)
        assert isinstance(report, DivergenceReport)
        assert math.isnan(report.divergence_rate)
        assert report.severity == "unknown"


# --- chains and pairs -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("rho", "stationary", "quality"),
    [(0.0, True, "good"), (0.7, False, "moderate"), (0.97, False, "poor")],
)
def test_memory_of_a_chain_is_that_of_theory(rho, stationary, quality):
    x = autoregressive(rho, 20, 4000, 3)
    found = compute_trace_diagnostics(x)
    assert list(found["autocorr"]) == [1, 5, 10]
    for lag, value in found["autocorr"].items():
        assert value == pytest.approx(rho**lag, abs=0.04)
    assert (found["stationary"], found["mixing_quality"]) == (stationary, quality)
    assert (found["n_chains"], found["n_draws"]) == (20, 4000)
    assert found["mean"] == pytest.approx(x.mean())
    assert found["std"] == pytest.approx(x.std(ddof=1))


def test_the_worst_chain_decides_on_mixing():
    x = np.stack([*autoregressive(0.0, 9, 2000), autoregressive(0.95, 1, 2000)[0]])
    found = compute_trace_diagnostics(x, lags=(0, 3000))
    assert found["mixing_quality"] == "poor"
    assert found["stationary"] is False
    assert found["autocorr"][0] == pytest.approx(1.0)
    assert math.isnan(found["autocorr"][3000])


def test_a_stuck_chain_does_not_mix():
    found = compute_trace_diagnostics(np.ones(100))
    assert (found["stationary"], found["mixing_quality"]) == (False, "poor")
    assert (found["n_chains"], found["n_draws"]) == (1, 100)
    with pytest.raises(ConfigError, match="negative"):
        compute_trace_diagnostics(np.arange(9.0), lags=(-1,))
    with pytest.raises(DataError, match="no draws"):
        compute_trace_diagnostics(np.zeros((2, 0)))


def test_pair_correlations_are_those_of_the_distribution():
    rng = np.random.default_rng(5)
    truth = np.array([[1.0, 0.95, -0.3], [0.95, 1.0, 0.0], [-0.3, 0.0, 1.0]])
    draws = rng.multivariate_normal(np.zeros(3), truth, size=(4, 5000))
    scales = {"a": 1e-9, "b": 1e4, "c": 1.0}
    samples = {name: 7.0 + s * draws[..., k] for k, (name, s) in enumerate(scales.items())}
    samples["a"] = samples["a"] - 7.0
    samples["c"] = samples["c"].ravel()
    found = compute_pair_correlations(samples)
    matrix = np.array([[found[a][b] for b in "abc"] for a in "abc"])
    np.testing.assert_allclose(matrix, truth, atol=0.03)
    flat = [np.ravel(x) for x in samples.values()]
    np.testing.assert_allclose(matrix, np.corrcoef(flat), atol=1e-9)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(np.diag(matrix), 1.0)


def test_pair_correlations_at_the_edges():
    assert compute_pair_correlations({"a": np.arange(5.0)}) == {}
    found = compute_pair_correlations({"a": np.arange(5.0), "b": np.full(5, 0.1)})
    assert math.isnan(found["a"]["b"])
    assert found["b"]["b"] == 1.0
    with pytest.raises(DataError, match=r"a 5, b 6"):
        compute_pair_correlations({"a": np.arange(5.0), "b": np.arange(6.0)})


# --- criteria on figures by name ------------------------------------------------------

GOOD = ({"a": 1.001, "b": 1.005}, {"a": 900.0, "b": 500.0})


def test_defaults_are_those_of_the_configuration():
    config = CMCConfig()
    assert config.max_r_hat == diagnostics.DEFAULT_MAX_RHAT
    assert config.min_ess == diagnostics.DEFAULT_MIN_ESS
    assert config.max_divergence_rate == diagnostics.DEFAULT_MAX_DIVERGENCE_RATE


def test_good_figures_converge_without_a_word():
    assert check_convergence(*GOOD, 0, 1000, 4) == ("converged", [])


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        (({"a": 1.2}, {"a": 900.0}, 0, 1000, 4), "R-hat of a is 1.200 (allowed 1.1)"),
        (({"a": NAN}, {"a": 900.0}, 0, 1000, 4), "R-hat of a is not known"),
        (({"a": None}, {"a": 900.0}, 0, 1000, 4), "R-hat of a is not known"),
        (({"a": math.inf}, {"a": 900.0}, 0, 1000, 4), "R-hat of a is inf"),
        (({"a": 1.0}, {"a": 399.0}, 0, 1000, 4), "a has 399 effective draws (bulk; needed 400)"),
        (({"a": 1.0}, {"a": NAN}, 0, 1000, 4), "Effective draws of a are not known"),
        (({"a": 1.0}, {"a": 900.0, "b": 9e2}, 0, 1000, 4), "R-hat of b is not known"),
        (({"a": 1.0, "b": 1.0}, {"a": 900.0}, 0, 1000, 4), "Effective draws of b are not known"),
        (({"a": 1.0}, {"a": 900.0}, 401, 1000, 4), "401 draws diverged, 10.03% (allowed 10%)"),
        (({"a": 1.0}, {"a": 900.0}, 0, 1000, 1), "R-hat needs chains to compare"),
    ],
)
def test_each_limit_that_is_not_met_is_named(figures, words):
    status, warnings = check_convergence(*figures)
    assert status == "not_converged"
    (sentence,) = warnings
    assert sentence.startswith(words)


def test_no_figures_and_no_draws_are_no_convergence():
    assert check_convergence({}, {}, 0, 1000, 4)[0] == "not_converged"
    status, warnings = check_convergence(*GOOD, 0, 0, 4)
    assert status == "not_converged"
    assert "no draws" in warnings[0]


def test_limits_of_figures_are_arguments():
    assert check_convergence(*GOOD, 0, 1000, 4, max_rhat=1.004)[0] == "not_converged"
    assert check_convergence(*GOOD, 0, 1000, 4, max_rhat=1.005, min_ess=500)[0] == "converged"
    assert check_convergence(*GOOD, 0, 1000, 4, min_ess=501)[0] == "not_converged"
    assert check_convergence(*GOOD, 400, 1000, 4)[0] == "converged"
    assert check_convergence(*GOOD, 5, 1000, 4, max_divergence_rate=0.001)[0] == "not_converged"


def test_divergences_are_held_against_the_draws_of_all_shards():
    assert check_convergence(*GOOD, 500, 1000, 4)[0] == "not_converged"
    assert check_convergence(*GOOD, 500, 1000, 4, num_shards=2)[0] == "converged"
    with pytest.raises(ConfigError, match="4001 divergences of 4000 draws"):
        check_convergence(*GOOD, 4001, 1000, 4)
    with pytest.raises(ConfigError, match="n_samples: -1 is negative"):
        check_convergence(*GOOD, 0, -1, 4)


def test_what_a_verdict_would_refuse_is_said_though_it_converged():
    status, warnings = check_convergence({"a": 1.08, "b": 1.0}, {"a": 4e2, "b": 4e2}, 40, 1000, 4)
    assert status == "converged"
    assert len(warnings) == 2
    assert "R-hat of a is 1.080: within 1.1" in warnings[0]
    assert "1% of the draws diverged: within 10%" in warnings[1]


def test_diagnostics_become_strict_json():
    found = create_diagnostics_dict(
        {"a": np.float64(1.01), "b": NAN}, {"a": 400.0, "b": math.inf}, {"a": 300, "b": 2.0},
        np.int64(8), "converged", ("careful",), 4, 500, 1000, 12.5, None, num_shards=2,
    )  # fmt: skip
    assert found == {
        "convergence_status": "converged",
        "warnings": ["careful"],
        "r_hat": {"a": 1.01, "b": None},
        "ess_bulk": {"a": 400.0, "b": None},
        "ess_tail": {"a": 300, "b": 2.0},
        "divergences": 8,
        "divergence_rate": 0.001,
        "n_chains": 4,
        "n_warmup": 500,
        "n_samples": 1000,
        "num_shards": 2,
        "warmup_time": 12.5,
        "sampling_time": None,
    }
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_summary_is_one_line_with_the_worst_figures():
    text = summarize_diagnostics({"a": 1.001, "b": 1.02}, {"a": 420.4, "b": 900.0}, 3, 250, 4)
    assert text == "Diagnostics: R-hat(max)=1.020, ESS(min)=420, divergences=3 (0.3%)"
    text = summarize_diagnostics({"a": 1.0}, {"a": 9.0}, 3, 250, 4, num_shards=3)
    assert text.endswith("divergences=3 (0.1%)")


def test_summary_skips_what_is_not_known_but_counts_it():
    text = summarize_diagnostics({"a": NAN, "b": 1.02, "c": NAN}, {"a": 9.0}, 0, 0, 4)
    assert text == (
        "Diagnostics: R-hat(max)=1.020 (2 not known), ESS(min)=9 (2 not known), "
        "divergences=0 (rate not known)"
    )
    assert "R-hat(max)=not known" in summarize_diagnostics({"a": NAN}, {}, 0, 10, 4)


def test_good_draws_need_no_advice():
    assert get_convergence_recommendations(1.01, 400.0, 4, 1000, 4) == []


def test_advice_names_figure_and_remedy():
    r_hat, ess, divergences = get_convergence_recommendations(1.3, 50.0, 40, 1000, 4)
    assert "1.300 (allowed 1.01)" in r_hat
    # More warm-up than a fit takes changes nothing.
    assert "raise num_samples from 1000; num_warmup helps where it is below 400" in r_hat
    settings = [Schedule.of(CMCConfig(num_warmup=n), 10**6, 20) for n in (1500, 5000)]
    assert settings[0] == settings[1]
    assert settings[0].n_stages * settings[0].n_adapt == 400
    assert "shards" not in r_hat
    assert "are 50 (needed 400)" in ess
    assert "from 1000 to about 8000" in ess
    assert "40 draws diverged, 1% (allowed 0.1%)" in divergences
    assert "target_accept_prob" in divergences


def test_advice_knows_chains_shards_and_what_is_missing():
    (text,) = get_convergence_recommendations(1.0, 500.0, 0, 1000, 1)
    assert "num_chains to 2 or more" in text
    shards = get_convergence_recommendations(1.3, 500.0, 40, 1000, 4, num_shards=8)
    assert len(shards) == 2
    assert "fewer and larger shards than 8" in shards[0]
    assert "40 draws of 8 shards diverged, 0.125%" in shards[1]
    unknown = get_convergence_recommendations(NAN, NAN, 0, 0, 4)
    assert len(unknown) == 3
    assert all("not known" in text for text in unknown)
    (text,) = get_convergence_recommendations(1.0, 0.0, 0, 100, 4)
    assert "are 0 (needed 400)" in text


@pytest.mark.parametrize(
    ("status", "succeeded", "level"),
    [
        ("converged", 4, logging.INFO),
        ("not_converged", 4, logging.ERROR),
        ("converged", 3, logging.ERROR),
    ],
)
def test_analysis_is_logged_at_the_level_of_its_outcome(caplog, status, succeeded, level):
    with caplog.at_level(logging.DEBUG, LOGGER):
        log_analysis_summary(status, *GOOD, 60, 500, 4, 4, succeeded, 12.34)
    assert {(record.name, record.levelno) for record in caplog.records} == {(LOGGER, level)}
    assert f"{status} after 12.3 s" in caplog.text
    assert f"{succeeded} of 4 have draws" in caplog.text
    # Only shards that succeeded have draws.
    assert summarize_diagnostics(*GOOD, 60, 500, 4, succeeded) in caplog.text
    assert ("not in the posterior" in caplog.text) is (succeeded < 4)


# --- precision ------------------------------------------------------------------------


def test_contraction_is_one_minus_the_ratio_of_deviations():
    result = make_result(posterior_std=np.array([100.0, 0.1, 0.3, NAN]))
    found = compute_posterior_contraction(
        result, {"D0_ref": 1000.0, "alpha_ref": 0.1, "contrast_0": 0.2, "offset_0": 1.0, "v0": 1.0}
    )
    assert list(found) == NAMES
    assert found["D0_ref"] == pytest.approx(0.9)
    assert found["alpha_ref"] == pytest.approx(0.0)
    assert found["contrast_0"] == pytest.approx(-0.5)
    assert math.isnan(found["offset_0"])


def test_contraction_without_a_prior_is_not_known():
    found = compute_posterior_contraction(make_result(), {"D0_ref": math.inf})
    assert found["D0_ref"] == 1.0
    assert math.isnan(found["alpha_ref"])
    with pytest.raises(ConfigError, match=r"D0_ref has the prior standard deviation 0\. Allowed"):
        compute_posterior_contraction(make_result(), {"D0_ref": 0.0})


DISTRIBUTIONS = {
    "normal": (stats.norm(5.0, 2.0), stats.norm(5.0, 2.0).interval(0.95)),
    "exponential": (stats.expon(scale=3.0), (0.0, stats.expon(scale=3.0).ppf(0.95))),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_precision_is_that_of_the_distribution(name):
    distribution, (low, high) = DISTRIBUTIONS[name]
    x = distribution.ppf((np.arange(40_000) + 0.5) / 40_000)
    np.random.default_rng(0).shuffle(x)
    found = compute_precision_analysis({"p": x.reshape(4, -1)})["p"]
    assert list(found) == ["mean", "std", "cv", "hdi_width"]
    assert found["mean"] == pytest.approx(distribution.mean(), rel=1e-3)
    assert found["std"] == pytest.approx(distribution.std(), rel=1e-3)
    assert found["cv"] == pytest.approx(distribution.std() / distribution.mean(), rel=1e-3)
    assert found["hdi_width"] == pytest.approx(high - low, rel=2e-3)


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=60))
def test_interval_is_that_of_arviz_but_for_one_draw(values):
    x = np.array(values, float) / 7.0
    width = compute_precision_analysis({"p": x})["p"]["hdi_width"]
    # ArviZ counts draws beyond the first, so its interval may hold one draw more.
    assert width <= np.ptp(array_stats.hdi(x, 0.95)) + 1e-12
    fewer = max((math.ceil(0.95 * x.size) - 1) / x.size, 0.5 / x.size)
    assert width >= np.ptp(array_stats.hdi(x, fewer - 1e-9)) - 1e-12


def test_precision_at_the_edges():
    found = compute_precision_analysis(
        {
            "zero": [-1.0, 1.0],
            "negative": [-1.0, -3.0],
            "one": [3.0],
            "held": [0.1] * 9,
            "nan": [NAN],
        }
    )
    assert found["zero"]["cv"] == math.inf
    assert found["negative"]["cv"] == pytest.approx(math.sqrt(2.0) / 2.0)
    assert math.isnan(found["one"]["std"])
    assert math.isnan(found["one"]["hdi_width"])
    assert (found["held"]["std"], found["held"]["cv"], found["held"]["hdi_width"]) == (0, 0, 0)
    assert all(math.isnan(x) for x in found["nan"].values())
    with pytest.raises(DataError, match="no draws of p"):
        compute_precision_analysis({"p": []})


def test_comparison_with_the_fit():
    x = stats.norm(10.0, 2.0).ppf((np.arange(10_000) + 0.5) / 10_000).reshape(4, -1)
    samples = {"a": x, "b": x, "c": x, "held": np.full(50, 0.1)}
    found = compute_nlsq_comparison_metrics(
        samples, {"a": 13.0, "b": 14.0, "held": 0.1, "unknown": 1.0}
    )
    assert list(found) == ["a", "b", "held"]
    assert found["a"]["posterior_mean"] == pytest.approx(10.0)
    assert found["a"]["posterior_std"] == pytest.approx(2.0, rel=1e-3)
    assert found["a"]["nlsq_value"] == 13.0
    assert found["a"]["z_score"] == pytest.approx(1.5, rel=1e-3)
    # The narrowest 95 % of this distribution end at 10 + 1.96 * 2.
    assert (found["a"]["within_hdi"], found["b"]["within_hdi"]) == (1.0, 0.0)
    assert math.isnan(found["held"]["z_score"])
    assert found["held"]["within_hdi"] == 1.0
    unknown = compute_nlsq_comparison_metrics({"a": [1.0, 2.0]}, {"a": NAN})["a"]
    assert math.isnan(unknown["within_hdi"])


FULL = {
    "cmc_mean": 1.2345e4, "cmc_std": 321.0, "nlsq_value": 1.2e4, "z_score": 1.0748,
    "relative_diff": 0.0288, "uncertainty_ratio": 1.25, "posterior_contraction": 0.875,
}  # fmt: skip


def test_report_shows_every_figure():
    lines = []
    report = log_precision_analysis({"D0_ref": FULL}, lines.append)
    assert lines == [report]
    (row,) = [line for line in report.splitlines() if line.startswith("D0_ref")]
    assert row.split() == ["D0_ref", "12345", "3.2e+02", "12000", "1.07", "+2.9%", "1.25x", "0.88"]
    assert "[WARN]" not in report


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"z_score": 3.1}, "3.1 standard deviations apart (z > 3)"),
        ({"z_score": -3.1}, "3.1 standard deviations apart"),
        ({"relative_diff": -0.21}, "differ by 21% (|diff| > 20%)"),
        ({"uncertainty_ratio": 0.49}, "0.49 of the uncertainty of the fit (ratio < 0.5x)"),
    ],
)
def test_report_marks_what_disagrees(changes, reason):
    report = log_precision_analysis({"a": FULL, "b": FULL | changes}, lambda text: None)
    rows = {line.split()[0]: line for line in report.splitlines() if line[:2] in ("a ", "b ")}
    assert rows["b"].endswith("[WARN]")
    assert "[WARN]" not in rows["a"]
    (why,) = [line for line in report.splitlines() if line.startswith("[WARN]")]
    assert why.startswith("[WARN] b: ")
    assert reason in why


def test_figures_at_their_limits_are_not_marked():
    at = FULL | {"z_score": 3.0, "relative_diff": 0.2, "uncertainty_ratio": 0.5}
    assert "[WARN]" not in log_precision_analysis({"a": at}, lambda text: None)
    assert "[WARN]" in log_precision_analysis({"a": at}, lambda text: None, tolerance_pct=19.0)


def test_report_takes_what_the_analyses_return(caplog):
    x = np.random.default_rng(1).normal(5.0, 1.0, 500)
    precision = compute_precision_analysis({"p": x})
    with caplog.at_level(logging.INFO, LOGGER):
        report = log_precision_analysis(precision)
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == (LOGGER, logging.INFO, report)
    (row,) = [line for line in report.splitlines() if line.startswith("p ")]
    assert row.split() == ["p", f"{x.mean():.5g}", f"{x.std(ddof=1):.2g}", *"–––––"]
    compared = compute_nlsq_comparison_metrics({"p": x}, {"p": 9.0})
    report = log_precision_analysis(compared, lambda text: None)
    assert "[WARN] p: mean and fit are 4" in report


def test_report_lines_up_and_never_shows_unknown_as_zero():
    entries = {"p" * 30: FULL, "q": FULL | {"z_score": NAN}, "r": {}}
    lines = log_precision_analysis(entries, lambda text: None).splitlines()
    assert len({len(line) for line in lines[1:]}) == 1
    (row,) = [line for line in lines if line.startswith("q ")]
    assert row.split()[4] == "–"
    assert lines[-2].split() == ["r", *"–––––––"]


def test_results_need_no_more_than_the_documented_attributes():
    plain = SimpleNamespace(parameter_names=["a"], posterior_std=[0.5])
    assert compute_posterior_contraction(plain, {"a": 1.0}) == {"a": 0.5}
