"""One processor: chains run one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from heterodyne._errors import SamplingError
from heterodyne._typing import FloatArray, JaxArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.core._jax import jax
from heterodyne.optimization.cmc.backends._draw import draw
from heterodyne.optimization.cmc.backends._memory import process_gb
from heterodyne.optimization.cmc.backends.base import BackendCapabilities, CMCBackend

__all__ = ["CPUBackend"]


class CPUBackend(CMCBackend):
    """Draws one chain after the other, so that one chain works in memory at a time."""

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
            init_params: Start values by site, in the units of the model, with a leading
                axis of chains. A chain starts within about 1 % of its values.

        Returns:
            Draws by site, chain after chain, shape (num_chains * num_samples, ...).

        Raises:
            ConfigError: A setting or start value that cannot be used.
            SamplingError: The log density is not finite, or NumPyro fails; a RuntimeError.
        """
        return draw(model, config, rng_key, init_params)

    def get_capabilities(self) -> BackendCapabilities:
        """Return what the backend can do: one thing at a time."""
        return BackendCapabilities(
            supports_sharding=False, supports_parallel_chains=False, max_parallel_shards=1
        )

    def validate_resources(self) -> None:
        """Check that JAX can use a processor.

        Raises:
            SamplingError: It cannot; a RuntimeError.
        """
        require_processor()

    def estimate_memory(self, n_data: int, n_params: int, n_chains: int) -> float:
        """Return an upper limit of the memory of a run in GB.

        It counts the process, the working memory of one chain, and the draws of all.

        Args:
            n_data: Number of data points.
            n_params: Number of parameters.
            n_chains: Number of chains, with the default number of draws.

        Raises:
            ConfigError: A number that is not at least 1.
        """
        return process_gb(n_data, n_params, n_chains)


def require_processor() -> None:
    """Raise a SamplingError unless JAX can use a processor."""
    try:
        jax.devices("cpu")
    except RuntimeError as error:
        raise SamplingError(
            f"JAX finds no processor: {error}",
            where="JAX_PLATFORMS",
            allowed="a list that has cpu in it",
            remedy="Unset JAX_PLATFORMS, or add cpu to it",
        ) from error
