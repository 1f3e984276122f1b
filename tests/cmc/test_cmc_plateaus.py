"""Regions without a mode, against weighted draws of the priors and dense evaluation."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from cmc_cases import (
    FLAT,
    POSTERIOR,
    SCALING,
    SIGMA,
    SPACE,
    VARYING,
    T,
    coordinates_of,
    densities,
    target_of,
    truth,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from heterodyne.core._jax import jax, jnp
from heterodyne.core.rates import sample_fraction, transport_coefficient
from heterodyne.optimization.cmc._draws import kish
from heterodyne.optimization.cmc._engine import drive
from heterodyne.optimization.cmc._frame import Frame, competing_frames
from heterodyne.optimization.cmc._importance import ImportanceSampler
from heterodyne.optimization.cmc._plateaus import (
    _frozen,
    _saturated,
    _summarised,
    plateau_frames,
)
from heterodyne.optimization.coordinates.curves import CURVE_PARAMETERS
from heterodyne.optimization.nlsq.config import NLSQConfig
from heterodyne.optimization.nlsq.core import fit_problem
from heterodyne.optimization.nlsq.solve import solve
from heterodyne.optimization.prior import LogPrior, draw_columns
from heterodyne.optimization.problem import Problem

ENDS = T[[0, -1]]
STILL = (0.0, -6e4)


def never(draws):
    return False


@cache
def fitted(case):
    problem = Problem(target_of(*case).data, POSTERIOR.coordinates, SCALING)
    return fit_problem(problem, NLSQConfig(n_starts=2))


def frames(case):
    fit = fitted(case)
    modes = competing_frames(POSTERIOR, fit, SIGMA)
    return tuple(modes.values()), plateau_frames(POSTERIOR, fit, SIGMA, tuple(modes), 1)


@cache
def weighted_priors(case, n=120_000):
    """Draws of the priors and their weights; contrast and sigma are drawn where data put them."""
    rng = np.random.default_rng(8)
    physics = draw_columns(SPACE, VARYING[:2], rng, n)
    around = stats.multivariate_t(coordinates_of(*case)[2:], np.diag([0.0035, 0.08]) ** 2, df=5)
    tail = around.rvs(n, random_state=rng)
    chart = POSTERIOR.coordinates
    parameters = np.tile(truth(*case), (n, 1))
    parameters[:, chart.indices] = physics
    y = np.asarray(jax.jit(jax.vmap(chart.inverse))(parameters))
    log_det = np.asarray(jax.jit(jax.vmap(chart.forward))(y)[1])
    prior = np.asarray(LogPrior.of(SPACE, VARYING[:2]).each(physics))
    density, named = densities(np.column_stack([y, tail]), target_of(*case))
    log_weights = density - log_det - prior - around.logpdf(tail)
    weights = np.exp(log_weights - log_weights.max())
    return named, weights / weights.sum()


def frozen(named):
    """Where J of the reference is on its floor at all times; columns as in ``densities``."""
    j = SPACE["D0_ref"].value * T ** named[:, :1] + named[:, 1:2]
    return j.max(axis=1) <= 0


def test_a_reference_that_never_moves_has_the_weight_of_its_mass():
    named, weights = weighted_priors(STILL)
    assert kish(weights) > 300
    expected = weights @ frozen(named)
    assert expected > 0.2
    modes, plateaus = frames(STILL)
    assert len(plateaus) == 1
    normal = np.random.default_rng(5).normal(size=(500, 4))
    covered = densities(np.asarray(plateaus[0].place(jnp.asarray(normal))), target_of(*STILL))[1]
    assert frozen(covered).mean() > 0.3
    sampler = ImportanceSampler(POSTERIOR, target_of(*STILL), (*modes, *plateaus), 3, n_groups=2)
    draws = drive(sampler, sampler.start(), never)
    seen = draws.proposals
    found = densities(seen.y, target_of(*STILL))[1]
    assert seen.k_hat < 0.7
    assert seen.kish > 1000
    assert seen.weights @ frozen(found) == pytest.approx(expected, abs=0.04)
    for k in range(4):
        mean = weights @ named[:, k]
        width = np.sqrt(weights @ (named[:, k] - mean) ** 2)
        assert seen.weights @ found[:, k] == pytest.approx(mean, abs=0.2 * width)


def test_data_that_see_all_parameters_have_no_plateau():
    assert not frames(FLAT)[1]


def test_held_coordinates_stay_and_the_others_reach_their_minimum():
    fit = fitted(FLAT)
    start = fit.modes.y[:1] + np.array([0.2, 500.0])
    settings = {"prior_weight": 1.0, "max_iterations": 60, "tolerance": 1e-8}
    found = solve(fit.problem, start, **settings, held=np.array([[True, False]]))
    assert found.y[0, 0] == start[0, 0]
    line = np.linspace(-1e3, 1e3, 201)
    beside = np.column_stack([np.full(201, start[0, 0]), found.y[0, 1] + line])
    settings["max_iterations"] = 0
    values = solve(fit.problem, beside, **settings).objective
    assert values.argmin() == 100
    assert found.objective[0] > fit.modes.objective[0] + 1.0


def test_a_plateau_has_the_moments_of_its_draws_and_leaves_the_rest_alone():
    rng = np.random.default_rng(2)
    points = rng.normal(size=(512, 2)) @ np.array([[2.0, 0.5], [0.0, 0.3]]) + [5.0, -1.0]
    plateau = _summarised(np.array([0, 2]), points)
    assert np.abs(plateau.inner - points.mean(0)).max() < 0.5
    np.testing.assert_allclose(
        plateau.covariance, np.cov(points, rowvar=False), rtol=0.02, atol=0.01
    )
    turn = np.linalg.cholesky(np.cov(rng.normal(size=(5, 30))))
    covered = plateau.spread(Frame(jnp.arange(5.0), jnp.asarray(turn)))
    covariance = np.asarray(covered.factor @ covered.factor.T)
    seen, held = [1, 3, 4], [0, 2]
    np.testing.assert_allclose(covariance[np.ix_(held, held)], plateau.covariance)
    assert not covariance[np.ix_(held, seen)].any()
    # The covariance given the others is the inverse of a block of the precision.
    block = np.linalg.inv(np.linalg.inv(turn @ turn.T)[np.ix_(seen, seen)])
    np.testing.assert_allclose(covariance[np.ix_(seen, seen)], block)
    np.testing.assert_allclose(covered.centre, [points[:, 0].mean(), 1, points[:, 1].mean(), 3, 4])
    np.testing.assert_allclose(plateau.on(np.zeros(5))[held], plateau.inner)


@pytest.mark.parametrize("names", CURVE_PARAMETERS[:2], ids=["ref", "sample"])
@given(
    log_prefactor=st.floats(2, 6),
    exponent=st.floats(-2, 2),
    offset=st.floats(-1e5, 1e4),
)
def test_a_frozen_component_is_on_its_floor_at_all_times(names, log_prefactor, exponent, offset):
    region = _frozen(names)
    values = (10.0**log_prefactor, exponent, offset)
    drawn = {name: np.array([x]) for name, x in zip(region.hidden, values, strict=True)}
    curve = np.asarray(transport_coefficient(T, *values))
    assert region.holds(drawn, ENDS)[0] == (curve.max() == 0.0)


@given(f0=st.floats(0.01, 2), f1=st.floats(-3, 3), f2=st.floats(-3, 3), f3=st.floats(0, 1))
def test_a_saturated_fraction_is_1_at_all_times(f0, f1, f2, f3):
    drawn = {f"f{k}": np.array([x]) for k, x in enumerate((f0, f1, f2, f3))}
    curve = np.asarray(sample_fraction(T, f0, f1, f2, f3))
    assert _saturated().holds(drawn, ENDS)[0] == (curve.min() == 1.0)
