"""Priors and posterior density against NumPyro, SciPy, direct sums and quadrature."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace, PriorKind
from heterodyne.core._jax import jax, jnp
from heterodyne.core.correlation import correlation_matrix
from heterodyne.core.likelihood import pack_pairs
from heterodyne.core.simulate import Experiment, simulate_pairs
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.derived import Derived, unit_of
from heterodyne.optimization.posterior import SIGMA_PRIOR, Posterior, Unknowns
from heterodyne.optimization.prior import LogPrior, draw_prior, prior_width
from heterodyne.optimization.scaling import Scaling, ScalingMode

T = 0.1 * np.arange(1.0, 25.0)
Q, DT, ANGLES = 0.01, 0.1, np.array([-20.0, 60.0])
TRUTH = np.array([5e3, 0.4, 300.0, 9e3, -0.3, -500.0, 80.0, 0.2, 5.0, 0.3, 0.4, 1.0, 0.15, 3.0])
LOG_UNIFORM = np.log(1e4) / 12**0.5
PRIORS = [
    {},
    {"D0_ref": {"prior": {"type": "normal", "mean": 2e4, "std": 3e5}}},
    {"f0": {"prior": {"type": "uniform"}}, "beta": {"prior": {"type": "uniform"}}},
    {"f1": {"min": 0.01, "prior": {"type": "lognormal", "mean": 0.2, "std": 1.0}}},
    {"v0": {"min": 300, "max": 320}, "alpha_ref": {"min": 2.0, "max": 2.5}},
    {"D_offset_ref": {"min": 2e3, "max": 3e3}, "phi0": {"min": -9.0, "max": -8.9}},
    {"contrast": {"min": 0.1, "max": 0.2}, "offset": {"prior": {"mean": 1.02, "std": 0.05}}},
]


@pytest.mark.parametrize("setting", PRIORS, ids=str)
def test_log_prior_is_the_sum_of_the_numpyro_densities(setting):
    space = ParameterSpace.from_config(setting)
    names = tuple(setting or space.varying_names)
    low, high = np.array([space.bounds[n] for n in names]).T
    values = low + np.random.default_rng(1).uniform(0.001, 0.999, (5, low.size)) * (high - low)
    priors = space.priors
    columns = zip(names, values.T, strict=True)
    expected = sum(np.asarray(priors[n].log_prob(jnp.asarray(v))) for n, v in columns)
    found = jax.jit(jax.vmap(LogPrior.of(space, names)))(values)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("setting", PRIORS, ids=str)
def test_draws_of_priors_follow_their_truncated_distributions(setting):
    space = ParameterSpace.from_config(setting)
    rng = np.random.default_rng(3)
    for name in tuple(setting or space.varying_names):
        p = space[name]
        drawn = draw_prior(p, rng, 4000)
        assert p.min <= drawn.min() <= drawn.max() <= p.max
        ends, axis = np.array([p.min, p.max]), drawn
        if p.prior.kind is PriorKind.LOGNORMAL:
            ends, axis = np.log(ends), np.log(drawn)
        exact = stats.uniform(ends[0], ends[1] - ends[0])
        if p.prior.kind is not PriorKind.UNIFORM:
            low, high = (ends - p.prior.loc) / p.prior.scale
            exact = stats.truncnorm(low, high, p.prior.loc, p.prior.scale)
        assert stats.kstest(axis, exact.cdf).pvalue > 1e-4, name


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_draws_far_in_a_tail_keep_their_digits(sign):
    bounds = sorted((9.0 * sign, 10.0 * sign))
    prior = {"type": "normal", "mean": 0.0, "std": 1.0}
    setting = {"phi0": {"min": bounds[0], "max": bounds[1], "prior": prior}}
    drawn = draw_prior(ParameterSpace.from_config(setting)["phi0"], np.random.default_rng(1), 4000)
    exact = stats.truncnorm(*bounds)
    assert stats.kstest(drawn, exact.cdf).pvalue > 1e-4
    assert np.unique(drawn).size == 4000


@pytest.mark.parametrize(
    ("prior", "logarithmic"),
    [
        ({"type": "normal", "mean": 0.5, "std": 0.02}, False),
        ({"type": "lognormal", "mean": 0.5, "std": 0.01}, False),
        ({"type": "lognormal", "mean": 0.5, "std": 0.01}, True),
        ({"type": "uniform"}, False),
    ],
)
def test_prior_width_is_the_standard_deviation_of_draws(prior, logarithmic):
    space = ParameterSpace.from_config({"f0": {"min": 0.01, "max": 1.0, "prior": prior}})
    draws = np.asarray(space.priors["f0"].sample(jax.random.PRNGKey(1), (20_000,)))
    expected = np.log(draws).std() if logarithmic else draws.std()
    assert prior_width(space["f0"], logarithmic=logarithmic) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    ("name", "setting", "width"),
    [
        ("v_offset", {"prior": {"std": 5.0}}, 5.0),
        ("v_offset", {"prior": {"std": 1e6}}, 200 / 12**0.5),
        ("v_offset", {"prior": {"type": "uniform"}}, 200 / 12**0.5),
        ("v_offset", {"min": 10.0, "max": 100.0, "prior": {"std": 30.0}}, 90 / 12**0.5),
        ("D0_ref", {}, np.log(2.0)),
        ("D0_ref", {"prior": {"std": 1e9}}, LOG_UNIFORM),
        ("D0_ref", {"prior": {"type": "uniform"}}, LOG_UNIFORM),
        ("D0_ref", {"prior": {"type": "normal"}}, LOG_UNIFORM),
    ],
    ids=str,
)
def test_priors_are_no_wider_than_their_bounds(name, setting, width):
    parameter = ParameterSpace.from_config({name: setting})[name]
    found = prior_width(parameter, logarithmic=parameter.info.log_space)
    assert found == pytest.approx(width)


@pytest.mark.parametrize("mean", [-40.0, -3.0, 0.97, 30.0])
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.5, 0.50001)])
def test_far_tails_keep_their_norm(mean, bounds):
    low, high = bounds
    prior = {"mean": mean, "std": 0.25}
    space = ParameterSpace.from_config({"f0": {"min": low, "max": high, "prior": prior}})
    x = np.linspace(low, high, 7)[1:-1]
    found = jax.jit(jax.vmap(LogPrior.of(space, ("f0",))))(x[:, None])
    ends = (low - mean) / 0.25, (high - mean) / 0.25
    expected = stats.truncnorm(*ends, loc=mean, scale=0.25).logpdf(x)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def on_grid(space, axes):
    """Integral of exp(log prior + log det) over the coordinates, by the trapezoid rule."""
    coordinates = PhysicsCoordinates.of(space, T)
    prior = LogPrior.of(space, coordinates.names)

    def density(y):
        parameters, log_det = coordinates.forward(y)
        return jnp.exp(prior(parameters[coordinates.indices]) + log_det)

    mesh = np.stack([x.ravel() for x in np.meshgrid(*axes, indexing="ij")], axis=1)
    batched = jax.jit(lambda y: jax.lax.map(density, y, batch_size=4096))
    values = np.asarray(batched(jnp.asarray(mesh))).reshape([a.size for a in axes])
    for axis in reversed(axes):
        values = integrate.trapezoid(values, axis, axis=-1)
    return float(values)


def only(*names, **settings):
    space = ParameterSpace.from_config(settings)
    return space.fix(*(n for n in PHYSICS_PARAM_NAMES if n not in names))


ONE = {
    "alpha_ref": (np.linspace(-20, 20, 8001), {}),
    "D0_ref": (np.linspace(-5, 25, 20001), {}),
    "D_offset_sample": (np.linspace(-5e4, 7e4, 20001), {}),
    "v_offset": (np.linspace(-300, 1300, 20001), {"v_offset": {"prior": {"type": "uniform"}}}),
    "f0": (np.linspace(-60, 20, 40001), {"f0": {"min": 0.05}, "f1": 0.3}),
    "f2": (np.linspace(-25e3, 25e3, 20001), {}),
    "f3": (np.linspace(-2, 3, 8001), {}),
    "phi0": (np.linspace(-40, 40, 8001), {}),
}


@pytest.mark.parametrize("name", ONE)
def test_prior_of_one_coordinate_is_proper(name):
    axis, settings = ONE[name]
    assert on_grid(only(name, **settings), [axis]) == pytest.approx(1.0, abs=1e-6)


def test_prior_of_amplitude_and_level_is_proper():
    settings = {
        "D0_ref": {"min": 500, "max": 2e4, "prior": {"mean": 3e3, "std": 1e3}},
        "D_offset_ref": {"min": -6e3, "max": 6e3, "prior": {"mean": 0, "std": 1e3}},
        "alpha_ref": 0.2,
    }
    space = only("D0_ref", "D_offset_ref", **settings)
    axes = [np.linspace(0.0, 16.0, 601), np.linspace(-12e3, 35e3, 1001)]
    assert on_grid(space, axes) == pytest.approx(1.0, abs=1e-6)


def test_prior_along_the_ridge_is_proper():
    settings = {"f1": 0.15, "f2": {"min": -60, "max": 60, "prior": {"mean": 0, "std": 8}}}
    axes = [np.linspace(-14.0, 14.0, 1401), np.linspace(-18.0, 18.0, 601)]
    assert on_grid(only("f0", "f2", **settings), axes) == pytest.approx(1.0, abs=1e-5)


@pytest.fixture(scope="module")
def measured():
    experiment = Experiment(TRUTH, T.size, DT, Q, ANGLES.tolist())
    c2 = simulate_pairs(experiment, [0.2, 0.3], [1.0, 1.02], 0.02, seed=3)
    return c2, pack_pairs(c2, T, Q, DT, ANGLES)


CASES = {
    "individual": (ScalingMode.INDIVIDUAL, ()),
    "averaged": (ScalingMode.AVERAGED, ("f2", "D_offset_ref", "beta", "offset")),
}


def log_det_of(posterior, y):
    """Logarithm of the Jacobian determinant, from automatic differentiation."""
    varying = posterior.coordinates.indices

    def everything(x):
        u = posterior.forward(x)[0]
        return jnp.concatenate([u.parameters[varying], u.scaling, u.sigma[None]])

    jacobian = np.asarray(jax.jit(jax.jacfwd(everything))(y))
    scale = np.abs(jacobian).max(axis=1)
    return np.linalg.slogdet(jacobian / scale[:, None])[1] + np.log(scale).sum()


@pytest.mark.parametrize("case", CASES)
def test_posterior_density_is_prior_times_likelihood_times_jacobian(case, measured):
    c2, data = measured
    mode, fixed = CASES[case]
    start = dict(zip(PHYSICS_PARAM_NAMES, TRUTH.tolist(), strict=True)) | {"offset": 1.01}
    space = ParameterSpace().with_values(start).fix(*fixed)
    scaling = Scaling.of(mode, space, ANGLES.size)
    posterior = Posterior(PhysicsCoordinates.of(space, T), scaling)
    rng = np.random.default_rng(8)
    free = scaling.contrast.free, scaling.offset.free
    scales = np.concatenate([rng.uniform(0.1, 0.4, free[0]), rng.uniform(0.95, 1.05, free[1])])
    unknowns = Unknowns(jnp.asarray(TRUTH), jnp.asarray(scales), jnp.asarray(0.03))
    y = jax.jit(posterior.inverse)(unknowns)
    assert y.shape == (posterior.size,) == (len(posterior.names),)

    expected = log_det_of(posterior, y)
    priors = space.priors
    priors |= {f"{n}_{k}": priors[n] for n in ("contrast", "offset") if n in priors for k in (0, 1)}
    values = [*TRUTH[posterior.coordinates.indices], *scales]
    for name, value in zip(posterior.names[:-1], values, strict=True):
        expected += float(priors[name].log_prob(value))
    expected += stats.halfnorm(scale=SIGMA_PRIOR * 0.025).logpdf(0.03)
    contrast, offset = (np.asarray(x) for x in scaling.expand(jnp.asarray(scales)))
    i, j = np.triu_indices(T.size, 1)
    for k, phi in enumerate(ANGLES):
        model = offset[k] + contrast[k] * np.asarray(
            correlation_matrix(jnp.asarray(TRUTH), jnp.asarray(T), Q, DT, phi)
        )
        expected += stats.norm(model[i, j], 0.03).logpdf(c2[k, i, j]).sum()

    found = float(jax.jit(posterior.log_density)(y, data, 0.025))
    assert found == pytest.approx(expected, abs=1e-6)
    again = jax.jit(posterior.forward)(y)[0]
    np.testing.assert_allclose(again.parameters, TRUTH, rtol=1e-9)
    np.testing.assert_allclose(again.scaling, scales, rtol=1e-9)


def test_curvature_of_the_prior_is_that_of_finite_differences():
    space = ParameterSpace().fix(*PHYSICS_PARAM_NAMES[3:])
    scaling = Scaling.of(ScalingMode.AVERAGED, space, 1)
    posterior = Posterior(PhysicsCoordinates.of(space, T), scaling)
    u = Unknowns(jnp.asarray(TRUTH), jnp.asarray([0.3, 1.0]), jnp.asarray(0.03))
    u = u._replace(parameters=posterior.coordinates.inside(u.parameters))
    y = jax.jit(posterior.inverse)(Unknowns(*map(jnp.asarray, u)))
    found = np.asarray(posterior.prior_curvature(jnp.asarray(y), 0.02))

    @jax.jit
    @jax.grad
    def slope(x):
        unknowns, log_det = posterior.forward(x)
        return -posterior.log_prior(unknowns, 0.02) - log_det

    steps = 1e-5 * np.maximum(1.0, np.abs(np.asarray(y)))
    columns = [
        (slope(y.at[k].add(h)) - slope(y.at[k].add(-h))) / (2 * h) for k, h in enumerate(steps)
    ]
    scale = np.sqrt(np.abs(np.diagonal(found)))
    difference = (np.stack(columns, axis=1) - found) / scale[:, None] / scale
    assert np.abs(difference).max() < 1e-4


def test_derived_quantities_are_those_of_the_formulas():
    derived = Derived.of(np.concatenate([[0.0], T]))
    values = dict(zip(derived.names, np.asarray(derived(jnp.asarray(TRUTH))), strict=True))
    assert derived.times == pytest.approx((T[2], T[12], T[21]))
    for t in derived.times:
        assert values[f"J_ref({t:.4g} s)"] == pytest.approx(5e3 * t**0.4 + 300.0)
        assert values[f"J_sample({t:.4g} s)"] == pytest.approx(9e3 * t**-0.3 - 500.0)
        assert values[f"v({t:.4g} s)"] == pytest.approx(80.0 * t**0.2 + 5.0)
        assert values[f"s({t:.4g} s)"] == pytest.approx(0.3 * np.exp(0.4 * (t - 1.0)) + 0.15)
    assert derived.units == tuple(map(unit_of, derived.names))
    batch = derived.batch(np.stack([TRUTH, TRUTH * 1.1]))
    np.testing.assert_allclose(batch[0], list(values.values()), rtol=1e-12)
