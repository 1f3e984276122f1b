"""Priors as distributions, against SciPy's densities and integrals."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import integrate, stats

from heterodyne._errors import ConfigError
from heterodyne.config.parameter_names import ALL_PARAM_NAMES
from heterodyne.config.parameter_registry import DEFAULT_REGISTRY, ParameterRegistry
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jnp
from heterodyne.optimization.cmc.priors import (
    PriorBuilder,
    build_default_priors,
    build_default_priors_via_builder,
    build_log_space_priors,
    build_log_space_priors_via_builder,
    build_nlsq_informed_priors,
    summarize_priors,
    temper_priors,
    validate_priors,
)
from heterodyne.optimization.nlsq.results import NLSQResult

LOG_SPACE = ["D0_ref", "D0_sample", "v0"]
SPACE = ParameterSpace()


def registry_with(name, **changes):
    rows = (replace(r, **changes) if r.name == name else r for r in DEFAULT_REGISTRY.values())
    return ParameterRegistry(tuple(rows))


def truncated(loc, scale, low, high):
    return stats.truncnorm((low - loc) / scale, (high - loc) / scale, loc, scale)


def log_density(prior, x):
    return np.asarray(prior.log_prob(jnp.asarray(x)))


def assert_normal(prior, loc, scale, low, high):
    x = low + (high - low) * np.array([0.01, 0.3, 0.5, 0.77, 0.99])
    expected = truncated(loc, scale, low, high).logpdf(x)
    found = log_density(prior, x)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def assert_lognormal(prior, median, std, low, high):
    x = low * (high / low) ** np.array([0.01, 0.3, 0.5, 0.77, 0.99])
    log = truncated(np.log(median), np.log(1 + std / median), np.log(low), np.log(high))
    np.testing.assert_allclose(log_density(prior, x), log.logpdf(np.log(x)) - np.log(x), rtol=1e-9)


def test_default_priors_are_those_of_the_table_within_the_bounds_of_the_space():
    space = ParameterSpace.from_config(
        {"D0_ref": {"min": 500, "max": 2e4}, "f0": {"min": 0.2, "max": 0.7}}
    ).fix("f1", "contrast")
    priors = build_default_priors(space)
    assert list(priors) == space.varying_names
    for name, prior in priors.items():
        row, bounds = DEFAULT_REGISTRY[name], space.bounds[name]
        check = assert_lognormal if name in LOG_SPACE else assert_normal
        check(prior, row.prior_mean, row.prior_std, *bounds)


def test_normal_priors_stand_in_for_log_normal_ones():
    priors = build_default_priors(SPACE, use_log_space_priors=False)
    assert_normal(priors["v0"], 1e3, 1e3, 1e-6, 1e4)
    assert_normal(priors["D0_sample"], 1e4, 1e4, 100.0, 1e6)
    assert_normal(priors["beta"], 0.0, 1.0, -2.0, 2.0)


def test_another_table_gives_other_default_priors():
    registry = registry_with("beta", prior_mean=0.5, prior_std=0.1)
    assert_normal(build_default_priors(SPACE, registry)["beta"], 0.5, 0.1, -2.0, 2.0)


def test_priors_of_a_run_that_are_not_used_are_told(caplog):
    build_default_priors(ParameterSpace.from_config({"beta": {"min": -1}}))
    assert not caplog.records
    space = ParameterSpace.from_config({"beta": {"prior": "uniform"}, "f0": {"prior": {"std": 1}}})
    assert_normal(build_default_priors(space)["beta"], 0.0, 1.0, -2.0, 2.0)
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "beta, f0" in caplog.text


def test_a_table_without_a_varying_parameter_is_refused():
    rows = tuple(row for row in DEFAULT_REGISTRY.values() if row.name != "f2")
    with pytest.raises(ConfigError, match="unknown parameter 'f2'"):
        build_default_priors(SPACE, ParameterRegistry(rows))
    assert "f2" not in build_default_priors(SPACE.fix("f2"), ParameterRegistry(rows))


def test_log_normal_prior_needs_positive_bounds():
    registry = registry_with("v_offset", log_space=True, prior_mean=10.0)
    with pytest.raises(ConfigError, match="min > 0"):
        build_default_priors(SPACE, registry)


def test_log_space_priors_are_the_log_normal_ones():
    priors = build_log_space_priors(ALL_PARAM_NAMES)
    assert list(priors) == LOG_SPACE
    assert_lognormal(priors["D0_ref"], 1e4, 1e4, 100.0, 1e6)
    assert_lognormal(priors["v0"], 1e3, 1e3, 1e-6, 1e4)
    assert build_log_space_priors(["f0", "alpha_ref"]) == {}


def test_log_space_priors_follow_the_table():
    registry = registry_with("f0", log_space=True, min_bound=0.01, prior_std=0.5)
    priors = build_log_space_priors(["f0", "v0"], registry)
    assert_lognormal(priors["f0"], 0.5, 0.5, 0.01, 1.0)
    assert list(build_log_space_priors(["f0", "v0"])) == ["v0"]
    with pytest.raises(ConfigError, match="did you mean 'D0_ref'"):
        build_log_space_priors(["D0_reff"])


def test_builder_builds_the_default_priors():
    x = {name: np.mean(bounds) for name, bounds in SPACE.bounds.items()}
    for log_space in (True, False):
        expected = build_default_priors(SPACE, use_log_space_priors=log_space)
        built = PriorBuilder(use_log_space_priors=log_space).build(SPACE)
        shim = build_default_priors_via_builder(SPACE, use_log_space_priors=log_space)
        assert list(built) == list(shim) == list(expected)
        for name, prior in expected.items():
            value = log_density(prior, x[name])
            assert log_density(built[name], x[name]) == value
            assert log_density(shim[name], x[name]) == value
    priors = build_log_space_priors_via_builder(["v0", "f0"])
    assert list(priors) == ["v0"]
    assert_lognormal(priors["v0"], 1e3, 1e3, 1e-6, 1e4)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("beta", {"prior_mean": 1e-6}),
        ("v0", {"prior_std": 1e3 * (1 + 1e-5)}),
        ("D0_ref", {"log_space": False}),
    ],
)
def test_builder_refuses_a_table_with_other_priors(name, changes):
    registry = registry_with(name, **changes)
    calls = (
        lambda: PriorBuilder(registry),
        lambda: build_default_priors_via_builder(SPACE, registry),
        lambda: build_log_space_priors_via_builder(["v0"], registry),
    )
    for call in calls:
        with pytest.raises(RuntimeError, match=f"prior of {name}, the parameter space"):
            call()


def test_builder_refuses_a_space_made_of_another_table():
    space = ParameterSpace.from_config({}, registry_with("f3", prior_std=0.1))
    with pytest.raises(RuntimeError, match=r"normal 0 ± 0.5 prior of f3, .* normal 0 ± 0.1 one"):
        PriorBuilder().build(space)


def test_builder_accepts_rounding_and_other_bounds():
    mean = 1e3 * (1 + 1e-8)
    registry = registry_with("v0", prior_mean=mean, min_bound=1.0)
    assert_lognormal(PriorBuilder(registry).build(SPACE)["v0"], mean, 1e3, 1e-6, 1e4)
    PriorBuilder(registry_with("beta", prior_mean=1e-10))


def fit_of(errors=None, *, success=True, **values):
    sizes = None if errors is None else np.array(errors, float)
    numbers = np.array(list(values.values()), float)
    return NLSQResult(numbers, tuple(values), sizes, None, success, message="stopped early")


def test_priors_around_a_fit_are_truncated_normals_of_scaled_errors():
    space = SPACE.fix(*(n for n in ALL_PARAM_NAMES if n not in ("D0_ref", "f0", "contrast")))
    fit = fit_of([300.0, 0.2, 0.01, 1.0], D0_ref=2e4, f0=0.9, contrast=0.1, beta=1.0)
    priors = build_nlsq_informed_priors(fit, space)
    assert list(priors) == ["D0_ref", "f0", "contrast"]
    assert_normal(priors["f0"], 0.9, 0.4, 0.0, 1.0)
    assert_normal(priors["contrast"], 0.1, 0.02, 0.0, 1.0)
    near = np.linspace(19e3, 21e3, 5)
    np.testing.assert_allclose(
        log_density(priors["D0_ref"], near), stats.norm(2e4, 600.0).logpdf(near), rtol=1e-9
    )
    wider = build_nlsq_informed_priors(fit, space, width_factor=5.0)
    assert_normal(wider["f0"], 0.9, 1.0, 0.0, 1.0)


FIVE = ("v_offset", "f1", "f2", "phi0", "beta")


def test_width_falls_back_where_the_fit_has_no_error(caplog):
    config = {"v_offset": {"prior": {"std": 7}}, "f1": {"prior": "uniform"}}
    space = ParameterSpace.from_config(config).fix(*(n for n in ALL_PARAM_NAMES if n not in FIVE))
    values = {"v_offset": 1.0, "f1": 2.0, "f2": 3.0, "phi0": 4.0, "beta": 0.5}
    fit = fit_of([np.inf, np.nan, np.inf, 0.0, 0.1], **values)
    priors = build_nlsq_informed_priors(fit, space)
    assert_normal(priors["v_offset"], 1.0, 7.0, -100.0, 100.0)
    assert_normal(priors["f1"], 2.0, 20 / 12**0.5, -10.0, 10.0)
    assert_normal(priors["f2"], 3.0, 1e3, -1e4, 1e4)
    assert_normal(priors["phi0"], 4.0, 5.0, -10.0, 10.0)
    assert_normal(priors["beta"], 0.5, 0.2, -2.0, 2.0)
    told = [r.getMessage() for r in caplog.records if "no error of" in r.getMessage()]
    assert len(told) == 4
    assert "v_offset: its prior is 7 wide" in told[0]

    priors = build_nlsq_informed_priors(fit_of(**values), space)
    assert_normal(priors["beta"], 0.5, 1.0, -2.0, 2.0)


def test_value_that_cannot_be_used_is_told(caplog):
    space = SPACE.fix(*(n for n in ALL_PARAM_NAMES if n not in ("f0", "f3", "contrast")))
    fit = fit_of([0.1, 0.1, 0.1], success=False, f0=1.2, f3=np.nan, contrast_0=0.3)
    priors = build_nlsq_informed_priors(fit, space)
    assert_normal(priors["f0"], 1.0, 0.2, 0.0, 1.0)
    assert_normal(priors["f3"], 0.0, 0.5, 0.0, 1.0)
    assert_normal(priors["contrast"], 0.5, 0.25, 0.0, 1.0)
    for text in ("f0 = 1.2 is outside", "no value of f3", "no value of contrast", "stopped early"):
        assert text in caplog.text


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_data_used_twice_narrow_the_errors_as_told(factor, caplog):
    space = SPACE.fix(*(n for n in ALL_PARAM_NAMES if n != "beta"))
    prior = build_nlsq_informed_priors(fit_of([0.01], beta=0.3), space, factor)["beta"]
    x = np.linspace(0.2, 0.4, 4001)
    density = np.exp(log_density(prior, x) + stats.norm(0.3, 0.01).logpdf(x))
    weight = density / integrate.trapezoid(density, x)
    std = np.sqrt(integrate.trapezoid(weight * (x - 0.3) ** 2, x))
    (told,) = re.findall(r"by a factor of ([\d.]+)\.", caplog.text)
    assert std / 0.01 == pytest.approx(float(told), rel=1e-3)
    assert std / 0.01 == pytest.approx(factor / np.sqrt(1 + factor**2), rel=1e-6)


@pytest.mark.parametrize("factor", [0.0, -1.0, np.inf, np.nan])
def test_width_factor_must_be_positive(factor):
    with pytest.raises(ConfigError, match="width_factor"):
        build_nlsq_informed_priors(fit_of([0.1], beta=0.3), SPACE, factor)


UNBOUNDED = dist.TruncatedNormal(2.0, 3.0)
PLAIN = {
    "two bounds": dist.TruncatedNormal(0.9, 0.3, low=0.2, high=1.0),
    "lower bound": dist.TruncatedNormal(1.0, 2.0, low=0.2),
    "upper bound": dist.TruncatedNormal(1.0, 2.0, high=1.5),
    "no bound": UNBOUNDED,
    "uniform": dist.Uniform(0.2, 1.0),
}
LOGARITHMIC = {
    "log-normal": dist.LogNormal(0.3, 0.8),
    "truncated log-normal": SPACE.priors["D0_ref"],
    "log-uniform": dist.LogUniform(0.2, 1.0),
}


def on_sampling_axis(prior, z, logarithmic):
    """Log density of what is sampled: x, or log x."""
    return log_density(prior, np.exp(z)) + z if logarithmic else log_density(prior, z)


@pytest.mark.parametrize("shards", [2, 7])
@pytest.mark.parametrize("family", [*PLAIN, *LOGARITHMIC])
def test_tempered_priors_of_all_shards_multiply_to_the_prior(family, shards, caplog):
    logarithmic = family in LOGARITHMIC
    prior = (PLAIN | LOGARITHMIC)[family]
    tempered = temper_priors({family: prior}, shards)[family]
    ends = np.array([100.0, 1e6] if family == "truncated log-normal" else [0.2, 1.0])
    low, high = np.log(ends) if logarithmic else ends
    z = np.linspace(low + 1e-9, high - 1e-9, 2001)
    product = shards * on_sampling_axis(tempered, z, logarithmic)
    difference = product - on_sampling_axis(prior, z, logarithmic)
    np.testing.assert_allclose(difference, difference[0], atol=1e-9)
    if family in ("two bounds", "uniform", "truncated log-normal", "log-uniform"):
        density = np.exp(on_sampling_axis(tempered, z, logarithmic))
        assert integrate.simpson(density, x=z) == pytest.approx(1.0, abs=1e-6)
    assert not caplog.records


def test_all_priors_of_a_space_can_be_tempered(caplog):
    tempered = temper_priors(SPACE.priors, 4)
    assert list(tempered) == SPACE.varying_names
    assert_normal(tempered["f2"], 0.0, 2e3, -1e4, 1e4)
    # ln(1 + std / median) is twice ln 2.
    assert_lognormal(tempered["v0"], 1e3, 3e3, 1e-6, 1e4)
    assert not caplog.records


def test_power_of_a_log_normal_density_of_x_has_another_centre():
    loc, scale, shards = 0.3, 0.8, 4
    x = np.linspace(0.1, 9.0, 50)
    prior = log_density(dist.LogNormal(loc, scale), x)
    tempered = temper_priors({"x": dist.LogNormal(loc, scale)}, shards)["x"]
    assert isinstance(tempered, dist.LogNormal)
    assert np.ptp(shards * log_density(tempered, x) - prior) > 1.0
    moved = dist.LogNormal(loc + scale**2 * (shards - 1), scale * np.sqrt(shards))
    np.testing.assert_allclose(np.ptp(shards * log_density(moved, x) - prior), 0.0, atol=1e-9)


def test_uniform_and_unknown_families_are_kept(caplog):
    kept = {
        "uniform": dist.Uniform(0.0, 1.0),
        "beta": dist.Beta(2.0, 3.0),
        "cauchy": dist.TruncatedCauchy(0.0, 1.0, low=-1.0, high=1.0),
        "halfnormal": dist.HalfNormal(1.0),
    }
    given = kept | {"normal": UNBOUNDED}
    tempered = temper_priors(given, 3)
    assert {name: tempered[name] for name in kept} == kept
    assert given["normal"] is UNBOUNDED
    assert tempered["normal"].scale == pytest.approx(3.0 * np.sqrt(3.0))
    told = [r.getMessage() for r in caplog.records]
    assert [text.split(" is not tempered: it counts 3 times")[0] for text in told] == [
        "The Beta prior of beta",
        "The TwoSidedTruncatedDistribution prior of cauchy",
        "The HalfNormal prior of halfnormal",
    ]


def test_one_shard_has_the_prior(caplog):
    given = SPACE.priors | {"beta": dist.Beta(2.0, 3.0)}
    tempered = temper_priors(given, 1)
    assert tempered == given
    assert tempered is not given
    assert not caplog.records


@pytest.mark.parametrize("shards", [0, -2, 2.5, True, np.nan])
def test_number_of_shards_is_a_count(shards):
    with pytest.raises(ConfigError, match="num_shards"):
        temper_priors({}, shards)


def test_priors_of_a_space_are_valid():
    assert validate_priors(SPACE.priors, SPACE) == []
    assert validate_priors(temper_priors(SPACE.priors, 100), SPACE) == []
    fixed = SPACE.fix("f0")
    assert validate_priors(fixed.priors, fixed) == []


INVALID = {
    "outside": (dist.Uniform(2.0, 3.0), "lives on 2 to 3, and its bounds are 0 to 1"),
    "at the bound": (dist.TruncatedNormal(2.0, 1.0, low=1.0), "lives on 1 to inf"),
    "empty": (dist.Uniform(0.5, 0.5, validate_args=False), "lives on 0.5 to 0.5"),
    "narrow": (dist.TruncatedNormal(0.5, 1e-13, low=0.0, high=1.0), "scale 1e-13"),
    "narrow in log": (dist.LogNormal(-1.0, 1e-13), "scale 1e-13"),
    "narrow half-normal": (dist.HalfNormal(1e-13), "scale 1e-13"),
    "no width": (dist.Delta(0.5), "scale 0"),
    "narrow beta": (dist.Beta(1e30, 1e30), "scale"),
    "scale nan": (dist.Normal(0.5, np.nan, validate_args=False), "scale nan"),
    "scale infinite": (dist.Normal(0.5, np.inf, validate_args=False), "scale inf"),
    "centre nan": (dist.Normal(np.nan, 1.0, validate_args=False), "centred at nan"),
    "discrete": (dist.Poisson(0.5), "support of its Poisson prior"),
    "several": (dist.Dirichlet(np.ones(3)), "support of its Dirichlet prior"),
}


@pytest.mark.parametrize("case", INVALID)
def test_bad_prior_is_told(case):
    prior, text = INVALID[case]
    problems = validate_priors(SPACE.priors | {"f0": prior}, SPACE)
    assert all(problem.startswith("f0: ") for problem in problems)
    assert any(text in problem for problem in problems)
    assert len(problems) == (2 if case == "no width" else 1)


@pytest.mark.parametrize(
    "prior",
    [
        dist.Normal(0.5, 1.0),
        dist.Normal(0.5, 2e-12),
        dist.Uniform(0.5, 0.5 + 1e-14),
        dist.Uniform(0.9, 3.0),
        dist.LogNormal(0.0, 1.0),
        dist.Beta(2.0, 2.0),
        dist.TruncatedNormal(2.0, 1.0, high=0.1),
        dist.Cauchy(0.0, 1.0),
    ],
    ids=lambda prior: type(prior).__name__,
)
def test_prior_that_overlaps_is_valid(prior):
    assert validate_priors(SPACE.priors | {"f0": prior}, SPACE) == []


def test_missing_priors_are_told():
    priors = SPACE.priors
    del priors["v0"], priors["offset"]
    problems = validate_priors(priors, SPACE)
    assert problems == [f"{n}: it varies and has no prior." for n in ("v0", "offset")]
    assert validate_priors(priors, SPACE.fix("v0", "offset")) == []


def moments_of(prior, logarithmic, low, high):
    """Mean and standard deviation by Simpson's rule, on the axis that is sampled."""
    z = np.linspace(*(np.log([low, high]) if logarithmic else (low, high)), 100_001)[1:-1]
    x = np.exp(z) if logarithmic else z
    density = np.exp(on_sampling_axis(prior, z, logarithmic))
    mean = integrate.simpson(density * x, x=z)
    return mean, np.sqrt(integrate.simpson(density * (x - mean) ** 2, x=z))


NARROW = ParameterSpace.from_config({"D0_ref": {"prior": {"mean": 5e3, "std": 5.0}}})
SUMMARIES = {
    "f0": (SPACE.priors["f0"], "TruncatedNormal", False, (0.0, 1.0)),
    "f3": (temper_priors(SPACE.priors, 50)["f3"], "TruncatedNormal", False, (0.0, 1.0)),
    "D0_ref": (SPACE.priors["D0_ref"], "TruncatedLogNormal", True, (100.0, 1e6)),
    "D0_sample": (NARROW.priors["D0_ref"], "TruncatedLogNormal", True, (100.0, 1e6)),
    "v0": (temper_priors(SPACE.priors, 50)["v0"], "TruncatedLogNormal", True, (1e-6, 1e4)),
    "beta": (dist.Normal(0.5, 0.25), "Normal", False, (-3.0, 4.0)),
    "f1": (dist.LogNormal(0.5, 0.25), "LogNormal", True, (1e-2, 1e2)),
    "f2": (dist.Uniform(-2.0, 5.0), "Uniform", False, (-2.0, 5.0)),
}


def test_summary_gives_family_moments_and_support():
    lines = summarize_priors({name: case[0] for name, case in SUMMARIES.items()}).splitlines()
    assert len(lines) == len(SUMMARIES)
    for line, (name, (prior, family, logarithmic, ends)) in zip(
        lines, SUMMARIES.items(), strict=True
    ):
        pattern = r"(\w+) +(\w+) +mean (\S+), std (\S+), support (\S+) to (\S+)(?: (\S+))?"
        match = re.fullmatch(pattern, line)
        assert match is not None, line
        assert match.group(1, 2) == (name, family)
        mean, std = moments_of(prior, logarithmic, *ends)
        assert float(match[3]) == pytest.approx(mean, abs=0.06 * std)
        assert float(match[4]) == pytest.approx(std, rel=0.06)
        assert match[7] == (DEFAULT_REGISTRY[name].unit or None)
        if name not in ("beta", "f1"):
            assert [float(x) for x in match.group(5, 6)] == pytest.approx(ends)
    assert "support -inf to inf" in lines[5]
    assert "support 0 to inf" in lines[6]


def test_summary_says_what_is_not_known():
    odd = {
        "log_D0": dist.Cauchy(0.0, 1.0),
        "contrast_1": dist.TruncatedCauchy(0.0, 1.0, low=-1.0, high=1.0),
        "shares": dist.Dirichlet(np.ones(3)),
        "wide": dist.LogNormal(0.0, 80.0),
    }
    cauchy, _, shares, wide = summarize_priors(odd).splitlines()
    assert "mean N/A, std N/A, support -inf to inf" in cauchy
    assert shares.endswith("mean N/A, std N/A, support N/A")
    assert "mean inf, std inf" in wide
    assert summarize_priors({}) == ""
