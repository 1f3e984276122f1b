"""The documented entry point, on simulated data with known truth."""

from __future__ import annotations

import inspect
import logging
from dataclasses import replace

import numpy as np
import pytest
import xarray
from core_cases import (
    ANGLES,
    DT,
    FREE,
    NAMES,
    SCALES,
    SIGMA,
    SMALL,
    TRUE,
    N,
    Q,
    StopError,
    fit_result,
    make_model,
    simulate,
)

from heterodyne._errors import ConfigError, DataError
from heterodyne._events import Message, ignore_events
from heterodyne.config.cmc import CMCConfig
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.optimization.cmc import _analysis, core, io
from heterodyne.optimization.cmc._passes import Keeper, Passes, Sampled
from heterodyne.optimization.cmc._sampler import Schedule
from heterodyne.optimization.cmc._to_result import _per_angle, result_of
from heterodyne.optimization.cmc.core import fit_cmc_multi_phi
from heterodyne.optimization.cmc.diagnostics import analyze_divergences
from heterodyne.optimization.cmc.results import cmc_result_to_arviz, compare_cmc_nlsq
from heterodyne.optimization.scaling import Scaling, ScalingMode


@pytest.fixture(scope="module")
def run():
    """One small run: its result, and the analysis that it was made of."""
    seen = []

    def analyse(*args, **kwargs):
        seen.append(core_analyse(*args, **kwargs))
        return seen[-1]

    core_analyse = core.analyse
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "analyse", analyse)
        result = fit_cmc_multi_phi(make_model(), simulate(ANGLES), ANGLES, SMALL)
    return result, seen[0]


def test_signature_is_the_documented_one():
    assert str(inspect.signature(fit_cmc_multi_phi)).partition(" ->")[0].count("None") == 6
    assert list(inspect.signature(fit_cmc_multi_phi).parameters) == [
        "model", "c2_data", "phi_angles", "config", "nlsq_results", "sigma"
    ]  # fmt: skip


def test_posterior_covers_the_truth_and_agrees_with_least_squares(run):
    result, analysis = run
    assert result.parameter_names == NAMES
    truth = TRUE | SCALES
    for name in NAMES:
        at = result.get_param_summary(name)
        assert abs(at["mean"] - truth[name]) < 4.5 * at["std"], name
    fit = analysis.fit.result
    # With weak priors and independent errors the posterior is nearly that of the fit.
    errors = np.array([fit.get_uncertainty(name) for name in NAMES])
    np.testing.assert_allclose(result.posterior_std, errors, rtol=0.25)
    compared = compare_cmc_nlsq(result, fit, 0.5)
    assert compared["n_consistent"] == len(NAMES)
    best = np.array([fit.get_param(name) for name in NAMES])
    assert np.abs((result.map_estimate - best) / errors).max() < 0.3


def test_figures_are_those_of_the_draws(run):
    result, analysis = run
    assert set(result.samples) == {*NAMES, "sigma"}
    assert result.samples["sigma"].mean() == pytest.approx(SIGMA, rel=0.2)
    draws = result.get_samples_array()
    assert draws.shape == (result.num_chains, result.num_samples, len(NAMES))
    assert (result.num_chains, result.num_shards) == (2, 1)
    assert result.num_warmup == analysis.draws.trajectories.warmup_steps > 0
    np.testing.assert_allclose(result.posterior_mean, draws.mean(axis=(0, 1)), rtol=1e-12)
    for k, name in enumerate(NAMES):
        for level, ends in (("95", (0.025, 0.975)), ("89", (0.055, 0.945))):
            expected = np.quantile(draws[..., k], ends)
            assert result.credible_intervals[name][level] == pytest.approx(tuple(expected))
        assert result.r_hat[k] == analysis.diagnosis.r_hat[name]
        assert result.ess_bulk[k] == analysis.diagnosis.ess_bulk[name]
        assert result.ess_tail[k] == analysis.diagnosis.ess_tail[name]
    assert result.bfmi.shape == (2,)
    np.testing.assert_array_equal(result.mean_contrast, result.posterior_mean[2:4])
    np.testing.assert_array_equal(result.std_offset, result.posterior_std[4:6])


def test_result_tells_how_it_came_about(run):
    result, analysis = run
    assert result.per_angle_mode == "individual"
    assert result.wall_time_seconds == analysis.seconds > 0
    fit, pairs = analysis.fit.result, 2 * N * (N - 1) // 2
    assert fit.n_pairs == pairs
    assert result.chi_squared == pytest.approx(fit.sum_of_squares / fit.details["noise"] ** 2)
    assert result.chi_squared == pytest.approx(pairs, rel=0.2)
    known = result.metadata
    assert known["verdict"]["headline"] == analysis.verdict.headline
    assert known["verdict"]["sentences"] == analysis.verdict.sentences
    assert known["fixed_parameters"] == {n: TRUE[n] for n in PHYSICS_PARAM_NAMES if n not in FREE}
    assert (known["q"], known["dt"]) == (Q, DT)
    assert known["fitted_times"] == pytest.approx((DT, N * DT))
    assert known["phi_angles"].tolist() == ANGLES
    assert known["units"]["v0"] == "Å/s^(1+beta)"
    assert known["plain"] == {}
    assert str(result).startswith(analysis.verdict.headline)


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({"max_r_hat": 2.0, "min_ess": 10, "min_bfmi": 0.0}, True),
        ({"max_r_hat": 2.0, "min_ess": 10**6, "min_bfmi": 0.0}, False),
        ({"max_r_hat": 1.0 + 1e-9, "min_ess": 10, "min_bfmi": 0.0}, False),
    ],
)
def test_limits_of_the_configuration_decide_whether_it_passed(run, changes, passed):
    analysis = run[1]
    found = result_of(analysis, replace(SMALL, **changes), "individual")
    assert found.convergence_passed is passed
    assert found.convergence_status == ("converged" if passed else "not_converged")
    strict = replace(analysis, verdict=replace(analysis.verdict, converged=True))
    lenient = replace(analysis, verdict=replace(analysis.verdict, converged=False))
    flags = [
        result_of(judged, replace(SMALL, **changes), "individual").quality_flag
        for judged in (lenient, strict)
    ]
    assert flags == (["marginal", "good"] if passed else ["poor", "marginal"])


@pytest.mark.parametrize("changes", [{"divergences": 60}, {"bfmi": (0.9, 0.2)}])
def test_sampler_that_missed_a_part_of_the_space_does_not_pass(run, changes):
    analysis = run[1]
    wide = replace(SMALL, max_r_hat=2.0, min_ess=10, min_bfmi=0.3, max_divergence_rate=0.01)
    assert result_of(analysis, wide, "individual").convergence_passed
    bad = replace(analysis, diagnosis=replace(analysis.diagnosis, **changes))
    assert not result_of(bad, wide, "individual").convergence_passed


def test_divergences_are_those_of_the_draws_to_believe(run):
    """Counts of both passes together would be held against the draws of one."""
    result, analysis = run
    count = result.num_samples * result.num_chains
    assert result.metadata["divergences"] == {"divergent": result.divergences, "draws": count}
    one = replace(analysis.believed, divergences=30)
    both = one.joined(replace(one, divergences=12))
    changed = replace(analysis, diagnosis=both, believed=one)
    found = result_of(changed, SMALL, "individual")
    assert found.divergences == 30
    report = analyze_divergences(found)
    assert (report.n_divergent, report.n_total) == (30, count)
    # The corrected draws of a run in shards come from all pairs at once.
    assert analyze_divergences(replace(found, num_shards=4)).n_total == count
    unknown = replace(analysis, believed=replace(one, divergences=None))
    unknown = result_of(unknown, SMALL, "individual")
    assert unknown.divergences == 0


def test_each_pass_has_its_own_diagnosis(run):
    _, analysis = run
    drawn = Sampled(analysis.draws, analysis.plain, replace(analysis.diagnosis, divergences=30))
    worse = replace(drawn, diagnosis=replace(analysis.diagnosis, divergences=12))
    passes = Passes(
        analysis.posterior, analysis.derived, Schedule.of(SMALL, 900, 7), "nuts", Keeper(),
        ignore_events, analysis.fit, 0.01,
    )  # fmt: skip
    judged = _analysis._judged(passes, drawn, worse, analysis.noise, None)
    assert (judged.diagnosis.divergences, judged.believed.divergences) == (42, 12)
    assert _analysis._judged(passes, drawn, None, analysis.noise, None).believed.divergences == 30


def test_corrected_draws_are_the_ones_to_believe(run):
    plain, analysis = run

    def stretched(draws):
        return {name: x.mean() + 3.0 * (x - x.mean()) for name, x in draws.items()}

    wide = replace(
        analysis.plain,
        parameters=stretched(analysis.plain.parameters),
        derived=stretched(analysis.plain.derived),
    )
    found = result_of(
        replace(analysis, corrected=wide, corrected_draws=analysis.draws), SMALL, "individual"
    )
    np.testing.assert_allclose(found.posterior_std, 3.0 * plain.posterior_std)
    for k, name in enumerate(NAMES):
        at = found.metadata["plain"][name]
        assert at["std"] == pytest.approx(plain.posterior_std[k])
        # Stretching keeps ranks but for rounding, and with them R-hat and effective draws.
        assert found.r_hat[k] == pytest.approx(plain.r_hat[k], rel=1e-3)
        assert found.ess_tail[k] == pytest.approx(plain.ess_tail[k], rel=0.05)
        assert at["95"] == pytest.approx(plain.credible_intervals[name]["95"])
        low, high = plain.credible_intervals[name]["95"]
        wide_low, wide_high = found.credible_intervals[name]["95"]
        assert wide_high - wide_low == pytest.approx(3.0 * (high - low))
    assert "J_ref(0.4 s)" in found.metadata["plain"]
    assert "For independent pairs" in str(found)
    assert "corrected" in found.inference_data


def test_scales_of_every_mode_are_given_for_each_angle():
    space = ParameterSpace()
    draws = {"contrast": np.array([[0.1, 0.3]]), "offset": np.array([[1.0, 1.2]])}
    shared = Scaling.of(ScalingMode.AVERAGED, space, 3)
    mean, std = _per_angle(shared.contrast, draws)
    np.testing.assert_allclose(mean, [0.2] * 3)
    np.testing.assert_allclose(std, [np.sqrt(0.02)] * 3)
    values = [0.1, 0.2, 0.3]
    held = Scaling.of(ScalingMode.CONSTANT, space, 3, contrast=values, offset=values)
    mean, std = _per_angle(held.offset, {})
    np.testing.assert_array_equal(mean, values)
    np.testing.assert_array_equal(std, 0.0)


def test_groups_of_a_run_are_read_back(run, tmp_path):
    result = run[0]
    again = io.load_inference_data(io.save_inference_data(result.inference_data, tmp_path / "p.nc"))
    assert set(again.children) == {"posterior", "derived", "sample_stats", "prior"}
    for name in again.children:
        xarray.testing.assert_equal(
            again[name].to_dataset(), result.inference_data[name].to_dataset()
        )
    tree = cmc_result_to_arviz(result)
    assert {"energy", "diverging", "bfmi"} <= set(tree["sample_stats"].data_vars)
    np.testing.assert_array_equal(tree["posterior"]["sigma"], result.samples["sigma"])


@pytest.fixture
def handed(monkeypatch):
    """The entry point up to the fit: returns what it would fit, and in which mode."""

    def stop(problem, mode, on_event, before):
        on_event(Message("Held.", "warning"))
        raise StopError(problem, mode)

    monkeypatch.setattr(core, "fit_scaled", stop)

    def call(c2, angles=ANGLES, model=None, **kwargs):
        with pytest.raises(StopError) as caught:
            fit_cmc_multi_phi(model or make_model(), c2, angles, **kwargs)
        return caught.value

    return call


def test_mirrored_pairs_count_once(handed):
    c2 = simulate(ANGLES)
    whole, half = handed(c2).problem, handed(np.triu(c2)).problem
    assert whole.n_pairs == half.n_pairs == 2 * N * (N - 1) // 2
    for first, second in zip(whole.data.blocks, half.data.blocks, strict=True):
        np.testing.assert_array_equal(first, second)


def test_one_matrix_is_one_angle(handed):
    c2 = simulate([15.0])
    for matrices, phi in ((c2[0], 15.0), (c2[0], [15.0]), (c2, np.array([15.0]))):
        problem = handed(matrices, phi).problem
        assert np.asarray(problem.data.phi).tolist() == [15.0]


def test_halves_that_differ_are_refused():
    c2 = simulate(ANGLES)
    c2[1, 20, 3] += 0.1
    with pytest.raises(DataError, match="halves"):
        fit_cmc_multi_phi(make_model(), c2, ANGLES, SMALL)


@pytest.mark.parametrize(
    ("shape", "angles"),
    [((2, N, N), [1.0]), ((N, N), ANGLES), ((2, N, N - 1), ANGLES), ((N,), [1.0])],
)
def test_shapes_that_do_not_match_are_refused(shape, angles):
    with pytest.raises(DataError, match="angles and 30 times"):
        fit_cmc_multi_phi(make_model(), np.ones(shape), angles, SMALL)


@pytest.mark.parametrize(
    ("config", "n_angles", "mode"),
    [
        (None, 3, ScalingMode.INDIVIDUAL),
        (CMCConfig(), 2, ScalingMode.INDIVIDUAL),
        (CMCConfig(), 3, ScalingMode.AVERAGED),
        (CMCConfig(per_angle_mode="individual"), 3, ScalingMode.INDIVIDUAL),
        (CMCConfig(per_angle_mode="constant"), 2, ScalingMode.CONSTANT),
    ],
)
def test_configuration_chooses_the_scaling(handed, config, n_angles, mode):
    angles = [-30.0, 15.0, 70.0][:n_angles]
    assert handed(simulate(angles), angles, config=config).mode is mode


def test_every_problem_of_the_configuration_is_listed():
    config = CMCConfig(num_chains=0, max_r_hat=0.5)
    with pytest.raises(ConfigError, match=r"(?s)num_chains.*max_r_hat"):
        fit_cmc_multi_phi(make_model(), simulate(ANGLES), ANGLES, config)


def start_values(handed, fits, **kwargs):
    problem = handed(simulate(ANGLES), nlsq_results=fits, **kwargs).problem
    return problem.coordinates.space.values


def test_best_fit_gives_the_start_values(handed, caplog):
    fits = [
        fit_result(0.02, D0_ref=5e3, v0=100.0),
        fit_result(0.01, D0_ref=6e3, v0=200.0, alpha_ref=3.0, contrast=0.9),
        fit_result(0.001, success=False, D0_ref=7e3, v0=300.0),
        fit_result(np.nan, D0_ref=9e3, v0=300.0),
    ]
    found = start_values(handed, fits)
    assert (found["D0_ref"], found["v0"]) == (6e3, 200.0)
    # Parameters that are held keep the value of the model.
    assert found["alpha_ref"] == TRUE["alpha_ref"]
    assert found["contrast"] == 0.5
    assert [r.message for r in caplog.records] == ["Held."]
    unused = start_values(handed, fits, config=CMCConfig(use_nlsq_warmstart=False))
    assert unused["D0_ref"] == TRUE["D0_ref"]


def test_start_values_outside_the_bounds_are_moved_and_told(handed, caplog):
    found = start_values(handed, [fit_result(D0_ref=50.0, v0=np.nan)])
    assert (found["D0_ref"], found["v0"]) == (100.0, TRUE["v0"])
    low, missing, held = (r.getMessage() for r in caplog.records)
    assert "D0_ref = 50, outside its bounds 100 to 1e+06" in low
    assert "v0 = nan" in missing
    assert held == "Held."
    assert all(r.levelno == logging.WARNING for r in caplog.records)


def given_scale(monkeypatch, sigma):
    """The scale of the noise that the engine receives."""
    seen = []

    def stop(fit, c2, config, noise, engine, sharding, **_):
        assert (engine, sharding) == ("nuts", None)
        seen.append(noise)
        raise StopError(None, ScalingMode.INDIVIDUAL)

    monkeypatch.setattr(core, "fit_scaled", lambda problem, mode, on_event, before: None)
    monkeypatch.setattr(core, "analyse", stop)
    with pytest.raises(StopError):
        fit_cmc_multi_phi(make_model(), simulate(ANGLES), ANGLES, SMALL, sigma=sigma)
    return seen[0].scale


def test_sigma_scales_the_noise_by_its_root_mean_square(monkeypatch):
    assert given_scale(monkeypatch, None) is None
    assert given_scale(monkeypatch, 0.03) == pytest.approx(0.03)
    per_angle = np.array([0.03, 0.04])[:, None, None]
    assert given_scale(monkeypatch, per_angle) == pytest.approx(np.sqrt(0.00125))
    # The diagonal is not fitted, so its errors do not count.
    matrix = np.where(np.eye(N, dtype=bool), np.nan, 0.02)
    assert given_scale(monkeypatch, matrix) == pytest.approx(0.02)


@pytest.mark.parametrize("sigma", [0.0, -1.0, np.nan, np.inf, np.ones(3), np.zeros((N, N))])
def test_a_sigma_that_is_none_is_refused(sigma):
    with pytest.raises(ConfigError, match="sigma"):
        fit_cmc_multi_phi(make_model(), simulate(ANGLES), ANGLES, SMALL, sigma=sigma)
