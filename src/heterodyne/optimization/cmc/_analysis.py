"""From a fit to judged draws, in memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from heterodyne._events import EventSink, Progress, ignore_events
from heterodyne._typing import FloatArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.core._jax import jnp
from heterodyne.optimization.cmc._diagnostics import THRESHOLDS, Diagnosis, diagnose
from heterodyne.optimization.cmc._frame import laplace_frame
from heterodyne.optimization.cmc._nuts import Target
from heterodyne.optimization.cmc._quantities import Quantities, prior_draws
from heterodyne.optimization.cmc._rows import Row, make_rows
from heterodyne.optimization.cmc._sampler import Draws, Sampler, SamplerState, Schedule
from heterodyne.optimization.cmc._verdict import Verdict, judge
from heterodyne.optimization.derived import Derived
from heterodyne.optimization.nlsq.core import Fit
from heterodyne.optimization.posterior import Posterior
from heterodyne.optimization.sandwich import SpeckleNoise, correction, speckle_noise

_PRIOR_DRAWS = 2000


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
        draws: Draws of the coordinates.
        plain: Draws for independent errors.
        corrected: Draws corrected for speckle noise; None where it is not likely.
        prior: Draws from the priors.
        diagnosis: Convergence of the plain draws.
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


def analyse(
    fit: Fit,
    c2: FloatArray,
    config: CMCConfig,
    noise: NoiseSettings | None = None,
    *,
    resumed: Callable[[Sampler], SamplerState | None] = lambda sampler: None,
    on_state: Callable[[SamplerState], None] = lambda state: None,
    on_event: EventSink = ignore_events,
) -> Analysis:
    """Draw from the posterior and judge the draws.

    Args:
        fit: The fit of the data, from which sampling starts.
        c2: Measured correlation, shape (n_angles, N, N).
        config: Settings of the draws.
        noise: What is known about the noise.
        resumed: Returns a state to go on from, if there is one.
        on_state: Receives the state of the sampler after every block.
        on_event: Receives the progress.
    """
    noise = noise or NoiseSettings()
    started = time.monotonic()
    problem = fit.problem
    posterior = Posterior(problem.coordinates, problem.scaling)
    derived = Derived.of(problem.fitted_times)
    scale = noise.scale or noise_seen(fit)
    target = Target(problem.data, jnp.asarray(scale))
    schedule = Schedule.of(config, c2.size, posterior.size)
    sampler = Sampler(posterior, target, schedule)

    def enough(draws: Draws) -> bool:
        return diagnosed(posterior, draws, derived)[1].mixed(THRESHOLDS)

    state = resumed(sampler) or sampler.start(laplace_frame(posterior, fit, scale))
    draws = sampler.run(state, enough, on_state, on_event)
    seconds = time.monotonic() - started
    on_event(Progress("assessment", 0, 1))
    seen = estimate_noise(fit, c2, noise)
    corrected = correct(posterior, draws, seen, fit, derived, on_event) if seen.likely else None
    prior = prior_draws(posterior, scale, derived, _PRIOR_DRAWS, schedule.seed)
    on_event(Progress("assessment", 1, 1))
    return assessed(fit, posterior, derived, draws, corrected, prior, seen, seconds)


def assessed(
    fit: Fit,
    posterior: Posterior,
    derived: Derived,
    draws: Draws,
    corrected: Quantities | None,
    prior: Quantities,
    noise: SpeckleNoise,
    seconds: float,
) -> Analysis:
    """Judge draws: convergence, table, verdict."""
    plain, diagnosis = diagnosed(posterior, draws, derived)
    rows = make_rows(plain, corrected, prior, diagnosis, posterior.space, derived)
    verdict = judge(
        rows,
        diagnosis,
        noise,
        other_minima=fit.result.modes,
        reduced_chi_square=fit.result.reduced_chi_square,
    )
    return Analysis(
        fit=fit,
        posterior=posterior,
        derived=derived,
        draws=draws,
        plain=plain,
        corrected=corrected,
        prior=prior,
        diagnosis=diagnosis,
        noise=noise,
        rows=rows,
        verdict=verdict,
        seconds=seconds,
    )


def diagnosed(posterior: Posterior, draws: Draws, derived: Derived) -> tuple[Quantities, Diagnosis]:
    """Name draws, and measure their convergence on every quantity that is reported."""
    plain = Quantities.of(posterior, draws.y, derived)
    values = plain.all() | {"log density": draws.log_density}
    return plain, diagnose(values, draws.energy, draws.diverging)


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


def correct(
    posterior: Posterior,
    draws: Draws,
    noise: SpeckleNoise,
    fit: Fit,
    derived: Derived,
    on_event: EventSink = ignore_events,
) -> Quantities:
    """Stretch draws about their mean to the width that speckle noise gives them."""
    flat = draws.y.reshape(-1, posterior.size)
    centre = flat.mean(axis=0)
    sigma = float(np.exp(centre[-1]))
    stretch = correction(posterior, centre, fit.problem.data, noise, sigma, on_event)
    return Quantities.of(posterior, stretch.apply(flat).reshape(draws.y.shape), derived)
