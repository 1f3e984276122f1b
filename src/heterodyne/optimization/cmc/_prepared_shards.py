"""Shards of prepared data: how they are made, checked and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from typing import Any

import numpy as np

from heterodyne._errors import ConfigError, DataError
from heterodyne._log import get_logger
from heterodyne._typing import FloatArray, IntArray
from heterodyne.optimization.cmc._array_checks import count, finite, likelihood_weights, of_shape
from heterodyne.optimization.cmc._pair_split import (
    UniquePairs,
    cut_in_order,
    dealt,
    merged,
    pair_keys,
)
from heterodyne.optimization.cmc._pooled import extract_phi_info
from heterodyne.optimization.cmc._prepared import PreparedData, refuse_diagonal

_LOG = get_logger(__name__)

_ROUNDING = 1e-9


class ShardingStrategy(Enum):
    """How pairs are divided among shards.

    In each of them every point is in one shard, with all other points of its pair.

    Attributes:
        RANDOM: At random.
        CONTIGUOUS: In blocks of the mean time of the two frames, so that a shard sees one
            stretch of the measurement.
        STRATIFIED: At random within short stretches of the mean time, so that every shard
            sees the whole measurement.
        ANGLE_BALANCED: At random within each angle, so that every shard has its share of
            every angle.
    """

    RANDOM = "random"
    CONTIGUOUS = "contiguous"
    STRATIFIED = "stratified"
    ANGLE_BALANCED = "angle_balanced"


def create_shards(
    prepared_data: PreparedData,
    n_shards: int,
    strategy: ShardingStrategy = ShardingStrategy.ANGLE_BALANCED,
    *,
    seed: int = 42,
) -> list[PreparedData]:
    """Divide points among shards.

    Every point is in one shard, with all other points of its pair. The numbers of pairs
    differ by at most one between shards.

    Args:
        prepared_data: Points, with their frames in ``metadata`` (without these, all points
            of all matrices, row by row).
        n_shards: Number of shards, at most that of distinct pairs.
        strategy: How pairs are divided, a member or its value.
        seed: Seed of the shuffles; CONTIGUOUS shuffles pairs of one mean time.

    Returns:
        The shards; points keep their order. ``metadata`` holds their frames, and ``shard``,
        ``n_shards``, ``strategy`` and ``seed``.

    Raises:
        ConfigError: A number of shards or a strategy that cannot be used.
        DataError: Arrays of different lengths, or frames that are not known.
    """
    chosen = _strategy(strategy)
    n_shards = count(n_shards, "n_shards")
    _check_shapes(prepared_data)
    frames = _frames(prepared_data)
    if frames is None:
        raise DataError(
            f"the frames of {prepared_data.c2_data.size} points are not known",
            where="metadata",
            allowed="t1_index and t2_index, counted from 0",
            remedy="Use prepare_data, or give both: points of one pair must share a shard",
        )
    i, j = frames
    angle = extract_phi_info(prepared_data.phi_angles)[1]
    pairs = UniquePairs.of(pair_keys(angle, i, j, prepared_data.n_times))
    if n_shards > pairs.n_pairs:
        raise ConfigError(
            f"{n_shards} shards", where="n_shards", allowed=f"1 to {pairs.n_pairs} distinct pairs"
        )
    sums = (prepared_data.time_array[i] + prepared_data.time_array[j])[pairs.first]
    shard = _assigned(chosen, pairs, n_shards, seed, sums, angle[pairs.first])
    parts = pairs.points(shard, n_shards)
    about = {"n_shards": n_shards, "strategy": chosen.value, "seed": seed}
    return [
        _part(prepared_data, points, frames, {"shard": k, **about})
        for k, points in enumerate(parts)
    ]


def _strategy(given: object) -> ShardingStrategy:
    try:
        return ShardingStrategy(given)
    except ValueError:
        words = ", ".join(member.value for member in ShardingStrategy)
        raise ConfigError(f"{given!r} is not known", where="strategy", allowed=words) from None


def _assigned(
    strategy: ShardingStrategy,
    pairs: UniquePairs,
    n_shards: int,
    seed: int,
    sums: FloatArray,
    angle: IntArray,
) -> IntArray:
    """Shard of each pair, whose sums of times and angles are given."""
    rng = np.random.default_rng(seed)
    if strategy is ShardingStrategy.RANDOM:
        return dealt(pairs, n_shards, rng)
    if strategy is ShardingStrategy.ANGLE_BALANCED:
        return dealt(pairs, n_shards, rng, angle)
    age = merged(sums, _ROUNDING * float(np.ptp(sums)))[1]
    # Many pairs have one mean time: in the order of their keys, lags and angles would be sorted.
    order = np.lexsort((rng.random(age.size), age))
    if strategy is ShardingStrategy.CONTIGUOUS:
        return cut_in_order(order, n_shards)
    stretch = np.empty_like(order)
    stretch[order] = np.arange(order.size) // n_shards
    return dealt(pairs, n_shards, rng, stretch)


def _part(
    whole: PreparedData,
    points: IntArray,
    frames: tuple[IntArray, IntArray],
    about: Mapping[str, Any],
) -> PreparedData:
    i, j = frames
    return replace(
        whole,
        c2_data=whole.c2_data[points],
        weights=None if whole.weights is None else whole.weights[points],
        phi_angles=whole.phi_angles[points],
        metadata={**whole.metadata, "t1_index": i[points], "t2_index": j[points], **about},
        n_angles=0,
    )


def _check_shapes(data: PreparedData) -> None:
    values = np.asarray(data.c2_data)
    if values.ndim != 1 or values.size == 0:
        raise DataError(
            f"the shape is {values.shape}",
            where="c2_data",
            allowed="(n_total,), with at least one point",
        )
    of_shape(np.asarray(data.phi_angles), values.shape, "phi_angles", "c2_data")
    if data.weights is not None:
        of_shape(np.asarray(data.weights), values.shape, "weights", "c2_data")


def _frames(data: PreparedData) -> tuple[IntArray, IntArray] | None:
    """Both frames of each point, shape (n_total,); None where they are not known."""
    if not {"t1_index", "t2_index"} <= data.metadata.keys():
        return _frames_of_whole_matrices(data)
    found = []
    for name in ("t1_index", "t2_index"):
        index = np.asarray(data.metadata[name])
        where = f"metadata[{name!r}]"
        of_shape(index, data.c2_data.shape, where, "c2_data")
        if index.dtype.kind not in "iu" or index.min() < 0 or index.max() >= data.n_times:
            raise DataError(
                f"the values are of type {index.dtype}, {index.min()} to {index.max()}",
                where=where,
                allowed=f"whole numbers, 0 to {data.n_times - 1}",
            )
        found.append(index.astype(np.int64))
    return found[0], found[1]


def _frames_of_whole_matrices(data: PreparedData) -> tuple[IntArray, IntArray] | None:
    """Frames where the points are whole matrices, one angle after the other, row by row."""
    n_matrices, rest = divmod(data.c2_data.size, data.n_times**2)
    if rest:
        return None
    phi = np.asarray(data.phi_angles).reshape(n_matrices, -1)
    if np.any(phi != phi[:, :1]):
        return None
    _, i, j = np.indices((n_matrices, data.n_times, data.n_times))
    return i.reshape(-1), j.reshape(-1)


def validate_shard_data(shard: PreparedData) -> None:
    """Check one shard.

    Args:
        shard: Shard to check, its diagonal included, whatever ``prepare_data`` was told.
            Where ``metadata`` does not tell the frames of the points, the diagonal is not
            known and not checked, which is logged.

    Raises:
        DataError: There is no point; lengths differ; a value, angle or weight is not
            finite; a weight is negative, or none is above 0; a value on the diagonal is not
            above 0.
    """
    _check_shapes(shard)
    values = finite(shard.c2_data, "c2_data")
    finite(shard.phi_angles, "phi_angles")
    if shard.weights is not None:
        likelihood_weights(shard.weights, values.shape)
    frames = _frames(shard)
    if frames is None:
        _LOG.warning("The frames of the points are not known: the diagonal is not checked.")
    else:
        refuse_diagonal(values, *frames)


def estimate_shard_memory(shard: PreparedData) -> int:
    """Return the bytes of all arrays of a shard, those in ``metadata`` included.

    What JAX allocates while it computes comes on top.

    Args:
        shard: Shard to measure.
    """
    own = (shard.c2_data, shard.weights, shard.time_array, shard.phi_angles)
    arrays = [x for x in (*own, *shard.metadata.values()) if isinstance(x, np.ndarray)]
    return sum(array.nbytes for array in arrays)
