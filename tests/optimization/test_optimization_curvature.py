"""Maps that give a likelihood another curvature, against matrix algebra."""

import numpy as np
import pytest

from heterodyne.optimization.curvature import adjusted_information


def positive(rng, n):
    a = rng.normal(size=(n, 2 * n))
    return a @ a.T


NO_PRIOR = np.zeros((4, 4))


def information_and_variance(seed):
    """Random F and V >= F, as speckle noise gives it."""
    rng = np.random.default_rng(seed)
    information = positive(rng, 4)
    return information, information + 10.0 ** rng.uniform(-1, 2) * positive(rng, 4)


@pytest.mark.parametrize("seed", range(5))
def test_adjusted_information_is_the_inverse_scatter_of_the_estimate(seed):
    information, variance = information_and_variance(seed)
    found = adjusted_information(information, variance, NO_PRIOR)
    scatter = np.linalg.inv(information) @ variance @ np.linalg.inv(information)
    np.testing.assert_allclose(found, np.linalg.inv(scatter), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_information_is_never_more_than_that_of_independent_errors(seed):
    information, _ = information_and_variance(seed)
    variance = positive(np.random.default_rng(100 + seed), 4)
    found = adjusted_information(information, variance, NO_PRIOR)
    assert np.linalg.eigvalsh(variance - information).min() < 0
    assert np.linalg.eigvalsh(information - found).min() > -1e-8


def test_only_the_noisy_direction_loses_information():
    information, _ = information_and_variance(5)
    direction = np.random.default_rng(6).normal(size=4)
    score = information @ direction
    variance = 20.0 * np.outer(score, score) / (direction @ score)
    found = adjusted_information(information, variance, NO_PRIOR)
    np.testing.assert_allclose(found @ direction, score / 20.0, rtol=1e-6)
    across = np.linalg.svd(score[None])[2][1:].T
    np.testing.assert_allclose(found @ across, information @ across, rtol=1e-6, atol=1e-6)


def test_information_stays_where_speckle_noise_adds_nothing():
    information, _ = information_and_variance(7)
    found = adjusted_information(information, information, NO_PRIOR)
    np.testing.assert_allclose(found, information, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("unit", [0.0, 1.0, 1e4])
def test_directions_without_information_get_none(unit):
    rng = np.random.default_rng(8)
    seen = rng.normal(size=(4, 2))
    inner = positive(rng, 2)
    information = seen @ inner @ seen.T
    variance = seen @ (inner + 30.0 * positive(rng, 2)) @ seen.T
    open_ = np.linalg.svd(seen.T)[2][2:].T
    found = adjusted_information(information, variance, unit * np.eye(4))
    np.testing.assert_allclose(found @ open_, 0.0, atol=1e-3)


def test_a_coordinate_that_nothing_informs_is_left_alone():
    information, variance = np.diag([4.0, 0.0]), np.diag([100.0, 0.0])
    found = adjusted_information(information, variance, 1e-6 * np.eye(2))
    np.testing.assert_allclose(found, np.diag([0.16, 0.0]), rtol=1e-5)


def test_where_the_prior_says_more_the_information_stays():
    information, variance = np.diag([4.0, 1e-4]), np.diag([100.0, 1e-3])
    found = adjusted_information(information, variance, np.eye(2))
    np.testing.assert_allclose(found, np.diag([4.0 * 5.0 / 101.0, 1e-4]), rtol=2e-3)


def test_what_the_prior_lacks_in_curvature_does_not_count():
    information, variance = np.diag([1.0, 4.0]), np.diag([4.0, 16.0])
    found = adjusted_information(information, variance, np.diag([-0.5, 5.0]))
    np.testing.assert_allclose(found, np.diag([0.25, 4.0 * 9.0 / 21.0]), rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_intervals_cover_what_they_say_for_linear_models(seed):
    # Truths from the prior N(0, P^-1), estimates from N(truth, F^-1 V F^-1).
    information, variance = information_and_variance(seed)
    prior = positive(np.random.default_rng(200 + seed), 4)
    inverse = np.linalg.inv(information)
    scatter = inverse @ variance @ inverse

    def posterior_and_error(precision):
        """Covariance that a posterior states, and that of its mean about the truth."""
        stated = np.linalg.inv(precision + prior)
        pull = stated @ precision
        rest = pull - np.eye(4)
        return stated, pull @ scatter @ pull.T + rest @ np.linalg.inv(prior) @ rest.T

    found = adjusted_information(information, variance, NO_PRIOR)
    stated, error = posterior_and_error(found)
    np.testing.assert_allclose(stated, error, rtol=1e-5, atol=1e-7)
    stated, error = posterior_and_error(information)
    assert np.linalg.eigvalsh(error - stated).max() > 0.05 * np.linalg.eigvalsh(stated).max()
