"""Reference-time coordinates against closed forms and simulated errors."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heterodyne._errors import ConfigError
from heterodyne.core._jax import jax, jnp
from heterodyne.core.rates import transport_coefficient
from heterodyne.optimization.cmc.reparameterization import (
    D_OFFSET_RATIO_MIN,
    ReparamConfig,
    compute_t_ref,
    d_offset_to_ratio,
    heterodyne_offset_ratios_from_physics,
    heterodyne_physics_offsets_from_ratios,
    ratio_to_d_offset,
    reparam_to_physics_jax,
    transform_nlsq_to_reparam_space,
    transform_to_physics_space,
    transform_to_sampling_space,
)

T_REF = 3.0
PHYSICS = {
    "D0_ref": 2e4, "alpha_ref": -0.4, "D_offset_ref": 500.0,
    "D0_sample": 5e3, "alpha_sample": 0.7, "D_offset_sample": -2e3,
    "v0": 300.0, "beta": 0.3, "f0": 0.4,
}  # fmt: skip
PAIRS = {"D0_ref": "alpha_ref", "D0_sample": "alpha_sample", "v0": "beta"}
LOG_NAMES = {
    "D0_ref": "log_D0_ref_at_tref",
    "D0_sample": "log_D0_sample_at_tref",
    "v0": "log_v0_at_tref",
}
FLAGS = {"D0_ref": "enable_d_ref", "D0_sample": "enable_d_sample", "v0": "enable_v_ref"}

positive = st.floats(1e-6, 1e6)
exponents = st.floats(-5.0, 5.0)
times = st.floats(1e-3, 1e3)


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


# reference time


def test_reference_time_is_the_geometric_mean(caplog):
    assert compute_t_ref(0.1, 100.0) == pytest.approx(math.sqrt(10.0), rel=1e-15)
    assert compute_t_ref(2.0, 2.0, fallback_value=7.0) == 2.0
    assert warnings_of(caplog) == []


BAD_TIMES = [
    (0.0, 1.0), (-0.1, 1.0), (0.1, 0.0), (2.0, 1.0),
    (math.nan, 1.0), (0.1, math.nan), (0.1, math.inf),
]  # fmt: skip


@pytest.mark.parametrize(("dt", "t_max"), BAD_TIMES)
def test_times_that_cannot_be_used(caplog, dt, t_max):
    with pytest.raises(ConfigError, match="0 < dt <= t_max"):
        compute_t_ref(dt, t_max)
    assert compute_t_ref(dt, t_max, 5.0) == 5.0
    assert "5 s is used" in warnings_of(caplog)[0]


@pytest.mark.parametrize("fallback", [0.0, -1.0, math.nan])
def test_fallback_must_be_a_time(fallback):
    with pytest.raises(ConfigError, match="fallback_value"):
        compute_t_ref(0.0, 1.0, fallback)


# configuration


def test_all_pairs_are_on_by_default():
    config = ReparamConfig()
    assert config.pairs == PAIRS
    assert config.t_ref == 1.0


@pytest.mark.parametrize("off", PAIRS)
def test_each_switch_rules_its_pair(off):
    config = ReparamConfig(**{FLAGS[off]: False})
    for prefactor, exponent in PAIRS.items():
        assert config.is_reparameterized(prefactor) is (prefactor != off)
        assert config.is_reparameterized(exponent) is (prefactor != off)


@pytest.mark.parametrize("name", ["f0", "D_offset_ref", "phi0", "sigma", "log_v0_at_tref"])
def test_other_parameters_do_not_take_part(name):
    assert not ReparamConfig().is_reparameterized(name)


def test_names_of_logarithms():
    config = ReparamConfig(enable_v_ref=False)
    assert {name: config.get_reparam_name(name) for name in PAIRS} == LOG_NAMES


@pytest.mark.parametrize("name", ["alpha_ref", "f0", "D0ref"])
def test_no_name_for_what_is_no_prefactor(name):
    with pytest.raises(ConfigError, match="D0_ref, D0_sample, v0"):
        ReparamConfig().get_reparam_name(name)


@pytest.mark.parametrize("t_ref", [0.0, -1.0, math.nan, math.inf])
def test_reference_time_must_be_positive(t_ref):
    for attempt in (
        lambda: ReparamConfig(t_ref=t_ref),
        lambda: transform_nlsq_to_reparam_space(PHYSICS, {}, t_ref),
        lambda: reparam_to_physics_jax(1.0, 0.0, t_ref),
        lambda: heterodyne_offset_ratios_from_physics(PHYSICS, t_ref),
        lambda: heterodyne_physics_offsets_from_ratios({}, PHYSICS, t_ref),
    ):
        with pytest.raises(ConfigError, match=r"t_ref: .*finite, > 0 s"):
            attempt()


# physics to sampling space and back


def test_logarithm_of_the_power_law_at_the_reference_time():
    given_values = dict(PHYSICS)
    made = transform_to_sampling_space(given_values, ReparamConfig(t_ref=T_REF))
    assert list(made) == [LOG_NAMES.get(name, name) for name in PHYSICS]
    for prefactor, exponent in PAIRS.items():
        at_t_ref = PHYSICS[prefactor] * T_REF ** PHYSICS[exponent]
        assert math.exp(made[LOG_NAMES[prefactor]]) == pytest.approx(at_t_ref, rel=1e-13)
    for name in PHYSICS.keys() - PAIRS.keys():
        assert made[name] == PHYSICS[name]
    assert given_values == PHYSICS


@pytest.mark.parametrize("off", PAIRS)
def test_pair_that_is_off_passes_through(off):
    config = ReparamConfig(**{FLAGS[off]: False}, t_ref=T_REF)
    made = transform_to_sampling_space(PHYSICS, config)
    assert made[off] == PHYSICS[off]
    assert LOG_NAMES[off] not in made
    assert sum(name in made for name in LOG_NAMES.values()) == 2


def test_exponent_alone_passes_through():
    assert transform_to_sampling_space({"alpha_ref": 0.2}, ReparamConfig()) == {"alpha_ref": 0.2}


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_prefactor_without_a_logarithm_is_refused_unless_its_pair_is_off(value):
    params = PHYSICS | {"v0": value}
    with pytest.raises(ConfigError, match=r"v0: .*finite, > 0.*Switch the pair off"):
        transform_to_sampling_space(params, ReparamConfig())
    made = transform_to_sampling_space(params, ReparamConfig(enable_v_ref=False))
    np.testing.assert_equal(made["v0"], value)


def test_prefactor_without_its_exponent_is_refused():
    with pytest.raises(ConfigError, match=r"beta: .*missing.*log v0"):
        transform_to_sampling_space({"v0": 300.0}, ReparamConfig())
    with pytest.raises(ConfigError, match=r"beta: .*missing.*v0"):
        transform_to_physics_space({"log_v0_at_tref": np.zeros(3)}, ReparamConfig())


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_exponent_must_be_finite(value):
    with pytest.raises(ConfigError, match=r"beta: .*a finite number"):
        transform_to_sampling_space({"v0": 300.0, "beta": value}, ReparamConfig())


def test_prefactor_in_both_coordinates_is_refused():
    both = PHYSICS | {"log_v0_at_tref": 1.0}
    with pytest.raises(ConfigError, match="log_v0_at_tref is given twice"):
        transform_to_sampling_space(both, ReparamConfig())
    with pytest.raises(ConfigError, match="v0 is given twice"):
        transform_to_physics_space(both, ReparamConfig())


@given(st.tuples(positive, positive, positive), st.tuples(exponents, exponents, exponents), times)
@settings(max_examples=60)
def test_parameters_come_back(prefactors, powers, t_ref):
    config = ReparamConfig(t_ref=t_ref)
    values = dict(zip(PAIRS, prefactors, strict=True))
    params = values | dict(zip(PAIRS.values(), powers, strict=True))
    back = transform_to_physics_space(transform_to_sampling_space(params, config), config)
    assert {name: float(x) for name, x in back.items()} == pytest.approx(params, rel=1e-12)


def test_draws_are_transformed_elementwise():
    rng = np.random.default_rng(0)
    draws = {name: rng.normal(size=(2, 5)) for name in (*LOG_NAMES.values(), *PAIRS.values())}
    draws |= {"sigma": rng.normal(size=10)}
    before = {name: x.copy() for name, x in draws.items()}
    made = transform_to_physics_space(draws, ReparamConfig(t_ref=T_REF, enable_d_sample=False))
    for prefactor in ("D0_ref", "v0"):
        expected = np.exp(draws[LOG_NAMES[prefactor]]) * T_REF ** -draws[PAIRS[prefactor]]
        np.testing.assert_allclose(made[prefactor], expected, rtol=1e-13)
        assert isinstance(made[prefactor], np.ndarray)
        assert LOG_NAMES[prefactor] not in made
    assert "D0_sample" not in made
    for name in ("log_D0_sample_at_tref", "alpha_ref", "sigma"):
        np.testing.assert_array_equal(made[name], draws[name])
    assert draws.keys() == before.keys()
    assert all(np.array_equal(draws[name], before[name]) for name in before)


def test_fixed_exponent_may_be_one_number_and_draws_jax_arrays():
    draws = {"log_v0_at_tref": jnp.array([1.0, 2.0]), "beta": 0.5}
    made = transform_to_physics_space(draws, ReparamConfig(t_ref=4.0))
    np.testing.assert_allclose(made["v0"], np.exp([1.0, 2.0]) / 2.0, rtol=1e-14)


def test_shapes_that_do_not_match_are_refused():
    draws = {"log_v0_at_tref": np.zeros(3), "beta": np.zeros((3, 1))}
    with pytest.raises(ConfigError, match=r"beta: \(3, 1\) is not the shape"):
        transform_to_physics_space(draws, ReparamConfig())


@pytest.mark.parametrize("kind", [float, np.asarray, jnp.asarray])
def test_back_transform_takes_numbers_and_arrays(kind):
    seen = reparam_to_physics_jax(kind(2.0), kind(0.5), 9.0)
    assert float(seen) == pytest.approx(math.exp(2.0) / 3.0, rel=1e-14)


def test_back_transform_can_be_traced_and_differentiated():
    value, slopes = jax.jit(jax.value_and_grad(reparam_to_physics_jax, (0, 1, 2)))(2.0, 0.5, 9.0)
    a0 = math.exp(2.0) / 3.0
    assert float(value) == pytest.approx(a0, rel=1e-14)
    np.testing.assert_allclose(slopes, [a0, -a0 * math.log(9.0), -a0 * 0.5 / 9.0], rtol=1e-12)


# standard errors

ERRORS = {
    "D0_ref": 400.0, "alpha_ref": 0.02, "D0_sample": 50.0, "alpha_sample": 0.01,
    "v0": 6.0, "beta": 0.03, "D_offset_ref": 20.0,
}  # fmt: skip


def test_errors_follow_the_delta_method_and_agree_with_simulated_ones():
    values, errors = transform_nlsq_to_reparam_space(PHYSICS, ERRORS, T_REF)
    assert values == transform_to_sampling_space(PHYSICS, ReparamConfig(t_ref=T_REF))
    assert list(errors) == [LOG_NAMES.get(name, name) for name in ERRORS]
    rng = np.random.default_rng(1)
    for prefactor, exponent in PAIRS.items():
        a0, alpha = (rng.normal(PHYSICS[n], ERRORS[n], 100_000) for n in (prefactor, exponent))
        simulated = np.std(np.log(a0 * T_REF**alpha))
        # Sampling error 0.2 %; the next order adds (s_A0 / A0)**2 / 2 or less, 0.02 %.
        assert errors[LOG_NAMES[prefactor]] == pytest.approx(simulated, rel=0.012)
    assert errors["alpha_ref"] == ERRORS["alpha_ref"]
    assert errors["D_offset_ref"] == ERRORS["D_offset_ref"]


def test_errors_that_cancel_at_the_reference_time_are_overestimated():
    # A fit that knows A(T_REF) to 1 %, and alpha to 0.1.
    rng = np.random.default_rng(2)
    alpha = rng.normal(0.3, 0.1, 50_000)
    a0 = np.exp(rng.normal(math.log(300.0), 0.01, alpha.size) - (alpha - 0.3) * math.log(T_REF))
    values = {"v0": float(a0.mean()), "beta": float(alpha.mean())}
    errors = {"v0": float(a0.std()), "beta": float(alpha.std())}
    made = transform_nlsq_to_reparam_space(values, errors, T_REF)[1]
    assert made["log_v0_at_tref"] > 10 * np.std(np.log(a0 * T_REF**alpha))


def test_inputs_stay_as_they_are():
    values, errors = dict(PHYSICS), dict(ERRORS)
    transform_nlsq_to_reparam_space(values, errors, T_REF)
    assert values == PHYSICS
    assert errors == ERRORS


def test_pair_that_is_off_keeps_value_and_error():
    config = ReparamConfig(enable_d_ref=False, t_ref=T_REF)
    values, errors = transform_nlsq_to_reparam_space(PHYSICS, ERRORS, T_REF, config)
    assert values["D0_ref"] == PHYSICS["D0_ref"]
    assert errors["D0_ref"] == ERRORS["D0_ref"]
    assert "log_D0_ref_at_tref" not in values.keys() | errors.keys()
    assert "log_v0_at_tref" in values.keys() & errors.keys()


@pytest.mark.parametrize("missing", ["v0", "beta"])
def test_missing_error_stays_missing(caplog, missing):
    given_errors = {name: x for name, x in ERRORS.items() if name != missing}
    values, errors = transform_nlsq_to_reparam_space(PHYSICS, given_errors, T_REF)
    assert "log_v0_at_tref" in values
    assert not {"log_v0_at_tref", "v0"} & errors.keys()
    assert warnings_of(caplog) == ["no standard error of log_v0_at_tref"]


def test_no_errors_at_all(caplog):
    assert transform_nlsq_to_reparam_space(PHYSICS, None, T_REF)[1] == {}
    assert "log_D0_ref_at_tref, log_D0_sample_at_tref, log_v0_at_tref" in warnings_of(caplog)[0]


def test_errors_that_are_not_finite():
    open_exponent = {"v0": 6.0, "beta": math.inf}
    values = {"v0": 300.0, "beta": 0.0}
    at_two = transform_nlsq_to_reparam_space(values, open_exponent, 2.0)[1]
    at_one = transform_nlsq_to_reparam_space(values, open_exponent, 1.0)[1]
    assert at_two["log_v0_at_tref"] == math.inf
    assert at_one["log_v0_at_tref"] == pytest.approx(0.02)  # log(1) = 0: A(1 s) is A0
    unknown = transform_nlsq_to_reparam_space(values, {"v0": math.nan, "beta": 0.1}, 2.0)[1]
    assert math.isnan(unknown["log_v0_at_tref"])


@pytest.mark.parametrize("name", ["v0", "beta", "f0"])
def test_negative_error_is_refused(name):
    with pytest.raises(ConfigError, match=f"error of {name}"):
        transform_nlsq_to_reparam_space(PHYSICS, ERRORS | {name: -0.1}, T_REF)


def test_error_without_a_value_is_refused():
    with pytest.raises(ConfigError, match="v0 is missing"):
        transform_nlsq_to_reparam_space({"beta": 0.1}, {"v0": 1.0, "beta": 0.1}, T_REF)


def test_reference_time_of_the_argument_wins(caplog):
    values, _ = transform_nlsq_to_reparam_space(PHYSICS, ERRORS, T_REF, ReparamConfig(t_ref=8.0))
    assert values == transform_to_sampling_space(PHYSICS, ReparamConfig(t_ref=T_REF))
    assert "t_ref = 3 s replaces 8 s" in warnings_of(caplog)[0]


# ratios of offsets


def test_ratio_is_offset_over_power_law():
    assert d_offset_to_ratio(-30.0, 120.0) == -0.25
    assert ratio_to_d_offset(-0.25, 120.0) == -30.0


@pytest.mark.parametrize("d_ref", [0.0, -5.0])
@pytest.mark.parametrize("function", [d_offset_to_ratio, ratio_to_d_offset])
def test_channel_without_power_law_has_ratio_zero_and_says_so(caplog, function, d_ref):
    assert function(7.0, d_ref) == 0.0
    assert "0 is used" in warnings_of(caplog)[0]


def test_unknown_power_law_has_an_unknown_ratio():
    assert math.isnan(d_offset_to_ratio(7.0, math.nan))
    assert math.isnan(ratio_to_d_offset(7.0, math.nan))


def test_ratios_of_both_channels():
    given_values = dict(PHYSICS)
    ratios = heterodyne_offset_ratios_from_physics(given_values, T_REF)
    assert ratios == pytest.approx(
        {
            "D_offset_ref_ratio": 500.0 / (2e4 * 3.0**-0.4),
            "D_offset_sample_ratio": -2e3 / (5e3 * 3.0**0.7),
        }
    )
    assert given_values == PHYSICS


def test_smallest_ratio_leaves_a_hundredth_of_the_power_law():
    ratios = {"D_offset_sample_ratio": D_OFFSET_RATIO_MIN}
    offset = heterodyne_physics_offsets_from_ratios(ratios, PHYSICS, T_REF)["D_offset_sample"]
    d0, alpha = PHYSICS["D0_sample"], PHYSICS["alpha_sample"]
    j = transport_coefficient(jnp.array([T_REF]), *map(jnp.asarray, (d0, alpha, offset)))
    assert float(j[0]) == pytest.approx(0.01 * d0 * T_REF**alpha, rel=1e-12)


def test_ratio_below_the_smallest_is_kept_and_reported(caplog):
    params = PHYSICS | {"D_offset_sample": -1e5}
    ratios = heterodyne_offset_ratios_from_physics(params, T_REF)
    assert ratios["D_offset_sample_ratio"] == pytest.approx(-1e5 / (5e3 * 3.0**0.7))
    assert ["D_offset_sample_ratio" in m for m in warnings_of(caplog)] == [True]


@given(st.tuples(positive, positive), st.tuples(exponents, exponents), times)
@settings(max_examples=100)
def test_offsets_come_back(prefactors, powers, t_ref):
    names = ("D0_ref", "D0_sample")
    params = PHYSICS | dict(zip(names, prefactors, strict=True))
    params |= dict(zip(("alpha_ref", "alpha_sample"), powers, strict=True))
    ratios = heterodyne_offset_ratios_from_physics(params, t_ref)
    back = heterodyne_physics_offsets_from_ratios(ratios, params, t_ref)
    assert back == pytest.approx({n: params[n] for n in ("D_offset_ref", "D_offset_sample")})


def test_degenerate_channel_leaves_the_other_one_alone():
    ratios = heterodyne_offset_ratios_from_physics(PHYSICS | {"D0_ref": 0.0}, T_REF)
    assert ratios["D_offset_ref_ratio"] == 0.0
    assert ratios["D_offset_sample_ratio"] != 0.0


def test_one_ratio_gives_one_offset():
    made = heterodyne_physics_offsets_from_ratios(
        {"D_offset_ref_ratio": 0.5}, {"D0_ref": 10.0, "alpha_ref": 2.0}, T_REF
    )
    assert made == {"D_offset_ref": pytest.approx(45.0)}


def test_missing_parameters_and_unknown_ratios_are_refused():
    without = {name: x for name, x in PHYSICS.items() if name != "alpha_sample"}
    with pytest.raises(ConfigError, match="alpha_sample is missing"):
        heterodyne_offset_ratios_from_physics(without, T_REF)
    with pytest.raises(ConfigError, match="alpha_sample is missing"):
        heterodyne_physics_offsets_from_ratios({"D_offset_sample_ratio": 0.1}, without, T_REF)
    with pytest.raises(ConfigError, match=r"D_offset_ref\b.*did you mean"):
        heterodyne_physics_offsets_from_ratios({"D_offset_ref": 0.1}, PHYSICS, T_REF)
