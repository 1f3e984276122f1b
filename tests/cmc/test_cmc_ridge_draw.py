"""f2 drawn along the ridge, against dense integration of the whole posterior density."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp, ndtr
from scipy.stats import kstest

from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jax, jnp
from heterodyne.core.likelihood import pack_pairs
from heterodyne.core.simulate import Experiment, simulate_pairs
from heterodyne.optimization.cmc._linear import complete, n_drawn, ridge_place, searched
from heterodyne.optimization.cmc._nuts import Target
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.posterior import Posterior, Unknowns
from heterodyne.optimization.scaling import Scaling, ScalingMode

N, SIGMA = 12, 0.005
FREE = ("f0", "f1", "f2", "f3")


def case(f0=0.4, f1=-0.2, weight=1.0, **changes):
    """A posterior of the fraction alone, contrast and offset held."""
    space = ParameterSpace.from_config({"fraction": changes} if changes else {})
    space = space.with_values({"D0_ref": 2e4, "v0": 300.0, "f0": f0, "f1": f1, "f3": 0.2})
    space = space.fix(*(n for n in PHYSICS_PARAM_NAMES if n not in FREE))
    parameters = np.array([space[n].value for n in PHYSICS_PARAM_NAMES])
    e = Experiment(parameters, N, 0.1, 0.0054, (0.0,))
    c2 = simulate_pairs(e, 0.2, 1.0, SIGMA, 3)
    scaling = Scaling.of(ScalingMode.CONSTANT, space, 1, contrast=[0.2], offset=[1.0])
    posterior = Posterior(PhysicsCoordinates.of(space, e.t), scaling)
    target = Target(pack_pairs(c2, e.t, e.q, e.dt, e.phi), jnp.asarray(SIGMA), prior_weight=weight)
    there = Unknowns(jnp.asarray(parameters), jnp.zeros(0), jnp.asarray(SIGMA))
    return posterior, target, np.asarray(posterior.inverse(there))


CASES = {
    "default priors": {},
    "narrow prior of f2": {"f2": {"prior": {"mean": 3.0, "std": 0.5}}},
    "a bound of f0 is near": {"f0": 0.97},
    "the fraction hardly turns": {"f1": 1e-4},
    "a shard's part of the prior": {"weight": 0.1},
}


@pytest.fixture(scope="module", params=CASES, ids=list(CASES))
def drawn(request):
    """Many draws at one point, and the density along the ridge there."""
    posterior, target, y = case(**CASES[request.param])
    n = 4000
    normal = jnp.asarray(np.random.default_rng(0).normal(size=(n, 1)))
    points = jnp.broadcast_to(jnp.asarray(y[searched(posterior)]), (n, posterior.size - 1))
    found = complete(points, normal, target, jnp.asarray(y), posterior)
    place, nodes = ridge_place(posterior), np.linspace(-150.0, 150.0, 200_001)

    def density(u):
        return posterior.log_density(jnp.asarray(y).at[place].set(u), *target)

    values = np.asarray(jax.lax.map(jax.jit(density), jnp.asarray(nodes), batch_size=1024))
    return posterior, found, nodes, values


def test_one_coordinate_is_drawn(drawn):
    posterior, found, *_ = drawn
    assert n_drawn(posterior) == 1
    others = np.delete(np.asarray(found.y), ridge_place(posterior), axis=1)
    assert np.ptp(others, axis=0).max() == 0.0


def test_weights_have_the_integral_for_their_mean(drawn):
    _, found, nodes, values = drawn
    expected = logsumexp(values) + np.log(nodes[1] - nodes[0])
    weights = np.exp(np.asarray(found.log_integrated) - expected)
    assert weights.mean() == pytest.approx(1.0, abs=4 * weights.std() / np.sqrt(weights.size))
    # A draw is worth nearly a draw of the density itself.
    assert weights.std() < 0.15


def test_weighted_draws_follow_the_density(drawn):
    posterior, found, nodes, values = drawn
    u = np.asarray(found.y)[:, ridge_place(posterior)]
    cumulative = np.cumsum(np.exp(values - values.max()))
    cumulative /= cumulative[-1]
    weights = np.exp(np.asarray(found.log_integrated) - np.max(found.log_integrated))
    kept = np.random.default_rng(1).random(u.size) < weights
    assert kept.mean() > 0.3
    assert kstest(np.interp(u[kept], nodes, cumulative), "uniform").pvalue > 1e-3


def test_the_density_is_that_of_the_whole_point(drawn):
    posterior, found, nodes, values = drawn
    u = np.asarray(found.y)[:, ridge_place(posterior)]
    np.testing.assert_allclose(found.log_density, np.interp(u, nodes, values), atol=1e-3)


def test_the_normal_number_decides_the_draw():
    """Half of the normal numbers give half of the mass, so that draws are reproducible."""
    posterior, target, y = case()
    normal = jnp.asarray([[-3.0], [0.0], [3.0]])
    points = jnp.broadcast_to(jnp.asarray(y[searched(posterior)]), (3, posterior.size - 1))
    u = np.asarray(complete(points, normal, target, jnp.asarray(y), posterior).y)
    low, middle, high = u[:, ridge_place(posterior)]
    assert low < middle < high
    assert ndtr(low) < 0.05 < ndtr(middle)
