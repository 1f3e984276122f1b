"""Contrast and offset given everything else: drawn, not searched.

Given the other unknowns the likelihood is Gaussian in contrasts and offsets, and the sums
over pairs that one evaluation needs also give its mean and curvature. So a proposal for the
other unknowns alone is completed by a draw from this conditional density. The log density of
the whole point minus that of the draw is the log density of the other unknowns with contrast
and offset integrated out, exactly where bounds and priors leave the conditional Gaussian;
elsewhere it is a weight that makes up for what the Gaussian lacks.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np

from heterodyne._typing import IntArray, JaxArray
from heterodyne.core._jax import jax, jnp
from heterodyne.core.likelihood import sums
from heterodyne.core.separable import PairSums
from heterodyne.optimization.cmc._frame import Frame
from heterodyne.optimization.cmc._nuts import Target
from heterodyne.optimization.posterior import Posterior, Unknowns
from heterodyne.optimization.prior import LogPrior

_BATCH = 64


class Completed(NamedTuple):
    """A point with contrast and offset drawn.

    Attributes:
        y: Coordinates of all unknowns, shape (d,).
        log_density: Log density of these, up to a constant; minus infinity where there is none.
        log_integrated: The same minus the log density of the draw.
    """

    y: JaxArray
    log_density: JaxArray
    log_integrated: JaxArray


def searched(posterior: Posterior) -> IntArray:
    """Places of the coordinates that are not contrasts or offsets."""
    p = posterior.coordinates.size
    return np.append(np.arange(p), posterior.size - 1)


def narrowed(posterior: Posterior, frame: Frame) -> Frame:
    """Return a frame of the coordinates that are searched, from one of all."""
    kept = searched(posterior)
    rows = np.asarray(frame.factor)[kept]
    factor = np.linalg.cholesky(rows @ rows.T)
    return Frame(frame.centre[kept], jnp.asarray(factor))


@partial(jax.jit, static_argnames="posterior")
def complete(
    points: JaxArray, normal: JaxArray, target: Target, centre: JaxArray, posterior: Posterior
) -> Completed:
    """Draw contrast and offset at many points.

    Args:
        points: Coordinates that are searched, shape (n, d - k).
        normal: Standard normal numbers, shape (n, k).
        target: What the posterior is conditioned on.
        centre: Coordinates about which contrast and offset are expanded, shape (d,).
        posterior: Map and density.

    Returns:
        Arrays with n as the leading axis.
    """

    def one(part: tuple[JaxArray, JaxArray]) -> Completed:
        return _complete(*part, target, centre, posterior)

    return jax.lax.map(one, (points, normal), batch_size=_BATCH)


def _complete(
    point: JaxArray, normal: JaxArray, target: Target, centre: JaxArray, posterior: Posterior
) -> Completed:
    p = posterior.coordinates.size
    start = posterior.linear(jnp.concatenate([point[:p], centre[p:-1], point[-1:]]))
    unknowns = posterior.adjusted(start, target.centre, target.matrix)
    s = sums(unknowns.parameters, target.data)
    scaling, log_drawn = start[p:-1], jnp.zeros(())
    if posterior.scaling.size > 0:
        step, log_drawn = _draw(scaling, unknowns, normal, s, target, posterior)
        scaling += step
    y = jnp.concatenate([point[:p], posterior.unbend_scaling(scaling), point[-1:]])
    drawn, log_det = posterior.forward(y)
    shift = target.matrix[p:-1, p:-1] @ (scaling - start[p:-1])
    at = unknowns._replace(scaling=unknowns.scaling + shift)
    density = posterior.log_likelihood_of(s, at, target.data)
    density += posterior.log_prior(drawn, target.noise_scale) + log_det
    log_drawn += posterior.bend_scaling(y[p:-1])[1].sum()
    # Beyond a bound the coordinate is not a number.
    sound = jnp.isfinite(density) & jnp.isfinite(y).all() & jnp.isfinite(log_drawn)
    density = jnp.where(sound, density, -jnp.inf)
    return Completed(
        jnp.where(sound, y, centre), density, jnp.where(sound, density - log_drawn, -jnp.inf)
    )


def _draw(
    scaling: JaxArray,
    at: Unknowns,
    normal: JaxArray,
    s: PairSums,
    target: Target,
    posterior: Posterior,
) -> tuple[JaxArray, JaxArray]:
    """Draw a step of contrasts and offsets; returns it and its log density.

    Args:
        scaling: Contrasts and offsets, shape (k,).
        at: Where the likelihood is evaluated for these.
        normal: Standard normal numbers, shape (k,).
        s: Sums over pairs there.
        target: What the posterior is conditioned on.
        posterior: Map and density.
    """
    p = posterior.coordinates.size
    parts = posterior.scaling
    gradient, curvature = parts.quadratic(s, *parts.expand(at.scaling), target.data)
    inner = target.matrix[p:-1, p:-1]
    prior = LogPrior.of(posterior.space, posterior.scaling_kinds)
    slope = prior.standardised_slopes(scaling)
    pull = -inner.T @ gradient / at.sigma**2 - slope * prior.standardised(scaling)
    # The range confines one that neither data nor prior inform.
    confining = slope**2 + posterior.scaling_range**-2.0
    full = inner.T @ curvature @ inner / at.sigma**2 + jnp.diag(confining)
    lower = jnp.linalg.cholesky(full)
    half = jax.scipy.linalg.solve_triangular(lower, pull, lower=True)
    step = jax.scipy.linalg.solve_triangular(lower.T, half + normal)
    log_density = jnp.log(jnp.diagonal(lower)).sum() - 0.5 * (normal**2).sum()
    return step, log_density - 0.5 * len(normal) * math.log(2.0 * math.pi)
