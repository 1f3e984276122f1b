"""Global search: screen many points, optimise the best, look around the results.

The phase of the moving component makes the sum of squares a landscape of many minima,
and exchanging the two components or turning the phase by 2 pi leads from one to another.
Evaluating a batch of points is a matrix product, so screening is cheap.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from heterodyne._events import EventSink, Progress, ignore_events
from heterodyne._typing import FloatArray, JaxArray
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.core._jax import RUNS_ONCE, jax
from heterodyne.core.kept import kept
from heterodyne.core.likelihood import PairData
from heterodyne.optimization.coordinates.curves import EXPONENTS, OFFSETS, PREFACTORS
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.nlsq.band import compile_band
from heterodyne.optimization.nlsq.coarse import coarsened
from heterodyne.optimization.nlsq.config import NLSQConfig
from heterodyne.optimization.nlsq.derivatives import compile_derivatives, objective_value
from heterodyne.optimization.nlsq.solve import Solutions, solve
from heterodyne.optimization.nlsq.starts import starting_points, to_coordinates
from heterodyne.optimization.nlsq.turns import turned_points
from heterodyne.optimization.problem import Problem
from heterodyne.optimization.scaling import Scaling

_ROUND_ITERATIONS = 12
_BATCH = 8
# Modes of averaged frames that are optimised on all pairs.
_MODES = 8
# Chi-square of averaged frames above the best mode, also as a share of the pairs, up to which a
# mode is optimised on all pairs.
_EXCESS, _SHARE = 300.0, 0.05
# A fraction that would be so much is well above 1, where it is clipped.
_ABOVE = 1.1
_LARGEST_GROWTH = 100.0
_INDEX = {name: k for k, name in enumerate(PHYSICS_PARAM_NAMES)}


@kept("coordinates", "scaling")
def _screen(
    points: JaxArray, data: PairData, coordinates: PhysicsCoordinates, scaling: Scaling
) -> JaxArray:
    def value(y: JaxArray) -> JaxArray:
        return objective_value(y, data, coordinates, scaling)

    return jax.lax.map(value, points, batch_size=_BATCH)


def search(problem: Problem, config: NLSQConfig, on_event: EventSink = ignore_events) -> Solutions:
    """Find the posterior modes that compete, best first.

    Many frames are averaged for the search; the modes found are then optimised on all pairs.

    Args:
        problem: Data, coordinates and scaling.
        config: Counts and seed.
        on_event: Receives the progress.

    Returns:
        The best ``n_starts`` distinct and indistinct points of the last round, fewer of
        averaged frames.
    """
    coarse = coarsened(problem)
    _compile(problem, coarse)
    total = config.n_rounds + 1 if coarse is problem else config.n_rounds + 2
    found = _explored(coarse, config, lambda k: on_event(Progress("search", k, total)))
    if coarse is not problem:
        on_event(Progress("search", total - 1, total))
        near = _near(found, coarse)
        starts = np.concatenate([distinct(near, _MODES), near.y])[:_MODES]
        found = _polished(problem, _off_walls(problem, starts), config, config.max_iterations)
        # On averaged frames a phase that turns faster looks as a slower one.
        turned = _turned_points(problem, found)
        if len(turned):
            starts = np.concatenate([turned, found.y])[:_MODES]
            again = _polished(problem, _off_walls(problem, starts), config, config.max_iterations)
            found = Solutions(*map(np.concatenate, zip(found, again, strict=True)))
    on_event(Progress("search", total, total))
    return found.best(config.n_starts)


def _near(found: Solutions, problem: Problem) -> Solutions:
    """Leave out modes so far from the best one that no error of averages explains it."""
    allowed = max(_EXCESS, _SHARE * problem.n_pairs)
    rows = np.flatnonzero(found.score <= found.score.min() + allowed)
    return Solutions(*(column[rows] for column in found))


def compile_search(problem: Problem) -> None:
    """Have the code of ``search`` compiled in the background.

    Args:
        problem: As it will be given.
    """
    _compile(problem, coarsened(problem))


def _compile(problem: Problem, coarse: Problem) -> None:
    for each in (coarse,) if coarse is problem else (coarse, problem):
        compile_derivatives(each)
        compile_band(each.data)


def _explored(problem: Problem, config: NLSQConfig, on_round: Callable[[int], None]) -> Solutions:
    """Screen and optimise in rounds; ``on_round`` receives how many have ended."""
    rng = np.random.default_rng(config.seed)
    points = starting_points(problem, config.n_candidates, rng)
    kept = points[:1]
    found: Solutions | None = None
    for k in range(config.n_rounds):
        on_round(k)
        values = np.nan_to_num(
            np.asarray(_screen(points, problem.data, problem.coordinates, problem.scaling)),
            nan=np.inf,
        )
        starts = np.concatenate([kept, points[np.argsort(values)]])[: config.n_starts]
        found = solve(
            problem,
            _off_walls(problem, problem.coordinates.ridge_centred(starts)),
            prior_weight=1.0,
            max_iterations=_ROUND_ITERATIONS,
            tolerance=config.tolerance,
        )
        best = distinct(found, max(1, config.n_starts // 4))
        points = _neighbours(problem, best, config.n_candidates, rng)
        # Screening never prefers the other assignment of the components, nor a fraction that
        # stays at 1, which need some steps before they are the better ones.
        kept = np.concatenate(
            [
                best,
                _turned_points(problem, found),
                _exchanged_points(problem, best),
                _saturated_points(problem, best),
            ]
        )
    on_round(config.n_rounds)
    assert found is not None
    starts = problem.coordinates.ridge_centred(found.best(config.n_starts).y)
    final = _polished(problem, starts, config, 2 * _ROUND_ITERATIONS)
    # A long step may end so deep in a wall that no gradient leads back.
    off_walls = _off_walls(problem, final.y)
    return _lower(final, _polished(problem, off_walls, config, config.max_iterations))


def _polished(
    problem: Problem, starts: FloatArray, config: NLSQConfig, max_iterations: int
) -> Solutions:
    return solve(
        problem,
        starts,
        prior_weight=1.0,
        max_iterations=max_iterations,
        tolerance=config.tolerance,
        batch=min(_MODES, config.n_starts),
    )


def _off_walls(problem: Problem, y: FloatArray) -> FloatArray:
    """Move points that have come too close to a bound off it, shape (n, p)."""
    parameters = np.asarray(_parameters(y, problem.coordinates))
    return to_coordinates(problem.coordinates.inside(parameters), problem.coordinates)


@kept("coordinates", compiler_options=RUNS_ONCE)
def _parameters(y: JaxArray, coordinates: PhysicsCoordinates) -> JaxArray:
    return jax.vmap(lambda row: coordinates.forward(row)[0])(y)


def _lower(first: Solutions, second: Solutions) -> Solutions:
    """Take for each start the better solution."""
    better = second.score < first.score
    return Solutions(
        *(
            np.where(better.reshape(-1, *[1] * (x.ndim - 1)), y, x)
            for x, y in zip(first, second, strict=True)
        )
    )


def distinct(found: Solutions, count: int) -> FloatArray:
    """The best points whose scores differ by more than 1 in chi-square, (n, p)."""
    chosen: list[int] = []
    for k in np.argsort(found.score):
        if not np.isfinite(found.score[k]):
            break
        if all(abs(found.score[k] - found.score[j]) > 1.0 for j in chosen):
            chosen.append(int(k))
        if len(chosen) == count:
            break
    return found.y[chosen or [0]]


def _neighbours(
    problem: Problem, centres: FloatArray, count: int, rng: np.random.Generator
) -> FloatArray:
    """Draw points around each centre: at all distances, a turn away, or exchanged."""
    coordinates = problem.coordinates
    each = -(-count // centres.shape[0])
    y = np.zeros((centres.shape[0], each, len(PHYSICS_PARAM_NAMES)))
    y[..., coordinates.indices] = centres[:, None]
    y = y.reshape(-1, y.shape[-1])
    distance = np.exp(rng.uniform(np.log(0.03), 0.0, size=(y.shape[0], 1)))
    moved = y + distance * rng.normal(size=y.shape) * _spread(y, problem)
    level = _INDEX["v_offset"]
    t = np.asarray(problem.data.t)
    window = float(t[-1] - t[0])
    turns = rng.integers(-2, 3, size=y.shape[0]) * (rng.uniform(size=y.shape[0]) < 0.5)
    moved[:, level] += 2.0 * np.pi * turns / (float(problem.data.q) * window)
    if len(coordinates.names) == len(PHYSICS_PARAM_NAMES):
        exchange = rng.uniform(size=y.shape[0]) < 0.15
        moved = np.where(exchange[:, None], _exchanged(moved), moved)
    return moved[:, coordinates.indices][:count]


def _exchanged_points(problem: Problem, y: FloatArray) -> FloatArray:
    """Points with the two components exchanged, none where a parameter is fixed."""
    complete = problem.coordinates.size == len(PHYSICS_PARAM_NAMES)
    return _exchanged(y) if complete else y[:0]


def _turned_points(problem: Problem, found: Solutions) -> FloatArray:
    """Points with a phase that the best solution has missed, none where nothing shows."""
    best = int(np.argmin(found.score))
    if not np.isfinite(found.score[best]):
        return found.y[:0]
    parameters = np.asarray(_parameters(found.y, problem.coordinates))[best]
    points = turned_points(problem, parameters, found.contrast[best], found.offset[best])
    if not len(points):
        return found.y[:0]
    # Code for as many points as were found exists.
    filled = np.resize(points, (len(found.y), parameters.size))
    return to_coordinates(filled, problem.coordinates)[: len(points)]


def _saturated_points(problem: Problem, y: FloatArray) -> FloatArray:
    """Points whose fraction is raised until it stays at 1, as far as the bounds allow."""
    parameters = np.array(_parameters(y, problem.coordinates))
    f0, f1, f2, f3 = (parameters[:, _INDEX[name]] for name in ("f0", "f1", "f2", "f3"))
    times = problem.fitted_times[[0, -1]]
    growing = f0 * np.exp(np.minimum(f1 * (times[:, None] - f2), _LARGEST_GROWTH)).min(axis=0)
    missing = np.log(np.maximum(_ABOVE - f3, 0.1) / np.maximum(growing, 1e-300))
    steep = np.abs(f1) * (times[1] - times[0]) > 0.1
    parameters[:, _INDEX["f2"]] -= np.where(steep, missing / np.where(steep, f1, 1.0), 0.0)
    parameters[:, _INDEX["f0"]] *= np.where(steep, 1.0, np.exp(missing))
    return to_coordinates(problem.coordinates.inside(parameters), problem.coordinates)


def _spread(y: FloatArray, problem: Problem) -> FloatArray:
    """Size of a large change of each coordinate, shape (n, 14)."""
    sheared = problem.coordinates.curves.sheared
    spread = np.zeros_like(y)
    for k in range(4):
        level = np.abs(y[:, _INDEX[OFFSETS[k]]]) if k < 3 else np.full(y.shape[0], 0.4)
        if not sheared[k]:
            level = np.maximum(level, np.exp(np.minimum(y[:, _INDEX[PREFACTORS[k]]], 30.0)))
        per_unit = level if k < 3 else level / problem.coordinates.mid_time
        spread[:, _INDEX[PREFACTORS[k]]] = 1.0
        spread[:, _INDEX[EXPONENTS[k]]] = 0.6 * per_unit if sheared[k] else 0.6
        spread[:, _INDEX[OFFSETS[k]]] = 0.6 * level
    spread[:, _INDEX["phi0"]] = 3.0
    return spread


def _exchanged(y: FloatArray) -> FloatArray:
    """Exchange the two components; the fraction becomes 1 - s to first order."""
    swapped = y.copy()
    for names in (PREFACTORS, EXPONENTS, OFFSETS):
        first, second = _INDEX[names[0]], _INDEX[names[1]]
        swapped[:, [first, second]] = y[:, [second, first]]
    swapped[:, _INDEX["f3"]] = 1.0 - y[:, _INDEX["f3"]]
    swapped[:, _INDEX["f1"]] = -y[:, _INDEX["f1"]]
    return swapped
