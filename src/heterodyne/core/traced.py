"""Whether values are known, so that they can be checked."""

from __future__ import annotations

from heterodyne.core._jax import Tracer


def traced(*values: object) -> bool:
    """Whether one of the values stands for an unknown while JAX traces a function."""
    return any(isinstance(v, Tracer) for v in values)
