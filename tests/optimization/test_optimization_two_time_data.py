"""Matrices handed to fits: what is refused, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest

from heterodyne import HeterodyneModel
from heterodyne._errors import DataError
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core.simulate import Experiment, simulate_pairs
from heterodyne.data import from_arrays
from heterodyne.optimization.measured import two_time_data
from heterodyne.optimization.nlsq.core import fit_nlsq_jax

N, DT, Q = 40, 0.1, 0.0054
T = DT * np.arange(1.0, N + 1.0)
SPACE = ParameterSpace().with_values({"D0_ref": 4e4, "f0": 0.0, "f3": 0.0})
SPACE = SPACE.fix(*(n for n in PHYSICS_PARAM_NAMES if n != "D0_ref"))
PARAMETERS = np.array([SPACE[n].value for n in PHYSICS_PARAM_NAMES])
MODEL = HeterodyneModel(T, Q, DT, SPACE)
C2 = simulate_pairs(Experiment(PARAMETERS, N, DT, Q, (0.0,)), 0.3, 1.0, 0.01, 1)[0]
BAD = np.array([4, 5, 30])


def with_gaps(value):
    c2 = C2.copy()
    c2[BAD] = value
    c2[:, BAD] = value
    return c2


def test_frames_that_are_nan_throughout_are_left_out():
    found = fit_nlsq_jax(MODEL, with_gaps(np.nan))
    rest = np.delete(np.arange(N), BAD)
    assert found.residuals.size == rest.size * (rest.size - 1) // 2
    # A masked array says the same in other words.
    masked = np.ma.masked_array(C2, np.isnan(with_gaps(np.nan)))
    again = fit_nlsq_jax(MODEL, masked)
    np.testing.assert_array_equal(again.residuals, found.residuals)
    # And so do read data.
    data = from_arrays(C2, q=Q, phi=[0.0], dt=DT, bad_frames=(BAD + 1).tolist())
    np.testing.assert_array_equal(np.isnan(data.c2_with_gaps[0]), np.isnan(with_gaps(np.nan)))
    again = fit_nlsq_jax(MODEL, data.c2_with_gaps, data.phi)
    np.testing.assert_array_equal(again.residuals, found.residuals)
    # What those frames hold makes no difference.
    spoilt = from_arrays(with_gaps(7.0), q=Q, phi=[0.0], dt=DT, bad_frames=(BAD + 1).tolist())
    again = fit_nlsq_jax(MODEL, spoilt.c2_with_gaps, spoilt.phi)
    np.testing.assert_array_equal(again.residuals, found.residuals)


@pytest.mark.parametrize(
    ("c2", "text"),
    [
        (with_gaps(0.0), "all pairs of 3 frames are 0"),
        (np.where(np.eye(N, k=3) > 0, np.nan, C2), "not finite"),
        (np.where(np.eye(N, k=3) > 0, np.inf, C2), "not finite"),
        (np.triu(C2) + 1.5 * np.tril(C2, -1), "halves"),
        (C2 + 0.1j, "complex128"),
        (C2.astype(str), "real numbers"),
        (C2 > 1.1, "bool"),
        (C2[:-1, :-1], "1 angles and 40 times"),
    ],
    ids=["zeros", "nan", "infinite", "asymmetric", "complex", "text", "logical", "shape"],
)
def test_what_cannot_have_been_measured_is_refused(c2, text):
    with pytest.raises(DataError, match=text):
        fit_nlsq_jax(MODEL, c2)


def test_one_half_is_enough():
    data = two_time_data(MODEL, np.triu(C2), 0.0)
    np.testing.assert_array_equal(data.c2[0], C2)


def test_frames_missing_at_some_angles_only_are_not_guessed():
    with pytest.raises(DataError, match="not finite"):
        two_time_data(MODEL, np.stack([C2, with_gaps(np.nan)]), [0.0, 30.0])
