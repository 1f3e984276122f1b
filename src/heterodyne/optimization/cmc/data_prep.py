"""From measured correlations to the points, matrices and shards that a sampler takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from heterodyne._errors import ConfigError, DataError
from heterodyne._log import get_logger
from heterodyne._typing import ArrayLike, FloatArray, JaxArray
from heterodyne.core._jax import jnp
from heterodyne.optimization.cmc._array_checks import (
    both_halves,
    count,
    finite,
    likelihood_weights,
    of_shape,
)
from heterodyne.optimization.cmc._joined import joined
from heterodyne.optimization.cmc._pooled import (
    PooledCMCData,
    extract_phi_info,
    prepare_mcmc_data,
    shard_pooled_angle_balanced,
    shard_pooled_random,
    validate_pooled_data,
)
from heterodyne.optimization.cmc._prepared import PreparedData, prepare_data
from heterodyne.optimization.cmc._prepared_shards import (
    ShardingStrategy,
    create_shards,
    estimate_shard_memory,
    validate_shard_data,
)

__all__ = [
    "ShardingStrategy",
    "PreparedData",
    "PooledCMCData",
    "validate_pooled_data",
    "extract_phi_info",
    "prepare_mcmc_data",
    "shard_pooled_random",
    "shard_pooled_angle_balanced",
    "prepare_cmc_data",
    "create_shard_grid",
    "shard_correlation_data",
    "merge_shard_results",
    "prepare_data",
    "create_shards",
    "validate_shard_data",
    "estimate_shard_memory",
]

_LOG = get_logger(__name__)


def prepare_cmc_data(
    c2_data: ArrayLike, sigma: ArrayLike | None = None, weights: ArrayLike | None = None
) -> tuple[JaxArray, JaxArray | None, JaxArray | None]:
    """Check a correlation and hand it to JAX, in float64.

    A half of a matrix that holds only zeros was not stored and is filled from the other.
    Halves that differ are kept, and logged. A correlation need not fall with the lag: it
    oscillates where the specimen flows.

    Args:
        c2_data: Measured correlation, shape (N, N), or (n,) for a slice of it.
        sigma: Standard deviation of the errors, a number or an array of the shape of
            ``c2_data``.
        weights: Weight of each value, of the shape of ``c2_data``.

    Returns:
        Correlation, sigma (of no dimension where a number was given) and weights; None for
        what was not given.

    Raises:
        DataError: A value that is not finite, another shape, a sigma that is not above 0, or
            weights that are negative or all 0.
    """
    c2 = finite(c2_data, "c2_data")
    if c2.size == 0 or c2.ndim not in (1, 2) or c2.shape[0] != c2.shape[-1]:
        raise DataError(
            f"the shape is {c2.shape}",
            where="c2_data",
            allowed="(N, N), or (n,) for a slice",
            remedy="Give the matrices of several angles one by one",
        )
    if c2.ndim == 2:
        c2 = both_halves(c2, "c2_data")
    checked = None if sigma is None else _positive(sigma, c2.shape)
    weighted = None if weights is None else likelihood_weights(weights, c2.shape)
    return (
        jnp.asarray(c2),
        None if checked is None else jnp.asarray(checked),
        None if weighted is None else jnp.asarray(weighted),
    )


def _positive(sigma: ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    values = finite(sigma, "sigma")
    if values.ndim:
        of_shape(values, shape, "sigma", "c2_data")
    if np.any(values <= 0):
        raise DataError(f"the smallest value is {values.min():g}", where="sigma", allowed="> 0")
    return values


def create_shard_grid(n_times: int, n_shards: int) -> list[tuple[int, int]]:
    """Cut the time axis into runs of frames of the same length, to within one.

    Args:
        n_times: Number of frames.
        n_shards: Number of runs, 1 to ``n_times``.

    Returns:
        First frame, counted from 0, and the frame after the last, of each run.

    Raises:
        ConfigError: A number of frames or runs outside its range.
    """
    frames, shards = count(n_times, "n_times"), count(n_shards, "n_shards")
    if shards > frames:
        raise ConfigError(
            f"{shards} shards of {frames} frames", where="n_shards", allowed=f"1 to {frames}"
        )
    ends = [k * frames // shards for k in range(shards + 1)]
    return list(pairwise(ends))


def shard_correlation_data(
    c2_data: ArrayLike, shard_grid: Sequence[tuple[int, int]]
) -> list[JaxArray]:
    """Cut blocks on the diagonal out of a correlation matrix.

    Pairs of frames of different runs are in no block, and are lost: nothing later brings
    them back. Of N frames in n equal runs about 1 pair in n is kept, those of short lag; a
    decay longer than a run is not seen. How many pairs are lost is logged. To use every
    pair, divide points with ``create_shards`` or the ``shard_pooled`` functions.

    Args:
        c2_data: Measured correlation, shape (N, N).
        shard_grid: Runs of frames, as of ``create_shard_grid``.

    Returns:
        One matrix of shape (stop - start, stop - start) for each run.

    Raises:
        DataError: The matrix is not square, or holds values that are not finite.
        ConfigError: A run that is empty, leaves the matrix, or shares frames with another.
    """
    c2 = finite(c2_data, "c2_data")
    if c2.ndim != 2 or c2.shape[0] != c2.shape[1]:
        raise DataError(f"the shape is {c2.shape}", where="c2_data", allowed="(N, N)")
    last = 0
    for start, stop in sorted(shard_grid):
        if not last <= start < stop <= len(c2):
            raise ConfigError(
                f"a run from {start} to {stop}, after runs that end at {last}",
                where="shard_grid",
                allowed=f"runs that share no frame, within 0 to {len(c2)}",
            )
        last = stop
    pairs = len(c2) * (len(c2) - 1) // 2
    kept = sum((b - a) * (b - a - 1) // 2 for a, b in shard_grid)
    if kept < pairs:
        _LOG.warning(
            "The blocks hold %d of %d pairs: %d pairs (%.3g %%), those of frames of different "
            "blocks, are left out.",
            kept, pairs, pairs - kept, 100 * (pairs - kept) / pairs,
        )  # fmt: skip
    return [jnp.asarray(c2[a:b, a:b]) for a, b in shard_grid]


def merge_shard_results(
    shard_results: Sequence[Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Put the draws of all shards behind each other.

    The draws of a shard follow its own data alone. Taken together they are a mixture of the
    shards, which is wider than the posterior of all data and does not narrow with their
    number: do not take intervals from it. For the posterior combine shards with
    ``heterodyne.optimization.cmc.backends.base.combine_shard_samples``.

    Args:
        shard_results: Draws by name of each shard; all of a shard of shape (n_draws,).

    Returns:
        Draws by name, in the order of the shards, shape (sum of n_draws,).

    Raises:
        DataError: There is no shard, names differ between shards, or draws are not in rows of
            one length.
    """
    return joined(shard_results, vectors=False)
