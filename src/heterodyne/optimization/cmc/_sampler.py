"""The sampling loop: adapt, sample until there is enough, resumable after every block.

Adaptation runs in stages. At the end of each, the draws of all chains together give the
next whitened frame, and the step size is adapted anew. The loop is a function from one
``SamplerState`` to the next, so a run that was interrupted goes on to the same draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from heterodyne._cores import usable_cores
from heterodyne._errors import SamplingError
from heterodyne._events import Progress
from heterodyne._typing import FloatArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.core._jax import jax, jnp
from heterodyne.core.ahead import compile_ahead
from heterodyne.optimization.cmc._draws import Draws, Trajectories
from heterodyne.optimization.cmc._frame import Frame
from heterodyne.optimization.cmc._nuts import (
    START_ENERGY,
    Kernel,
    Steps,
    Target,
    advance,
    start_chain,
)
from heterodyne.optimization.posterior import Posterior

if TYPE_CHECKING:
    from numpyro.infer.hmc import HMCState

T = TypeVar("T")

_BLOCK = 50
_FIRST_LOOK = 100
_LOOK_GROWTH = 1.25
_STAGES = 4
_ADAPT = 100
_FIRST_STEP_SIZE = 0.5
# Where chains start: all at the mode, at draws of the normal approximation, or further out.
_SPREADS = {"init_to_value": 0.0, "init_to_median": 1.0, "init_to_sample": 2.0}
_COUNTS = ("stage", "warmup_steps", "warmup_gradients")


@dataclass(frozen=True)
class Schedule:
    """How much to sample.

    Attributes:
        n_chains: Number of chains.
        n_adapt: Steps of each stage of adaptation.
        n_stages: Stages of adaptation.
        block: Steps between checkpoints.
        n_draws: Largest number of draws of a chain.
        target_accept: Acceptance probability that the step size is adapted to.
        max_tree_depth: Largest number of doublings of a trajectory.
        full_frame: Whiten with a full covariance rather than its diagonal.
        parallel: Run chains side by side.
        seed: Seed of all random numbers.
        spread: Standard deviation of the starts over that of the normal approximation.
        max_r_hat: Largest R-hat that a run is to end with before its largest number of draws.
        min_ess: Smallest effective number of draws, likewise.
    """

    n_chains: int
    n_adapt: int
    n_stages: int
    block: int
    n_draws: int
    target_accept: float
    max_tree_depth: int
    full_frame: bool
    parallel: bool
    seed: int
    spread: float = 1.0
    max_r_hat: float = math.inf
    min_ess: float = 0.0

    @classmethod
    def of(cls, config: CMCConfig, n_points: int, n_params: int) -> Schedule:
        """Read the counts of a configuration, which are upper limits.

        Args:
            config: Settings.
            n_points: Number of data points, which scales the counts of small data sets.
            n_params: Number of unknowns.
        """
        warmup, draws = config.get_adaptive_sample_counts(n_points, n_params)
        n_stages = min(_STAGES, max(1, warmup // 50))
        block = min(_BLOCK, draws)
        return cls(
            n_chains=config.num_chains,
            n_adapt=max(1, min(_ADAPT, warmup // n_stages)),
            n_stages=n_stages,
            block=block,
            n_draws=draws,
            target_accept=config.target_accept_prob,
            max_tree_depth=config.max_tree_depth,
            full_frame=config.dense_mass,
            parallel=config.chain_method == "parallel",
            seed=config.seed,
            spread=_SPREADS[config.init_strategy],
            max_r_hat=config.max_r_hat,
            min_ess=float(config.min_ess),
        )

    def looks(self) -> frozenset[int]:
        """Numbers of draws of a chain at which to ask whether they suffice."""
        counts, n = [], _FIRST_LOOK
        while n < self.n_draws:
            counts.append(-(-n // self.block) * self.block)
            n = math.ceil(_LOOK_GROWTH * n)
        return frozenset(counts)


@dataclass(frozen=True)
class SamplerState:
    """Everything that decides how sampling goes on.

    Attributes:
        stage: Finished stages of adaptation; equal to ``n_stages`` while sampling.
        frame: Frame of the current stage.
        chains: State of each chain.
        steps: Steps of the current stage, leading axes (chain, step).
        warmup_steps: Steps of the finished stages, of one chain.
        warmup_gradients: Gradients of the finished stages, of all chains.
    """

    stage: int
    frame: Frame
    chains: tuple[HMCState, ...]
    steps: Steps | None
    warmup_steps: int = 0
    warmup_gradients: int = 0

    @property
    def n_steps(self) -> int:
        """Steps of a chain in the current stage."""
        return 0 if self.steps is None else self.steps.z.shape[1]


@dataclass(frozen=True)
class Sampler:
    """NUTS on one posterior.

    Attributes:
        posterior: Map and density.
        target: What it is conditioned on.
        schedule: How much to sample.
        stage: Name of the work in progress events.
    """

    posterior: Posterior
    target: Target
    schedule: Schedule
    stage: str = "draws"
    # Lengths of blocks that are compiled.
    _compiled: set[int] = field(default_factory=set, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Name of the engine."""
        return "nuts"

    @property
    def kernel(self) -> Kernel:
        """Static settings of the compiled block."""
        s = self.schedule
        return Kernel(self.posterior, s.n_adapt, s.target_accept, s.max_tree_depth)

    def start(self, frame: Frame) -> SamplerState:
        """Start chains around the mode of the normal approximation that a frame stands for."""
        rng = np.random.default_rng(self.schedule.seed)
        shape = (self.schedule.n_chains, self.posterior.size)
        places = self.schedule.spread * rng.normal(size=shape)
        return self._started(SamplerState(0, frame, (), None), list(places), _FIRST_STEP_SIZE)

    def _started(
        self, state: SamplerState, places: list[FloatArray], step_size: float
    ) -> SamplerState:
        keys = jax.random.split(jax.random.PRNGKey(self.schedule.seed), self.schedule.n_chains)
        keys = [jax.random.fold_in(key, state.stage) for key in keys]
        chains = tuple(
            start_chain(key, jnp.asarray(z), step_size, self.kernel)
            for key, z in zip(keys, places, strict=True)
        )
        return replace(state, chains=chains, steps=None)

    def _each_chain(self, length: int, work: Callable[[int], T]) -> list[T]:
        """Run work for every chain; the first alone where it compiles for the others."""
        chains = range(self.schedule.n_chains)
        alone = 0 if length in self._compiled else 1
        first = [jax.block_until_ready(work(k)) for k in chains[:alone]]
        self._compiled.add(length)
        workers = usable_cores() if self.schedule.parallel else 1
        with ThreadPoolExecutor(min(len(chains), workers)) as pool:
            others = pool.map(lambda k: jax.block_until_ready(work(k)), chains[alone:])
            return [*first, *others]

    def advance(self, state: SamplerState) -> SamplerState:
        """Take one block of steps in every chain and refine the frame after a stage."""
        sampling = state.stage >= self.schedule.n_stages
        goal = self.schedule.n_draws if sampling else self.schedule.n_adapt
        length = min(self.schedule.block, goal - state.n_steps)
        run = partial(advance, target=self.target, frame=state.frame, kernel=self.kernel)
        done = self._each_chain(length, lambda k: run(state.chains[k], length=length))
        blocks = [steps for _, steps in done]
        new = Steps(
            *(np.stack([np.asarray(x) for x in column]) for column in zip(*blocks, strict=True))
        )
        if state.steps is not None:
            new = Steps(
                *(np.concatenate(pair, axis=1) for pair in zip(state.steps, new, strict=True))
            )
        state = replace(state, chains=tuple(chain for chain, _ in done), steps=new)
        if sampling or state.n_steps < self.schedule.n_adapt:
            return state
        return self._next_stage(state, new)

    def _next_stage(self, state: SamplerState, steps: Steps) -> SamplerState:
        finished = replace(
            state,
            stage=state.stage + 1,
            steps=None,
            warmup_steps=state.warmup_steps + steps.z.shape[1],
            warmup_gradients=state.warmup_gradients + int(steps.n_gradients.sum()),
        )
        step_size = float(np.median(steps.step_size[:, -1]))
        if finished.stage == self.schedule.n_stages:
            # One chain of few adaptation steps may end with a step size that is far off.
            chains = tuple(_with_step_size(chain, step_size) for chain in state.chains)
            return replace(finished, chains=chains)
        kept, last = _settled(steps)
        frame = state.frame
        frame = frame.refined(kept) if self.schedule.full_frame else frame.scaled(kept)
        y = np.asarray(state.frame.place(jnp.asarray(last)))
        return self._started(replace(finished, frame=frame), list(frame.find(y)), step_size)

    def finished(self, state: SamplerState) -> bool:
        """Whether the largest number of draws is reached."""
        return state.stage >= self.schedule.n_stages and state.n_steps >= self.schedule.n_draws

    def draws(self, state: SamplerState) -> Draws:
        """Return the draws so far; there is at least one block of them."""
        steps = state.steps
        assert steps is not None
        return Draws(
            y=np.asarray(state.frame.place(jnp.asarray(steps.z))),
            log_density=steps.log_density,
            trajectories=Trajectories(
                energy=steps.energy,
                n_gradients=steps.n_gradients,
                acceptance=steps.acceptance,
                diverging=steps.diverging,
                step_size=steps.step_size[:, -1],
                warmup_steps=state.warmup_steps,
                warmup_gradients=state.warmup_gradients,
            ),
        )

    def looked_at(self, state: SamplerState) -> bool:
        """Whether it is time to ask if the draws suffice."""
        sampling = state.stage >= self.schedule.n_stages
        return sampling and state.n_steps in self.schedule.looks()

    def to_arrays(self, state: SamplerState) -> dict[str, FloatArray]:
        """Return everything that a state holds, by name."""
        arrays = {name: np.asarray(getattr(state, name)) for name in _COUNTS}
        arrays |= {f"frame_{n}": np.asarray(x) for n, x in state.frame._asdict().items()}
        for k, chain in enumerate(state.chains):
            leaves = jax.tree.leaves(chain)
            arrays |= {f"chain_{k}_{j}": np.asarray(leaf) for j, leaf in enumerate(leaves)}
        if state.steps is not None:
            arrays |= {f"steps_{n}": np.asarray(x) for n, x in state.steps._asdict().items()}
        return arrays

    def from_arrays(self, arrays: Mapping[str, FloatArray]) -> SamplerState:
        """Rebuild the state that ``to_arrays`` of a sampler with these settings took apart."""
        frame = Frame(*(jnp.asarray(arrays[f"frame_{n}"]) for n in Frame._fields))
        z = jnp.zeros(self.posterior.size)
        form = jax.tree.structure(start_chain(jax.random.PRNGKey(0), z, 1.0, self.kernel))
        chains = tuple(
            jax.tree.unflatten(
                form, [jnp.asarray(arrays[f"chain_{k}_{j}"]) for j in range(form.num_leaves)]
            )
            for k in range(self.schedule.n_chains)
        )
        steps = None
        if "steps_z" in arrays:
            steps = Steps(*(np.asarray(arrays[f"steps_{n}"]) for n in Steps._fields))
        counts = {name: int(arrays[name]) for name in _COUNTS}
        return SamplerState(frame=frame, chains=chains, steps=steps, **counts)

    def progress(self, state: SamplerState) -> Progress:
        """Say how far sampling has come."""
        s = self.schedule
        warmup = s.n_stages * s.n_adapt
        done = state.warmup_steps + state.n_steps
        detail: dict[str, str | int | float] = {}
        if state.steps is not None:
            detail = {
                "draws": state.n_steps * s.n_chains if done > warmup else 0,
                "divergences": int(state.steps.diverging.sum()),
                "step size": round(float(np.median(state.steps.step_size[:, -1])), 3),
                "gradients per draw": round(float(state.steps.n_gradients.mean()), 1),
            }
        return Progress(self.stage, done, warmup + s.n_draws, detail)


def _with_step_size(chain: HMCState, step_size: float) -> HMCState:
    used = jnp.full_like(chain.adapt_state.step_size, step_size)
    return chain._replace(adapt_state=chain.adapt_state._replace(step_size=used))


def _settled(steps: Steps) -> tuple[FloatArray, FloatArray]:
    """Take what a stage of adaptation teaches.

    A chain that started where the density vanishes, and found no way out, goes on from
    where another one is.

    Returns:
        The positions after the first third of the stage, shape (n, d), and where each chain
        goes on from, shape (chains, d).
    """
    found = steps.log_density > -START_ENERGY
    moved = np.flatnonzero(found[:, -1])
    if moved.size == 0:
        raise SamplingError(
            "the posterior density is not finite near the fit",
            remedy="Check that bounds and priors allow the fitted parameters",
        )
    source = np.where(found[:, -1], np.arange(len(found)), np.resize(moved, len(found)))
    third = found.shape[1] // 3
    return steps.z[:, third:][found[:, third:]], steps.z[source, -1]


def compile_draws(posterior: Posterior, target: Target, schedule: Schedule) -> None:
    """Have the first block of NUTS compiled in the background.

    Args:
        posterior: Map and density.
        target: As it will be given.
        schedule: Likewise.
    """
    sampler = Sampler(posterior, target, schedule)
    d = posterior.size
    state = sampler.start(Frame(jnp.zeros(d), jnp.eye(d)))
    compile_ahead(
        advance,
        state.chains[0],
        target=target,
        frame=state.frame,
        kernel=sampler.kernel,
        length=min(schedule.block, schedule.n_adapt),
    )
