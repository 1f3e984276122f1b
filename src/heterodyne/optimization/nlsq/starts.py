"""Starting points: the user's values, and random ones scaled by the data."""

from __future__ import annotations

import numpy as np

from heterodyne._typing import FloatArray, JaxArray
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.core._jax import RUNS_ONCE, jax
from heterodyne.core.kept import kept
from heterodyne.core.likelihood import PairData
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.prior import draw_prior
from heterodyne.optimization.problem import Problem


def decay_lag(data: PairData) -> float:
    """Lag in frames at which the correlation has lost 1 - 1/e of its range."""
    by_angle = np.asarray(data.lag_mean)[:, 1:]
    # Few pairs, as in a shard, may leave out a lag.
    known = np.flatnonzero(np.isfinite(by_angle).any(axis=0))
    curve = np.nanmean(by_angle[:, known], axis=0)
    low, high = np.quantile(curve, 0.05), float(curve[0])
    below = np.flatnonzero(curve < low + (high - low) / np.e)
    return float(known[below[0]] + 1) if below.size else float(by_angle.shape[1]) / 2.0


def starting_points(problem: Problem, count: int, rng: np.random.Generator) -> FloatArray:
    """Choose coordinates to start from.

    The first start holds the values of the parameter space. Half of the others are drawn
    from the priors, which know of fractions that stay at a bound. The rest draw both
    transport rates around the decay seen in the data, exponents around 0, a velocity
    that turns the phase by 1 rad over the window to half a turn in each frame, and a
    sample fraction that changes by up to 0.6.

    Args:
        problem: Data, coordinates and scaling.
        count: Number of points, at least 1.
        rng: Random numbers.

    Returns:
        Coordinates, shape (count, p).
    """
    space = problem.coordinates.space
    points = np.tile([space[n].value for n in PHYSICS_PARAM_NAMES], (count, 1))
    of_data = 1 + count // 2
    drawn = _draw(problem.data, of_data - 1, rng)
    for k, name in enumerate(PHYSICS_PARAM_NAMES):
        points[1:of_data, k] = drawn[name]
        points[of_data:, k] = draw_prior(space[name], rng, count - of_data)
    return to_coordinates(problem.coordinates.inside(points), problem.coordinates)


def to_coordinates(parameters: FloatArray, coordinates: PhysicsCoordinates) -> FloatArray:
    """Map parameters inside their bounds, shape (n, 14), to coordinates, shape (n, p)."""
    return np.asarray(_inverse(parameters, coordinates))


@kept("coordinates", compiler_options=RUNS_ONCE)
def _inverse(points: JaxArray, coordinates: PhysicsCoordinates) -> JaxArray:
    return jax.vmap(coordinates.inverse)(points)


def _draw(data: PairData, count: int, rng: np.random.Generator) -> dict[str, FloatArray]:
    q, dt = float(data.q), float(data.dt)
    t = np.asarray(data.t)[np.asarray(data.mask) > 0]
    t_mid, window = float(np.exp(np.log(t).mean())), float(t[-1] - t[0])
    rate = 1.0 / (q**2 * decay_lag(data) * dt)
    values: dict[str, FloatArray] = {}
    for component in ("ref", "sample"):
        alpha = rng.normal(scale=0.5, size=count)
        level = rate * np.exp(rng.normal(scale=1.2, size=count))
        values[f"alpha_{component}"] = alpha
        values[f"D0_{component}"] = level * t_mid**-alpha
        values[f"D_offset_{component}"] = np.zeros(count)
    beta = rng.normal(scale=0.4, size=count)
    turn = np.exp(rng.uniform(0.0, np.log(np.pi * max(window / dt, 2.0)), size=count))
    values |= {"v0": turn / (q * window) * t_mid**-beta, "beta": beta, "v_offset": 0.0 * beta}
    middle = rng.uniform(0.15, 0.85, size=count)
    change = rng.uniform(-0.6, 0.6, size=count)
    amplitude = middle * rng.uniform(0.3, 0.9, size=count)
    return values | {
        "f0": amplitude,
        "f1": change / (amplitude * window),
        "f2": np.full(count, t.mean()),
        "f3": middle - amplitude,
        "phi0": rng.normal(scale=2.0, size=count),
    }
