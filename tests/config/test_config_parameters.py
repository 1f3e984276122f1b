import math

import numpy as np
import pytest

from heterodyne._errors import ConfigError
from heterodyne.config.parameter_names import (
    ALL_PARAM_NAMES,
    PARAM_GROUPS,
    PHYSICS_PARAM_NAMES,
    SCALING_PARAM_NAMES,
)
from heterodyne.config.parameter_registry import (
    DEFAULT_REGISTRY,
    ParameterInfo,
    ParameterRegistry,
)
from heterodyne.config.parameter_space import ParameterSpace, PriorKind

TABLE = [
    # name, default, min, max, prior mean, prior std, log-space, unit, group
    ("D0_ref", 1e4, 100, 1e6, 1e4, 1e4, True, "Å²/s^(1+alpha)", "reference"),
    ("alpha_ref", 0, -5, 5, 0, 1, False, "", "reference"),
    ("D_offset_ref", 0, -1e5, 1e5, 0, 1e3, False, "Å²/s", "reference"),
    ("D0_sample", 1e4, 100, 1e6, 1e4, 1e4, True, "Å²/s^(1+alpha)", "sample"),
    ("alpha_sample", 0, -5, 5, 0, 1, False, "", "sample"),
    ("D_offset_sample", 0, -1e5, 1e5, 0, 1e3, False, "Å²/s", "sample"),
    ("v0", 1e3, 1e-6, 1e4, 1e3, 1e3, True, "Å/s^(1+beta)", "velocity"),
    ("beta", 0, -2, 2, 0, 1, False, "", "velocity"),
    ("v_offset", 0, -100, 100, 0, 25, False, "Å/s", "velocity"),
    ("f0", 0.5, 0, 1, 0.5, 0.25, False, "", "fraction"),
    ("f1", 0, -10, 10, 0, 5, False, "1/s", "fraction"),
    ("f2", 0, -1e4, 1e4, 0, 1e3, False, "s", "fraction"),
    ("f3", 0, 0, 1, 0, 0.5, False, "", "fraction"),
    ("phi0", 0, -10, 10, 0, 5, False, "deg", "angle"),
    ("contrast", 0.5, 0, 1, 0.5, 0.25, False, "", "scaling"),
    ("offset", 1.0, 0.5, 1.5, 1.0, 0.25, False, "", "scaling"),
]


def test_table_has_the_numbers_of_the_model():
    rows = [
        (
            row.name,
            row.default,
            row.min_bound,
            row.max_bound,
            row.prior_mean,
            row.prior_std,
            row.log_space,
            row.unit,
            row.group,
        )
        for row in DEFAULT_REGISTRY.values()
    ]
    assert rows == TABLE


def test_names_and_flags_follow_the_table():
    assert tuple(row[0] for row in TABLE) == ALL_PARAM_NAMES
    assert ALL_PARAM_NAMES[:14] == PHYSICS_PARAM_NAMES
    assert SCALING_PARAM_NAMES == ("contrast", "offset")
    assert PARAM_GROUPS["fraction"] == ("f0", "f1", "f2", "f3")
    flow = {name for name, row in DEFAULT_REGISTRY.items() if row.is_flow}
    assert flow == {"v0", "beta", "v_offset", "phi0"}
    assert all(row.vary_default for row in DEFAULT_REGISTRY.values())
    assert all(row.description for row in DEFAULT_REGISTRY.values())


def test_scale_of_log_prior():
    assert DEFAULT_REGISTRY["D0_ref"].log_prior_scale == pytest.approx(math.log(2))
    assert ParameterSpace()["D0_ref"].prior.scale == pytest.approx(math.log(2))


def test_registry_names_what_it_has():
    with pytest.raises(KeyError, match=r"no parameter 'D1'.*D0_ref"):
        DEFAULT_REGISTRY["D1"]
    row = ParameterInfo("a", 0, -1, 1, "", "", "g", 0, 1)
    with pytest.raises(ConfigError, match="twice"):
        ParameterRegistry((row, row))


def test_settings_replace_the_table():
    space = ParameterSpace.from_config(
        {
            "reference": {"D0_ref": {"value": 500, "vary": False}},
            "velocity": {"v0": {"max": 200}},
            "f0": 0.25,
            "sample": None,
        }
    )
    assert space.values["D0_ref"] == 500
    assert space.fixed_names == ["D0_ref"]
    assert space.bounds["v0"] == (1e-6, 200)
    assert space.values["v0"] == 200, "the default start value moves to the new bound"
    assert space.values["f0"] == 0.25
    assert space.varying_names == [name for name in ALL_PARAM_NAMES if name != "D0_ref"]


def test_section_may_stand_below_its_name():
    nested = {"parameters": {"angle": {"phi0": {"value": np.float32(2.5)}}}}
    assert ParameterSpace.from_config(nested).values["phi0"] == 2.5


def test_prior_keeps_what_is_absent():
    setting = {"prior": {"std": 3}}
    prior = ParameterSpace.from_config({"alpha_ref": setting})["alpha_ref"].prior
    assert (prior.kind, prior.mean, prior.std) == (PriorKind.NORMAL, 0, 3)


REFUSED = [
    ({"reference": {"D0_reff": {}}}, r"parameters.reference: .*did you mean 'D0_ref'"),
    ({"refrence": {}}, r"did you mean 'reference'"),
    ({"reference": 3}, r"parameters.reference: the group is 3"),
    ({"f0": {"valu": 1}}, r"parameters.f0: .*did you mean 'value'"),
    ({"f0": {"value": 1.5}}, r"f0 = 1.5 lies outside.*0 to 1"),
    ({"f0": {"value": math.nan}}, r"parameters.f0.value: nan is not finite"),
    ({"f0": {"value": "0.1"}}, r"'0.1' is not a number"),
    ({"f0": {"value": True}}, r"True is not a number"),
    ({"f0": {"vary": 1}}, r"parameters.f0.vary: vary is 1.*true or false"),
    ({"f0": {"min": 1, "max": 0}}, r"min 1 is not below max 0"),
    ({"v0": {"min": 0}}, r"parameters.v0.min: min 0 Å/s\^\(1\+beta\).*stay positive"),
    ({"f0": {"prior": 3}}, r"a prior is 3"),
    ({"f0": {"prior": "gamma"}}, r"parameters.f0.prior.type: unknown prior 'gamma'"),
    ({"f0": {"prior": {"std": 0}}}, r"prior width 0"),
    ({"f0": {"prior": {"sd": 1}}}, r"did you mean 'std'"),
    ({"beta": {"prior": {"type": "lognormal"}}}, r"median 0"),
    (
        {"f0": {"prior": {"type": "lognormal"}}},
        r"parameters.f0.prior.type: a log-normal prior of f0 with min 0.*raise min",
    ),
    ({"f0": 0.1, "fraction": {"f0": 0.2}}, r"parameters.fraction.f0: f0 is set twice"),
]


@pytest.mark.parametrize(("config", "message"), REFUSED, ids=str)
def test_refusals_say_where_and_what_is_allowed(config, message):
    with pytest.raises(ConfigError, match=message):
        ParameterSpace.from_config(config)


def test_changes_leave_the_space_as_it_was():
    space = ParameterSpace()
    changed = space.with_values({"v0": 5}).fix("beta")
    assert (changed.values["v0"], changed.fixed_names) == (5, ["beta"])
    assert (space.values["v0"], space.fixed_names) == (1e3, [])
    for change in (lambda: space.fix("betta"), lambda: space.with_values({"betta": 1})):
        with pytest.raises(ConfigError, match="did you mean 'beta'"):
            change()
    with pytest.raises(ConfigError, match="outside its bounds"):
        space.with_values({"v0": 0})
