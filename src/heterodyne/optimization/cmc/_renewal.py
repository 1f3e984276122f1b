"""Steps that draw some parameters anew from their priors.

What the data hardly see follows its prior, whose tails reach far: walkers that step along
differences of each other take very long to get there. A draw from the prior is there at once,
and is accepted by the ratio of the likelihoods alone.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from heterodyne._typing import BoolArray, FloatArray, IntArray, JaxArray
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.core._jax import RUNS_ONCE, jax, jnp
from heterodyne.optimization.cmc._linear import in_parts, ridge_place, searched
from heterodyne.optimization.coordinates.curves import CURVE_PARAMETERS
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.nlsq.starts import to_coordinates
from heterodyne.optimization.posterior import Posterior
from heterodyne.optimization.prior import LogPrior, draw_columns

_REFERENCE, _SAMPLE, _VELOCITY, _ = CURVE_PARAMETERS
# Parameters that may be unseen together: a component that is invisible or still takes the phase
# with it. The fraction is left out, for f2 is integrated out of its prior.
_GROUPS = (
    _REFERENCE,
    _SAMPLE,
    _VELOCITY,
    ("phi0",),
    (*_REFERENCE, *_VELOCITY, "phi0"),
    (*_SAMPLE, *_VELOCITY, "phi0"),
)


def renewed(
    x: FloatArray, posterior: Posterior, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Propose to draw one group of parameters of each walker from the priors.

    Args:
        x: Points, shape (n, m).
        posterior: Map and priors.
        rng: Random numbers.

    Returns:
        The points, and the log density of proposing the old points over that of these.
    """
    coordinates, members = posterior.coordinates, _members(posterior)
    if len(members) == 0:
        return x, np.zeros(len(x))
    y = np.zeros((len(x), posterior.size))
    y[:, : coordinates.size] = physics_from_prior(coordinates, len(x), rng)
    chosen = members[rng.integers(0, len(members), len(x))]
    new = np.where(chosen, y[:, searched(posterior)], x)
    # A draw that the coordinates do not hold leaves the walker where it is.
    new = np.where(np.isfinite(new).all(axis=1, keepdims=True), new, x)
    return new, log_prior(x, posterior) - log_prior(new, posterior)


def log_prior(x: FloatArray, posterior: Posterior) -> FloatArray:
    """Log prior density of the physics coordinates, those of f2 at 0, (n, m) to (n,)."""
    n = len(x)
    place = ridge_place(posterior)
    physics = x[:, :-1] if place is None else np.insert(x[:, :-1], place, 0.0, axis=1)
    parts = in_parts(lambda rows: np.asarray(_log_priors(physics[rows], posterior)), n)
    return np.concatenate(parts)[:n]


def physics_from_prior(
    coordinates: PhysicsCoordinates, count: int, rng: np.random.Generator
) -> FloatArray:
    """Draw coordinates of the physics parameters from the priors, shape (count, p).

    Args:
        coordinates: Map, priors and bounds.
        count: Number of draws.
        rng: Random numbers.
    """
    drawn = coordinates.inside(draw_columns(coordinates.space, PHYSICS_PARAM_NAMES, rng, count))
    parts = in_parts(lambda rows: to_coordinates(drawn[rows], coordinates), count)
    return np.concatenate(parts)[:count]


@partial(jax.jit, static_argnames="posterior", compiler_options=RUNS_ONCE)
def _log_priors(physics: JaxArray, posterior: Posterior) -> JaxArray:
    coordinates = posterior.coordinates
    prior = LogPrior.of(coordinates.space, coordinates.names)

    def one(y: JaxArray) -> JaxArray:
        parameters, log_det = coordinates.forward(y)
        return prior(parameters[coordinates.indices]) + log_det

    return jnp.nan_to_num(jax.vmap(one)(physics), nan=-jnp.inf)


def _members(posterior: Posterior) -> BoolArray:
    """Which of the coordinates that are searched are in each group that varies, (groups, m)."""
    names: IntArray = searched(posterior)
    varying = posterior.coordinates.names
    labels = [varying[k] if k < len(varying) else "" for k in names.tolist()]
    found = np.array([[label in group for label in labels] for group in _GROUPS])
    return found[found.any(axis=1)]
