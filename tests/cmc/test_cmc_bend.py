"""Coordinates that straighten a bent posterior, against closed forms and differentiated maps."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from cmc_cases import (
    FLAT,
    FLOOR,
    POSTERIOR,
    SCHEDULE,
    T,
    coordinates_of,
    frame_of,
    normal,
    target_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from heterodyne._events import ignore_events
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jax, jnp
from heterodyne.core.likelihood import pack_pairs
from heterodyne.core.simulate import creep_flow, simulate_pairs
from heterodyne.optimization.cmc import _bend
from heterodyne.optimization.cmc._bend import Bend, bend_at, symbols_of
from heterodyne.optimization.cmc._engine import drive
from heterodyne.optimization.cmc._frame import mode_frame
from heterodyne.optimization.cmc._importance import ImportanceSampler
from heterodyne.optimization.cmc._linear import Completed, complete_all, n_drawn, narrowed
from heterodyne.optimization.cmc._nuts import Target
from heterodyne.optimization.cmc._passes import Drawing, Keeper
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.derived import Derived
from heterodyne.optimization.informed import quantities
from heterodyne.optimization.nlsq.config import NLSQConfig
from heterodyne.optimization.nlsq.core import fit_problem
from heterodyne.optimization.posterior import Posterior
from heterodyne.optimization.prior import LogPrior
from heterodyne.optimization.problem import Problem
from heterodyne.optimization.scaling import Scaling, ScalingMode


def random_bend(m, seed, strength):
    symbols = strength * np.random.default_rng(seed).normal(size=(m, m, m))
    return Bend.of(0.5 * (symbols + symbols.transpose(0, 2, 1)))


@given(st.integers(1, 7), st.integers(0, 99), st.floats(0, 30), st.floats(0.1, 40))
@settings(max_examples=100)
def test_the_map_is_a_bijection(m, seed, strength, width):
    bend = random_bend(m, seed, strength)
    z = width * np.random.default_rng(seed + 1).normal(size=(9, m))
    u = bend.find(z)
    np.testing.assert_allclose(bend.place(u), z, atol=1e-9 * (1.0 + np.abs(u).max()))
    weak = random_bend(m, seed, min(strength, 0.3))
    np.testing.assert_allclose(weak.find(weak.place(z)), z, atol=1e-6 * width)


def test_its_volume_is_1():
    bend = random_bend(5, 3, 2.0)
    for u in np.random.default_rng(4).normal(size=(5, 5)):
        steps = 1e-5 * np.eye(5)
        slopes = (bend.place(u + steps) - bend.place(u - steps)) / 2e-5
        assert abs(np.linalg.det(slopes)) == pytest.approx(1.0, abs=1e-7)


def test_a_parabola_becomes_straight():
    # f = (z_0, z_1 + a z_0**2), in other axes.
    a, turn = 0.7, np.linalg.qr(np.random.default_rng(5).normal(size=(2, 2)))[0]

    def model(z):
        x = turn @ z
        return jnp.stack([x[0], x[1] + a * x[0] ** 2])

    def information(z):
        rows = jax.jacfwd(model)(z)
        return rows.T @ rows

    slopes = np.asarray(jax.jacfwd(information)(jnp.zeros(2))).transpose(2, 0, 1)
    bend = Bend.of(symbols_of(slopes))
    u = np.random.default_rng(6).normal(size=(50, 2))
    placed = np.array([model(jnp.asarray(z)) for z in bend.place(0.1 * u)])
    # Far from its end the reach of an axis counts nothing, near it a parabola is left.
    np.testing.assert_allclose((placed**2).sum(1), (0.1 * u**2 * 0.1).sum(1), rtol=2e-3)


def test_what_bends_by_more_than_a_parabola_tells_is_left_alone():
    symbols = np.zeros((2, 2, 2))
    symbols[1, 0, 0] = 1e6
    u = np.random.default_rng(7).normal(size=(20, 2))
    assert np.abs(Bend.of(symbols).place(u)).max() < 110.0


def test_a_normal_distribution_is_carried_along():
    bend = random_bend(4, 8, 0.3)
    centre, factor = np.array([0.5, -1.0, 2.0, 0.3]), 0.02 * np.tril(np.ones((4, 4)))
    at, carried = bend.carried(centre, factor)
    np.testing.assert_allclose(bend.place(at), centre, atol=1e-12)
    assert (np.diagonal(carried) > 0).all()
    draws = np.random.default_rng(9).normal(size=(200_000, 4))
    found = bend.place(at + draws @ carried.T)
    np.testing.assert_allclose(found.mean(axis=0), centre, atol=1e-3)
    np.testing.assert_allclose(np.cov(found.T), factor @ factor.T, rtol=0.05, atol=1e-5)


@cache
def one_angle():
    """Posterior, target and frame of a flow seen at one angle, in which phi0 and v are one."""
    flow = creep_flow(100, (20.0,))
    c2 = simulate_pairs(flow, 0.2, 1.0, 0.005, 1)
    data = pack_pairs(c2, flow.t, flow.q, flow.dt, flow.phi)
    space = ParameterSpace()
    scaling = Scaling.of(ScalingMode.INDIVIDUAL, space, 1)
    space = space.with_values(dict(zip(PHYSICS_PARAM_NAMES, flow.parameters, strict=True)))
    problem = Problem(data, PhysicsCoordinates.of(space, flow.t), scaling)
    fit = fit_problem(problem, NLSQConfig(n_starts=4, n_candidates=64, n_rounds=1))
    posterior = Posterior(fit.problem.coordinates, scaling)
    return posterior, Target(data, jnp.asarray(0.005)), mode_frame(posterior, fit, 0.005)


def bending(place, case):
    """Mean square of what is not normal in the density one width from the mode on all axes."""
    posterior, target, frame = case
    inner = narrowed(posterior, frame)
    m = len(np.asarray(inner.centre))
    u = np.concatenate([np.zeros((1, m)), np.eye(m), -np.eye(m)])
    points = np.asarray(inner.place(jnp.asarray(place(u))))
    normal = np.zeros((len(u), n_drawn(posterior)))
    found = Completed(*complete_all(points, normal, target, frame.centre, posterior)).log_integrated
    rest = found - found[0] + 0.5 * (u**2).sum(1)
    return np.sqrt(np.mean(np.minimum(rest**2, 1e4)))


@pytest.mark.slow
def test_the_posterior_of_one_angle_is_straightened():
    case = one_angle()
    bend = bend_at(*case)
    before, after = bending(lambda u: u @ bend.axes.T, case), bending(bend.place, case)
    # Without an axis for the velocity it bends with phi0 by many widths.
    assert before > 20.0 * after, (before, after)


def test_the_information_of_a_normal_likelihood_is_its_curvature():
    target, y = normal(FLAT), coordinates_of(*FLAT)
    chart, p = POSTERIOR.coordinates, POSTERIOR.coordinates.size
    # Where the quantities are those at the maximum, the curvature is the information.
    scaling = target.normal.centre[-POSTERIOR.scaling.size :]
    at = target.normal._replace(
        centre=jnp.append(
            quantities(jax.jit(chart.forward)(y[:p])[0], target.normal.times), scaling
        )
    )

    def log_density(x):
        return at.log_density(chart.forward(x[:p])[0], x[p:], jnp.asarray(1.0))

    whole = -np.asarray(jax.jit(jax.hessian(log_density))(jnp.append(y[:p], scaling)))
    expected = whole[:p, :p] - whole[:p, p:] @ np.linalg.solve(whole[p:, p:], whole[p:, :p])
    prior = LogPrior.of(chart.space, chart.names)
    distance = jax.jit(jax.jacfwd(lambda x: prior.standardised(chart.forward(x)[0][chart.indices])))
    slopes = np.asarray(distance(y[:p]))
    expected += 0.5 * slopes.T @ slopes
    target = target._replace(normal=at, prior_weight=0.5)
    found = _bend._information(POSTERIOR, target, y, np.zeros((2, p)))
    np.testing.assert_allclose(found, [expected] * 2, rtol=1e-6)


@pytest.mark.parametrize("case", [FLAT, FLOOR], ids=["alpha_0", "floor"])
def test_draws_through_a_bend_follow_the_posterior(case):
    from test_cmc_importance import assert_same_posterior

    target, frame = target_of(*case), frame_of(*case)
    bends = [bend_at(POSTERIOR, target, frame), random_bend(3, 10, 0.5)]
    assert np.abs(bends[0].pull).max() > 0.001
    for bend in bends:
        sampler = ImportanceSampler(POSTERIOR, target, (frame,), 3, bend, n_groups=2, n_draws=500)
        draws = drive(sampler, sampler.start(), lambda draws: False)
        assert draws.proposals.k_hat < 0.7
        assert_same_posterior(draws, target)


def test_only_few_modes_of_pairs_that_count_alike_are_straightened():
    drawing = Drawing(POSTERIOR, Derived.of(T), SCHEDULE, "auto", Keeper(), ignore_events)
    target, frame = target_of(*FLAT), frame_of(*FLAT)
    found = drawing._bend(target, (frame, frame))
    np.testing.assert_array_equal(found.pull, bend_at(POSTERIOR, target, frame).pull)
    assert drawing._bend(target, (frame,) * 3) is None
    even = target.data._replace(weights=tuple(np.ones_like(x) for x in target.data.blocks))
    assert drawing._bend(target._replace(data=even), (frame,)) is None
