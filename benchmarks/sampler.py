"""Our samplers against NumPyro's own NUTS: ``python -m benchmarks.sampler [--cap SECONDS]``."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpyro
from numpyro.distributions import HalfNormal
from numpyro.infer import MCMC, NUTS, init_to_value

from benchmarks.performance import PATH, Section, machine, write
from benchmarks.recovery import draw_experiment, recover
from heterodyne._typing import FloatArray, JaxArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.schema import EngineName
from heterodyne.core._jax import jax, jnp
from heterodyne.core.likelihood import PairData, direct_sum_of_squares, log_likelihood_of_squares
from heterodyne.core.simulate import simulate_pairs
from heterodyne.optimization.cmc._analysis import analyse, noise_seen
from heterodyne.optimization.cmc._diagnostics import diagnose
from heterodyne.optimization.cmc._frame import posterior_mode
from heterodyne.optimization.cmc._quantities import Quantities
from heterodyne.optimization.derived import Derived
from heterodyne.optimization.nlsq.core import Fit
from heterodyne.optimization.posterior import SIGMA_PRIOR, Posterior, Unknowns

SEED = 3
CAP = 480.0  # s
# Far too short for a metric, but a longer one does not end before the cap.
WARMUP = 20
MOST_DRAWS = 10_000
# Fewer draws say little about autocorrelation and are taken for independent.
ENOUGH = 100
COLUMNS = (
    "sampler", "seconds", "gradients", "draws", "min bulk ESS", "ESS/s", "ESS/gradient", "R-hat",
    "our NUTS' ESS/s over it",
)  # fmt: skip
TEXT = (
    "One data set of {pairs:,} unique pairs ({angles} angles of {frames} frames, independent "
    "errors), {unknowns} unknowns, after one least-squares fit. ESS and R-hat are the worst of "
    "all unknowns, of rates and fraction at reference times, and of the log density. Machine: "
    "{machine}; load average {load:.1f} at the start; compilation is left out.\n\n"
    "Ours are whole analyses with default settings, with normal approximation, looks at the "
    "draws and tables, run twice, of which the second is timed; its chains and points share all "
    "cores. NumPyro's `MCMC` runs one chain of `NUTS(dense_mass=True)` with the likelihood "
    "evaluated pair by pair, from the posterior mode that the fit found, for {cap:.0f} s, in "
    "which the step that compiles does not count. Its warm-up of {warmup} steps is as short as "
    "that so that there are draws before the cap; fewer than {enough} draws count as "
    "independent, and more for no more than their number; without any, the ratio is that for one. "
    "A longer run would spread the costs of warm-up over more draws. *Documented coordinates* "
    "are the parameters with their priors, in NumPyro's transforms; *our coordinates* are those "
    "that ours sample.\n\n{remarks}"
)


@dataclass(frozen=True, eq=False)
class DirectPosterior(Posterior):
    """The same posterior with the likelihood evaluated pair by pair.

    Attributes:
        c2: Measured correlation, shape (n_angles, N, N).
    """

    c2: FloatArray

    def log_likelihood(self, unknowns: Unknowns, data: PairData) -> JaxArray:
        """Return the Gaussian log likelihood of all fitted unique pairs, scalar."""
        contrast, offset = self.scaling.expand(unknowns.scaling)
        at = (unknowns.parameters, contrast, offset)
        squares = direct_sum_of_squares(*at, data, jnp.asarray(self.c2)).sum()
        return log_likelihood_of_squares(squares, unknowns.sigma, data.n_pairs.sum())


@dataclass(frozen=True)
class Case:
    """The data set that all sample, and its fit.

    Attributes:
        fit: The fit, from which all start.
        c2: Measured correlation, shape (n_angles, N, N).
        posterior: Map and density.
        scale: Estimate of sigma that scales its prior.
        mode: Coordinates of the posterior mode, shape (d,).
    """

    fit: Fit
    c2: FloatArray
    posterior: DirectPosterior
    scale: float
    mode: JaxArray

    @classmethod
    def of(cls, seed: int) -> Case:
        """Simulate and fit."""
        experiment, contrast, offset, sigma = draw_experiment(seed)
        # The data that ``recover`` fits.
        c2 = simulate_pairs(experiment, contrast, offset, sigma, seed)
        fit = recover(seed).fit
        posterior = DirectPosterior(fit.problem.coordinates, fit.problem.scaling, c2)
        mode = jnp.asarray(posterior_mode(posterior, fit))
        return cls(fit, c2, posterior, noise_seen(fit), mode)

    def unknowns(self, values: Mapping[str, Any]) -> Unknowns:
        """Put scalars by name together."""
        coordinates, scaling = self.posterior.coordinates, self.posterior.scaling
        fixed = jnp.asarray([coordinates.space[n].value for n in PHYSICS_PARAM_NAMES])
        varying = jnp.stack([values[n] for n in coordinates.names])
        return Unknowns(
            fixed.at[coordinates.indices].set(varying),
            jnp.stack([values[n] for n in scaling.names]),
            values["sigma"],
        )

    def start(self) -> dict[str, JaxArray]:
        """Documented parameters at the posterior mode, by name."""
        found, _ = self.posterior.forward(self.mode)
        varying = found.parameters[self.posterior.coordinates.indices]
        values = jnp.concatenate([varying, found.scaling, found.sigma[None]])
        return dict(zip(self.posterior.names, values, strict=True))

    def model(self) -> None:
        """State the posterior in documented parameters, as a NumPyro model."""
        posterior, priors = self.posterior, self.posterior.space.priors
        kinds = (*posterior.coordinates.names, *posterior.scaling_kinds)
        sites = {n: priors[kind] for n, kind in zip(posterior.names, kinds, strict=False)}
        sites["sigma"] = HalfNormal(SIGMA_PRIOR * self.scale)
        values = {name: numpyro.sample(name, prior) for name, prior in sites.items()}
        likelihood = posterior.log_likelihood(self.unknowns(values), self.fit.problem.data)
        numpyro.factor("pairs", likelihood)

    def potential(self, y: JaxArray) -> JaxArray:
        """Return minus the log density of our coordinates, scalar."""
        return -self.posterior.log_density(y, self.fit.problem.data, self.scale)


@dataclass(frozen=True)
class Measured:
    """One row of the table.

    Attributes:
        sampler: What drew.
        seconds: Time of warm-up and sampling in s.
        gradients: Gradients of both; None without any.
        draws: Number of draws.
        ess: Smallest bulk effective number of draws; 0 without draws.
        r_hat: Largest R-hat; NaN where there are too few draws.
        remark: What else was seen.
    """

    sampler: str
    seconds: float
    gradients: int | None
    draws: int
    ess: float
    r_hat: float
    remark: str

    @property
    def rate(self) -> float:
        """Effective draws per second."""
        return self.ess / self.seconds

    def cells(self, reference: Measured) -> list[str]:
        """Format the row; without draws, the ratio is that for one draw."""
        none = self.ess == 0
        ratio = reference.rate / (1.0 / self.seconds if none else self.rate)
        gradients = self.gradients
        return [
            self.sampler,
            f"{self.seconds:.1f}",
            f"{gradients:,}" if gradients else "–",
            f"{self.draws:,}",
            "< 1" if none else f"{self.ess:.0f}",
            "–" if none else f"{self.rate:.2g}",
            "–" if none or not gradients else f"{self.ess / gradients:.2g}",
            "–" if math.isnan(self.r_hat) else f"{self.r_hat:.3f}",
            f"{'> ' if none else ''}{ratio:,.{0 if ratio >= 10 else 1}f}",
        ]


def ours(case: Case, engine: EngineName) -> Measured:
    """Time an engine of ours; its first run compiles for the second."""
    run = partial(analyse, case.fit, case.c2, CMCConfig(), engine=engine)
    run()
    analysis = run()
    diagnosis, walks = analysis.diagnosis, analysis.draws.trajectories
    if walks is not None:
        gradients = int(walks.n_gradients.sum()) + walks.warmup_gradients
        steps = analysis.draws.n_chains * walks.warmup_steps
        remark = (
            f"{steps:,} steps of warm-up in all with {walks.warmup_gradients / steps:.0f} "
            f"gradients each, {walks.n_gradients.mean():.0f} gradients a draw, mean acceptance "
            f"{walks.acceptance.mean():.2f}, {diagnosis.divergences} divergences."
        )
    else:
        gradients = None
        remark = (
            f"weighted points worth {diagnosis.kish:,.0f} independent draws (Kish), Pareto k-hat "
            f"{diagnosis.k_hat:.2f}; draws are picked among the points."
        )
    seconds, worst = analysis.seconds, (diagnosis.worst_ess_bulk[1], diagnosis.worst_r_hat[1])
    return Measured(f"ours, {engine}", seconds, gradients, diagnosis.n_draws, *worst, remark)


class CapReachedError(Exception):
    """The time is up."""


class CappedNUTS(NUTS):
    """NumPyro's kernel, which keeps its states and ends a run of MCMC when the time is up.

    MCMC asks for a line about the state after every step, for its progress bar.

    Attributes:
        cap: Time limit in s, counted from the end of the first step, which compiles.
        seconds: Time since then in s.
        states: State at the end of each step.
    """

    def __init__(self, cap: float, **settings: Any) -> None:
        super().__init__(**settings)
        self.cap = cap
        self.seconds = 0.0
        self.states: list[Any] = []
        self._started = 0.0

    def get_diagnostics_str(self, state: Any) -> str:
        """Take note of a step.

        Raises:
            CapReachedError: The time is up.
        """
        self.states.append(jax.device_get(state))
        self._started = self._started or time.perf_counter()
        self.seconds = time.perf_counter() - self._started
        if self.seconds >= self.cap:
            raise CapReachedError
        return super().get_diagnostics_str(state)


def numpyros(case: Case, cap: float, warmup: int, *, documented: bool) -> Measured:
    """Run NumPyro's MCMC, in documented or in our coordinates, until the time is up."""
    start = None
    if documented:
        at = init_to_value(values=case.start())
        kernel = CappedNUTS(cap, model=case.model, dense_mass=True, init_strategy=at)
    else:
        start = case.mode
        kernel = CappedNUTS(cap, potential_fn=case.potential, dense_mass=True)
    mcmc = MCMC(kernel, num_warmup=warmup, num_samples=MOST_DRAWS)
    mcmc.progress_bar = True  # which some environments turn off
    with contextlib.suppress(CapReachedError):
        mcmc.run(jax.random.PRNGKey(SEED), init_params=start)

    def read(z: Any) -> Unknowns:
        if documented:
            return case.unknowns(kernel.postprocess_fn((), {})(z))
        return case.posterior.forward(z)[0]

    name = f"NumPyro, {'documented' if documented else 'our'} coordinates"
    return _summarised(name, case, kernel, warmup, read)


def _summarised(
    sampler: str, case: Case, kernel: CappedNUTS, warmup: int, read: Callable[[Any], Unknowns]
) -> Measured:
    """Say what the steps of a chain are worth; ``read`` maps a position to the unknowns."""
    steps = np.array([int(state.num_steps) for state in kernel.states])
    kept = kernel.states[warmup:]
    n = len(kept)
    ess, r_hat = float(n), math.nan
    if n >= ENOUGH:
        z = jax.tree.map(lambda *x: jnp.stack(x), *(state.z for state in kept))
        unknowns = jax.vmap(read)(z)
        derived = Derived.of(case.fit.problem.fitted_times)
        values = Quantities.of_unknowns(case.posterior, unknowns, derived, (1, n)).all()
        log_density, energy, diverging = (
            np.array([[getattr(state, name) for state in kept]])
            for name in ("potential_energy", "energy", "diverging")
        )
        diagnosis = diagnose(values | {"log density": -log_density}, energy, diverging)
        r_hat = diagnosis.worst_r_hat[1]
        # A chain that never moves is one draw.
        ess = min(float(n), float(np.nan_to_num(diagnosis.worst_ess_bulk[1], nan=1.0)))
    remark = f"{len(steps) - n} steps of warm-up with {steps[:warmup].mean():.0f} gradients each"
    if n:
        remark += (
            f", {steps[warmup:].mean():.0f} gradients a draw, mean acceptance "
            f"{np.mean([state.accept_prob for state in kept]):.2f}, "
            f"{sum(bool(state.diverging) for state in kept)} divergences"
        )
    rate = len(steps) / kernel.seconds
    remark += f"; {rate:.2g} effective draws a second if every step, warm-up too, were one."
    return Measured(sampler, kernel.seconds, int(steps.sum()), n, ess, r_hat, remark)


def section(cap: float = CAP, warmup: int = WARMUP) -> Section:
    """Run the benchmark.

    Args:
        cap: Time limit of each run of NumPyro's MCMC in s.
        warmup: Steps of its warm-up.
    """
    load = os.getloadavg()[0]
    case = Case.of(SEED)
    rows = [ours(case, "nuts"), ours(case, "importance")]
    rows += [numpyros(case, cap, warmup, documented=place) for place in (True, False)]
    n_angles, n_frames, _ = case.c2.shape
    text = TEXT.format(
        pairs=case.fit.problem.n_pairs,
        angles=n_angles,
        frames=n_frames,
        unknowns=case.posterior.size,
        machine=machine(),
        load=load,
        cap=cap,
        warmup=warmup,
        enough=ENOUGH,
        remarks="\n".join(f"- {row.sampler}: {row.remark}" for row in rows),
    )
    return Section("Sampler", text, COLUMNS, [row.cells(rows[0]) for row in rows])


def main() -> None:
    """Run the benchmark, print its section and write it to docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cap", type=float, default=CAP, help="seconds of a run of NumPyro")
    parser.add_argument("--warmup", type=int, default=WARMUP, help="steps of its warm-up")
    asked = parser.parse_args()
    found = section(asked.cap, asked.warmup)
    print(found.markdown())
    write(found)
    print(f"written to {PATH}")


if __name__ == "__main__":
    main()
