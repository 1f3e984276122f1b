"""Draws from a user's own NumPyro model: the one function behind every backend.

A chain depends on its own key and start only, so that it does not matter which process runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from heterodyne._errors import ConfigError
from heterodyne._typing import FloatArray, JaxArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.core._jax import jax, jnp
from heterodyne.optimization.cmc._chain_starts import scattered_starts
from heterodyne.optimization.cmc._inputs import checked
from heterodyne.optimization.cmc._nuts_sampler import NUTSSampler
from heterodyne.optimization.cmc._plan import SamplingPlan

Starts = Mapping[str, Any]
ChainMap = Callable[[Callable[[Any], Any]], Callable[[Any], Any]]
"""Turns a function of one chain into a function of all of them, stacked."""


def draw(
    model: Callable[..., Any],
    config: CMCConfig,
    rng_key: JaxArray,
    init_params: Starts | None = None,
    chain_map: ChainMap | None = None,
) -> dict[str, FloatArray]:
    """Draw from the posterior of a NumPyro model.

    Args:
        model: NumPyro model that can be called without arguments.
        config: Counts and settings of NUTS; a dense mass matrix has its floor of warm-up
            steps.
        rng_key: JAX random key; ``config.seed`` is not used.
        init_params: Start values by site, in the units of the model, with a leading axis of
            chains. A chain starts within about 1 % of its values.
        chain_map: How chains run; None runs one after the other.

    Returns:
        Draws by site, chain after chain, shape (num_chains * num_samples, ...).

    Raises:
        ConfigError: A setting or start value that cannot be used.
        SamplingError: The log density is not finite, or NumPyro fails.
    """
    plan = replace(SamplingPlan.from_config(checked(config)), chain_method="sequential")
    sampler = _ChainSampler.from_plan(plan, model, config.init_strategy)
    if chain_map is not None:
        # NumPyro takes a function here too, the plan only its words.
        driver: Any = sampler.mcmc
        driver.chain_method = chain_map
    if init_params is not None:
        check_starts(init_params, config.num_chains)
    return sampler.run(rng_key, init_params)


def check_starts(init_params: Starts, n_chains: int) -> None:
    """Refuse start values without a leading axis of chains.

    Raises:
        ConfigError: With the first of them.
    """
    for name, values in init_params.items():
        if np.shape(values)[:1] != (n_chains,):
            raise ConfigError(
                f"{name} has the shape {np.shape(values)}",
                where="init_params",
                allowed=f"a value for each of the {n_chains} chains, shape ({n_chains}, ...)",
            )


def chain_keys(rng_key: JaxArray, n_chains: int) -> JaxArray:
    """Return the random key of each chain, as NumPyro derives it."""
    return rng_key[None] if n_chains == 1 else jax.random.split(rng_key, n_chains)


class _ChainSampler(NUTSSampler):
    """Chains that start near values of their own."""

    def _starts(
        self, rng_key: JaxArray, values: Starts, model_kwargs: Mapping[str, Any]
    ) -> tuple[JaxArray, dict[str, JaxArray]]:
        """Split the key of every chain, and place the chain near its values."""
        n_chains = self.plan.num_chains
        keys = jax.vmap(jax.random.split)(chain_keys(rng_key, n_chains))
        model = partial(self.mcmc.sampler.model, **model_kwargs)
        of_chain = [{name: np.asarray(x)[k] for name, x in values.items()} for k in range(n_chains)]
        placed = [
            scattered_starts(model, of_chain[k], self._strategy, keys[k, 1:])
            for k in range(n_chains)
        ]
        self._given.update(of_chain[0])
        starts = {name: jnp.concatenate([one[name] for one in placed]) for name in placed[0]}
        if n_chains == 1:
            return keys[0, 0], {name: x[0] for name, x in starts.items()}
        return keys[:, 0], starts
