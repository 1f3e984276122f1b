"""Posterior of a measured two-time matrix from NSLS-II CHX, as far as it is at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from heterodyne.config.cmc import CMCConfig
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core.likelihood import pack_pairs
from heterodyne.optimization.cmc._analysis import NoiseSettings, analyse
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.nlsq.config import NLSQConfig
from heterodyne.optimization.nlsq.core import fit_problem
from heterodyne.optimization.problem import Problem
from heterodyne.optimization.scaling import Scaling, ScalingMode

BLOCKS = Path(__file__).parents[2].parent / "shared" / "data" / "chx_twotime_blocks.npz"
pytestmark = pytest.mark.skipif(not BLOCKS.exists(), reason="the measured data are not at hand")
# One component without flow, and without an offset of J: 50 frames do not tell both.
SPACE = ParameterSpace.from_config(
    {
        "D0_ref": {"min": 1e-3, "max": 1e8, "prior": {"mean": 1e3, "std": 1e5}},
        "f0": 0.0,
        "contrast": {"max": 3.0, "prior": {"mean": 1.0, "std": 1.0}},
    }
).fix(*(n for n in PHYSICS_PARAM_NAMES if n not in ("D0_ref", "alpha_ref")))


FEW_DRAWS = CMCConfig(num_warmup=200, num_samples=200)


def test_draws_of_a_measured_block_surround_its_fit():
    with np.load(BLOCKS) as archive:
        c2 = np.asarray(archive["m55yp9kzm2_8"][0], float)[None]
    n = c2.shape[-1]
    times = np.arange(1.0, n + 1.0)
    problem = Problem(
        pack_pairs(c2, times, 0.01, 1.0, [0.0]),
        PhysicsCoordinates.of(SPACE, times),
        Scaling.of(ScalingMode.INDIVIDUAL, SPACE, 1),
    )
    fit = fit_problem(problem, NLSQConfig(n_starts=4, n_candidates=256, n_rounds=1))
    analysis = analyse(fit, c2, FEW_DRAWS, NoiseSettings(None))
    rows = {row.name: row for row in analysis.rows}
    assert analysis.diagnosis.worst_r_hat[1] < 1.05
    assert rows["sigma"].low < fit.sigma < rows["sigma"].high
    for name, (value, _) in fit.result.derived.items():
        if name.startswith("J_ref"):
            assert rows[name].low < value < rows[name].high
    # The fit's standard errors are the widths of nearly normal posteriors.
    for name in ("contrast_0", "alpha_ref"):
        assert 0.5 < rows[name].sd / fit.result.get_uncertainty(name) < 2.0
