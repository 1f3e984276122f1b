"""Phases that a fit has missed: residuals against loops over pairs, motions against the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jnp
from heterodyne.core.frames import frame_functions
from heterodyne.core.likelihood import pack_pairs
from heterodyne.core.rates import cumulative_trapezoid
from heterodyne.core.separable import Layout
from heterodyne.core.simulate import Detector, Experiment, simulate_pairs, simulate_speckles
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.nlsq import coarse
from heterodyne.optimization.nlsq import search as searching
from heterodyne.optimization.nlsq.band import band_at, near_diagonal
from heterodyne.optimization.nlsq.config import NLSQConfig
from heterodyne.optimization.nlsq.search import search
from heterodyne.optimization.nlsq.solve import Solutions, solve
from heterodyne.optimization.nlsq.starts import to_coordinates
from heterodyne.optimization.nlsq.turns import turned_points
from heterodyne.optimization.problem import Problem, profile_at
from heterodyne.optimization.scaling import Scaling, ScalingMode

Q, DT, N = 0.0054, 0.1, 60
PHI = (-30.0, 15.0, 70.0)
INDEX = {name: k for k, name in enumerate(PHYSICS_PARAM_NAMES)}
SIGMA = 0.01
# The phase turns by 112 rad, ever faster; little of the light is scattered by the sample.
VALUES = {
    "D0_ref": 1.2e4, "alpha_ref": 0.2, "D_offset_ref": 500.0,
    "D0_sample": 1.5e4, "alpha_sample": -0.5, "D_offset_sample": 200.0,
    "v0": 2500.0, "beta": 0.35, "v_offset": 20.0,
    "f0": 0.06, "f1": 0.0, "f2": 1.0, "f3": 0.09,
    "phi0": -6.0,
}  # fmt: skip


def values(**changed):
    return np.array([(VALUES | changed)[name] for name in PHYSICS_PARAM_NAMES])


def problem_of(c2, phi=PHI, space=None, **selection):
    space = space or ParameterSpace()
    t = DT * np.arange(1.0, c2.shape[1] + 1.0)
    data = pack_pairs(c2, t, Q, DT, phi, **selection)
    scaling = Scaling.of(ScalingMode.INDIVIDUAL, space, len(phi))
    return Problem(data, PhysicsCoordinates.of(space, t), scaling)


def simulated(parameters, seed=0, phi=PHI, n=N, space=None):
    experiment = Experiment(parameters, n, DT, Q, phi)
    return problem_of(simulate_pairs(experiment, 0.3, 1.0, SIGMA, seed), phi, space)


def turned_from(problem, parameters):
    """What is found from parameters with their best contrast and offset."""
    _, contrast, offset = profile_at(jnp.asarray(parameters), problem.data, problem.scaling)
    return turned_points(problem, parameters, np.asarray(contrast), np.asarray(offset))


def rates(parameters, phi=PHI, n=N):
    """Rate of the phase in rad per frame at a quarter, half and three quarters of the window."""
    p = dict(zip(PHYSICS_PARAM_NAMES, parameters, strict=True))
    t = DT * n * np.array([0.25, 0.5, 0.75])
    slope = np.abs(np.cos(np.deg2rad(np.asarray(phi) + p["phi0"])))
    return Q * DT * slope[:, None] * (p["v0"] * t ** p["beta"] + p["v_offset"])


@given(n=st.integers(2, 130), share=st.floats(0.0, 1.0), seed=st.integers(0, 100))
def test_pairs_of_small_lags_come_out_of_their_blocks(n, share, seed):
    matrix = np.random.default_rng(seed).normal(size=(2, n, n))
    n_lags = 1 + int(share * (n - 2))
    found = near_diagonal(Layout.of(n).split(matrix), n, n_lags)
    assert found.shape == (2, n, n_lags)
    for lag in range(1, n_lags + 1):
        np.testing.assert_array_equal(
            found[:, : n - lag, lag - 1], np.diagonal(matrix, lag, axis1=1, axis2=2)
        )
        assert not found[:, n - lag :, lag - 1].any()


@pytest.mark.parametrize("weighted", [False, True])
def test_residuals_are_those_of_loops_over_pairs(weighted):
    rng = np.random.default_rng(0)
    n, n_lags, parameters = 45, 20, values()
    contrast, offset = np.array([0.2, 0.3, 0.4]), np.array([1.0, 0.9, 1.1])
    c2 = 1.0 + 0.3 * rng.normal(size=(3, n, n))
    mask = np.ones(n, bool)
    mask[[0, 17, 18, n - 1]] = False
    weights = rng.uniform(0.5, 1.5, size=(3, n, n)) if weighted else None
    problem = problem_of(c2, mask=mask, weights=weights)
    band = band_at(parameters, contrast, offset, problem.data, n_lags)
    f = frame_functions(jnp.asarray(parameters), problem.data.t)
    decays = [
        Q**2 * np.asarray(cumulative_trapezoid(x, DT))
        for x in (f.transport_reference, f.transport_sample)
    ]
    way, s = np.asarray(cumulative_trapezoid(f.velocity, DT)), np.asarray(f.fraction)
    expected = np.zeros((3, 3, n, n_lags))
    for k, phi in enumerate(PHI):
        for i in range(n):
            for j in range(i + 1, min(n, i + n_lags + 1)):
                w = float(mask[i] and mask[j]) * (1.0 if weights is None else weights[k, i, j])
                first, second = (np.exp(-(x[j] - x[i])) for x in decays)
                r_pair, s_pair = (1.0 - s[i]) * (1.0 - s[j]), s[i] * s[j]
                norm = ((1.0 - s[i]) ** 2 + s[i] ** 2) * ((1.0 - s[j]) ** 2 + s[j] ** 2)
                turn = Q * np.cos(np.deg2rad(phi + parameters[INDEX["phi0"]])) * (way[j] - way[i])
                cross = 2.0 * r_pair * s_pair * np.sqrt(first * second) * np.cos(turn) / norm
                own = (r_pair**2 * first + s_pair**2 * second) / norm
                without = c2[k, i, j] - offset[k] - contrast[k] * own
                expected[:, k, i, j - i - 1] = w, w * (without - contrast[k] * cross), w * without
    for found, known in zip(band, expected, strict=True):
        np.testing.assert_allclose(found, known, atol=1e-12)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"v0": 900.0, "beta": -0.3, "f3": 0.5},
        # More than half a turn per frame at the end, which looks like less.
        {"v0": 3000.0, "beta": 0.6, "phi0": 3.0},
        {"f1": 0.3, "f2": 6.0, "f0": 0.6, "f3": 0.02},
    ],
)
@pytest.mark.parametrize("phi", [PHI, (20.0,)])
def test_a_missed_phase_is_found_at_its_rate(changed, phi):
    truth = values(**changed)
    problem = simulated(truth, phi=phi)
    # Without a sample nothing turns.
    missed = truth.copy()
    missed[[INDEX["f0"], INDEX["f3"], INDEX["v0"]]] = 0.001, 0.001, 5.0
    points = turned_from(problem, missed)
    assert len(points)
    # Correlations decay over some 20 frames.
    assert np.abs(rates(points[0], phi) - rates(truth, phi)).max() < 0.12
    kept = [INDEX[name] for name in PHYSICS_PARAM_NAMES[:6]]
    np.testing.assert_array_equal(points[:, kept], np.tile(missed[kept], (len(points), 1)))


def test_fractions_of_the_points_follow_from_the_amplitude():
    truth = values(f0=0.1, f3=0.15)
    missed = values(f0=0.001, f3=0.001, v0=5.0)
    points = turned_from(simulated(truth), missed)
    sums = points[:3, INDEX["f0"]] + points[:3, INDEX["f3"]]
    np.testing.assert_allclose(sums[1:], [0.25, 0.75], atol=0.05)


@pytest.mark.parametrize("phi", [PHI, (20.0,)])
def test_nothing_is_found_in_noise(phi):
    for seed in range(2):
        for truth in (values(f0=0.0, f3=0.0), values(), values(v0=150.0, f0=0.3, f3=0.2)):
            assert len(turned_from(simulated(truth, seed, phi), truth)) == 0


def test_nothing_is_found_in_errors_that_pairs_share():
    truth = values(v0=300.0, f0=0.3, f3=0.1)
    for seed in range(2):
        experiment = Experiment(truth, N, DT, Q, PHI)
        c2 = simulate_speckles(experiment, Detector(1000), seed)
        assert len(turned_from(problem_of(c2), truth)) == 0


def test_windows_of_few_frames_are_left_alone():
    truth = values()
    assert len(turned_from(simulated(truth, n=12), values(f0=0.001, f3=0.001))) == 0


@pytest.mark.parametrize(
    ("fixed", "expected"),
    [
        (("v0",), 0),
        (("beta",), 3),
        (("phi0", "v_offset"), 3),
        (("f0", "f1", "f2"), 3),
        (("f0", "f1", "f2", "f3"), 1),
    ],
)
def test_fixed_parameters_keep_their_values(fixed, expected):
    truth = values(f0=0.15, f3=0.0, v_offset=0.0)
    held = {name: VALUES[name] for name in fixed} | ({"f0": 0.01} if "f0" in fixed else {})
    held |= {"f3": 0.0} if "f3" in fixed else {}
    space = ParameterSpace().with_values(held).fix(*fixed)
    missed = values(**({"f0": 0.001, "f3": 0.001, "v0": 5.0} | held))
    points = turned_from(simulated(truth, space=space), missed)
    assert len(points) >= expected
    assert expected or not len(points)
    for name in fixed:
        assert (points[:, INDEX[name]] == held[name]).all()
    if len(points):
        assert np.abs(rates(points[0]) - rates(truth)).max() < 0.12
    if fixed == ("f0", "f1", "f2"):
        np.testing.assert_allclose(points[1, INDEX["f3"]], 0.14, atol=0.05)


def mode_from(problem, parameters):
    """Mode that optimising leads to."""
    start = to_coordinates(problem.coordinates.inside(parameters[None]), problem.coordinates)
    return solve(problem, start, prior_weight=1.0, max_iterations=100, tolerance=1e-4)


def excess(problem, found, known):
    """How much worse a solution is than another, in units of chi-square."""
    return problem.n_pairs * np.log(found.squares[0] / known.squares[0])


@pytest.mark.slow
def test_the_search_finds_a_phase_that_turns_often():
    truth = values()
    problem = simulated(truth)
    known = mode_from(problem, truth)
    found = search(problem, NLSQConfig(n_starts=8, n_rounds=2, n_candidates=256))
    assert excess(problem, found, known) < 1.0


@pytest.mark.slow
def test_a_phase_that_averaged_frames_hide_is_found_on_all(monkeypatch):
    truth = values(beta=0.0, v0=4500.0, f3=0.3)
    # More than half a turn from one average of two frames to the next.
    assert rates(truth).max() > np.pi / 2.0
    problem = simulated(truth)
    known = mode_from(problem, truth)
    lost = mode_from(problem, values(f0=0.001, f3=0.001, v0=5.0))
    lost = Solutions(*(np.repeat(x, 8, axis=0) for x in lost))
    assert excess(problem, lost, known) > 100.0
    monkeypatch.setattr(coarse, "_FRAMES", N // 2)
    monkeypatch.setattr(searching, "_explored", lambda *_: lost)
    found = search(problem, NLSQConfig())
    assert excess(problem, found, known) < 1.0
