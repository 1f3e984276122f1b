"""The one place that imports and configures JAX: float64, and compiled code that is kept."""

from __future__ import annotations

import os
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)


def _keep_compiled_code() -> None:
    """Let later processes take over what this one compiles, unless the user decided."""
    if jax.config.values.get("jax_compilation_cache_dir") is not None:
        return
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "heterodyne" / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


_keep_compiled_code()

import jax.numpy as jnp  # noqa: E402

__all__ = ["jax", "jnp"]
