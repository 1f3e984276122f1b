"""The likelihood of independent errors, corrected for what speckle noise does to it.

With F the Fisher information for independent errors and V the covariance that speckle
noise gives the score, the estimate scatters by F^-1 V F^-1 and not by F^-1. The likelihood
is therefore replaced by one with the information F V^-1 F at its maximum, the inverse of that
scatter (the sandwich of White, Econometrica 50, 1, 1982; for Bayesian use Müller,
Econometrica 81, 1805, 2013). It is normal in the quantities that the data inform, because
wide as it is it would not be so in the parameters. The prior is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.linalg import block_diag

from heterodyne._events import EventSink, Progress, ignore_events
from heterodyne._typing import ArrayLike, FloatArray, JaxArray
from heterodyne.core._jax import jax, jnp
from heterodyne.core.correlation import correlation_matrix
from heterodyne.core.likelihood import PairData
from heterodyne.core.speckle import (
    correlation_slope,
    fitted_pairs,
    number_of_products,
    speckle_covariance,
    trace_products,
)
from heterodyne.core.speckle_moments import (
    ResidualMoments,
    neighbour_correlation,
    shot_noise,
)
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.curvature import adjusted_information
from heterodyne.optimization.informed import NormalLikelihood, carried_over, quantities
from heterodyne.optimization.posterior import Posterior
from heterodyne.optimization.prior import LogPrior
from heterodyne.optimization.problem import Problem

# Standard errors above zero at which neighbours are no longer taken as independent.
SIGNIFICANCE = 5.0
# Information below this share of the largest is rounding.
_RANK = 1e-9
# Largest factor by which noise that a fit may have absorbed raises what is seen.
_MOST_ABSORBED = 4.0
# Frames from which the products take long enough to be reported one by one.
_LARGE = 1000


@dataclass(frozen=True)
class SpeckleNoise:
    """What the residuals of a fit say about the noise.

    Attributes:
        effective_speckles: Number of independent speckles P of each angle.
        shot_noise: What shot noise adds to the variance of the normalised intensity of a
            frame, for each angle; 1 / (mean photons per pixel) for a perfect detector.
        neighbour_correlation: Correlation of the residuals of pairs (i, j), (i + 1, j), all
            angles; independent errors have 0.
        likely: Whether that exceeds what independent errors would show.
        estimated: Whether the speckles were counted from residuals, in which the noise
            that the fit has absorbed is missing.
    """

    effective_speckles: tuple[float, ...]
    shot_noise: tuple[float, ...]
    neighbour_correlation: float
    likely: bool
    estimated: bool = True


@dataclass(frozen=True)
class Correction:
    """The likelihood that speckle noise leaves.

    Attributes:
        likelihood: Normal in the quantities that the data inform.
        information: Its information at the maximum, on all sampling coordinates but log
            sigma, shape (size - 1, size - 1).
        effective_speckles: Number of independent speckles of each angle; where they were
            counted from residuals, with the noise that the fit has absorbed put back.
    """

    likelihood: NormalLikelihood
    information: FloatArray
    effective_speckles: tuple[float, ...]


class ScoreNoise(NamedTuple):
    """What one speckle at each angle would do, times sigma**2 for the score.

    Attributes:
        score: Covariance of the score that an angle contributes, shape (n_angles, n, n)
            for n coordinates, contrasts and offsets.
        pairs: Sum of the variances of the pairs, each times its weight, shape (n_angles,).
    """

    score: FloatArray
    pairs: FloatArray


@partial(jax.jit, static_argnames="coordinates")
def _correlation(
    y: JaxArray, data: PairData, phi: JaxArray, coordinates: PhysicsCoordinates
) -> JaxArray:
    return correlation_matrix(coordinates.forward(y)[0], data.t, data.q, data.dt, phi)


@partial(jax.jit, static_argnames="coordinates")
def _slope(
    y: JaxArray,
    direction: JaxArray,
    data: PairData,
    phi: JaxArray,
    coordinates: PhysicsCoordinates,
) -> JaxArray:
    return correlation_slope(lambda x: coordinates.forward(x)[0], y, direction, data, phi)


def speckle_noise(
    problem: Problem,
    y: ArrayLike,
    contrast: ArrayLike,
    offset: ArrayLike,
    c2: ArrayLike,
    *,
    diagonal_is_raw: bool | None = None,
    effective_speckles: float | None = None,
) -> SpeckleNoise:
    """Estimate speckles and shot noise from the residuals of a fit.

    Args:
        problem: What was fitted.
        y: Coordinates of the physics parameters of the fit, shape (p,).
        contrast: Contrast of each angle, shape (n_angles,).
        offset: Offset of each angle, shape (n_angles,).
        c2: Measured correlation, shape (n_angles, N, N).
        diagonal_is_raw: Whether the diagonal of c2 is measured and so shows the shot noise.
        effective_speckles: Number of speckles of each angle where it is known.
    """
    data, y = problem.data, jnp.asarray(y)
    c2, contrast, offset = (np.asarray(x, float) for x in (c2, contrast, offset))
    frames, weights = fitted_pairs(data)
    cut = np.ix_(frames, frames)
    moments, on_diagonal = [], []
    for k in range(data.n_angles):
        g = np.asarray(_correlation(y, data, data.phi[k], problem.coordinates))[cut]
        residuals = c2[k][cut] - offset[k] - contrast[k] * g
        moments.append(ResidualMoments.of(residuals, g, float(contrast[k]), weights[k] > 0))
        on_diagonal.append(_excess(np.diagonal(residuals)))
    correlation, error = neighbour_correlation(moments)
    if diagonal_is_raw and np.isfinite(on_diagonal).all():
        levels = on_diagonal
    else:
        levels = [shot_noise(moments)] * data.n_angles
    given = [effective_speckles] * data.n_angles
    speckles = [
        m.effective_speckles(v) if p is None else float(p)
        for m, v, p in zip(moments, levels, given, strict=True)
    ]
    likely = correlation > SIGNIFICANCE * error
    estimated = effective_speckles is None
    return SpeckleNoise(tuple(speckles), tuple(levels), correlation, bool(likely), estimated)


def _excess(diagonal: FloatArray) -> float:
    """Median of a measured diagonal above the model, at least 0; NaN where there is none."""
    known = diagonal[np.isfinite(diagonal)]
    return max(0.0, float(np.median(known))) if known.size else float("nan")


def score_covariance(
    problem: Problem,
    y: ArrayLike,
    contrast: ArrayLike,
    noise: SpeckleNoise,
    on_event: EventSink = ignore_events,
) -> FloatArray:
    """Return the covariance V that speckle noise gives the score times sigma**2.

    With the information F of the fit, the least-squares estimate has the covariance
    F^-1 V F^-1, where independent errors give sigma**2 F^-1.

    Args:
        problem: What is fitted.
        y: Coordinates of the physics parameters, shape (p,).
        contrast: Contrast of each angle, shape (n_angles,).
        noise: Speckles and shot noise.
        on_event: Receives the progress for many frames.

    Returns:
        Matrix for coordinates, contrasts, offsets, shape (p + k, p + k).
    """
    one = score_noise(problem, y, contrast, noise.shot_noise, on_event)
    return np.tensordot(1.0 / np.array(noise.effective_speckles), one.score, 1)


def score_noise(
    problem: Problem,
    y: ArrayLike,
    contrast: ArrayLike,
    shot_noise: Sequence[float],
    on_event: EventSink = ignore_events,
) -> ScoreNoise:
    """Return what one speckle at each angle would do; more divide it by their number.

    Args:
        problem: What is fitted.
        y: Coordinates of the physics parameters, shape (p,).
        contrast: Contrast of each angle, shape (n_angles,).
        shot_noise: Shot noise of each angle.
        on_event: Receives the progress for many frames.
    """
    data, y = problem.data, jnp.asarray(y)
    contrast = np.asarray(contrast, float)
    frames, weights = fitted_pairs(data)
    cut = np.ix_(frames, frames)
    p = problem.coordinates.size
    per_angle = number_of_products(p + 2, frames.size)
    done, total = 0, per_angle * data.n_angles
    traces, pairs = [], []
    for k, phi in enumerate(data.phi):
        g = np.asarray(_correlation(y, data, phi, problem.coordinates))[cut]

        def function_of(a: int, k: int = k, phi: JaxArray = phi, g: FloatArray = g) -> FloatArray:
            nonlocal done
            if frames.size >= _LARGE:
                on_event(Progress("speckle noise", done, total))
            done += 1
            if a == p + 1:
                return weights[k]
            if a == p:
                return weights[k] * g
            direction = jnp.zeros(p).at[a].set(1.0)
            slope = np.asarray(_slope(y, direction, data, phi, problem.coordinates))
            return weights[k] * slope[cut]

        sigma = speckle_covariance(g, float(contrast[k]), shot_noise[k])
        traces.append(trace_products(function_of, p + 2, sigma))
        own = np.diagonal(sigma)
        pairs.append(0.5 * np.vdot(weights[k], sigma**2 + own[:, None] * own))
    if frames.size >= _LARGE:
        on_event(Progress("speckle noise", total, total))
    score = problem.scaling.information_by_angle(
        jnp.asarray(np.stack(traces)), jnp.asarray(contrast)
    )
    return ScoreNoise(np.asarray(score), np.array(pairs))


def correction(
    posterior: Posterior,
    y: ArrayLike,
    data: PairData,
    noise: SpeckleNoise,
    squares: float,
    informations: FloatArray,
    times: Sequence[float],
    on_event: EventSink = ignore_events,
) -> Correction:
    """Return the likelihood corrected for speckle noise.

    Args:
        posterior: Coordinates, scaling and priors.
        y: Posterior mode in sampling coordinates, shape (size,).
        data: Measured pairs.
        noise: Speckles and shot noise.
        squares: Sum of squares at the mode.
        informations: Information of coordinates, contrasts and offsets times sigma**2 in
            each angle at the mode, shape (n_angles, p + k, p + k).
        times: Times in s at which rates and fraction are informed.
        on_event: Receives the progress for many frames.
    """
    p, at = posterior.coordinates.size, jnp.asarray(y)
    variance = float(jnp.exp(2.0 * at[-1]))
    scaling, _ = posterior.bend_scaling(at[p:-1])
    problem = Problem(data, posterior.coordinates, posterior.scaling)
    contrast, _ = posterior.scaling.expand(scaling)
    one = score_noise(problem, at[:p], np.asarray(contrast), noise.shot_noise, on_event)
    share = 1.0 / np.array(noise.effective_speckles)
    if noise.estimated:
        share = with_absorbed(share, informations, one)
    fisher = informations.sum(0) / variance
    score = np.tensordot(share, one.score, 1) / variance**2
    adjusted = adjusted_information(fisher, score, _prior_curvature(posterior, at, scaling))
    found, slopes = _informed(at[:p], jnp.asarray(times), posterior.coordinates)
    every = np.asarray(block_diag(np.asarray(slopes), np.eye(posterior.scaling.size)))
    centre = np.concatenate([found, np.asarray(scaling)])
    parts = (times, centre, carried_over(adjusted, every), squares, data.n_pairs.sum())
    turn = np.concatenate([np.ones(p), np.asarray(posterior.scaling_slopes(at))])
    return Correction(
        NormalLikelihood(*(jnp.asarray(x, float) for x in parts)),
        adjusted * turn[:, None] * turn,
        tuple((1.0 / share).tolist()),
    )


@partial(jax.jit, static_argnames="coordinates")
def _informed(
    y: JaxArray, times: JaxArray, coordinates: PhysicsCoordinates
) -> tuple[JaxArray, JaxArray]:
    """What the data inform, and its derivatives by the coordinates of the parameters."""

    def of(x: JaxArray) -> JaxArray:
        return quantities(coordinates.forward(x)[0], times)

    return of(y), jax.jacfwd(of)(y)


def _prior_curvature(posterior: Posterior, y: JaxArray, scaling: JaxArray) -> FloatArray:
    """Curvature of minus the log prior density, with contrasts and offsets themselves."""
    p = posterior.coordinates.size
    curvature = np.zeros((posterior.size - 1,) * 2)
    # The scale of sigma's prior has no effect: that prior is independent of the others.
    curvature[:p, :p] = np.asarray(posterior.prior_curvature(y, 1.0))[:p, :p]
    prior = LogPrior.of(posterior.space, posterior.scaling_kinds)
    slopes = np.asarray(prior.standardised_slopes(scaling))
    curvature[p:, p:] = np.diag(slopes**2)
    return curvature


def with_absorbed(seen: FloatArray, informations: FloatArray, one: ScoreNoise) -> FloatArray:
    """Put back the noise that a fit has taken into its parameters.

    With the projector H = J F^-1 J' of the fit on the pairs, J_k and F_k the parts of angle
    k, the expected sum of squares of the residuals of angle k is

        x_k t_k - 2 x_k tr(F^-1 V_k) + sum over l of x_l tr(F^-1 F_k F^-1 V_l)

    where x is the inverse number of speckles, t_k the sum of the variances of the pairs and
    V_l the covariance of the score, both for one speckle. This is solved for x.

    Args:
        seen: Sum of squares of the residuals of each angle over t_k, shape (n_angles,).
        informations: F_k, shape (n_angles, n, n).
        one: V_k and t_k.

    Returns:
        x, at least what is seen and at most ``_MOST_ABSORBED`` times that.
    """
    information = informations.sum(0)
    scale = 1.0 / np.sqrt(np.maximum(np.diagonal(information), 1e-300))
    values, vectors = np.linalg.eigh(information * scale[:, None] * scale)
    informed = values > _RANK * values.max()
    kept = scale[:, None] * vectors[:, informed] / np.sqrt(values[informed])
    parts = kept.T @ informations @ kept
    noise = kept.T @ one.score @ kept
    system = np.einsum("kij,lji->kl", parts, noise)
    system += np.diag(one.pairs - 2.0 * np.trace(noise, axis1=1, axis2=2))
    try:
        found = np.linalg.solve(system / one.pairs[:, None], seen)
    except np.linalg.LinAlgError:
        return _MOST_ABSORBED * seen
    possible = np.where(found > 0, found, np.inf)
    return np.clip(possible, seen, _MOST_ABSORBED * seen)
