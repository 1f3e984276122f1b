import dataclasses
import inspect
import io
import json
import types
import typing
import warnings

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from ruamel.yaml import YAML

from heterodyne._errors import ConfigError
from heterodyne.config._cmc_fields import sections_of
from heterodyne.config.cmc import DENSE_MASS_WARMUP_FLOOR, CMCConfig, effective_warmup_floor

DEFAULTS = {
    "enable": "auto", "min_points_for_cmc": 100000, "per_angle_mode": "auto",
    "constant_scaling_threshold": 3, "sharding_strategy": "random", "num_shards": "auto",
    "max_points_per_shard": "auto", "min_points_per_shard": 10000, "min_points_per_param": 1500,
    "backend_name": "auto", "enable_checkpoints": True, "checkpoint_dir": "./checkpoints/cmc",
    "chain_method": "parallel", "num_warmup": 1500, "num_samples": 1500, "num_chains": 4,
    "target_accept_prob": 0.9, "max_tree_depth": 10, "seed": 42, "dense_mass": True,
    "init_strategy": "init_to_median", "adaptive_sampling": True, "min_warmup": 100,
    "min_samples": 200, "fast_warmup": False, "max_r_hat": 1.1, "min_ess": 400, "min_bfmi": 0.3,
    "max_divergence_rate": 0.1, "require_nlsq_warmstart": False,
    "allow_degenerate_warmstart": False, "max_parameter_cv": 1.0, "heterogeneity_abort": True,
    "use_nlsq_warmstart": True, "use_nlsq_informed_priors": True, "nlsq_prior_width_factor": 2.0,
    "use_log_space_priors": True, "prior_tempering": True,
    "combination_method": "robust_consensus_mc", "min_success_rate": 0.9,
    "min_success_rate_warning": 0.8, "per_shard_timeout": 7200, "heartbeat_timeout": 600,
    "enable_jax_profiling": False, "jax_profile_dir": "./profiles/jax", "use_reparam": True,
    "reparameterization_d_total": True, "reparameterization_log_gamma": True,
    "bimodal_min_weight": 0.2, "bimodal_min_separation": 0.5, "run_id": None,
}  # fmt: skip


def test_signature_is_the_documented_one():
    parameters = inspect.signature(CMCConfig).parameters
    assert [*parameters] == [*DEFAULTS, "_validation_errors"]
    assert {name: parameters[name].default for name in DEFAULTS} == DEFAULTS
    assert len(dataclasses.fields(CMCConfig)) == 52


def test_defaults_are_valid_and_not_frozen():
    config = CMCConfig()
    assert config.validate() == []
    assert config.is_valid()
    config.num_chains = 0
    assert not config.is_valid()
    assert config._validation_errors == ["num_chains is 0; allowed: an integer of at least 1"]
    assert config == CMCConfig(num_chains=0), "what validate found is no part of the settings"


def test_documented_path_gives_the_same_class():
    from heterodyne.optimization.cmc import config

    assert config.CMCConfig is CMCConfig


# What is wrong with single fields

ACCEPTED = [
    *(("enable", word) for word in ("auto", "always", "never", True, False)),
    *(("per_angle_mode", word) for word in ("individual", "scaled", "auto", "averaged")),
    *(("per_angle_mode", word) for word in ("constant", "constant_averaged")),
    *(("sharding_strategy", w) for w in ("random", "contiguous", "stratified", "angle_balanced")),
    *(("backend_name", w) for w in ("auto", "cpu", "multiprocessing", "jax", "pjit", "pbs")),
    ("backend_name", "worker_pool"),
    *(("combination_method", w) for w in ("consensus_mc", "weighted_gaussian", "auto")),
    ("combination_method", "simple_average"),
    *(("init_strategy", w) for w in ("init_to_sample", "init_to_value")),
    ("chain_method", "sequential"),
    ("num_shards", 3),
    ("target_accept_prob", 0.5),
    ("target_accept_prob", 0.99),
    ("max_parameter_cv", 2),
    ("run_id", "Lauf 3_b-1.2"),
]

REFUSED = [
    ("enable", "maybe", "auto, always, never"),
    ("enable", 1, "true or false"),
    ("per_angle_mode", "both", "individual"),
    ("num_shards", 0, "at least 1"),
    ("num_shards", True, "integer"),
    ("max_points_per_shard", None, "auto"),
    ("num_samples", 1e3, "integer"),
    ("num_samples", "1000", "integer"),
    ("target_accept_prob", 0.499, "0.5 to 0.99"),
    ("target_accept_prob", 0.991, "0.5 to 0.99"),
    ("dense_mass", 1, "true or false"),
    ("chain_method", "vectorized", "parallel, sequential"),
    ("max_r_hat", 1.0, "above 1"),
    ("max_r_hat", float("nan"), "above 1"),
    ("max_parameter_cv", float("inf"), "above 0"),
    ("min_success_rate", 1.01, "0 to 1"),
    ("per_shard_timeout", 0, "at least 1 in s"),
    ("checkpoint_dir", "", "not empty"),
    ("run_id", "../up", "text that matches"),
    ("seed", -1, "0 to"),
]


@pytest.mark.parametrize(("name", "value"), ACCEPTED)
def test_accepted(name, value):
    assert CMCConfig(**{name: value}).validate() == []


@pytest.mark.parametrize(("name", "value", "allowed"), REFUSED)
def test_refused_with_field_value_and_limits(name, value, allowed):
    (problem,) = CMCConfig(**{name: value}).validate()
    assert problem.startswith(f"{name} is {value!r}; allowed: ")
    assert allowed in problem


def test_all_problems_are_told():
    config = CMCConfig(num_chains=0, seed=-1, require_nlsq_warmstart=True, use_nlsq_warmstart=False)
    assert [problem.split()[0] for problem in config.validate()] == [
        "num_chains",
        "seed",
        "require_nlsq_warmstart",
    ]


# Formulas


@pytest.mark.parametrize(
    ("enable", "n_points", "expected"),
    [
        ("auto", 99_999, False),
        ("auto", 100_000, True),
        (True, 1, True),
        ("always", 1, True),
        (False, 10**9, False),
        ("never", 10**9, False),
    ],
)
def test_when_shards_are_used(enable, n_points, expected):
    assert CMCConfig(enable=enable).should_enable_cmc(n_points, analysis_mode="any") is expected


@pytest.mark.parametrize(
    ("config", "n_points", "n_phi", "expected"),
    [
        ({}, 1_000_000, 3, 3),  # as many as angles: below 100 and 1,000,000 // 21,000 = 47
        ({}, 1_000_000, 1, 2),  # at least two
        ({}, 1_000_000, 60, 47),  # 21,000 points are needed for 14 parameters
        ({}, 50_000, 5, 2),
        ({"min_points_per_param": 1}, 50_000, 23, 5),  # 10,000 points a shard
        ({}, 20_000, 3, 1),
        ({}, 0, 3, 1),
        ({"max_points_per_shard": 100_000}, 1_000_000, 3, 10),
        ({"max_points_per_shard": 100_000}, 1_000_001, 3, 11),
        ({"max_points_per_shard": 100_000}, 90_000, 3, 3),
        ({"max_points_per_shard": 1}, 3, 2, 3),
        ({"num_shards": 7}, 3, 2, 7),
        ({"num_shards": 0}, 3, 2, 1),
    ],
)
def test_number_of_shards(config, n_points, n_phi, expected):
    assert CMCConfig(**config).get_num_shards(n_points, n_phi) == expected


def test_number_of_shards_follows_the_number_of_parameters():
    assert CMCConfig().get_num_shards(50_000, 5, n_params=7) == 4  # 50,000 // 10,500


@pytest.mark.parametrize(
    ("config", "size", "expected"),
    [
        ({"dense_mass": False}, 10_000, (1500, 1500)),
        ({"dense_mass": False}, 50_000, (1500, 1500)),
        ({"dense_mass": False}, 5_000, (750, 750)),
        ({"dense_mass": False}, 100, (100, 200)),
        ({"dense_mass": False, "num_samples": 100, "min_samples": 1}, 100, (100, 14)),
        ({}, 5_000, (DENSE_MASS_WARMUP_FLOOR, 750)),
        ({"num_warmup": 4000}, 5_000, (2000, 750)),
        ({"num_warmup": 50, "adaptive_sampling": False}, 100, (50, 1500)),
    ],
)
def test_steps_for_a_shard(config, size, expected):
    assert CMCConfig(**config).get_adaptive_sample_counts(size) == expected


def test_warmup_floor():
    assert effective_warmup_floor(100, dense_mass=True) == 1500
    assert effective_warmup_floor(1600, dense_mass=True) == 1600
    assert effective_warmup_floor(100, dense_mass=False, fast_warmup=True) == 100
    with pytest.warns(UserWarning, match="fast_warmup"):
        assert effective_warmup_floor(100, dense_mass=True, fast_warmup=True) == 100
    fast = CMCConfig(fast_warmup=True)
    with pytest.warns(UserWarning, match="fast_warmup"):
        assert fast.get_adaptive_sample_counts(5_000) == (750, 750)


def test_warning_is_shown_once_by_default():
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        for requested in (100, 200, 300):
            effective_warmup_floor(requested, dense_mass=True, fast_warmup=True)
    assert len(shown) == 1


@pytest.mark.parametrize(
    ("own", "n_phi", "fitted", "warm", "expected"),
    [
        ("auto", 2, None, False, "individual"),
        ("auto", 3, None, False, "auto"),
        ("averaged", 1, None, False, "auto"),
        ("scaled", 9, None, False, "individual"),
        ("constant", 9, None, True, "constant"),
        ("constant_averaged", 1, None, False, "constant_averaged"),
        ("constant", 9, "individual", True, "individual"),
        ("individual", 9, "auto", True, "auto"),
        ("auto", 9, "auto", False, "auto"),
        ("auto", 9, "auto", True, "constant_averaged"),
    ],
)
def test_treatment_of_angles(own, n_phi, fitted, warm, expected):
    config = CMCConfig(per_angle_mode=own)
    assert config.get_effective_per_angle_mode(n_phi, fitted, warm) == expected


def test_words_that_are_not_known_are_refused_where_they_decide():
    with pytest.raises(ConfigError, match="did you mean 'constant'"):
        CMCConfig(per_angle_mode="constnt").get_effective_per_angle_mode(3)
    with pytest.raises(ConfigError, match="enable is 'perhaps'"):
        CMCConfig(enable="perhaps").should_enable_cmc(1)
    with pytest.raises(ConfigError, match="num_shards is 'many'"):
        CMCConfig(num_shards="many").get_num_shards(1, 1)


# Forms


def test_nested_form_has_the_documented_sections():
    nested = CMCConfig().to_dict()
    sizes = {key: len(value) for key, value in nested.items() if isinstance(value, dict)}
    assert sizes == {
        "per_angle": 2,
        "sharding": 5,
        "backend_config": 4,
        "per_shard_mcmc": 12,
        "validation": 8,
        "nlsq": 4,
        "combination": 3,
        "timeout": 2,
        "reparameterization": 5,
    }
    top = {key for key, value in nested.items() if not isinstance(value, dict)}
    assert top == {
        *("enable", "min_points_for_cmc", "run_id", "prior_tempering"),
        *("enable_jax_profiling", "jax_profile_dir"),
    }


@pytest.mark.parametrize(
    "config",
    [
        {"num_samples": 7, "sharding_strategy": "stratified", "max_r_hat": 1.05},
        {
            "per_shard_mcmc": {"num_samples": 7},
            "sharding": {"sharding_strategy": "stratified"},
            "validation": {"max_r_hat": 1.05},
        },
        {
            "num_samples": 7,
            "sharding": {"strategy": "stratified"},
            "validation": {"r_hat_threshold": 1.05},
            "timeout": None,
        },
    ],
)
def test_forms_that_are_read(config):
    expected = CMCConfig(num_samples=7, sharding_strategy="stratified", max_r_hat=1.05)
    assert CMCConfig.from_dict(config) == expected


def test_older_keys():
    config = CMCConfig.from_dict({"target_accept": 0.8, "nlsq": {"prior_width_factor": 3.0}})
    assert config == CMCConfig(target_accept_prob=0.8, nlsq_prior_width_factor=3.0)


def test_reading_leaves_the_mapping_alone():
    config = {"per_shard_mcmc": {"num_samples": 7}}
    CMCConfig.from_dict(config)
    assert config == {"per_shard_mcmc": {"num_samples": 7}}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_sample": 7}, "unknown key 'num_sample' .did you mean 'num_samples'"),
        ({"sharding": {"stratgy": "x"}}, "sharding.stratgy.*did you mean 'sharding.sharding_str"),
        ({"seed": 1, "per_shard_mcmc": {"seed": 2}}, "unknown key 'seed'"),
    ],
)
def test_unknown_keys_warn(config, message):
    with pytest.warns(UserWarning, match=message):
        CMCConfig.from_dict(config)


def test_section_that_is_no_mapping():
    with pytest.raises(ConfigError, match=r"section timeout is 7.*per_shard_timeout"):
        CMCConfig.from_dict({"timeout": 7})


def strategy_of(hint, metadata=()):
    """Values that an annotation allows, read from it."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        base, *inner = typing.get_args(hint)
        found = [part for item in inner for part in getattr(item, "metadata", ())]
        return strategy_of(base, [*metadata, *found])
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(strategy_of(arm, metadata) for arm in typing.get_args(hint)))
    if origin is typing.Literal:
        return st.sampled_from(typing.get_args(hint))
    bounds = {
        key: getattr(part, key)
        for part in metadata
        for key in ("ge", "gt", "le")
        if hasattr(part, key)
    }
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le")
    return {
        bool: st.booleans(),
        int: st.integers(low, high),
        float: st.floats(
            low, high, exclude_min="gt" in bounds, allow_nan=False, allow_infinity=False
        ),
        str: st.from_regex(r"\A[a-zA-Z0-9][a-zA-Z0-9 ._+-]{0,20}\Z"),
        type(None): st.none(),
    }[hint]


HINTS = typing.get_type_hints(CMCConfig, include_extras=True)
CONFIGS = st.fixed_dictionaries(
    {}, optional={name: strategy_of(HINTS[name]) for name in sections_of(CMCConfig)}
).map(lambda fields: CMCConfig(**fields))


def through_yaml(data):
    yaml, stream = YAML(typ="safe", pure=True), io.StringIO()
    yaml.dump(data, stream)
    return yaml.load(stream.getvalue())


@settings(max_examples=60)
@given(CONFIGS)
def test_round_trips_lose_nothing(config):
    nested = config.to_dict()
    assert CMCConfig.from_dict(nested) == config
    assert CMCConfig.from_dict(json.loads(json.dumps(nested))) == config
    assert CMCConfig.from_dict(through_yaml(nested)) == config
    flat = {name: getattr(config, name) for name in DEFAULTS}
    assert CMCConfig.from_dict(flat) == config


@settings(max_examples=60)
@given(CONFIGS)
def test_what_the_annotations_allow_is_valid(config):
    contradiction = config.require_nlsq_warmstart and not config.use_nlsq_warmstart
    assert config.is_valid() != contradiction


@settings(max_examples=200)
@given(CONFIGS, st.integers(0, 10**8), st.integers(1, 40))
def test_shards_stay_within_their_limits(config, n_points, n_phi):
    shards = config.get_num_shards(n_points, n_phi)
    assert shards >= 1
    if config.num_shards == "auto":
        assert shards <= max(n_points, 1)
        cap = config.max_points_per_shard
        if cap != "auto" and n_points:
            assert shards * cap >= n_points
