"""The one place that imports and configures JAX: float64, and compiled code that is kept."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

# XLA's older code generator compiles our functions twice as fast, into code as fast.
_QUICK_COMPILATION = "--xla_cpu_use_fusion_emitters=false"
# XLA ends the process at a flag that it does not know, so only these versions get it.
_KNOWING = ("0.10.",)


def _compile_quickly() -> None:
    """Choose the code generator, unless the user did; JAX reads this when it first computes."""
    flags = os.environ.get("XLA_FLAGS", "")
    name = _QUICK_COMPILATION.partition("=")[0]
    if version("jaxlib").startswith(_KNOWING) and name not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_QUICK_COMPILATION}".strip()


def _keep_compiled_code() -> None:
    """Let later processes take over what this one compiles, unless the user decided."""
    if jax.config.values.get("jax_compilation_cache_dir") is not None:
        return
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "heterodyne" / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.01)


_compile_quickly()
_keep_compiled_code()

import jax.numpy as jnp  # noqa: E402
from jax import export  # noqa: E402
from jax.core import Tracer  # noqa: E402

RUNS_ONCE = {"xla_backend_optimization_level": 0}
"""Options for ``jax.jit`` of code that runs less long than optimising it takes."""

__all__ = ["RUNS_ONCE", "Tracer", "export", "jax", "jnp"]
