from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core import speckle
from heterodyne.core._jax import jnp
from heterodyne.core.correlation import correlation_matrix
from heterodyne.core.likelihood import pack_pairs
from heterodyne.core.speckle_moments import (
    ResidualMoments,
    lag_excess,
    neighbour_correlation,
    shot_noise,
)

PARAMETERS = np.array([ParameterSpace()[n].value for n in PHYSICS_PARAM_NAMES])
Q, DT = 0.0054, 0.1


def times(n):
    return DT * np.arange(1, n + 1)


@lru_cache
def long_correlation():
    t = jnp.asarray(times(150))
    return np.asarray(correlation_matrix(jnp.asarray(PARAMETERS), t, Q, DT, 20.0))


def correlation(n):
    return long_correlation()[:n, :n]


def symmetric(rng, count, n):
    a = rng.normal(size=(count, n, n))
    return (a + a.swapaxes(1, 2)) * (1 - np.eye(n))


def covariance_of_pairs(sigma):
    """Covariance of all unique pairs for one speckle, written out."""
    i, j = np.triu_indices(len(sigma), 1)
    return sigma[np.ix_(i, i)] * sigma[np.ix_(j, j)] + sigma[np.ix_(i, j)] * sigma[np.ix_(j, i)]


@pytest.mark.parametrize("held", [100, 4, 2, 1])
def test_traces_are_sums_over_pairs_of_pairs(monkeypatch, held):
    n, count = 12, 5
    monkeypatch.setattr(speckle, "_STORE", held * 8 * n**2)
    monkeypatch.setattr(speckle, "_CHUNK", 5 * 8 * n)
    functions = symmetric(np.random.default_rng(0), count, n)
    sigma = speckle.speckle_covariance(correlation(n), 0.2, 0.7)
    asked = []

    def function_of(a):
        asked.append(a)
        return functions[a]

    pairs = functions[:, *np.triu_indices(n, 1)]
    expected = pairs @ covariance_of_pairs(sigma) @ pairs.T
    np.testing.assert_allclose(speckle.trace_products(function_of, count, sigma), expected)
    assert len(asked) == speckle.number_of_products(count, n)


def test_covariance_of_intensities_holds_shot_noise_on_the_diagonal():
    sigma = speckle.speckle_covariance(correlation(6), 0.25, np.arange(6.0))
    np.testing.assert_allclose(np.diagonal(sigma), 0.25 + np.arange(6.0))
    np.testing.assert_allclose(sigma[1, 4], 0.25 * correlation(6)[1, 4])


def test_slope_is_the_derivative_of_the_correlation():
    n = 15
    data = pack_pairs(np.ones((1, n, n)), times(n), Q, DT, [20.0])
    direction = np.zeros(14)
    direction[[PHYSICS_PARAM_NAMES.index(p) for p in ("v0", "f0")]] = 100.0, 0.1

    def at(step):
        p = jnp.asarray(PARAMETERS + step * direction)
        return np.asarray(correlation_matrix(p, data.t, Q, DT, 20.0))

    slope = speckle.correlation_slope(
        lambda p: p, jnp.asarray(PARAMETERS), jnp.asarray(direction), data, jnp.asarray(20.0)
    )
    np.testing.assert_allclose(slope, (at(1e-5) - at(-1e-5)) / 2e-5, atol=1e-8)
    assert np.abs(slope).max() > 0.01


@given(st.integers(2, 90), st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_weights_come_back_from_their_blocks(n, seed):
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 3, size=(2, n, n)) + np.eye(n, k=1)
    mask = rng.random(n) < 0.7
    mask[:2] = True
    data = pack_pairs(np.ones((2, n, n)), times(n), Q, DT, [0, 90], mask=mask, weights=weights)
    frames, found = speckle.fitted_pairs(data)
    upper = np.triu(weights, 1)[:, mask][:, :, mask]
    np.testing.assert_array_equal(frames, np.flatnonzero(mask))
    np.testing.assert_array_equal(found, upper + upper.swapaxes(1, 2))


def test_without_weights_every_pair_of_fitted_frames_counts_once():
    n, mask = 9, np.arange(9) != 4
    data = pack_pairs(np.ones((1, n, n)), times(n), Q, DT, [0.0], mask=mask)
    frames, weights = speckle.fitted_pairs(data)
    np.testing.assert_array_equal(frames, np.flatnonzero(mask))
    np.testing.assert_array_equal(weights[0], 1 - np.eye(8))


def gaussian_speckles(n, contrast, noise, speckles, seed):
    """Residuals of the covariance of normal intensities."""
    sigma = speckle.speckle_covariance(correlation(n), contrast, noise)
    rng = np.random.default_rng(seed)
    intensity = rng.multivariate_normal(np.zeros(n), sigma, speckles)
    return intensity.T @ intensity / speckles - sigma


def moments_of(residuals, contrast):
    n = len(residuals)
    return ResidualMoments.of(residuals, correlation(n), contrast, ~np.eye(n, dtype=bool))


@pytest.mark.parametrize("noise", [0.1, 1.0])
def test_speckles_and_shot_noise_come_out_of_the_residuals(noise):
    all_moments = [moments_of(gaussian_speckles(150, 0.2, noise, 300, s), 0.2) for s in range(6)]
    found = shot_noise(all_moments)
    assert found == pytest.approx(noise, rel=0.12)
    speckles = [m.effective_speckles(found) for m in all_moments]
    assert np.mean(speckles) == pytest.approx(300, rel=0.15)


def test_moments_agree_with_loops_over_pairs():
    n, contrast = 7, 0.3
    rng = np.random.default_rng(3)
    residuals = symmetric(rng, 1, n)[0]
    used = np.triu(rng.random((n, n)) < 0.8, 1)
    used |= used.T
    g = correlation(n)
    m = ResidualMoments.of(residuals, g, contrast, used)
    square = product = model = step = 0.0
    for i in range(n):
        for j in range(n):
            square += used[i, j] * residuals[i, j] ** 2
            if i + 1 < n and used[i, j] and used[i + 1, j]:
                product += residuals[i, j] * residuals[i + 1, j]
                model += contrast**2 * g[i, j] * g[i + 1, j]
                step += contrast * g[i, i + 1]
    expected = (square, product, model, step)
    np.testing.assert_allclose((m.square, m.product, m.model_product, m.model_step), expected)
    for k in range(1, n):
        along = np.diagonal(used, k)
        assert m.lag_counts[k] == along.sum()
        assert m.lag_sums[k] == pytest.approx(np.diagonal(residuals, k)[along].sum())


def independent_moments(seed, n=60, wave=0.0):
    r = np.random.default_rng(seed).normal(scale=0.01, size=(n, n))
    lag = np.arange(n) - np.arange(n)[:, None]
    r = np.triu(r, 1) + 0.01 * wave * np.cos(1.7 * np.abs(lag)) * (lag > 0)
    return moments_of(r + r.T, 0.2)


def test_the_means_at_each_lag_of_independent_errors_are_chi_square():
    found = [lag_excess([independent_moments(3 * s + k) for k in range(3)]) for s in range(300)]
    # The largest of 300 standard normal numbers is below 4, and chi-square is a little skewed.
    assert np.mean(found) == pytest.approx(0.0, abs=4 / np.sqrt(300))
    assert np.std(found) == pytest.approx(1.0, abs=4 / np.sqrt(600))
    assert max(found) < 5.0


def test_a_wave_that_the_model_lacks_shows_in_the_means_at_each_lag():
    # A tenth of the variance, which neighbours hardly show.
    waves = [independent_moments(s, wave=0.45) for s in range(3)]
    correlation, error = neighbour_correlation(waves)
    assert correlation < 5 * error
    assert lag_excess(waves) > 20


def test_a_few_wild_pairs_do_not_set_the_noise():
    residuals = gaussian_speckles(80, 0.2, 0.5, 300, 0)
    clean = moments_of(residuals, 0.2)
    residuals[3, 60] = residuals[60, 3] = 1e6
    wild = moments_of(residuals, 0.2)
    assert wild.correlation == pytest.approx(clean.correlation, abs=0.02)
    assert wild.effective_speckles(0.5) == pytest.approx(clean.effective_speckles(0.5), rel=0.02)


def test_neighbours_of_independent_residuals_scatter_by_the_stated_error():
    n, deviations = 40, []
    for seed in range(150):
        noise = symmetric(np.random.default_rng(seed), 1, n)[0]
        mean, error = neighbour_correlation([moments_of(noise, 0.2)])
        deviations.append(mean / error)
    assert np.mean(deviations) == pytest.approx(0.0, abs=0.3)
    assert np.std(deviations) == pytest.approx(1.0, abs=0.2)


def test_shot_noise_stays_finite_where_neighbours_are_independent():
    noise = symmetric(np.random.default_rng(1), 1, 60)[0]
    moments = moments_of(noise, 0.2)
    assert 1.0 < shot_noise([replace(moments, product=-abs(moments.product))]) < 1e3


def test_identical_neighbours_mean_no_shot_noise():
    moments = moments_of(np.ones((30, 30)), 0.2)
    assert moments.correlation == pytest.approx(1.0)
    assert shot_noise([moments]) == 0.0


def test_data_without_residuals_have_infinitely_many_speckles():
    moments = moments_of(np.zeros((10, 10)), 0.2)
    assert moments.correlation == 0.0
    assert moments.effective_speckles(0.1) == np.inf


def test_without_contrast_all_noise_is_shot_noise():
    moments = moments_of(symmetric(np.random.default_rng(2), 1, 60)[0], 0.0)
    level = shot_noise([moments])  # the residuals have the variance 2
    assert level > 1.0
    assert moments.effective_speckles(level) == pytest.approx(level**2 / 2, rel=0.1)
    assert moments.effective_speckles(0.0) == np.inf
