from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from scipy.linalg import sqrtm

from heterodyne._events import Progress
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core import rows
from heterodyne.core._jax import jax, jnp
from heterodyne.core.correlation import correlation_matrix
from heterodyne.core.likelihood import pack_pairs
from heterodyne.core.simulate import (
    Detector,
    Experiment,
    creep_flow,
    simulate_pairs,
    simulate_speckles,
)
from heterodyne.optimization import _residual_noise, _score_noise
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.posterior import Posterior, Unknowns
from heterodyne.optimization.problem import Problem
from heterodyne.optimization.sandwich import (
    ScoreNoise,
    SpeckleNoise,
    correction,
    score_covariance,
    score_noise,
    speckle_noise,
    with_absorbed,
)
from heterodyne.optimization.scaling import Scaling, ScalingMode

VARYING = ("D0_ref", "v0", "f0")
MODES = 5
TIMES = (0.2, 0.6, 1.0)
SPACE = ParameterSpace().with_values({"D0_ref": 2e4, "v0": 300.0, "f0": 0.4})
SPACE = SPACE.fix(*(n for n in PHYSICS_PARAM_NAMES if n not in VARYING))
# Small changes of contrasts and offsets in the coordinates of the small posterior.
STEPS = 1e-5 * np.eye(8)[3:7]
PARAMETERS = np.array([SPACE[n].value for n in PHYSICS_PARAM_NAMES])


def experiment(n, phi=(0.0,)):
    return Experiment(PARAMETERS, n, 0.1, 0.0054, phi)


def bind(c2, n, phi=(0.0,), **selection):
    e = experiment(n, phi)
    coordinates = PhysicsCoordinates.of(SPACE, e.t)
    data = pack_pairs(c2, e.t, e.q, e.dt, phi, **selection)
    return Problem(data, coordinates, Scaling.of(ScalingMode.INDIVIDUAL, SPACE, len(phi)))


def truth(problem):
    return np.asarray(problem.coordinates.inverse(PARAMETERS))


@lru_cache
def speckles(photons, n_pixels=300, n=80, modes=MODES):
    return simulate_speckles(experiment(n), Detector(n_pixels, modes, photons), 1)


def noise_of(c2, contrast=1 / MODES, **options):
    problem = bind(c2, c2.shape[1])
    return speckle_noise(problem, truth(problem), [contrast], [1.0], c2, **options)


def pairs_of(problem):
    return np.nonzero(np.triu(np.outer(problem.data.mask, problem.data.mask), 1))


@lru_cache
def model_slopes():
    """d c2 / d (coordinates, scaling) of the small problem, shape (2, N, N, 7)."""
    problem = small_problem()
    data = problem.data

    def model(x):
        parameters = problem.coordinates.forward(x[:3])[0]
        contrast, offset = problem.scaling.expand(x[3:])
        g = [correlation_matrix(parameters, data.t, data.q, data.dt, phi) for phi in data.phi]
        return offset[:, None, None] + contrast[:, None, None] * jnp.stack(g)

    return np.asarray(jax.jit(jax.jacfwd(model))(small_centre()))


def jacobian_of(problem):
    """The same at the fitted unique pairs, angle after angle."""
    i, j = pairs_of(problem)
    return model_slopes()[:, i, j].reshape(-1, 7)


def small_problem(**selection):
    return bind(np.ones((2, 12, 12)), 12, (0.0, 60.0), **selection)


def small_centre():
    scales, _ = scales_and_noise()
    return np.concatenate([truth(small_problem()), scales])


def covariance_of_pairs(y, problem, noise):
    """Covariance of all those pairs, every pair with every pair."""
    data, p = problem.data, problem.coordinates.size
    parameters = problem.coordinates.forward(jnp.asarray(y[:p]))[0]
    contrast, _ = problem.scaling.expand(jnp.asarray(y[p:]))
    i, j = pairs_of(problem)
    whole = np.zeros((i.size * data.n_angles,) * 2)
    for k, phi in enumerate(np.asarray(data.phi)):
        g = np.asarray(correlation_matrix(parameters, data.t, data.q, data.dt, phi))
        s = float(contrast[k]) * g + noise.shot_noise[k] * np.eye(len(g))
        pairs = s[np.ix_(i, i)] * s[np.ix_(j, j)] + s[np.ix_(i, j)] * s[np.ix_(j, i)]
        block = slice(k * i.size, (k + 1) * i.size)
        whole[block, block] = pairs / noise.effective_speckles[k]
    return whole


def scales_and_noise():
    return np.array([0.2, 0.25, 1.0, 1.1]), SpeckleNoise((200.0, 300.0), (0.5, 0.8), 0.2, True)


@pytest.mark.parametrize("weighted", [False, True])
def test_score_covariance_is_the_sum_over_pairs_of_pairs(weighted):
    n = 12
    weights = np.triu(np.random.default_rng(0).random((n, n))) if weighted else None
    problem = small_problem(mask=np.arange(n) != 5, weights=weights)
    scales, noise = scales_and_noise()
    y = small_centre()
    jacobian = jacobian_of(problem)
    if weights is not None:
        jacobian = np.tile(weights[pairs_of(problem)], 2)[:, None] * jacobian
    expected = jacobian.T @ covariance_of_pairs(y, problem, noise) @ jacobian
    found = score_covariance(problem, y[:3], scales[:2], noise)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_large_matrices_report_their_products(monkeypatch):
    monkeypatch.setattr(_score_noise, "_LARGE", 10)
    problem = small_problem()
    scales, noise = scales_and_noise()
    events = []
    score_covariance(problem, truth(problem), scales[:2], noise, events.append)
    assert [e.done for e in events] == list(range(11))
    assert all(isinstance(e, Progress) and e.total == 10 for e in events)


@lru_cache
def flow(n, steps):
    """A creeping flow, its decays many frames or few long; f2 alone has no effect of its own."""
    e = replace(creep_flow(n, (0.0, 45.0)), dt=0.1 * steps)
    values = dict(zip(PHYSICS_PARAM_NAMES, e.parameters.tolist(), strict=True))
    space = ParameterSpace().with_values(values).fix("f2")
    data = pack_pairs(np.ones((2, n, n)), e.t, e.q, e.dt, e.phi, mask=np.arange(n) != 50)
    coordinates = PhysicsCoordinates.of(space, e.t)
    problem = Problem(data, coordinates, Scaling.of(ScalingMode.INDIVIDUAL, space, 2))
    return problem, np.asarray(coordinates.inverse(e.parameters))


@pytest.mark.parametrize(("steps", "noise"), [(0.5, 0.0), (0.5, 2.0), (3.0, 0.5)])
def test_many_frames_have_the_score_covariance_of_all_products(monkeypatch, steps, noise):
    problem, y = flow(240, steps)
    exact = score_noise(problem, y, [0.2, 0.3], [noise, 0.1])
    monkeypatch.setattr(_score_noise, "_EXACT_FRAMES", 100)
    monkeypatch.setattr(_score_noise, "_LARGE", 100)
    events = []
    found = score_noise(problem, y, [0.2, 0.3], [noise, 0.1], events.append)
    np.testing.assert_allclose(found.pairs, exact.pairs, rtol=1e-10)
    assert [e.done for e in events] == list(range(events[0].total + 1))
    # In every direction, also those in which functions nearly cancel.
    for one, other in zip(found.score, exact.score, strict=True):
        size = 1.0 / np.sqrt(np.maximum(np.diagonal(other), 1e-300))
        values, vectors = np.linalg.eigh(other * size[:, None] * size)
        # Not of this angle are two scales of the other and what changes v0 alone or phi0 alone.
        told = values > 1e-12 * values.max()
        assert told.sum() == 14
        assert values[told].min() < 1e-3 * values.max()
        whitened = size[:, None] * vectors[:, told] / np.sqrt(values[told])
        ratios = np.linalg.eigvalsh(whitened.T @ one @ whitened)
        np.testing.assert_allclose(ratios, 1.0, atol=0.03)


def test_weighted_pairs_keep_their_exact_products(monkeypatch):
    problem = small_problem(weights=np.triu(np.random.default_rng(0).random((12, 12))))
    expected = score_noise(problem, truth(problem), [0.2, 0.3], [0.1, 0.1])
    monkeypatch.setattr(_score_noise, "_EXACT_FRAMES", 3)
    found = score_noise(problem, truth(problem), [0.2, 0.3], [0.1, 0.1])
    np.testing.assert_array_equal(found.score, expected.score)


def test_the_sum_of_variances_is_that_of_the_pairs():
    problem, (scales, noise) = small_problem(mask=np.arange(12) != 5), scales_and_noise()
    pairs = covariance_of_pairs(small_centre(), problem, noise)
    found = score_noise(problem, truth(problem), scales[:2], noise.shot_noise).pairs
    speckles = np.repeat(noise.effective_speckles, len(pairs) // 2)
    expected = (np.diagonal(pairs) * speckles).reshape(2, -1).sum(1)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("weighted", [False, True])
def test_noise_seen_does_not_depend_on_the_stretches(monkeypatch, weighted):
    c2 = speckles(10.0).astype(np.float32)
    n = c2.shape[1]
    weights = np.random.default_rng(0).random((n, n)) > 0.2 if weighted else None
    problem = bind(c2, n, mask=np.arange(n) != 3, weights=weights)

    def seen(c2):
        found = speckle_noise(problem, truth(problem), [0.2], [1.0], c2, diagonal_is_raw=True)
        return (*found.effective_speckles, *found.shot_noise, found.neighbour_correlation)

    expected = seen(c2.astype(np.float64))
    assert seen(c2) == expected
    monkeypatch.setattr(rows, "STRETCH_BYTES", 8 * n * 7)
    assert seen(c2) == pytest.approx(expected, rel=1e-10)
    # Wild residuals are told from fewer pairs.
    monkeypatch.setattr(_residual_noise, "_SELECTED", 20)
    assert seen(c2) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("photons", [None, 10.0, 1.0])
def test_speckle_noise_is_seen(photons):
    noise = noise_of(speckles(photons))
    assert noise.likely
    assert noise.neighbour_correlation > 0.1


@pytest.mark.parametrize("seed", range(5))
def test_independent_errors_are_not_taken_for_speckles(seed):
    c2 = simulate_pairs(experiment(80), 1 / MODES, 1.0, 0.02, seed)
    noise = noise_of(c2)
    assert not noise.likely
    assert abs(noise.neighbour_correlation) < 0.05


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("photons", [10.0, 1.0])
def test_shot_noise_and_speckles_of_a_simulation_are_found(raw, photons):
    # Many modes, for which the covariance of normal intensities holds.
    noise = noise_of(speckles(photons, 400, modes=20), 1 / 20, diagonal_is_raw=raw)
    assert noise.shot_noise[0] == pytest.approx(1 / photons, rel=0.02 if raw else 0.25)
    assert noise.effective_speckles[0] == pytest.approx(400, rel=0.25)


def test_a_replaced_diagonal_is_not_read():
    c2 = speckles(1.0).copy()
    expected = noise_of(c2)
    c2[:, range(80), range(80)] = np.nan
    assert noise_of(c2) == expected
    assert noise_of(c2, diagonal_is_raw=True) == expected


def test_given_speckles_win():
    noise = noise_of(speckles(1.0), effective_speckles=123.0)
    assert noise.effective_speckles == (123.0,)
    assert noise.shot_noise == noise_of(speckles(1.0)).shot_noise


def linear_fit(parameters, scales):
    """Design, and covariance for one speckle, of two angles of correlated errors."""
    n = 60
    lags = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    common = np.vander(np.linspace(-1, 1, n), parameters)
    own = np.eye(2).repeat(n, axis=0)
    design = np.hstack([np.vstack([common, 0.3 * common**2]), own]) * scales
    covariances = np.zeros((2, 2 * n, 2 * n))
    for k, range_ in enumerate((5.0, 20.0)):
        block = slice(k * n, (k + 1) * n)
        covariances[k, block, block] = (2.0 + k) * np.exp(-lags / range_)
    return design, covariances


@pytest.mark.parametrize("parameters", [1, 4])
def test_absorbed_noise_is_put_back(parameters):
    scales = 10.0 ** np.random.default_rng(0).uniform(-3, 3, parameters + 2)
    design, covariances = linear_fit(parameters, scales)
    inverse_speckles = np.array([0.02, 0.05])
    rest = np.eye(len(design)) - design @ np.linalg.pinv(design)
    residual = rest @ np.tensordot(inverse_speckles, covariances, 1) @ rest
    halves = (slice(0, 60), slice(60, 120))
    squares = np.array([np.trace(residual[half, half]) for half in halves])
    pairs = np.trace(covariances, axis1=1, axis2=2)
    informations = np.stack([design[half].T @ design[half] for half in halves])
    seen = squares / pairs
    assert (seen < 0.95 * inverse_speckles).all()
    one = ScoreNoise(design.T @ covariances @ design, pairs)
    found = with_absorbed(seen, informations, one)
    np.testing.assert_allclose(found, inverse_speckles, rtol=1e-6)


def test_absorbed_noise_passes_over_what_the_data_leave_open():
    informations, score = np.diag([2.0, 0.0])[None], np.diag([6.0, 0.0])[None]
    found = with_absorbed(np.array([0.1]), informations, ScoreNoise(score, np.array([100.0])))
    # One direction takes 3 of the 100 with it.
    np.testing.assert_allclose(found, [0.1 / 0.97])


@pytest.mark.parametrize("score", [99.0, 100.0, 250.0])
def test_absorbed_noise_is_at_most_a_factor(score):
    one = ScoreNoise(np.full((1, 1, 1), score), np.array([100.0]))
    np.testing.assert_allclose(with_absorbed(np.array([0.1]), np.ones((1, 1, 1)), one), [0.4])


def informations_of(problem):
    """The information of each angle, from the dense Jacobian."""
    parts = np.split(jacobian_of(problem), 2)
    return np.stack([part.T @ part for part in parts])


def small_posterior():
    problem = small_problem()
    posterior = Posterior(problem.coordinates, problem.scaling)
    scales, noise = scales_and_noise()
    unknowns = Unknowns(jnp.asarray(PARAMETERS), jnp.asarray(scales), jnp.asarray(0.01))
    return problem, posterior, np.asarray(posterior.inverse(unknowns)), noise


@pytest.mark.parametrize("estimated", [False, True])
def test_the_corrected_likelihood_has_the_curvature_of_the_sandwich(estimated):
    problem, posterior, y, noise = small_posterior()
    squares = 0.2
    noise, sigma = replace(noise, estimated=estimated), 0.04
    y = np.append(y[:-1], np.log(sigma))
    jacobian, prior = jacobian_of(problem), np.zeros((7, 7))
    prior[:3, :3] = np.asarray(posterior.prior_curvature(jnp.asarray(y), sigma))[:3, :3]
    kinds = ("contrast", "contrast", "offset", "offset")
    prior[3:, 3:] = np.diag([SPACE[n].prior.std ** -2.0 for n in kinds])
    assert np.linalg.eigvalsh(prior).min() > 0
    pairs = covariance_of_pairs(small_centre(), problem, noise)
    n = len(jacobian) // 2
    if estimated:
        # The numbers of speckles for which residuals are as small as they are seen.
        rest = np.eye(2 * n) - jacobian @ np.linalg.pinv(jacobian)
        blocks = [np.kron(np.diag(keep), np.ones((n, n))) * pairs for keep in np.eye(2)]
        left = np.array(
            [
                [np.trace((rest @ b @ rest)[h, h]) for b in blocks]
                for h in (slice(0, n), slice(n, 2 * n))
            ]
        )
        seen = np.array([np.trace(pairs[:n, :n]), np.trace(pairs[n:, n:])])
        factors = np.linalg.solve(left, seen)
        assert (factors > 1.01).all()
        pairs = factors[0] * blocks[0] + factors[1] * blocks[1]
    information = jacobian.T @ jacobian / sigma**2
    variance = jacobian.T @ pairs @ jacobian / sigma**4
    lower = np.linalg.cholesky(information + prior)
    score = np.linalg.solve(lower, np.linalg.solve(lower, variance + prior).T)
    assert np.linalg.eigvalsh(score).min() > 1.0
    shrinking = lower @ np.linalg.inv(sqrtm(score)) @ np.linalg.inv(lower)
    expected = shrinking @ information @ shrinking.T
    found = correction(posterior, y, problem.data, noise, squares, informations_of(problem), TIMES)
    size = np.sqrt(np.diagonal(expected))
    outer = size[:, None] * size

    def scales_at(shift):
        return np.asarray(posterior.forward(jnp.asarray(y + shift))[0].scaling)

    steps = zip(STEPS, np.eye(4), strict=True)
    turn = [(scales_at(d) - scales_at(-d)) @ unit / 2e-5 for d, unit in steps]
    turn = np.concatenate([np.ones(3), turn])
    inner = found.information / turn[:, None] / turn
    np.testing.assert_allclose(inner / outer, expected / outer, atol=1e-5)

    def minus(x):
        parameters = problem.coordinates.forward(x[:3])[0]
        return -found.likelihood.log_density(parameters, x[3:], jnp.asarray(sigma))

    at = jnp.asarray(small_centre())
    curvature = np.asarray(jax.jit(jax.hessian(minus))(at))
    np.testing.assert_allclose(curvature / outer, expected / outer, atol=1e-5)
    np.testing.assert_allclose(np.asarray(jax.jit(jax.grad(minus))(at)) / size, 0.0, atol=1e-6)
    normal = 2 * 66 * (np.log(sigma) + 0.5 * np.log(2 * np.pi))
    assert float(minus(at)) == pytest.approx(0.5 * squares / sigma**2 + normal)
    ratio = np.array(found.effective_speckles) / noise.effective_speckles
    np.testing.assert_allclose(ratio, 1.0 / np.array(factors if estimated else (1.0, 1.0)))


def test_shot_noise_alone_needs_no_correction():
    problem, posterior, y, noise = small_posterior()
    sigma, level = 0.01, 1e5
    alone = replace(
        noise,
        estimated=False,
        shot_noise=(level,) * 2,
        effective_speckles=((level + 0.2) ** 2 / sigma**2,) * 2,
    )
    informations = informations_of(problem)
    found = correction(posterior, y, problem.data, alone, 0.1, informations, TIMES)
    slopes = np.concatenate([np.ones(3), np.asarray(posterior.scaling_slopes(jnp.asarray(y)))])
    expected = informations.sum(0) * slopes[:, None] * slopes / sigma**2
    size = np.sqrt(np.diagonal(expected))
    outer = size[:, None] * size
    np.testing.assert_allclose(found.information / outer, expected / outer, atol=1e-3)
