"""NumPyro's NUTS kernel in jitted blocks of steps.

One compilation serves warm-up, sampling and every data set of the same shape, because
data and frame are arguments of the compiled block. The kernel runs in a whitened frame
with the identity as mass matrix, so its warm-up adapts the step size alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from heterodyne._typing import JaxArray
from heterodyne.core._jax import jax, jnp
from heterodyne.core.likelihood import PairData
from heterodyne.optimization.cmc._frame import Frame
from heterodyne.optimization.informed import NormalLikelihood
from heterodyne.optimization.posterior import Posterior

# NumPyro is imported where it draws: importance sampling does without, and starts sooner.
if TYPE_CHECKING:
    from numpyro.infer.hmc import NUTS, HMCState

# Above any potential energy of a posterior, and small enough to be added to one.
START_ENERGY = 1e12
# While the frame is still poor, long trajectories cost more than they teach.
_ADAPT_DEPTH = 6


class Target(NamedTuple):
    """What the posterior is conditioned on.

    Attributes:
        data: Measured pairs.
        noise_scale: Estimate of sigma that scales its prior.
        normal: Stands in for the likelihood of the pairs; None for these themselves.
        prior_weight: Power of the prior density of the sampling coordinates; 1 / K for one
            of K shards, whose posteriors then multiply to the posterior.
    """

    data: PairData
    noise_scale: JaxArray
    normal: NormalLikelihood | None = None
    prior_weight: JaxArray | float = 1.0


@dataclass(frozen=True)
class Kernel:
    """Static settings of the compiled block.

    Attributes:
        posterior: Map and density.
        n_adapt: Steps during which the step size is adapted, from the start of a chain.
        target_accept: Acceptance probability that the step size is adapted to.
        max_tree_depth: Largest number of doublings of a trajectory.
    """

    posterior: Posterior
    n_adapt: int
    target_accept: float
    max_tree_depth: int

    def nuts(self, target: Target, frame: Frame, step_size: Any) -> NUTS:
        """Build NumPyro's kernel on z; ``step_size`` is where adaptation starts."""
        from numpyro.infer.hmc import NUTS

        def potential(z: JaxArray) -> JaxArray:
            return -self.posterior.log_density(frame.place(z), *target)

        depths: Any = (min(_ADAPT_DEPTH, self.max_tree_depth), self.max_tree_depth)
        return NUTS(
            potential_fn=potential,
            step_size=step_size,
            adapt_mass_matrix=False,
            target_accept_prob=self.target_accept,
            max_tree_depth=depths,
        )


class Steps(NamedTuple):
    """A run of steps of one chain; the leading axis counts steps.

    Attributes:
        z: Positions in the frame, shape (n, d).
        log_density: Log density of the coordinates y, up to a constant.
        energy: Hamiltonian at the end of each step.
        n_gradients: Gradients evaluated.
        acceptance: Mean acceptance probability along the trajectory.
        diverging: Whether the trajectory diverged.
        step_size: Step size used.
    """

    z: Any
    log_density: Any
    energy: Any
    n_gradients: Any
    acceptance: Any
    diverging: Any
    step_size: Any


def start_chain(key: JaxArray, z: JaxArray, step_size: Any, kernel: Kernel) -> HMCState:
    """Return the state of a chain at z whose step size is yet to be adapted.

    Its energy is so high that the first step is taken wherever the density is finite:
    evaluating the density here would compile the gradient a second time.
    """
    from numpyro.infer.hmc import NUTS
    from numpyro.infer.util import ParamInfo

    here = ParamInfo(z, jnp.asarray(START_ENERGY), jnp.zeros_like(z))
    # The potential is not called.
    nuts = NUTS(potential_fn=lambda z: z, step_size=step_size, adapt_mass_matrix=False)
    state = nuts.init(key, kernel.n_adapt, here)
    # Weakly typed numbers would compile another block than those read from a checkpoint.
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), state)


@partial(jax.jit, static_argnames=("kernel", "length"))
def advance(
    state: HMCState, target: Target, frame: Frame, kernel: Kernel, length: int
) -> tuple[HMCState, Steps]:
    """Take ``length`` steps of one chain."""
    from numpyro.infer.util import ParamInfo

    nuts = kernel.nuts(target, frame, 1.0)
    # NumPyro sets up its closures in init; with value and gradient given, nothing is computed.
    here = ParamInfo(state.z, state.potential_energy, state.z_grad)
    nuts.init(state.rng_key, kernel.n_adapt, here)

    def step(state: HMCState, _: None) -> tuple[HMCState, Steps]:
        used = state.adapt_state.step_size
        state = nuts.sample(state, (), {})
        return state, Steps(
            state.z,
            -state.potential_energy,
            state.energy,
            state.num_steps,
            state.accept_prob,
            state.diverging,
            used,
        )

    return jax.lax.scan(step, state, length=length)
