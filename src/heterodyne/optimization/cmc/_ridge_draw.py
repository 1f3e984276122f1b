"""f2 given everything else: drawn, not searched.

Only f0 exp(-f1 f2) enters the model, so along the (f0, f2) ridge the posterior is the prior
whatever the data. Its density there is one-dimensional and cheap, so a proposal for the other
unknowns is completed by a draw from it. The draw is from a fine histogram; what the density
inside a bin differs from the histogram is left to the weight.
"""

from __future__ import annotations

import numpy as np
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm

from heterodyne._typing import JaxArray
from heterodyne.core._jax import jnp
from heterodyne.optimization.posterior import Posterior
from heterodyne.optimization.prior import LogPrior, log_prior_of

# Bins of the coordinate, in which the density is close to a standard normal one.
_REACH, _BINS = 12.0, 80
_WIDTH = 2.0 * _REACH / _BINS
_MIDDLES = (np.arange(_BINS) + 0.5) * _WIDTH - _REACH
# Adds up bins, faster than a running sum.
_UP_TO = np.tri(_BINS)


def draw_along_ridge(
    y: JaxArray, normal: JaxArray, power: JaxArray | float, posterior: Posterior
) -> tuple[JaxArray, JaxArray]:
    """Draw the coordinate of f2.

    Args:
        y: Coordinates of the physics parameters, shape (p,); that of f2 is not used.
        normal: A standard normal number.
        power: Power of the prior.
        posterior: Map and priors.

    Returns:
        The coordinate, and the log density of the draw.
    """
    nodes, density, width = _along(y, power, posterior)
    share = jnp.exp(density - density.max())
    share = jnp.where(jnp.isfinite(share), share, 0.0)
    cumulative = (jnp.asarray(_UP_TO) @ share) / share.sum()
    at = norm.cdf(normal)
    k = jnp.clip((cumulative < at).sum(), 0, _BINS - 1)
    probability = share[k] / share.sum()
    inside = (at - cumulative[k] + probability) / probability
    drawn = nodes[k] + width * (jnp.clip(inside, 0.0, 1.0) - 0.5)
    return drawn, jnp.log(probability / width)


def log_prior_across(y: JaxArray, posterior: Posterior) -> JaxArray:
    """Log prior density of the physics coordinates with that of f2 integrated out, scalar.

    Args:
        y: Coordinates of the physics parameters, shape (p,); that of f2 is not used.
        posterior: Map and priors, with a coordinate along the ridge.
    """
    coordinates = posterior.coordinates
    nodes, density, width = _along(y, 1.0, posterior)
    place = coordinates.names.index("f2")
    mapped = coordinates.forward(y.at[place].set(nodes[_BINS // 2]))
    whole = log_prior_of(*mapped, coordinates)
    return whole - density[_BINS // 2] + logsumexp(density) + jnp.log(width)


def _along(
    y: JaxArray, power: JaxArray | float, posterior: Posterior
) -> tuple[JaxArray, JaxArray, JaxArray]:
    """Middles of bins along the ridge, log density of the prior to a power there, their width."""
    coordinates = posterior.coordinates
    prior = LogPrior.of(posterior.space, ("f0", "f2"))
    # A power below 1 widens the density, and its exponential tails most: where f0 tends to 0.
    stretch = 1.0 / jnp.asarray(power)
    nodes = coordinates.ridge_centre(y) + stretch * _MIDDLES
    f0, f2, log_det = coordinates.along_ridge(y, nodes)
    log_prior = prior.each(jnp.stack([f0, f2], axis=-1))
    return nodes, power * (log_prior + log_det), stretch * _WIDTH
