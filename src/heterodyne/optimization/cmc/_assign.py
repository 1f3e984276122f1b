"""Which shard each unique pair of frames belongs to.

Every fitted pair i < j of every angle belongs to exactly one shard, whatever the strategy. The
strategies differ in how alike the shards are:

- ``random``: pairs of all angles at random; shards differ by chance only.
- ``angle_balanced``: at random within each angle, so that shards hold equal parts of it.
- ``stratified``: as ``angle_balanced``, and pairs of neighbouring mean times are dealt out in
  turn, so that every shard covers the whole measurement evenly.
- ``contiguous``: bands of mean time (t1 + t2) / 2. Shards see different parts of the
  measurement, so where rates change their posteriors differ, and combining them as if they were
  normal is worse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from heterodyne._errors import ConfigError
from heterodyne._typing import BoolArray, IntArray, StoredArray
from heterodyne.config._suggest import not_known
from heterodyne.core._jax import jnp
from heterodyne.core.likelihood import PairData, pack_pairs
from heterodyne.optimization.cmc._pair_split import cut_in_order


@dataclass(frozen=True)
class Sharding:
    """How the pairs of a data set are divided.

    Attributes:
        n_shards: Number of shards, K.
        strategy: A key of ``STRATEGIES``.
        seed: Seed of the random assignment.
    """

    n_shards: int
    strategy: str = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ConfigError(
                not_known("strategy", self.strategy, STRATEGIES),
                where="sharding_strategy",
                allowed=", ".join(STRATEGIES),
            )
        if self.n_shards < 2:
            raise ConfigError(f"{self.n_shards} shards", where="num_shards", allowed="at least 2")

    def assign(self, pairs: BoolArray) -> IntArray:
        """Give every pair the number of its shard.

        Args:
            pairs: True for the fitted pairs i < j, shape (n_angles, N, N).

        Returns:
            Numbers from 0 to K - 1, and -1 where there is no pair, shape (n_angles, N, N).

        Raises:
            ConfigError: More shards than pairs at an angle.
        """
        fewest = int(pairs.sum(axis=(1, 2)).min())
        if fewest < self.n_shards:
            raise ConfigError(
                f"{self.n_shards} shards of {fewest} pairs",
                where="num_shards",
                allowed=f"at most {fewest}",
            )
        labels = np.full(pairs.shape, -1, np.int64)
        rng = np.random.default_rng(self.seed)
        labels[pairs] = STRATEGIES[self.strategy](np.argwhere(pairs), self.n_shards, rng)
        return labels


def _random(places: IntArray, n_shards: int, rng: np.random.Generator) -> IntArray:
    return rng.permutation(np.arange(len(places)) % n_shards)


def _angle_balanced(places: IntArray, n_shards: int, rng: np.random.Generator) -> IntArray:
    return _in_each_angle(places, lambda rows: _random(rows, n_shards, rng))


def _stratified(places: IntArray, n_shards: int, rng: np.random.Generator) -> IntArray:
    def dealt(rows: IntArray) -> IntArray:
        order = _by_mean_time(rows, rng)
        hands = -(-len(rows) // n_shards)
        deck = rng.permuted(np.tile(np.arange(n_shards), (hands, 1)), axis=1).ravel()
        labels = np.empty(len(rows), np.int64)
        labels[order] = deck[: len(rows)]
        return labels

    return _in_each_angle(places, dealt)


def _contiguous(places: IntArray, n_shards: int, rng: np.random.Generator) -> IntArray:
    def banded(rows: IntArray) -> IntArray:
        return cut_in_order(_by_mean_time(rows, rng), n_shards)

    return _in_each_angle(places, banded)


def _in_each_angle(places: IntArray, label: Callable[[IntArray], IntArray]) -> IntArray:
    labels = np.empty(len(places), np.int64)
    for angle in np.unique(places[:, 0]):
        chosen = places[:, 0] == angle
        labels[chosen] = label(places[chosen])
    return labels


def _by_mean_time(rows: IntArray, rng: np.random.Generator) -> IntArray:
    """Order pairs by mean time; those of one mean time come at random."""
    return np.lexsort((rng.random(len(rows)), rows[:, 1] + rows[:, 2]))


STRATEGIES: dict[str, Callable[[IntArray, int, np.random.Generator], IntArray]] = {
    "random": _random,
    "contiguous": _contiguous,
    "stratified": _stratified,
    "angle_balanced": _angle_balanced,
}


def assigned(data: PairData, shape: tuple[int, ...], sharding: Sharding) -> IntArray:
    """Give every fitted pair of a data set the number of its shard, as ``Sharding.assign``.

    Args:
        data: The whole data set, whose blocks may be missing; pairs with a weight of their own
            cannot be divided.
        shape: Shape of the measured correlation, (n_angles, N, N).
        sharding: How pairs are divided.
    """
    assert data.weights is None
    mask = np.asarray(data.mask) > 0
    return sharding.assign(np.broadcast_to(np.triu(np.outer(mask, mask), 1), shape))


def shard_of(data: PairData, c2: StoredArray, labels: IntArray, number: int) -> PairData:
    """Pack the pairs of one shard, in the same shapes as those of every other.

    Args:
        data: The whole data set, whose blocks may be missing.
        c2: Measured correlation, shape (n_angles, N, N).
        labels: From ``assigned``.
        number: Number of the shard, counted from 0.
    """
    shard = pack_pairs(
        c2,
        np.asarray(data.t),
        float(data.q),
        float(data.dt),
        np.asarray(data.phi),
        mask=np.asarray(data.mask) > 0,
        weights=labels == number,
    )
    # Neighbours within a shard are too few to measure the noise.
    return shard._replace(noise=jnp.asarray(data.noise))
