"""Shards as jobs of PBS Pro.

A run has a folder that this machine and the nodes share. It holds the input of each shard,
and takes one result per shard, written under another name and renamed. Its name follows from
the model, settings, data and seeds, so that the same call on the same working folder goes on
where an earlier one ended, and draws no shard twice.

The model travels as a pickle of the standard library, which runs code when it is read. A job
reads it only from a folder that belongs to the same user alone, and only if it has the digest
that came with the job script. Results are arrays; nothing that a job wrote is unpickled.
"""

from __future__ import annotations

import operator
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from heterodyne._errors import ConfigError, SamplingError
from heterodyne._log import get_logger
from heterodyne._typing import FloatArray, JaxArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.core._jax import jax
from heterodyne.optimization.cmc._inputs import checked
from heterodyne.optimization.cmc.backends import _pbs_queue as pbs
from heterodyne.optimization.cmc.backends._draw import chain_keys, check_starts
from heterodyne.optimization.cmc.backends._memory import process_gb
from heterodyne.optimization.cmc.backends._pbs_config import PBSConfig
from heterodyne.optimization.cmc.backends._pbs_folder import JobFolder
from heterodyne.optimization.cmc.backends._pbs_jobs import Jobs, Limits, failure
from heterodyne.optimization.cmc.backends._pbs_payload import (
    STARTS,
    Payload,
    ShardInput,
    settings_of,
)
from heterodyne.optimization.cmc.backends._pbs_queue import Phase, ShardTimeoutError, Task
from heterodyne.optimization.cmc.backends._pbs_script import LARGEST_ARRAY
from heterodyne.optimization.cmc.backends.base import BackendCapabilities, CMCBackend

__all__ = ["PBSBackend", "PBSConfig", "ShardResult"]

_log = get_logger(__name__)


@dataclass
class ShardResult:
    """What became of a shard.

    Attributes:
        shard_id: Number of the shard, from 0.
        samples: Draws by name, all chains one after the other; empty if it failed.
        job_id: Id of its latest job.
        success: Whether the draws are there.
        error_message: Why not, with the end of the log of the job.
    """

    shard_id: int
    samples: dict[str, FloatArray]
    job_id: str
    success: bool = True
    error_message: str = ""


class PBSBackend(CMCBackend):
    """Draws on the nodes of a cluster with PBS Pro.

    Several shards are one array of jobs, a single one is a plain job. The jobs of a call that
    was interrupted go on: the same call takes them up again, and ``cleanup`` cancels them.
    """

    def __init__(self, pbs_config: PBSConfig | None = None) -> None:
        """Make a backend; nothing is submitted.

        Args:
            pbs_config: What jobs ask for; defaults if None.
        """
        self.pbs_config = PBSConfig() if pbs_config is None else pbs_config
        self._jobs = Jobs(self.pbs_config)

    def run(
        self,
        model: Callable[..., Any],
        config: CMCConfig,
        rng_key: JaxArray,
        init_params: Mapping[str, JaxArray] | None = None,
    ) -> dict[str, FloatArray]:
        """Draw from a posterior with one job per chain.

        Args:
            model: NumPyro model that needs no arguments: a function of a module, or a
                ``functools.partial`` of one with its data.
            config: Counts and settings of NUTS, and the longest time that a chain may run.
            rng_key: JAX random key. The draws are those of the other backends.
            init_params: Start values by name, shape (num_chains, ...) each.

        Returns:
            Draws by name, chain after chain, shape (num_chains * num_samples, ...) each.

        Raises:
            ConfigError: The model cannot be sent to a job, or an argument cannot be used.
            SamplingError: PBS cannot be used, or a chain failed; the others are kept for
                the next call with the same arguments.
            TimeoutError: A job ran for longer than ``config.per_shard_timeout``.
        """
        n_chains = checked(config).num_chains
        shards: list[dict[str, Any]] = [{} for _ in range(n_chains)]
        if init_params is not None:
            check_starts(init_params, n_chains)
            shards = [
                {STARTS: {name: np.asarray(x)[k : k + 1] for name, x in init_params.items()}}
                for k in range(n_chains)
            ]
        keys = chain_keys(rng_key, n_chains)
        results = self._drawn(shards, model, replace(config, num_chains=1), list(keys))
        failed = [result.error_message for result in results if not result.success]
        if failed:
            raise SamplingError(
                f"{len(failed)} of {n_chains} chains failed",
                where="PBS",
                remedy="The same call draws only those again:\n" + "\n".join(failed),
            )
        names = results[0].samples
        return {name: np.concatenate([r.samples[name] for r in results]) for name in names}

    def get_capabilities(self) -> BackendCapabilities:
        """Return that shards run at the same time, as many as one array may have."""
        most = self.pbs_config.max_running_shards or LARGEST_ARRAY
        return BackendCapabilities(
            supports_sharding=True, supports_parallel_chains=True, max_parallel_shards=most
        )

    def estimate_memory(self, n_data: int, n_params: int, n_chains: int) -> float:
        """Return an upper limit of the memory of a job in GB, on its own node.

        Args:
            n_data: Number of data points of a shard.
            n_params: Number of parameters.
            n_chains: Number of chains of a job, with the default number of draws.

        Raises:
            ConfigError: A number that is not at least 1.
        """
        return process_gb(n_data, n_params, n_chains)

    def validate_resources(self) -> None:
        """Check that the programs of PBS are there.

        Raises:
            SamplingError: qsub, qstat or qdel cannot be found; it is a ``RuntimeError``.
        """
        pbs.check_programs()

    def cleanup(self, job_ids: Sequence[str] | None = None) -> None:
        """Cancel jobs and delete the files of their shards; may be called more than once.

        Args:
            job_ids: Ids of jobs or of arrays; None for all jobs of this backend. Jobs of
                an earlier process are cancelled too, and their files stay.

        Raises:
            ConfigError: Something is no job id.
            SamplingError: qdel fails; the files stay.
        """
        tasks = self._jobs.tasks
        if job_ids is None:
            return self._jobs.remove(list(tasks))
        ids = set(_checked_ids(job_ids))
        mine = {k: {t.job_id, pbs.array_id(t.job_id)} for k, t in tasks.items() if t.job_id}
        pbs.cancel(sorted(ids.difference(*mine.values())))
        return self._jobs.remove([key for key, known in mine.items() if known & ids])

    def submit_shard(
        self,
        shard_data: dict[str, Any],
        model_fn: Callable[..., Any],
        config_dict: dict[str, Any],
        shard_id: int,
        seed: int,
    ) -> str:
        """Submit one shard as a plain job, in a folder of its own.

        ``wait_for_jobs`` waits for it; a shard that fails is not submitted again.

        Args:
            shard_data: Arguments of the model by name, as arrays and plain values, and
                start values of the chains under ``init_params``.
            model_fn: NumPyro model: a function of a module, or a ``functools.partial``.
            config_dict: Settings as fields of ``CMCConfig``; others have their defaults.
            shard_id: Number of the shard, from 0; it names the files.
            seed: Seed of all its random numbers.

        Returns:
            Id of the job.

        Raises:
            ConfigError: The model cannot be sent to a job, or an argument cannot be used.
            SamplingError: PBS cannot be used, or refuses the job.
        """
        if not 0 <= shard_id < LARGEST_ARRAY:
            allowed = f"0 to {LARGEST_ARRAY - 1}"
            raise ConfigError(f"it is {shard_id}", where="shard_id", allowed=allowed)
        self.validate_resources()
        settings = settings_of(CMCConfig.from_dict(config_dict))
        payload = Payload.of(model_fn, settings)
        given = ShardInput.of(shard_data, model_fn, _key_of(seed), settings["num_chains"])
        folder = JobFolder.fresh(self._base())
        digest = folder.write_inputs(payload, {shard_id: given})
        self._jobs.submit(folder, digest, [shard_id])
        return self._jobs.tasks[folder, shard_id].job_id

    def wait_for_jobs(
        self, job_ids: Sequence[str], timeout: float | None = None
    ) -> list[ShardResult]:
        """Wait for jobs of ``submit_shard``.

        A job that is not in the queue is over; its result file tells whether it succeeded.

        Args:
            job_ids: Ids.
            timeout: Longest time to wait for all in s, in the queue included; None for no
                limit.

        Returns:
            What became of each, in the order of the ids.

        Raises:
            ConfigError: An id is not one that this backend submitted.
            TimeoutError: The time is over; the jobs go on.
            SamplingError: qstat gives no answer for long.
        """
        keys = {task.job_id: key for key, task in self._jobs.tasks.items()}
        unknown = [job_id for job_id in job_ids if job_id not in keys]
        if unknown:
            raise ConfigError(
                f"{', '.join(unknown)} is not known",
                where="job_ids",
                allowed="ids that submit_shard of this backend returned",
            )
        mine = [keys[job_id] for job_id in job_ids]
        tasks = self._jobs.follow(mine, Limits(wait_seconds=timeout))
        return [self._result(task) for task in tasks]

    def run_shards(
        self,
        shards: Sequence[dict[str, Any]],
        model_fn: Callable[..., Any],
        config: CMCConfig,
        seeds: Sequence[int],
    ) -> list[ShardResult]:
        """Draw from a posterior per shard, each with all its chains in one job.

        A shard that fails is submitted again up to ``PBSConfig.max_retries`` times, with
        the same seed; not where PBS killed it at its walltime. The time in the queue does
        not count for ``config.per_shard_timeout``.

        Args:
            shards: For each, the arguments of the model by name, as arrays and plain
                values, and start values under ``init_params``.
            model_fn: NumPyro model: a function of a module, or a ``functools.partial``.
            config: Counts and settings of NUTS, and the longest time that a job may run.
            seeds: Seed of each shard.

        Returns:
            What became of each shard, in their order.

        Raises:
            ConfigError: There are no shards, or not as many seeds, or the model or an
                argument cannot be sent to a job.
            SamplingError: PBS cannot be used, or refuses a job.
            TimeoutError: A job ran for longer than ``config.per_shard_timeout``; all
                others have ended, and the next call draws only what is missing.
        """
        if not shards or len(shards) != len(seeds):
            raise ConfigError(
                f"there are {len(shards)} shards and {len(seeds)} seeds",
                where="shards",
                allowed="at least one shard, and a seed for each",
            )
        keys = [_key_of(seed) for seed in seeds]
        return self._drawn(shards, model_fn, config, keys)

    def _drawn(
        self,
        shards: Sequence[Mapping[str, Any]],
        model: Callable[..., Any],
        config: CMCConfig,
        keys: Sequence[JaxArray],
    ) -> list[ShardResult]:
        """Draw shards, each with a random key of its own."""
        self.validate_resources()
        payload = Payload.of(model, settings_of(config))
        inputs = {
            k: ShardInput.of(shard, model, key, config.num_chains)
            for k, (shard, key) in enumerate(zip(shards, keys, strict=True))
        }
        folder = JobFolder.of_run(self._base(), payload.fingerprint(inputs))
        digest = folder.write_inputs(payload, inputs)
        self._jobs.start(folder, digest, list(inputs))
        tasks = self._jobs.follow(
            [(folder, k) for k in inputs],
            Limits(self.pbs_config.max_retries, config.per_shard_timeout),
            lambda failed: self._jobs.submit(folder, digest, failed),
        )
        return self._ended(folder, tasks)

    def _ended(self, folder: JobFolder, tasks: Sequence[Task]) -> list[ShardResult]:
        """Turn shards at their end into results, and keep or delete their files."""
        results = [self._result(task) for task in tasks]
        overdue = [task for task in tasks if task.phase is Phase.OVERDUE]
        if overdue:
            raise ShardTimeoutError(
                f"{len(overdue)} of {len(tasks)} shards ran for longer than "
                "config.per_shard_timeout and were cancelled",
                where=folder.path,
                remedy="With a longer one, the same call draws only what is missing:\n"
                + "\n".join(failure(task) for task in overdue),
            )
        if not all(result.success for result in results):
            _log.warning("files of the run stay in %s", folder.path)
        elif self.pbs_config.cleanup_on_success:
            self._jobs.remove([(folder, task.shard) for task in tasks])
        return results

    def _result(self, task: Task) -> ShardResult:
        if task.phase is Phase.DONE:
            draws = self._jobs.draws[task.folder, task.shard]
            return ShardResult(task.shard, dict(draws), task.job_id)
        return ShardResult(task.shard, {}, task.job_id, False, failure(task))

    def _base(self) -> Path:
        given = self.pbs_config.working_dir
        if given is not None:
            return Path(given).resolve()
        _log.warning(
            "files of jobs go to %s, which other nodes can rarely see; set "
            "PBSConfig.working_dir to a folder that all share",
            tempfile.gettempdir(),
        )
        return Path(tempfile.gettempdir()).resolve()


def _checked_ids(job_ids: Sequence[str]) -> Sequence[str]:
    """Refuse what qdel could take for something else than an id."""
    for job_id in job_ids:
        if not re.fullmatch(pbs.JOB_ID, job_id):
            allowed = "ids of PBS, such as 12.host, 12[].host or 12[3].host"
            raise ConfigError(f"{job_id!r} is no job id", where="job_ids", allowed=allowed)
    return job_ids


def _key_of(seed: int) -> JaxArray:
    number = operator.index(seed)
    if isinstance(seed, bool) or not 0 <= number < 2**63:
        raise ConfigError(f"the seed is {seed}", where="seed", allowed="0 to 2⁶³ - 1")
    return jax.random.PRNGKey(number)
