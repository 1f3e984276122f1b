"""Matrices of several angles as points, and shards of them by four strategies."""

from __future__ import annotations

import logging
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heterodyne._errors import ConfigError, DataError, HeterodyneError
from heterodyne.optimization.cmc.data_prep import (
    PreparedData,
    ShardingStrategy,
    create_shards,
    estimate_shard_memory,
    prepare_data,
    validate_shard_data,
)

N, PHI = 7, (0.0, 45.0, 90.0)


def raw(n=N, phi=PHI, **changes):
    """Symmetric matrices of distinct positive values."""
    values = np.triu(1.0 + np.random.default_rng(0).random((len(phi), n, n)))
    c2 = values + np.triu(values, 1).swapaxes(1, 2)
    t = 0.1 * np.arange(1, n + 1)
    return {"c2_data": c2, "phi_angles": phi, "time_array": t, "q": 0.0054, "dt": 0.1} | changes


def frames(prepared):
    return prepared.metadata["t1_index"], prepared.metadata["t2_index"]


def test_points_go_by_angle_row_and_column(caplog):
    given_data = raw()
    prepared = prepare_data(given_data)
    np.testing.assert_array_equal(prepared.c2_data, given_data["c2_data"].reshape(-1))
    np.testing.assert_array_equal(prepared.phi_angles, np.repeat(PHI, N * N))
    np.testing.assert_array_equal(prepared.time_array, given_data["time_array"])
    angle = np.searchsorted(PHI, prepared.phi_angles)
    i, j = frames(prepared)
    np.testing.assert_array_equal(prepared.c2_data, given_data["c2_data"][angle, i, j])
    assert prepared.weights is None
    assert (prepared.q, prepared.dt) == (0.0054, 0.1)
    assert (prepared.n_angles, prepared.n_times) == (3, N)
    assert prepared.metadata["n_masked"] == 0
    assert caplog.text == ""


def test_one_matrix_needs_no_axis_of_angles():
    stack = raw(phi=(30.0,))
    one = prepare_data(stack | {"c2_data": stack["c2_data"][0], "phi_angles": 30.0})
    np.testing.assert_array_equal(one.c2_data, prepare_data(stack).c2_data)


def test_weights_have_the_mean_one():
    weights = np.random.default_rng(1).random((3, N, N))
    mask = weights > 0.8
    prepared = prepare_data(raw(weights=weights, mask=mask))
    assert prepared.weights.mean() == pytest.approx(1.0, rel=1e-12)
    factor = prepared.metadata["weights_divided_by"]
    assert factor == pytest.approx(weights[~mask].mean())
    np.testing.assert_allclose(prepared.weights * factor, weights[~mask])
    kept = prepare_data(raw(weights=weights, mask=mask), {"normalize_weights": False})
    np.testing.assert_array_equal(kept.weights, weights[~mask])


def test_masked_points_are_left_out_whatever_they_hold(caplog):
    given_data = raw()
    mask = np.random.default_rng(2).random((3, N, N)) < 0.3
    spoilt = np.where(mask, np.nan, given_data["c2_data"])
    prepared = prepare_data(given_data | {"c2_data": spoilt, "mask": mask})
    np.testing.assert_array_equal(prepared.c2_data, given_data["c2_data"][~mask])
    np.testing.assert_array_equal(prepared.phi_angles, np.repeat(PHI, N * N)[~mask.reshape(-1)])
    assert prepared.metadata["n_masked"] == mask.sum()
    assert caplog.text == ""


def test_a_masked_half_leaves_each_pair_once(caplog):
    caplog.set_level(logging.INFO)
    mask = np.broadcast_to(np.tri(N, dtype=bool), (3, N, N))
    prepared = prepare_data(raw(mask=mask))
    i, j = frames(prepared)
    assert np.all(i < j)
    assert prepared.c2_data.size == 3 * N * (N - 1) // 2
    assert caplog.text == ""


def test_a_half_that_is_not_stored_is_no_data(caplog):
    caplog.set_level(logging.INFO)
    whole = raw()
    half = whole | {"c2_data": np.tril(whole["c2_data"])}
    np.testing.assert_array_equal(prepare_data(half).c2_data, prepare_data(whole).c2_data)
    assert "c2_data[0]: the upper half is not stored" in caplog.text
    # The only stored value of a pair is masked: its other point is no value either.
    mask = np.zeros((3, N, N), bool)
    mask[1, 5, 2] = True
    prepared = prepare_data(half | {"mask": mask})
    assert prepared.c2_data.size == 3 * N * N - 2
    assert np.all(prepared.c2_data > 0)
    # The other way round the value is there, and its copy is masked.
    assert prepare_data(half | {"mask": mask.swapaxes(1, 2)}).c2_data.size == 3 * N * N - 1


def test_halves_that_differ_are_told(caplog):
    given_data = raw()
    given_data["c2_data"][1, 2, 5] += 0.25
    prepared = prepare_data(given_data)
    assert "c2_data[1]: the halves differ by up to 0.25" in caplog.text
    np.testing.assert_array_equal(prepared.c2_data, given_data["c2_data"].reshape(-1))


def test_an_angle_that_is_masked_is_told(caplog):
    mask = np.zeros((3, N, N), bool)
    mask[1] = True
    prepared = prepare_data(raw(mask=mask))
    np.testing.assert_array_equal(np.unique(prepared.phi_angles), [0.0, 90.0])
    assert prepared.n_angles == 2
    assert "phi = 45" in caplog.text


def test_a_diagonal_that_is_not_positive_is_refused_on_request():
    given_data = raw()
    given_data["c2_data"][2, 4, 4] = 0.0
    with pytest.raises(DataError, match="such as 0 at frame 4"):
        prepare_data(given_data)
    kept = prepare_data(given_data, {"require_positive_diagonal": False})
    assert kept.c2_data.size == 3 * N * N
    mask = np.broadcast_to(np.eye(N, dtype=bool), (3, N, N))
    assert prepare_data(given_data | {"mask": mask}).c2_data.size == 3 * N * (N - 1)
    # Below 0 off the diagonal is noise, not a fault.
    given_data = raw()
    given_data["c2_data"][2, [1, 3], [3, 1]] = -0.1
    assert prepare_data(given_data).c2_data.min() == -0.1


@pytest.mark.parametrize("name", ["c2_data", "phi_angles", "time_array", "q", "dt"])
@pytest.mark.parametrize("kind", [KeyError, ValueError, HeterodyneError])
def test_a_missing_entry_is_named(name, kind):
    given_data = raw()
    del given_data[name]
    with pytest.raises(kind) as caught:
        prepare_data(given_data)
    assert str(caught.value).startswith(f"raw_data: {name} missing; there is ")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"c2_data": np.ones((2, N, N))}, "c2_data"),
        ({"c2_data": np.ones((3, N, N + 1))}, "c2_data"),
        ({"c2_data": np.ones((N, N))}, "c2_data"),
        ({"c2_data": np.ones(N)}, "c2_data"),
        ({"c2_data": np.full((3, N, N), np.nan)}, "not finite"),
        ({"c2_data": np.broadcast_to(np.eye(N), (3, N, N))}, "no value is stored"),
        ({"phi_angles": [0.0, 45.0]}, "c2_data"),
        ({"phi_angles": [0.0, 45.0, np.inf]}, "phi_angles"),
        ({"time_array": np.arange(N)[::-1]}, "increasing"),
        ({"time_array": np.zeros(N)}, "increasing"),
        ({"time_array": np.full(N, np.nan)}, "time_array"),
        ({"time_array": [0.0]}, "time_array"),
        ({"q": 0.0}, "q: "),
        ({"q": [0.1, 0.2]}, "q: "),
        ({"q": np.nan}, "q: "),
        ({"dt": -0.1}, "dt: "),
        ({"weights": np.ones((N, N))}, "weights"),
        ({"weights": np.full((3, N, N), -1.0)}, "weights"),
        ({"weights": np.zeros((3, N, N))}, "weights"),
        ({"weights": np.full((3, N, N), np.nan)}, "weights"),
        ({"mask": np.zeros((N, N), bool)}, "mask"),
        ({"mask": np.zeros((3, N, N))}, "mask"),
        ({"mask": np.ones((3, N, N), bool)}, "~mask"),
    ],
)
def test_data_that_do_not_fit_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        prepare_data(raw(**changes))


def test_settings_that_are_not_known_are_told(caplog):
    prepare_data(raw(), {"normalise_weights": False})
    assert "normalise_weights not used" in caplog.text
    with pytest.raises(ConfigError, match="normalize_weights"):
        prepare_data(raw(), {"normalize_weights": "false"})


def test_a_dt_that_contradicts_the_times_is_told(caplog):
    prepare_data(raw(dt=1.0))
    assert "dt is 1 s, but the times are 0.1 s apart" in caplog.text


def test_angles_and_times_are_counted():
    data = PreparedData(np.ones(4), None, np.arange(2.0), np.array([0.0, 0.0, 5.0, 5.0]), 0.1, 1.0)
    assert (data.n_angles, data.n_times, data.metadata) == (2, 2, {})
    given_counts = PreparedData(np.ones(1), None, np.arange(2.0), np.zeros(1), 0.1, 1.0, {}, 3, 4)
    assert (given_counts.n_angles, given_counts.n_times) == (3, 4)


def pairs_of(prepared):
    i, j = frames(prepared)
    rows = zip(prepared.phi_angles.tolist(), i.tolist(), j.tolist(), strict=True)
    return {(phi, min(a, b), max(a, b)) for phi, a, b in rows}


def spread(counts):
    return max(counts) - min(counts)


@st.composite
def masked_data(draw):
    n, n_phi = draw(st.integers(2, 8)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    mask = rng.random((n_phi, n, n)) < draw(st.sampled_from([0.0, 0.2, 0.5]))
    mask[:, 0, 1] = False
    c2 = np.arange(1.0, mask.size + 1).reshape(mask.shape)
    c2 = np.triu(c2) + np.triu(c2, 1).swapaxes(1, 2)
    given_data = raw(n, 15.0 * np.arange(n_phi), c2_data=c2, mask=mask, weights=c2)
    return prepare_data(given_data, {"normalize_weights": False})


@given(masked_data(), st.sampled_from(ShardingStrategy), st.integers(1, 9), st.integers(0, 99))
def test_shards_are_a_partition_of_whole_pairs(whole, strategy, wanted, seed):
    n_shards = min(wanted, len(pairs_of(whole)))
    shards = create_shards(whole, n_shards, strategy, seed=seed)
    assert len(shards) == n_shards
    pairs = [pairs_of(shard) for shard in shards]
    assert sum(map(len, pairs)) == len(set.union(*pairs)) == len(pairs_of(whole))
    assert sum(shard.c2_data.size for shard in shards) == whole.c2_data.size
    assert spread([len(part) for part in pairs]) <= 1
    points = {
        (phi, i, j): value
        for phi, i, j, value in zip(whole.phi_angles, *frames(whole), whole.c2_data, strict=True)
    }
    for shard in shards:
        for phi, i, j, value in zip(shard.phi_angles, *frames(shard), shard.c2_data, strict=True):
            assert points.pop((phi, i, j)) == value
        np.testing.assert_array_equal(shard.weights, shard.c2_data)
        assert shard.n_angles == np.unique(shard.phi_angles).size
        validate_shard_data(shard)
    assert not points


@given(masked_data(), st.integers(1, 9))
def test_balanced_shards_have_equal_shares_of_each_angle(whole, wanted):
    n_shards = min(wanted, len(pairs_of(whole)))
    shards = [pairs_of(s) for s in create_shards(whole, n_shards)]
    for angle in np.unique(whole.phi_angles):
        assert spread([sum(phi == angle for phi, _, _ in part) for part in shards]) <= 1


def ages(shard):
    return shard.time_array[frames(shard)[0]] + shard.time_array[frames(shard)[1]]


@given(masked_data(), st.integers(1, 9))
def test_contiguous_shards_follow_each_other(whole, wanted):
    n_shards = min(wanted, len(pairs_of(whole)))
    shards = create_shards(whole, n_shards, ShardingStrategy.CONTIGUOUS)
    for one, two in pairwise(shards):
        assert ages(one).max() <= ages(two).min() + 1e-9


def test_stratified_shards_cover_the_whole_time():
    whole = prepare_data(raw(30))
    edges = np.quantile(ages(whole), np.linspace(0, 1, 11)[1:-1])
    counts = {}
    for strategy in (ShardingStrategy.STRATIFIED, ShardingStrategy.RANDOM):
        shards = create_shards(whole, 6, strategy)
        counts[strategy] = np.array(
            [np.bincount(np.searchsorted(edges, ages(s)), minlength=10) for s in shards]
        )
    stratified, random = counts.values()
    # Both copies of at most one pair at each edge; about 450 points of a tenth of the time.
    assert np.ptp(stratified, axis=0).max() < 12
    assert np.ptp(stratified, axis=0).max() < np.ptp(random, axis=0).max()
    lags = [np.abs(np.subtract(*frames(s))).mean() for s in create_shards(whole, 6, "stratified")]
    assert np.ptp(lags) < 2.5


@pytest.mark.parametrize("strategy", ShardingStrategy)
def test_a_seed_fixes_the_shards(strategy):
    whole = prepare_data(raw())
    first, again, other = (create_shards(whole, 4, strategy, seed=s) for s in (42, 42, 7))
    for one, two, default in zip(first, again, create_shards(whole, 4, strategy), strict=True):
        np.testing.assert_array_equal(one.c2_data, two.c2_data)
        np.testing.assert_array_equal(one.c2_data, default.c2_data)
    same = [np.array_equal(a.c2_data, b.c2_data) for a, b in zip(first, other, strict=True)]
    assert not all(same)


def test_shards_keep_what_they_share():
    whole = prepare_data(raw())
    for k, shard in enumerate(create_shards(whole, 3, ShardingStrategy.RANDOM, seed=5)):
        assert (shard.q, shard.dt, shard.n_times) == (whole.q, whole.dt, N)
        np.testing.assert_array_equal(shard.time_array, whole.time_array)
        assert shard.weights is None
        named = {"shard": k, "n_shards": 3, "strategy": "random", "seed": 5, "n_masked": 0}
        assert named.items() <= {k: v for k, v in shard.metadata.items() if np.isscalar(v)}.items()
    assert "shard" not in whole.metadata


def test_strategies_have_words():
    words = {m.name: m.value for m in ShardingStrategy}
    assert words == {n: n.lower() for n in ("RANDOM", "CONTIGUOUS", "STRATIFIED", "ANGLE_BALANCED")}
    whole = prepare_data(raw())
    for member in ShardingStrategy:
        by_word, by_member = (create_shards(whole, 2, x)[0] for x in (member.value, member))
        np.testing.assert_array_equal(by_word.c2_data, by_member.c2_data)


def test_shards_that_cannot_be_made_are_refused():
    whole = prepare_data(raw())
    with pytest.raises(ConfigError, match="n_shards"):
        create_shards(whole, 0)
    with pytest.raises(ConfigError, match="1 to 84 distinct pairs"):
        create_shards(whole, 85)
    with pytest.raises(ConfigError, match="random, contiguous, stratified, angle_balanced"):
        create_shards(whole, 2, "by_lag")


def bare(n_total, **changes):
    """Points without their frames."""
    values = {
        "c2_data": np.ones(n_total),
        "weights": None,
        "time_array": np.arange(1.0, 5.0),
        "phi_angles": np.zeros(n_total),
        "q": 0.01,
        "dt": 1.0,
    }
    return PreparedData(**(values | changes))


def test_frames_of_whole_matrices_are_known():
    whole = prepare_data(raw())
    names = ("c2_data", "weights", "time_array", "phi_angles", "q", "dt")
    plain = PreparedData(**{name: getattr(whole, name) for name in names})
    for one, two in zip(create_shards(whole, 3), create_shards(plain, 3), strict=True):
        np.testing.assert_array_equal(one.c2_data, two.c2_data)
        np.testing.assert_array_equal(frames(one), frames(two))


@pytest.mark.parametrize(
    "data",
    [
        bare(10),
        bare(32, phi_angles=np.tile([0.0, 1.0], 16)),
        bare(10, metadata={"t1_index": np.zeros(10, int)}),
        bare(10, metadata=dict.fromkeys(["t1_index", "t2_index"], np.full(10, 4))),
        bare(10, metadata=dict.fromkeys(["t1_index", "t2_index"], np.zeros(10))),
        bare(10, metadata=dict.fromkeys(["t1_index", "t2_index"], np.zeros(9, int))),
    ],
)
def test_points_of_unknown_frames_are_not_divided(data):
    with pytest.raises(DataError, match="metadata"):
        create_shards(data, 2)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"c2_data": np.empty(0), "phi_angles": np.empty(0)}, "at least one point"),
        ({"c2_data": np.ones((4, 4))}, "c2_data"),
        ({"c2_data": np.where(np.arange(16) == 3, np.nan, 1.0)}, "not finite"),
        ({"c2_data": np.where(np.arange(16) == 3, np.inf, 1.0)}, "not finite"),
        ({"phi_angles": np.zeros(15)}, "phi_angles"),
        ({"weights": np.ones(15)}, "weights"),
        ({"weights": np.full(16, np.nan)}, "weights"),
        ({"weights": np.full(16, -1.0)}, "weights"),
        ({"c2_data": np.where(np.arange(16) == 5, 0.0, 1.0)}, "diagonal"),
    ],
)
def test_faults_of_a_shard_are_found(changes, match):
    assert validate_shard_data(bare(16, weights=np.ones(16))) is None
    with pytest.raises(ValueError, match=match):
        validate_shard_data(bare(16, **changes))


def test_a_diagonal_that_is_not_known_is_told(caplog):
    validate_shard_data(bare(16, c2_data=np.where(np.arange(16) == 4, 0.0, 1.0)))
    assert caplog.text == ""
    validate_shard_data(bare(10))
    assert "the diagonal is not checked" in caplog.text


def test_memory_counts_every_array():
    plain = bare(16)
    assert estimate_shard_memory(plain) == 8 * (16 + 4 + 16)
    assert estimate_shard_memory(bare(16, weights=np.ones(16))) == 8 * (16 + 4 + 16 + 16)
    (shard,) = create_shards(plain, 1)
    assert estimate_shard_memory(shard) == 8 * (16 + 4 + 16 + 2 * 16)
    assert isinstance(estimate_shard_memory(plain), int)
