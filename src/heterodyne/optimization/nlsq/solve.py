"""Levenberg-Marquardt from many starts in one batch.

The objective is n log(sum of squares) - 2 w log(prior density), in units of chi-square:
with w = 1 its minimum is the posterior mode, with w = 0 the least-squares fit. The weak
prior of the search keeps directions that the data leave open away from the bounds, where
no step would lead back. Steps use the exact gradient and the Fisher information from the
separable kernel, with contrast, offset and sigma eliminated.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from heterodyne._cores import usable_cores
from heterodyne._typing import BoolArray, FloatArray, JaxArray
from heterodyne.core._jax import jax, jnp
from heterodyne.optimization.nlsq.derivatives import Derivatives, differentiate
from heterodyne.optimization.problem import Problem

_LARGEST_DAMPING = 1e12
# Curvature that is assumed of coordinates that stay where they are.
_IMMOVABLE = 1e200
# Creeping along a valley that the data leave open ends when so many iterations together
# gain less than so many times the tolerance.
_PATIENCE = 25
_STANDSTILL = 100.0
# Curvature, over that of other points or directions, below which it is rounding.
_LEAST_CURVATURE = 1e-10


class _State(NamedTuple):
    """State of the search, one row per start."""

    y: JaxArray
    at: Derivatives
    scale: JaxArray
    damping: JaxArray
    growth: JaxArray

    @classmethod
    def at_start(cls, y: FloatArray, at: Derivatives, held: BoolArray) -> _State:
        """Start from points, in NumPy, for JAX would compile each of the steps."""
        diagonal = np.diagonal(np.asarray(at.curvature), axis1=1, axis2=2)
        diagonal = np.maximum(diagonal, np.asarray(at.floor))
        ones = np.ones(y.shape[0])
        scale = np.where(held, _IMMOVABLE, np.where(diagonal > 0, diagonal, 1.0))
        return cls(*jax.device_put((y, at, scale, 1e-2 * ones, 2.0 * ones)))


class Solutions(NamedTuple):
    """Where the starts ended.

    Attributes:
        y: Coordinates, shape (n_starts, p).
        objective: Value of the objective, shape (n_starts,); infinite where it failed.
        score: What starts are ranked by, shape (n_starts,): the objective for least squares;
            with a prior also the log determinant of the curvature, which makes it -2 times
            the logarithm of the mass of the mode in the normal approximation. The density
            alone has needles without mass, where an amplitude vanishes.
        squares: Sum of squares, shape (n_starts,).
        by_angle: Information of coordinates, contrasts and offsets in each angle, shape
            (n_starts, n_angles, p + k, p + k).
        floor: Information of the priors on each coordinate, shape (n_starts, p).
        contrast: Contrast of each angle, shape (n_starts, n_angles).
        offset: Offset of each angle, shape (n_starts, n_angles).
        converged: Whether no decrease worth speaking of was left.
    """

    y: FloatArray
    objective: FloatArray
    score: FloatArray
    squares: FloatArray
    by_angle: FloatArray
    floor: FloatArray
    contrast: FloatArray
    offset: FloatArray
    converged: np.ndarray

    @property
    def information(self) -> FloatArray:
        """The same of all angles: over sigma**2 the Fisher information, (n_starts, ...)."""
        return self.by_angle.sum(axis=1)

    def best(self, count: int) -> Solutions:
        """Return the ``count`` best, best first."""
        order = np.argsort(self.score)[:count]
        return Solutions(*(field[order] for field in self))


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
def _update(
    s: _State, active: JaxArray, trial: JaxArray, predicted: JaxArray, new: Derivatives
) -> _State:
    """Accept or refuse trial points and set the damping (Nielsen's rule)."""
    sound = (
        jnp.isfinite(new.objective)
        & jnp.isfinite(new.gradient).all(1)
        & jnp.isfinite(new.curvature).all((1, 2))
    )
    gain = jnp.where(sound, (s.at.objective - new.objective) / predicted, -1.0)
    better = active & (gain > 1e-4)
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
    batch: int = 0,
    held: BoolArray | None = None,
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
        batch: Number of starts for which code is compiled, if more than are given.
        held: Coordinates that keep the values of their start, shape (n_starts, p); none if
            None.
    """
    n_starts = starts.shape[0]
    y = np.concatenate([starts, starts[:1].repeat(max(batch - n_starts, 0), axis=0)])
    given = np.arange(y.shape[0]) < n_starts
    with ThreadPoolExecutor(usable_cores()) as pool:
        first = differentiate(problem, y, given, np.full(len(y), np.inf), prior_weight, pool)
        kept = np.zeros(y.shape, bool)
        kept[:n_starts] = False if held is None else held
        state = _State.at_start(y, first, kept)
        usable = np.isfinite(np.asarray(first.objective))
        progress = _Progress.of(np.asarray(first.objective), usable & given)
        for k in range(1, max_iterations + 1):
            trial, predicted = map(np.asarray, _propose(state))
            progress.settle(predicted < tolerance)
            if not progress.active.any():
                break
            beat = np.asarray(state.at.objective)
            new = differentiate(problem, trial, progress.active, beat, prior_weight, pool)
            state = _update(state, progress.active, trial, predicted, new)
            progress.give_up(np.asarray(state.damping) >= _LARGEST_DAMPING)
            if k % _PATIENCE == 0:
                now = np.asarray(state.at.objective)
                progress.look_back(now, _STANDSTILL * tolerance, (max_iterations - k) / _PATIENCE)
    weighed = prior_weight > 0.0
    return _summarised(state, usable, progress.converged, n_starts, weighed=weighed)


def _summarised(
    state: _State, usable: BoolArray, converged: BoolArray, n_starts: int, *, weighed: bool
) -> Solutions:
    """Take what is asked for out of a state; modes of a posterior are weighed by their volume."""
    at = state.at
    objective = np.where(usable, np.asarray(at.objective), np.inf)
    score = objective
    if weighed:
        score = objective + _log_determinants(np.asarray(at.curvature), np.isfinite(objective))
    return Solutions(
        y=np.asarray(state.y)[:n_starts],
        objective=objective[:n_starts],
        score=score[:n_starts],
        squares=np.asarray(at.squares)[:n_starts],
        by_angle=np.asarray(at.by_angle)[:n_starts],
        floor=np.asarray(at.floor)[:n_starts],
        contrast=np.asarray(at.contrast)[:n_starts],
        offset=np.asarray(at.offset)[:n_starts],
        converged=converged[:n_starts],
    )


def _log_determinants(curvature: FloatArray, usable: BoolArray) -> FloatArray:
    """Logarithms of the determinants of information matrices, shape (n, p, p) to (n,).

    Directions that nothing informs count alike at all points.
    """
    found = np.zeros(len(curvature))
    if not usable.any():
        return found
    diagonal = np.diagonal(curvature[usable], axis1=1, axis2=2)
    least = _LEAST_CURVATURE * np.quantile(diagonal, 0.5, axis=0, method="lower")
    diagonal = np.maximum(diagonal, np.maximum(least, 1e-300))
    root = np.sqrt(diagonal)
    values = np.linalg.eigvalsh(curvature[usable] / root[:, :, None] / root[:, None, :])
    found[usable] = np.log(diagonal).sum(1) + np.log(np.maximum(values, _LEAST_CURVATURE)).sum(1)
    return found


@dataclass
class _Progress:
    """Which starts are still optimised.

    Attributes:
        active: Starts that are.
        converged: Starts that have converged.
        before: Objective at the last look back.
    """

    active: BoolArray
    converged: BoolArray
    before: FloatArray

    @classmethod
    def of(cls, objective: FloatArray, active: BoolArray) -> _Progress:
        return cls(active, np.zeros_like(active), objective)

    def settle(self, where: BoolArray) -> None:
        """Count active starts as converged."""
        self.converged = self.converged | (self.active & where)
        self.active = self.active & ~where

    def give_up(self, where: BoolArray) -> None:
        """Leave starts where they are, not converged."""
        self.active = self.active & ~where

    def look_back(self, now: FloatArray, least: float, left: float) -> None:
        """Settle starts at a standstill; give up those that will not reach the best.

        Args:
            now: Objective of each start.
            least: Gain since the last look below which a start stands still.
            left: How many looks are left.
        """
        gain = self.before - now
        self.before = now
        self.settle(gain < least)
        if self.converged.any():
            self.give_up(now - left * gain > now[self.converged].min())
