"""Fewer frames for the search, against loops over pairs."""

from __future__ import annotations

import numpy as np
import pytest

from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core.likelihood import pack_pairs
from heterodyne.core.simulate import Experiment, simulate_pairs
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.nlsq import coarse
from heterodyne.optimization.nlsq.coarse import coarsened
from heterodyne.optimization.problem import Problem, profile_at
from heterodyne.optimization.scaling import Scaling, ScalingMode

SPACE = ParameterSpace()
PARAMETERS = np.array([SPACE[n].value for n in list(SPACE)[:14]])
PARAMETERS[[0, 3, 6, 9, 10]] = 600.0, 900.0, 30.0, 0.4, 0.01
Q, DT, PHI = 0.0054, 0.1, (0.0, 60.0)
CONTRAST, OFFSET = 0.2, 1.0


def problem_of(c2, n, first=0.1, **selection):
    t = first + DT * np.arange(n)
    data = pack_pairs(c2, t, Q, DT, PHI, **selection)
    scaling = Scaling.of(ScalingMode.INDIVIDUAL, SPACE, len(PHI))
    return Problem(data, PhysicsCoordinates.of(SPACE, t), scaling)


def averaged(c2, weights, first, size, count):
    """Mean over pairs of the same lag of each pair of groups, and the sum of their weights."""
    found, total = np.zeros((2, len(c2), count, count))
    for a in range(count):
        for b in range(a + 1, count):
            i, j = first + size * a + np.arange(size), first + size * b + np.arange(size)
            total[:, a, b] = weights[:, i, j].sum(1)
            found[:, a, b] = (weights * c2)[:, i, j].sum(1)
    return found / np.where(total > 0, total, 1.0), total


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("n", "first", "hole"), [(83, 0.1, ()), (61, 0.0, ()), (90, 0.1, (31, 32))]
)
def test_groups_hold_the_means_of_pairs_of_the_same_lag(monkeypatch, n, first, hole, weighted):
    monkeypatch.setattr(coarse, "_FRAMES", 30)
    monkeypatch.setattr(coarse, "decay_lag", lambda data: 100.0)
    rng = np.random.default_rng(0)
    c2 = 1.0 + rng.normal(size=(2, n, n))
    mask = np.ones(n, bool)
    mask[list(hole)] = False
    weights = rng.uniform(0.5, 1.5, size=(2, n, n)) if weighted else None
    problem = problem_of(c2, n, first, mask=mask, weights=weights)
    found = coarsened(problem).data
    start = int(first == 0.0)
    size = -(-(mask.sum() - start) // 30)
    count = (n - start) // size
    whole = mask[start : start + count * size].reshape(count, size).all(axis=1)
    values, total = averaged(
        c2, np.ones_like(c2) if weights is None else weights, start, size, count
    )
    t = first + DT * (start + size * np.arange(count) + 0.5 * (size - 1))
    expected = pack_pairs(
        values, t, Q, size * DT, PHI, mask=whole, weights=total if weighted else None
    )
    assert found.t.shape == (count,)
    assert (np.asarray(found.mask) > 0).sum() == whole.sum() == count - (1 if hole else 0)
    for name, ours, theirs in zip(found._fields, found, expected, strict=True):
        if name in ("blocks", "weights") and ours is not None:
            for a, b in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
        elif ours is not None:
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12, err_msg=name)


def test_few_frames_and_fast_decays_are_searched_as_they_are(monkeypatch):
    c2 = 1.0 + np.random.default_rng(0).normal(size=(2, 60, 60))
    problem = problem_of(c2, 60)
    assert coarsened(problem) is problem
    monkeypatch.setattr(coarse, "_FRAMES", 20)
    monkeypatch.setattr(coarse, "decay_lag", lambda data: 7.9)
    assert coarsened(problem) is problem
    monkeypatch.setattr(coarse, "decay_lag", lambda data: 8.0)
    assert coarsened(problem).data.t.shape == (30,)
    # Every other frame is missing, so no group is whole.
    broken = problem_of(c2, 60, mask=np.arange(60) % 2 == 0)
    assert coarsened(broken) is broken


def test_the_truth_is_a_minimum_of_the_averaged_data_too(monkeypatch):
    monkeypatch.setattr(coarse, "_FRAMES", 60)
    n, sigma = 240, 1e-3
    e = Experiment(PARAMETERS, n, DT, Q, PHI)
    problem = problem_of(simulate_pairs(e, CONTRAST, OFFSET, sigma, 0), n)
    found = coarsened(problem)
    assert float(found.data.dt) == pytest.approx(4 * DT)
    squares = float(profile_at(PARAMETERS, found.data, found.scaling).squares)
    # The errors of the averaged pairs alone, half as large as those of single ones.
    assert squares == pytest.approx(found.n_pairs * sigma**2 / 4, rel=0.05)
    y = found.coordinates.inverse(found.coordinates.inside(PARAMETERS))
    np.testing.assert_allclose(
        y, problem.coordinates.inverse(problem.coordinates.inside(PARAMETERS))
    )
