"""What every backend does, which one is taken, and the rules that combine shards.

A backend draws from a NumPyro model of the caller's own. The rules of combination are those of
``heterodyne.optimization.cmc.combine``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from heterodyne._cores import usable_cores
from heterodyne._errors import ConfigError
from heterodyne._typing import FloatArray, JaxArray
from heterodyne.config._suggest import not_known
from heterodyne.config.cmc import CMCConfig
from heterodyne.optimization.cmc.combine import (
    ShardPosterior,
    combine_shard_samples,
    combine_shard_samples_bimodal,
    consensus_mc,
    robust_consensus_mc,
)

__all__ = [
    "BackendCapabilities",
    "CMCBackend",
    "MCMCBackend",
    "ShardPosterior",
    "combine_shard_samples",
    "combine_shard_samples_bimodal",
    "consensus_mc",
    "robust_consensus_mc",
    "select_backend",
]

_WHERE = {
    "cpu": ("cpu_backend", "CPUBackend"),
    "multiprocessing": ("multiprocessing", "MultiprocessingBackend"),
    "jax": ("multiprocessing", "MultiprocessingBackend"),
    "pjit": ("pjit", "PjitBackend"),
    "pbs": ("pbs", "PBSBackend"),
    "worker_pool": ("worker_pool", "WorkerPoolBackend"),
}
# Chains and processors from which processes of their own are worth their start.
_MANY_CHAINS, _MANY_WORKERS = 3, 2


@dataclass(frozen=True)
class BackendCapabilities:
    """What a backend can do.

    Attributes:
        supports_sharding: Whether shards go to several workers or devices.
        supports_parallel_chains: Whether chains run at the same time.
        max_parallel_shards: Number of shards that run at the same time.
    """

    supports_sharding: bool = False
    supports_parallel_chains: bool = True
    max_parallel_shards: int = 1


class MCMCBackend(Protocol):
    """Draws from the posterior of a NumPyro model."""

    def run(
        self,
        model: Callable[..., Any],
        config: CMCConfig,
        rng_key: JaxArray,
        init_params: Mapping[str, JaxArray] | None = None,
    ) -> dict[str, FloatArray]:
        """Draw.

        Args:
            model: NumPyro model that takes no arguments.
            config: Counts and settings of NUTS.
            rng_key: Key of all random numbers.
            init_params: Start values by name, shape (num_chains,) each.

        Returns:
            Draws by name, chain after chain, shape (num_chains * num_samples,) each.
        """
        ...


class CMCBackend(ABC):
    """Base of the backends."""

    @abstractmethod
    def run(
        self,
        model: Callable[..., Any],
        config: CMCConfig,
        rng_key: JaxArray,
        init_params: Mapping[str, JaxArray] | None = None,
    ) -> dict[str, FloatArray]:
        """Draw from the posterior of a NumPyro model, as ``MCMCBackend.run``."""

    @abstractmethod
    def get_capabilities(self) -> BackendCapabilities:
        """Return what the backend can do."""

    @abstractmethod
    def validate_resources(self) -> None:
        """Check that devices and programs are there.

        Raises:
            RuntimeError: One is not.
        """

    @abstractmethod
    def estimate_memory(self, n_data: int, n_params: int, n_chains: int) -> float:
        """Return an upper limit of the memory of a run in GB.

        Args:
            n_data: Number of data points.
            n_params: Number of parameters.
            n_chains: Number of chains.
        """

    def cleanup(self) -> None:
        """Release what the backend holds; may be called more than once."""
        return


def select_backend(config: CMCConfig) -> MCMCBackend:
    """Make the backend that a configuration names.

    ``auto`` takes processes of their own from three chains and two processors on, then JAX's
    devices where there are several, else one processor.

    Args:
        config: Its ``backend_name`` is ``auto``, ``cpu``, ``multiprocessing`` (or ``jax``),
            ``pjit``, ``worker_pool`` or ``pbs``.

    Raises:
        ConfigError: A name that is not known.
        RuntimeError: PBS, where ``qsub`` cannot be found.
    """
    name = config.backend_name
    if name == "auto":
        name = _automatic(config.num_chains)
    if name not in _WHERE:
        words = ("auto", *_WHERE)
        raise ConfigError(
            not_known("backend", name, words), where="backend_name", allowed=", ".join(words)
        )
    module, kind = _WHERE[name]
    backend = getattr(import_module(f"{__package__}.{module}"), kind)()
    if name == "pbs":
        backend.validate_resources()
    return backend


def _automatic(n_chains: int) -> str:
    if n_chains >= _MANY_CHAINS and usable_cores() >= _MANY_WORKERS:
        return "multiprocessing"
    from heterodyne.core._jax import jax

    return "pjit" if len(jax.devices()) > 1 else "cpu"
