"""NumPyro's NUTS on a user's own model: starts, adaptation, draws and their record."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import xarray
from numpyro.infer import MCMC, NUTS

from heterodyne._errors import ConfigError, SamplingError
from heterodyne._log import get_logger
from heterodyne._typing import FloatArray, JaxArray
from heterodyne.core._jax import jax, jnp
from heterodyne.optimization.cmc._adaptation import FIELDS, adaptation_lines, recorded_tree
from heterodyne.optimization.cmc._chain_starts import (
    ONLY_GIVEN,
    check_strategy,
    scattered_starts,
    start_of_site,
)
from heterodyne.optimization.cmc._plan import ChainMethod, SamplingPlan
from heterodyne.optimization.cmc._run_health import SamplingStats, remarks, tree_depths

_log = get_logger(__name__)

_STRATEGY = "init_to_median"

Samples = dict[str, FloatArray]


class NUTSSampler:
    """NumPyro's ``MCMC`` with a plan, starts near given values, and diagnostics."""

    def __init__(self, mcmc: MCMC, plan: SamplingPlan) -> None:
        """Take over an ``MCMC``; ``from_plan`` builds one.

        Args:
            mcmc: NumPyro's driver with a NUTS kernel.
            plan: The plan that it was built from.

        Raises:
            ConfigError: The kernel is not NUTS of a model, or the counts of the two differ.
        """
        if not isinstance(mcmc.sampler, NUTS) or mcmc.sampler.model is None:
            raise ConfigError(
                f"the kernel is {type(mcmc.sampler).__name__}"
                + (" without a model" if isinstance(mcmc.sampler, NUTS) else ""),
                where="mcmc",
                allowed="NUTS of a model",
            )
        for name in ("num_warmup", "num_samples", "num_chains"):
            if getattr(mcmc, name) != getattr(plan, name):
                raise ConfigError(
                    f"{name} is {getattr(mcmc, name)}, and {getattr(plan, name)} in the plan",
                    where="mcmc",
                    allowed="the counts of the plan",
                )
        self._mcmc = mcmc
        self._plan = plan
        self._strategy = _STRATEGY
        # What the kernel's strategy looks up; NumPyro needs a valid start of its own.
        self._given: dict[str, JaxArray] = {}
        self._draws: Mapping[str, FloatArray] | None = None
        self._seconds = 0.0

    @property
    def plan(self) -> SamplingPlan:
        """Settings of the run."""
        return self._plan

    @property
    def mcmc(self) -> MCMC:
        """NumPyro's driver, with the draws after a run."""
        return self._mcmc

    @classmethod
    def from_plan(
        cls,
        plan: SamplingPlan,
        model: Callable[..., Any],
        init_strategy: str = _STRATEGY,
        chain_method: ChainMethod | None = None,
    ) -> NUTSSampler:
        """Build NumPyro's kernel and driver.

        Args:
            plan: Settings.
            model: NumPyro model that can be called without arguments.
            init_strategy: Where chains start: ``init_to_median`` or ``init_to_sample`` of
                the prior, or ``init_to_value``, which takes the values given to a run only.
            chain_method: Replaces the one of the plan.

        Raises:
            ConfigError: The strategy or method is not known.
        """
        check_strategy(init_strategy)
        given: dict[str, JaxArray] = {}
        if chain_method is not None:
            plan = replace(plan, chain_method=chain_method, seed=plan.effective_seed)
        kernel = NUTS(
            model,
            adapt_step_size=plan.adapt_step_size,
            dense_mass=plan.dense_mass,
            target_accept_prob=plan.target_accept,
            max_tree_depth=plan.max_tree_depth,
            init_strategy=partial(start_of_site, given, init_strategy),
        )
        mcmc = MCMC(
            kernel,
            num_warmup=plan.num_warmup,
            num_samples=plan.num_samples,
            num_chains=plan.num_chains,
            chain_method=plan.chain_method,
            progress_bar=False,
        )
        sampler = cls(mcmc, plan)
        sampler._strategy, sampler._given = init_strategy, given
        return sampler

    def run(
        self, rng_key: JaxArray | None = None, init_params: Mapping[str, Any] | None = None
    ) -> Samples:
        """Adapt and sample.

        Args:
            rng_key: JAX random key; None takes the seed of the plan, so that a second run
                gives the same draws.
            init_params: Values by site, in the units of the model. Each chain starts near
                them: a value that may have both signs moves by about 1 % (0 stays), others
                by 0.01 in NumPyro's coordinate of their support, which they cannot leave.
                Sites without a value start where the strategy puts them. None leaves all
                starts to the strategy.

        Returns:
            Draws by site, all chains one after the other, shape (chains * draws, ...).

        Raises:
            ConfigError: A value belongs to no site, has another shape or is missing.
            SamplingError: The log density at the values is not finite, or NumPyro fails.
        """
        return self._sample(rng_key, init_params, {})

    def run_with_init_values(
        self, init_values: Mapping[str, Any], rng_key: JaxArray | None = None
    ) -> Samples:
        """Adapt and sample from the values of a fit, as ``run`` with ``init_params``.

        Args:
            init_values: Values by site, in the units of the model.
            rng_key: JAX random key; None takes the seed of the plan.

        Raises:
            ConfigError: A value belongs to no site, has another shape or is missing.
            SamplingError: The log density at the values is not finite, and the message
                names the site; or NumPyro fails.
        """
        return self.run(rng_key, init_values)

    def _sample(
        self,
        rng_key: JaxArray | None,
        init_params: Mapping[str, Any] | None,
        model_kwargs: Mapping[str, Any],
    ) -> Samples:
        self._draws = None
        own_key = rng_key is not None
        if rng_key is None:
            rng_key = jax.random.PRNGKey(self._plan.effective_seed)
        if init_params is None and self._strategy == ONLY_GIVEN:
            raise ConfigError(
                f"{ONLY_GIVEN} without values",
                where="init_params",
                remedy="Give the values, or choose another init_strategy",
            )
        _log.info(
            "NUTS: %d chains of %d warm-up steps and %d draws, %s",
            self._plan.num_chains,
            self._plan.num_warmup,
            self._plan.num_samples,
            "own random key" if own_key else f"seed {self._plan.effective_seed}",
        )
        started = time.perf_counter()
        starts = None
        # The same mapping, since the kernel holds it.
        self._given.clear()
        if init_params is not None:
            rng_key, starts = self._starts(rng_key, init_params, model_kwargs)
        # NumPyro's vectorized kernel can be set up only once; a copy is not set up.
        self._mcmc.sampler = copy.copy(self._mcmc.sampler)
        try:
            self._mcmc.run(rng_key, extra_fields=FIELDS, init_params=starts, **model_kwargs)
        except RuntimeError as error:
            raise SamplingError(f"NumPyro stopped: {error}", where="NUTSSampler") from error
        fields = self._mcmc.get_extra_fields(group_by_chain=True)
        draws = {name: np.asarray(x) for name, x in fields.items()}
        self._seconds = time.perf_counter() - started
        if not np.isfinite(draws["potential_energy"]).all():
            raise SamplingError(
                "the log density of some draws is not finite",
                where="NUTSSampler",
                remedy="Look for values at which the model divides by zero or overflows",
            )
        self._draws = draws
        for remark in remarks(self.stats):
            _log.warning("%s", remark)
        return {name: np.asarray(x) for name, x in self._mcmc.get_samples().items()}

    def _starts(
        self, rng_key: JaxArray, values: Mapping[str, Any], model_kwargs: Mapping[str, Any]
    ) -> tuple[JaxArray, dict[str, JaxArray]]:
        """Split a key and place the chains, without their axis for a single one."""
        rng_key, key = jax.random.split(rng_key)
        model = partial(self._mcmc.sampler.model, **model_kwargs)
        keys = jax.random.split(key, self._plan.num_chains)
        self._given |= {name: jnp.asarray(value, float) for name, value in values.items()}
        starts = scattered_starts(model, self._given, self._strategy, keys)
        if self._plan.num_chains == 1:
            starts = {name: x[0] for name, x in starts.items()}
        return rng_key, starts

    def _finished(self) -> Mapping[str, FloatArray]:
        if self._draws is None:
            raise SamplingError(
                "there is no finished run", where="NUTSSampler", remedy="Call run first"
            )
        return self._draws

    @property
    def stats(self) -> SamplingStats:
        """Summary of the last run.

        Raises:
            SamplingError: There is no finished run.
        """
        draws, of_trees = self._finished(), self.get_divergence_stats()
        return SamplingStats(
            num_samples=draws["diverging"].shape[-1],
            num_warmup=self._plan.num_warmup,
            num_divergences=int(draws["diverging"].sum()),
            divergence_rate=of_trees["divergence_rate"],
            mean_accept_prob=float(draws["accept_prob"].mean()),
            max_tree_depth_fraction=of_trees["max_tree_depth_fraction"],
            wall_time_seconds=self._seconds,
        )

    def get_divergence_stats(self) -> dict[str, float]:
        """Divergences and tree depths of the draws of the last run.

        Returns:
            ``divergence_rate`` (share of draws), ``mean_tree_depth`` and
            ``max_tree_depth_fraction`` (share of draws at the largest depth).

        Raises:
            SamplingError: There is no finished run.
        """
        draws = self._finished()
        depths = tree_depths(draws["num_steps"])
        return {
            "divergence_rate": float(draws["diverging"].mean()),
            "mean_tree_depth": float(depths.mean()),
            "max_tree_depth_fraction": float((depths >= self._plan.max_tree_depth).mean()),
        }

    def get_diagnostics(self) -> xarray.DataTree:
        """Return the last run as ArviZ groups.

        Returns:
            A tree with ``posterior``, ``sample_stats`` (log density, energy, acceptance,
            divergences, tree depth, step size of each draw), ``adaptation`` (step size and
            inverse mass matrix that the warm-up arrived at, its number of steps), and
            ``observed_data`` where the model has any.

        Raises:
            SamplingError: There is no finished run.
        """
        return recorded_tree(self._mcmc, self._finished())

    def log_adapter_diagnostics(self, run_logger: logging.Logger | None = None) -> None:
        """Log step sizes, mass matrix and the course of the last run at level INFO.

        Args:
            run_logger: Where to; None takes the logger of this module.

        Raises:
            SamplingError: There is no finished run.
        """
        draws = self._finished()
        logger = _log if run_logger is None else run_logger
        for line in adaptation_lines(self._mcmc, draws):
            logger.info("%s", line)
