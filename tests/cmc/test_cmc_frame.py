"""The affine frame of sampling, and the normal approximation it starts from."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import combinations_with_replacement

import numpy as np
import pytest
from cmc_cases import POSTERIOR, SIGMA, T, coordinates_of, densities, target_of
from core_cases import DT, Q, make_model, simulate
from hypothesis import given, settings
from hypothesis import strategies as st

from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jnp
from heterodyne.data import from_arrays
from heterodyne.optimization.bind import bind, fit_scaled
from heterodyne.optimization.cmc._frame import (
    Frame,
    competing_frames,
    inverse_factor,
    laplace_frame,
    mode_frame,
)
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.nlsq.solve import Solutions
from heterodyne.optimization.posterior import SIGMA_PRIOR, Posterior
from heterodyne.optimization.problem import information
from heterodyne.optimization.scaling import Scaling, ScalingMode

D = 4
SEEDS = st.integers(0, 2**32 - 1)


def positive(rng, d=D):
    a = rng.normal(size=(d, 2 * d))
    return a @ a.T


def random_frame(rng):
    return Frame(jnp.asarray(rng.normal(size=D)), jnp.asarray(np.linalg.cholesky(positive(rng))))


def in_frame(frame, y):
    return np.linalg.solve(np.asarray(frame.factor), (y - np.asarray(frame.centre)).T).T


def draws_in(frame, rng, n):
    """Correlated draws with a mean away from 0, in the frame and as coordinates."""
    z = rng.normal(size=(n, D)) @ np.linalg.cholesky(positive(rng)).T + 3.0
    return z, np.asarray(frame.place(jnp.asarray(z)))


@settings(max_examples=20)
@given(SEEDS)
def test_place_is_affine(seed):
    rng = np.random.default_rng(seed)
    frame, z = random_frame(rng), rng.normal(size=(3, 5, D))
    y = np.asarray(frame.place(jnp.asarray(z)))
    expected = frame.centre + np.einsum("ij,abj->abi", frame.factor, z)
    np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(frame.place(jnp.asarray(frame.find(y))), y, rtol=1e-9, atol=1e-9)


@settings(max_examples=20)
@given(SEEDS)
def test_draws_have_unit_covariance_in_the_refined_frame(seed):
    rng = np.random.default_rng(seed)
    frame, n = random_frame(rng), 100_000
    z, y = draws_in(frame, rng, n)
    inner = in_frame(frame.refined(z), y)
    np.testing.assert_allclose(inner.mean(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(np.cov(inner, rowvar=False), np.eye(D), atol=2e-3)


@settings(max_examples=20)
@given(SEEDS)
def test_axes_have_unit_variance_in_the_scaled_frame(seed):
    rng = np.random.default_rng(seed)
    frame, n = random_frame(rng), 100_000
    z, y = draws_in(frame, rng, n)
    scaled = frame.scaled(z)
    inner = in_frame(scaled, y)
    np.testing.assert_allclose(inner.mean(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(inner.var(axis=0), 1.0, atol=2e-3)
    ratio = np.asarray(scaled.factor) / np.asarray(frame.factor + jnp.triu(jnp.ones((D, D)), 1))
    # Columns keep their directions.
    below = np.tril_indices(D)
    columns = np.broadcast_to(np.diagonal(ratio), (D, D))
    np.testing.assert_allclose(ratio[below], columns[below], rtol=1e-10)


@pytest.mark.parametrize("change", ["refined", "scaled"])
def test_few_draws_keep_the_frame_regular(change):
    rng = np.random.default_rng(0)
    frame = random_frame(rng)
    z = 1e-9 * rng.normal(size=(3, D))
    factor = np.asarray(getattr(frame, change)(z).factor)
    # Three draws count as much as they are against ten of the old frame.
    expected = np.sqrt(10.0 / 13.0) * np.asarray(frame.factor)
    np.testing.assert_allclose(factor, expected, rtol=1e-6, atol=1e-9)


def linear_posterior():
    """One whose coordinates are J, v and the contrast themselves, off their walls."""
    prior = {"prior": {"mean": 0.0, "std": 1e4}}
    space = ParameterSpace.from_config({"D0_ref": 100.0, "D_offset_ref": prior, "v0": 1e-6})
    held = (n for n in PHYSICS_PARAM_NAMES if n not in ("D_offset_ref", "v_offset"))
    space = space.fix("offset", *held)
    return Posterior(PhysicsCoordinates.of(space, T), Scaling.of(ScalingMode.AVERAGED, space, 1))


def inverse_in_fractions(factor):
    """Invert a lower triangular matrix without rounding."""
    rows, n = [[Fraction(x) for x in row] for row in factor.tolist()], len(factor)
    inverse = [[Fraction(0)] * n for _ in range(n)]
    for j, i in combinations_with_replacement(range(n), 2):
        known = sum(rows[i][k] * inverse[k][j] for k in range(j, i))
        inverse[i][j] = (int(i == j) - known) / rows[i][i]
    return np.array([[float(x) for x in row] for row in inverse])


@pytest.mark.parametrize("narrow", [1.0, 1e-12, 1e-48])
def test_factors_are_inverted_however_narrow_a_direction_is(narrow):
    factor = np.tril(np.random.default_rng(3).uniform(1.0, 2.0, size=(5, 5)))
    factor[2, 2] = narrow
    np.testing.assert_allclose(inverse_factor(factor), inverse_in_fractions(factor), rtol=1e-13)
    with pytest.raises(np.linalg.LinAlgError):
        inverse_factor(np.diag([1.0, 0.0]))


@settings(max_examples=10)
@given(SEEDS)
def test_the_normal_approximation_of_a_normal_posterior_is_exact(seed):
    rng = np.random.default_rng(seed)
    posterior, y = linear_posterior(), np.array([1e3, 20.0, 0.5, np.log(SIGMA)])
    stds, n_pairs = np.array([1e4, 25.0, 0.25]), 120
    widths = 10.0 ** rng.uniform(-3, 3, 3) * stds
    information = positive(rng, 3) / widths[:, None] / widths
    curvature = np.diag([*stds**-2, 2.0 * n_pairs + 2.0 / SIGMA_PRIOR**2])
    curvature[:-1, :-1] += information
    frame = laplace_frame(posterior, y, information, SIGMA, n_pairs)
    np.testing.assert_array_equal(frame.centre, y)
    factor = np.asarray(frame.factor)
    np.testing.assert_array_equal(np.triu(factor, 1), 0.0)
    # The bends at the walls are 1e-3 of a slope away there.
    np.testing.assert_allclose(factor.T @ curvature @ factor, np.eye(D), atol=0.01)


def test_what_the_data_leave_open_is_as_wide_as_its_prior():
    posterior, y = linear_posterior(), np.array([0.0, 60.0, 0.5, -4.0])
    factor = np.asarray(laplace_frame(posterior, y, np.zeros((3, 3)), SIGMA, 10).factor)
    np.testing.assert_allclose(np.diagonal(factor)[:3], [1e4, 25.0, 0.25], rtol=0.01)


def test_walls_confine():
    posterior = linear_posterior()
    # Eight widths behind the wall v_offset = -100 the parameter stands still.
    y = np.array([1e3, -100.0 - 8 * 4.0, 0.5, np.log(SIGMA)])
    prior = np.asarray(posterior.prior_curvature(jnp.asarray(y), SIGMA))
    factor = np.asarray(laplace_frame(posterior, y, np.zeros((3, 3)), SIGMA, 10).factor)
    assert prior[1, 1] > 0
    np.testing.assert_allclose(factor[1, 1], prior[1, 1] ** -0.5, rtol=0.02)


def test_a_prior_that_curves_upward_does_not_confine():
    # At a large amplitude the lower half of a normal prior of D0 is convex in log D0.
    space = ParameterSpace.from_config(
        {"D0_ref": {"prior": {"type": "normal", "mean": 5e5, "std": 1e5}}}
    )
    space = space.fix("contrast", "offset", *(n for n in PHYSICS_PARAM_NAMES if n != "D0_ref"))
    scaling = Scaling.of(ScalingMode.AVERAGED, space, 1)
    posterior = Posterior(PhysicsCoordinates.of(space, T), scaling)
    y = np.array([np.log(1e5), np.log(SIGMA)])
    assert np.asarray(posterior.prior_curvature(jnp.asarray(y), SIGMA))[0, 0] < -1.0
    for of_data in (0.0, 400.0):
        factor = laplace_frame(posterior, y, np.array([[of_data]]), SIGMA, 10).factor
        expected = (of_data + 12.0 / np.log(1e4) ** 2) ** -0.5
        np.testing.assert_allclose(factor[0, 0], expected, rtol=0.01)


def test_the_normal_approximation_of_a_posterior_has_its_curvature():
    # Second differences of the density at its mode, found by Newton steps.
    target, y = target_of(0.5, 0.0), coordinates_of(0.5, 0.0)
    steps = np.diag(0.2 * np.array([0.04, 500.0, 2e-3, 0.07]))
    pairs = [(a, b, s) for a in steps for b in steps for s in (1, -1)]
    shifts = np.array([a + s * b for a, b, s in pairs])
    for _ in range(3):
        values, _ = densities(y + np.concatenate([shifts, -shifts, steps, -steps]), target)
        n = len(shifts)
        both = (values[:n] + values[n : 2 * n]).reshape(D, D, 2)
        scaled = -(both[..., 0] - both[..., 1]) / 4.0
        slopes = (values[2 * n : 2 * n + D] - values[2 * n + D :]) / 2.0
        y = y + np.diagonal(steps) * np.linalg.solve(scaled, slopes)
    hessian = scaled / np.diagonal(steps)[:, None] / np.diagonal(steps)
    data = target.data
    found = information(jnp.asarray(y[:2]), data, POSTERIOR.coordinates, POSTERIOR.scaling)
    slopes = np.concatenate([np.ones(2), np.asarray(POSTERIOR.scaling_slopes(jnp.asarray(y)))])
    of_data = np.asarray(found[0]) * slopes[:, None] * slopes / np.exp(2 * y[-1])
    n_pairs = int(data.n_pairs.sum())
    factor = np.asarray(laplace_frame(POSTERIOR, y, of_data, SIGMA, n_pairs).factor)
    widths = np.linalg.eigvalsh(factor.T @ hessian @ factor)
    np.testing.assert_allclose(widths, 1.0, atol=0.15)


def fit_with_modes(*steps):
    """A fit whose modes are its best one moved by some widths along each coordinate."""
    data = from_arrays(simulate([15.0]), q=Q, phi=[15.0], t=make_model().t, dt=DT)
    fit = fit_scaled(bind(data, make_model().param_manager), ScalingMode.INDIVIDUAL)
    posterior = Posterior(fit.problem.coordinates, fit.problem.scaling)
    width = np.asarray(mode_frame(posterior, fit, fit.sigma).factor)[:2, :2]
    best = fit.modes.best(1)
    rows = Solutions(*(np.repeat(x, len(steps), axis=0) for x in best))
    moved = rows.y + np.outer(steps, width.sum(1))
    return posterior, replace(fit, modes=rows._replace(y=moved))


def test_copies_of_a_mode_count_once_and_modes_of_equal_height_each():
    posterior, fit = fit_with_modes(0.0, 0.3, 40.0, 39.9, -40.0)
    frames = competing_frames(posterior, fit, fit.sigma)
    first = np.array([frame.centre[0] for frame in frames.values()])
    assert list(frames) == [0, 2, 4]
    expected = fit.modes.y[[0, 2, 4], 0]
    np.testing.assert_allclose(first, expected, rtol=1e-12)


def test_modes_that_are_too_low_are_left_out():
    posterior, fit = fit_with_modes(0.0, 40.0, -40.0)
    low = fit.modes._replace(score=fit.modes.score + np.array([0.0, 19.0, 21.0]))
    assert len(competing_frames(posterior, replace(fit, modes=low), fit.sigma)) == 2
