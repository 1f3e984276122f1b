"""Two modes in many shards: what they are, and which shard is in which."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heterodyne._errors import ConfigError, DataError
from heterodyne._typing import ArrayLike, FloatArray
from heterodyne.optimization.cmc._bimodal import BimodalResult, in_order
from heterodyne.optimization.cmc._summary import deviation
from heterodyne.optimization.cmc._two_groups import upper_group


@dataclass(frozen=True)
class ModeCluster:
    """One mode, combined from the shards that are in it.

    Attributes:
        mean: Mean of the combination by parameter.
        std: Its standard deviation by parameter.
        weight: Share of the shards that are in the mode, 0 to 1.
        n_shards: Their number.
    """

    mean: dict[str, float]
    std: dict[str, float]
    weight: float
    n_shards: int


@dataclass(frozen=True)
class BimodalConsensusResult:
    """A combination of shards that keeps their modes apart.

    Attributes:
        modes: The modes, usually two.
        modal_params: Parameters in which shards have two modes.
        co_occurrence: Which parameters change modes together.
    """

    modes: list[ModeCluster]
    modal_params: list[str]
    co_occurrence: dict[str, Any]


def summarize_cross_shard_bimodality(
    bimodal_detections: Mapping[str, Sequence[BimodalResult]],
    n_shards: int,
    consensus_means: Mapping[str, float] | None = None,
    significance_threshold: float = 0.05,
) -> dict[str, Any]:
    """Say of each parameter in how many shards it has two modes, and where they are.

    Args:
        bimodal_detections: Results of ``check_shard_bimodality``.
        n_shards: Number of shards.
        consensus_means: Mean of the combined posterior by parameter.
        significance_threshold: Smallest significance of a parameter to be listed.

    Returns:
        ``n_detections``, the number of results with two modes; ``n_shards``; ``per_param``,
        for each parameter with such results: ``fraction_bimodal`` of all shards;
        ``lower_mode_mean`` and ``upper_mode_mean``, means over those shards; ``separation``,
        their distance; ``significance``, the distance over the scatter of the modes from
        shard to shard (root of the mean of both variances), NaN for a single shard, which
        has none and is listed; ``consensus_in_trough``, whether the combined mean is nearer
        to the middle between the modes than to either, None where it is not given.

    Raises:
        ConfigError: Fewer than one shard.
        DataError: More results than shards.
    """
    if n_shards < 1:
        raise ConfigError(f"{n_shards} shards", where="n_shards", allowed="1 or more")
    per_param, count = {}, 0
    for name, results in bimodal_detections.items():
        if len(results) > n_shards:
            raise DataError(f"{len(results)} results of {n_shards} shards", where=name)
        modes = np.array([r.means for r in results if r.is_bimodal and r.means is not None], float)
        count += len(modes)
        if not len(modes):
            continue
        consensus = None if consensus_means is None else consensus_means.get(name)
        summary = _between_shards(modes, consensus)
        if not summary["significance"] < significance_threshold:
            per_param[name] = {"fraction_bimodal": len(modes) / n_shards, **summary}
    return {"per_param": per_param, "n_detections": count, "n_shards": n_shards}


def _between_shards(modes: FloatArray, consensus: float | None) -> dict[str, Any]:
    """Figures of modes, shape (shards, 2)."""
    lower, upper = (float(x) for x in modes.mean(axis=0))
    separation = upper - lower
    scatter = math.hypot(*(deviation(x) for x in modes.T)) / math.sqrt(2.0)
    quarter = separation / 4.0
    return {
        "lower_mode_mean": lower,
        "upper_mode_mean": upper,
        "separation": separation,
        "significance": separation / scatter if scatter != 0 else math.inf,
        "consensus_in_trough": None
        if consensus is None or math.isnan(consensus)
        else lower + quarter < consensus < upper - quarter,
    }


def cluster_shard_modes(
    bimodal_detections: Mapping[str, Sequence[BimodalResult]],
    shard_samples: Mapping[int, Mapping[str, ArrayLike]],
    param_bounds: Mapping[str, tuple[float, float]] | None = None,
) -> tuple[list[int], list[int]]:
    """Divide shards into two groups by the modes that they are in.

    A shard is described by the parameters that have two modes in some shard: by the mean of
    its heavier mode where it has two itself, else by the mean of its draws. The sum of
    squares within both groups is small: the smallest for one such parameter, that of 2-means
    started at the two shards farthest apart for several. It divides shards that hardly differ
    as well; ``summarize_cross_shard_bimodality`` says how far modes are apart.

    Args:
        bimodal_detections: Results of ``check_shard_bimodality`` for the same shards.
        shard_samples: Draws by parameter of each shard.
        param_bounds: Range of values by parameter, in its unit, that counts as distance 1;
            without it, the range of its values among the shards.

    Returns:
        Shards of the group that is lower on average, and of the other. The second is empty
        where no parameter has two modes, or all shards have the same values.

    Raises:
        ConfigError: Bounds that are not finite and in order.
        DataError: Other numbers of results than of shards, or parameters that not all
            shards have.
    """
    shards = in_order(shard_samples)
    modal = [name for name, found in bimodal_detections.items() if any(r.is_bimodal for r in found)]
    features = [
        _scaled(_positions(name, bimodal_detections[name], shards), name, param_bounds)
        for name in modal
    ]
    points = np.array(features).T if features else np.zeros((len(shards), 1))
    high = upper_group(points)
    low, up = ([k for k, x in zip(shards, high, strict=True) if x == group] for group in (0, 1))
    return low, up


def _positions(
    name: str,
    results: Sequence[BimodalResult],
    shards: Mapping[int, Mapping[str, ArrayLike]],
) -> FloatArray:
    """Where each shard is in a parameter, shape (shards,)."""
    if len(results) != len(shards):
        raise DataError(f"{len(results)} results of {len(shards)} shards", where=name)
    found = []
    for result, (shard, draws) in zip(results, shards.items(), strict=True):
        if name not in draws:
            raise DataError(f"no draws of {name}", where=f"shard {shard}")
        if result.means is not None and result.weights is not None:
            found.append(result.means[int(np.argmax(result.weights))])
        else:
            found.append(float(np.mean(np.asarray(draws[name], float))))
    return np.array(found)


def _scaled(
    x: FloatArray, name: str, bounds: Mapping[str, tuple[float, float]] | None
) -> FloatArray:
    given = None if bounds is None else bounds.get(name)
    low, high = (float(x.min()), float(x.max())) if given is None else given
    if given is not None and not (math.isfinite(high - low) and high > low):
        raise ConfigError(
            f"{name} has the bounds {low:g} to {high:g}",
            where="param_bounds",
            allowed="finite numbers, the lower first",
        )
    return (x - low) / (high - low) if high > low else np.zeros_like(x)
