"""One small data set of two angles with known truth, for the documented functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heterodyne.config.cmc import CMCConfig
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core.heterodyne_model import HeterodyneModel
from heterodyne.core.simulate import Experiment, simulate_pairs
from heterodyne.optimization.nlsq.results import NLSQResult
from heterodyne.optimization.scaling import ScalingMode

Q, DT, N, ANGLES = 0.0054, 0.1, 30, [-30.0, 15.0]
TRUTH = np.array([8e3, 0.5, 1e3, 2.5e4, -0.4, 2e3, 300.0, 0.3, 20.0, 0.3, 0.25, 4.0, 0.2, 3.0])
TRUE = dict(zip(PHYSICS_PARAM_NAMES, TRUTH.tolist(), strict=True))
FREE = ("D0_ref", "v0")
NAMES = [*FREE, "contrast_0", "contrast_1", "offset_0", "offset_1"]
SCALES = {"contrast_0": 0.2, "contrast_1": 0.3, "offset_0": 1.0, "offset_1": 1.02}
SIGMA = 0.01
SMALL = CMCConfig(
    num_chains=2, num_warmup=150, num_samples=300, dense_mass=False, adaptive_sampling=False,
    enable_checkpoints=False,
)  # fmt: skip


def simulate(angles):
    experiment = Experiment(TRUTH, N, DT, Q, angles)
    contrast, offset = np.linspace(0.2, 0.3, len(angles)), np.linspace(1.0, 1.02, len(angles))
    return simulate_pairs(experiment, contrast, offset, SIGMA, seed=1)


def make_model(start=TRUE):
    space = ParameterSpace().with_values(start)
    space = space.fix(*(name for name in PHYSICS_PARAM_NAMES if name not in FREE))
    return HeterodyneModel(DT * np.arange(1.0, N + 1.0), Q, DT, space)


@dataclass
class StopError(Exception):
    """What the entry point hands to the engine."""

    problem: object
    mode: ScalingMode


def fit_result(sigma=0.01, success=True, **values):
    return NLSQResult(
        np.array(list(values.values())), tuple(values), None, None, success, sigma=sigma
    )
