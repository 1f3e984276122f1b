"""Regions of the priors in which the data see nothing of some parameters.

Where a rate stays on its floor, or the fraction at 1, the parameters behind it leave no trace.
The posterior of these is then their prior, cut off at the border of the region. Its density
rises towards the border, so there is no mode that a fit could find, although the region may
hold most of the mass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from heterodyne._typing import BoolArray, FloatArray, IntArray
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.core._jax import jax
from heterodyne.optimization.cmc._frame import Frame, apart, inverse_factor, mode_frame
from heterodyne.optimization.coordinates.curves import CURVE_PARAMETERS
from heterodyne.optimization.nlsq.coarse import coarsened
from heterodyne.optimization.nlsq.core import Fit
from heterodyne.optimization.nlsq.solve import Solutions, solve
from heterodyne.optimization.nlsq.starts import to_coordinates
from heterodyne.optimization.posterior import Posterior
from heterodyne.optimization.prior import draw_columns
from heterodyne.optimization.problem import Problem

_DRAWN = 16384
# Draws of the priors that make a region, and how many of them are mapped.
_FEWEST, _KEPT = 8, 512
# Chi-square above the best mode from which on a region holds no posterior mass: its volume, and
# that of the modes, count too.
_EXCESS = 40.0
# Modes from which the parameters that are seen are fitted.
_MODES = 2
_ITERATIONS, _TOLERANCE = 40, 1e-2
_LARGEST_GROWTH = 100.0

_REFERENCE, _SAMPLE, *_ = CURVE_PARAMETERS
Columns = Mapping[str, FloatArray]


@dataclass(frozen=True)
class _Region:
    """Where some parameters leave no trace.

    Attributes:
        hidden: Parameters that the data do not see.
        holds: Whether draws of these lie in the region, given the first and last time in s;
            all curves are monotonic in time.
    """

    hidden: tuple[str, ...]
    holds: Callable[[Columns, FloatArray], BoolArray]


def _frozen(names: tuple[str, str, str]) -> _Region:
    """One component, whose transport has these parameters, does not move at all."""

    def holds(drawn: Columns, ends: FloatArray) -> BoolArray:
        prefactor, exponent, offset = (drawn[name][:, None] for name in names)
        return np.all(prefactor * ends**exponent + offset <= 0.0, axis=1)

    return _Region(names, holds)


def _saturated() -> _Region:
    """All that is seen moves with the sample."""

    def holds(drawn: Columns, ends: FloatArray) -> BoolArray:
        f0, f1, f2, f3 = (drawn[f"f{k}"][:, None] for k in range(4))
        growth = np.exp(np.minimum(f1 * (ends - f2), _LARGEST_GROWTH))
        return np.all(f0 * growth + f3 >= 1.0, axis=1)

    return _Region(tuple(name for name in PHYSICS_PARAM_NAMES if name not in _SAMPLE), holds)


_REGIONS = (_frozen(_REFERENCE), _frozen(_SAMPLE), _saturated())


@dataclass(frozen=True)
class _Plateau:
    """Prior of the hidden parameters within a region, in sampling coordinates.

    Attributes:
        held: Places of the hidden parameters among the coordinates.
        inner: A draw in the middle of the region, shape (k,).
        mean: Mean of the draws, shape (k,).
        covariance: Their covariance, shape (k, k).
    """

    held: IntArray
    inner: FloatArray
    mean: FloatArray
    covariance: FloatArray

    def on(self, y: FloatArray) -> FloatArray:
        """Put a point, shape (p,), in the middle of the region."""
        moved = y.copy()
        moved[self.held] = self.inner
        return moved

    def spread(self, frame: Frame) -> Frame:
        """Let a frame cover the region, and the rest as if the region had been left out."""
        centre, factor = (np.array(part) for part in frame)
        inverse = inverse_factor(factor)
        seen = np.setdiff1d(np.arange(centre.size), self.held)
        precision = (inverse.T @ inverse)[np.ix_(seen, seen)]
        unit = 1.0 / np.sqrt(np.diagonal(precision))
        whole = np.zeros_like(factor)
        block = np.linalg.inv(precision * unit[:, None] * unit) * unit[:, None] * unit
        whole[np.ix_(seen, seen)] = 0.5 * (block + block.T)
        whole[np.ix_(self.held, self.held)] = self.covariance
        centre[self.held] = self.mean
        return Frame(*jax.device_put((centre, np.linalg.cholesky(whole))))


def plateau_frames(
    posterior: Posterior, fit: Fit, noise_scale: float, modes: Sequence[int], seed: int
) -> list[Frame]:
    """Frames of the regions that may hold posterior mass.

    In each region the parameters that are seen are fitted, the hidden ones held.

    Args:
        posterior: Map and priors.
        fit: The fit.
        noise_scale: Estimate of sigma that scales its prior.
        modes: Ranks of its modes, from which the fits start.
        seed: Seed of the draws from the priors.
    """
    problem = fit.problem
    plateaus = list(_plateaus(problem, fit.parameters, seed))
    if not plateaus:
        return []
    tried = [(plateau, fit.modes.y[rank]) for plateau in plateaus for rank in modes[:_MODES]]
    chosen = [plateau for plateau, _ in tried]
    starts = np.stack([plateau.on(y) for plateau, y in tried])
    coarse = coarsened(problem)
    if coarse is not problem:
        seen = _fitted(coarse, np.concatenate([fit.modes.y[:1], starts]), [None, *chosen])
        near = _excess(coarse, seen.squares[1:], seen.squares[0]) <= _EXCESS
        chosen = [plateau for plateau, kept in zip(chosen, near, strict=True) if kept]
        starts = seen.y[1:][near]
    if not chosen:
        return []
    found = _fitted(problem, starts, chosen)
    near = _excess(problem, found.squares, fit.modes.squares[0]) <= _EXCESS
    there = replace(fit, modes=found)
    frames: list[Frame] = []
    for rank in np.flatnonzero(near).tolist():
        frame = chosen[rank].spread(mode_frame(posterior, there, noise_scale, rank))
        if apart(frame, frames):
            frames.append(frame)
    return frames


def _plateaus(problem: Problem, parameters: FloatArray, seed: int) -> Iterator[_Plateau]:
    """Regions of which the priors hold enough; the other parameters do not matter."""
    coordinates, space = problem.coordinates, problem.coordinates.space
    rng = np.random.default_rng((seed, 4))
    times = problem.fitted_times
    ends = times[times > 0][[0, -1]]
    for region in _REGIONS:
        free = [name for name in region.hidden if space[name].vary]
        drawn = draw_columns(space, region.hidden, rng, _DRAWN)
        inside = drawn[region.holds(dict(zip(region.hidden, drawn.T, strict=True)), ends)]
        if not free or len(inside) < _FEWEST:
            continue
        rows = np.tile(parameters, (_KEPT, 1))
        places = [PHYSICS_PARAM_NAMES.index(name) for name in region.hidden]
        rows[:, places] = np.resize(inside, (_KEPT, len(places)))
        held = np.array([coordinates.names.index(name) for name in free])
        points = to_coordinates(coordinates.inside(rows), coordinates)[: len(inside), held]
        yield _summarised(held, points)


def _summarised(held: IntArray, points: FloatArray) -> _Plateau:
    mean = points.mean(axis=0)
    # Few draws leave directions out.
    width = points.std(axis=0) + 1e-12
    share = len(points) / (len(points) + 2.0 * len(held))
    covariance = share * np.cov(points, rowvar=False).reshape(len(held), len(held))
    covariance += (1.0 - share) * np.diag(width**2)
    distance = np.linalg.solve(np.linalg.cholesky(covariance), (points - mean).T)
    inner = points[np.argmin((distance**2).sum(axis=0))]
    return _Plateau(held, inner, mean, covariance)


def _fitted(problem: Problem, starts: FloatArray, plateaus: Sequence[_Plateau | None]) -> Solutions:
    held = np.zeros(starts.shape, bool)
    for row, plateau in zip(held, plateaus, strict=True):
        if plateau is not None:
            row[plateau.held] = True
    return solve(
        problem,
        starts,
        prior_weight=1.0,
        max_iterations=_ITERATIONS,
        tolerance=_TOLERANCE,
        held=held,
    )


def _excess(problem: Problem, squares: FloatArray, best: float) -> FloatArray:
    """Chi-square above a sum of squares."""
    return problem.n_pairs * np.log(squares / best)
