"""Coverage of intervals on simulated speckle data, for plain and corrected errors.

Run ``python -m benchmarks.coverage [repeats]``. Each repeat simulates a two-time matrix,
fits it by least squares from the truth and asks whether the truth lies in the intervals:
plain ones, for independent pairs, and ones with the covariance of speckle noise.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from heterodyne._typing import FloatArray
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core.likelihood import pack_pairs
from heterodyne.core.simulate import Detector, Experiment, simulate_speckles
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.nlsq.solve import solve
from heterodyne.optimization.problem import Problem
from heterodyne.optimization.sandwich import SpeckleNoise, score_covariance, speckle_noise
from heterodyne.optimization.scaling import Scaling, ScalingMode

TRUTH = {"D0_ref": 2e4, "v0": 300.0, "f0": 0.4, "f2": 0.0}
VARYING = ("D0_ref", "v0", "f0")
MODES, PIXELS, FRAMES = 5, 400, 150
PHOTONS = (None, 10.0, 1.0, 0.1)
# Intervals of these half widths, in standard errors, hold 68 % and 95 %.
HALF_WIDTHS = (0.9945, 1.96)


@dataclass(frozen=True)
class Study:
    """A stationary experiment of three parameters, with contrast and offset."""

    experiment: Experiment
    coordinates: PhysicsCoordinates
    scaling: Scaling

    @classmethod
    def of(cls) -> Study:
        """Set it up."""
        space = ParameterSpace().with_values(TRUTH)
        space = space.fix(*(n for n in PHYSICS_PARAM_NAMES if n not in VARYING))
        parameters = np.array([space[n].value for n in PHYSICS_PARAM_NAMES])
        experiment = Experiment(parameters, FRAMES, 0.1, 0.0054, (0.0,))
        coordinates = PhysicsCoordinates.of(space, experiment.t)
        return cls(experiment, coordinates, Scaling.of(ScalingMode.AVERAGED, space, 1))

    @property
    def truth(self) -> FloatArray:
        """Coordinates, contrast and offset that were simulated, shape (5,)."""
        y = np.asarray(self.coordinates.inverse(self.experiment.parameters))
        return np.concatenate([y, [1.0 / MODES, 1.0]])


class Repeat(NamedTuple):
    """One fit: errors of the estimates and their standard errors, shape (5,) each.

    The corrected ones are computed with the shot noise read off the diagonal, and with the
    shot noise estimated from neighbouring pairs.
    """

    error: FloatArray
    plain: FloatArray
    raw: FloatArray
    neighbours: FloatArray
    speckles: float
    likely: bool


def repeat(study: Study, photons: float | None, seed: int) -> Repeat:
    """Simulate and fit one matrix."""
    e = study.experiment
    c2 = simulate_speckles(e, Detector(PIXELS, MODES, photons), seed)
    data = pack_pairs(c2, e.t, e.q, e.dt, e.phi)
    problem = Problem(data, study.coordinates, study.scaling)
    start = study.truth[None, : study.coordinates.size]
    fit = solve(problem, start, prior_weight=0.0, max_iterations=100, tolerance=1e-4)
    y, contrast, offset = fit.y[0], fit.contrast[0], fit.offset[0]
    inverse = np.linalg.inv(fit.information[0])

    def corrected(noise: SpeckleNoise) -> FloatArray:
        variance = score_covariance(problem, y, contrast, noise)
        return np.sqrt(np.diagonal(inverse @ variance @ inverse))

    raw, neighbours = (
        speckle_noise(problem, y, contrast, offset, c2, diagonal_is_raw=known)
        for known in (True, False)
    )
    return Repeat(
        np.concatenate([y, contrast, offset]) - study.truth,
        np.sqrt(np.diagonal(inverse) * fit.squares[0] / problem.degrees_of_freedom),
        corrected(raw),
        corrected(neighbours),
        raw.effective_speckles[0],
        raw.likely,
    )


def _percent(shares: FloatArray) -> str:
    return " ".join(f"{100 * x:4.0f}" for x in shares)


def report(study: Study, photons: float | None, repeats: int) -> str:
    """Return the coverage at one photon level as lines of text."""
    runs = [repeat(study, photons, seed) for seed in range(repeats)]
    columns = [np.array(column) for column in zip(*runs, strict=True)]
    error, *widths, speckles, likely = columns
    level = "no shot noise" if photons is None else f"{photons:g} photons"
    lines = [
        f"{level}: median P {np.median(speckles):.0f} of {PIXELS} pixels, "
        f"speckle noise seen in {100 * likely.mean():.0f} % of the fits"
    ]
    names = ("plain", "corrected, raw diagonal", "corrected, neighbours")
    for name, width in zip(names, widths, strict=True):
        covered = [(np.abs(error) < z * width).mean(0) for z in HALF_WIDTHS]
        ratio = np.sqrt((error**2).mean(0)) / np.median(width, 0)
        lines.append(
            f"  {name:<24} 68 %: {_percent(covered[0])}   95 %: {_percent(covered[1])}"
            f"   true / reported: {' '.join(f'{x:5.2f}' for x in ratio)}"
        )
    return "\n".join(lines)


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 80
    study = Study.of()
    names = ", ".join((*study.coordinates.names, *study.scaling.names))
    sys.stdout.write(f"{FRAMES} frames, {MODES} modes, {repeats} repeats; coverage of {names}\n")
    for photons in PHOTONS:
        sys.stdout.write(report(study, photons, repeats) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
