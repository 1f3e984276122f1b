"""Smooth bounds against closed forms, and the coordinates that are built on them."""

from __future__ import annotations

import dataclasses
import logging
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heterodyne._errors import ConfigError
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jax, jnp
from heterodyne.optimization.cmc.scaling import (
    ParameterScaling,
    compute_scaling_factors,
    log_scaling_factors,
    smooth_bound,
    smooth_bound_inverse,
    transform_initial_values_to_z,
    transform_samples_from_z,
)

LOW, HIGH = -2.0, 6.0
MID, HALF = 2.0, 4.0
RAW = np.linspace(-30.0, 30.0, 61)
LOGGER = "heterodyne.optimization.cmc.scaling"

intervals = st.tuples(st.floats(-1e6, 1e6, allow_subnormal=False), st.floats(1e-3, 1e6))
alpha = ParameterScaling("alpha_ref", center=0.5, scale=0.25, low=-5.0, high=5.0)
beta = ParameterScaling("beta", center=-1.9, scale=0.1, low=-2.0, high=2.0)
SCALINGS = {"alpha_ref": alpha, "beta": beta}


def closed_form(raw):
    return MID + HALF * np.tanh((raw - MID) / HALF)


def space(**settings):
    return ParameterSpace.from_config(settings)


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


# smooth_bound


def test_bend_is_the_tanh_of_the_text():
    np.testing.assert_allclose(smooth_bound(RAW, LOW, HIGH), closed_form(RAW), atol=2e-15)


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_arrays_of_both_kinds_and_bounds_per_element(kind):
    raw, low, high = kind([0.0, 1.0]), kind([-1.0, 0.0]), kind([1.0, 4.0])
    expected = [0.0, 2.0 + 2.0 * math.tanh(-0.5)]
    np.testing.assert_allclose(smooth_bound(raw, low, high), expected, rtol=1e-15)
    back = smooth_bound_inverse(kind(expected), low, high)
    np.testing.assert_allclose(back, [0.0, 1.0], atol=1e-14)


def test_plain_number_gives_a_scalar():
    assert smooth_bound(2.0, LOW, HIGH).shape == smooth_bound_inverse(2.0, LOW, HIGH).shape == ()


@given(intervals, st.floats(-1e9, 1e9))
@settings(max_examples=60)
def test_no_number_leaves_the_bounds(interval, raw):
    low, high = interval[0], interval[0] + interval[1]
    assert low <= float(smooth_bound(raw, low, high)) <= high


def test_bound_is_reached_without_passing_it_by_rounding():
    low, high = -0.3, 0.1
    assert 0.5 * (low + high) + 0.5 * (high - low) > high  # what the formula gives at infinity
    assert float(smooth_bound(1e9, low, high)) == high


def test_bend_is_increasing():
    assert np.all(np.diff(smooth_bound(np.linspace(-40.0, 40.0, 801), LOW, HIGH)) > 0)


def test_gradient_is_that_of_tanh_and_lives_outside_the_bounds():
    slopes = jax.vmap(jax.grad(lambda x: smooth_bound(x, LOW, HIGH)))(RAW)
    np.testing.assert_allclose(slopes, np.cosh((RAW - MID) / HALF) ** -2.0, rtol=1e-9)
    assert np.all(slopes[RAW > HIGH] > 0)
    assert np.all(slopes[RAW < LOW] > 0)


@pytest.mark.parametrize("function", [smooth_bound, smooth_bound_inverse])
@pytest.mark.parametrize("bounds", [(1.0, 1.0), (1.0, 0.0), (0.0, math.inf), (math.nan, 1.0)])
def test_bounds_that_are_no_interval_are_refused(function, bounds):
    with pytest.raises(ConfigError, match="low < high"):
        function(0.5, *bounds)


# smooth_bound_inverse


def test_inverse_is_the_arctanh_of_the_text():
    value = np.linspace(LOW, HIGH, 41)[1:-1]
    expected = MID + HALF * np.arctanh((value - MID) / HALF)
    np.testing.assert_allclose(smooth_bound_inverse(value, LOW, HIGH), expected, atol=1e-13)


@given(intervals, st.floats(0.0, 1.0, exclude_min=True, exclude_max=True))
@settings(max_examples=100)
def test_values_come_back(interval, part):
    low, width = interval
    high = low + width
    value = min(max(low + part * width, np.nextafter(low, high)), np.nextafter(high, low))
    back = float(smooth_bound(smooth_bound_inverse(value, low, high), low, high))
    assert abs(back - value) <= 1e-13 * (abs(low) + abs(high))


@given(intervals, st.floats(-4.0, 4.0))
@settings(max_examples=100)
def test_raw_numbers_come_back(interval, u):
    low, width = interval
    high = low + width
    raw = 0.5 * (low + high) + 0.5 * width * u
    back = float(smooth_bound_inverse(smooth_bound(raw, low, high), low, high))
    assert abs(back - raw) <= 3e-12 * (abs(low) + abs(high))


def test_inverse_is_finite_one_last_digit_from_a_bound():
    low, high = 1e-6, 1e4
    near = np.array([np.nextafter(low, high), np.nextafter(high, low)])
    raw = np.asarray(smooth_bound_inverse(near, low, high))
    assert np.all(np.isfinite(raw))
    np.testing.assert_allclose(smooth_bound(raw, low, high), near, rtol=1e-15, atol=1e-11)


@pytest.mark.parametrize("value", [LOW, HIGH, LOW - 1.0, HIGH + 1e-9, math.nan, math.inf])
def test_value_at_or_outside_a_bound_is_refused(value):
    with pytest.raises(ConfigError, match=r"strictly between -2\.0 and 6\.0"):
        smooth_bound_inverse(np.array([0.0, value]), LOW, HIGH)


def test_refusal_names_the_bounds_of_the_element():
    with pytest.raises(ConfigError, match=r"value: 9\.0 .* between 3\.0 and 4\.0"):
        smooth_bound_inverse(np.array([0.5, 9.0]), np.array([0.0, 3.0]), np.array([1.0, 4.0]))


def test_inside_a_trace_a_value_outside_is_nan_and_a_bound_infinite():
    inverse = jax.jit(lambda v: smooth_bound_inverse(v, LOW, HIGH))
    seen = np.asarray(inverse(jnp.array([LOW, HIGH, HIGH + 1.0])))
    assert seen[0] == -math.inf
    assert seen[1] == math.inf
    assert np.isnan(seen[2])


# ParameterScaling


def test_normalized_is_the_distance_from_the_centre_in_scales():
    np.testing.assert_allclose(alpha.to_normalized(np.array([0.5, 1.0, 0.0])), [0.0, 2.0, -2.0])


def test_original_is_the_bend_of_the_line():
    z = np.array([-40.0, -1.0, 0.0, 2.0])
    expected = 5.0 * np.tanh((0.5 + 0.25 * z) / 5.0)
    np.testing.assert_allclose(alpha.to_original(z), expected, rtol=1e-15)


@given(st.floats(-1.999, 1.999))
@settings(max_examples=50)
def test_z_of_is_the_inverse_of_to_original(value):
    assert float(beta.to_original(beta.z_of(value))) == pytest.approx(value, abs=1e-14)


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        ({"scale": 0.0}, "finite, > 0"),
        ({"scale": math.nan}, "finite, > 0"),
        ({"center": math.inf}, "a finite number"),
        ({"low": 5.0}, "low < high"),
    ],
)
def test_unusable_scaling_is_refused(change, allowed):
    with pytest.raises(ConfigError, match=f"alpha_ref: .*{allowed}"):
        dataclasses.replace(alpha, **change)


# compute_scaling_factors


def test_values_are_centres_and_errors_are_scales():
    made = compute_scaling_factors(
        space(), {"alpha_ref": 0.5, "D0_ref": 2e4}, {"alpha_ref": 0.1, "D0_ref": 300.0}, 3.0
    )
    assert dataclasses.astuple(made["alpha_ref"]) == pytest.approx(
        ("alpha_ref", 0.5, 0.3, -5.0, 5.0)
    )
    assert dataclasses.astuple(made["D0_ref"]) == pytest.approx(("D0_ref", 2e4, 900.0, 100.0, 1e6))


def test_width_factor_is_two_by_default():
    made = compute_scaling_factors(space(), {"beta": 0.1}, {"beta": 0.05})
    assert made["beta"].scale == pytest.approx(0.1)


def test_one_scaling_for_each_varying_parameter():
    some = space().fix("f2", "phi0")
    assert list(compute_scaling_factors(some)) == some.varying_names


def test_without_a_fit_bounds_give_centre_and_scale(caplog):
    made = compute_scaling_factors(space(f1={"min": -1.0, "max": 5.0}))["f1"]
    assert (made.center, made.scale, made.low, made.high) == (2.0, 1.0, -1.0, 5.0)
    assert warnings_of(caplog) == []


def test_error_without_a_value_is_not_used(caplog):
    made = compute_scaling_factors(space(), {}, {"beta": 0.05})["beta"]
    assert (made.center, made.scale) == (0.0, pytest.approx(4.0 / 6.0))
    assert any("beta" in m and "no least-squares value" in m for m in warnings_of(caplog))


@pytest.mark.parametrize("errors", [None, {}, {"beta": math.nan}, {"beta": 0.0}])
def test_missing_error_leaves_the_default_scale(caplog, errors):
    made = compute_scaling_factors(space(), {"beta": 0.3}, errors)["beta"]
    assert (made.center, made.scale) == (0.3, pytest.approx(4.0 / 6.0))
    assert "scaling of beta: no standard error, the scale is a sixth of the range" in warnings_of(
        caplog
    )


@pytest.mark.parametrize("error", [1.0, 1e9, math.inf])
def test_scale_is_limited_where_a_normal_z_would_pile_up_at_the_bounds(caplog, error):
    made = compute_scaling_factors(space(), {"beta": 0.0}, {"beta": error})["beta"]
    z = np.linspace(-3.0, 3.0, 601)

    def density(scale):
        x = dataclasses.replace(made, scale=scale).to_original(z)
        return np.exp(-0.5 * z**2) / np.gradient(np.asarray(x), z)

    assert np.argmax(density(0.99 * made.scale)) == 300
    assert density(1.05 * made.scale)[300] < density(1.05 * made.scale).max()
    assert "scaling of beta: scale limited by the bounds" in warnings_of(caplog)


def test_centre_that_the_bend_moves_is_reported(caplog):
    values, errors = {"v0": 300.0, "beta": 0.1}, {"v0": 3.0, "beta": 0.05}
    made = compute_scaling_factors(space(), values, errors)
    assert abs(made["v0"].to_original(0.0) - 300.0) > 100 * made["v0"].scale
    assert abs(made["beta"].to_original(0.0) - 0.1) < 0.01 * made["beta"].scale
    found = [m for m in warnings_of(caplog) if "z = 0 lies" in m]
    assert found == [
        "scaling of v0: z = 0 lies more than half a scale from the least-squares value"
    ]


def test_names_that_are_no_parameters_are_reported(caplog):
    compute_scaling_factors(space(), {"contrast_0": 0.2}, {"contrast_0": 0.01})
    assert "scaling of contrast_0: left aside, not in the parameter space" in warnings_of(caplog)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (({"beta": 2.5}, None), r"nlsq_values\['beta'\]: 2.5 lies outside .*-2 to 2"),
        (({"beta": math.nan}, None), "nan lies outside"),
        (({"beta": 0.0}, {"beta": -0.1}), r"nlsq_uncertainties\['beta'\]: -0.1"),
        ((None, None, 0.0), "width_factor"),
        ((None, None, math.inf), "width_factor"),
    ],
)
def test_unusable_arguments_are_refused(args, message):
    with pytest.raises(ConfigError, match=message):
        compute_scaling_factors(space(), *args)


def test_scalings_are_logged(caplog):
    with caplog.at_level(logging.DEBUG, LOGGER):
        log_scaling_factors(SCALINGS)
    assert [r.levelno for r in caplog.records] == [logging.INFO, logging.DEBUG, logging.DEBUG]
    assert "2 parameters" in caplog.messages[0]
    assert caplog.messages[2] == "beta: center -1.9, scale 0.1, bounds -2 to 2"


# transforms of mappings


def test_start_values_come_back_exactly_and_others_stay():
    start = {"alpha_ref": 4.9, "beta": -1.99, "sigma": 0.01}
    z = transform_initial_values_to_z(start, SCALINGS)
    assert list(z) == ["alpha_ref_z", "beta_z", "sigma"]
    assert all(type(value) is float for value in z.values())
    back = transform_samples_from_z({k: np.array([v]) for k, v in z.items()}, SCALINGS)
    assert {k: float(v[0]) for k, v in back.items()} == pytest.approx(start, rel=1e-13)
    assert start == {"alpha_ref": 4.9, "beta": -1.99, "sigma": 0.01}


def test_draws_are_bent_elementwise_and_others_stay():
    draws = np.linspace(-3.0, 3.0, 12).reshape(4, 3)
    given_draws = {"beta_z": draws, "f0_z": draws, "sigma": draws[0]}
    made = transform_samples_from_z(given_draws, SCALINGS)
    assert list(made) == ["beta", "f0_z", "sigma"]
    assert all(isinstance(value, np.ndarray) for value in made.values())
    np.testing.assert_allclose(made["beta"], 2.0 * np.tanh((-1.9 + 0.1 * draws) / 2.0))
    np.testing.assert_array_equal(made["f0_z"], draws)
    assert list(given_draws) == ["beta_z", "f0_z", "sigma"]


def test_name_that_equals_a_parameter_without_the_suffix_is_not_bent():
    made = transform_samples_from_z({"beta": np.array([7.0])}, SCALINGS)
    np.testing.assert_array_equal(made["beta"], [7.0])


def test_start_value_on_a_bound_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"beta: -2\.0 .*strictly between -2\.0 and 2\.0"):
        transform_initial_values_to_z({"beta": -2.0}, SCALINGS)


def test_two_entries_with_one_name_are_refused():
    with pytest.raises(ConfigError, match="beta is given twice"):
        transform_samples_from_z({"beta_z": np.zeros(2), "beta": np.zeros(2)}, SCALINGS)
    with pytest.raises(ConfigError, match="beta_z is given twice"):
        transform_initial_values_to_z({"beta": 0.0, "beta_z": 0.0}, SCALINGS)
