"""Points of all angles in one row, each with its times and its angle, and shards of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from heterodyne._errors import ConfigError, DataError
from heterodyne._log import get_logger
from heterodyne._typing import FloatArray, IntArray
from heterodyne.data._matrices import ASYMMETRY_RTOL
from heterodyne.optimization.cmc._array_checks import count, finite, of_shape
from heterodyne.optimization.cmc._pair_noise import noise_scale
from heterodyne.optimization.cmc._pair_split import (
    UniquePairs,
    dealt,
    frames_of,
    merged,
    pair_keys,
)

_LOG = get_logger(__name__)

PHI_TOLERANCE = 1e-6
"""Angles that differ by no more than this many degrees are one."""


@dataclass(frozen=True, eq=False)
class PooledCMCData:
    """Points of all angles, one after the other.

    The two halves of a symmetric matrix hold each pair twice, as (t1, t2) and (t2, t1).
    Both points are kept here and in shards, where they stay together; a likelihood must
    count them once, for twice would make its errors too small by a factor of √2.

    Attributes:
        data: Measured correlation, shape (n_total,).
        t1: First time of each point in s, shape (n_total,).
        t2: Second time of each point in s, shape (n_total,).
        phi: Angle of each point in degrees, shape (n_total,).
        phi_unique: Distinct angles in degrees, increasing, shape (n_phi,). Shards keep
            those of all data, so that an index means the same angle in each.
        phi_indices: Index of each point into ``phi_unique``, shape (n_total,).
        n_total: Number of points.
        n_phi: Number of distinct angles.
        noise_scale: Estimate of the standard deviation of the error of a point; shards keep
            that of all data.
    """

    data: FloatArray
    t1: FloatArray
    t2: FloatArray
    phi: FloatArray
    phi_unique: FloatArray
    phi_indices: IntArray
    n_total: int
    n_phi: int
    noise_scale: float


def validate_pooled_data(data: np.ndarray, t1: np.ndarray, t2: np.ndarray, phi: np.ndarray) -> None:
    """Check that pooled arrays can be used.

    Args:
        data: Measured correlation, shape (n_total,).
        t1: First time of each point in s, shape (n_total,).
        t2: Second time of each point in s, shape (n_total,).
        phi: Angle of each point in degrees, shape (n_total,).

    Raises:
        DataError: An array is no row of finite real numbers, is empty, or has another
            length than ``data``.
    """
    _checked(data, t1, t2, phi)


def _checked(*arrays: object) -> list[FloatArray]:
    found = [
        finite(values, name)
        for name, values in zip(("data", "t1", "t2", "phi"), arrays, strict=True)
    ]
    if found[0].ndim != 1 or found[0].size == 0:
        raise DataError(
            f"the shape is {found[0].shape}",
            where="data",
            allowed="(n_total,), with at least one point",
            remedy="Flatten matrices with ravel, and repeat times and angles to match",
        )
    for name, values in zip(("t1", "t2", "phi"), found[1:], strict=True):
        of_shape(values, found[0].shape, name, "data")
    return found


def extract_phi_info(phi: np.ndarray) -> tuple[FloatArray, IntArray]:
    """Find the distinct angles.

    Neighbouring angles no further apart than 1e-6 degrees are one, named by the smallest.
    Angles are plain numbers here: 0 and 360, or -180 and 180, are two.

    Args:
        phi: Angle of each point in degrees, shape (n,).

    Returns:
        The distinct angles, increasing, shape (n_phi,), and the index of the angle of each
        point, shape (n,).

    Raises:
        DataError: There is no angle, or one that is not finite.
    """
    angles = np.atleast_1d(finite(phi, "phi"))
    if angles.ndim != 1 or angles.size == 0:
        raise DataError(
            f"the shape is {angles.shape}", where="phi", allowed="(n,), with at least one angle"
        )
    return merged(angles, PHI_TOLERANCE)


def prepare_mcmc_data(
    data: np.ndarray,
    t1: np.ndarray,
    t2: np.ndarray,
    phi: np.ndarray,
    filter_diagonal: bool = True,
) -> PooledCMCData:
    """Check pooled points, leave out the diagonal, and find angles and noise.

    The noise is measured on differences of neighbouring pairs, in which a smooth signal
    cancels, by their median absolute deviation. It holds the errors that neighbouring pairs
    do not share: what all pairs of a frame have in common cancels too.

    Args:
        data: Measured correlation, shape (n_total,).
        t1: First time of each point in s, shape (n_total,).
        t2: Second time of each point in s, shape (n_total,).
        phi: Angle of each point in degrees, shape (n_total,).
        filter_diagonal: Whether to leave out points with t1 and t2 less than half the
            smallest time step apart: the diagonal holds shot noise.

    Returns:
        The points that are left, in their order. Those at t = 0 are among them.

    Raises:
        DataError: Arrays that ``validate_pooled_data`` refuses, or no point is left.
    """
    arrays = _checked(data, t1, t2, phi)
    if filter_diagonal:
        arrays = _without_diagonal(*arrays)
    values, first, second, angles = arrays
    phi_unique, phi_indices = extract_phi_info(angles)
    pairs, n_frames = _pairs(first, second, phi_indices)
    _log_repeats(values, pairs)
    return PooledCMCData(
        data=values,
        t1=first,
        t2=second,
        phi=angles,
        phi_unique=phi_unique,
        phi_indices=phi_indices,
        n_total=values.size,
        n_phi=phi_unique.size,
        noise_scale=noise_scale(values[pairs.first], pairs.keys, n_frames),
    )


def _without_diagonal(
    data: FloatArray, t1: FloatArray, t2: FloatArray, phi: FloatArray
) -> list[FloatArray]:
    times = frames_of(t1, t2)[0]
    nearest = 0.5 * float(np.diff(times).min()) if times.size > 1 else 0.0
    off = np.abs(t1 - t2) > nearest
    if not off.any():
        raise DataError(
            f"all {data.size} points are on the diagonal",
            where="t1, t2",
            allowed="points of two frames",
        )
    _LOG.info("%d points on the diagonal are left out.", np.count_nonzero(~off))
    return [values[off] for values in (data, t1, t2, phi)]


def _pairs(t1: FloatArray, t2: FloatArray, phi_indices: IntArray) -> tuple[UniquePairs, int]:
    """The distinct pairs of points, and the number of frames."""
    times, i, j = frames_of(t1, t2)
    return UniquePairs.of(pair_keys(phi_indices, i, j, times.size)), times.size


def _log_repeats(data: FloatArray, pairs: UniquePairs) -> None:
    repeats = data.size - pairs.n_pairs
    if repeats == 0:
        return
    _LOG.info(
        "%d points are %d distinct pairs: a likelihood must count each pair once.",
        data.size, pairs.n_pairs,
    )  # fmt: skip
    largest = float(np.abs(data - data[pairs.first][pairs.of_point]).max())
    if largest > ASYMMETRY_RTOL * float(np.abs(data).max()):
        _LOG.warning(
            "Points of the same pair differ by up to %.3g: unless they are separate "
            "measurements, one of them is wrong. All are kept.",
            largest,
        )


def shard_pooled_random(
    prepared: PooledCMCData,
    num_shards: int | None = None,
    max_points_per_shard: int | None = None,
    max_shards: int = 100,
    seed: int = 42,
) -> list[PooledCMCData]:
    """Divide pooled points among shards at random.

    Every point is in one shard, with all other points of its pair. The numbers of pairs
    differ by at most one.

    Args:
        prepared: Points to divide.
        num_shards: Number of shards; None derives it.
        max_points_per_shard: Points that a shard should hold, from which the number is
            derived; without it there is one shard.
        max_shards: Largest number of shards; more than that, or more than there are pairs,
            is reduced, which is logged.
        seed: Seed of the shuffle.

    Returns:
        The shards; points keep their order.

    Raises:
        ConfigError: A number that is not at least 1.
    """
    pairs, _ = _pairs(prepared.t1, prepared.t2, prepared.phi_indices)
    n_shards = _shard_count(
        prepared, num_shards, max_points_per_shard, max_shards, pairs.n_pairs, otherwise=1
    )
    return _shards(prepared, pairs, n_shards, dealt(pairs, n_shards, np.random.default_rng(seed)))


def shard_pooled_angle_balanced(
    prepared: PooledCMCData,
    num_shards: int | None = None,
    max_points_per_shard: int | None = None,
    max_shards: int = 500,
    min_angle_coverage: float = 0.8,
    seed: int = 42,
) -> list[PooledCMCData]:
    """Divide pooled points among shards so that each has its share of every angle.

    Every point is in one shard, with all other points of its pair. The numbers of pairs
    of an angle, and of all angles, differ by at most one between shards.

    Args:
        prepared: Points to divide; those of a single angle are divided at random.
        num_shards: Number of shards; None derives it.
        max_points_per_shard: Points that a shard should hold, from which the number is
            derived; without it there are as many shards as angles.
        max_shards: Largest number of shards; more than that, or more than there are pairs,
            is reduced, which is logged.
        min_angle_coverage: Share of the angles that a shard should hold; shards that hold
            fewer are logged.
        seed: Seed of the shuffle.

    Returns:
        The shards; points keep their order.

    Raises:
        ConfigError: A number that is not at least 1, or a share outside 0 to 1.
    """
    if not 0.0 <= min_angle_coverage <= 1.0:
        raise ConfigError(
            f"the share is {min_angle_coverage:g}", where="min_angle_coverage", allowed="0 to 1"
        )
    if prepared.n_phi == 1:
        return shard_pooled_random(prepared, num_shards, max_points_per_shard, max_shards, seed)
    pairs, _ = _pairs(prepared.t1, prepared.t2, prepared.phi_indices)
    n_shards = _shard_count(
        prepared,
        num_shards,
        max_points_per_shard,
        max_shards,
        pairs.n_pairs,
        otherwise=max(1, prepared.n_phi),
    )
    angle = prepared.phi_indices[pairs.first]
    shard = dealt(pairs, n_shards, np.random.default_rng(seed), angle)
    shards = _shards(prepared, pairs, n_shards, shard)
    _log_coverage(shards, min_angle_coverage)
    return shards


def _shard_count(
    prepared: PooledCMCData,
    num_shards: int | None,
    max_points: int | None,
    max_shards: int,
    n_pairs: int,
    *,
    otherwise: int,
) -> int:
    wanted = otherwise
    if max_points is not None:
        wanted = -(-prepared.n_total // count(max_points, "max_points_per_shard"))
    if num_shards is not None:
        wanted = count(num_shards, "num_shards")
    most = min(count(max_shards, "max_shards"), n_pairs)
    if wanted > most:
        _LOG.warning(
            "%d shards are reduced to %d (max_shards is %d, and there are %d distinct pairs).",
            wanted, most, max_shards, n_pairs,
        )  # fmt: skip
    return min(wanted, most)


def _shards(
    prepared: PooledCMCData, pairs: UniquePairs, n_shards: int, shard: IntArray
) -> list[PooledCMCData]:
    fields = ("data", "t1", "t2", "phi", "phi_indices")
    return [
        replace(
            prepared,
            n_total=points.size,
            **{name: getattr(prepared, name)[points] for name in fields},
        )
        for points in pairs.points(shard, n_shards)
    ]


def _log_coverage(shards: list[PooledCMCData], least: float) -> None:
    covered = [np.unique(shard.phi_indices).size / shard.n_phi for shard in shards]
    few = [k for k, share in enumerate(covered) if share < least]
    if few:
        _LOG.warning(
            "%d of %d shards hold less than %.0f %% of the angles, the least of them %.0f %%: "
            "shards are too small, or an angle has few points.",
            len(few), len(shards), 100 * least, 100 * min(covered),
        )  # fmt: skip
