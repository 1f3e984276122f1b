"""Maps that give a likelihood another curvature, against matrix algebra."""

import numpy as np
import pytest

from heterodyne.optimization.curvature import adjust


def positive(rng, n):
    a = rng.normal(size=(n, 2 * n))
    return a @ a.T


NO_PRIOR = np.zeros((4, 4))


def information_and_variance(seed):
    """Random F and V >= F, as speckle noise gives it."""
    rng = np.random.default_rng(seed)
    information = positive(rng, 4)
    return information, information + 10.0 ** rng.uniform(-1, 2) * positive(rng, 4)


@pytest.mark.parametrize("first", [2, 4])
@pytest.mark.parametrize("seed", range(5))
def test_adjusted_information_is_the_inverse_scatter_of_the_estimate(seed, first):
    information, variance = information_and_variance(seed)
    matrix, adjusted = adjust(information, variance, NO_PRIOR, first)
    scatter = np.linalg.inv(information) @ variance @ np.linalg.inv(information)
    np.testing.assert_allclose(adjusted, np.linalg.inv(scatter), rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(matrix.T @ information @ matrix, adjusted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_information_is_never_more_than_that_of_independent_errors(seed):
    information, _ = information_and_variance(seed)
    variance = positive(np.random.default_rng(100 + seed), 4)
    _, adjusted = adjust(information, variance, NO_PRIOR, 4)
    assert np.linalg.eigvalsh(variance - information).min() < 0
    assert np.linalg.eigvalsh(information - adjusted).min() > -1e-8


def test_only_the_noisy_direction_is_widened():
    information, _ = information_and_variance(5)
    direction = np.random.default_rng(6).normal(size=4)
    score = information @ direction
    variance = 20.0 * np.outer(score, score) / (direction @ score)
    matrix, _ = adjust(information, variance, NO_PRIOR, 4)
    np.testing.assert_allclose(matrix @ direction, direction / np.sqrt(20.0), rtol=1e-6)
    across = np.linalg.svd(score[None])[2][1:].T
    np.testing.assert_allclose(matrix @ across, across, atol=1e-6)


@pytest.mark.parametrize("first", [2, 4])
def test_the_likelihood_stays_where_speckle_noise_adds_nothing(first):
    information, _ = information_and_variance(7)
    matrix, adjusted = adjust(information, information, NO_PRIOR, first)
    np.testing.assert_allclose(matrix, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(adjusted, information, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("unit", [0.0, 1.0, 1e4])
def test_directions_without_information_stay(unit):
    rng = np.random.default_rng(8)
    seen = rng.normal(size=(4, 2))
    inner = positive(rng, 2)
    information = seen @ inner @ seen.T
    variance = seen @ (inner + 30.0 * positive(rng, 2)) @ seen.T
    open_ = np.linalg.svd(seen.T)[2][2:].T
    matrix, adjusted = adjust(information, variance, unit * np.eye(4), 4)
    np.testing.assert_allclose(matrix @ open_, open_, atol=1e-3)
    np.testing.assert_allclose(adjusted @ open_, 0.0, atol=1e-3)


def test_a_coordinate_that_nothing_informs_is_left_alone():
    information, variance = np.diag([4.0, 0.0]), np.diag([100.0, 0.0])
    matrix, adjusted = adjust(information, variance, 1e-6 * np.eye(2), 2)
    np.testing.assert_allclose(matrix, np.diag([0.2, 1.0]), rtol=1e-5)
    np.testing.assert_allclose(adjusted, np.diag([0.16, 0.0]), rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_the_map_shrinks_in_the_metric_of_the_posterior(seed):
    information, variance = information_and_variance(seed)
    prior = 10.0 ** np.random.default_rng(seed).uniform(-2, 2) * positive(
        np.random.default_rng(300 + seed), 4
    )
    matrix, adjusted = adjust(information, variance, prior, 4)
    both = information + prior
    expected = both @ np.linalg.solve(variance + prior, both)
    np.testing.assert_allclose(matrix.T @ both @ matrix, expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(matrix.T @ information @ matrix, adjusted, rtol=1e-10, atol=1e-10)
    lower = np.linalg.cholesky(both)
    inner = lower.T @ matrix @ np.linalg.inv(lower.T)
    np.testing.assert_allclose(inner, inner.T, atol=1e-8)
    factors = np.linalg.eigvalsh(0.5 * (inner + inner.T))
    assert factors.min() > 0
    assert factors.max() <= 1.0 + 1e-9


def test_what_the_prior_lacks_in_curvature_does_not_count():
    information, variance = np.diag([1.0, 4.0]), np.diag([4.0, 16.0])
    matrix, _ = adjust(information, variance, np.diag([-0.5, 5.0]), 2)
    np.testing.assert_allclose(matrix, np.diag([0.5, np.sqrt(9.0 / 21.0)]), rtol=1e-9)


@pytest.mark.parametrize("first", [2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_intervals_cover_what_they_say_for_linear_models(seed, first):
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

    _, adjusted = adjust(information, variance, NO_PRIOR, first)
    stated, error = posterior_and_error(adjusted)
    np.testing.assert_allclose(stated, error, rtol=1e-5, atol=1e-7)
    stated, error = posterior_and_error(information)
    assert np.linalg.eigvalsh(error - stated).max() > 0.05 * np.linalg.eigvalsh(stated).max()


@pytest.mark.parametrize("seed", range(5))
def test_last_coordinates_do_not_move_first_ones(seed):
    information, variance = information_and_variance(seed)
    matrix, _ = adjust(information, variance, NO_PRIOR, 2)
    np.testing.assert_array_equal(matrix[:2, 2:], 0.0)
    assert np.linalg.eigvals(matrix).real.min() > 0
    assert np.linalg.eigvals(matrix).real.max() <= 1.0 + 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_priors_count_in_a_nested_map_as_in_a_symmetric_one(seed):
    information, variance = information_and_variance(seed)
    rng = np.random.default_rng(300 + seed)
    prior = np.zeros((4, 4))
    prior[:2, :2], prior[2:, 2:] = positive(rng, 2), positive(rng, 2)
    both = information + prior
    expected = both @ np.linalg.solve(variance + prior, both)
    matrix, _ = adjust(information, variance, prior, 2)
    np.testing.assert_allclose(matrix.T @ both @ matrix, expected, rtol=1e-6, atol=1e-7)


def test_a_first_coordinate_without_information_stays_in_a_nested_map():
    information, variance = np.zeros((4, 4)), np.zeros((4, 4))
    some = np.ix_([0, 2, 3], [0, 2, 3])
    rng = np.random.default_rng(9)
    information[some] = positive(rng, 3)
    variance[some] = information[some] + 30.0 * positive(rng, 3)
    matrix, adjusted = adjust(information, variance, np.diag([0.0, 1.0, 0.0, 0.0]), 2)
    np.testing.assert_allclose(matrix[:, 1], np.eye(4)[1], atol=1e-9)
    np.testing.assert_allclose(matrix[1], np.eye(4)[1], atol=1e-9)
    np.testing.assert_allclose(adjusted[:, 1], 0.0, atol=1e-9)
