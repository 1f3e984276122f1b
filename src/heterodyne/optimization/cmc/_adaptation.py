"""What NumPyro's NUTS recorded, as ArviZ groups and as lines of a log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import arviz_base
import numpy as np
import xarray
from numpyro.infer import MCMC

from heterodyne._typing import FloatArray

# Fields of NumPyro's state that are kept of every step, beside the divergences.
FIELDS = ("potential_energy", "energy", "num_steps", "accept_prob", "adapt_state.step_size")

Fields = Mapping[str, FloatArray]


def recorded_tree(mcmc: MCMC, fields: Fields) -> xarray.DataTree:
    """Put a finished run into ArviZ groups.

    Args:
        mcmc: The run.
        fields: Fields of each draw, shape (chains, draws).

    Returns:
        A tree with ``posterior``, ``sample_stats``, ``adaptation`` and, where the model has
        observations, ``observed_data``.
    """
    tree = arviz_base.from_numpyro(mcmc)
    stats = tree["sample_stats"].to_dataset()
    # ArviZ takes over the potential energy, which is minus the log density, as lp.
    log_density = (("chain", "draw"), -fields["potential_energy"])
    tree["sample_stats"] = xarray.DataTree(stats.assign(lp=log_density))
    tree["adaptation"] = xarray.DataTree(_adapted(mcmc).assign_coords(chain=stats["chain"]))
    return tree


def _adapted(mcmc: MCMC) -> xarray.Dataset:
    """Step sizes and inverse mass matrices that the warm-up arrived at."""
    sizes, matrices = _by_chain(mcmc)
    variables: dict[str, Any] = {"step_size": ("chain", sizes)}
    for k, (sites, matrix) in enumerate(matrices.items()):
        name = "inverse_mass_matrix" if len(matrices) == 1 else f"inverse_mass_matrix_{k}"
        dims = ("chain", f"{name}_row", f"{name}_column")[: matrix.ndim]
        variables[name] = (dims, matrix, {"sites": list(sites)})
    return xarray.Dataset(variables, attrs={"num_warmup": mcmc.num_warmup})


def _by_chain(mcmc: MCMC) -> tuple[FloatArray, dict[tuple[str, ...], FloatArray]]:
    """Step sizes, shape (chains,), and inverse mass matrices by sites, chains first.

    NumPyro's state has no axis of chains for a single one.
    """
    state: Any = mcmc.last_state
    adapted = state.adapt_state
    one = np.ndim(adapted.step_size) == 0
    matrices = adapted.inverse_mass_matrix
    blocks = matrices if isinstance(matrices, Mapping) else {(): matrices}
    return (
        np.atleast_1d(np.asarray(adapted.step_size)),
        {sites: np.asarray(x)[None] if one else np.asarray(x) for sites, x in blocks.items()},
    )


def adaptation_lines(mcmc: MCMC, fields: Fields) -> Iterator[str]:
    """Describe what adaptation arrived at and how the draws went, one text per line.

    Args:
        mcmc: The finished run.
        fields: Fields of each draw, shape (chains, draws).
    """
    sizes, matrices = _by_chain(mcmc)
    yield f"step size of each chain: {', '.join(f'{size:.3g}' for size in sizes)}"
    for sites, matrix in matrices.items():
        of_sites = f" of {', '.join(sites)}" if sites else ""
        yield f"inverse mass matrix{of_sites}: {_summary(matrix)}"
    for name in ("accept_prob", "num_steps", "potential_energy"):
        x = fields[name]
        yield f"{name}: mean {x.mean():.4g}, from {x.min():.4g} to {x.max():.4g}"


def _summary(matrices: FloatArray) -> str:
    """Describe dense or diagonal matrices, shape (chains, d, d) or (chains, d)."""
    dense = matrices.ndim == 3
    variances = np.diagonal(matrices, axis1=1, axis2=2) if dense else matrices
    kind = "dense" if dense else "diagonal"
    text = f"{kind}, variances from {variances.min():.3g} to {variances.max():.3g}"
    if dense:
        text += f", condition number up to {np.linalg.cond(matrices).max():.3g}"
    return text
