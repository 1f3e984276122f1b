"""Pooled points and their shards: nothing is lost, nothing is used twice, noise is noise."""

from __future__ import annotations

import logging
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heterodyne._errors import ConfigError, DataError
from heterodyne.core.simulate import creep_flow, simulate_pairs
from heterodyne.optimization.cmc import data_prep

SIGMA = 0.005
PHI = (0.0, 45.0, 90.0)
N = 60


@cache
def measured():
    """Simulated matrices with independent errors of known size, and the frame times."""
    experiment = creep_flow(N, PHI)
    return simulate_pairs(experiment, 0.5, 1.0, SIGMA, seed=1), experiment.t


def pool(c2, t, phi):
    """Flatten matrices, shape (n, N, N), as the documented layout has them."""
    angle, i, j = (k.reshape(-1) for k in np.indices(c2.shape))
    return c2.reshape(-1), t[i], t[j], np.asarray(phi)[angle]


def white(n, seed=0):
    """A symmetric matrix of unit noise."""
    noise = np.triu(np.random.default_rng(seed).normal(size=(n, n)))
    return noise + np.triu(noise, 1).T


def scale_of(c2, t=None, phi=(0.0,)):
    t = np.arange(1.0, c2.shape[-1] + 1) if t is None else t
    return data_prep.prepare_mcmc_data(*pool(c2, t, phi)).noise_scale


def test_points_off_the_diagonal_are_kept_as_they_are():
    c2, t = measured()
    given_points = pool(c2, t, PHI)
    prepared = data_prep.prepare_mcmc_data(*given_points)
    off = given_points[1] != given_points[2]
    assert prepared.n_total == len(PHI) * N * (N - 1) == prepared.data.size
    fields = (prepared.data, prepared.t1, prepared.t2, prepared.phi)
    for kept, whole in zip(fields, given_points, strict=True):
        np.testing.assert_array_equal(kept, whole[off])
    np.testing.assert_array_equal(prepared.phi_unique, PHI)
    np.testing.assert_array_equal(prepared.phi_unique[prepared.phi_indices], prepared.phi)
    assert prepared.n_phi == 3


def test_the_diagonal_is_kept_on_request():
    points = pool(white(12)[None], np.arange(12.0), [30.0])
    prepared = data_prep.prepare_mcmc_data(*points, filter_diagonal=False)
    np.testing.assert_array_equal(prepared.data, points[0])
    # The diagonal holds shot noise, so it is no measure of the noise of pairs.
    loud = white(12)[None] + 1e3 * np.diag(np.arange(12.0))
    again = data_prep.prepare_mcmc_data(*pool(loud, np.arange(12.0), [30.0]), filter_diagonal=False)
    assert again.noise_scale == prepared.noise_scale


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (0.1 * np.arange(1, 41), np.cumsum(np.full(40, 0.1))),
        (0.1 * np.arange(1, 41), (0.1 * np.arange(1, 41)).astype(np.float32)),
        (1.7e9 + 0.01 * np.arange(40), 1.7e9 + np.cumsum(np.full(40, 0.01)) - 0.01),
        (np.array([0.0, 0.1, 1.1, 2.1, 7.0]), np.array([0.0, 0.1, 1.1, 2.1, 7.0])),
    ],
    ids=["rounding", "float32", "clock", "uneven"],
)
def test_the_diagonal_is_found_in_spite_of_rounding(one, other):
    n = one.size
    assert n == 5 or np.any(one != other)
    data, _, _, phi = pool(white(n)[None], one, [0.0])
    i, j = (k.reshape(-1) for k in np.indices((n, n)))
    prepared = data_prep.prepare_mcmc_data(data, one[i], np.asarray(other, float)[j], phi)
    np.testing.assert_array_equal(prepared.data, data[i != j])


def test_nothing_but_a_diagonal_is_refused():
    t = np.arange(5.0)
    with pytest.raises(DataError, match="all 5 points are on the diagonal"):
        data_prep.prepare_mcmc_data(np.ones(5), t, t, np.zeros(5))


def test_noise_is_told_from_the_signal():
    c2, t = measured()
    assert c2.std() > 10 * SIGMA
    assert scale_of(c2, t, PHI) == pytest.approx(SIGMA, rel=0.12)
    # In a short window the signal changes from one pair to the next by more than the noise.
    short = scale_of(c2[:, :30, :30], t[:30], PHI)
    assert np.abs(np.diff(c2[:, :30, :30])).mean() > 3 * SIGMA
    assert short == pytest.approx(SIGMA, rel=0.25)


def test_noise_is_robust_to_outliers():
    bad = np.random.default_rng(2).random((N, N)) < 0.02
    spoilt = np.where(bad | bad.T, 100.0, white(N))
    assert np.std(spoilt) > 15.0
    assert scale_of(spoilt[None]) == pytest.approx(1.0, rel=0.35)


def test_levels_of_the_angles_are_no_noise():
    noise = np.stack([white(10, seed) for seed in range(3)])
    levels = np.array([0.0, 1e6, -1e7])[:, None, None]
    wanted = scale_of(noise, phi=PHI)
    assert scale_of(noise + levels, phi=PHI) == pytest.approx(wanted, rel=1e-6)


def test_a_signal_of_rows_and_columns_cancels():
    noise = white(30)[None]
    rows = np.add.outer(np.arange(30.0) ** 2, np.arange(30.0) ** 2)
    assert scale_of(noise + rows) == pytest.approx(scale_of(noise), rel=1e-9)


def test_noise_does_not_depend_on_order_or_mirror_images():
    points = np.stack(pool(white(20)[None], np.arange(20.0), [0.0]))
    wanted = data_prep.prepare_mcmc_data(*points).noise_scale
    shuffled = points[:, np.random.default_rng(3).permutation(400)]
    half = points[:, points[1] < points[2]]
    assert data_prep.prepare_mcmc_data(*shuffled).noise_scale == wanted
    assert data_prep.prepare_mcmc_data(*half).noise_scale == wanted


def test_steps_measure_noise_where_there_is_one_row():
    n = 4000
    noise = np.random.default_rng(4).normal(size=n)
    t2 = np.arange(1.0, n + 1)
    slope = 1e-3 * t2
    prepared = data_prep.prepare_mcmc_data(noise + slope, np.zeros(n), t2, np.zeros(n))
    assert prepared.noise_scale == pytest.approx(1.0, rel=0.05)
    assert np.std(noise + slope) > 1.4


def test_the_spread_stands_in_where_no_pairs_are_neighbours(caplog):
    k = np.arange(50.0)
    data = np.random.default_rng(5).normal(size=50)
    prepared = data_prep.prepare_mcmc_data(data, 10 * k, 10 * k + 5, np.zeros(50))
    deviations = np.abs(data - np.median(data))
    assert prepared.noise_scale == pytest.approx(1.4826 * np.median(deviations), rel=1e-4)
    assert "Too few neighbouring pairs" in caplog.text


def test_rare_counts_have_noise():
    rare = np.triu(np.random.default_rng(6).random((80, 80)) < 0.01, 1).astype(float)
    assert scale_of(rare[None] + rare.T) == pytest.approx(np.sqrt(0.01 * 0.99), rel=0.3)


def test_data_without_noise_are_told(caplog):
    assert scale_of(np.ones((1, 12, 12))) == 0.0
    assert "no noise" in caplog.text


def test_points_of_a_pair_that_differ_are_told(caplog):
    caplog.set_level(logging.INFO)
    c2 = white(12)[None]
    scale_of(c2)
    assert "132 points are 66 distinct pairs" in caplog.text
    assert "differ" not in caplog.text
    c2[0, 2, 7] += 0.25
    scale_of(c2)
    assert "differ by up to 0.25" in caplog.text


GOOD = dict.fromkeys(("data", "t1", "t2", "phi"), np.arange(4.0))


@pytest.mark.parametrize(
    "changes",
    [
        {"data": np.arange(3.0)},
        {"t1": np.arange(5.0)},
        {"t2": np.zeros((4, 1))},
        {"phi": np.float64(3.0)},
        {"phi": np.array([0.0, np.nan, 0.0, 0.0])},
        {"data": np.array([0.0, np.inf, 0.0, 0.0])},
        {"t1": np.array(["a", "b", "c", "d"])},
        {"data": np.arange(4.0) + 1j},
        dict.fromkeys(GOOD, np.empty(0)),
        dict.fromkeys(GOOD, np.zeros((2, 2))),
    ],
)
def test_pooled_arrays_that_do_not_fit_are_refused(changes):
    assert data_prep.validate_pooled_data(**GOOD) is None
    for function in (data_prep.validate_pooled_data, data_prep.prepare_mcmc_data):
        with pytest.raises(ValueError, match=next(iter(changes))):
            function(**(GOOD | changes))


def test_angles_that_differ_by_rounding_are_one():
    phi = np.array([90.0, 0.1 + 0.2, 0.3, -30.0, 90.0 + 5e-7, 0.3])
    distinct, indices = data_prep.extract_phi_info(phi)
    np.testing.assert_array_equal(distinct, [-30.0, 0.3, 90.0])
    np.testing.assert_array_equal(indices, [2, 1, 1, 0, 2, 1])
    assert np.issubdtype(indices.dtype, np.integer)


def test_angles_are_not_wrapped():
    distinct, _ = data_prep.extract_phi_info(np.array([360.0, 0.0, 180.0, -180.0]))
    np.testing.assert_array_equal(distinct, [-180.0, 0.0, 180.0, 360.0])


@given(
    st.lists(st.integers(-1800, 1800), min_size=1, max_size=600),
    st.integers(0, 2**31),
)
def test_every_angle_has_the_index_of_the_nearest(tenths, seed):
    exact = 0.1 * np.array(tenths)
    rounding = np.random.default_rng(seed).uniform(-1e-8, 1e-8, exact.size)
    distinct, indices = data_prep.extract_phi_info(exact + rounding)
    assert distinct.size == len(set(tenths))
    assert np.all(np.diff(distinct) > 0.05)
    nearest = np.argmin(np.abs(exact[:, None] - distinct), axis=1)
    np.testing.assert_array_equal(indices, nearest)


@pytest.mark.parametrize("phi", [[], [0.0, np.nan], [[0.0], [1.0]]])
def test_angles_that_cannot_be_used_are_refused(phi):
    with pytest.raises(DataError, match="phi"):
        data_prep.extract_phi_info(np.array(phi))


def container(points, n_frames, n_phi):
    """Pooled data of integer points (angle, i, j), numbered by their values."""
    angle, i, j = np.array(points).T
    return data_prep.PooledCMCData(
        data=np.arange(angle.size, dtype=float),
        t1=0.1 * (i + 1),
        t2=0.1 * (j + 1),
        phi=15.0 * angle,
        phi_unique=15.0 * np.arange(n_phi),
        phi_indices=angle,
        n_total=angle.size,
        n_phi=n_phi,
        noise_scale=0.125,
    )


@st.composite
def pooled_points(draw):
    """Any points, mirror images and repeated ones among them."""
    n_frames, n_phi = draw(st.integers(2, 9)), draw(st.integers(1, 4))
    frame, angle = st.integers(0, n_frames - 1), st.integers(0, n_phi - 1)
    points = draw(st.lists(st.tuples(angle, frame, frame), min_size=1, max_size=80))
    mirrored = [(a, j, i) for a, i, j in points if draw(st.booleans())]
    return container(points + mirrored, n_frames, n_phi)


def pairs_of(shard):
    """Distinct pairs of a container as (angle, earlier, later)."""
    i, j = (np.rint(10 * t).astype(int).tolist() for t in (shard.t1, shard.t2))
    rows = zip(shard.phi_indices.tolist(), i, j, strict=True)
    return {(a, min(p, q), max(p, q)) for a, p, q in rows}


def check_partition(whole, shards):
    """Every point once, pairs whole, points unchanged and in order, counts equal."""
    together = np.concatenate([shard.data for shard in shards])
    np.testing.assert_array_equal(np.sort(together), whole.data)
    pairs = [pairs_of(shard) for shard in shards]
    assert sum(map(len, pairs)) == len(set.union(*pairs)) == len(pairs_of(whole))
    assert max(map(len, pairs)) - min(map(len, pairs)) <= 1
    for shard in shards:
        assert np.all(np.diff(shard.data) > 0)
        rows = shard.data.astype(int)
        for name in ("t1", "t2", "phi", "phi_indices"):
            np.testing.assert_array_equal(getattr(shard, name), getattr(whole, name)[rows])
        np.testing.assert_array_equal(shard.phi_unique, whole.phi_unique)
        assert (shard.n_total, shard.n_phi) == (rows.size, whole.n_phi)
        assert shard.noise_scale == whole.noise_scale
    return pairs


@given(pooled_points(), st.integers(1, 12), st.integers(0, 1000))
def test_random_shards_are_a_partition(whole, wanted, seed):
    shards = data_prep.shard_pooled_random(whole, wanted, seed=seed)
    assert len(shards) == min(wanted, len(pairs_of(whole)))
    check_partition(whole, shards)


@given(pooled_points(), st.integers(1, 12), st.integers(0, 1000))
def test_balanced_shards_are_a_partition_with_equal_angles(whole, wanted, seed):
    shards = data_prep.shard_pooled_angle_balanced(whole, wanted, seed=seed)
    assert len(shards) == min(wanted, len(pairs_of(whole)))
    pairs = check_partition(whole, shards)
    for angle in range(whole.n_phi):
        counts = [sum(a == angle for a, _, _ in part) for part in pairs]
        assert max(counts) - min(counts) <= 1


@cache
def grid(n_frames=12, n_phi=3):
    """All points of symmetric matrices off the diagonal."""
    points = np.indices((n_phi, n_frames, n_frames)).reshape(3, -1).T
    return container(points[points[:, 1] != points[:, 2]], n_frames, n_phi)


balanced = data_prep.shard_pooled_angle_balanced
SHARDERS = pytest.mark.parametrize("sharder", [data_prep.shard_pooled_random, balanced])


@SHARDERS
def test_a_seed_fixes_the_shards(sharder):
    first, again, other = (sharder(grid(), 4, seed=seed) for seed in (1, 1, 2))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.data, two.data)
    assert set(first[0].data) != set(other[0].data)


@SHARDERS
def test_the_default_seed_is_42(sharder):
    for one, two in zip(sharder(grid(), 3), sharder(grid(), 3, seed=42), strict=True):
        np.testing.assert_array_equal(one.data, two.data)


@SHARDERS
@pytest.mark.parametrize(
    ("arguments", "n_shards"),
    [
        ({"max_points_per_shard": 396}, 1),
        ({"max_points_per_shard": 395}, 2),
        ({"max_points_per_shard": 40}, 10),
        ({"num_shards": 7, "max_points_per_shard": 40}, 7),
        ({"num_shards": np.int64(7)}, 7),
    ],
)
def test_the_number_of_shards_is_derived(sharder, arguments, n_shards, caplog):
    shards = sharder(grid(), **arguments)
    assert len(shards) == n_shards
    sizes = [shard.n_total for shard in shards]
    assert sum(sizes) == 396
    assert max(sizes) - min(sizes) <= 2
    assert caplog.text == ""


def test_the_number_of_shards_without_a_wish():
    assert len(data_prep.shard_pooled_random(grid())) == 1
    assert len(data_prep.shard_pooled_angle_balanced(grid())) == 3


@SHARDERS
def test_shards_are_limited(sharder, caplog):
    for arguments in ({"num_shards": 20}, {"max_points_per_shard": 10}):
        shards = sharder(grid(), **arguments, max_shards=6)
        assert len(shards) == 6
        check_partition(grid(), shards)
    assert caplog.text.count("reduced to 6 (max_shards is 6") == 2
    # A shard without a pair would hold nothing: two frames of one angle are one pair.
    assert len(sharder(grid(2, 1), 5)) == 1
    assert "there are 1 distinct pairs" in caplog.text


def test_the_default_limits():
    whole = grid(40)
    assert len(data_prep.shard_pooled_random(whole, 1000)) == 100
    assert len(data_prep.shard_pooled_angle_balanced(whole, 1000)) == 500


def test_one_angle_is_divided_at_random():
    whole = grid(12, 1)
    both = (f(whole, 4, seed=9) for f in (data_prep.shard_pooled_random, balanced))
    for one, two in zip(*both, strict=True):
        np.testing.assert_array_equal(one.data, two.data)


def test_shards_that_miss_angles_are_told(caplog):
    few = [(0, i, j) for i in range(9) for j in range(i)] + [(1, 1, 0), (1, 0, 1), (1, 2, 1)]
    whole = container(few, 9, 2)
    check_partition(whole, balanced(whole, 4))
    assert "2 of 4 shards hold less than 80 % of the angles, the least of them 50 %" in caplog.text
    caplog.clear()
    balanced(whole, 4, min_angle_coverage=0.5)
    balanced(whole, 2)
    assert caplog.text == ""


@SHARDERS
@pytest.mark.parametrize("name", ["num_shards", "max_points_per_shard", "max_shards"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_numbers_of_shards_that_cannot_be_used_are_refused(sharder, name, value):
    with pytest.raises(ConfigError, match=name):
        sharder(grid(), **{name: value})


@pytest.mark.parametrize("share", [-0.1, 1.1, np.nan])
def test_a_coverage_that_is_no_share_is_refused(share):
    with pytest.raises(ConfigError, match="min_angle_coverage"):
        balanced(grid(), min_angle_coverage=share)
