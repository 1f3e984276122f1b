"""Documented names that say again what another one says, each body one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from heterodyne.optimization.cmc._joined import joined


def combine_shard_samples(
    shard_results: Sequence[Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Put the draws of several devices behind each other.

    All must be draws from one posterior. Those of shards of data are not: combine these with
    ``heterodyne.optimization.cmc.backends.base.combine_shard_samples``.

    Args:
        shard_results: Draws by name of each device, of shape (n_draws, ...), as
            ``PjitBackend.run`` returns them.

    Returns:
        Draws by name, in the order of the devices, shape (sum of n_draws, ...).

    Raises:
        DataError: There are none, names or shapes of a draw differ between devices, or numbers
            of draws within one.
    """
    return joined(shard_results, vectors=True)
