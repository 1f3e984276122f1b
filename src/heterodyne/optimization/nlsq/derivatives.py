"""Value, gradient and curvature of the objective of fits, at many points at once."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np

from heterodyne._typing import BoolArray, FloatArray, IntArray, JaxArray
from heterodyne.core._jax import jax, jnp
from heterodyne.core.ahead import compile_ahead
from heterodyne.core.information import gram
from heterodyne.core.kept import kept
from heterodyne.core.likelihood import PairData
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.prior import LogPrior, log_prior_of
from heterodyne.optimization.problem import Problem, Profile, profile_at, profiled_information
from heterodyne.optimization.scaling import Scaling

_TRACE_OF_PRIOR = 1e-3
# Points that are evaluated together; such parts share the cores.
_PART = 4


class Derivatives(NamedTuple):
    """Value, gradient and curvature of the objective, one row per start.

    ``floor`` is the least information that the damping assumes on each coordinate.
    """

    objective: JaxArray
    gradient: JaxArray
    curvature: JaxArray
    floor: JaxArray
    squares: JaxArray
    by_angle: JaxArray
    contrast: JaxArray
    offset: JaxArray


def objective_value(
    y: JaxArray, data: PairData, coordinates: PhysicsCoordinates, scaling: Scaling
) -> JaxArray:
    """Return n log(sum of squares) - 2 log(prior density of the coordinates), scalar."""
    parameters, log_det = coordinates.forward(y)
    squares = profile_at(parameters, data, scaling).squares
    log_prior = log_prior_of(parameters, log_det, coordinates)
    return data.n_pairs.sum() * jnp.log(squares) - 2.0 * log_prior


class _Point(NamedTuple):
    """Parameters and log determinant of the map, and their derivatives by p coordinates."""

    parameters: JaxArray  # (14,)
    log_det: JaxArray
    jacobian: JaxArray  # (14, p)
    slope: JaxArray  # (p,)

    @classmethod
    def of(cls, y: JaxArray, coordinates: PhysicsCoordinates) -> _Point:
        def twice(x: JaxArray) -> tuple[tuple[JaxArray, JaxArray], tuple[JaxArray, JaxArray]]:
            mapped = coordinates.forward(x)
            return mapped, mapped

        slopes, values = jax.jacfwd(twice, has_aux=True)(y)
        return cls(*values, *slopes)


@kept("coordinates", "scaling", returns=Derivatives)
def _differentiate(
    y: JaxArray,
    wanted: JaxArray,
    beat: JaxArray,
    prior_weight: JaxArray,
    data: PairData,
    coordinates: PhysicsCoordinates,
    scaling: Scaling,
) -> Derivatives:
    """Differentiate at each of ``_PART`` points, as ``differentiate`` does."""
    n = data.n_pairs.sum()
    prior = LogPrior.of(coordinates.space, coordinates.names)

    def likelihood(parameters: JaxArray) -> tuple[JaxArray, Profile]:
        profile = profile_at(parameters, data, scaling)
        return n * jnp.log(profile.squares), profile

    def with_prior(point: _Point) -> tuple[JaxArray, ...]:
        (value, profile), slope = jax.value_and_grad(likelihood, has_aux=True)(point.parameters)
        varying, rows = (x[coordinates.indices] for x in (point.parameters, point.jacobian))
        log_prior, prior_slope = jax.value_and_grad(prior)(varying)
        value -= 2.0 * prior_weight * (log_prior + point.log_det)
        gradient = slope @ point.jacobian
        gradient -= 2.0 * prior_weight * (prior_slope @ rows + point.slope)
        distances = prior.standardised_slopes(varying)[:, None] * rows
        return value, gradient, distances.T @ distances, *profile

    def information(point: _Point, contrast: JaxArray) -> tuple[JaxArray, JaxArray]:
        near = jnp.zeros(coordinates.size)
        products = gram(lambda x: point.parameters + point.jacobian @ x, near, data)
        full = scaling.information_by_angle(products, contrast)
        return profiled_information(full.sum(0), coordinates.size), full

    p, k = coordinates.size, scaling.size
    nothing = (jnp.zeros((p, p)), jnp.zeros((data.n_angles, p + k, p + k)))

    def where_better(part: tuple[JaxArray, _Point, JaxArray]) -> tuple[JaxArray, JaxArray]:
        return jax.lax.cond(part[0], information, lambda *_: nothing, *part[1:])

    points = jax.vmap(lambda x: _Point.of(x, coordinates))(y)
    value, gradient, of_prior, squares, contrast, offset = jax.vmap(with_prior)(points)
    reduced, full = jax.lax.map(where_better, (wanted & (value < beat), points, contrast))
    # Without the prior a trace of its curvature, but not of its gradient, stays: it stops
    # steps along directions on which the data say nothing.
    weight = jnp.maximum(prior_weight, _TRACE_OF_PRIOR)
    curvature = reduced * (n / squares)[:, None, None] + weight * of_prior
    floor = jnp.diagonal(of_prior, axis1=1, axis2=2)
    return Derivatives(value, gradient, curvature, floor, squares, full, contrast, offset)


def differentiate(
    problem: Problem,
    y: FloatArray,
    wanted: BoolArray,
    beat: FloatArray,
    prior_weight: float,
    pool: Executor,
) -> Derivatives:
    """Differentiate the objective at some of the points, in parts of one size on all cores.

    Args:
        problem: Data, coordinates and scaling.
        y: Coordinates, shape (n, p).
        wanted: Points that are evaluated, at least one, shape (n,).
        beat: Objective that a point has to be below for its curvature to be of use, shape
            (n,); most of the work is the curvature.
        prior_weight: Weight of the priors.
        pool: Threads.

    Returns:
        Zero in the rows that are not wanted. Curvature and information are also zero where
        the objective is not below ``beat``.
    """
    weight = np.asarray(prior_weight)
    rows = np.flatnonzero(wanted)

    def evaluated(part: IntArray) -> list[FloatArray]:
        filled = np.resize(part, _PART)
        found = _differentiate(
            y[filled],
            np.arange(_PART) < part.size,
            beat[filled],
            weight,
            problem.data,
            problem.coordinates,
            problem.scaling,
        )
        return [np.asarray(column)[: part.size] for column in found]

    def placed(column: tuple[FloatArray, ...]) -> FloatArray:
        values = np.concatenate(column)
        whole = np.zeros((len(y), *values.shape[1:]))
        whole[rows] = values
        return whole

    parts = np.array_split(rows, -(-rows.size // _PART))
    columns = zip(*pool.map(evaluated, parts), strict=True)
    return Derivatives(*jax.device_put([placed(column) for column in columns]))


def compile_derivatives(problem: Problem) -> None:
    """Have the code of ``differentiate`` compiled in the background.

    Args:
        problem: As it will be given.
    """
    each = np.zeros(_PART)
    compile_ahead(
        _differentiate,
        np.zeros((_PART, problem.coordinates.size)),
        each > 0,
        each,
        np.asarray(1.0),
        problem.data,
        problem.coordinates,
        problem.scaling,
    )
