import math

import numpy as np
import pytest
from numpyro.distributions import biject_to
from scipy import integrate, stats

from heterodyne.config.parameter_names import ALL_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace, PriorKind
from heterodyne.core._jax import jnp


def truncated_normal(loc, scale, low, high):
    return stats.truncnorm((low - loc) / scale, (high - loc) / scale, loc, scale)


def expected_log_density(parameter, x):
    prior, low, high = parameter.prior, parameter.min, parameter.max
    if prior.kind is PriorKind.UNIFORM:
        return stats.uniform(low, high - low).logpdf(x)
    if prior.kind is PriorKind.NORMAL:
        return truncated_normal(prior.mean, prior.std, low, high).logpdf(x)
    loc, scale = math.log(prior.mean), math.log(1 + prior.std / prior.mean)
    log = truncated_normal(loc, scale, math.log(low), math.log(high))
    return log.logpdf(np.log(x)) - np.log(x)


def interior(parameter):
    shares = np.array([0.001, 0.1, 0.37, 0.8, 0.999])
    if parameter.prior.kind is PriorKind.LOGNORMAL:
        return parameter.min * (parameter.max / parameter.min) ** shares
    return parameter.min + (parameter.max - parameter.min) * shares


@pytest.mark.parametrize("name", ALL_PARAM_NAMES)
def test_default_prior_is_the_truncated_density(name):
    space = ParameterSpace()
    x = interior(space[name])
    expected = expected_log_density(space[name], x)
    np.testing.assert_allclose(space.priors[name].log_prob(jnp.asarray(x)), expected, rtol=1e-9)


SETTINGS = [
    ("f0", {"prior": {"type": "uniform"}}),
    ("f0", {"min": 0.2, "max": 0.4, "prior": {"mean": 0.9, "std": 0.3}}),
    ("v0", {"min": 300, "max": 500}),
    ("v0", {"prior": {"type": "normal", "mean": 100, "std": 2000}}),
    ("f1", {"min": 0.01, "max": 2, "prior": {"type": "LogNormal", "mean": 0.1, "std": 0.5}}),
]


@pytest.mark.parametrize(("name", "setting"), SETTINGS, ids=str)
def test_chosen_prior_is_the_truncated_density_and_integrates_to_one(name, setting):
    space = ParameterSpace.from_config({name: setting})
    parameter, prior = space[name], space.priors[name]
    x = interior(parameter)
    expected = expected_log_density(parameter, x)
    np.testing.assert_allclose(prior.log_prob(jnp.asarray(x)), expected, rtol=1e-9)
    margin = 1e-9 * (parameter.max - parameter.min)
    grid = np.linspace(parameter.min + margin, parameter.max - margin, 20_001)
    density = np.exp(prior.log_prob(jnp.asarray(grid)))
    assert integrate.simpson(density, x=grid) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", ["D0_ref", "alpha_ref", "v0", "contrast"])
def test_support_is_the_bounds(name):
    space = ParameterSpace()
    to_support = biject_to(space.priors[name].support)
    low, high = space.bounds[name]
    reached = np.asarray(to_support(jnp.array([-1e3, -5.0, 0.0, 5.0, 1e3])))
    assert np.all(np.diff(reached) > 0)
    assert [reached[0], reached[-1]] == pytest.approx([low, high], rel=1e-6)


def test_fixed_parameters_have_no_prior():
    assert "v0" not in ParameterSpace().fix("v0").priors
