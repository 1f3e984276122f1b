"""Shards in processes of their own, all cores of one machine busy."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from heterodyne._cores import usable_cores
from heterodyne._errors import ConfigError, SamplingError
from heterodyne._log import get_logger
from heterodyne._typing import FloatArray, JaxArray
from heterodyne.config.cmc import _N_PARAMS_HETERODYNE, CMCConfig
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.optimization.cmc._array_checks import count
from heterodyne.optimization.cmc._inputs import checked
from heterodyne.optimization.cmc.backends._dispatch import Finished, dispatch
from heterodyne.optimization.cmc.backends._draw import draw
from heterodyne.optimization.cmc.backends._joint import run_joint_pooled_shards_parallel
from heterodyne.optimization.cmc.backends._memory import ENGINE_POINT, process_gb
from heterodyne.optimization.cmc.backends._schedule import Limits, longest_first
from heterodyne.optimization.cmc.backends._shard_engine import warm_started
from heterodyne.optimization.cmc.backends._shards import (
    ShardPlan,
    around_fit,
    checked_shards,
    draw_task,
    prior_width,
    wrong,
)
from heterodyne.optimization.cmc.backends._shared import (
    SHARD_ARRAYS,
    ArraySpec,
    SharedDataManager,
)
from heterodyne.optimization.cmc.backends._workers import Job, beat_for
from heterodyne.optimization.cmc.backends.base import BackendCapabilities, CMCBackend
from heterodyne.optimization.cmc.backends.cpu_backend import require_processor

__all__ = [
    "ArraySpec",
    "LPTScheduler",
    "MultiprocessingBackend",
    "SharedDataManager",
    "run_joint_pooled_shards_parallel",
]

_LOG = get_logger(__name__)
_SHARD_ARRAY_KEYS = tuple(SHARD_ARRAYS)
_SPAWN = "spawn"
# Points whose evaluation takes as long as everything else in one gradient.
_OVERHEAD = 100_000


class LPTScheduler:
    """Hands out shards by falling cost, so that the last ones to end are short.

    The time of all is then at most 4/3 - 1/(3 n_workers) of the shortest possible (Graham, SIAM
    Journal on Applied Mathematics 17, 416, 1969).

    Args:
        shard_costs: Expected cost of each shard, in any unit.
        n_workers: Number of workers.

    Raises:
        ConfigError: A cost that is negative or not finite, or no worker.
    """

    def __init__(self, shard_costs: Sequence[float], n_workers: int) -> None:
        costs = np.asarray(shard_costs, float)
        if costs.ndim != 1 or not np.all(np.isfinite(costs) & (costs >= 0)):
            raise ConfigError(
                f"the costs are {shard_costs!r}", where="shard_costs", allowed="finite, at least 0"
            )
        self.n_workers = count(n_workers, "n_workers")
        self._shard_order = deque(longest_first(costs.tolist()))

    @classmethod
    def from_shard_data(
        cls,
        shard_data_list: Sequence[Mapping[str, Any]],
        n_workers: int,
        n_params: int = _N_PARAMS_HETERODYNE,
        n_samples: int = 1000,
    ) -> Self:
        """Estimate the costs of shards from the sizes of their data.

        Args:
            shard_data_list: Shards as ``MultiprocessingBackend.run_shards`` takes them.
            n_workers: Number of workers.
            n_params: Number of parameters.
            n_samples: Number of draws.

        Raises:
            ConfigError: A number that is not at least 1.
        """
        samples, parameters = count(n_samples, "n_samples"), count(n_params, "n_params")
        costs = [_estimate_shard_time(shard, parameters, samples) for shard in shard_data_list]
        return cls(costs, n_workers)

    def next_shard(self) -> int | None:
        """Take the number of the most expensive shard that is left; None where none is."""
        return self._shard_order.popleft() if self._shard_order else None


def _estimate_shard_time(shard: Mapping[str, Any], n_params: int, n_samples: int) -> float:
    """Expected time of a shard, in units of one point in one gradient.

    The gradients of a draw grow with the fourth root of the number of parameters (Neal, in
    Handbook of Markov Chain Monte Carlo, 2011, section 5.4.4).
    """
    return n_samples * n_params**0.25 * (np.size(shard["c2_data"]) + _OVERHEAD)


class MultiprocessingBackend(CMCBackend):
    """Draws shards in spawned processes.

    A process does one shard after the other; one that hangs is ended and replaced.

    Of a shard, ``run_shards`` takes ``c2_data``, symmetric matrices of shape (N, N) or
    (n_phi, N, N), and ``q`` in 1/Å. Frame times ``t`` in s, shape (N,), or their spacing ``dt``
    are needed as well. Optional are

    - ``weights``, of the shape of ``c2_data``: 0 for pairs that are not of this shard. Shards
      must not share pairs: nothing checks that.
    - ``phi_angle`` in degrees, one for each matrix; a single one needs none.
    - ``noise_scale`` or ``sigma``: an estimate of the errors, which scales the prior of sigma.
    - ``contrast`` and ``offset``: what the constant modes of ``per_angle_mode`` hold, or any
      mode where the parameter space does not let them vary.
    - ``reparam_config_dict``: not used, for no posterior depends on it.

    A shard fails that raises, does not converge to the limits of the configuration, takes longer
    than ``per_shard_timeout``, or twice loses its process or hears nothing of it for
    ``heartbeat_timeout``. One that succeeds gives ``shard_idx``; ``samples`` by name, shape
    (n_chains, n_samples), with sigma; ``n_chains``; ``n_samples``, as many as were needed;
    ``param_names``, without sigma; ``extra_fields`` of each draw; ``duration`` in s; ``stats``.

    Args:
        n_workers: Largest number of processes; None takes one for each usable processor.
        spawn_method: Only ``spawn``: a fork of a process that runs JAX locks up.

    Raises:
        ConfigError: Another method, or a number that is not at least 1.
    """

    def __init__(self, n_workers: int | None = None, spawn_method: str = _SPAWN) -> None:
        if spawn_method != _SPAWN:
            raise ConfigError(
                f"the method is {spawn_method!r}",
                where="spawn_method",
                allowed="spawn, since a fork of a process that runs JAX locks up",
            )
        self.n_workers: int = usable_cores() if n_workers is None else count(n_workers, "n_workers")
        self.spawn_method: str = spawn_method
        self._shared_mgr: SharedDataManager | None = None

    def run(
        self,
        model: Callable[..., Any],
        config: CMCConfig,
        rng_key: JaxArray,
        init_params: Mapping[str, JaxArray] | None = None,
    ) -> dict[str, FloatArray]:
        """Draw from a NumPyro model in this process, one chain after the other.

        ``run_shards`` is what uses processes; ``WorkerPoolBackend.run`` has one for each chain.

        Args:
            model: NumPyro model that can be called without arguments.
            config: Counts and settings of NUTS, as ``CPUBackend.run`` uses them.
            rng_key: JAX random key.
            init_params: As ``CPUBackend.run`` takes them.

        Returns:
            Draws by site, chain after chain, shape (num_chains * num_samples, ...); those of
            ``CPUBackend``.

        Raises:
            ConfigError: A setting or start value that cannot be used.
            SamplingError: The log density is not finite, or NumPyro fails; a RuntimeError.
        """
        return draw(model, config, rng_key, init_params)

    def get_capabilities(self) -> BackendCapabilities:
        """Return what the backend can do: a shard in each process, chains in turn."""
        return BackendCapabilities(
            supports_sharding=True,
            supports_parallel_chains=False,
            max_parallel_shards=self.n_workers,
        )

    def validate_resources(self) -> None:
        """Check that JAX can use a processor, and that processes can be spawned.

        Raises:
            SamplingError: One of them fails; a RuntimeError.
        """
        require_processor()
        if _SPAWN not in multiprocessing.get_all_start_methods():
            raise SamplingError(
                "this Python cannot spawn processes",
                where="multiprocessing",
                remedy="Use the backend cpu",
            )

    def estimate_memory(self, n_data: int, n_params: int, n_chains: int) -> float:
        """Return an upper limit of the memory of all processes of ``run_shards`` in GB.

        Args:
            n_data: Number of data points of a shard, those without weight among them.
            n_params: Number of parameters.
            n_chains: Number of chains, with the default number of draws.

        Raises:
            ConfigError: A number that is not at least 1.
        """
        return self.n_workers * process_gb(n_data, n_params, n_chains, ENGINE_POINT)

    def cleanup(self) -> None:
        """Remove shared memory; may be called more than once."""
        if self._shared_mgr is not None:
            self._shared_mgr.cleanup()
            self._shared_mgr = None

    def run_shards(
        self,
        shards: Sequence[Mapping[str, Any]],
        config: CMCConfig,
        initial_values: Mapping[str, Any] | None = None,
        parameter_space: ParameterSpace | None = None,
        prior_width_multiplier: float = 1.0,
        nlsq_uncertainties: Mapping[str, float] | None = None,
        nlsq_prior_width_factor: float = 2.0,
        progress_bar: bool = True,
    ) -> list[dict[str, Any]]:
        """Draw from the posterior of every shard, by a fit and NUTS in the coordinates it gives.

        The likelihood counts each unique pair off the diagonal and later than t = 0 once.

        Args:
            shards: For each shard a dict as the class describes it.
            config: Counts and settings of NUTS; limits on convergence and time; whether the
                priors of the shards multiply to one prior (``prior_tempering``).
            initial_values: Values of parameters at which the search of the fit starts.
            parameter_space: Bounds and priors; defaults if None.
            prior_width_multiplier: Factor on the width of every prior, on the axis on which
                it is normal. 1 takes sqrt(number of shards) with ``prior_tempering``.
            nlsq_uncertainties: Standard errors of ``initial_values``, around which priors are
                centred with ``use_nlsq_informed_priors: literal``, and only then. **With a
                fit of the same data, these count twice**; ``stats["priors_around_fit"]``
                names the parameters.
            nlsq_prior_width_factor: Width of such priors over the error.
            progress_bar: Whether progress is logged.

        Returns:
            A dict for each shard that succeeded, in their order, as the class describes it.

        Raises:
            ConfigError: Settings that cannot be used.
            DataError: There is no shard, or its data cannot be used.
            SamplingError: Every shard failed, or so many that ``min_success_rate`` is out of
                reach; or initial values leave the transport of the sample undetermined.
        """
        config, prepared = checked(config), checked_shards(shards)
        space = parameter_space or ParameterSpace()
        space = warm_started(space, initial_values, config)
        fit = (initial_values or {}, nlsq_uncertainties or {}, nlsq_prior_width_factor)
        space, fitted = around_fit(space, *fit, config)
        width = prior_width(prior_width_multiplier, len(shards), config)
        plan = ShardPlan(config, space, len(shards), width, fitted)
        self.cleanup()
        try:
            self._shared_mgr = SharedDataManager()
            tasks = plan.share(prepared, self._shared_mgr)
            found = self._dispatched(tasks, prepared, config, progress_bar)
        finally:
            self.cleanup()
        return _successful(found, config)

    def _dispatched(
        self,
        tasks: Sequence[Mapping[str, Any]],
        shards: Sequence[Mapping[str, Any]],
        config: CMCConfig,
        shown: bool,
    ) -> list[Finished]:
        n_workers = min(self.n_workers, len(tasks))
        costs = [_estimate_shard_time(s, _N_PARAMS_HETERODYNE, config.num_samples) for s in shards]
        return dispatch(
            tasks,
            costs,
            Job(
                draw_task,
                threads=max(1, usable_cores() // n_workers),
                beat=beat_for(config.heartbeat_timeout),
            ),
            n_workers=n_workers,
            limits=Limits(
                job=config.per_shard_timeout,
                silence=config.heartbeat_timeout,
                least_share=config.min_success_rate,
            ),
            shown=shown,
            wrong=wrong,
        )


def _successful(found: Sequence[Finished], config: CMCConfig) -> list[dict[str, Any]]:
    """Return what succeeded; say what did not, or give up where that is much."""
    failed = {k: one.problem for k, one in enumerate(found) if one.problem is not None}
    listed = "; ".join(f"shard {k}: {problem}" for k, problem in failed.items())
    share = 1.0 - len(failed) / len(found)
    if share < config.min_success_rate or len(failed) == len(found):
        raise SamplingError(
            f"{len(failed)} of {len(found)} shards failed ({listed}; counted from 0)",
            where="run_shards",
            allowed=f"at least {config.min_success_rate:.0%} successful (min_success_rate)",
            remedy="Sample all data in one pass, use fewer shards, or raise num_samples",
        )
    if failed:
        log = _LOG.warning if share < config.min_success_rate_warning else _LOG.info
        log("%d of %d shards failed and are left out: %s.", len(failed), len(found), listed)
    return [
        one.value | {"duration": one.outcome.seconds}
        for k, one in enumerate(found)
        if k not in failed
    ]
