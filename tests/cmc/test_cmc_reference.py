"""Both engines against slow posteriors of NumPyro's MCMC, stored with their Monte Carlo errors.

``python -m benchmarks.reference`` drew them: direct likelihood, nothing integrated out.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from heterodyne.config.cmc import CMCConfig
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core.simulate import Experiment, simulate_pairs
from heterodyne.data import from_arrays
from heterodyne.optimization.bind import bind, fit_scaled
from heterodyne.optimization.cmc._analysis import NoiseSettings, analyse
from heterodyne.optimization.scaling import ScalingMode

STORED = json.loads(
    (Path(__file__).parent / "reference_posteriors.json").read_text(encoding="utf-8")
)
SETUP, CASES = STORED["experiment"], STORED["cases"]


def test_references_converged():
    for case in CASES.values():
        assert max(case["r_hat"]) < 1.01
        assert case["divergences"] <= 10
        assert min(case["ess_mean"]) > 400


def simulated(case):
    """The data of a case, as the reference had them."""
    truth = np.array([case["truth"][n] for n in PHYSICS_PARAM_NAMES])
    experiment = Experiment(truth, SETUP["n_frames"], SETUP["dt"], SETUP["q"], SETUP["phi"])
    c2 = simulate_pairs(
        experiment, SETUP["contrast"], SETUP["offset"], SETUP["sigma"], SETUP["seed"]
    )
    data = from_arrays(c2, q=SETUP["q"], phi=SETUP["phi"], t=experiment.t, dt=SETUP["dt"])
    return data, c2


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_default_engine_draws_the_reference_posterior(name):
    case = CASES[name]
    data, c2 = simulated(case)
    space = ParameterSpace.from_config(case["priors"])
    fit = fit_scaled(bind(data, space), ScalingMode.INDIVIDUAL)
    noise = NoiseSettings(scale=SETUP["noise_scale"])
    analysis = analyse(fit, c2, CMCConfig(), noise)
    assert analysis.corrected is None
    found = analysis.plain.parameters
    misses = []
    for k, parameter in enumerate(case["names"]):
        x, sd = found[parameter], case["sd"][k]
        ess = analysis.diagnosis.ess_bulk[parameter]
        error = sd * np.sqrt(1.0 / case["ess_mean"][k] + 1.0 / ess)
        shift = abs(x.mean() - case["mean"][k])
        width = abs(x.std() / sd - 1.0)
        # A standard deviation of n draws is known to 1 / sqrt(2 n).
        spread = np.sqrt(0.5 / case["ess_sd"][k] + 0.5 / ess)
        if shift > 4.0 * error or width > 0.05 + 3.0 * spread:
            misses.append(f"{parameter}: mean off by {shift / sd:.3f} sd, sd by {width:.1%}")
    assert not misses
