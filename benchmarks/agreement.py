"""Whether engines agree, and what NUTS pays for a draw: ``python -m benchmarks.agreement``.

The same posterior is drawn by importance sampling, by our NUTS, and by NumPyro's MCMC in a
whitened frame, all much longer than a run of the command line would.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpyro.infer import MCMC, NUTS

from benchmarks.performance import PATH, Section, machine, write
from benchmarks.recovery import bound, recover
from heterodyne._typing import BoolArray, FloatArray, JaxArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.core._jax import jax, jnp
from heterodyne.core.simulate import creep_flow, simulate_pairs
from heterodyne.optimization.cmc._analysis import noise_seen
from heterodyne.optimization.cmc._bend import bend_at
from heterodyne.optimization.cmc._diagnostics import diagnose
from heterodyne.optimization.cmc._draws import Draws, kish
from heterodyne.optimization.cmc._engine import drive
from heterodyne.optimization.cmc._frame import Frame, competing_frames
from heterodyne.optimization.cmc._importance import ImportanceSampler
from heterodyne.optimization.cmc._mixture import Component
from heterodyne.optimization.cmc._nuts import Target
from heterodyne.optimization.cmc._quantities import Quantities
from heterodyne.optimization.cmc._sampler import Sampler, Schedule
from heterodyne.optimization.derived import Derived
from heterodyne.optimization.nlsq.core import Fit, fit_problem
from heterodyne.optimization.posterior import Posterior

LONG = CMCConfig(num_samples=5000, adaptive_sampling=False)
SEEDS = (3, 7)
COLUMNS = ("data", "pair of engines", "means differ by, sd", "sd differ by")
EFFICIENCY = (
    "data", "gradients a draw", "ESS/gradient", "R-hat", "acceptance", "divergences", "draws",
)  # fmt: skip
TEXT = (
    "The same posterior drawn by importance sampling (all rounds, weighted points), by NUTS "
    "({draws} draws) and by NumPyro's own `MCMC` in the same whitened frame with a long warm-up. "
    "The largest difference over all unknowns and derived quantities, means in posterior standard "
    "deviations; in brackets what the Monte Carlo errors of the two let expect for the largest "
    "(2.5 standard errors). NUTS and `MCMC` start at the best mode and do not leave it, so that "
    "only points nearest to it count. Machine: {machine}."
)
TEXT_OF_EFFICIENCY = (
    "Our NUTS, default settings of the documented functions, on independent errors; counts from "
    "the draws, without adaptation. ESS is the smallest bulk effective number of all unknowns, "
    "derived quantities and the log density. Machine: {machine}."
)


@dataclass(frozen=True)
class Case:
    """A posterior and the modes where sampling starts, the best one first."""

    name: str
    posterior: Posterior
    target: Target
    frames: tuple[Frame, ...]
    derived: Derived

    @classmethod
    def of(cls, name: str, fit: Fit) -> Case:
        """Start at the modes of a fit that compete."""
        posterior = Posterior(fit.problem.coordinates, fit.problem.scaling)
        scale = noise_seen(fit)
        frames = tuple(competing_frames(posterior, fit, scale).values())
        target = Target(fit.problem.data, jnp.asarray(scale))
        return cls(name, posterior, target, frames, Derived.of(fit.problem.fitted_times))

    def nuts(self, config: CMCConfig, n_points: int) -> Draws:
        """Draw until the counts of the configuration are reached."""
        sampler = Sampler(
            self.posterior, self.target, Schedule.of(config, n_points, self.posterior.size)
        )
        return drive(sampler, sampler.start(self.frames[0]), lambda draws: False)

    def at_best_mode(self, y: FloatArray) -> BoolArray:
        """Which points, shape (n, d), are nearer to the best mode than to others, in widths."""
        modes = [Component(1.0, *map(np.asarray, frame), np.inf) for frame in self.frames]
        return np.argmin([mode.squared_distance(y) for mode in modes], axis=0) == 0

    def values(self, y: FloatArray) -> dict[str, FloatArray]:
        """Unknowns and derived quantities of draws, shape (chains, draws, d)."""
        return Quantities.of(self.posterior, y, self.derived).all()


@dataclass(frozen=True)
class Moments:
    """Means and standard deviations by name, and how many independent draws they rest on."""

    mean: dict[str, float]
    sd: dict[str, float]
    ess: float

    @classmethod
    def of_chains(cls, values: dict[str, FloatArray]) -> Moments:
        """Describe draws, shape (chains, draws) each."""
        shape = next(iter(values.values())).shape
        found = diagnose(values, np.ones(shape), np.zeros(shape, bool))
        means = {name: float(x.mean()) for name, x in values.items()}
        return cls(means, {n: float(x.std()) for n, x in values.items()}, found.worst_ess_bulk[1])

    @classmethod
    def of_points(cls, values: dict[str, FloatArray], weights: FloatArray, kish: float) -> Moments:
        """Describe weighted points, shape (1, n) each."""
        mean = {n: float(weights @ x[0]) for n, x in values.items()}
        sd = {n: float(np.sqrt(weights @ (x[0] - mean[n]) ** 2)) for n, x in values.items()}
        return cls(mean, sd, kish)

    def differences(self, other: Moments) -> list[str]:
        """Largest differences, and what Monte Carlo errors let expect."""
        means = max(abs(self.mean[n] - other.mean[n]) / other.sd[n] for n in self.mean)
        widths = max(abs(self.sd[n] / other.sd[n] - 1.0) for n in self.mean)
        error = 2.5 * np.sqrt(1.0 / self.ess + 1.0 / other.ess)
        return [f"{means:.3f} ({error:.3f})", f"{widths:.1%} ({error / np.sqrt(2.0):.1%})"]


def plain(case: Case, warmup: int = 1000, draws: int = 5000, chains: int = 4) -> FloatArray:
    """Draw with NumPyro's MCMC, shape (chains, draws, d)."""

    def potential(z: JaxArray) -> JaxArray:
        return -case.posterior.log_density(case.frames[0].place(z), *case.target)

    kernel = NUTS(potential_fn=potential, dense_mass=True)
    how = {"num_warmup": warmup, "num_samples": draws, "num_chains": chains}
    mcmc = MCMC(kernel, **how, chain_method="sequential", progress_bar=False)
    starts = 0.5 * jax.random.normal(jax.random.PRNGKey(1), (chains, case.posterior.size))
    mcmc.run(jax.random.PRNGKey(2), init_params=starts)
    return np.asarray(case.frames[0].place(mcmc.get_samples(group_by_chain=True)))


def agreement(case: Case) -> list[list[str]]:
    """Compare three ways to draw one posterior."""
    bend = bend_at(case.posterior, case.target, case.frames[0])
    weigh = ImportanceSampler(case.posterior, case.target, case.frames, 5, bend)
    seconds = [time.perf_counter()]
    points = drive(weigh, weigh.start(), lambda draws: False).proposals
    seconds.append(time.perf_counter())
    assert points is not None
    weights = np.where(case.at_best_mode(points.y), points.weights, 0.0)
    share = weights.sum()
    weights /= share
    by_weights = Moments.of_points(case.values(points.y[None]), weights, kish(weights))
    by_nuts = Moments.of_chains(case.values(case.nuts(LONG, 10**9).y))
    seconds.append(time.perf_counter())
    by_numpyro = Moments.of_chains(case.values(plain(case)))
    seconds.append(time.perf_counter())
    print(
        f"{case.name}: best mode {share:.4f}, k-hat {points.k_hat:.2f}, Kish {points.kish:.0f}, "
        f"ESS {by_nuts.ess:.0f} and {by_numpyro.ess:.0f}; {np.diff(seconds).round().tolist()} s",
        flush=True,
    )
    return [
        [case.name, "importance, NUTS", *by_weights.differences(by_nuts)],
        [case.name, "importance, MCMC", *by_weights.differences(by_numpyro)],
        [case.name, "NUTS, MCMC", *by_nuts.differences(by_numpyro)],
    ]


def efficiency(case: Case, n_points: int) -> list[str]:
    """Say what our NUTS pays for a draw with default settings."""
    draws = case.nuts(CMCConfig(), n_points)
    walks: Any = draws.trajectories
    values = case.values(draws.y) | {"log density": draws.log_density}
    found = diagnose(values, walks.energy, walks.diverging)
    gradients = float(walks.n_gradients.sum())
    return [
        case.name,
        f"{walks.n_gradients.mean():.1f}",
        f"{found.worst_ess_bulk[1] / gradients:.3f}",
        f"{found.worst_r_hat[1]:.4f}",
        f"{walks.acceptance.mean():.2f}",
        f"{found.divergences}",
        f"{draws.n_chains} x {draws.n_draws}",
    ]


def creeping(n_frames: int, sigma: float) -> Case:
    """The flow of the demo with independent errors."""
    flow = creep_flow(n_frames)
    c2 = simulate_pairs(flow, 0.2, 1.0, sigma, seed=1)
    return Case.of(f"creeping flow, 3 x {n_frames}", fit_problem(bound(flow, c2)))


def sections() -> list[Section]:
    """Run both comparisons."""
    cases = [Case.of(f"random truth {seed}, 3 x 200", recover(seed).fit) for seed in SEEDS]
    rows = [row for case in cases for row in agreement(case)]
    spent = [efficiency(creeping(n, 0.02), 3 * n * n) for n in (300, 500)]
    spent += [efficiency(case, 3 * 200**2) for case in cases]
    draws = f"{LONG.num_chains} x {LONG.num_samples:,}"
    return [
        Section("Agreement", TEXT.format(draws=draws, machine=machine()), COLUMNS, rows),
        Section("Cost of a draw", TEXT_OF_EFFICIENCY.format(machine=machine()), EFFICIENCY, spent),
    ]


def main() -> None:
    """Run, print and write both sections to docs/performance.md."""
    for section in sections():
        print(section.markdown())
        write(section)
    print(f"written to {PATH}")


if __name__ == "__main__":
    main()
