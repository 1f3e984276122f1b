"""Measured pairs in the form of the kernel: what is counted, refused and estimated."""

from __future__ import annotations

import numpy as np
import pytest

from heterodyne._errors import DataError
from heterodyne.core.likelihood import fitted_frames, pack_pairs

N, DT, Q = 30, 0.1, 0.01
T = DT * np.arange(1.0, N + 1)
PHI = np.array([0.0, 60.0])
RNG = np.random.default_rng(8)
C2 = 1.1 + 0.1 * RNG.random((2, N, N))
C2 = np.triu(C2) + np.triu(C2, 1).swapaxes(1, 2)
FIRST, SECOND = np.triu_indices(N, 1)


def packed(c2=C2, t=T, phi=PHI, **settings):
    return pack_pairs(c2, t, Q, DT, phi, **settings)


def assert_same(one, other):
    for a, b in zip(one[:5] + one[7:], other[:5] + other[7:], strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(one.blocks, other.blocks, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_symmetric_matrix_counts_each_pair_once():
    data = packed()
    values = C2[:, FIRST, SECOND]
    assert data.n_pairs.tolist() == [N * (N - 1) // 2] * 2
    np.testing.assert_array_equal(data.total_weight, data.n_pairs)
    np.testing.assert_allclose(data.baseline, values.mean(1), rtol=1e-14)
    np.testing.assert_allclose(data.square, values.var(1) * values.shape[1], rtol=1e-12)
    np.testing.assert_allclose(data.residue, 0, atol=1e-12)


def test_diagonal_and_lower_triangle_are_not_read():
    other = C2.copy()
    other[:, np.arange(N), np.arange(N)] = 99.0
    other[:, SECOND, FIRST] = np.nan
    assert_same(packed(), packed(other))


def test_bad_frames_and_time_zero_are_not_read():
    mask = np.ones(N, bool)
    mask[[4, 11]] = False
    t = T - DT
    other = C2.copy()
    for frame in (0, 4, 11):
        other[:, frame] = other[:, :, frame] = np.nan
    data = packed(other, t, mask=mask)
    assert_same(packed(t=t, mask=mask), data)
    assert data.n_pairs.tolist() == [(N - 3) * (N - 4) // 2] * 2
    np.testing.assert_array_equal(np.flatnonzero(data.mask == 0), [0, 4, 11])
    np.testing.assert_array_equal(fitted_frames(t, mask), data.mask)


def test_weights_are_those_of_each_angle_or_of_all():
    weights = RNG.uniform(0.5, 2.0, (2, N, N)) * (RNG.random((2, N, N)) > 0.2)
    data = packed(weights=weights)
    w, values = weights[:, FIRST, SECOND], C2[:, FIRST, SECOND]
    mean = (w * values).sum(1) / w.sum(1)
    np.testing.assert_allclose(data.baseline, mean, rtol=1e-14)
    np.testing.assert_allclose(data.total_weight, w.sum(1), rtol=1e-14)
    np.testing.assert_array_equal(data.n_pairs, (w > 0).sum(1))
    np.testing.assert_allclose(data.square, (w * (values - mean[:, None]) ** 2).sum(1))
    shared = packed(weights=weights[0])
    np.testing.assert_allclose(shared.total_weight, [w[0].sum()] * 2, rtol=1e-14)


def test_values_without_weight_are_not_read():
    weights = np.ones((N, N))
    weights[3, 9] = 0
    other = C2.copy()
    other[:, 3, 9] = np.nan
    assert_same(packed(weights=weights), packed(other, weights=weights))


def test_mean_of_each_lag():
    mask = np.arange(N) != N - 1
    data = packed(mask=mask)
    expected = [np.diagonal(C2[:, :-1, :-1], lag, 1, 2).mean(1) for lag in range(1, N - 1)]
    np.testing.assert_allclose(data.lag_mean[:, 1:-1], np.transpose(expected), rtol=1e-13)
    assert np.isnan(data.lag_mean[:, [0, -1]]).all()


@pytest.mark.parametrize("sigma", [1e-4, 0.02])
def test_noise_is_found_under_a_smooth_signal(sigma):
    n = 120
    t = DT * np.arange(1.0, n + 1)
    signal = 1 + 0.2 * np.exp(-0.2 * np.abs(np.subtract.outer(t, t)))
    c2 = signal + np.random.default_rng(9).normal(scale=sigma, size=(2, n, n))
    # 7,000 second differences, which share values, leave about 1.5 percent.
    np.testing.assert_allclose(packed(c2, t).noise, sigma, rtol=0.06)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"c2": C2[:1]}, r"shape \(1, 30, 30\), but 2 angles and 30 times need \(2, 30, 30\)"),
        ({"c2": C2[0]}, r"shape \(30, 30\)"),
        ({"t": T[:-1]}, r"2 angles and 29 times need \(2, 29, 29\)"),
        ({"phi": 0.0}, "1 angles and 30 times"),
        ({"mask": np.arange(N) == 3}, "1 frames are left to fit. Allowed: at least 2"),
        ({"mask": np.arange(N) < 2, "t": T - DT}, "1 frames are left to fit"),
        ({"weights": np.zeros((N, N))}, "weights: no pair has a weight above 0 at angle 0"),
        ({"weights": np.ones((2, N, N)) * np.array([1, 0])[:, None, None]}, "at angle 1"),
    ],
)
def test_what_cannot_be_fitted_is_refused(changes, message):
    with pytest.raises(DataError, match=message):
        packed(**changes)
