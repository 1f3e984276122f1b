"""What it takes to draw any one shard, wherever that happens."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from heterodyne._events import EventSink, Message
from heterodyne._typing import IntArray, StoredArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.config.schema import EngineName
from heterodyne.core._jax import jax, jnp
from heterodyne.core.ahead import compile_in
from heterodyne.core.likelihood import PairData
from heterodyne.optimization.cmc._assign import Sharding, assigned, shard_of
from heterodyne.optimization.cmc._frame import Frame
from heterodyne.optimization.cmc._importance import compile_weights
from heterodyne.optimization.cmc._nuts import Target
from heterodyne.optimization.cmc._passes import Drawing, Keeper, Passes, Sampled
from heterodyne.optimization.cmc._sampler import Schedule
from heterodyne.optimization.derived import Derived
from heterodyne.optimization.posterior import Posterior
from heterodyne.optimization.problem import Problem

# Beside the thread that compiles what comes before the shards.
_COMPILER = ThreadPoolExecutor(1, thread_name_prefix="shard compiler")


def schedule_of_shard(config: CMCConfig, n_pairs: int, n_shards: int, n_params: int) -> Schedule:
    """How much to sample of a shard.

    Args:
        config: Counts of draws.
        n_pairs: Number of pairs of all shards.
        n_shards: Number of shards.
        n_params: Number of unknowns.
    """
    # The configuration counts points, and each pair is two of them.
    return Schedule.of(config, 2 * n_pairs // n_shards, n_params)


@dataclass(frozen=True)
class ShardPlan:
    """What all shards of a data set share, beside the measured correlation itself.

    Attributes:
        data: The whole data set without its blocks.
        sharding: How pairs are divided.
        posterior: Map and density.
        derived: Quantities at reference times.
        schedule: How much to sample of each shard.
        engine: What draws.
        scale: Estimate of sigma that scales its prior.
        weight: Power of the prior density.
        frames: Normal approximations of the modes of a shard.
    """

    data: PairData
    sharding: Sharding
    posterior: Posterior
    derived: Derived
    schedule: Schedule
    engine: EngineName
    scale: float
    weight: float
    frames: tuple[Frame, ...]

    @classmethod
    def of(cls, passes: Passes, sharding: Sharding, config: CMCConfig) -> ShardPlan:
        """Plan the shards of a data set.

        Args:
            passes: What the passes over all data share.
            sharding: How pairs are divided.
            config: Counts of draws, and whether the prior is tempered.
        """
        k, problem = sharding.n_shards, passes.fit.problem
        bare = problem.data._replace(blocks=())
        return cls(
            jax.tree.map(np.asarray, bare),
            sharding,
            passes.posterior,
            passes.derived,
            schedule_of_shard(config, problem.n_pairs, k, passes.posterior.size),
            passes.engine,
            passes.scale,
            1.0 / k if config.prior_tempering else 1.0,
            tuple(Frame(f.centre, f.factor * np.sqrt(k)) for f in passes.frames()),
        )

    def labels(self, c2: StoredArray) -> IntArray:
        """Number of the shard of each pair, as ``Sharding.assign``."""
        return assigned(self.data, c2.shape, self.sharding)

    def sizes(self, labels: IntArray) -> tuple[int, ...]:
        """Number of pairs of each shard."""
        counts = np.bincount(labels[labels >= 0], minlength=self.sharding.n_shards)
        return tuple(counts.tolist())

    def draw(
        self,
        number: int,
        c2: StoredArray,
        labels: IntArray,
        keeper: Keeper,
        on_event: EventSink,
    ) -> Sampled:
        """Draw one shard, or go on with it.

        Args:
            number: Number of the shard, counted from 0.
            c2: Measured correlation, shape (n_angles, N, N).
            labels: From ``labels``.
            keeper: Where its states are kept.
            on_event: Receives the progress.

        Raises:
            SamplingError: The density is not finite near the fit.
        """
        on_event(Message(f"Shard {number + 1} of {self.sharding.n_shards}."))
        # Shards of one seed would be drawn in step.
        schedule = replace(self.schedule, seed=self.schedule.seed + number + 1)
        drawing = Drawing(self.posterior, self.derived, schedule, self.engine, keeper, on_event)
        shard = shard_of(self.data, c2, labels, number)
        target = Target(shard, jnp.asarray(self.scale), None, self.weight)
        return drawing.sample(f"shard{number + 1}", target, self.frames)


def compile_shards(problem: Problem) -> Future[None]:
    """Have the code that weighs points of a shard compiled and kept, in the background.

    Workers then find it, and need not compile it once more each.

    Args:
        problem: What is going to be fitted, and then divided.

    Returns:
        When the code is ready.
    """
    posterior = Posterior(problem.coordinates, problem.scaling)
    # Only shapes matter: pairs of a shard have weights.
    data = problem.data._replace(weights=problem.data.blocks)
    target = Target(data, jnp.asarray(1.0), None, 1.0)
    return compile_weights(posterior, target, partial(compile_in, _COMPILER))


def await_compilation() -> None:
    """Wait until the code that ``compile_shards`` asked for is kept, if it was called."""
    # There is one thread, so that this comes last.
    _COMPILER.submit(int).result()
