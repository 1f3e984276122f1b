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

import numpy as np
from scipy.linalg import block_diag

from heterodyne._events import EventSink, ignore_events
from heterodyne._typing import ArrayLike, FloatArray, JaxArray
from heterodyne.core._jax import jax, jnp
from heterodyne.core.likelihood import PairData
from heterodyne.optimization._residual_noise import SpeckleNoise, speckle_noise
from heterodyne.optimization._score_noise import ScoreNoise, score_covariance, score_noise
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.curvature import adjusted_information
from heterodyne.optimization.informed import NormalLikelihood, carried_over, quantities
from heterodyne.optimization.posterior import Posterior
from heterodyne.optimization.prior import LogPrior
from heterodyne.optimization.problem import Problem

__all__ = [
    "Correction",
    "ScoreNoise",
    "SpeckleNoise",
    "correction",
    "score_covariance",
    "score_noise",
    "speckle_noise",
    "with_absorbed",
]

# Information below this share of the largest is rounding.
_RANK = 1e-9
# Largest factor by which noise that a fit may have absorbed raises what is seen.
_MOST_ABSORBED = 4.0


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
