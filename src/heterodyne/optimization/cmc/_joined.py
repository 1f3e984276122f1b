"""Draws of several runs behind each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from heterodyne._errors import DataError


def joined(
    shard_results: Sequence[Mapping[str, np.ndarray]], *, vectors: bool
) -> dict[str, np.ndarray]:
    """Put draws behind each other, along their first axis.

    Args:
        shard_results: Draws by name of each run; all of a run of shape (n_draws,).
        vectors: Whether draws may be arrays, of shape (n_draws, ...), the same in all runs.

    Raises:
        DataError: There is no run, names or shapes of a draw differ between runs, or numbers of
            draws within one.
    """
    if not shard_results:
        raise DataError("there is no shard", where="shard_results", allowed="at least one")
    first = {name: np.shape(draws) for name, draws in shard_results[0].items()}
    for k, shard in enumerate(shard_results):
        where = f"shard_results[{k}]"
        if set(shard) != set(first):
            raise DataError(
                f"the names are {', '.join(shard) or 'none'}",
                where=where,
                allowed=f"those of the first shard: {', '.join(first) or 'none'}",
            )
        shapes = {name: np.shape(draws) for name, draws in shard.items()}
        lengths = {shape[:1] for shape in shapes.values()}
        fit = all(
            shape[1:] == (first[name][1:] if vectors else ()) for name, shape in shapes.items()
        )
        if () in lengths or len(lengths) > 1 or not fit:
            listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            after = ", ...) with the axes of the first shard after n_draws" if vectors else ",)"
            raise DataError(
                f"the draws have the shapes {listed}",
                where=where,
                allowed=f"(n_draws{after}, and one n_draws for every parameter",
            )
    return {name: np.concatenate([shard[name] for shard in shard_results]) for name in first}
