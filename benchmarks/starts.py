"""How often least squares ends at the best sum of squares from starts that are off.

Run as ``python -m benchmarks.starts [FIRST_SEED [COUNT]]``: each data set is fitted from
100 starts whose parameters are the true ones times log-normal factors of width 0.25.
"""

from __future__ import annotations

import sys

import numpy as np

from benchmarks.recovery import draw_experiment, recover
from heterodyne.optimization.nlsq.solve import solve
from heterodyne.optimization.nlsq.starts import to_coordinates

STARTS, WIDTH = 100, 0.25


def share(seed: int) -> float:
    """Share of the starts that end within 0.01 in chi-square of the best fit known."""
    experiment, *_ = draw_experiment(seed)
    outcome = recover(seed)
    problem, coordinates = outcome.fit.problem, outcome.fit.problem.coordinates
    rng = np.random.default_rng(seed)
    factors = np.exp(WIDTH * rng.normal(size=(STARTS, len(experiment.parameters))))
    starts = to_coordinates(coordinates.inside(experiment.parameters * factors), coordinates)
    found = solve(problem, starts, prior_weight=0.0, max_iterations=200, tolerance=1e-4)
    best = min(outcome.fitted, float(found.squares.min()))
    return float(np.mean((found.squares - best) / outcome.sigma**2 < 0.01))


def main(first: int = 0, count: int = 5) -> None:
    """Print the share for each data set."""
    for seed in range(first, first + count):
        print(f"seed {seed}: {share(seed):.0%} of {STARTS} starts", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
