"""From a fit to judged draws, in memory."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from heterodyne._events import EventSink, ignore_events
from heterodyne._typing import StoredArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.config.schema import EngineName
from heterodyne.core._jax import jnp
from heterodyne.optimization.cmc._assign import Sharding
from heterodyne.optimization.cmc._combination import Combination
from heterodyne.optimization.cmc._diagnostics import Diagnosis, limits_of
from heterodyne.optimization.cmc._draws import AVERAGED, Draws
from heterodyne.optimization.cmc._frame import COMPETING, compile_frames
from heterodyne.optimization.cmc._importance import compile_weights
from heterodyne.optimization.cmc._nuts import Target
from heterodyne.optimization.cmc._passes import Keeper, Passes, Sampled
from heterodyne.optimization.cmc._quantities import Quantities, prior_draws
from heterodyne.optimization.cmc._rows import Row, make_rows
from heterodyne.optimization.cmc._sampler import Schedule, compile_draws
from heterodyne.optimization.cmc._shard_task import Elsewhere
from heterodyne.optimization.cmc._sharded import sample_shards
from heterodyne.optimization.cmc._statistics import import_statistics
from heterodyne.optimization.cmc._verdict import Verdict, judge
from heterodyne.optimization.derived import Derived
from heterodyne.optimization.nlsq.core import Fit
from heterodyne.optimization.nlsq.search import compile_search
from heterodyne.optimization.posterior import Posterior
from heterodyne.optimization.problem import Problem
from heterodyne.optimization.sandwich import SpeckleNoise, speckle_noise

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
        draws: Draws of the coordinates for independent errors.
        plain: The same by name.
        corrected: Draws with the likelihood corrected for speckle noise; None where such
            noise is not likely.
        corrected_draws: The same in coordinates.
        prior: Draws from the priors.
        diagnosis: Convergence of all draws.
        believed: Convergence of the draws to believe alone.
        noise: What the residuals say about the noise.
        rows: The table of results.
        verdict: Whether to believe it.
        seconds: Time of sampling in s.
        combination: What is known about shards; None where all pairs were sampled at once.
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
    believed: Diagnosis
    noise: SpeckleNoise
    rows: tuple[Row, ...]
    verdict: Verdict
    seconds: float
    combination: Combination | None = None


def compile_analysis(
    problem: Problem,
    config: CMCConfig,
    *,
    engine: EngineName = "auto",
) -> None:
    """Have the code of fit and draws compiled in the background, in the order of its use.

    Args:
        problem: What is going to be fitted.
        config: Settings of the draws.
        engine: What will draw.
    """
    compile_search(problem)
    posterior = Posterior(problem.coordinates, problem.scaling)
    target = Target(problem.data, jnp.asarray(1.0))
    compile_frames(posterior)
    if engine != "nuts":
        compile_weights(posterior, target)
        import_statistics()
    else:
        points = problem.data.n_angles * problem.data.t.size**2
        compile_draws(posterior, target, Schedule.of(config, points, posterior.size))


def noise_seen(fit: Fit) -> float:
    """Standard deviation of the errors that neighbouring pairs do not share."""
    seen = float(np.sqrt(np.mean(np.asarray(fit.problem.data.noise) ** 2)))
    return seen if seen > 0 else fit.sigma


def analyse(
    fit: Fit,
    c2: StoredArray,
    config: CMCConfig,
    noise: NoiseSettings | None = None,
    *,
    engine: EngineName = "auto",
    sharding: Sharding | None = None,
    elsewhere: Elsewhere | None = None,
    keeper: Keeper | None = None,
    notes: tuple[str, ...] = (),
    on_event: EventSink = ignore_events,
) -> Analysis:
    """Draw from the posterior and judge the draws.

    The likelihood of independent errors is sampled first. Where the residuals show speckle
    noise, the likelihood corrected for it is sampled as well.

    Args:
        fit: The fit of the data, from which sampling starts.
        c2: Measured correlation, shape (n_angles, N, N).
        config: Settings of the draws.
        noise: What is known about the noise.
        engine: What draws; ``auto`` takes importance sampling where its weights are good,
            elsewhere ensemble sampling, or NUTS for many pairs.
        sharding: How to divide the pairs for the likelihood of independent errors; None
            samples all at once.
        elsewhere: Where shards are drawn; None draws them here, one after the other.
        keeper: Where states are kept, so that an interrupted analysis can go on.
        notes: Sentences that the verdict is to say as well.
        on_event: Receives the progress.
    """
    noise = noise or NoiseSettings()
    started = time.monotonic()
    posterior = Posterior(fit.problem.coordinates, fit.problem.scaling)
    scale = noise.scale or noise_seen(fit)
    derived = Derived.of(fit.problem.fitted_times)
    schedule = Schedule.of(config, c2.size, posterior.size)
    passes = Passes(posterior, derived, schedule, engine, keeper or Keeper(), on_event, fit, scale)
    combination = None
    seen = estimate_noise(fit, c2, noise)
    if sharding is None:
        plain = passes.plain()
    else:
        plain, combination = sample_shards(
            passes, c2, sharding, config, limits_of(config), elsewhere, speckles=seen.likely
        )
    corrected = None
    if seen.likely:
        corrected, seen = passes.corrected(seen)
    analysis = _judged(passes, plain, corrected, seen, combination)
    verdict = replace(analysis.verdict, sentences=(*analysis.verdict.sentences, *notes))
    return replace(analysis, verdict=verdict, seconds=time.monotonic() - started)


def _judged(
    passes: Passes,
    plain: Sampled,
    corrected: Sampled | None,
    noise: SpeckleNoise,
    combination: Combination | None,
) -> Analysis:
    """Put tables and verdict beside the draws."""
    posterior, derived, result = passes.posterior, passes.derived, passes.fit.result
    prior = prior_draws(posterior, passes.scale, derived, _PRIOR_DRAWS, passes.schedule.seed)
    diagnosis = plain.diagnosis
    if corrected is not None:
        diagnosis = diagnosis.joined(corrected.diagnosis)
    stretched = None if corrected is None else corrected.quantities
    rows = make_rows(plain.quantities, stretched, prior, diagnosis, posterior.space, derived)
    return Analysis(
        fit=passes.fit,
        posterior=posterior,
        derived=derived,
        draws=plain.draws,
        plain=plain.quantities,
        corrected=stretched,
        corrected_draws=None if corrected is None else corrected.draws,
        prior=prior,
        diagnosis=diagnosis,
        believed=(corrected or plain).diagnosis,
        noise=noise,
        rows=rows,
        verdict=judge(
            rows,
            diagnosis,
            noise,
            other_minima=result.modes,
            reduced_chi_square=result.reduced_chi_square,
            fit_ended=result.success,
            covered=_covered(plain, corrected),
            combination=combination,
        ),
        seconds=0.0,
        combination=combination,
    )


def _covered(plain: Sampled, corrected: Sampled | None) -> float:
    """Excess of chi-square up to which other modes of the fit are among the draws."""
    several = plain.draws.engine in {"importance", "ensemble", AVERAGED}
    return COMPETING if corrected is None and several else 0.0


def estimate_noise(fit: Fit, c2: StoredArray, noise: NoiseSettings) -> SpeckleNoise:
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
