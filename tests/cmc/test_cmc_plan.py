"""Plans of NUTS: limits, seeds, and the laws by which counts shrink, against closed forms."""

from __future__ import annotations

import logging
import math
import pickle
from contextlib import nullcontext
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heterodyne._errors import ConfigError
from heterodyne.config.cmc import DENSE_MASS_WARMUP_FLOOR, CMCConfig
from heterodyne.optimization.cmc.sampler import AdaptiveSamplingPlan, SamplingPlan

DIAGONAL = SamplingPlan(num_warmup=800, num_samples=1200, dense_mass=False, seed=7)
COUNTS = st.integers(1, 5000)
SIZES = st.integers(1, 10**6)


def warned(dense_mass=True, fast_warmup=True):
    """What a dense mass matrix without its floor says."""
    if dense_mass and fast_warmup:
        return pytest.warns(UserWarning, match="fast_warmup")
    return nullcontext()


def same_but_counts(plan, other):
    return replace(plan, num_warmup=1, num_samples=1) == replace(other, num_warmup=1, num_samples=1)


def test_a_plan_cannot_change():
    with pytest.raises(FrozenInstanceError):
        DIAGONAL.num_samples = 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_warmup", 0),
        ("num_samples", -3),
        ("num_chains", 1.5),
        ("target_accept", 1.0),
        ("target_accept", float("nan")),
        ("max_tree_depth", 21),
        ("adapt_step_size", 1),
        ("dense_mass", "yes"),
        ("chain_method", "both"),
        ("seed", -1),
        ("fast_warmup", None),
    ],
)
def test_every_field_has_limits(name, value):
    with pytest.raises(ConfigError, match=f"SamplingPlan: {name} is {value!r}; allowed: "):
        SamplingPlan(**{name: value})


def test_a_given_seed_is_used():
    assert SamplingPlan(seed=0).effective_seed == 0


def test_a_seed_is_drawn_once_and_travels_with_the_plan():
    plan, other = SamplingPlan(dense_mass=False), SamplingPlan(dense_mass=False)
    assert plan.seed is None
    assert plan == other
    assert plan.effective_seed == plan.effective_seed != other.effective_seed
    assert pickle.loads(pickle.dumps(plan)).effective_seed == plan.effective_seed
    assert plan.for_shard(1, 2).effective_seed == plan.effective_seed
    assert AdaptiveSamplingPlan(plan, 100, 2).get_plan().effective_seed == plan.effective_seed


CONFIG = CMCConfig(
    num_warmup=2000,
    num_samples=3000,
    num_chains=3,
    target_accept_prob=0.93,
    max_tree_depth=7,
    dense_mass=False,
    chain_method="sequential",
    seed=11,
    min_warmup=150,
    min_samples=250,
)


def test_a_configuration_becomes_a_plan():
    assert SamplingPlan.from_config(CONFIG) == SamplingPlan(
        num_warmup=2000,
        num_samples=3000,
        num_chains=3,
        target_accept=0.93,
        max_tree_depth=7,
        dense_mass=False,
        chain_method="sequential",
        seed=11,
    )
    with warned():
        fast = SamplingPlan.from_config(CMCConfig(fast_warmup=True, num_warmup=20))
    assert fast.fast_warmup
    assert fast.dense_mass
    assert fast.num_warmup == 20


@given(n_data=SIZES, n_params=st.integers(1, 600))
def test_counts_of_a_configuration_shrink_in_proportion(n_data, n_params):
    plan = SamplingPlan.from_config(CONFIG, n_data, n_params)
    scale = min(n_data / 10_000, 1.0)
    assert plan.num_warmup == max(150, round(2000 * scale))
    assert plan.num_samples == max(250, round(3000 * scale), n_params)
    assert same_but_counts(plan, SamplingPlan.from_config(CONFIG))


def test_counts_stay_without_adaptive_sampling_or_points():
    fixed = replace(CONFIG, adaptive_sampling=False)
    assert SamplingPlan.from_config(fixed, n_data=10) == SamplingPlan.from_config(CONFIG)
    assert SamplingPlan.from_config(CONFIG, n_params=3) == SamplingPlan.from_config(CONFIG)


def test_numpy_numbers_of_points_are_numbers():
    plan = SamplingPlan.from_config(CONFIG, np.int64(5000), np.int64(3))
    assert (plan.num_warmup, plan.num_samples) == (1000, 1500)


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("n_data", [100, None])
def test_a_dense_mass_matrix_has_its_floor(adaptive, n_data, caplog):
    config = CMCConfig(num_warmup=400, dense_mass=True, adaptive_sampling=adaptive)
    with caplog.at_level(logging.INFO, logger="heterodyne"):
        plan = SamplingPlan.from_config(config, n_data)
    assert plan.num_warmup == DENSE_MASS_WARMUP_FLOOR
    if n_data is None or not adaptive:
        assert "1500 warm-up steps instead of 400" in caplog.text


def test_numbers_of_points_and_parameters_are_positive():
    with pytest.raises(ConfigError, match="n_data is 0"):
        SamplingPlan.from_config(CONFIG, n_data=0)
    with pytest.raises(ConfigError, match="n_params is -1"):
        SamplingPlan.from_config(CONFIG, n_params=-1)
    with pytest.raises(ConfigError, match="chain_method is 'both'"):
        SamplingPlan.from_config(replace(CONFIG, chain_method="both"))


@given(warmup=COUNTS, samples=COUNTS, shard=SIZES, others=st.integers(0, 10**6))
def test_a_shard_has_the_square_root_of_its_part(warmup, samples, shard, others):
    whole = replace(DIAGONAL, num_warmup=warmup, num_samples=samples)
    plan = whole.for_shard(shard, shard + others)
    scale = math.sqrt(shard / (shard + others))
    assert plan.num_warmup == max(1, warmup // 10, int(warmup * scale))
    assert plan.num_samples == max(1, samples // 10, int(samples * scale))
    assert same_but_counts(plan, whole)
    assert 1 <= plan.num_warmup <= whole.num_warmup


def test_the_whole_is_its_own_shard():
    assert DIAGONAL.for_shard(500, 500) == DIAGONAL


@pytest.mark.parametrize(("shard", "full"), [(0, 10), (-1, 10), (5, 0), (1, -1), (11, 10)])
def test_a_shard_has_a_size_within_the_whole(shard, full):
    with pytest.raises(ValueError, match=r"(_size is -?\d|larger than the whole).* Allowed: "):
        DIAGONAL.for_shard(shard, full)


@given(warmup=COUNTS, samples=COUNTS, shard=SIZES, n_params=st.integers(1, 300))
def test_an_adaptive_plan_has_the_square_root_and_floors(warmup, samples, shard, n_params):
    base = replace(DIAGONAL, num_warmup=warmup, num_samples=samples)
    plan = AdaptiveSamplingPlan(base, shard, n_params).get_plan()
    scale = math.sqrt(shard / 10_000)
    assert plan.num_warmup == max(50, 5 * n_params, int(warmup * scale))
    assert plan.num_samples == max(100, 10 * n_params, int(samples * scale))
    assert same_but_counts(plan, base)


def test_the_reference_size_can_be_chosen():
    adaptive = AdaptiveSamplingPlan(DIAGONAL, 100, 3, _reference_shard_size=400)
    assert adaptive.get_plan().num_samples == 600
    assert adaptive.base_plan is DIAGONAL


@pytest.mark.parametrize(
    "numbers", [(0, 14, 10), (10, 0, 10), (10, 14, -1)], ids=["shard", "params", "reference"]
)
def test_sizes_of_an_adaptive_plan_are_positive(numbers):
    with pytest.raises(ConfigError, match=r"is (0|-1)\. Allowed: an integer of at least 1"):
        AdaptiveSamplingPlan(DIAGONAL, *numbers)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("dense", [True, False])
def test_both_laws_keep_the_floor_of_a_dense_mass_matrix(dense, fast):
    base = SamplingPlan(num_warmup=2000, dense_mass=dense, fast_warmup=fast)
    floor = DENSE_MASS_WARMUP_FLOOR if dense and not fast else 0
    with warned(dense, fast):
        assert base.for_shard(100, 10_000).num_warmup == max(floor, 200)
    with warned(dense, fast):
        assert AdaptiveSamplingPlan(base, 100, 2).get_plan().num_warmup == max(floor, 200)
    # Enough steps stay as they are, without a warning.
    assert base.for_shard(9000, 10_000).num_warmup == 1897


def test_fields_keep_their_order():
    names = [f.name for f in fields(SamplingPlan) if f.init]
    assert SamplingPlan(*range(1, 4), 0.7, 5, True, False, "vectorized", 9, True) == SamplingPlan(
        **dict(zip(names, [1, 2, 3, 0.7, 5, True, False, "vectorized", 9, True], strict=True))
    )
    assert names[7:] == ["chain_method", "seed", "fast_warmup"]
