"""Simulated data: errors of the stated size, speckles with the stated mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy_model as oracle
import pytest

from heterodyne._errors import ConfigError
from heterodyne._events import Progress
from heterodyne.core.simulate import Detector, Experiment, simulate_pairs, simulate_speckles

# Both components, a flow that turns and a fraction that grows: every term of G counts.
PARAMETERS = np.array([300, 0.3, 200, 900, -0.4, 0, 60, 0.5, -75, 0.3, 0.25, 1, 0.15, 5.0])
PARAMETERS.setflags(write=False)
EXPERIMENT = Experiment(PARAMETERS, n_frames=14, dt=0.25, q=0.02, phi=(20.0, 75.0))
GRID = oracle.Grid(EXPERIMENT.t, 0.02, 0.25, np.array(EXPERIMENT.phi))
OFF = ~np.eye(14, dtype=bool)


def test_experiment_counts_frames_from_one():
    np.testing.assert_allclose(EXPERIMENT.t, 0.25 * np.arange(1, 15), rtol=1e-15)
    expected = oracle.correlation(PARAMETERS, GRID).astype(float)
    np.testing.assert_allclose(EXPERIMENT.correlation(), expected, atol=1e-13)


def test_pairs_have_independent_errors_of_the_stated_size():
    large = replace(EXPERIMENT, n_frames=80)
    contrast, offset = np.array([0.1, 0.3]), np.array([1.0, 1.2])
    c2 = simulate_pairs(large, contrast, offset, 0.02, seed=1)
    np.testing.assert_allclose(c2, c2.swapaxes(1, 2), rtol=1e-14)
    model = offset[:, None, None] + contrast[:, None, None] * large.correlation()
    errors = (c2 - model)[:, *np.triu_indices(80)]
    count = errors.size
    assert errors.std() == pytest.approx(0.02, rel=4 / np.sqrt(2 * count))
    assert abs(errors.mean()) < 4 * 0.02 / np.sqrt(count)
    assert abs(np.corrcoef(*errors)[0, 1]) < 4 / np.sqrt(count / 2)
    neighbours = np.corrcoef(errors[:, 1:].ravel(), errors[:, :-1].ravel())[0, 1]
    assert abs(neighbours) < 4 / np.sqrt(count)


def test_without_errors_pairs_are_the_model():
    c2 = simulate_pairs(EXPERIMENT, 0.3, 1.1, 0.0, seed=0)
    np.testing.assert_allclose(c2, 1.1 + 0.3 * EXPERIMENT.correlation(), rtol=1e-14)


@pytest.mark.parametrize(
    "simulate",
    [
        lambda seed: simulate_pairs(EXPERIMENT, 0.3, 1.0, 0.01, seed),
        lambda seed: simulate_speckles(EXPERIMENT, Detector(50, 2, photons=5.0), seed),
    ],
    ids=["pairs", "speckles"],
)
def test_the_seed_decides(simulate):
    np.testing.assert_array_equal(simulate(3), simulate(3))
    assert (simulate(3) != simulate(4)).all()


def repeats(experiment, detector, count):
    """Mean and standard error of c2 over independent simulations."""
    runs = np.stack([simulate_speckles(experiment, detector, seed) for seed in range(count)])
    np.testing.assert_allclose(runs, runs.swapaxes(2, 3), rtol=1e-14)
    return runs.mean(0), runs.std(0, ddof=1) / np.sqrt(count)


def agree(mean, error, expected):
    """No entry is off by five standard errors, and they are off by one on average."""
    z = (mean - expected) / error
    assert np.abs(z).max() < 5
    assert np.sqrt((z**2).mean()) < 2


@pytest.mark.parametrize("modes", [1, 3])
def test_mean_of_speckles_is_the_model_with_the_contrast_of_the_modes(modes):
    mean, error = repeats(EXPERIMENT, Detector(2000, modes), 25)
    # The test can tell models apart: errors are far below the signal.
    assert error.max() < 0.03 / modes
    agree(mean, error, 1 + EXPERIMENT.correlation() / modes)


def test_shot_noise_is_on_the_diagonal_only():
    mean, error = repeats(EXPERIMENT, Detector(2000, 3, photons=2.0), 25)
    expected = 1 + EXPERIMENT.correlation() / 3
    agree(mean[:, OFF], error[:, OFF], expected[:, OFF])
    agree(mean[:, ~OFF], error[:, ~OFF], expected[:, ~OFF] + 1 / 2.0)


def test_speckles_that_forgot_each_other_have_a_baseline_of_one():
    fast = PARAMETERS.copy()
    fast[[0, 3]] = 1e6
    mean, error = repeats(replace(EXPERIMENT, parameters=fast), Detector(2000, 2), 15)
    assert error.max() < 0.01
    agree(mean[:, OFF], error[:, OFF], 1.0)
    agree(mean[:, ~OFF], error[:, ~OFF], 1.5)


def test_progress_is_reported_for_each_angle():
    events = []
    simulate_speckles(EXPERIMENT, Detector(10), 0, on_event=events.append)
    assert events == [Progress("speckles", k, 2) for k in range(3)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_pixels": 1}, "1 pixels and 5 modes. Allowed: at least 2 pixels"),
        ({"n_pixels": 9, "n_modes": 0}, "9 pixels and 0 modes"),
        ({"n_pixels": 9, "photons": -1.0}, "-1 photons per pixel and frame. Allowed: > 0"),
    ],
)
def test_detectors_that_see_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Detector(**settings)


def test_frames_without_any_photon_are_refused():
    with pytest.raises(ConfigError, match=r"1e-06 photons .* on 10 pixels. Raise the photons"):
        simulate_speckles(EXPERIMENT, Detector(10, photons=1e-6), 0)
