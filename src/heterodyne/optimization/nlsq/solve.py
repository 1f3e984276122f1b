"""Levenberg-Marquardt from many starts in one batch.

The objective is n log(sum of squares) - 2 w log(prior density), in units of chi-square:
with w = 1 its minimum is the posterior mode, with w = 0 the least-squares fit. The weak
prior of the search keeps directions that the data leave open away from the bounds, where
no step would lead back. Steps use the exact gradient and the Fisher information from the
separable kernel, with contrast, offset and sigma eliminated.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from heterodyne._typing import FloatArray, JaxArray
from heterodyne.core._jax import jax, jnp
from heterodyne.core.likelihood import PairData
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.prior import LogPrior
from heterodyne.optimization.problem import (
    Problem,
    information_at,
    profiled_information,
    profiled_squares,
)
from heterodyne.optimization.scaling import Scaling

_STATIC = ("coordinates", "scaling")
_LARGEST_DAMPING = 1e12
_TRACE_OF_PRIOR = 1e-3
# Creeping along a valley that the data leave open ends when so many iterations together
# gain less than so many times the tolerance.
_PATIENCE = 25
_STANDSTILL = 100.0


class _Derivatives(NamedTuple):
    """Value, gradient and curvature of the objective, one row per start.

    ``floor`` is the least information that the damping assumes on each coordinate.
    """

    objective: JaxArray
    gradient: JaxArray
    curvature: JaxArray
    floor: JaxArray
    squares: JaxArray
    information: JaxArray
    contrast: JaxArray
    offset: JaxArray


class _State(NamedTuple):
    """State of the search, one row per start."""

    y: JaxArray
    at: _Derivatives
    scale: JaxArray
    damping: JaxArray
    growth: JaxArray


class Solutions(NamedTuple):
    """Where the starts ended.

    Attributes:
        y: Coordinates, shape (n_starts, p).
        objective: Value of the objective, shape (n_starts,); infinite where it failed.
        squares: Sum of squares, shape (n_starts,).
        information: Information of coordinates, contrasts and offsets, over sigma**2 the
            Fisher information, shape (n_starts, p + k, p + k).
        floor: Information of the priors on each coordinate, shape (n_starts, p).
        contrast: Contrast of each angle, shape (n_starts, n_angles).
        offset: Offset of each angle, shape (n_starts, n_angles).
        converged: Whether no decrease worth speaking of was left.
    """

    y: FloatArray
    objective: FloatArray
    squares: FloatArray
    information: FloatArray
    floor: FloatArray
    contrast: FloatArray
    offset: FloatArray
    converged: np.ndarray

    def best(self, count: int) -> Solutions:
        """Return the ``count`` lowest, lowest first."""
        order = np.argsort(self.objective)[:count]
        return Solutions(*(field[order] for field in self))


def _log_density(y: JaxArray, coordinates: PhysicsCoordinates) -> JaxArray:
    """Prior density of the coordinates."""
    parameters, log_det = coordinates.forward(y)
    prior = LogPrior.of(coordinates.space, coordinates.names)
    return prior(parameters[coordinates.indices]) + log_det


def _prior_curvature(y: JaxArray, coordinates: PhysicsCoordinates) -> JaxArray:
    """Positive semidefinite curvature of -2 log prior."""
    prior = LogPrior.of(coordinates.space, coordinates.names)

    def distances(x: JaxArray) -> JaxArray:
        return prior.standardised(coordinates.forward(x)[0][coordinates.indices])

    jacobian = jax.jacfwd(distances)(y)
    return jacobian.T @ jacobian


def objective_value(
    y: JaxArray,
    prior_weight: JaxArray | float,
    data: PairData,
    coordinates: PhysicsCoordinates,
    scaling: Scaling,
) -> tuple[JaxArray, JaxArray]:
    """Return n log(sum of squares) - 2 w log(prior), and the sum of squares."""
    squares = profiled_squares(y, data, coordinates, scaling)
    likelihood = data.n_pairs.sum() * jnp.log(squares)
    return likelihood - 2.0 * prior_weight * _log_density(y, coordinates), squares


@partial(jax.jit, static_argnames=_STATIC)
def _differentiate(
    y: JaxArray,
    prior_weight: JaxArray,
    data: PairData,
    coordinates: PhysicsCoordinates,
    scaling: Scaling,
) -> _Derivatives:
    n = data.n_pairs.sum()

    def objective(x: JaxArray) -> tuple[JaxArray, JaxArray]:
        return objective_value(x, prior_weight, data, coordinates, scaling)

    def information(x: JaxArray) -> tuple[JaxArray, ...]:
        full, contrast, offset = information_at(x, data, coordinates, scaling)
        return profiled_information(full, coordinates.size), full, contrast, offset

    (value, squares), gradient = jax.vmap(jax.value_and_grad(objective, has_aux=True))(y)
    reduced, full, contrast, offset = jax.lax.map(information, y)
    of_prior = jax.vmap(lambda x: _prior_curvature(x, coordinates))(y)
    # Without the prior a trace of its curvature, but not of its gradient, stays: it stops
    # steps along directions on which the data say nothing.
    weight = jnp.maximum(prior_weight, _TRACE_OF_PRIOR)
    curvature = reduced * (n / squares)[:, None, None] + weight * of_prior
    floor = jnp.diagonal(of_prior, axis1=1, axis2=2)
    return _Derivatives(value, gradient, curvature, floor, squares, full, contrast, offset)


@jax.jit
def _propose(s: _State) -> tuple[JaxArray, JaxArray]:
    """Return trial points and the decrease predicted for them."""
    root = jnp.sqrt(s.scale)
    scaled = s.at.curvature / root[:, :, None] / root[:, None, :]
    damped = scaled + s.damping[:, None, None] * jnp.eye(root.shape[1])
    step = jnp.linalg.solve(damped, (-0.5 * s.at.gradient / root)[..., None])[..., 0] / root
    bend = jnp.einsum("si,sij,sj->s", step, s.at.curvature, step)
    return s.y + step, -(step * s.at.gradient).sum(1) - bend


@jax.jit
def _update(s: _State, trial: JaxArray, predicted: JaxArray, new: _Derivatives) -> _State:
    """Accept or refuse trial points and set the damping (Nielsen's rule)."""
    sound = (
        jnp.isfinite(new.objective)
        & jnp.isfinite(new.gradient).all(1)
        & jnp.isfinite(new.curvature).all((1, 2))
    )
    gain = jnp.where(sound, (s.at.objective - new.objective) / predicted, -1.0)
    better = gain > 1e-4
    shrink = jnp.maximum(1.0 / 3.0, 1.0 - (2.0 * gain - 1.0) ** 3)
    damping = s.damping * jnp.where(better, shrink, s.growth)

    def choose(a: JaxArray, b: JaxArray) -> JaxArray:
        return jnp.where(better.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    diagonal = jnp.maximum(jnp.diagonal(new.curvature, axis1=1, axis2=2), new.floor)
    return _State(
        choose(trial, s.y),
        jax.tree.map(choose, new, s.at),
        choose(jnp.maximum(s.scale, diagonal), s.scale),
        jnp.clip(damping, 1e-12, _LARGEST_DAMPING),
        jnp.where(better, 2.0, jnp.minimum(2.0 * s.growth, 64.0)),
    )


def solve(
    problem: Problem,
    starts: FloatArray,
    *,
    prior_weight: float,
    max_iterations: int,
    tolerance: float,
) -> Solutions:
    """Minimise the objective from every start.

    Args:
        problem: Data, coordinates and scaling.
        starts: Coordinates to start from, shape (n_starts, p).
        prior_weight: 1 for the posterior mode, 0 for least squares.
        max_iterations: Largest number of iterations.
        tolerance: A start has converged when its predicted decrease, in units of
            chi-square, is below this, or when many iterations together have gained little
            more.
    """
    parts = (jnp.asarray(prior_weight), problem.data, problem.coordinates, problem.scaling)
    y = jnp.asarray(starts)
    first = _differentiate(y, *parts)
    diagonal = jnp.maximum(jnp.diagonal(first.curvature, axis1=1, axis2=2), first.floor)
    ones = jnp.ones(y.shape[0])
    state = _State(y, first, jnp.where(diagonal > 0, diagonal, 1.0), 1e-2 * ones, 2.0 * ones)
    usable = np.asarray(jnp.isfinite(first.objective))
    converged = np.zeros(y.shape[0], bool)
    stuck = ~usable
    before = np.asarray(state.at.objective)
    for k in range(1, max_iterations + 1):
        trial, predicted = _propose(state)
        converged |= np.asarray(predicted < tolerance) & usable
        if (converged | stuck).all():
            break
        state = _update(state, trial, predicted, _differentiate(trial, *parts))
        stuck |= np.asarray(state.damping >= _LARGEST_DAMPING)
        if k % _PATIENCE == 0:
            now = np.asarray(state.at.objective)
            converged |= (before - now < _STANDSTILL * tolerance) & usable
            before = now
    objective = np.where(usable, np.asarray(state.at.objective), np.inf)
    at = state.at
    return Solutions(
        y=np.asarray(state.y),
        objective=objective,
        squares=np.asarray(at.squares),
        information=np.asarray(at.information),
        floor=np.asarray(at.floor),
        contrast=np.asarray(at.contrast),
        offset=np.asarray(at.offset),
        converged=converged,
    )
