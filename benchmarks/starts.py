"""How often least squares ends at the best sum of squares from starts that are off.

Run as ``python -m benchmarks.starts [FIRST_SEED [COUNT [STARTS]]]``: each data set is fitted
from starts whose parameters are the true ones times log-normal factors of width 0.25. Two
shares are printed: that of the fit as users call it, which searches from the start given and
from many others, and that of its last stage alone, a descent from the start given.
"""

from __future__ import annotations

import sys
from unittest import mock

import numpy as np

from benchmarks.recovery import draw_experiment, recover
from heterodyne._typing import FloatArray
from heterodyne.optimization.nlsq import search
from heterodyne.optimization.nlsq.core import fit_problem
from heterodyne.optimization.nlsq.solve import solve
from heterodyne.optimization.nlsq.starts import starting_points, to_coordinates
from heterodyne.optimization.problem import Problem

STARTS, WIDTH = 100, 0.25
# Distance from the best sum of squares known, in units of chi-square, that counts as reached.
REACHED = 0.01


def shares(seed: int, count: int = STARTS) -> tuple[float, float]:
    """Shares of starts from which the fit, and the descent alone, reach the best fit known."""
    experiment, *_ = draw_experiment(seed)
    outcome = recover(seed)
    problem, coordinates = outcome.fit.problem, outcome.fit.problem.coordinates
    rng = np.random.default_rng(seed)
    factors = np.exp(WIDTH * rng.normal(size=(count, len(experiment.parameters))))
    points = coordinates.inside(experiment.parameters * factors)
    starts = to_coordinates(points, coordinates)
    descended = solve(problem, starts, prior_weight=0.0, max_iterations=200, tolerance=1e-4).squares
    fitted = np.array([_fitted(problem, row) for row in starts])
    best = min(outcome.fitted, float(descended.min()), float(fitted.min()))
    whole, alone = (
        float(np.mean((x - best) / outcome.sigma**2 < REACHED)) for x in (fitted, descended)
    )
    return whole, alone


def _fitted(problem: Problem, start: FloatArray) -> float:
    """Sum of squares of the fit that starts at coordinates, shape (p,)."""

    def points(problem: Problem, count: int, rng: np.random.Generator) -> FloatArray:
        return np.concatenate([start[None], starting_points(problem, count, rng)[1:]])

    # Start values are part of what code is compiled for, which would take longer than the fit.
    with mock.patch.object(search, "starting_points", points):
        return float(fit_problem(problem).least_squares.squares[0])


def main(first: int = 0, count: int = 4, starts: int = STARTS) -> None:
    """Print the shares for each data set."""
    for seed in range(first, first + count):
        whole, alone = shares(seed, starts)
        print(f"seed {seed}: {whole:.0%} of {starts} fits, {alone:.0%} of descents", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
