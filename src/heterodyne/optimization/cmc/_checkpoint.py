"""The state of a sampler as plain arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from heterodyne._typing import FloatArray
from heterodyne.core._jax import jax, jnp
from heterodyne.optimization.cmc._frame import Frame
from heterodyne.optimization.cmc._nuts import Steps, start_chain
from heterodyne.optimization.cmc._sampler import Sampler, SamplerState

_COUNTS = ("stage", "warmup_steps", "warmup_gradients")


def to_arrays(state: SamplerState) -> dict[str, FloatArray]:
    """Return everything that a state holds, by name."""
    arrays = {name: np.asarray(getattr(state, name)) for name in _COUNTS}
    arrays |= {f"frame_{n}": np.asarray(x) for n, x in state.frame._asdict().items()}
    for k, chain in enumerate(state.chains):
        leaves = jax.tree.leaves(chain)
        arrays |= {f"chain_{k}_{j}": np.asarray(leaf) for j, leaf in enumerate(leaves)}
    if state.steps is not None:
        arrays |= {f"steps_{n}": np.asarray(x) for n, x in state.steps._asdict().items()}
    return arrays


def from_arrays(arrays: Mapping[str, FloatArray], sampler: Sampler) -> SamplerState:
    """Rebuild the state that ``to_arrays`` took apart.

    Args:
        arrays: What ``to_arrays`` returned.
        sampler: A sampler with the settings of the one that made the state.
    """
    frame = Frame(*(jnp.asarray(arrays[f"frame_{n}"]) for n in Frame._fields))
    z = jnp.zeros(sampler.posterior.size)
    form = jax.tree.structure(start_chain(jax.random.PRNGKey(0), z, 1.0, sampler.kernel))
    chains = tuple(
        jax.tree.unflatten(
            form, [jnp.asarray(arrays[f"chain_{k}_{j}"]) for j in range(form.num_leaves)]
        )
        for k in range(sampler.schedule.n_chains)
    )
    steps = None
    if "steps_z" in arrays:
        steps = Steps(*(np.asarray(arrays[f"steps_{n}"]) for n in Steps._fields))
    counts = {name: int(arrays[name]) for name in _COUNTS}
    return SamplerState(frame=frame, chains=chains, steps=steps, **counts)
