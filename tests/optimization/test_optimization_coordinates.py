"""Sampling coordinates: round trips, determinants, bounds and smoothness."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache, partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jax, jnp
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.coordinates.ridge import Ridge
from heterodyne.optimization.coordinates.walls import bend, unbend

T = 0.1 * np.arange(1.0, 201.0)
INDEX = {name: k for k, name in enumerate(PHYSICS_PARAM_NAMES)}
LOG_SPACE = np.array([ParameterSpace()[n].info.log_space for n in PHYSICS_PARAM_NAMES])
CURVES = (
    ("D0_ref", "alpha_ref", "D_offset_ref"),
    ("D0_sample", "alpha_sample", "D_offset_sample"),
    ("v0", "beta", "v_offset"),
    ("f0", "f1", "f3"),
)
SUBSETS = {
    "nothing": (),
    "f0 and exponents": ("f0", "alpha_ref", "beta", "D_offset_sample"),
    "f2 and prefactors": ("f2", "D0_ref", "v_offset", "phi0"),
    "f1 and offsets": ("f1", "D_offset_ref", "v0", "beta", "v_offset"),
    "v0 and beta": ("v0", "beta"),
}
# So that the velocity is projected.
PHI = {"nothing": 20.0, "f0 and exponents": -50.0, "v0 and beta": 35.0}
ALONG = {fixed: PHI.get(name) for name, fixed in SUBSETS.items()}
# These compile in a third of the time, which is most of the time here.
EVERY_SUBSET = pytest.mark.parametrize("fixed", SUBSETS.values(), ids=SUBSETS.keys())


@cache
def coordinates_without(*fixed):
    space = ParameterSpace().with_values({"f2": T.mean()})
    return PhysicsCoordinates.of(space.fix(*fixed), T, phi=ALONG.get(fixed))


def limits(space):
    rows = [space[n] for n in PHYSICS_PARAM_NAMES]
    return np.array([p.min for p in rows]), np.array([p.max for p in rows])


def interior(shares, space):
    """Parameters at given shares of their ranges, on log axes where priors are."""
    low, high = limits(space)
    ratio = np.where(LOG_SPACE, high / np.where(LOG_SPACE, low, 1.0), 1.0)
    points = np.where(LOG_SPACE, low * ratio**shares, low + (high - low) * shares)
    fixed = [k for k, n in enumerate(PHYSICS_PARAM_NAMES) if not space[n].vary]
    points[..., fixed] = [space[PHYSICS_PARAM_NAMES[k]].value for k in fixed]
    return points


def special_points(space):
    """Points at exponent 0, with rates floored, and near bounds, among random ones."""
    rng = np.random.default_rng(5)
    shares = rng.uniform(0.02, 0.98, (24, 14))
    shares[6:9] = rng.choice([1e-6, 1 - 1e-6], (3, 14))
    points = interior(shares, space)
    at_zero = [INDEX[n] for n in ("alpha_ref", "alpha_sample", "beta", "f1")]
    points[:3, [k for k in at_zero if space[PHYSICS_PARAM_NAMES[k]].vary]] = 0.0
    for component in ("ref", "sample"):
        names = [f"{n}_{component}" for n in ("D0", "alpha", "D_offset")]
        if space[names[2]].vary:
            place = [INDEX[n] for n in names]
            row = points[3:6, place]
            power = T[100] ** row[:, 1]
            points[3:6, place[2]] = np.maximum(-3.0 * row[:, 0] * power, -9e4)
    return points


@partial(jax.jit, static_argnames="coordinates")
def both_ways(points, coordinates):
    y = jax.vmap(coordinates.inverse)(points)
    return y, *jax.vmap(coordinates.forward)(y)


@partial(jax.jit, static_argnames="coordinates")
def images(y, coordinates):
    """Parameters, log determinant, Jacobian of what varies, gradient of log_det."""

    def all_of(x):
        value, pull = jax.vjp(lambda z: jnp.append(*coordinates.forward(z)), x)
        (rows,) = jax.vmap(pull)(jnp.eye(15))
        return value[:14], value[14], rows[coordinates.indices], rows[14]

    return jax.vmap(all_of)(y)


def distance(found, expected, space):
    """Largest difference over the range, or in the logarithm of a prefactor."""
    low, high = limits(space)
    relative = np.abs(np.log(np.abs(found[..., LOG_SPACE] / expected[..., LOG_SPACE]))).max()
    absolute = np.abs((found - expected) / (high - low))[..., ~LOG_SPACE].max()
    return max(float(relative), float(absolute))


@EVERY_SUBSET
def test_parameters_come_back(fixed):
    coordinates = coordinates_without(*fixed)
    points = special_points(coordinates.space)
    y, found, _ = both_ways(points, coordinates)
    assert y.shape == (len(points), 14 - len(fixed))
    assert np.isfinite(y).all()
    assert distance(np.asarray(found), points, coordinates.space) < 1e-9
    held = [INDEX[n] for n in fixed]
    np.testing.assert_array_equal(np.asarray(found)[:, held], points[:, held])


@EVERY_SUBSET
def test_log_det_is_that_of_the_jacobian(fixed):
    coordinates = coordinates_without(*fixed)
    points = special_points(coordinates.space)
    y, _, _ = both_ways(points, coordinates)
    _, log_det, jacobian, gradient = map(np.asarray, images(y, coordinates))
    # Rows and columns are scaled so that the reference determinant keeps its digits.
    rows = np.abs(jacobian).max(axis=2)
    columns = np.abs(jacobian / rows[:, :, None]).max(axis=1)
    _, logs = np.linalg.slogdet(jacobian / rows[:, :, None] / columns[:, None])
    expected = logs + np.log(rows).sum(1) + np.log(columns).sum(1)
    np.testing.assert_allclose(log_det, expected, rtol=0, atol=1e-6)
    assert np.isfinite(gradient).all()


def widths(y, coordinates):
    """Distances over which the map bends, in the order of the coordinates."""
    space, unit = coordinates.space, np.ones((len(y), 14))
    full = np.zeros((len(y), 14))
    full[:, coordinates.indices] = y
    low, high = limits(space)
    for prefactor, exponent, offset in np.array(CURVES):
        unit[:, INDEX[prefactor]] = 0.3
        span = (high - low)[INDEX[exponent]]
        unit[:, INDEX[exponent]] = 0.05 * span
        if all(space[n].vary for n in (prefactor, exponent, offset)):
            # The slope of a fraction that is clipped grows no more with its amplitude.
            most = 3.0 if prefactor == "f0" else 200.0
            unit[:, INDEX[exponent]] *= np.exp(np.clip(full[:, INDEX[prefactor]], -200.0, most))
        unit[:, INDEX[offset]] = 0.02 * (high - low)[INDEX[offset]]
    unit[:, INDEX["f2"]] = 0.3 if {"f0", "f2"} <= set(coordinates.names) else 1.0
    return unit[:, coordinates.indices]


@EVERY_SUBSET
def test_images_lie_inside_the_bounds(fixed):
    coordinates = coordinates_without(*fixed)
    space = coordinates.space
    low, high = limits(space)
    rng = np.random.default_rng(6)
    points = special_points(space)
    points[6:9] = points[9:12]
    y, _, original = map(np.asarray, both_ways(points, coordinates))
    varying, step = coordinates.indices, rng.normal(size=y.shape) * widths(y, coordinates)
    # Far outside the walls, where the density is nothing, a bound may be touched.
    for size, margin, reach, least in ((1.0, 0.0, 30.0, 8), (30.0, 1e-9, np.inf, 2)):
        parameters, log_det, _, gradient = map(np.asarray, images(y + size * step, coordinates))
        allowed = np.isfinite(log_det) & (log_det > original - reach)
        assert allowed.sum() >= least
        room = margin * (high - low)
        inside = (low - room < parameters) & (parameters < high + room)
        np.testing.assert_array_equal(inside[allowed][:, varying], True)
        assert np.isfinite(gradient[allowed]).all()


def test_the_axis_is_the_direction_that_angles_have_in_common():
    def axis(*phi, fixed=()):
        return PhysicsCoordinates.of(ParameterSpace().fix(*fixed), T, phi=phi).axis

    assert axis(30.0) == pytest.approx(30.0)
    assert axis(10.0, 30.0) == pytest.approx(20.0)
    # A direction and its opposite see the same.
    assert axis(10.0, -150.0) == pytest.approx(20.0)
    assert axis(0.0, 60.0, 120.0) is None
    assert axis(85.0) is None
    assert axis(71.0) is None
    assert axis(30.0, fixed=("phi0",)) is None
    assert PhysicsCoordinates.of(ParameterSpace(), T).axis is None
    plain = (True, True, False, True)
    assert PhysicsCoordinates.of(ParameterSpace(), T, plain, [30.0]).axis is None


def test_flow_angle_and_velocity_that_one_detector_angle_does_not_tell_apart_share_coordinates():
    coordinates = coordinates_without()
    p = np.array([coordinates.space[n].value for n in PHYSICS_PARAM_NAMES])
    p[[INDEX[n] for n in ("v0", "beta", "v_offset")]] = 800.0, -0.3, 5.0
    phi, seen = PHI["nothing"], []
    for phi0 in (-8.0, 0.0, 6.0):
        at = p.copy()
        at[INDEX["phi0"]] = phi0
        scale = np.cos(np.deg2rad(phi)) / np.cos(np.deg2rad(phi + phi0))
        at[[INDEX["v0"], INDEX["v_offset"]]] *= scale
        seen.append(np.asarray(coordinates.inverse(at))[[INDEX[n] for n in CURVES[2]]])
    # Walls of bounds on v_offset are felt a little; without an axis these differ by 4 %.
    np.testing.assert_allclose(seen[1:], [seen[0]] * 2, rtol=2e-3)


def test_coordinates_along_the_flow_are_those_without_an_axis():
    coordinates = coordinates_without()
    plain = PhysicsCoordinates.of(coordinates.space, T)
    points = special_points(coordinates.space)
    y, expected = jax.vmap(coordinates.inverse)(points), jax.vmap(plain.inverse)(points)
    along = jax.vmap(coordinates.of_flow)(y)
    np.testing.assert_allclose(along, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(jax.vmap(coordinates.of_axis)(along), y, rtol=1e-9, atol=1e-9)


def test_a_fraction_that_dies_out_early_is_held_where_it_is_seen():
    # exp(-4 t) at mid-window is e**-40 of what it is at the start, where the data see it.
    coordinates = coordinates_without()
    parameters = np.array([coordinates.space[n].value for n in PHYSICS_PARAM_NAMES])
    parameters[[INDEX[n] for n in ("f0", "f1", "f2", "f3")]] = 0.5, -4.0, 0.0, 0.3
    y = coordinates.inverse(parameters)
    names = list(coordinates.names)

    def start(step):
        moved = y.at[names.index("f0")].add(step)
        p = coordinates.forward(moved)[0]
        f0, f1, f2, f3 = (p[INDEX[n]] for n in ("f0", "f1", "f2", "f3"))
        return f0 * jnp.exp(f1 * (T.mean() - T.std() - f2)), f1, f3

    # Another amplitude at mid-window changes the rate, and nothing at the first knot.
    seen, rate, level = (np.asarray(x) for x in jax.vmap(start)(jnp.linspace(-1.0, 1.0, 9)))
    np.testing.assert_allclose(seen, 0.5 * np.exp(-4.0 * (T.mean() - T.std())), rtol=0.01)
    np.testing.assert_allclose(level, 0.3, rtol=0.01)
    assert np.ptp(rate) > 0.3


@given(st.lists(st.floats(0.001, 0.999), min_size=14, max_size=14))
@settings(max_examples=100)
def test_any_interior_point_comes_back(shares):
    coordinates = coordinates_without()
    point = interior(np.tile(shares, (24, 1)), coordinates.space)
    y, found, log_det = both_ways(point, coordinates)
    assert np.isfinite(log_det).all()
    assert distance(np.asarray(found), point, coordinates.space) < 1e-9
    again, _, _ = both_ways(found, coordinates)
    scale = np.maximum(1.0, np.abs(y))
    assert float(np.abs((again - y) / scale).max()) < 1e-5


def test_the_map_is_smooth_where_exponents_vanish():
    coordinates = coordinates_without()
    point = interior(np.full((24, 14), 0.4), coordinates.space)
    for name in ("alpha_ref", "alpha_sample", "beta", "f1"):
        point[:3, INDEX[name]] = [-1e-9, 0.0, 1e-9]
    y, _, _ = both_ways(point, coordinates)
    _, log_det, jacobian, gradient = map(np.asarray, images(y, coordinates))
    for values in (log_det, jacobian, gradient):
        scale = 1.0 + np.abs(values[1]).max(axis=-1, keepdims=True)
        assert (np.abs(values[0] - values[1]) / scale).max() < 1e-3
        curvature = np.abs(values[0] - 2.0 * values[1] + values[2]) / scale
        assert curvature.max() < 1e-6


def test_level_and_slope_are_mean_and_slope_of_the_transport_between_the_knots():
    coordinates = coordinates_without()
    space = coordinates.space
    point = np.array([space[n].value for n in PHYSICS_PARAM_NAMES])
    point[:3] = 5e3, 0.3, 700.0
    y = np.asarray(both_ways(np.tile(point, (24, 1)), coordinates)[0][0])
    t0 = coordinates.log_time
    np.testing.assert_allclose(y[0], np.log(5e3 * t0**0.3), rtol=1e-2)
    knots = t0 * np.exp(np.array([-1.0, 1.0]) * coordinates.log_spread)
    low, high = 5e3 * knots**0.3 + 700.0
    # Walls are some way off, and bend a little.
    np.testing.assert_allclose(y[1], (high - low) / (2 * coordinates.log_spread), rtol=5e-2)
    np.testing.assert_allclose(y[2], (high + low) / 2, rtol=1e-2)


@given(
    low=st.floats(-1e3, 1e3),
    span=st.floats(1e-3, 1e3),
    share=st.floats(1e-6, 1 - 1e-6),
    width=st.floats(0.01, 1.0),
)
@settings(max_examples=200)
def test_walls_are_a_bijection(low, span, share, width):
    high, width = low + span, width * span
    x = low + share * span
    y = unbend(x, low, high, width)
    back, log_slope = bend(y, low, high, width)
    rounding = 1e-13 * max(abs(low), abs(high))
    assert abs(float(back) - x) < 1e-9 * span + rounding
    above, below = (y - low) / width, (high - y) / width
    slope = jax.nn.sigmoid(above) - jax.nn.sigmoid(-below)
    np.testing.assert_allclose(float(jnp.exp(log_slope)), float(slope), rtol=1e-6)


def test_walls_leave_the_inside_alone_and_keep_the_order():
    y = np.linspace(-30.0, 30.0, 2001)
    x, log_slope = map(np.asarray, bend(y, -3.0, 5.0, 0.1))
    assert (np.diff(x) > 0).all() or ((x > -3.0) & (x < 5.0)).sum() < y.size
    middle = np.abs(y - 1.0) < 1.0
    np.testing.assert_allclose(x[middle], y[middle], atol=1e-12)
    np.testing.assert_allclose(log_slope[middle], 0.0, atol=1e-12)
    assert ((x >= -3.0) & (x <= 5.0)).all()
    near = np.abs(y - 1.0) < 5.0
    numeric = np.gradient(x, y)
    np.testing.assert_allclose(numeric[near], np.exp(log_slope[near]), atol=2e-3)


MOMENTS = """
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.optimization.coordinates.ridge import _grid, _moments
space = ParameterSpace()
print([_moments(space[name], _grid(space[name])) for name in ("f0", "f2")])
"""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors")
def test_constants_of_compiled_code_do_not_depend_on_threads():
    def printed(threads):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads}
        words = [sys.executable, "-c", MOMENTS]
        done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
        return done.stdout

    assert printed("1") == printed("2")


RIDGE = Ridge(ParameterSpace()["f0"], ParameterSpace()["f2"], 10.0)
ridge_forward = jax.jit(RIDGE.forward)


@jax.jit
def ridge_both_ways(f2, log_amplitude, f1):
    u = RIDGE.inverse(f2, log_amplitude, f1)
    value, log_slope = RIDGE.forward(u, log_amplitude, f1)
    slope = jax.grad(lambda x: RIDGE.forward(x, log_amplitude, f1)[0])(u)
    return u, value, log_slope, slope


@given(st.floats(-9e3, 9e3), st.floats(1e-3, 0.999), st.sampled_from([-8.0, -0.1, 0.0, 0.02, 3.0]))
@settings(max_examples=100)
def test_ridge_is_a_bijection(f2, f0, f1):
    # An amplitude at the reference time that rounds to nothing is not on the map.
    f2 = float(np.clip(f2, 10.0 - 180.0 / max(abs(f1), 1e-9), 10.0 + 180.0 / max(abs(f1), 1e-9)))
    log_amplitude = np.log(f0) + f1 * (10.0 - f2)
    u, value, log_slope, slope = map(float, ridge_both_ways(f2, log_amplitude, f1))
    assert np.isfinite(u)
    assert abs(value - f2) < 1e-9 * 1e4
    np.testing.assert_allclose(np.exp(log_slope), slope, rtol=1e-8)


@given(st.floats(-12.0, 12.0), st.floats(-5.0, 5.0), st.floats(-10.0, 10.0))
@settings(max_examples=100)
def test_ridge_keeps_f0_and_f2_inside(u, log_amplitude, f1):
    f2, log_slope = map(float, ridge_forward(u, log_amplitude, f1))
    if np.isfinite(log_slope):
        assert -1e4 < f2 < 1e4
        assert log_amplitude - f1 * (10.0 - f2) < 1e-9
    else:
        assert log_slope == -np.inf


def test_no_f2_is_allowed_for_an_amplitude_that_f0_cannot_have():
    for f1 in (-1e-6, 0.0, 1e-6):
        assert float(ridge_forward(0.3, np.log(0.9), f1)[1]) > -np.inf
        assert float(ridge_forward(0.3, np.log(1.1), f1)[1]) == -np.inf


def test_inside_moves_only_what_touches_a_bound():
    coordinates = coordinates_without(*SUBSETS["f2 and prefactors"])
    space, varying = coordinates.space, coordinates.indices
    low, high = limits(space)
    middle = interior(np.full(14, 0.4), space)
    np.testing.assert_allclose(coordinates.inside(middle), middle, rtol=1e-15)
    for ends in (low, high, low - 1.0, 2.0 * high):
        moved = coordinates.inside(ends)
        assert ((low < moved) & (moved < high))[varying].all()
        assert moved[INDEX["f2"]] == space["f2"].value


def test_a_steep_fraction_over_a_long_window_leaves_derivatives_finite():
    """f1 of 10/s over 500 s would be a growth by exp(5000)."""
    space = ParameterSpace().with_values({"f1": -0.01, "f2": 1.0}).fix("f2")
    coordinates = PhysicsCoordinates.of(space, np.arange(1.0, 501.0))
    point = jnp.asarray([space[n].value for n in PHYSICS_PARAM_NAMES])
    point = jnp.asarray(coordinates.inside(point))
    y = coordinates.inverse(point)
    np.testing.assert_allclose(coordinates.forward(y)[0], point, rtol=1e-8, atol=1e-8)
    jacobian = jax.jacfwd(lambda x: coordinates.forward(x)[0])(y)
    gradient = jax.grad(lambda x: coordinates.forward(x)[1])(y)
    assert np.isfinite(jacobian).all()
    assert np.isfinite(gradient).all()
