"""Whether runs tell a model that fits from one that does not, under speckle noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.performance import Section, machine
from benchmarks.recovery import ANGLES, bound, draw_experiment
from heterodyne._typing import FloatArray
from heterodyne.core.simulate import Detector, Experiment, simulate_speckles
from heterodyne.optimization.cmc._analysis import NoiseSettings, estimate_noise
from heterodyne.optimization.cmc._verdict import SYSTEMATIC
from heterodyne.optimization.nlsq.core import fit_problem

DETECTOR = Detector(n_pixels=2000, n_modes=5)
# What a user may have got wrong.
MODELS = {
    "right": ANGLES,
    "angles in reverse": ANGLES[::-1],
    "angles in radians": tuple(np.deg2rad(ANGLES).tolist()),
}


def misfit(experiment: Experiment, c2: FloatArray) -> float:
    """Fit data and return by how much residuals exceed what speckles leave."""
    noise = estimate_noise(fit_problem(bound(experiment, c2)), c2, NoiseSettings(True))
    return noise.misfit if noise.likely else float("nan")


def section(count: int = 12) -> Section:
    """Misfits of random truths, for the right model and for wrong ones."""
    lines, found = [], []
    for seed in range(count):
        experiment, *_ = draw_experiment(seed)
        c2 = simulate_speckles(experiment, DETECTOR, seed)
        found.append([misfit(replace(experiment, phi=phi), c2) for phi in MODELS.values()])
        lines.append([f"{seed}", *(f"{x:.1f}" for x in found[-1])])
        print(" ".join(lines[-1]), flush=True)
    flagged = np.mean(np.array(found) > SYSTEMATIC, axis=0)
    shares = ", ".join(f"{name} {x:.0%}" for name, x in zip(MODELS, flagged, strict=True))
    return Section(
        "Models that do not fit",
        f"{count} random truths, {len(ANGLES)} angles of 200 frames, {DETECTOR.n_pixels} pixels, "
        f"{DETECTOR.n_modes} modes ({machine()}). Standard deviations by which the share of "
        "residuals that depends on the lag alone exceeds that of simulated speckles; above "
        f"{SYSTEMATIC:g} a run says that the model does not fit: **{shares}**. Angles matter as "
        "far as the flow is seen; where it is not, another model describes the data as well.",
        ["seed", *MODELS],
        lines,
    )
