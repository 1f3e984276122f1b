"""From the posteriors of shards to one posterior: all rules of combination.

With normal posteriors of shards whose priors multiply to the prior, the product of the shards
is normal with the precision sum(L_k) and the mean sum(L_k)^-1 sum(L_k m_k), and the weighted
average sum(L_k)^-1 sum(L_k y_k) of one draw of each shard is a draw from it (Scott et al.,
International Journal of Management Science and Engineering Management 11, 78, 2016). Other
posteriors are combined as if they were normal, on axes on which that is least wrong: the
logarithms of positive parameters, with full covariances.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.stats import chi2, norm

from heterodyne._errors import ConfigError, DataError
from heterodyne._log import get_logger
from heterodyne._typing import BoolArray, FloatArray
from heterodyne.config._suggest import not_known
from heterodyne.config.parameter_registry import DEFAULT_REGISTRY
from heterodyne.optimization.cmc._two_groups import upper_group

_LOG = get_logger(__name__)

PRECISION = ("consensus_mc", "weighted_gaussian", "auto")
ROBUST, AVERAGE = "robust_consensus_mc", "simple_average"
METHODS = (*PRECISION, ROBUST, AVERAGE)
OUTLIER_SIGMA = 3.0
# A shard whose variance of some parameter is below this share of the others' is stuck.
_STUCK = 1e-6
LOW, HIGH = "mode_low", "mode_high"


@dataclass(frozen=True, eq=False)
class ShardPosterior:
    """Mean and covariance of the posterior of one shard.

    Attributes:
        mean: Means, shape (n,).
        covariance: Covariance matrix, shape (n, n).
        n_samples: Number of draws behind them.
        shard_id: Number of the shard.
    """

    mean: FloatArray
    covariance: FloatArray
    n_samples: int = 0
    shard_id: int = 0


def consensus_mc(shard_posteriors: Sequence[ShardPosterior]) -> tuple[FloatArray, FloatArray]:
    """Multiply normal posteriors.

    Args:
        shard_posteriors: At least one, all of the same n parameters.

    Returns:
        Mean, shape (n,), and covariance, shape (n, n), of the product.

    Raises:
        DataError: None given, shapes that differ, or a covariance that is not positive.
    """
    means, precisions = _checked(shard_posteriors, least=1)
    return _product(means, precisions)


def robust_consensus_mc(
    shard_posteriors: Sequence[ShardPosterior], *, outlier_sigma: float = OUTLIER_SIGMA
) -> tuple[FloatArray, FloatArray]:
    """Multiply normal posteriors, those of outlying shards with little weight.

    The distance of a shard from the median of all is measured by its own covariance, over the
    median distance where that exceeds what the covariances explain. An outlier is further away
    than any of the shards would be by chance with the probability of a normal deviation of
    ``outlier_sigma``. Its precision is divided by the number of shards.

    Args:
        shard_posteriors: At least two, all of the same n parameters.
        outlier_sigma: Normal deviation, in standard deviations, whose probability is allowed.

    Returns:
        Mean, shape (n,), and covariance, shape (n, n).

    Raises:
        DataError: Fewer than two, shapes that differ, or a covariance that is not positive.
    """
    means, precisions = _checked(shard_posteriors, least=2)
    return _product(means, _tamed(means, precisions, outlier_sigma))


def combine_shard_samples(
    shard_samples: Sequence[Mapping[str, FloatArray]],
    *,
    method: str = "consensus_mc",
    chunk_size: int = 500,
    seed: int = 42,
) -> dict[str, FloatArray]:
    """Combine draws of shards, each draw a weighted average of one draw of every shard.

    Weights are the inverses of the shards' full covariances, with positive parameters (those
    with a log-normal prior, and sigma) on a logarithmic axis. No draw is made up.

    Args:
        shard_samples: Draws of each shard by name, all of the shape (chains, draws) or all
            of (draws,).
        method: ``consensus_mc``, ``weighted_gaussian`` and ``auto`` weigh by precision;
            ``robust_consensus_mc`` does so with little weight for outlying shards;
            ``simple_average`` weighs all alike.
        chunk_size: Number of shards that are held as one array at a time; the result does
            not depend on it.
        seed: Seed of the offsets at which the draws of the shards are paired, so that shards
            that were drawn with the same random numbers are not paired in step.

    Returns:
        Draws by name in the shape of the shards'; of a single shard its own.

    Raises:
        ConfigError: A method that is not known or a chunk size below 1.
        DataError: No shards, or names or shapes that differ.
    """
    _check_method(method, chunk_size)
    names, shape = _common(shard_samples)
    if len(shard_samples) == 1:
        return {name: np.asarray(shard_samples[0][name], float) for name in names}
    logarithmic = _on_log_axis(shard_samples, names)
    shards = [_stacked(one, names, logarithmic, shape) for one in shard_samples]
    combined = combined_draws(shards, method, seed, chunk_size)
    combined = np.where(logarithmic, np.exp(np.where(logarithmic, combined, 0.0)), combined)
    return {name: combined[..., j].reshape(shape) for j, name in enumerate(names)}


def combined_draws(
    shards: Sequence[FloatArray], method: str, seed: int, chunk_size: int = 500
) -> FloatArray:
    """Combine draws on axes on which they are roughly normal.

    Args:
        shards: Draws of each shard, shape (chains, draws, n) each.
        method: As in ``combine_shard_samples``.
        seed: As in ``combine_shard_samples``.
        chunk_size: As in ``combine_shard_samples``.

    Returns:
        Weighted averages of one draw of each shard, shape (chains, draws, n).
    """
    rng = np.random.default_rng(seed)
    kept = [_shifted(draws, rng) for draws in _sound(shards)]
    weights = _weights([_moments(draws, k) for k, draws in enumerate(kept)], method)
    total = np.zeros_like(kept[0])
    for k in range(0, len(kept), chunk_size):
        chosen = slice(k, k + chunk_size)
        total += np.einsum("kij,kcsj->csi", weights[chosen], np.stack(kept[chosen]))
    # Parameters differ in size by many orders; solved in units of their widths.
    unit = np.sqrt(np.diagonal(weights.sum(axis=0)))
    scaled = weights.sum(axis=0) / unit[:, None] / unit
    flat = total.reshape(-1, total.shape[-1]) / unit
    return (np.linalg.solve(scaled, flat.T).T / unit).reshape(total.shape)


def combine_shard_samples_bimodal(
    shard_samples: Sequence[Mapping[str, FloatArray]],
    *,
    cluster_param: str | None = None,
    method: str = "consensus_mc",
    seed: int = 42,
) -> dict[str, dict[str, FloatArray]]:
    """Combine draws of shards that have settled in two modes, each mode on its own.

    Shards are split in two by their means of one parameter, where the sum of squares within
    both groups is smallest. The modes say what the shards found, not how probable each is.

    Args:
        shard_samples: As in ``combine_shard_samples``.
        cluster_param: Parameter by which shards are split; the first in alphabetical order
            if None.
        method: As in ``combine_shard_samples``.
        seed: As in ``combine_shard_samples``.

    Returns:
        Combined draws of ``mode_low`` and ``mode_high``, in the order of the parameter. Where
        a group would have fewer than two shards, all are combined as ``mode_low``.

    Raises:
        ConfigError: A parameter or method that is not known.
        DataError: No shards, or names or shapes that differ.
    """
    names, _ = _common(shard_samples)
    by = min(names) if cluster_param is None else cluster_param
    if by not in names:
        raise ConfigError(not_known("parameter", by, names), where="cluster_param")
    means = np.array([float(np.mean(one[by])) for one in shard_samples])
    high = upper_group(means[:, None])
    if min(high.sum(), (~high).sum()) < 2:
        return {LOW: combine_shard_samples(shard_samples, method=method, seed=seed)}
    return {
        word: combine_shard_samples(
            [shard_samples[k] for k in np.flatnonzero(group).tolist()], method=method, seed=seed
        )
        for word, group in ((LOW, ~high), (HIGH, high))
    }


def _check_method(method: str, chunk_size: int) -> None:
    if method not in METHODS:
        raise ConfigError(
            not_known("method", method, METHODS), where="method", allowed=", ".join(METHODS)
        )
    if chunk_size < 1:
        raise ConfigError(f"chunk_size is {chunk_size}", where="chunk_size", allowed="at least 1")


def _common(
    shard_samples: Sequence[Mapping[str, FloatArray]],
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names and shape that all shards share."""
    if not shard_samples:
        raise DataError("there is no shard to combine", where="shard_samples")
    names = tuple(shard_samples[0])
    shape = np.shape(next(iter(shard_samples[0].values()), ()))
    for k, one in enumerate(shard_samples):
        if set(one) != set(names):
            raise DataError(
                f"shard {k} has {', '.join(sorted(one))}, and shard 0 {', '.join(sorted(names))}",
                where="shard_samples",
                allowed="the same parameters in all shards",
            )
        wrong = {name: np.shape(x) for name, x in one.items() if np.shape(x) != shape}
        if wrong or len(shape) not in (1, 2) or 0 in shape:
            raise DataError(
                f"shard {k} has draws of shape {next(iter(wrong.values()), shape)}",
                where="shard_samples",
                allowed=f"the shape of shard 0, {shape}: (draws,) or (chains, draws)",
            )
    return names, shape


def _on_log_axis(
    shard_samples: Sequence[Mapping[str, FloatArray]], names: Sequence[str]
) -> BoolArray:
    """Which parameters are combined by their logarithms, shape (n,)."""

    def positive(name: str) -> bool:
        scale = name == "sigma" or (name in DEFAULT_REGISTRY and DEFAULT_REGISTRY[name].log_space)
        return scale and all(np.min(one[name]) > 0 for one in shard_samples)

    return np.array([positive(name) for name in names])


def _stacked(
    samples: Mapping[str, FloatArray],
    names: Sequence[str],
    logarithmic: BoolArray,
    shape: tuple[int, ...],
) -> FloatArray:
    """Draws on the axes of the combination, shape (chains, draws, n)."""
    columns = np.stack([np.asarray(samples[name], float) for name in names], axis=-1)
    columns = columns.reshape((-1, shape[-1], len(names)))
    return np.where(logarithmic, np.log(np.where(logarithmic, columns, 1.0)), columns)


def _sound(shards: Sequence[FloatArray]) -> list[FloatArray]:
    """Leave out shards that are not finite or did not move, and say so."""
    variances = np.array([x.reshape(-1, x.shape[-1]).var(axis=0) for x in shards])
    finite = np.array([bool(np.isfinite(x).all()) for x in shards])
    if not finite.any():
        raise DataError("no shard has finite draws", where="shard_samples")
    typical = np.median(variances[finite], axis=0)
    moved = (variances >= _STUCK * typical).all(axis=1)
    kept = finite & moved
    if not kept.any():
        raise DataError("the draws of no shard move", where="shard_samples")
    for k in np.flatnonzero(~kept):
        why = "did not move" if finite[k] else "are not finite"
        _LOG.warning(
            "Shard %d is left out, because its draws %s: its data are not in the result.", k, why
        )
    return [draws for draws, keep in zip(shards, kept, strict=True) if keep]


def _shifted(draws: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Put chains in another order and start them elsewhere; neighbours stay neighbours."""
    chains = rng.permutation(draws.shape[0])
    return np.roll(draws[chains], int(rng.integers(draws.shape[1])), axis=1)


def _moments(draws: FloatArray, shard: int) -> ShardPosterior:
    flat = draws.reshape(-1, draws.shape[-1])
    covariance = np.atleast_2d(np.cov(flat, rowvar=False))
    return ShardPosterior(flat.mean(axis=0), covariance, len(flat), shard)


def _weights(moments: Sequence[ShardPosterior], method: str) -> FloatArray:
    """Weight matrix of each shard, shape (K, n, n)."""
    if method == AVERAGE:
        return np.stack([np.eye(one.mean.size) for one in moments])
    means, precisions = _checked(moments, least=1)
    if method == ROBUST and len(moments) > 1:
        return _tamed(means, precisions, OUTLIER_SIGMA)
    return precisions


def _checked(shards: Sequence[ShardPosterior], *, least: int) -> tuple[FloatArray, FloatArray]:
    """Means, shape (K, n), and precisions, shape (K, n, n)."""
    if len(shards) < least:
        raise DataError(
            f"{len(shards)} shards", where="shard_posteriors", allowed=f"at least {least}"
        )
    n = np.size(shards[0].mean)
    for one in shards:
        shapes = (np.shape(one.mean), np.shape(one.covariance))
        if shapes != ((n,), (n, n)):
            raise DataError(
                f"shard {one.shard_id} has a mean of shape {shapes[0]} and a covariance of shape "
                f"{shapes[1]}",
                where="shard_posteriors",
                allowed=f"({n},) and ({n}, {n}), as the first",
            )
    means = np.stack([np.asarray(one.mean, float) for one in shards])
    return means, np.stack([_precision(one) for one in shards])


def _precision(shard: ShardPosterior) -> FloatArray:
    """Inverse of a covariance, whose parameters may differ in size by many orders."""
    covariance = np.asarray(shard.covariance, float)
    scale = np.sqrt(np.maximum(np.diagonal(covariance), 0.0))
    try:
        if not (np.isfinite(covariance).all() and (scale > 0).all()):
            raise LinAlgError
        factor = cho_factor(covariance / scale[:, None] / scale, lower=True)
    except LinAlgError:
        raise DataError(
            f"the covariance of shard {shard.shard_id} is not positive definite",
            where="shard_posteriors",
            remedy="Draw more than there are parameters, and leave out parameters that are fixed",
        ) from None
    return cho_solve(factor, np.eye(scale.size)) / scale[:, None] / scale


def _product(means: FloatArray, precisions: FloatArray) -> tuple[FloatArray, FloatArray]:
    total = precisions.sum(axis=0)
    covariance = _precision(ShardPosterior(means[0], total))
    pull = np.einsum("kij,kj->i", precisions, means)
    return covariance @ pull, covariance


def _tamed(means: FloatArray, precisions: FloatArray, outlier_sigma: float) -> FloatArray:
    """Divide the precisions of outlying shards by the number of shards."""
    n_shards, n = means.shape
    away = means - np.median(means, axis=0)
    # The median of K shards has the variance of one times pi / 2K.
    own = 1.0 + 0.5 * np.pi / n_shards
    distance = np.einsum("ki,kij,kj->k", away, precisions, away) / own
    # Shards that all scatter more than their own errors are not outliers for that.
    typical = max(1.0, float(np.median(distance)) / chi2.median(n))
    chance = 2.0 * norm.sf(outlier_sigma) / n_shards
    outlying = distance > typical * chi2.isf(chance, n)
    for k in np.flatnonzero(outlying):
        _LOG.warning(
            "Shard %d disagrees with the others and counts 1/%d; look at its draws.", k, n_shards
        )
    return np.where(outlying[:, None, None], precisions / n_shards, precisions)
