"""Documented names that say again what another one says, each body one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from heterodyne.optimization.cmc.data_prep import merge_shard_results


def combine_shard_samples(
    shard_results: Sequence[Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Put the draws of several devices behind each other.

    All must be draws from one posterior. Those of shards of data are not: combine these with
    ``heterodyne.optimization.cmc.backends.base.combine_shard_samples``.

    Args:
        shard_results: Draws by name of each device, of shape (n_draws,).

    Returns:
        Draws by name, in the order of the devices.

    Raises:
        DataError: There are none, or names or lengths differ within or between them.
    """
    return merge_shard_results(shard_results)
