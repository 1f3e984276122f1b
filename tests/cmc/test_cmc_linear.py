"""Contrast and offset integrated out, against dense integration over both."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cmc_cases import normal_likelihood
from scipy.special import logsumexp

from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jax, jnp
from heterodyne.core.likelihood import pack_pairs
from heterodyne.core.simulate import Experiment, simulate_pairs
from heterodyne.optimization.cmc import _linear
from heterodyne.optimization.cmc._frame import Frame
from heterodyne.optimization.cmc._linear import complete, narrowed, searched
from heterodyne.optimization.cmc._nuts import Target
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.posterior import Posterior, Unknowns
from heterodyne.optimization.scaling import Scaling, ScalingMode

VARYING = ("D0_ref", "v0")


def space_of(**contrast):
    space = ParameterSpace.from_config({"contrast": contrast} if contrast else {})
    space = space.with_values({"D0_ref": 2e4, "v0": 300.0, "f0": 0.4})
    return space.fix(*(n for n in PHYSICS_PARAM_NAMES if n not in VARYING))


SPACE = space_of()
PARAMETERS = np.array([SPACE[n].value for n in PHYSICS_PARAM_NAMES])
N, SIGMA = 16, 0.005


def case(mode=ScalingMode.AVERAGED, space=SPACE, contrast=0.2, phi=(0.0, 60.0)):
    """Posterior, target and true coordinates of simulated data."""
    e = Experiment(PARAMETERS, N, 0.1, 0.0054, phi)
    c2 = simulate_pairs(e, contrast, 1.0, SIGMA, 3)
    k = len(phi)
    scaling = Scaling.of(mode, space, k, contrast=[contrast] * k, offset=[1.0] * k)
    posterior = Posterior(PhysicsCoordinates.of(space, e.t), scaling)
    data = pack_pairs(c2, e.t, e.q, e.dt, phi)
    half = scaling.size // 2
    scales = jnp.asarray([contrast] * half + [1.0] * half)
    unknowns = Unknowns(jnp.asarray(PARAMETERS), scales, jnp.asarray(SIGMA))
    return (
        posterior,
        Target(data, jnp.asarray(SIGMA)),
        np.asarray(posterior.inverse(unknowns)),
    )


def completed(posterior, target, y, n, seed=0):
    rng = np.random.default_rng(seed)
    normal = jnp.asarray(rng.normal(size=(n, posterior.scaling.size)))
    points = jnp.broadcast_to(
        jnp.asarray(y[searched(posterior)]), (n, posterior.size - normal.shape[1])
    )
    return complete(points, normal, target, jnp.asarray(y), posterior)


def integral(posterior, target, y, centre, reach, n=201):
    """Logarithm of the integral of the density over one contrast and one offset."""
    axes = [np.linspace(c - r, c + r, n) for c, r in zip(centre, reach, strict=True)]
    nodes = np.stack([x.ravel() for x in np.meshgrid(*axes, indexing="ij")], axis=1)
    p = posterior.coordinates.size

    @jax.jit
    def density(node):
        at = jnp.concatenate([y[:p], node, y[-1:]])
        return posterior.log_density(at, *target)

    values = np.asarray(jax.lax.map(density, jnp.asarray(nodes), batch_size=1024))
    cell = np.prod([a[1] - a[0] for a in axes])
    return logsumexp(values) + np.log(cell)


def either(corrected):
    """The case with the likelihood of its pairs, or with a normal one."""
    posterior, target, y = case()
    if corrected:
        widths = [0.003, 0.002]
        likelihood = normal_likelihood(PARAMETERS, [0.201, 0.999], 0.05, widths, 0.01, 240.0)
        target = target._replace(normal=likelihood)
    return posterior, target, y


@pytest.mark.parametrize("corrected", [False, True])
def test_every_draw_tells_the_integral(corrected):
    posterior, target, y = either(corrected)
    found = completed(posterior, target, y, 64)
    drawn = np.asarray(found.y)[:, 2:4]
    spread = 8.0 * drawn.std(axis=0)
    expected = integral(posterior, target, y, drawn.mean(axis=0), spread)
    np.testing.assert_allclose(found.log_integrated, expected, atol=1e-3)
    assert np.ptp(found.log_density) > 1.0


@pytest.mark.parametrize("corrected", [False, True])
def test_the_density_is_that_of_the_completed_point(corrected):
    posterior, target, y = either(corrected)
    found = completed(posterior, target, y, 8)
    for row, density in zip(found.y, found.log_density, strict=True):
        expected = posterior.log_density(row, *target)
        np.testing.assert_allclose(density, expected, rtol=1e-12)
        np.testing.assert_allclose(row[searched(posterior)], y[searched(posterior)], rtol=1e-15)


def test_draws_scatter_as_the_likelihood_says():
    posterior, target, y = case()
    found = completed(posterior, target, y, 4000)
    y = jnp.asarray(y)
    p = posterior.coordinates.size

    def minus(node):
        at = jnp.concatenate([y[:p], node, y[-1:]])
        return -posterior.log_density(at, target.data, target.noise_scale)

    drawn = np.asarray(found.y)[:, p:-1]
    curvature = jax.jit(jax.hessian(minus))(jnp.asarray(drawn.mean(axis=0)))
    expected = np.linalg.inv(np.asarray(curvature))
    np.testing.assert_allclose(np.cov(drawn.T), expected, rtol=0.1, atol=0.03 * expected.max())


@pytest.mark.parametrize("prior", ["at a bound", "log-normal"])
def test_weights_make_up_for_bounds_and_other_priors(prior):
    if prior == "at a bound":
        space = space_of(max=0.202)
    else:
        space = space_of(min=0.01, prior={"type": "lognormal", "mean": 0.1, "std": 0.01})
    posterior, target, y = case(space=space)
    found = completed(posterior, target, y, 20_000)
    weights = np.asarray(found.log_integrated)
    kept = np.isfinite(weights)
    drawn = np.asarray(found.y)[kept, 2:4]
    # On a bound the coordinate reaches far out.
    centre, reach = drawn.mean(axis=0), 12.0 * drawn.std(axis=0)
    expected = integral(posterior, target, y, centre, reach, 801)
    error = np.exp(weights - expected).std() / np.sqrt(len(weights))
    assert error < 0.02
    assert np.exp(weights - expected).mean() == pytest.approx(1.0, abs=4 * error + 1e-3)
    assert (prior == "at a bound") == (not kept.all())


def test_without_contrast_and_offset_there_is_nothing_to_integrate():
    posterior, target, y = case(ScalingMode.CONSTANT)
    found = completed(posterior, target, y, 3)
    np.testing.assert_allclose(found.y, np.tile(y, (3, 1)), rtol=1e-15)
    np.testing.assert_array_equal(found.log_integrated, found.log_density)


def test_a_frame_is_narrowed_to_the_marginal_distribution():
    posterior, _, y = case(ScalingMode.INDIVIDUAL)
    factor = np.tril(np.random.default_rng(0).normal(size=(posterior.size,) * 2))
    frame = Frame(jnp.asarray(y), jnp.asarray(factor))
    found = narrowed(posterior, frame)
    kept = searched(posterior)
    assert kept.tolist() == [0, 1, 6]
    np.testing.assert_array_equal(found.centre, y[kept])
    covariance = (factor @ factor.T)[np.ix_(kept, kept)]
    np.testing.assert_allclose(found.factor @ found.factor.T, covariance, atol=1e-12)


def test_points_that_cannot_be_evaluated_have_no_density():
    posterior, target, y = case()
    broken = y.copy()
    broken[0] = np.nan
    found = completed(posterior, target, broken, 2)
    assert (np.asarray(found.log_density) == -np.inf).all()


@pytest.mark.parametrize("k", [1, 2, 46])
def test_factors_and_solutions_are_those_of_numpy(k):
    rng = np.random.default_rng(k)
    root = rng.normal(size=(k, 2 * k))
    a, b = root @ root.T, rng.normal(size=k)
    lower = jax.jit(_linear._cholesky)(jnp.asarray(a))
    np.testing.assert_allclose(lower, np.linalg.cholesky(a), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(
        _linear._solve_lower(lower, jnp.asarray(b)), np.linalg.solve(lower, b), rtol=1e-9
    )
    np.testing.assert_allclose(
        _linear._solve_upper(lower, jnp.asarray(b)), np.linalg.solve(lower.T, b), rtol=1e-9
    )
    assert np.isnan(_linear._cholesky(jnp.asarray(-a))).any()


def test_many_angles_are_completed_in_two_threads():
    posterior, target, y = case(ScalingMode.INDIVIDUAL, phi=tuple(np.linspace(-40.0, 60.0, 23)))

    def part(seed):
        return np.asarray(completed(posterior, target, y, 64, seed).log_integrated)

    with ThreadPoolExecutor(2) as pool:
        found = np.concatenate(list(pool.map(part, range(8))))
    # Every draw tells the same integral.
    np.testing.assert_allclose(found, found[0], atol=1e-2)
