"""What NUTS would gain without contrast and offset: ``python -m benchmarks linear``."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np

from benchmarks import recovery
from benchmarks.performance import Section, machine
from heterodyne._typing import FloatArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.core.simulate import simulate_pairs
from heterodyne.optimization.cmc._analysis import analyse
from heterodyne.optimization.nlsq.core import Fit, fit_problem
from heterodyne.optimization.problem import Problem
from heterodyne.optimization.scaling import Scaling, ScalingMode

SEEDS, N_FRAMES = (0, 1, 2), 200
SAMPLED, HELD = "sampled", "held"
COLUMNS = (
    "data set", "contrast and offset", "gradients", "min bulk ESS", "ESS/gradient", "seconds",
    "R-hat", "gain per gradient",
)  # fmt: skip
TEXT = (
    "NUTS with contrast and offset of each of 3 angles sampled, and with them held at the fit, on "
    "{frames} frames with independent errors. Held they have no share in the geometry and cost "
    "nothing, while integrating them out costs something, so that the gain is about the most that "
    "this can bring. It is at most **{most:.2f}**, so NUTS samples them. Importance and ensemble "
    "sampling, which no gradient guides, integrate them out. ESS is "
    "the smallest of all quantities but these; gradients are those of the draws; whole analyses "
    "are timed, run twice, of which the second counts. Machine: {machine}; load average "
    "{load:.1f} at the start."
)


@dataclass(frozen=True)
class Run:
    """What a run of NUTS took, and what came out."""

    gradients: int
    ess: float
    seconds: float
    r_hat: float

    @property
    def per_gradient(self) -> float:
        """Smallest effective number of draws for a gradient."""
        return self.ess / self.gradients


def held(fit: Fit) -> Problem:
    """The problem of a fit with contrast and offset held there."""
    free, k = fit.problem, fit.problem.data.n_angles
    given = {
        name: [fit.result.get_param(f"{name}_{angle}") for angle in range(k)]
        for name in ("contrast", "offset")
    }
    space = free.coordinates.space
    scaling = Scaling.of(ScalingMode.CONSTANT, space, k, **given)
    return Problem(free.data, free.coordinates, scaling)


def sampled(fit: Fit, c2: FloatArray) -> Run:
    """Draw by NUTS, and a second time with compiled code."""
    for _ in range(2):
        started = time.perf_counter()
        found = analyse(fit, c2, CMCConfig(), engine="nuts")
        seconds = time.perf_counter() - started
    assert found.draws.trajectories is not None
    ess = [x for n, x in found.diagnosis.ess_bulk.items() if not n.startswith(("contrast", "off"))]
    gradients = int(np.sum(found.draws.trajectories.n_gradients))
    return Run(gradients, float(np.nanmin(ess)), seconds, found.diagnosis.worst_r_hat[1])


def section() -> Section:
    """Measure all data sets."""
    load, rows, gains = os.getloadavg()[0], [], []
    recovery.N_FRAMES = N_FRAMES
    for seed in SEEDS:
        experiment, contrast, offset, sigma = recovery.draw_experiment(seed)
        c2 = simulate_pairs(experiment, contrast, offset, sigma, seed)
        fit = fit_problem(recovery.bound(experiment, c2))
        runs = {SAMPLED: sampled(fit, c2), HELD: sampled(fit_problem(held(fit)), c2)}
        gains.append(runs[HELD].per_gradient / runs[SAMPLED].per_gradient)
        for name, run in runs.items():
            gain = f"{gains[-1]:.2f}" if name == HELD else "1"
            rows.append(
                [str(seed), name, f"{run.gradients:,}", f"{run.ess:.0f}",
                 f"{run.per_gradient:.4f}", f"{run.seconds:.1f}", f"{run.r_hat:.3f}", gain]
            )  # fmt: skip
            print(" | ".join(rows[-1]), flush=True)
    text = TEXT.format(frames=N_FRAMES, most=max(gains), machine=machine(), load=load)
    return Section("Linear parameters in NUTS", text, COLUMNS, rows)
