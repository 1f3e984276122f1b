"""Rules of combination against posteriors that are known."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from heterodyne._errors import ConfigError, DataError
from heterodyne.optimization.cmc.backends.base import (
    ShardPosterior,
    combine_shard_samples,
    combine_shard_samples_bimodal,
    consensus_mc,
    robust_consensus_mc,
)

PRIOR_MEAN = np.array([1e4, 0.0, -0.3])
PRIOR_SD = np.array([5e3, 2.0, 0.1])


def regression(k, seed, n=300):
    """Posteriors of the shards of a linear model with a tempered prior, and of all data."""
    rng = np.random.default_rng(seed)
    design = rng.normal(size=(n, 3)) / PRIOR_SD
    y = design @ (PRIOR_MEAN + PRIOR_SD * rng.normal(size=3)) + rng.normal(size=n)
    shard_of = rng.integers(0, k, size=n)
    tempered = np.diag(PRIOR_SD**-2.0) / k

    def posterior(rows, prior, shard=0):
        precision = prior + design[rows].T @ design[rows]
        pull = prior @ PRIOR_MEAN + design[rows].T @ y[rows]
        covariance = np.linalg.inv(precision)
        return ShardPosterior(covariance @ pull, covariance, int(rows.sum()), shard)

    shards = [posterior(shard_of == j, tempered, j) for j in range(k)]
    return shards, posterior(np.ones(n, bool), np.diag(PRIOR_SD**-2.0))


@pytest.mark.parametrize("k", [1, 2, 10, 100])
@pytest.mark.parametrize("seed", [0, 1])
def test_normal_shards_multiply_to_the_posterior_of_all_data(k, seed):
    shards, whole = regression(k, seed)
    mean, covariance = consensus_mc(shards)
    width = np.sqrt(np.diagonal(whole.covariance))
    assert np.abs((mean - whole.mean) / width).max() < 1e-8
    assert np.abs(covariance - whole.covariance).max() < 1e-8 * width.max() ** 2
    np.testing.assert_allclose(covariance, whole.covariance, rtol=1e-8, atol=1e-12)


@settings(max_examples=30)
@given(order=st.permutations(range(6)), seed=st.integers(0, 5))
def test_the_order_of_shards_does_not_matter(order, seed):
    shards, _ = regression(6, seed)
    for rule in (consensus_mc, robust_consensus_mc):
        mean, covariance = rule(shards)
        other_mean, other_covariance = rule([shards[k] for k in order])
        np.testing.assert_allclose(other_mean, mean, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(other_covariance, covariance, rtol=1e-9, atol=1e-12)


def draws_of(posterior, names, seed, shape=(4, 5000)):
    rng = np.random.default_rng(seed)
    x = rng.multivariate_normal(posterior.mean, posterior.covariance, size=shape, method="cholesky")
    return {name: x[..., k] for k, name in enumerate(names)}


NAMES = ("D_offset_ref", "alpha_ref", "f1")


@pytest.mark.parametrize("method", ["consensus_mc", "weighted_gaussian", "auto"])
def test_averaged_draws_are_draws_of_the_posterior(method):
    shards, whole = regression(5, 3)
    samples = [draws_of(one, NAMES, k) for k, one in enumerate(shards)]
    combined = combine_shard_samples(samples, method=method)
    assert list(combined) == list(NAMES)
    x = np.stack([combined[n] for n in NAMES], axis=-1).reshape(-1, 3)
    width = np.sqrt(np.diagonal(whole.covariance))
    # The mean rests on 20,000 draws, and the weights on covariances of as many.
    assert np.abs((x.mean(axis=0) - whole.mean) / width).max() < 0.04
    np.testing.assert_allclose(np.cov(x, rowvar=False) / np.outer(width, width),
                               whole.covariance / np.outer(width, width), atol=0.05)  # fmt: skip


def test_averages_consist_of_the_shards_own_draws():
    """Each combined draw solves the weighted equations for draws that the shards have."""
    shards, _ = regression(2, 0)
    samples = [draws_of(one, NAMES, k, (1, 4)) for k, one in enumerate(shards)]
    combined = combine_shard_samples(samples)
    first, second = (np.stack([s[n][0] for n in NAMES], axis=-1) for s in samples)
    precisions = [np.linalg.inv(np.cov(x, rowvar=False)) for x in (first, second)]
    every = {
        tuple(np.linalg.solve(sum(precisions), precisions[0] @ a + precisions[1] @ b).round(6))
        for a in first
        for b in second
    }
    found = np.stack([combined[n][0] for n in NAMES], axis=-1)
    assert all(tuple(row.round(6)) in every for row in found)


def test_chunks_change_nothing_and_the_seed_pairs_anew():
    shards, _ = regression(7, 2)
    samples = [draws_of(one, NAMES, 1, (2, 50)) for one in shards]
    whole, parts, other = (
        combine_shard_samples(samples, chunk_size=size, seed=seed)
        for size, seed in ((500, 42), (2, 42), (500, 43))
    )
    for name in NAMES:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-10)
        assert not np.allclose(other[name], whole[name])


def test_shards_drawn_in_step_are_not_paired_in_step():
    """The same random numbers in every shard would make the average far too wide."""
    same = [{"alpha_ref": np.random.default_rng(0).normal(size=(4, 2000))} for _ in range(16)]
    combined = combine_shard_samples(same)["alpha_ref"]
    assert combined.std() == pytest.approx(0.25, rel=0.1)


def test_one_shard_is_returned_unchanged():
    draws = {"alpha_ref": np.arange(6.0).reshape(2, 3)}
    combined = combine_shard_samples([draws])
    np.testing.assert_array_equal(combined["alpha_ref"], draws["alpha_ref"])


def gamma_shards(k, n=2000, alpha=0.05, seed=4):
    """Shards of exponential data with a rate whose prior is log-flat: gamma posteriors.

    The names say to combine on a logarithmic axis, or not to.
    """
    rng = np.random.default_rng(seed)
    y = rng.exponential(1.0, size=n)
    parts = np.array_split(rng.permutation(y), k)
    draws = [rng.gamma(alpha / k + p.size, 1.0 / (alpha / k + p.sum()), size=(4, 2500))
             for p in parts]  # fmt: skip
    # On the axis log x the density is x**shape exp(-rate x): shapes and rates of shards add.
    exact = stats.gamma(alpha + n, scale=1.0 / (alpha + y.sum()))
    return draws, exact


def test_a_skewed_positive_parameter_is_combined_without_bias():
    draws, exact = gamma_shards(50)
    naive = combine_shard_samples([{"alpha_ref": x} for x in draws])["alpha_ref"]
    logarithmic = combine_shard_samples([{"D0_ref": x} for x in draws])["D0_ref"]
    bias = [(x.mean() - exact.mean()) / exact.std() for x in (logarithmic, naive)]
    assert abs(bias[0]) < 0.1
    assert abs(bias[1]) > 0.5
    assert logarithmic.std() == pytest.approx(exact.std(), rel=0.05)


def test_an_outlying_shard_counts_little(caplog):
    shards, whole = regression(8, 1)
    width = np.sqrt(np.diagonal(whole.covariance))
    wrong = ShardPosterior(shards[0].mean + 40 * width, shards[0].covariance, 1, 0)
    spoiled = [wrong, *shards[1:]]
    with caplog.at_level(logging.WARNING):
        robust, _ = robust_consensus_mc(spoiled, outlier_sigma=5.0)
    assert "Shard 0 disagrees" in caplog.text
    plain, _ = consensus_mc(spoiled)
    distance = [np.abs((x - whole.mean) / width).max() for x in (robust, plain)]
    assert distance[0] < 0.3 * distance[1]
    # With a limit that none exceeds, nothing is tamed.
    np.testing.assert_allclose(robust_consensus_mc(spoiled, outlier_sigma=1e6)[0], plain)


@pytest.mark.parametrize(("k", "most"), [(3, 12), (8, 6), (30, 6)])
def test_shards_that_differ_by_chance_are_not_tamed(k, most):
    """Of 200 sets with an allowance of 0.27 % hardly any has an outlier.

    How much all scatter is hardly known from three.
    """
    rng = np.random.default_rng(k)
    tamed = 0
    for _ in range(100):
        shards = [ShardPosterior(rng.normal(size=6), np.eye(6)) for _ in range(k)]
        plain, robust = consensus_mc(shards), robust_consensus_mc(shards)
        tamed += not np.allclose(plain[0], robust[0])
        # Errors that all shards understate alike make no outliers either.
        wide = [ShardPosterior(3 * s.mean, s.covariance) for s in shards]
        tamed += not np.allclose(consensus_mc(wide)[0], robust_consensus_mc(wide)[0])
    assert tamed <= most


def test_robust_draws_follow_the_robust_rule():
    shards, _ = regression(8, 1)
    samples = [draws_of(one, NAMES, k, (4, 2000)) for k, one in enumerate(shards)]
    samples[0] = {n: x + 30 * x.std() for n, x in samples[0].items()}
    combined = combine_shard_samples(samples, method="robust_consensus_mc")
    measured = [
        ShardPosterior(x.mean(axis=0), np.cov(x, rowvar=False))
        for x in (np.stack([s[n].ravel() for n in NAMES], axis=-1) for s in samples)
    ]
    mean, _ = robust_consensus_mc(measured)
    found = [combined[n].mean() for n in NAMES]
    np.testing.assert_allclose(found, mean, rtol=1e-9)


def test_a_simple_average_weighs_all_alike():
    rng = np.random.default_rng(0)
    samples = [{"beta": c + s * rng.normal(size=(2, 500))} for c, s in ((0.0, 0.1), (1.0, 2.0))]
    combined = combine_shard_samples(samples, method="simple_average")["beta"]
    assert combined.mean() == pytest.approx(np.mean([s["beta"].mean() for s in samples]))


def test_shards_that_failed_are_left_out_and_named(caplog):
    rng = np.random.default_rng(0)
    good = [{"beta": rng.normal(size=(2, 500))} for _ in range(3)]
    stuck = {"beta": np.full((2, 500), 7.0)}
    broken = {"beta": np.where(np.arange(500) == 3, np.nan, good[0]["beta"])}
    with caplog.at_level(logging.WARNING):
        combined = combine_shard_samples([*good, stuck, broken])["beta"]
    assert "Shard 3 is left out, because its draws did not move" in caplog.text
    assert "Shard 4 is left out, because its draws are not finite" in caplog.text
    assert combined.mean() == pytest.approx(
        np.average([g["beta"].mean() for g in good], weights=[1 / g["beta"].var() for g in good])
    )


def test_modes_are_combined_apart():
    rng = np.random.default_rng(1)
    centres = [0.0, 0.1, 5.0, -0.1, 5.2]
    samples = [{"phi0": c + rng.normal(size=(2, 400)), "beta": rng.normal(size=(2, 400))}
               for c in centres]  # fmt: skip
    modes = combine_shard_samples_bimodal(samples, cluster_param="phi0")
    assert list(modes) == ["mode_low", "mode_high"]
    low = combine_shard_samples([samples[k] for k in (0, 1, 3)])
    high = combine_shard_samples([samples[k] for k in (2, 4)])
    for name in ("phi0", "beta"):
        np.testing.assert_array_equal(modes["mode_low"][name], low[name])
        np.testing.assert_array_equal(modes["mode_high"][name], high[name])
    # The first in alphabetical order is beta, which has no modes worth speaking of.
    assert set(combine_shard_samples_bimodal(samples)) <= {"mode_low", "mode_high"}
    lonely = combine_shard_samples_bimodal(samples[:3], cluster_param="phi0")
    assert list(lonely) == ["mode_low"]
    np.testing.assert_array_equal(
        lonely["mode_low"]["phi0"], combine_shard_samples(samples[:3])["phi0"]
    )


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: combine_shard_samples([]), DataError, "no shard"),
        (lambda: consensus_mc([]), DataError, "at least 1"),
        (lambda: robust_consensus_mc(regression(1, 0)[0]), DataError, "at least 2"),
        (
            lambda: combine_shard_samples([{"a": np.ones(3)}, {"b": np.ones(3)}]),
            DataError,
            "same parameters",
        ),
        (
            lambda: combine_shard_samples([{"a": np.ones(3)}, {"a": np.ones(4)}]),
            DataError,
            r"\(4,\)",
        ),
        (
            lambda: combine_shard_samples([{"a": np.ones(3)}] * 2, method="consensus"),
            ConfigError,
            "consensus_mc",
        ),
        (lambda: combine_shard_samples([{"a": np.ones(3)}] * 2, chunk_size=0), ConfigError, "0"),
        (
            lambda: combine_shard_samples_bimodal([{"beta": np.ones(3)}], cluster_param="beat"),
            ConfigError,
            "did you mean 'beta'",
        ),
        (
            lambda: consensus_mc([ShardPosterior(np.zeros(2), np.ones((2, 2)), 5, 3)]),
            DataError,
            "shard 3 is not positive definite",
        ),
        (
            lambda: consensus_mc([ShardPosterior(np.zeros(2), np.eye(3))]),
            DataError,
            r"\(3, 3\)",
        ),
    ],
)
def test_what_cannot_be_combined_is_refused(call, error, said):
    with pytest.raises(error, match=said):
        call()
