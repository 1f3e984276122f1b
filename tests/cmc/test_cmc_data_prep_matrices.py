"""Matrices for JAX, their blocks, and draws of shards behind each other."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heterodyne._errors import ConfigError, DataError
from heterodyne.core._jax import jax, jnp
from heterodyne.optimization.cmc import data_prep


def matrix(n=8, seed=0):
    values = np.triu(1.0 + np.random.default_rng(seed).random((n, n)))
    return values + np.triu(values, 1).T


def test_arrays_are_handed_to_jax_in_full_precision():
    c2, weights = matrix(), np.ones((8, 8), int)
    found = data_prep.prepare_cmc_data(c2, np.full((8, 8), 0.1, np.float32), weights)
    for array, wanted in zip(found, (c2, np.full((8, 8), np.float32(0.1)), weights), strict=True):
        assert isinstance(array, jax.Array)
        assert array.dtype == jnp.float64
        np.testing.assert_array_equal(array, wanted)
    again = data_prep.prepare_cmc_data(found[0])
    np.testing.assert_array_equal(again[0], c2)
    assert again[1:] == (None, None)


def test_a_number_for_sigma_stays_a_number():
    _, sigma, _ = data_prep.prepare_cmc_data(matrix(), 0.25)
    assert (sigma.shape, float(sigma)) == ((), 0.25)


def test_slices_may_oscillate():
    c2 = 1.0 + np.cos(np.arange(20.0))
    found, _, weights = data_prep.prepare_cmc_data(c2, weights=c2 + 1.0)
    np.testing.assert_array_equal(found, c2)
    np.testing.assert_array_equal(weights, c2 + 1.0)


@pytest.mark.parametrize("half", [np.triu, np.tril])
def test_a_half_that_is_not_stored_is_filled(half, caplog):
    caplog.set_level(logging.INFO)
    found, _, _ = data_prep.prepare_cmc_data(half(matrix()))
    np.testing.assert_array_equal(found, matrix())
    assert f"the {'lower' if half is np.triu else 'upper'} half is not stored" in caplog.text


def test_halves_that_differ_are_told_and_kept(caplog):
    caplog.set_level(logging.INFO)
    c2 = matrix()
    data_prep.prepare_cmc_data(c2)
    assert caplog.text == ""
    c2[5, 2] += 0.5
    found, _, _ = data_prep.prepare_cmc_data(c2)
    np.testing.assert_array_equal(found, c2)
    assert "differ by up to 0.5" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"c2_data": np.where(np.eye(8) > 0, np.nan, matrix())}, "8 of 64 values are not finite"),
        ({"c2_data": np.where(np.eye(8) > 0, np.inf, matrix())}, r"position \(0, 0\)"),
        ({"c2_data": matrix()[:5]}, r"\(5, 8\)"),
        ({"c2_data": matrix()[None]}, r"\(1, 8, 8\)"),
        ({"c2_data": np.float64(1.0)}, r"\(\)"),
        ({"c2_data": []}, r"\(0,\)"),
        ({"c2_data": np.eye(8)}, "no value is stored off the diagonal"),
        ({"c2_data": [["a"]]}, "real numbers"),
        ({"sigma": 0.0}, "sigma"),
        ({"sigma": np.nan}, "sigma"),
        ({"sigma": -matrix()}, "sigma"),
        ({"sigma": np.ones(8)}, r"sigma.*\(8, 8\)"),
        ({"weights": np.ones(64)}, r"weights.*\(8, 8\)"),
        ({"weights": np.zeros((8, 8))}, "weights go from 0 to 0"),
        ({"weights": 1.5 - matrix()}, "weights go from -"),
        ({"weights": np.full((8, 8), np.nan)}, "weights"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        data_prep.prepare_cmc_data(**({"c2_data": matrix()} | arguments))


@given(st.integers(1, 300), st.data())
def test_a_grid_covers_the_frames_once(n_times, data):
    n_shards = data.draw(st.integers(1, n_times))
    runs = data_prep.create_shard_grid(n_times, n_shards)
    assert [k for start, stop in runs for k in range(start, stop)] == list(range(n_times))
    lengths = [stop - start for start, stop in runs]
    assert len(lengths) == n_shards
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(("n_times", "n_shards"), [(5, 0), (5, 6), (0, 1), (5, -1), (5, 1.0)])
def test_a_grid_of_no_frames_is_refused(n_times, n_shards):
    with pytest.raises(ConfigError, match=r"n_times|n_shards"):
        data_prep.create_shard_grid(n_times, n_shards)


def test_blocks_are_cut_and_lost_pairs_are_counted(caplog):
    c2 = matrix(10)
    grid = data_prep.create_shard_grid(10, 3)
    blocks = data_prep.shard_correlation_data(c2, grid)
    for (start, stop), block in zip(grid, blocks, strict=True):
        assert isinstance(block, jax.Array)
        np.testing.assert_array_equal(block, c2[start:stop, start:stop])
    assert sum(len(b) for b in blocks) == 10
    # Runs of 3, 3 and 4 frames hold 3 + 3 + 6 of the 45 pairs.
    assert "12 of 45 pairs: 33 pairs (73.3 %)" in caplog.text


def test_one_block_holds_every_pair(caplog):
    (block,) = data_prep.shard_correlation_data(matrix(), [(0, 8)])
    np.testing.assert_array_equal(block, matrix())
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("c2", "grid"),
    [
        (np.ones(8), [(0, 8)]),
        (np.ones((8, 7)), [(0, 7)]),
        (np.ones((2, 8, 8)), [(0, 8)]),
        (np.full((8, 8), np.nan), [(0, 8)]),
        (matrix(), [(0, 9)]),
        (matrix(), [(-1, 4)]),
        (matrix(), [(4, 4)]),
        (matrix(), [(0, 5), (4, 8)]),
        (matrix(), [(4, 8), (0, 5)]),
    ],
)
def test_blocks_that_cannot_be_cut_are_refused(c2, grid):
    with pytest.raises(ValueError, match=r"c2_data|shard_grid"):
        data_prep.shard_correlation_data(c2, grid)


def test_draws_are_put_behind_each_other():
    one = {"a": np.array([1.0, 2.0]), "b": np.array([3.0, 4.0])}
    two = {"b": np.array([6.0]), "a": np.array([5.0])}
    merged = data_prep.merge_shard_results([one, two])
    assert list(merged) == ["a", "b"]
    np.testing.assert_array_equal(merged["a"], [1.0, 2.0, 5.0])
    np.testing.assert_array_equal(merged["b"], [3.0, 4.0, 6.0])


@pytest.mark.parametrize(
    "shards",
    [
        [],
        [{"a": np.ones(2)}, {"b": np.ones(2)}],
        [{"a": np.ones(2)}, {"a": np.ones(2), "b": np.ones(2)}],
        [{"a": np.ones(2), "b": np.ones(3)}],
        [{"a": np.ones((2, 3))}],
    ],
)
def test_draws_that_do_not_fit_are_refused(shards):
    with pytest.raises(DataError, match="shard"):
        data_prep.merge_shard_results(shards)


def test_draws_behind_each_other_are_no_posterior():
    """What the docstring warns of: the mixture does not narrow with the number of shards."""
    rng = np.random.default_rng(1)
    n_shards, n_data, sigma = 16, 25, 1.0
    centres = rng.normal(size=(n_shards, n_data)).mean(axis=1)
    width = sigma / np.sqrt(n_data)
    draws = [{"mean": rng.normal(centre, width, 2000)} for centre in centres]
    posterior = width / np.sqrt(n_shards)
    assert data_prep.merge_shard_results(draws)["mean"].std() > 4 * posterior
