"""Start values: order, bounds, room to the bounds, and contrast and offset from data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from heterodyne._errors import ConfigError, DataError
from heterodyne.config.parameter_names import ALL_PARAM_NAMES, PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_registry import DEFAULT_REGISTRY
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core.simulate import Experiment, simulate_pairs
from heterodyne.optimization.cmc.priors import (
    BOUNDARY_INTERIOR_MARGIN,
    build_init_values_dict,
    clamp_params_to_interior,
    clamp_to_interior,
    estimate_contrast_offset_from_data,
    estimate_per_angle_scaling,
    extract_nlsq_values_for_cmc,
    get_param_names_in_order,
    validate_init_values_order,
    validate_initial_value_bounds,
)
from heterodyne.optimization.nlsq.results import NLSQResult


def fit_of(errors=None, fixed=None, **values):
    sizes = None if errors is None else np.array(errors, float)
    numbers = np.array(list(values.values()), float)
    return NLSQResult(
        numbers, tuple(values), sizes, None, True, sigma=0.1, fixed_parameters=fixed or {},
        details={"noise": 0.1},
    )  # fmt: skip


def test_names_are_in_the_order_of_the_table():
    assert get_param_names_in_order() == list(ALL_PARAM_NAMES)
    some = get_param_names_in_order({"v0": np.False_, "D0_ref": True, "offset": False})
    assert some == [n for n in ALL_PARAM_NAMES if n not in ("v0", "offset")]


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"phi_0": False}, "did you mean 'phi0'"),
        ({"v0": "no"}, "true or false"),
        ({"v0": 0}, "v0 has 0"),
    ],
)
def test_flags_that_cannot_be_used_are_refused(flags, text):
    with pytest.raises(ConfigError, match=text):
        get_param_names_in_order(flags)


def test_values_within_bounds_pass():
    values = {n: row.default for n, row in DEFAULT_REGISTRY.items()}
    assert validate_initial_value_bounds(values) == {}
    ends = {"f0": 1.0, "D0_ref": 100.0, "contrast_2": 0.0, "offset_11": 1.5}
    assert validate_initial_value_bounds(ends) == {}


def test_values_outside_bounds_are_told():
    values = {"f0": 1.1, "beta": 0.0, "D0_ref": 99.0, "contrast_2": -0.1, "f1": np.nan, "vo": 1.0}
    found = validate_initial_value_bounds(values)
    assert list(found) == ["f0", "D0_ref", "contrast_2", "f1", "vo"]
    unit = "Å²/s^(1+alpha)"
    assert found["D0_ref"] == [f"D0_ref = 99 {unit} is not within its bounds 100 to 1e+06 {unit}"]
    assert "nan" in found["f1"][0]
    assert "bounds are not known" in found["vo"][0]


def test_bounds_may_be_given():
    space = ParameterSpace.from_config({"f0": {"min": 0.4, "max": 0.6}, "contrast": {"max": 0.5}})
    values = {"f0": 0.7, "contrast_1": 0.6, "beta": 0.0}
    assert list(validate_initial_value_bounds(values, space.bounds)) == ["f0", "contrast_1"]
    rows = {"f0": DEFAULT_REGISTRY["f0"]}
    assert list(validate_initial_value_bounds(values, rows)) == ["contrast_1", "beta"]


def test_start_values_come_from_the_fit_then_from_the_fallback():
    flags = dict.fromkeys(PHYSICS_PARAM_NAMES[:10], False)
    fit = {"f1": 2.5, "contrast": 0.2, "D0_ref": 5.0}
    found = build_init_values_dict(fit, flags)
    expected = {"f1": 2.5, "f2": 0.0, "f3": 0.0, "phi0": 0.0, "contrast": 0.2, "offset": 1.0}
    assert list(found.items()) == list(expected.items())


def test_fallback_is_the_prior_mean_or_the_default(monkeypatch):
    rows = dict(DEFAULT_REGISTRY) | {"f3": replace(DEFAULT_REGISTRY["f3"], prior_mean=0.25)}
    monkeypatch.setattr("heterodyne.optimization.cmc._priors_start.DEFAULT_REGISTRY", rows)
    assert build_init_values_dict()["f3"] == 0.25
    assert build_init_values_dict(fallback="prior_mean")["f3"] == 0.25
    assert build_init_values_dict(fallback="default")["f3"] == 0.0
    assert list(build_init_values_dict()) == list(ALL_PARAM_NAMES)
    with pytest.raises(ConfigError, match="did you mean 'default'"):
        build_init_values_dict(fallback="defaults")


def test_start_values_outside_the_bounds_are_moved_and_told(caplog):
    fit = {"f0": 1.3, "D0_ref": 5.0, "beta": np.inf, "v0": np.nan, "contrast_0": 0.2, "f3": 0.4}
    found = build_init_values_dict(fit)
    assert (found["f0"], found["D0_ref"]) == (1.0, 100.0)
    assert (found["beta"], found["v0"], found["f3"]) == (0.0, 1e3, 0.4)
    told = [r.getMessage() for r in caplog.records]
    assert told == [
        "No start values are taken from contrast_0.",
        "D0_ref = 5 is outside its bounds 100 to 1e+06: 100 is used.",
        "v0 = nan: it starts at 1000.",
        "beta = inf: it starts at 0.",
        "f0 = 1.3 is outside its bounds 0 to 1: 1 is used.",
    ]


def test_order_of_start_values_is_checked():
    values = {"D0_ref": 1.0, "f0": 2.0, "v0": 3.0}
    validate_init_values_order(values, ["D0_ref", "f0", "v0"])
    validate_init_values_order({}, ())


@pytest.mark.parametrize(
    ("names", "texts"),
    [
        (["D0_ref", "v0", "f0"], ["index 1", "'f0' instead of 'v0'", "3 start values for 3"]),
        (["D0_ref", "f0"], ["index 2", "'v0' instead of nothing", "3 start values for 2"]),
        (["D0_ref", "f0", "v0", "f1"], ["index 3", "nothing instead of 'f1'", "['D0_ref', 'f0'"]),
    ],
)
def test_other_order_of_start_values_is_refused(names, texts):
    with pytest.raises(ValueError, match="start values") as caught:
        validate_init_values_order({"D0_ref": 1.0, "f0": 2.0, "v0": 3.0}, names)
    for text in (*texts, str(names), "['D0_ref', 'f0', 'v0']"):
        assert text in str(caught.value)


def test_values_and_errors_of_a_fit_are_plain_numbers(caplog):
    fit = fit_of([1.0, np.inf, 0.1, np.nan], D0_ref=5e3, f2=3.0, f0=np.nan, contrast_1=0.2)
    values, errors = extract_nlsq_values_for_cmc(fit)
    assert values == {"D0_ref": 5e3, "f2": 3.0, "contrast_1": 0.2}
    assert errors == {"D0_ref": 1.0, "f0": 0.1}
    assert all(type(x) is float for x in (*values.values(), *errors.values()))
    assert [r.getMessage() for r in caplog.records] == [
        "The fit has no finite values of f0.",
        "The fit has no finite standard errors of f2, contrast_1.",
    ]
    assert extract_nlsq_values_for_cmc(fit_of(f0=0.3)) == ({"f0": 0.3}, None)


def interior(name, margin):
    row = DEFAULT_REGISTRY[name]
    low, high = row.min_bound, row.max_bound
    if name in ("D0_ref", "D0_sample", "v0"):
        ends = np.log10(low), np.log10(high)
        return tuple(10 ** np.interp([margin, 1 - margin], [0, 1], ends))
    return tuple(np.interp([margin, 1 - margin], [0, 1], [low, high]))


@pytest.mark.parametrize("name", ALL_PARAM_NAMES)
def test_values_at_bounds_move_inward_by_the_margin(name, caplog):
    row = DEFAULT_REGISTRY[name]
    found, moved = clamp_params_to_interior([row.min_bound, row.max_bound], [name, name])
    np.testing.assert_allclose(found, interior(name, 0.05), rtol=1e-12)
    assert moved == [name, name]
    assert len(caplog.records) == 2


def test_margin_is_five_percent_and_can_be_chosen():
    assert BOUNDARY_INTERIOR_MARGIN == 0.05
    found, _ = clamp_params_to_interior([0.0, 1e6], ["f0", "D0_ref"], margin=0.25)
    assert found == pytest.approx([0.25, 1e5])
    found, moved = clamp_params_to_interior([0.0, 1e6], ["f0", "D0_ref"], margin=0.0)
    assert (found.tolist(), moved) == ([0.0, 1e6], [])


def test_values_in_the_interior_stay_in_a_new_array(caplog):
    given = np.array([0.5, 2e4, 0.06, 1.44])
    found, moved = clamp_params_to_interior(given, ["f0", "D0_ref", "contrast_3", "offset_0"])
    assert (found.tolist(), moved) == (given.tolist(), [])
    assert found is not given
    assert not np.shares_memory(found, given)
    assert not caplog.records


@settings(max_examples=50)
@given(
    values=st.lists(st.floats(-2e6, 2e6), min_size=16, max_size=16),
    margin=st.floats(0.0, 0.49),
)
def test_moving_inward_twice_is_moving_once(values, margin):
    once, moved = clamp_params_to_interior(values, ALL_PARAM_NAMES, margin=margin)
    again, none = clamp_params_to_interior(once, ALL_PARAM_NAMES, margin=margin)
    np.testing.assert_array_equal(once, again)
    assert none == []
    for name, value, inside in zip(ALL_PARAM_NAMES, values, once, strict=True):
        low, high = interior(name, margin)
        assert low - 1e-9 * abs(low) <= inside <= high + 1e-9 * abs(high)
        assert (name in moved) == (inside != value)


@pytest.mark.parametrize(
    ("values", "names", "margin", "text"),
    [
        ([0.5], ["f0", "f1"], 0.05, "2 names"),
        ([0.5], ["fx0"], 0.05, "unknown parameter 'fx0'"),
        ([np.nan], ["f0"], 0.05, "f0 = nan"),
        ([0.5], ["f0"], 0.5, "margin"),
        ([0.5], ["f0"], -0.1, "margin"),
        ([0.5], ["f0"], np.nan, "margin"),
    ],
)
def test_what_cannot_be_moved_inward_is_refused(values, names, margin, text):
    with pytest.raises(ConfigError, match=text):
        clamp_params_to_interior(values, names, margin=margin)


def test_fit_in_the_interior_is_returned_itself(caplog):
    fit = fit_of([1.0, 0.1], fixed={"f3": 0.0}, D0_ref=5e3, f0=0.3)
    assert clamp_to_interior(fit) is fit
    assert clamp_to_interior(fit, {"f3": 0.0, "D0_ref": 5e3, "phi0": 1.0}) is fit
    assert not caplog.records


def test_fit_at_a_bound_is_copied_and_moved(caplog):
    fit = fit_of([1.0, 0.1, 0.1], D0_ref=100.0, f0=0.3, contrast_1=0.999)
    found = clamp_to_interior(fit)
    assert found.parameters == pytest.approx([100.0 * 1e4**0.05, 0.3, 0.95])
    assert fit.parameters.tolist() == [100.0, 0.3, 0.999]
    assert found.uncertainties is fit.uncertainties
    assert found.sigma == fit.sigma
    assert found.details == {
        "noise": 0.1,
        "before_clamping": {"D0_ref": 100.0, "contrast_1": 0.999},
    }
    assert "D0_ref = 100 is not well within its bounds: it starts at 158.489." in caplog.text
    assert clamp_to_interior(fit, margin=0.0) is fit
    assert clamp_to_interior(fit, margin=0.25).get_param("f0") == 0.3


def test_held_parameters_take_the_value_they_are_held_at(caplog):
    fit = fit_of(fixed={"phi0": 2.0, "beta": 1.0}, f3=0.4, f0=0.3, contrast_0=0.2, contrast_1=0.3)
    found = clamp_to_interior(fit, {"f3": 0.0, "phi0": -1.0, "contrast": 0.25})
    # A held value stays at a bound: 0 is what the model has.
    assert found.as_dict() == {
        "phi0": -1.0, "beta": 1.0, "f3": 0.0, "f0": 0.3, "contrast_0": 0.25, "contrast_1": 0.25,
    }  # fmt: skip
    assert found.details["before_clamping"] == {
        "phi0": 2.0, "f3": 0.4, "contrast_0": 0.2, "contrast_1": 0.3,
    }  # fmt: skip
    assert "The fit has f3 = 0.4, which is held at 0 now." in caplog.text
    one = clamp_to_interior(fit, {"contrast_1": 0.5})
    assert (one.get_param("contrast_0"), one.get_param("contrast_1")) == (0.2, 0.5)


def test_fit_without_a_finite_value_needs_one_that_is_held():
    fit = fit_of(f0=np.nan, f3=0.3)
    with pytest.raises(ConfigError, match="f0 = nan"):
        clamp_to_interior(fit)
    assert clamp_to_interior(fit, {"f0": 0.0}).parameters.tolist() == [0.0, 0.3]


@pytest.mark.parametrize(
    ("overrides", "text"), [({"f00": 1.0}, "unknown parameter"), ({"f0": np.inf}, "f0 = inf")]
)
def test_held_values_that_cannot_be_used_are_refused(overrides, text):
    with pytest.raises(ConfigError, match=text):
        clamp_to_interior(fit_of(f0=0.3), overrides)


def test_scaling_of_angles_is_read_off_their_decays():
    lag = np.arange(200.0)
    data = {0: 0.9 + 0.3 * np.exp(-lag / 10), "45": {"g2": 0.8 + 0.1 * np.exp(-lag / 5)}}
    found = estimate_per_angle_scaling(data)
    assert found[0] == pytest.approx((0.3, 0.9), abs=1e-6)
    assert found["45"] == pytest.approx((0.1, 0.8), abs=1e-6)
    assert list(estimate_per_angle_scaling(data, ["45"])) == ["45"]


def test_offset_is_the_mean_of_the_last_tenth():
    g2 = np.concatenate([np.full(27, 0.7), [0.5, 0.6]])
    assert estimate_per_angle_scaling({0: g2})[0] == pytest.approx((0.2, 0.55))
    assert estimate_per_angle_scaling({0: [0.9, 0.4]})[0] == pytest.approx((0.5, 0.4))


def test_matrix_is_averaged_over_the_pairs_of_a_lag():
    rng = np.random.default_rng(1)
    n = 40
    lag = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    noise = np.triu(rng.normal(scale=0.1, size=(n, n)), 1)
    c2 = 0.7 + 0.2 * np.exp(-lag / 5.0) + noise + noise.T
    np.fill_diagonal(c2, 50.0)
    c2[3, :] = c2[:, 3] = np.nan
    g2 = [np.nanmean(np.diagonal(c2, k)) for k in range(1, n)]
    expected = estimate_per_angle_scaling({0: g2})[0]
    assert estimate_per_angle_scaling({0: c2})[0] == pytest.approx(expected)
    assert estimate_per_angle_scaling({0: {"c2": c2}})[0] == pytest.approx(expected)


def test_offset_above_one_is_moved_and_told(caplog):
    found = estimate_per_angle_scaling({"a": np.linspace(1.5, 1.02, 30)})
    assert found["a"][1] == 1.0
    assert "offset of 'a' = " in caplog.text
    assert "0 to 1: 1 is used" in caplog.text


BAD = {
    "text": "no numbers",
    "none": None,
    "number": 1.0,
    "short": [1.0],
    "rectangle": np.ones((3, 4)),
    "cube": np.ones((3, 3, 3)),
    "nothing": np.full(5, np.nan),
    "empty": {"t": [1.0, 2.0]},
    "ragged": [[1.0], [1.0, 2.0]],
}


def test_angles_that_cannot_be_read_are_left_out_and_told(caplog):
    data = {"good": [1.2, 1.0, 0.9], "nan": [1.2, np.nan, 0.9]} | BAD
    found = estimate_per_angle_scaling(data, [*data, "absent"])
    assert list(found) == ["good", "nan"]
    assert found["nan"] == pytest.approx((0.3, 0.9))
    told = [r.getMessage() for r in caplog.records]
    assert len(told) == len(BAD) + 1
    for text, key in zip(told, [*BAD, "absent"], strict=True):
        assert text.startswith(f"No contrast and offset for the angle {key!r}: ")


N = 120
T = 0.1 * np.arange(1.0, N + 1.0)
CONTRAST, OFFSET = 0.3, 1.02


@pytest.fixture(scope="module")
def measured():
    """c2 that decays over 23 frames, sigma 0.002."""
    values = {"D0_ref": 1.5e4, "D0_sample": 1.5e4, "v0": 1e-3, "f0": 0.5}
    parameters = np.array([values.get(n, 0.0) for n in PHYSICS_PARAM_NAMES])
    experiment = Experiment(parameters, N, 0.1, 0.0054, [0.0])
    return simulate_pairs(experiment, CONTRAST, OFFSET, 0.002, seed=4)[0]


def test_contrast_and_offset_of_simulated_data_are_recovered(measured):
    contrast, offset = estimate_contrast_offset_from_data(measured, T, T)
    assert offset == pytest.approx(OFFSET, abs=0.005)
    # Short lags hold some decay already.
    assert contrast == pytest.approx(CONTRAST, rel=0.12)


def test_wrong_pairs_hardly_move_contrast_and_offset(measured):
    rng = np.random.default_rng(2)
    spoiled = measured.copy()
    spoiled[rng.uniform(size=spoiled.shape) < 0.02] = 1e4
    spoiled[rng.uniform(size=spoiled.shape) < 0.02] = -1e4
    spoiled[rng.uniform(size=spoiled.shape) < 0.05] = np.nan
    np.fill_diagonal(spoiled, 1e6)
    expected = estimate_contrast_offset_from_data(measured, T, T)
    assert estimate_contrast_offset_from_data(spoiled, T, T) == pytest.approx(expected, abs=0.01)


def test_pairs_may_come_as_a_list_or_with_full_times(measured):
    expected = estimate_contrast_offset_from_data(measured, T, T)
    t1, t2 = np.meshgrid(T, T, indexing="ij")
    assert estimate_contrast_offset_from_data(measured, t1, t2) == expected
    i, j = np.triu_indices(N, 1)
    assert estimate_contrast_offset_from_data(measured[i, j], T[i], T[j]) == pytest.approx(
        expected, abs=1e-5
    )
    assert estimate_contrast_offset_from_data(measured[:, :100], T, T[:100]) == pytest.approx(
        expected, abs=0.01
    )


def stepped(sigma, n=400):
    """c2 with G = 1 below a third of the window and 0 beyond, and its times."""
    t = np.arange(float(n))
    g = np.abs(np.subtract.outer(t, t)) < n / 3
    return OFFSET + CONTRAST * g + np.random.default_rng(3).normal(scale=sigma, size=(n, n)), t


def test_noise_moves_the_estimates_as_told():
    c2, t = stepped(0.02)
    contrast, offset = estimate_contrast_offset_from_data(c2, t, t)
    z = stats.norm.ppf(0.9)
    assert (offset - OFFSET) / 0.02 == pytest.approx(-z, abs=0.05)
    assert (contrast - CONTRAST) / 0.02 == pytest.approx(2 * z, abs=0.1)
    middle = {"value_quantile_low": 0.499, "value_quantile_high": 0.501}
    found = estimate_contrast_offset_from_data(c2, t, t, **middle)
    assert found == pytest.approx((CONTRAST, OFFSET), abs=0.001)


# Of the pairs, 5/9 have G = 1: all at lags below that quantile.
@pytest.mark.parametrize(
    ("settings_", "levels"),
    [
        ({}, (1, 0)),
        ({"lag_floor_quantile": 0.3}, (1, 0)),
        ({"value_quantile_low": 0.7}, (1, 0)),
        ({"lag_floor_quantile": 0.3, "value_quantile_low": 0.7}, (1, 1)),
        ({"lag_ceiling_quantile": 0.7}, (1, 0)),
        ({"value_quantile_high": 0.15}, (1, 0)),
        ({"lag_ceiling_quantile": 0.7, "value_quantile_high": 0.15}, (0, 0)),
    ],
)
def test_quantiles_choose_lags_and_values(settings_, levels):
    c2, t = stepped(0.0)
    top, floor = (OFFSET + CONTRAST * level for level in levels)
    found = estimate_contrast_offset_from_data(c2, t, t, **settings_)
    assert found == pytest.approx((top - floor, floor))


def test_estimates_are_moved_into_their_bounds_and_told(caplog):
    c2, t = stepped(0.0)
    assert not caplog.records
    found = estimate_contrast_offset_from_data(
        c2, t, t, contrast_bounds=(0.0, 0.2), offset_bounds=(0.5, 1.01)
    )
    assert found == (0.2, 1.01)
    assert [r.getMessage().split(" is outside")[0] for r in caplog.records] == [
        "offset = 1.02",
        "contrast = 0.31",
    ]
    rising = estimate_contrast_offset_from_data(2.5 - c2, t, t)
    assert rising[0] == 0.0


@pytest.mark.parametrize(
    ("settings_", "text"),
    [
        ({"lag_floor_quantile": 1.2}, "lag_floor_quantile"),
        ({"lag_ceiling_quantile": 0.9}, "not below lag_floor_quantile"),
        ({"value_quantile_low": np.nan}, "value_quantile_low"),
        ({"value_quantile_high": 0.05}, "not below value_quantile_high"),
        ({"contrast_bounds": (1.0, 0.0)}, "contrast_bounds"),
        ({"offset_bounds": (0.5, np.nan)}, "offset_bounds"),
    ],
)
def test_settings_of_the_estimate_are_checked(settings_, text):
    c2, t = stepped(0.0, 20)
    with pytest.raises(ConfigError, match=text):
        estimate_contrast_offset_from_data(c2, t, t, **settings_)


@pytest.mark.parametrize(
    ("c2", "t1", "t2", "text"),
    [
        (np.ones((3, 3)), np.arange(3.0), np.arange(4.0), r"shapes \(3, 3\), \(3,\), \(4,\)"),
        (np.ones((2, 3, 3)), np.arange(3.0), np.arange(3.0), "equal shapes"),
        (np.ones(4), np.arange(3.0), np.arange(3.0), "equal shapes"),
        (np.full((3, 3), np.nan), np.arange(3.0), np.arange(3.0), "0 finite pairs"),
        (np.ones((2, 2)), np.arange(2.0), np.arange(2.0), "two different lags"),
    ],
)
def test_pairs_that_tell_nothing_are_refused(c2, t1, t2, text):
    with pytest.raises(DataError, match=text):
        estimate_contrast_offset_from_data(c2, t1, t2)
