"""What speckles leave at each lag, against fits of simulated data and projections by hand."""

from __future__ import annotations

import numpy as np
import pytest

from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core.likelihood import pack_pairs
from heterodyne.core.simulate import Detector, Experiment, simulate_speckles
from heterodyne.core.speckle_moments import ResidualMoments, lag_share, share_of_lags
from heterodyne.optimization import _lag_structure
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.nlsq.solve import solve
from heterodyne.optimization.problem import Problem
from heterodyne.optimization.sandwich import speckle_noise
from heterodyne.optimization.scaling import Scaling, ScalingMode

VALUES = {"D0_ref": 2e4, "D0_sample": 1e4, "v0": 300.0, "f0": 0.4, "f2": 0.0, "phi0": 2.0}
VARYING = ("D0_ref", "D0_sample", "v0", "f0")
SPACE = ParameterSpace().with_values(VALUES)
SPACE = SPACE.fix(*(n for n in PHYSICS_PARAM_NAMES if n not in VARYING))
PARAMETERS = np.array([SPACE[n].value for n in PHYSICS_PARAM_NAMES])
ANGLES, N, DT, Q = (-30.0, 70.0), 64, 0.1, 0.0054


def measured(seed, n_pixels=400):
    return simulate_speckles(Experiment(PARAMETERS, N, DT, Q, ANGLES), Detector(n_pixels), seed)


def bound(c2, phi=ANGLES, **selection):
    t = DT * np.arange(1.0, N + 1.0)
    data = pack_pairs(c2, t, Q, DT, phi, **selection)
    scaling = Scaling.of(ScalingMode.INDIVIDUAL, SPACE, len(phi))
    return Problem(data, PhysicsCoordinates.of(SPACE, t), scaling)


def misfit_of(problem, c2):
    start = np.asarray(problem.coordinates.inverse(PARAMETERS))[None]
    fit = solve(problem, start, prior_weight=0.0, max_iterations=100, tolerance=1e-4)
    found = speckle_noise(problem, fit.y[0], fit.contrast[0], fit.offset[0], c2)
    assert found.likely
    return found.misfit


def test_fits_of_the_right_model_leave_what_speckles_leave():
    found = np.array([misfit_of(bound(c2), c2) for c2 in map(measured, range(8))])
    # A share has a longer tail above than below.
    assert np.abs(found.mean()) < 1.0
    assert found.std() < 2.0
    assert found.max() < 6.0


def test_a_model_that_misses_the_flow_leaves_more():
    c2 = measured(0)
    assert misfit_of(bound(c2), c2) < 6.0
    # Angles in radians, as if all were along the flow.
    wrong = tuple(np.deg2rad(ANGLES))
    assert misfit_of(bound(c2, wrong), c2) > 6.0


def test_the_share_is_that_of_the_means_at_each_lag():
    rng = np.random.default_rng(0)
    n = 30
    off = ~np.eye(n, dtype=bool)
    lag = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    by_lag = rng.normal(size=n)[lag]
    noise = rng.normal(size=(n, n))
    residuals = by_lag + noise + noise.T

    def share(r):
        return lag_share([ResidualMoments.of(r, np.ones((n, n)), 0.2, off)])

    means = np.array([0.0, *(residuals[lag == k].mean() for k in range(1, n))])[lag]
    assert share(residuals) == pytest.approx((means[off] ** 2).sum() / (residuals[off] ** 2).sum())
    first, second = np.triu_indices(n, 1)
    alone = share_of_lags(residuals[first, second], second - first)
    assert share(residuals) == pytest.approx(alone)
    assert share(by_lag) == pytest.approx(1.0)
    assert share(np.zeros((n, n))) == 0.0
    pooled = lag_share([ResidualMoments.of(r, r, 0.2, off) for r in (residuals, by_lag)])
    assert pooled == pytest.approx(0.5 * (share(residuals) + 1.0))


def test_simulated_windows_are_those_that_were_fitted():
    problem = bound(measured(0), mask=(np.arange(N) >= 10) & (np.arange(N) != 20))
    y = np.asarray(problem.coordinates.inverse(PARAMETERS))
    e = _lag_structure._experiment(problem, y)
    np.testing.assert_allclose(e.t, DT * np.arange(11.0, N + 1.0))
    np.testing.assert_allclose(e.parameters, PARAMETERS, rtol=1e-9, atol=1e-9)
    whole = Experiment(PARAMETERS, N, DT, Q, ANGLES).correlation()
    np.testing.assert_allclose(e.correlation(), whole[:, 10:, 10:], rtol=1e-9)


@pytest.mark.parametrize(("n_angles", "expected"), [(1, 96), (12, 64), (40, 64)])
def test_many_frames_become_fewer(monkeypatch, n_angles, expected):
    n = 300
    t = DT * np.arange(1.0, n + 1.0)
    c2 = np.broadcast_to(1.0 + np.eye(n), (n_angles, n, n))
    data = pack_pairs(c2, t, Q, DT, np.linspace(0.0, 90.0, n_angles))
    scaling = Scaling.of(ScalingMode.INDIVIDUAL, SPACE, n_angles)
    problem = Problem(data, PhysicsCoordinates.of(SPACE, t), scaling)
    e = _lag_structure._experiment(problem, np.asarray(problem.coordinates.inverse(PARAMETERS)))
    assert e.n_frames == expected
    assert (e.t[0], e.t[-1]) == pytest.approx((t[0], t[-1]))


def test_a_fit_can_change_its_matrices_in_as_many_directions_as_it_has_unknowns():
    problem = bound(measured(0))
    y = np.asarray(problem.coordinates.inverse(PARAMETERS))
    e = _lag_structure._experiment(problem, y)
    seen = _lag_structure._seen(problem, y, e.correlation())
    assert len(seen) == len(VARYING) + 2 * len(ANGLES)
    # The derivative by the velocity, against a difference of correlations.
    up, down = (
        Experiment(PARAMETERS * factor, N, DT, Q, ANGLES).correlation()
        for factor in (1.0 + 1e-5 * VELOCITY, 1.0 - 1e-5 * VELOCITY)
    )
    slope, found = (up - down).ravel(), seen[VARYING.index("v0")].ravel()
    cosine = slope @ found / np.linalg.norm(slope) / np.linalg.norm(found)
    assert cosine == pytest.approx(1.0, abs=1e-6)


VELOCITY = np.array([name == "v0" for name in PHYSICS_PARAM_NAMES], float)
