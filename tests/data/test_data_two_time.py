"""The value that everything downstream receives."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from layouts import SAMPLE

from heterodyne._errors import DataError
from heterodyne.data import from_arrays
from heterodyne.data._matrices import Populated, complete, diagonal_is_raw


@pytest.fixture
def data():
    return from_arrays(SAMPLE.c2, q=0.01, phi=SAMPLE.phi, t=SAMPLE.t)


def test_lengths_that_differ_are_both_named(data):
    with pytest.raises(DataError, match=r"t has shape \(5,\) and c2 has shape \(9, 16, 16\)"):
        replace(data, t=data.t[:5])
    with pytest.raises(DataError, match=r"frame_mask has shape \(3,\)"):
        replace(data, frame_mask=np.ones(3, bool))
    with pytest.raises(DataError, match=r"8 bins for c2 of shape \(9, 16, 16\)"):
        replace(data, bins=data.bins[1:])
    with pytest.raises(DataError, match=r"c2 has shape \(16, 16\)"):
        replace(data, c2=data.c2[0])
    with pytest.raises(DataError, match="dt is 0"):
        replace(data, dt=0)
    with pytest.raises(DataError, match="nan s at position 1 of 16"):
        replace(data, t=data.t * np.nan)


def test_arrays_cannot_be_changed_and_the_callers_can(data):
    mine = data.c2.copy()
    other = replace(data, c2=mine)
    with pytest.raises(ValueError, match="read-only"):
        other.c2[0, 0, 0] = 1.0
    mine[0, 0, 0] = 1.0


def test_unique_pairs_are_those_counted_one_by_one(data):
    mask = np.ones(16, bool)
    mask[[3, 7]] = False
    t = SAMPLE.t - SAMPLE.t[0]
    some = replace(data, frame_mask=mask, t=t)
    counted = sum(
        mask[i] and mask[j] and t[i] > 0 and t[j] > 0 for j in range(16) for i in range(j)
    )
    assert some.unique_pairs == counted == 13 * 12 // 2


def test_common_q_allows_a_tenth_of_a_percent(data):
    def with_q(q):
        return replace(data, bins=tuple(replace(b, q=x) for b, x in zip(data.bins, q, strict=True)))

    assert with_q(np.linspace(0.01, 0.010009, 9)).q == pytest.approx(0.0100045)
    with pytest.raises(DataError, match="Select one q first"):
        _ = with_q(np.linspace(0.01, 0.010011, 9)).q


def test_data_survive_pickling(data):
    copy = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(copy.c2, data.c2)
    assert copy.provenance == data.provenance
    assert copy.bins == data.bins


symmetric = hnp.arrays(
    np.float64,
    st.integers(3, 8).map(lambda n: (n, n)),
    elements=st.floats(0.5, 3.0),
).map(lambda a: (a + a.T) / 2)


@given(symmetric, st.sampled_from([np.triu, np.tril, np.array]), st.booleans())
def test_any_stored_half_gives_the_whole(matrix, keep, gaps):
    if gaps:
        matrix = matrix.copy()
        matrix[1, :] = matrix[:, 1] = np.nan
    completed = complete(keep(matrix))
    assert completed is not None
    np.testing.assert_array_equal(completed[0], matrix)
    assert not completed[1].significant


def test_declared_half_counts_where_both_hold_values():
    matrix = np.array([[1.0, 2.0], [3.0, 1.0]])
    for declared, value in ((Populated.UPPER, 2.0), (Populated.LOWER, 3.0)):
        full, asymmetry = complete(matrix, declared)
        assert full[0, 1] == full[1, 0] == value
        assert not asymmetry.significant


@pytest.mark.parametrize(
    ("diagonal", "expected"),
    [
        (lambda m: np.diagonal(m), True),
        (lambda m: np.full(len(m), 1.0), False),
        (lambda m: np.full(len(m), np.nan), False),
        (lambda m: np.append(np.diagonal(m, 1), 1.2), False),
        (
            lambda m: (
                (np.diagonal(m, 1)[[0, *range(15)]] + np.diagonal(m, 1)[[*range(15), 14]]) / 2
            ),
            False,
        ),
        (lambda m: np.diagonal(m, 1)[np.random.default_rng(1).permutation(16) % 15], None),
    ],
)
def test_origin_of_the_diagonal(diagonal, expected):
    c2 = SAMPLE.c2
    for matrix in c2:
        np.fill_diagonal(matrix, diagonal(matrix.copy()))
    assert diagonal_is_raw(c2) is expected
