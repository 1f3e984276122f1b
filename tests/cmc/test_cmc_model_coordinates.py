"""NumPyro models in unbounded coordinates: the same posterior, whatever z counts from."""

from __future__ import annotations

import math

import numpy as np
import numpyro.distributions as dist
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_cases import (
    C2,
    DT,
    PHI,
    SIGMA,
    SPACE,
    TRUTH,
    Q,
    T,
    density_of,
    log_likelihood,
    log_prior,
    physics,
)
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, Predictive, init_to_value
from scipy import stats

from heterodyne._errors import ConfigError
from heterodyne.config.parameter_names import ALL_PARAM_NAMES, PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jax, jnp
from heterodyne.core.jax_backend import compute_c2_heterodyne
from heterodyne.optimization.cmc._model_coordinates import Coordinate, centres_of
from heterodyne.optimization.cmc.model import get_heterodyne_model, get_heterodyne_model_reparam
from heterodyne.optimization.cmc.reparameterization import (
    ReparamConfig,
    transform_to_physics_space,
    transform_to_sampling_space,
)
from heterodyne.optimization.cmc.scaling import ParameterScaling, compute_scaling_factors

COMMON = (T, Q, DT, PHI, C2, SIGMA)
CONFIG = ReparamConfig(t_ref=0.45)
OTHER_PRIORS = ParameterSpace.from_config(
    {
        "D0_ref": {"prior": {"type": "normal", "mean": 2e4, "std": 5e3}},
        "D_offset_ref": {"min": 10.0, "prior": {"type": "lognormal", "mean": 100, "std": 50}},
        "v0": {"prior": "uniform"},
        "f1": {"prior": "uniform"},
    }
).fix("alpha_sample", "v0", "f2", "offset")
CASES = {
    "centred": (SPACE, {"nlsq_params": TRUTH}),
    "one pair": (SPACE, {"reparam_config": ReparamConfig(False, True, False, t_ref=3.0)}),
    "all pairs": (
        SPACE,
        {"reparam_config": CONFIG, "nlsq_params": np.append(TRUTH, [0.2, 1.01])},
    ),
    "other priors": (OTHER_PRIORS, {"reparam_config": CONFIG, "offset": 1.01}),
}


def trace_of(built, values):
    return handlers.trace(handlers.seed(handlers.substitute(built, values), 0)).get_trace()


def z_names(built):
    trace = trace_of(built, {})
    return [n for n, s in trace.items() if s["type"] == "sample" and n.endswith("_z")]


@pytest.mark.parametrize("case", CASES)
def test_the_density_is_that_of_the_documented_priors(case):
    space, options = CASES[case]
    built = get_heterodyne_model_reparam(*COMMON, space, **options)
    scaling = {"offset": 1.01} if "offset" in options else {}
    plain = density_of(get_heterodyne_model(*COMMON, space, **scaling))
    density, sites, free = density_of(built), z_names(built), space.varying_names
    assert len(sites) == len(free)

    @jax.jit
    def parameters(z):
        trace = trace_of(built, dict(zip(sites, z, strict=True)))
        return jnp.stack([trace[name]["value"] for name in free])

    slopes = jax.jit(jax.jacfwd(parameters))
    for seed in range(3):
        z = np.random.default_rng(seed).normal(scale=0.7, size=len(sites))
        at = parameters(z)
        sign, log_det = np.linalg.slogdet(slopes(z))
        assert abs(sign) == 1.0
        expected = plain(dict(zip(free, at, strict=True)) | {"sigma": SIGMA}) + log_det
        found = density(dict(zip(sites, z, strict=True)) | {"sigma": SIGMA})
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_value_at_the_reference_time_is_what_its_name_says():
    built = get_heterodyne_model_reparam(*COMMON, SPACE, reparam_config=CONFIG)
    draws = Predictive(built, num_samples=20)(jax.random.key(0))
    at = {n: np.asarray(draws[n]) for n in PHYSICS_PARAM_NAMES}
    referred = {n: draws[n] for n in draws if n.endswith("_at_tref")}
    assert referred.keys() == {f"log_{n}_at_tref" for n in ("D0_ref", "D0_sample", "v0")}
    exponents = {n: at[n] for n in ("alpha_ref", "alpha_sample", "beta")}
    back = transform_to_physics_space({**referred, **exponents}, CONFIG)
    for name in ("D0_ref", "D0_sample", "v0"):
        np.testing.assert_allclose(back[name], at[name], rtol=1e-12)
    first = {name: float(values[0]) for name, values in at.items()}
    there = transform_to_sampling_space(first, CONFIG)
    for name, values in referred.items():
        assert float(values[0]) == pytest.approx(there[name], rel=1e-12)


def test_well_inside_the_bounds_z_is_a_shift_of_the_logarithm():
    built = get_heterodyne_model_reparam(*COMMON, SPACE, reparam_config=CONFIG)
    # At one z of the amplitude the prefactor makes up for the exponent.
    levels = []
    for exponent in (-0.8, 0.0, 0.9):
        values = {"alpha_ref_z": exponent, "log_D0_ref_at_tref_z": 0.3}
        trace = trace_of(built, values)
        assert float(trace["alpha_ref"]["value"]) == pytest.approx(exponent, abs=1e-3)
        levels.append(float(trace["log_D0_ref_at_tref"]["value"]))
    np.testing.assert_allclose(levels, levels[0], atol=1e-4)


@pytest.mark.parametrize("config", [None, CONFIG])
def test_zero_is_the_fit(config):
    fit = np.append(TRUTH, [0.22, 1.03])
    fit[ALL_PARAM_NAMES.index("f3")] = 0.1
    built = get_heterodyne_model_reparam(*COMMON, SPACE, nlsq_params=fit, reparam_config=config)
    trace = trace_of(built, dict.fromkeys(z_names(built), 0.0))
    found = [float(trace[n]["value"]) for n in ALL_PARAM_NAMES]
    np.testing.assert_allclose(found, fit, rtol=1e-10, atol=1e-9)


def test_without_a_fit_zero_is_the_centre_of_the_prior():
    found = centres_of(SPACE, None)
    assert found["D0_sample"] == 1e4
    assert found["beta"] == 0.0
    # Its prior is centred on its lower bound.
    assert found["f3"] == pytest.approx(1e-3)


def test_a_fit_on_a_bound_is_moved_inside(caplog):
    fit = TRUTH.copy()
    fit[0] = 1e6
    with caplog.at_level("INFO"):
        found = centres_of(SPACE, fit)
    assert 0.98e6 < found["D0_ref"] < 1e6
    assert "The fit has D0_ref = 1e+06, at or outside its bounds 100 to 1e+06" in caplog.text


@pytest.mark.parametrize("fit", [TRUTH[:-1], np.full(14, np.nan), np.ones((14, 1))])
def test_a_fit_that_is_none_is_refused(fit):
    with pytest.raises(ConfigError, match=r"nlsq_params: .*Allowed: 14 finite numbers"):
        get_heterodyne_model_reparam(*COMMON, SPACE, nlsq_params=fit)


def test_draws_from_the_model_have_the_documented_priors():
    built = get_heterodyne_model_reparam(*COMMON, SPACE, nlsq_params=TRUTH, reparam_config=CONFIG)
    draws = Predictive(built, num_samples=500)(jax.random.key(3))
    for name in ("D0_ref", "alpha_ref", "f3"):
        grid = np.linspace(*SPACE.bounds[name], 200_001)[1:-1]
        cdf = np.cumsum(np.exp(log_prior(SPACE, name, grid))) * (grid[1] - grid[0])
        found = stats.kstest(np.asarray(draws[name]), lambda x, v=(grid, cdf): np.interp(x, *v))
        assert found.pvalue > 1e-3


def test_scalings_replace_priors_and_say_so(caplog):
    space = SPACE.fix("contrast", "offset", "f2")
    values = dict(zip(PHYSICS_PARAM_NAMES, TRUTH, strict=True))
    referred = transform_to_sampling_space(values, CONFIG)
    scalings = {
        name: s for name, s in compute_scaling_factors(space, values).items() if name in referred
    }
    for name in referred.keys() - values.keys():
        centre = referred[name]
        scalings[name] = ParameterScaling(name, centre, 0.2, centre - 3.0, centre + 3.0)
    del scalings["phi0"]
    caplog.clear()
    built = get_heterodyne_model_reparam(
        *COMMON, space, reparam_config=CONFIG, scalings=scalings, contrast=0.2, offset=1.01
    )
    assert "the data count twice" in caplog.text
    sites = z_names(built)
    assert set(sites) == {f"{n}_z" for n in scalings} | {"phi0_z"}
    z = dict(zip(sites, np.random.default_rng(0).normal(size=len(sites)), strict=True))
    trace = trace_of(built, z)
    for name, scaling in scalings.items():
        expected = float(scaling.to_original(z[f"{name}_z"]))
        assert float(trace[name]["value"]) == pytest.approx(expected, rel=1e-12)
    at = {n: float(trace[n]["value"]) for n in PHYSICS_PARAM_NAMES if n != "f2"}
    log_time = math.log(CONFIG.t_ref)
    expected = float(trace["log_v0_at_tref"]["value"]) - at["beta"] * log_time
    assert math.log(at["v0"]) == pytest.approx(expected)
    # Standard normal in z, but for phi0, which keeps its prior.
    slope = float(
        jax.grad(lambda x: trace_of(built, z | {"phi0_z": x})["phi0"]["value"])(z["phi0_z"])
    )
    total = sum(stats.norm.logpdf(z[f"{n}_z"]) for n in scalings)
    total += log_prior(space, "phi0", at["phi0"]) + math.log(slope)
    total += stats.halfnorm(scale=1.5 * SIGMA).logpdf(SIGMA)
    total += log_likelihood(physics(space, at), np.full(3, 0.2), np.full(3, 1.01), SIGMA)
    np.testing.assert_allclose(density_of(built)(z | {"sigma": SIGMA}), total, rtol=1e-9)


def test_scalings_of_what_is_not_sampled_are_refused():
    scaling = ParameterScaling("D0_ref", 1e4, 1e3, 100.0, 1e6)
    with pytest.raises(ConfigError, match=r"'D0_ref'.*Allowed: .*log_D0_ref_at_tref"):
        get_heterodyne_model_reparam(
            *COMMON, SPACE, reparam_config=CONFIG, scalings={"D0_ref": scaling}
        )
    with pytest.raises(ConfigError, match="scalings: unknown sampled quantity 'D0_ref'"):
        get_heterodyne_model_reparam(*COMMON, SPACE.fix("D0_ref"), scalings={"D0_ref": scaling})


@given(
    z=st.floats(-6, 6),
    shift=st.floats(-8, 8),
    centre=st.floats(-3, 3),
    scale=st.floats(0.01, 3),
    logarithmic=st.booleans(),
)
def test_coordinates_are_bijections(z, shift, centre, scale, logarithmic):
    low, high = (math.log(1e-3), math.log(1e4)) if logarithmic else (-2.0, 3.0)
    one = Coordinate(low, high, 0.3, shift, centre, scale, logarithmic)
    raw = z * scale + centre - shift
    x = one.inv(z)
    ends = [math.exp(e) for e in (low, high)] if logarithmic else [low, high]
    assert ends[0] <= x <= ends[1]
    # Far outside, the last digits of x decide about z.
    if low - 4.0 < raw < high + 4.0:
        assert one(x) == pytest.approx(z, abs=1e-7 / scale)
        # On a wall itself automatic derivatives of the absolute value and the clip are not its own.
        if raw in (low, high):
            return
        slope = math.log(abs(float(jax.grad(lambda v: one.inv(v))(z))))
        assert float(one.log_abs_det_jacobian(x, z)) == pytest.approx(-slope, abs=1e-9)
    assert math.isfinite(float(one.log_abs_det_jacobian(x, z)))
    assert one.sign == 1


def test_a_coordinate_says_its_domain():
    one = Coordinate(math.log(2.0), math.log(8.0), 0.3, 0.0, 0.0, 1.0, True)
    assert one.domain.lower_bound == pytest.approx(2.0)
    assert one.domain.upper_bound == pytest.approx(8.0)
    assert one.codomain is dist.constraints.real


@pytest.mark.slow
def test_numpyro_samples_in_coordinates():
    # Far from 1 s the prefactor and the exponent are one direction.
    t = T + 8.0
    c2 = compute_c2_heterodyne(TRUTH, t, Q, DT, 0.0, 0.3, 1.0)
    c2 = np.asarray(c2) + np.triu(np.random.default_rng(0).normal(scale=SIGMA, size=c2.shape), 1)
    c2 = np.triu(c2) + np.triu(c2, 1).T
    free = ("D0_ref", "alpha_ref")
    space = SPACE.fix(*(n for n in SPACE if n not in free))
    built = get_heterodyne_model_reparam(
        t, Q, DT, 0.0, c2, SIGMA, space, TRUTH, ReparamConfig(t_ref=9.0), contrast=0.3
    )
    start = dict.fromkeys(z_names(built), 0.0) | {"sigma": SIGMA}
    kernel = NUTS(built, init_strategy=init_to_value(values=start), max_tree_depth=6)
    mcmc = MCMC(kernel, num_warmup=150, num_samples=150, progress_bar=False)
    mcmc.run(jax.random.key(0))
    assert int(mcmc.get_extra_fields()["diverging"].sum()) == 0
    draws = {n: np.asarray(v) for n, v in mcmc.get_samples().items()}
    for name in free:
        truth = SPACE[name].value
        assert abs(draws[name].mean() - truth) < 4.0 * draws[name].std()
    # 190 pairs tell sigma to 1/sqrt(2 * 190).
    assert draws["sigma"].std() / SIGMA == pytest.approx(0.051, rel=0.4)
    apart, ridge = (
        abs(np.corrcoef(draws["alpha_ref"], x)[0, 1])
        for x in (draws["log_D0_ref_at_tref"], np.log(draws["D0_ref"]))
    )
    assert ridge > 0.95
    assert apart < 0.7
