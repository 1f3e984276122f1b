"""From a fit to judged draws, in memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from heterodyne._events import EventSink, ignore_events
from heterodyne._typing import FloatArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.core._jax import jnp
from heterodyne.optimization.cmc._diagnostics import THRESHOLDS, Diagnosis, diagnose
from heterodyne.optimization.cmc._frame import (
    data_information,
    laplace_frame,
    posterior_mode,
)
from heterodyne.optimization.cmc._nuts import Target
from heterodyne.optimization.cmc._quantities import Quantities, prior_draws
from heterodyne.optimization.cmc._rows import Row, make_rows
from heterodyne.optimization.cmc._sampler import Draws, Sampler, SamplerState, Schedule
from heterodyne.optimization.cmc._verdict import Verdict, judge
from heterodyne.optimization.derived import Derived
from heterodyne.optimization.nlsq.core import Fit
from heterodyne.optimization.posterior import Posterior
from heterodyne.optimization.sandwich import SpeckleNoise, adjustment, speckle_noise

_PRIOR_DRAWS = 2000
PLAIN, CORRECTED = "plain", "corrected"
PASSES = (PLAIN, CORRECTED)


@dataclass(frozen=True)
class NoiseSettings:
    """What is known about the noise.

    Attributes:
        diagonal_is_raw: Whether the diagonal of c2 is measured; None if that is not known.
        effective_speckles: Independent speckles of an angle; None estimates them.
        scale: Estimate of sigma that scales its prior; None takes the noise seen.
    """

    diagonal_is_raw: bool | None = None
    effective_speckles: float | None = None
    scale: float | None = None


@dataclass(frozen=True)
class Analysis:
    """Judged draws of one data set.

    Attributes:
        fit: Where they started.
        posterior: Map and density.
        derived: Quantities at reference times.
        draws: Draws of the coordinates for independent errors.
        plain: The same by name.
        corrected: Draws from the likelihood adjusted for speckle noise; None where such
            noise is not likely.
        corrected_draws: The same in coordinates.
        prior: Draws from the priors.
        diagnosis: Convergence of all draws.
        noise: What the residuals say about the noise.
        rows: The table of results.
        verdict: Whether to believe it.
        seconds: Time of sampling in s.
    """

    fit: Fit
    posterior: Posterior
    derived: Derived
    draws: Draws
    plain: Quantities
    corrected: Quantities | None
    corrected_draws: Draws | None
    prior: Quantities
    diagnosis: Diagnosis
    noise: SpeckleNoise
    rows: tuple[Row, ...]
    verdict: Verdict
    seconds: float


def noise_seen(fit: Fit) -> float:
    """Standard deviation of the errors that neighbouring pairs do not share."""
    seen = float(np.sqrt(np.mean(np.asarray(fit.problem.data.noise) ** 2)))
    return seen if seen > 0 else fit.sigma


@dataclass(frozen=True)
class Keeper:
    """Where the state of each pass is kept, by the name of the pass.

    Attributes:
        load: Returns the state to go on from, if there is one.
        save: Receives the state after every block.
    """

    load: Callable[[str, Sampler], SamplerState | None] = lambda name, sampler: None
    save: Callable[[str, SamplerState], None] = lambda name, state: None


@dataclass(frozen=True)
class Sampled:
    """Draws of one pass.

    Attributes:
        draws: Draws of the coordinates.
        quantities: The draws by name.
        diagnosis: Their convergence.
    """

    draws: Draws
    quantities: Quantities
    diagnosis: Diagnosis


@dataclass(frozen=True)
class _Passes:
    """What the passes over one data set share."""

    fit: Fit
    posterior: Posterior
    derived: Derived
    schedule: Schedule
    scale: float
    keeper: Keeper
    on_event: EventSink

    @property
    def mode(self) -> FloatArray:
        return posterior_mode(self.posterior, self.fit)

    def plain(self) -> Sampled:
        """Sample with the likelihood of independent errors."""
        target = Target.plain(self.fit.problem.data, self.scale, self.posterior.size)
        mode = self.mode
        return self._sample(PLAIN, target, data_information(self.posterior, mode, self.fit))

    def corrected(self, noise: SpeckleNoise) -> tuple[Sampled, SpeckleNoise]:
        """Sample with the likelihood adjusted for speckle noise.

        Returns:
            The draws, and the noise with that included which the fit has absorbed.
        """
        data, mode = self.fit.problem.data, self.mode
        sigma = float(np.exp(mode[-1]))
        change = adjustment(self.posterior, mode, data, noise, sigma, self.on_event)
        target = Target(
            data, jnp.asarray(self.scale), jnp.asarray(change.centre), jnp.asarray(change.matrix)
        )
        noise = replace(noise, effective_speckles=change.effective_speckles)
        return self._sample(CORRECTED, target, change.information), noise

    def _sample(self, name: str, target: Target, information: FloatArray) -> Sampled:
        sampler = Sampler(self.posterior, target, self.schedule, f"{name} draws")
        state = self.keeper.load(name, sampler)
        if state is None:
            n_pairs = self.fit.problem.n_pairs
            state = sampler.start(
                laplace_frame(self.posterior, self.mode, information, self.scale, n_pairs)
            )
        draws = sampler.run(
            state,
            lambda draws: self._named(draws).diagnosis.mixed(THRESHOLDS),
            lambda state: self.keeper.save(name, state),
            self.on_event,
        )
        return self._named(draws)

    def _named(self, draws: Draws) -> Sampled:
        quantities = Quantities.of(self.posterior, draws.y, self.derived)
        values = quantities.all() | {"log density": draws.log_density}
        return Sampled(draws, quantities, diagnose(values, draws.energy, draws.diverging))


def analyse(
    fit: Fit,
    c2: FloatArray,
    config: CMCConfig,
    noise: NoiseSettings | None = None,
    *,
    keeper: Keeper | None = None,
    on_event: EventSink = ignore_events,
) -> Analysis:
    """Draw from the posterior and judge the draws.

    The likelihood of independent errors is sampled first. Where the residuals show speckle
    noise, the likelihood adjusted for it is sampled as well.

    Args:
        fit: The fit of the data, from which sampling starts.
        c2: Measured correlation, shape (n_angles, N, N).
        config: Settings of the draws.
        noise: What is known about the noise.
        keeper: Where states are kept, so that an interrupted analysis can go on.
        on_event: Receives the progress.
    """
    noise = noise or NoiseSettings()
    started = time.monotonic()
    posterior = Posterior(fit.problem.coordinates, fit.problem.scaling)
    scale = noise.scale or noise_seen(fit)
    derived = Derived.of(fit.problem.fitted_times)
    schedule = Schedule.of(config, c2.size, posterior.size)
    passes = _Passes(fit, posterior, derived, schedule, scale, keeper or Keeper(), on_event)
    plain = passes.plain()
    seen = estimate_noise(fit, c2, noise)
    corrected = None
    if seen.likely:
        corrected, seen = passes.corrected(seen)
    prior = prior_draws(posterior, scale, derived, _PRIOR_DRAWS, schedule.seed)
    diagnosis = plain.diagnosis
    if corrected is not None:
        diagnosis = diagnosis.joined(corrected.diagnosis)
    stretched = None if corrected is None else corrected.quantities
    rows = make_rows(plain.quantities, stretched, prior, diagnosis, posterior.space, derived)
    return Analysis(
        fit=fit,
        posterior=posterior,
        derived=derived,
        draws=plain.draws,
        plain=plain.quantities,
        corrected=stretched,
        corrected_draws=None if corrected is None else corrected.draws,
        prior=prior,
        diagnosis=diagnosis,
        noise=seen,
        rows=rows,
        verdict=judge(
            rows,
            diagnosis,
            seen,
            other_minima=fit.result.modes,
            reduced_chi_square=fit.result.reduced_chi_square,
        ),
        seconds=time.monotonic() - started,
    )


def estimate_noise(fit: Fit, c2: FloatArray, noise: NoiseSettings) -> SpeckleNoise:
    """Read speckles and shot noise off the residuals of a fit."""
    at = fit.least_squares
    return speckle_noise(
        fit.problem,
        at.y[0],
        at.contrast[0],
        at.offset[0],
        c2,
        diagonal_is_raw=noise.diagonal_is_raw,
        effective_speckles=noise.effective_speckles,
    )
