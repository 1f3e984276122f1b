"""Which points are the same pair of frames, and how pairs are divided among shards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heterodyne._typing import FloatArray, IntArray


def merged(values: FloatArray, tolerance: float) -> tuple[FloatArray, IntArray]:
    """Find the distinct values where some differ by rounding.

    Args:
        values: Finite values, shape (n,).
        tolerance: Neighbours in size that lie no further apart are one value.

    Returns:
        The smallest member of each group, sorted, shape (m,), and the group of each value,
        shape (n,).
    """
    distinct, inverse = np.unique(values, return_inverse=True)
    first = np.concatenate([[True], np.diff(distinct) > tolerance])
    group = np.cumsum(first) - 1
    return distinct[first], group[inverse.reshape(-1)].astype(np.int64)


def frames_of(t1: FloatArray, t2: FloatArray) -> tuple[FloatArray, IntArray, IntArray]:
    """Number the frames of points given by their two times.

    Args:
        t1: First time of each point in s, shape (n,).
        t2: Second time of each point in s, shape (n,).

    Returns:
        The distinct times, shape (N,), and the frame of each first and second time, both
        of shape (n,). Times that differ by rounding in float32 are one.
    """
    both = np.concatenate([t1, t2])
    # Absolute clock times are large: their own spacing is the rounding then, not that of the span.
    span = np.float32(np.ptp(both))
    tolerance = 2.0 * max(float(np.spacing(np.abs(both).max())), float(np.spacing(span)))
    times, frames = merged(both, tolerance)
    return times, frames[: t1.size], frames[t1.size :]


def pair_keys(angle: IntArray, i: IntArray, j: IntArray, n_frames: int) -> IntArray:
    """Return a number that points share if and only if they are the same pair.

    Args:
        angle: Angle of each point, counted from 0, shape (n,).
        i: First frame of each point, counted from 0, shape (n,).
        j: Second frame of each point, shape (n,).
        n_frames: Number of frames N.

    Returns:
        ``(angle N + earlier frame) N + later frame``, shape (n,).
    """
    return (angle * n_frames + np.minimum(i, j)) * n_frames + np.maximum(i, j)


@dataclass(frozen=True, eq=False)
class UniquePairs:
    """The distinct pairs among points.

    Attributes:
        keys: Key of each pair, increasing, shape (m,).
        first: Position of one point of each pair, shape (m,).
        of_point: Pair of each point, shape (n,).
    """

    keys: IntArray
    first: IntArray
    of_point: IntArray

    @classmethod
    def of(cls, keys: IntArray) -> UniquePairs:
        """Group points by their keys, shape (n,)."""
        distinct, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        return cls(distinct, first, inverse.reshape(-1))

    @property
    def n_pairs(self) -> int:
        """Number of distinct pairs."""
        return self.keys.size

    def points(self, shard: IntArray, n_shards: int) -> list[IntArray]:
        """Return the positions of the points of each shard, in order.

        Args:
            shard: Shard of each pair, counted from 0, shape (m,).
            n_shards: Number of shards.
        """
        of_point = shard[self.of_point]
        order = np.argsort(of_point, kind="stable")
        ends = np.cumsum(np.bincount(of_point, minlength=n_shards))
        return np.split(order, ends[:-1])


def dealt(
    pairs: UniquePairs, n_shards: int, rng: np.random.Generator, stratum: IntArray | None = None
) -> IntArray:
    """Deal shuffled pairs out like cards, one stratum after the other.

    Every shard gets the same number of pairs of each stratum, to within one, and in all.

    Args:
        pairs: Pairs to deal.
        n_shards: Number of shards.
        rng: Source of the order.
        stratum: Stratum of each pair, shape (m,); None for one.

    Returns:
        Shard of each pair, counted from 0, shape (m,).
    """
    order = rng.permutation(pairs.n_pairs)
    if stratum is not None:
        order = order[np.argsort(stratum[order], kind="stable")]
    shard = np.empty(pairs.n_pairs, np.int64)
    shard[order] = np.arange(pairs.n_pairs) % n_shards
    return shard


def cut_in_order(order: IntArray, n_shards: int) -> IntArray:
    """Cut ordered pairs into runs of the same number of pairs, to within one.

    Args:
        order: Positions of the pairs in their order, shape (m,).
        n_shards: Number of shards, at most m.

    Returns:
        Shard of each pair, counted from 0, shape (m,).
    """
    shard = np.empty(order.size, np.int64)
    shard[order] = np.arange(order.size) * n_shards // order.size
    return shard
