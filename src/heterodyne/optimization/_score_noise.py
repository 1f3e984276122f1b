"""What speckle noise does to the score of a likelihood of independent errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from heterodyne._events import EventSink, Progress, ignore_events
from heterodyne._log import get_logger
from heterodyne._typing import ArrayLike, FloatArray, IntArray, JaxArray
from heterodyne.core._jax import jax, jnp
from heterodyne.core.correlation import correlation_matrix
from heterodyne.core.likelihood import PairData, separable_form, sums
from heterodyne.core.separable import Terms, multiply
from heterodyne.core.speckle import (
    correlation_slope,
    fitted_pairs,
    number_of_products,
    speckle_covariance,
    trace_products,
)
from heterodyne.core.speckle_sketch import N_BATCHES, Operators, draw_intensities, trace_estimates
from heterodyne.optimization._residual_noise import SpeckleNoise
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.problem import Problem

_LOG = get_logger(__name__)
# Frames from which the products take long enough to be reported one by one.
_LARGE = 1000
# Frames up to which matrices are multiplied: time grows with the cube of their number.
_EXACT_FRAMES = 2000


class ScoreNoise(NamedTuple):
    """What one speckle at each angle would do, times sigma**2 for the score.

    Attributes:
        score: Covariance of the score that an angle contributes, shape (n_angles, n, n)
            for n coordinates, contrasts and offsets.
        pairs: Sum of the variances of the pairs, each times its weight, shape (n_angles,).
    """

    score: FloatArray
    pairs: FloatArray


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

    For up to ``_EXACT_FRAMES`` fitted frames, and where pairs have weights, matrices are
    multiplied. For more the products are estimated from random vectors, to about a percent.

    Args:
        problem: What is fitted.
        y: Coordinates of the physics parameters, shape (p,).
        contrast: Contrast of each angle, shape (n_angles,).
        shot_noise: Shot noise of each angle.
        on_event: Receives the progress for many frames.
    """
    data, contrast = problem.data, np.asarray(contrast, float)
    parts = zip(range(data.n_angles), contrast.tolist(), shot_noise, strict=True)
    angles = [_Angle(problem, jnp.asarray(y), *part) for part in parts]
    frames = np.flatnonzero(np.asarray(data.mask))
    work = _Work(on_event if frames.size >= _LARGE else ignore_events)
    if data.weights is not None or frames.size <= _EXACT_FRAMES:
        work.total = data.n_angles * number_of_products(problem.coordinates.size + 2, frames.size)
        weights = fitted_pairs(data)[1]
        traces = [a.exact(frames, weights[a.index], work.step) for a in angles]
    else:
        work.total = data.n_angles * N_BATCHES
        traces = [a.estimated(work.step) for a in angles]
    score = problem.scaling.information_by_angle(
        jnp.asarray(np.stack(traces)), jnp.asarray(contrast)
    )
    g_squares = np.asarray(_sum_of_squares(jnp.asarray(y), data, problem.coordinates))
    own = (contrast + np.array(shot_noise)) ** 2
    work.step()
    return ScoreNoise(
        np.asarray(score), contrast**2 * g_squares + own * np.asarray(data.total_weight)
    )


@dataclass
class _Work:
    """Work that is reported step by step.

    Attributes:
        on_event: Receives the progress.
        total: Number of steps.
        done: Number of steps that are finished.
    """

    on_event: EventSink
    total: int = 0
    done: int = 0

    def step(self) -> None:
        """Report what is done before the next step."""
        self.on_event(Progress("speckle noise", self.done, self.total))
        self.done += 1


@dataclass(frozen=True, eq=False)
class _Angle:
    """One angle at one point.

    Attributes:
        problem: What is fitted.
        y: Coordinates of the physics parameters, shape (p,).
        index: Number of the angle, from 0.
        contrast: Its contrast.
        shot_noise: Its shot noise.
    """

    problem: Problem
    y: JaxArray
    index: int
    contrast: float
    shot_noise: float

    def exact(
        self, frames: IntArray, weights: FloatArray, on_step: Callable[[], None]
    ) -> FloatArray:
        """Return tr(A_a Sigma A_b Sigma) / 2 for dG/dy, G and 1 as functions.

        Args:
            frames: The n fitted frames.
            weights: Weights of their pairs, shape (n, n).
            on_step: Called before each product.
        """
        data, coordinates = self.problem.data, self.problem.coordinates
        phi, cut, p = data.phi[self.index], np.ix_(frames, frames), coordinates.size
        g = np.asarray(_correlation(self.y, data, phi, coordinates))[cut]

        def function_of(a: int) -> FloatArray:
            on_step()
            if a == p + 1:
                return weights
            if a == p:
                return weights * g
            direction = jnp.zeros(p).at[a].set(1.0)
            slope = np.asarray(_slope(self.y, direction, data, phi, coordinates))
            return weights * slope[cut]

        sigma = speckle_covariance(g, self.contrast, self.shot_noise)
        return trace_products(function_of, p + 2, sigma)

    def estimated(self, on_step: Callable[[], None]) -> FloatArray:
        """Return an estimate of the same, for pairs that all count 1."""
        data, coordinates = self.problem.data, self.problem.coordinates
        one = data._replace(phi=data.phi[self.index : self.index + 1])
        terms = _terms(self.y, one, coordinates)
        fitted = np.asarray(data.mask)[:, None]
        own = self.contrast + self.shot_noise

        def functions(vectors: FloatArray) -> FloatArray:
            return np.asarray(_times_functions(self.y, jnp.asarray(vectors), one, coordinates))

        def covariance(vectors: FloatArray) -> FloatArray:
            product = np.asarray(_times_correlation(terms, jnp.asarray(vectors)[None])[0])
            return self.contrast * product + own * fitted * vectors

        def draw(count: int, rng: np.random.Generator) -> FloatArray:
            drawn = draw_intensities(terms, self.contrast, self.shot_noise, count, rng)
            return drawn[: len(fitted)]

        found = trace_estimates(Operators(functions, covariance, draw), on_step)
        _LOG.info(
            "The speckle noise of %d frames at angle %d comes from random vectors, with a "
            "relative standard error of %.1g.",
            np.count_nonzero(fitted),
            self.index,
            found.error,
        )
        return found.values


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


@partial(jax.jit, static_argnames="coordinates")
def _sum_of_squares(y: JaxArray, data: PairData, coordinates: PhysicsCoordinates) -> JaxArray:
    return sums(coordinates.forward(y)[0], data).gg


@partial(jax.jit, static_argnames="coordinates")
def _terms(y: JaxArray, data: PairData, coordinates: PhysicsCoordinates) -> Terms:
    return separable_form(coordinates.forward(y)[0], data)


_times_correlation = jax.jit(multiply)


@partial(jax.jit, static_argnames="coordinates")
def _times_functions(
    y: JaxArray, vectors: JaxArray, data: PairData, coordinates: PhysicsCoordinates
) -> JaxArray:
    """Products of dG/dy, G and 1, zero on their diagonals, with vectors at one angle.

    Args:
        y: Coordinates, shape (p,).
        vectors: Columns to multiply with, shape (N, k).
        data: Frames, and one angle.
        coordinates: Map to the physics parameters.

    Returns:
        Array of shape (p + 2, N, k).
    """

    def product(x: JaxArray) -> JaxArray:
        return multiply(separable_form(coordinates.forward(x)[0], data), vectors[None])[0]

    def slope(direction: JaxArray) -> JaxArray:
        return jax.jvp(product, (y,), (direction,))[1]

    slopes = jax.lax.map(slope, jnp.eye(coordinates.size))
    mask = data.mask[:, None]
    of_one = mask * ((mask * vectors).sum(0) - vectors)
    return jnp.concatenate([slopes, product(y)[None], of_one[None]])
