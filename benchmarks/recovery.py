"""How often the least-squares search finds the best minimum on simulated data.

Run as ``python -m benchmarks.recovery [COUNT [FIRST_SEED]]``.
"""

from __future__ import annotations

import sys
import time
from typing import NamedTuple

import numpy as np

from heterodyne._typing import FloatArray
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_registry import DEFAULT_REGISTRY
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jnp
from heterodyne.core.likelihood import expand_squares, pack_pairs, sums
from heterodyne.core.rates import sample_fraction
from heterodyne.core.simulate import Experiment, simulate_pairs
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.nlsq.config import NLSQConfig
from heterodyne.optimization.nlsq.core import Fit, fit_problem
from heterodyne.optimization.problem import Problem
from heterodyne.optimization.scaling import Scaling, ScalingMode

# With this wavevector and frame spacing the default bounds hold decays over 10 to 100 frames.
Q, DT, N_FRAMES = 0.0054, 0.1, 200
ANGLES = (-30.0, 15.0, 70.0)


class Outcome(NamedTuple):
    """One fit of simulated data.

    Attributes:
        seed: Seed of truth and errors.
        fitted: Sum of squares of the fit.
        true: Sum of squares at the true physics parameters, contrast and offset fitted.
        sigma: Standard deviation of the errors.
        seconds: Time of the fit, the first one with compilation.
        fit: The fit.
    """

    seed: int
    fitted: float
    true: float
    sigma: float
    seconds: float
    fit: Fit

    @property
    def success(self) -> bool:
        """Whether the fit is as good as the truth, to a hundredth of chi-square."""
        return self.fitted <= self.true + 0.01 * self.sigma**2


def draw_experiment(seed: int) -> tuple[Experiment, FloatArray, FloatArray, float]:
    """Draw a random truth whose parameters lie inside the default bounds.

    At mid-window exp(-q² J tau) of both components decays over 10 to 100 frames, the
    exponents lie within ±1, the phase turns by 3 to 35 rad over the window, and s(t) stays
    within 0.1 to 0.9 and changes by at least 0.1.

    Args:
        seed: Seed of the random numbers.

    Returns:
        The experiment of 200 frames and 3 angles, contrast and offset of each angle,
        shape (3,), and the standard deviation of the errors.
    """
    rng = np.random.default_rng(seed)
    t = DT * np.arange(1.0, N_FRAMES + 1.0)
    values: dict[str, float] = {}
    for component in ("ref", "sample"):
        level = 1.0 / (Q**2 * DT * np.exp(rng.uniform(np.log(10.0), np.log(100.0))))
        names = (f"D0_{component}", f"alpha_{component}", f"D_offset_{component}")
        values |= _power_law(level, rng, names, t)
    speed = np.exp(rng.uniform(np.log(3.0), np.log(35.0))) / (Q * DT * N_FRAMES)
    values |= _power_law(speed, rng, ("v0", "beta", "v_offset"), t)
    values |= _fraction(rng, t) | {"phi0": rng.uniform(-8.0, 8.0)}
    parameters = np.array([values[n] for n in PHYSICS_PARAM_NAMES])
    experiment = Experiment(parameters, N_FRAMES, DT, Q, ANGLES)
    contrast = rng.uniform(0.1, 0.5, len(ANGLES))
    offset = rng.uniform(0.95, 1.05, len(ANGLES))
    return experiment, contrast, offset, float(rng.uniform(0.01, 0.03))


def _power_law(
    level: float, rng: np.random.Generator, names: tuple[str, str, str], t: FloatArray
) -> dict[str, float]:
    """Split a mid-window level into a power law and an offset.

    The offset comes from its default prior, within 30 % of the level.
    """
    exponent = rng.uniform(-1.0, 1.0)
    width = DEFAULT_REGISTRY[names[2]].prior_std
    offset = float(np.clip(rng.normal(scale=width), -0.3 * level, 0.3 * level))
    prefactor = (level - offset) * t[t.size // 2] ** -exponent
    return {names[0]: prefactor, names[1]: exponent, names[2]: offset}


def _fraction(rng: np.random.Generator, t: FloatArray) -> dict[str, float]:
    while True:
        f0, f3 = rng.uniform(0.05, 0.9), rng.uniform(0.0, 0.8)
        f1, f2 = rng.uniform(-0.3, 0.3), rng.uniform(t[0], t[-1])
        s = np.asarray(sample_fraction(jnp.asarray(t), *map(jnp.asarray, (f0, f1, f2, f3))))
        if s.min() > 0.1 and s.max() < 0.9 and np.ptp(s) > 0.1:
            return {"f0": f0, "f1": f1, "f2": f2, "f3": f3}


def bound(experiment: Experiment, c2: FloatArray) -> Problem:
    """Bind data to the default parameters, with contrast and offset of each angle."""
    data = pack_pairs(c2, experiment.t, experiment.q, experiment.dt, experiment.phi)
    space = ParameterSpace()
    scaling = Scaling.of(ScalingMode.INDIVIDUAL, space, len(experiment.phi))
    return Problem(data, PhysicsCoordinates.of(space, experiment.t, phi=experiment.phi), scaling)


def recover(seed: int, config: NLSQConfig | None = None) -> Outcome:
    """Simulate one data set and fit it with the default bounds and priors."""
    experiment, contrast, offset, sigma = draw_experiment(seed)
    c2 = simulate_pairs(experiment, contrast, offset, sigma, seed)
    problem = bound(experiment, c2)
    start = time.perf_counter()
    fit = fit_problem(problem, config)
    seconds = time.perf_counter() - start
    data = problem.data
    s = sums(jnp.asarray(experiment.parameters), data)
    best = problem.scaling.profile(s, data)
    true = float(expand_squares(s, *best, data).sum())
    return Outcome(seed, fit.result.sum_of_squares, true, sigma, seconds, fit)


def main(count: int = 20, first: int = 0) -> None:
    """Fit ``count`` data sets and print how many fits are as good as the truth."""
    config = NLSQConfig()
    outcomes = []
    for seed in range(first, first + count):
        outcome = recover(seed, config)
        outcomes.append(outcome)
        excess = (outcome.fitted - outcome.true) / outcome.sigma**2
        print(
            f"seed {seed:3d}: chi-square over the truth's {excess:9.2f}, "
            f"{outcome.seconds:5.1f} s, converged {outcome.fit.result.success}",
            flush=True,
        )
    found = sum(o.success for o in outcomes)
    print(
        f"{found} of {count} fits are as good as the truth; median time "
        f"{np.median([o.seconds for o in outcomes]):.1f} s; {config.n_starts} starts in each of "
        f"{config.n_rounds} rounds, of {config.n_candidates} candidates"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
