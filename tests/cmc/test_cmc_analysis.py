"""From a fit to judged draws of independent errors, and draws by name."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from cmc_cases import (
    CONFIG,
    CONTRAST,
    OFFSET,
    POSTERIOR,
    SIGMA,
    SPACE,
    T,
    coordinates_of,
    densities,
    experiment,
    measured,
    target_of,
)
from scipy import stats

from heterodyne.core.simulate import simulate_pairs
from heterodyne.optimization.cmc._analysis import analyse, noise_seen
from heterodyne.optimization.cmc._passes import Keeper
from heterodyne.optimization.cmc._pipeline import fit_run
from heterodyne.optimization.cmc._quantities import Quantities, curve_bands, prior_draws
from heterodyne.optimization.derived import Derived

DERIVED = Derived.of(T)
NAMES = ("alpha_ref", "D_offset_ref", "contrast_0", "sigma")


@pytest.fixture(scope="module")
def independent():
    """Analysis of data with independent errors, and what its keeper was given."""
    c2 = simulate_pairs(experiment(0.5, 0.0), CONTRAST, OFFSET, SIGMA, 2)
    kept = []
    keeper = Keeper(save=lambda key, arrays: kept.append((key, arrays)))
    fit = fit_run(CONFIG, measured(c2))
    return analyse(fit, c2, CONFIG.cmc_config(), engine="nuts", keeper=keeper), kept


def test_independent_errors_are_sampled_once(independent):
    found, kept = independent
    assert not found.noise.likely
    assert found.corrected is None
    assert found.corrected_draws is None
    assert found.verdict.believe == "plain"
    assert all(row.corrected is None for row in found.rows)
    assert {key for key, _ in kept} == {"plain_nuts"}
    counts = [
        int(a["warmup_steps"]) + (a["steps_z"].shape[1] if "steps_z" in a else 0) for _, a in kept
    ]
    assert counts == list(range(50, 351, 50))


def test_a_fit_that_stopped_early_is_told(independent):
    found, _ = independent
    assert not any("fit stopped" in text for text in found.verdict.sentences)
    stopped = replace(found.fit, result=replace(found.fit.result, success=False))
    c2 = simulate_pairs(experiment(0.5, 0.0), CONTRAST, OFFSET, SIGMA, 2)
    verdict = analyse(stopped, c2, CONFIG.cmc_config(), engine="importance").verdict
    assert any("fit stopped before its steps became small" in text for text in verdict.sentences)
    assert any("max_iterations" in text for text in verdict.advice)


def test_draws_lie_about_the_truth_as_wide_as_the_fit_says(independent):
    found, _ = independent
    rows = {row.name: row for row in found.rows}
    truth = {"alpha_ref": 0.5, "D_offset_ref": 0.0, "contrast_0": CONTRAST, "sigma": SIGMA}
    for name, value in truth.items():
        assert abs(rows[name].mean - value) < 4.0 * rows[name].sd, name
    for name in ("alpha_ref", "contrast_0"):
        expected = found.fit.result.get_uncertainty(name)
        assert rows[name].sd == pytest.approx(expected, rel=0.3), name
    n_pairs = T.size * (T.size - 1) / 2
    assert rows["sigma"].sd == pytest.approx(SIGMA / np.sqrt(2 * n_pairs), rel=0.3)


def test_every_reported_quantity_and_the_density_are_diagnosed(independent):
    found, _ = independent
    assert set(found.diagnosis.r_hat) == {*NAMES, *DERIVED.names, "log density"}
    assert found.diagnosis.n_draws == found.draws.log_density.size
    assert len(found.diagnosis.bfmi) == 2


def test_noise_between_neighbours_scales_the_prior_of_sigma():
    def fit(noise):
        data = SimpleNamespace(noise=np.array(noise))
        return SimpleNamespace(problem=SimpleNamespace(data=data), sigma=0.5)

    assert noise_seen(fit([0.3, 0.4])) == pytest.approx(np.sqrt(0.125))
    assert noise_seen(fit([0.0])) == 0.5


@pytest.mark.parametrize("shape", [(2, 7), (3, 100)])
def test_draws_by_name_are_those_of_the_map(shape):
    rng = np.random.default_rng(0)
    widths = np.array([0.1, 1e3, 2e-3, 0.07])
    y = coordinates_of(0.5, -1.1e4) + widths * rng.normal(size=(*shape, 4))
    found = Quantities.of(POSTERIOR, y, DERIVED)
    assert tuple(found.parameters) == NAMES
    assert tuple(found.derived) == DERIVED.names
    _, expected = densities(y.reshape(-1, 4), target_of(0.0, 0.0))
    for name, column in zip(NAMES, expected.T, strict=True):
        np.testing.assert_allclose(found.parameters[name], column.reshape(shape), rtol=1e-9)
    alpha, level = found.parameters["alpha_ref"], found.parameters["D_offset_ref"]
    early = np.maximum(2e4 * T[2] ** alpha + level, 0.0)
    assert (early == 0.0).any()
    np.testing.assert_allclose(found.derived["J_ref(0.3 s)"], early, rtol=1e-9)
    assert found.physics.shape == (*shape, 14)
    np.testing.assert_array_equal(found.physics[..., 6], SPACE["v0"].value)


def test_prior_draws_follow_the_documented_priors():
    found = prior_draws(POSTERIOR, SIGMA, DERIVED, 4000, 1)
    limits = {
        "alpha_ref": stats.truncnorm(-5, 5),
        "D_offset_ref": stats.truncnorm(-10, 10, scale=1e4),
        "contrast_0": stats.truncnorm(-2, 2, loc=0.5, scale=0.25),
        "sigma": stats.halfnorm(scale=1.5 * SIGMA),
    }
    for name, prior in limits.items():
        assert stats.kstest(found.parameters[name].ravel(), prior.cdf).pvalue > 1e-3, name
    alpha, level = found.parameters["alpha_ref"], found.parameters["D_offset_ref"]
    late = np.maximum(2e4 * T[14] ** alpha + level, 0.0)
    np.testing.assert_allclose(found.derived["J_ref(1.5 s)"], late, rtol=1e-9)
    rows = np.stack([x.ravel() for x in found.parameters.values()])
    assert np.abs(np.corrcoef(rows) - np.eye(4)).max() < 0.06
    np.testing.assert_array_equal(found.derived["v(0.3 s)"], SPACE["v0"].value)


def test_bands_are_quantiles_of_the_curves():
    found = prior_draws(POSTERIOR, SIGMA, DERIVED, 200, 1)
    physics = found.physics[0]
    bands = curve_bands(physics, T)
    rates = np.maximum(2e4 * T ** physics[:, 1:2] + physics[:, 2:3], 0.0)
    expected = np.quantile(rates, (0.025, 0.5, 0.975), axis=0)
    np.testing.assert_allclose(bands["J_ref"], expected, rtol=1e-9)
    np.testing.assert_allclose(bands["s"], SPACE["f0"].value)
