"""Estimates of the error of c2, on noise of known size."""

from __future__ import annotations

import numpy as np
import pytest

from heterodyne._errors import ConfigError, DataError
from heterodyne.core.simulate import creep_flow, simulate_pairs
from heterodyne.optimization.cmc.model import estimate_sigma
from heterodyne.optimization.nlsq.results import NLSQResult

SIGMA, N = 0.05, 300


def noise(shape=(N, N), seed=0):
    return 1.0 + np.random.default_rng(seed).normal(scale=SIGMA, size=shape)


def measured():
    experiment = creep_flow(120, phi=(0.0,))
    return simulate_pairs(experiment, 0.3, 1.0, 0.02, 1)


def fit_with(residuals):
    return NLSQResult(np.zeros(0), (), None, None, True, residuals=residuals)


def several(shape):
    """Noise of one or three angles; each angle has a mean of its own, which is no noise."""
    means = 0.5 * np.arange(3) if shape[0] == 3 else np.zeros(1)
    return noise(shape) + means.reshape(-1, *[1] * (len(shape) - 1))


# Relative errors of estimates from n values are 1/sqrt(2 n): 4 % and less.
@pytest.mark.parametrize("shape", [(N, N), (3, N, N), (N,), (3, N)])
def test_diagonal_is_the_spread_around_the_mean(shape):
    c2 = several(shape)
    assert estimate_sigma(c2) == pytest.approx(SIGMA, rel=0.15)
    assert estimate_sigma(c2) == estimate_sigma(c2, "diagonal")


def test_diagonal_is_what_numpy_computes():
    c2 = noise()
    assert estimate_sigma(c2) == pytest.approx(np.diag(c2).std(), rel=1e-12)
    c2[np.triu_indices(N, 1)] += 1.0
    assert estimate_sigma(c2) == pytest.approx(np.diag(c2).std(), rel=1e-12)


def test_diagonal_has_a_floor_of_one_percent():
    c2 = -2.0 + 0.0 * noise()
    assert estimate_sigma(c2) == pytest.approx(0.02)
    assert estimate_sigma(noise() * 1e-3 + 1.0) == pytest.approx(0.01, rel=0.01)


def test_constant_is_the_overall_spread():
    assert estimate_sigma(noise(), "constant") == pytest.approx(SIGMA, rel=0.02)
    c2 = measured()
    assert estimate_sigma(c2, "constant") == pytest.approx(c2.std())
    # The signal counts as noise.
    assert estimate_sigma(c2, "constant") > 2 * 0.02


def test_local_is_the_spread_within_windows():
    found = estimate_sigma(noise(), "local")
    assert found.shape == (N, N)
    assert np.sqrt(np.mean(found[5:-5, 5:-5] ** 2)) == pytest.approx(SIGMA, rel=0.02)
    # Each is the unbiased estimate of the 25 values around it.
    c2 = noise()
    assert estimate_sigma(c2, "local")[40, 60] == pytest.approx(
        c2[38:43, 58:63].std(ddof=1), rel=1e-9
    )


def test_local_follows_the_noise_and_not_a_slow_signal():
    rng = np.random.default_rng(2)
    t = np.arange(N) / N
    width = 0.01 * (1.0 + 4.0 * t)
    c2 = 1.0 + np.exp(-np.abs(np.subtract.outer(t, t))) + rng.normal(scale=width, size=(N, N))
    found = np.sqrt(np.mean(estimate_sigma(c2, "local") ** 2, axis=0))
    np.testing.assert_allclose(found[5:-5], width[5:-5], rtol=0.15)


@pytest.mark.parametrize("shape", [(3, N, N), (N,), (3, N)])
def test_local_does_not_mix_angles(shape):
    c2 = several(shape)
    found = estimate_sigma(c2, "local")
    assert found.shape == shape
    assert np.sqrt(np.mean(found**2)) == pytest.approx(SIGMA, rel=0.15)


def test_residual_is_the_root_mean_square():
    residuals = np.array([0.3, -0.4, 0.0, 0.5])
    found = estimate_sigma(noise(), "residual", fit_with(residuals))
    assert found == pytest.approx(np.sqrt(0.125))
    with pytest.raises(DataError, match=r"nlsq_result\.residuals: 1 of 2 values are not finite"):
        estimate_sigma(noise(), "residual", fit_with(np.array([0.1, np.nan])))


@pytest.mark.parametrize("fit", [None, fit_with(None), fit_with(np.zeros(0))])
def test_without_residuals_the_diagonal_is_used(fit, caplog):
    c2 = noise()
    assert estimate_sigma(c2, "residual", fit) == estimate_sigma(c2)
    assert "There are no residuals: sigma is estimated on the diagonal" in caplog.text


def test_bootstrap_is_the_error_of_the_mean():
    c2 = noise()
    found = estimate_sigma(c2, "bootstrap", n_bootstrap=4000)
    # The spread of 4,000 means is known to 1 %.
    assert found == pytest.approx(np.diag(c2).std() / np.sqrt(N), rel=0.05)
    assert found == estimate_sigma(c2, "bootstrap", n_bootstrap=4000)
    assert found != estimate_sigma(c2, "bootstrap", n_bootstrap=4000, bootstrap_seed=1)
    assert found != estimate_sigma(c2, "bootstrap")


@pytest.mark.parametrize("method", ["diagonal", "constant", "bootstrap", "residual"])
def test_one_number(method):
    found = estimate_sigma(noise(), method, fit_with(np.ones(3)))
    assert isinstance(found, float)
    assert np.shape(found) == ()


def test_what_cannot_be_estimated_is_refused():
    with pytest.raises(ConfigError, match=r"unknown method 'diag' .*diagonal.*, bootstrap"):
        estimate_sigma(noise(), "diag")
    with pytest.raises(ConfigError, match=r"n_bootstrap: 1 replicates\. Allowed: at least 2"):
        estimate_sigma(noise(), "bootstrap", n_bootstrap=1)
    with pytest.raises(DataError, match="c2_data: 1 of 4 values are not finite"):
        estimate_sigma([[1.0, np.nan], [1.0, 1.0]])
    for shape in ((), (1,), (1, 1, 2, 2)):
        with pytest.raises(DataError, match="c2_data: the shape is"):
            estimate_sigma(np.ones(shape))
