"""Several JAX devices: each runs its part of the chains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from heterodyne._errors import SamplingError
from heterodyne._log import get_logger
from heterodyne._typing import FloatArray, JaxArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.core._jax import jax
from heterodyne.optimization.cmc.backends._draw import ChainMap, draw
from heterodyne.optimization.cmc.backends._memory import process_gb
from heterodyne.optimization.cmc.backends.base import BackendCapabilities, CMCBackend
from heterodyne.optimization.cmc.backends.variants import combine_shard_samples

__all__ = ["PjitBackend", "combine_shard_samples"]

_LOG = get_logger(__name__)
_AXIS = "chains"


class PjitBackend(CMCBackend):
    """Divides the chains among all JAX devices of this process.

    The chains of a device run one after the other, so that draws do not depend on the number
    of devices. A processor counts as one device; ``XLA_FLAGS`` with
    ``--xla_force_host_platform_device_count=4``, set before JAX is imported, makes four.
    """

    def run(
        self,
        model: Callable[..., Any],
        config: CMCConfig,
        rng_key: JaxArray,
        init_params: Mapping[str, JaxArray] | None = None,
    ) -> dict[str, FloatArray]:
        """Draw from the posterior of a NumPyro model.

        Args:
            model: NumPyro model that can be called without arguments.
            config: Counts and settings of NUTS. ``chain_method`` is not used, nor is
                ``seed``: the key decides.
            rng_key: JAX random key.
            init_params: As ``CPUBackend.run`` takes them.

        Returns:
            Draws by site, chain after chain, shape (num_chains * num_samples, ...).

        Raises:
            ConfigError: A setting or start value that cannot be used.
            SamplingError: The log density is not finite, or NumPyro fails; a RuntimeError.
        """
        devices = _devices()
        used = devices[: config.num_chains]
        _LOG.info("%d chains on %d of %d devices.", config.num_chains, len(used), len(devices))
        return draw(model, config, rng_key, init_params, _divided(used))

    def get_capabilities(self) -> BackendCapabilities:
        """Return what the backend can do with the devices that there are."""
        n = len(_devices())
        return BackendCapabilities(
            supports_sharding=n > 1, supports_parallel_chains=n > 1, max_parallel_shards=n
        )

    def validate_resources(self) -> None:
        """Check that there are devices; a single one is logged as a warning.

        Raises:
            SamplingError: There is none; a RuntimeError.
        """
        if len(_devices()) == 1:
            _LOG.warning(
                "JAX has one device, so chains run one after the other. On a processor, "
                "--xla_force_host_platform_device_count in XLA_FLAGS makes more of it."
            )

    def estimate_memory(self, n_data: int, n_params: int, n_chains: int) -> float:
        """Return an upper limit of the memory of one device in GB.

        Devices made of one processor share its memory: multiply by their number.

        Args:
            n_data: Number of data points.
            n_params: Number of parameters.
            n_chains: Number of chains, with the default number of draws.

        Raises:
            ConfigError: A number that is not at least 1.
        """
        return process_gb(n_data, n_params, -(-n_chains // len(_devices())))


def _devices() -> list[Any]:
    try:
        return jax.local_devices()
    except RuntimeError as error:
        raise SamplingError(
            f"JAX finds no device: {error}",
            where="JAX_PLATFORMS",
            remedy="Unset JAX_PLATFORMS, or repair the driver that JAX names",
        ) from error


def _divided(devices: Sequence[Any]) -> ChainMap:
    """Run chains in turn on each device, and the devices side by side."""
    mesh = jax.sharding.Mesh(np.array(devices), (_AXIS,))
    by_chain = jax.sharding.PartitionSpec(_AXIS)

    def chain_map(one_chain: Callable[[Any], Any]) -> Callable[[Any], Any]:
        on_device = jax.shard_map(
            lambda chains: jax.lax.map(one_chain, chains),
            mesh=mesh,
            in_specs=by_chain,
            out_specs=by_chain,
            # NumPyro's loops start from constants, which vary over no axis.
            check_vma=False,
        )

        def all_chains(chains: Any) -> Any:
            n = jax.tree.leaves(chains)[0].shape[0]
            # The last chain fills up the last device, and is dropped again.
            rows = np.minimum(np.arange(n + -n % len(devices)), n - 1)
            padded = jax.tree.map(lambda x: x[rows], chains)
            return jax.tree.map(lambda x: x[:n], jax.jit(on_device)(padded))

        return all_chains

    return chain_map
