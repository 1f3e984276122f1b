"""Fits of a measured two-time matrix from NSLS-II CHX, as far as it is at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core.heterodyne_model import HeterodyneModel
from heterodyne.optimization.nlsq.config import NLSQConfig
from heterodyne.optimization.nlsq.core import fit_nlsq_jax

BLOCKS = Path(__file__).parents[2].parent / "shared" / "data" / "chx_twotime_blocks.npz"
pytestmark = pytest.mark.skipif(not BLOCKS.exists(), reason="the measured data are not at hand")
N_FRAMES = 50

# Without a sample the model is one decaying component. Frame time and q are not known, so
# transport coefficients are in arbitrary units.
SPACE = ParameterSpace.from_config(
    {
        "D0_ref": {"min": 1e-3, "max": 1e8, "prior": {"mean": 1e3, "std": 1e5}},
        "f0": 0.0,
        "contrast": {"max": 3.0, "prior": {"mean": 1.0, "std": 1.0}},
    }
).fix(*(n for n in PHYSICS_PARAM_NAMES if not n.endswith("_ref")))
MODEL = HeterodyneModel(np.arange(1.0, N_FRAMES + 1.0), 0.01, 1.0, SPACE)
CONFIG = NLSQConfig(n_starts=4, n_candidates=256, n_rounds=1)


@pytest.mark.parametrize("block", [0, 9])
@pytest.mark.parametrize(
    ("name", "explained"), [("m55yp9kzm2_4", 0.5), ("m55yp9kzm2_8", 0.2), ("m55yp9kzm2_16", 0.01)]
)
def test_one_component_leaves_only_the_noise_of_single_pairs(name, explained, block):
    with np.load(BLOCKS) as archive:
        c2 = np.asarray(archive[name][block], float)
    result = fit_nlsq_jax(MODEL, c2, 0.0, CONFIG)
    pairs = c2[np.triu_indices(N_FRAMES, 1)]
    assert result.success
    assert result.residuals.size == pairs.size
    assert 1.0 - result.residuals.var() / pairs.var() > explained
    # The noise is estimated from neighbouring pairs, without any model.
    assert 0.9 < result.reduced_chi_square < 1.25
    assert abs(result.residuals.mean()) < 0.1 * result.sigma
    # D0 and the exponent may be open where the offset alone describes the decay.
    for known in ("D_offset_ref", "contrast", "offset"):
        assert 0.0 < result.get_uncertainty(known) < np.inf
    assert all(np.isfinite(error) for _, error in result.derived.values())


def test_bins_at_larger_wavevectors_decay_faster():
    early = []
    with np.load(BLOCKS) as archive:
        for name in ("m55yp9kzm2_4", "m55yp9kzm2_8"):
            result = fit_nlsq_jax(MODEL, archive[name][0], 0.0, CONFIG)
            early.append(next(v for n, (v, _) in result.derived.items() if "J_ref" in n))
    assert early[1] > 2.0 * early[0]
