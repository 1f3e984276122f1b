"""Rates and fraction: limits, values at t = 0, finite gradients."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate

from heterodyne.core import rates
from heterodyne.core._jax import jax, jnp

T = jnp.asarray([0.0, 0.1, 0.5, 1.0, 2.0, 40.0])


@pytest.mark.parametrize("exponent", [-5.0, -0.5, 0.0, 0.7, 5.0])
def test_power_of_time_is_zero_at_zero(exponent):
    found = rates.power_of_time(T, jnp.asarray(exponent))
    assert found[0] == 0
    np.testing.assert_allclose(found[1:], np.asarray(T[1:]) ** exponent, rtol=1e-13)


def test_transport_coefficient_is_floored_at_zero():
    found = rates.transport_coefficient(T, *jnp.asarray([10.0, 1.0, -7.0]))
    np.testing.assert_allclose(found, [0, 0, 0, 3, 13, 393], rtol=1e-13)


def test_transport_coefficient_at_zero_time_is_its_offset():
    assert rates.transport_coefficient(T, *jnp.asarray([10.0, -1.0, 4.0]))[0] == 4


def test_velocity_keeps_its_sign():
    found = rates.velocity(T, *jnp.asarray([10.0, 1.0, -7.0]))
    np.testing.assert_allclose(found, [-7, -6, -2, 3, 13, 393], rtol=1e-13)


def test_fraction_is_an_exponential_clipped_at_zero_and_one():
    found = rates.sample_fraction(T, *jnp.asarray([0.5, 0.3, 1.0, 0.1]))
    assert found[-1] == 1
    np.testing.assert_allclose(found[:-1], 0.5 * np.exp(0.3 * (np.asarray(T)[:-1] - 1)) + 0.1)
    falling = rates.sample_fraction(T, *jnp.asarray([-0.5, 0.3, 1.0, 0.6]))
    np.testing.assert_allclose(falling[:4], 0.6 - 0.5 * np.exp(0.3 * (np.asarray(T)[:4] - 1)))
    np.testing.assert_array_equal(falling[4:], 0)


@pytest.mark.parametrize("f1", [-10.0, 10.0])
@pytest.mark.parametrize("f2", [-1e4, 1e4])
@pytest.mark.parametrize("f0", [0.0, 1.0])
def test_fraction_and_its_gradient_are_finite_at_the_bounds(f0, f1, f2):
    # Where the exponent is as large as the bounds allow, exp alone would overflow.
    point = jnp.asarray([f0, f1, f2, 0.25])
    value = rates.sample_fraction(T, *point)
    slopes = jax.jacfwd(lambda p: rates.sample_fraction(T, *p))(point)
    reverse = jax.jacrev(lambda p: rates.sample_fraction(T, *p))(point)
    np.testing.assert_allclose(value, 1.0 if f0 * f1 * f2 < 0 else 0.25)
    assert np.isfinite(slopes).all()
    np.testing.assert_array_equal(slopes, reverse)


@pytest.mark.parametrize("exponent", [-5.0, 0.0, 5.0])
def test_gradient_of_the_transport_coefficient_is_finite_and_exact(exponent):
    point = jnp.asarray([10.0, exponent, 2.0])
    slopes = jax.jacrev(lambda p: rates.transport_coefficient(T, *p))(point)
    t = np.asarray(T)[1:]
    np.testing.assert_array_equal(slopes[0], [0, 0, 1])
    np.testing.assert_allclose(slopes[1:, 0], t**exponent, rtol=1e-13)
    np.testing.assert_allclose(slopes[1:, 1], 10 * t**exponent * np.log(t), rtol=1e-12)
    np.testing.assert_array_equal(slopes[1:, 2], 1)


def test_integral_is_the_cumulative_trapezoid():
    rate = np.random.default_rng(0).normal(size=30)
    expected = integrate.cumulative_trapezoid(rate, dx=0.3, initial=0)
    np.testing.assert_allclose(
        rates.cumulative_trapezoid(jnp.asarray(rate), 0.3), expected, atol=1e-13
    )
