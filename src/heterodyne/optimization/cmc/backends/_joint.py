"""Shards of pooled points in processes of their own, with a result for each."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from heterodyne._cores import usable_cores
from heterodyne._errors import ConfigError
from heterodyne._log import get_logger
from heterodyne._typing import ArrayLike
from heterodyne.config._suggest import not_known
from heterodyne.config.cmc import CMCConfig
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core.likelihood import PairData
from heterodyne.optimization.cmc._array_checks import count
from heterodyne.optimization.cmc._diagnostics import limits_of
from heterodyne.optimization.cmc._inputs import checked
from heterodyne.optimization.cmc._summary import mixing, moments, status_of
from heterodyne.optimization.cmc._verdict import Verdict
from heterodyne.optimization.cmc._warm_start import refuse_degenerate
from heterodyne.optimization.cmc.backends._dispatch import Finished, dispatch
from heterodyne.optimization.cmc.backends._schedule import Limits
from heterodyne.optimization.cmc.backends._shard_engine import (
    ShardSettings,
    draw_shard,
    pooled_pairs,
    shortcoming,
    warm_started,
    widening,
)
from heterodyne.optimization.cmc.backends._workers import Job, beat_for
from heterodyne.optimization.cmc.results import CMCResult

_LOG = get_logger(__name__)


@dataclass(frozen=True, eq=False)
class JointShard:
    """Points of one shard of all angles, and how to draw them.

    Attributes:
        data: Measured correlation, shape (n,).
        t: Frame times in s, equally spaced, shape (N,).
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        phi_unique: Detector angles in degrees, shape (n_phi,).
        phi_indices: Index of the angle of each point, shape (n,).
        i1_indices: Frame of the first time of each point, counted from 0, shape (n,).
        i2_indices: Frame of the second time, shape (n,).
        noise_scale: Estimate of the error of a pair, which scales the prior of sigma.
        space: Start values, bounds and priors of all data.
        config: Counts and settings of NUTS, and limits on convergence.
        per_angle_mode: How contrast and offset depend on the angle.
        fixed_contrast: Contrast of each angle for the constant modes; None takes a fit's.
        fixed_offset: Offset of each angle, likewise.
        num_shards: Number of shards K. With ``config.prior_tempering`` priors are wider by
            sqrt(K), so that those of all shards multiply to the prior.
        seed: Seed of all random numbers.
        initial_values: Values of parameters at which the search of the fit starts.
    """

    data: ArrayLike
    t: ArrayLike
    q: float
    dt: float
    phi_unique: ArrayLike
    phi_indices: ArrayLike
    i1_indices: ArrayLike
    i2_indices: ArrayLike
    noise_scale: float
    space: ParameterSpace
    config: CMCConfig
    per_angle_mode: str = "auto"
    fixed_contrast: ArrayLike | None = None
    fixed_offset: ArrayLike | None = None
    num_shards: int = 1
    seed: int = 42
    initial_values: Mapping[str, float] | None = None

    def pairs(self) -> PairData:
        """Return the pairs of the points.

        Raises:
            ConfigError: A time axis, q or dt that cannot be used.
            DataError: Points that cannot be used.
        """
        return pooled_pairs(
            self.data, self.t, self.q, self.dt, self.phi_unique, self.phi_indices,
            self.i1_indices, self.i2_indices,
        )  # fmt: skip

    def settings(self) -> ShardSettings:
        """Return how the shard is drawn.

        Raises:
            ConfigError: Settings that cannot be used.
        """
        width = widening(count(self.num_shards, "num_shards"), self.config)
        n_angles = np.size(self.phi_unique)
        return ShardSettings(
            space=warm_started(self.space, self.initial_values, self.config),
            config=self.config,
            mode=self.per_angle_mode,
            noise_scale=float(self.noise_scale),
            seed=self.seed,
            prior_width=width,
            sigma_width=width,
            contrast=_by_angle(self.fixed_contrast, n_angles),
            offset=_by_angle(self.fixed_offset, n_angles),
        )

    def draw(self) -> CMCResult:
        """Draw from the posterior of the points, with the likelihood of independent errors.

        Raises:
            ConfigError: Settings that cannot be used.
            DataError: Points that cannot be used.
            SamplingError: The density is not finite near the fit.
        """
        begun = time.monotonic()
        settings = self.settings()
        drawn = draw_shard(self.pairs(), settings)
        named = {name: x for name, x in drawn.named.items() if name != "sigma"}
        draws, found = drawn.sampled.draws, drawn.sampled.diagnosis
        assert draws.trajectories is not None
        passed = found.passed(limits_of(self.config))
        return CMCResult(
            parameter_names=list(named),
            **moments(named),
            **mixing(named),
            convergence_passed=passed,
            bfmi=np.array(found.bfmi),
            samples=drawn.named,
            num_warmup=draws.trajectories.warmup_steps,
            num_samples=draws.n_draws,
            num_chains=draws.n_chains,
            divergences=found.divergences or 0,
            wall_time_seconds=time.monotonic() - begun,
            metadata={
                "engine": draws.engine,
                "n_pairs": drawn.fit.problem.n_pairs,
                "prior_width": settings.prior_width,
                "problem": None if passed else shortcoming(found),
            },
            convergence_status=status_of(passed),
            per_angle_mode=self.per_angle_mode,
        )


def _by_angle(values: ArrayLike | None, n_angles: int) -> tuple[float, ...] | None:
    if values is None:
        return None
    return tuple(np.broadcast_to(np.asarray(values, float), n_angles).tolist())


def run_joint_pooled_shards_parallel(
    payloads: Sequence[Mapping[str, Any]],
    *,
    n_workers: int,
    num_chains: int,
    progress_bar: bool = True,
    per_shard_timeout: float = 7200,
) -> list[CMCResult]:
    """Draw shards of pooled points in worker processes.

    Args:
        payloads: For each shard the arguments of ``get_heterodyne_pooled_model_for_mode``,
            ``per_angle_mode`` among them; ``config``; and, if wanted, ``seed`` (default: that
            of the configuration, another for each shard) and ``initial_values``, at which the
            search of the fit starts.
        n_workers: Largest number of processes.
        num_chains: Number of chains of each shard, in place of that of its configuration.
        progress_bar: Whether progress is logged.
        per_shard_timeout: Longest time for a shard in s. A process that takes longer is
            ended; the others go on.

    Returns:
        A result for each shard, in their order. That of a shard without draws has no
        parameters and no samples; ``metadata["failed"]`` says why, and
        ``convergence_status`` is ``failed``. Leave such shards out before combining.

    Raises:
        ConfigError: An argument that is not known or missing, or a number that cannot be used.
        SamplingError: Initial values leave the transport of the sample undetermined.
    """
    chains, workers = count(num_chains, "num_chains"), count(n_workers, "n_workers")
    if not per_shard_timeout > 0:
        raise ConfigError(f"{per_shard_timeout} s", where="per_shard_timeout", allowed="> 0 s")
    if not payloads:
        return []
    tasks = [_shard(payload, k, chains) for k, payload in enumerate(payloads)]
    workers = min(workers, len(tasks))
    silence = max(task.config.heartbeat_timeout for task in tasks)
    found = dispatch(
        tasks,
        [float(np.size(task.data)) for task in tasks],
        Job(JointShard.draw, threads=max(1, usable_cores() // workers), beat=beat_for(silence)),
        n_workers=workers,
        limits=Limits(job=per_shard_timeout, silence=silence),
        shown=progress_bar,
    )
    return [_result(one, k, len(found), tasks[k]) for k, one in enumerate(found)]


def _shard(payload: Mapping[str, Any], number: int, chains: int) -> JointShard:
    """Check the names of the arguments of a shard, and set its number of chains."""
    known = inspect.signature(JointShard).parameters
    for name in payload:
        if name not in known:
            raise ConfigError(
                not_known("argument", name, known),
                where=f"payloads[{number}]",
                allowed=", ".join(known),
            )
    missing = [
        name for name, p in known.items() if p.default is p.empty and payload.get(name) is None
    ]
    if missing:
        raise ConfigError(f"{', '.join(missing)} missing", where=f"payloads[{number}]")
    config = checked(replace(payload["config"], num_chains=chains))
    shard = JointShard(**{"seed": config.seed + number + 1, **payload, "config": config})
    where = f"payloads[{number}], initial_values"
    refuse_degenerate(shard.initial_values or {}, shard.space, config, where)
    return shard


def _result(one: Finished, number: int, total: int, shard: JointShard) -> CMCResult:
    if one.problem is None:
        result: CMCResult = one.value
        result.metadata["shard"] = number
        return result
    _LOG.warning("Shard %d of %d has no draws: %s.", number, total, one.problem)
    return CMCResult(
        parameter_names=[],
        posterior_mean=np.empty(0),
        posterior_std=np.empty(0),
        credible_intervals={},
        convergence_passed=False,
        wall_time_seconds=one.outcome.seconds,
        metadata={
            "shard": number,
            "failed": one.problem,
            "attempts": one.outcome.attempts,
            "traceback": one.details,
            "verdict": Verdict(False, True, f"No draws: {one.problem}.", (), (), "plain").as_dict(),
        },
        convergence_status="failed",
        per_angle_mode=shard.per_angle_mode,
        quality_flag="poor",
    )
