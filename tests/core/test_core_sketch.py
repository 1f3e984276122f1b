"""Traces from random vectors against those of the matrices."""

from __future__ import annotations

import numpy as np
import pytest

from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jax, jnp
from heterodyne.core.correlation import correlation_matrix
from heterodyne.core.likelihood import pack_pairs, separable_form
from heterodyne.core.separable import multiply
from heterodyne.core.speckle import speckle_covariance, trace_products
from heterodyne.core.speckle_sketch import (
    N_BATCHES,
    Operators,
    draw_intensities,
    trace_estimates,
)

Q, DT, N = 0.0054, 0.1, 45
T = DT * np.arange(1, N + 1)
PARAMETERS = np.array([ParameterSpace()[n].value for n in PHYSICS_PARAM_NAMES])
PARAMETERS[[PHYSICS_PARAM_NAMES.index(n) for n in ("v0", "f0")]] = 900.0, 0.4
MASK = ~np.isin(np.arange(N), [0, 6, 30])


def terms_at(phi):
    data = pack_pairs(np.ones((len(phi), N, N)), T, Q, DT, phi, mask=MASK)
    return jax.jit(separable_form)(jnp.asarray(PARAMETERS), data)


def dense(phi):
    g = np.asarray(correlation_matrix(jnp.asarray(PARAMETERS), jnp.asarray(T), Q, DT, phi))
    return g * np.outer(MASK, MASK)


def test_products_of_the_correlation_are_those_of_its_matrix():
    vectors = np.random.default_rng(0).normal(size=(2, N, 3))
    found = jax.jit(multiply)(terms_at((0.0, 50.0)), jnp.asarray(vectors))
    expected = [(dense(p) - np.diag(MASK)) @ v for p, v in zip((0.0, 50.0), vectors, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_drawn_intensities_have_the_stated_covariance():
    count, noise = 40_000, 0.4
    drawn = draw_intensities(terms_at((20.0,)), 0.2, noise, count, np.random.default_rng(1))[:N]
    expected = speckle_covariance(0.2 * dense(20.0), 1.0, noise * MASK)
    np.testing.assert_array_equal(drawn[~MASK], 0.0)
    # Normal numbers: the products scatter by about the size of the diagonal.
    found = drawn @ drawn.T / count
    assert np.abs(found - expected).max() < 5 * 0.6 * np.sqrt(2 / count)
    assert np.abs(found - expected).std() < 1.5 * 0.6 / np.sqrt(count)


def random_operators(n, decay, seed=0):
    """Functions that nearly cancel in their difference, and a covariance of some length."""
    rng = np.random.default_rng(seed)
    lags = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    sigma = np.exp(-lags / decay) + 0.3 * np.eye(n)
    a = np.exp(-lags / 4.0) * (1 - np.eye(n))
    b = rng.normal(size=(n, n))
    functions = np.stack([a, 1 - np.eye(n), a + 1e-3 * (b + b.T) * (1 - np.eye(n))])
    lower = np.linalg.cholesky(sigma)
    operators = Operators(
        lambda v: functions @ v,
        lambda v: sigma @ v,
        lambda k, generator: lower @ generator.normal(size=(n, k)),
    )
    return functions, sigma, operators


@pytest.mark.parametrize("decay", [1.0, 10.0, 1000.0])
def test_estimates_are_right_in_every_direction(decay):
    functions, sigma, operators = random_operators(400, decay)
    exact = trace_products(lambda a: functions[a], 3, sigma)
    steps = []
    found = trace_estimates(operators, lambda: steps.append(1))
    assert len(steps) == N_BATCHES
    values, vectors = np.linalg.eigh(exact)
    # The difference of two functions is a thousandth of them, its variance a millionth.
    assert values[0] < 1e-3 * values[-1]
    whitened = vectors / np.sqrt(values)
    ratios = np.linalg.eigvalsh(whitened.T @ found.values @ whitened)
    np.testing.assert_allclose(ratios, 1.0, atol=0.04)
    assert found.error < 0.02


def test_few_directions_are_exact():
    n = 60
    functions, sigma, operators = random_operators(n, 10.0)
    exact = trace_products(lambda a: functions[a], 3, sigma)
    found = trace_estimates(operators)
    np.testing.assert_allclose(found.values, exact, rtol=1e-6, atol=1e-6 * exact.max())


def test_the_stated_error_is_that_of_the_samples():
    functions, sigma, operators = random_operators(600, 1.0, seed=2)
    exact = np.diagonal(trace_products(lambda a: functions[a], 3, sigma))
    found = trace_estimates(operators)
    off = np.abs(np.diagonal(found.values) / exact - 1)
    assert 0 < off.max() < 5 * found.error
