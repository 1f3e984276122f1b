"""Matrices in stretches of rows: what is cut, and that results do not depend on the cuts."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core import rows
from heterodyne.core._jax import jax, jnp
from heterodyne.core.correlation import correlation_matrix, correlation_stretches
from heterodyne.core.likelihood import mean_by_lag, pack_pairs, sums
from heterodyne.core.simulate import Detector, creep_flow, simulate_pairs, simulate_speckles
from heterodyne.core.speckle_moments import ResidualMoments, Rows

N, DT, Q = 33, 0.1, 0.0054
T = DT * np.arange(1.0, N + 1)
PHI = (0.0, 60.0)
PARAMETERS = np.array([ParameterSpace()[n].value for n in PHYSICS_PARAM_NAMES])
RNG = np.random.default_rng(4)
# Values that float32 holds exactly.
C2 = (1.1 + 0.1 * RNG.random((2, N, N))).astype(np.float32)
WEIGHTS = RNG.uniform(0.5, 2.0, (2, N, N)) * (RNG.random((2, N, N)) > 0.2)
MASK = ~np.isin(np.arange(N), [0, 7, 20])
# One row, odd numbers of rows, all rows.
STRETCHES = (1, 8 * N * 5, 8 * N * 7 + 1, 2**24)


def stretched(monkeypatch, size):
    monkeypatch.setattr(rows, "STRETCH_BYTES", size)


@given(st.integers(1, 200), st.integers(1, 50), st.integers(1, 9), st.integers(1, 4000))
def test_stretches_are_all_rows_in_order(n_rows, n_columns, multiple, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "STRETCH_BYTES", size)
        found = list(rows.row_slices(n_rows, n_columns, multiple))
    assert [k for part in found for k in range(n_rows)[part]] == list(range(n_rows))
    heights = [part.stop - part.start for part in found]
    assert all(height % multiple == 0 for height in heights[:-1])
    assert len(set(heights[:-1])) <= 1
    assert max(heights) <= max(multiple, size // (8 * n_columns))


def packed(c2, **selection):
    return jax.tree.leaves(pack_pairs(c2, T, Q, DT, PHI, **selection))


def holes(c2):
    """The same with NaN in what is not to be read."""
    other = c2.copy()
    other[:, ~MASK] = other[:, :, ~MASK] = np.nan
    other[:, *np.tril_indices(N)] = np.nan
    return np.where((WEIGHTS > 0) | np.isnan(other), other, np.nan)


@pytest.mark.parametrize("size", STRETCHES)
@pytest.mark.parametrize("selection", [{}, {"mask": MASK}, {"mask": MASK, "weights": WEIGHTS}])
def test_packed_pairs_do_not_depend_on_the_stretches(monkeypatch, size, selection):
    expected = packed(C2, **selection)
    stretched(monkeypatch, size)
    c2 = holes(C2) if "weights" in selection else C2
    for one, other in zip(packed(c2, **selection), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("selection", [{}, {"mask": MASK, "weights": WEIGHTS}])
def test_float32_counts_as_the_float64_of_its_values(selection):
    c2 = np.moveaxis(C2, 0, 2).copy().transpose(2, 0, 1)
    expected = packed(C2.astype(np.float64), **selection)
    for one, other in zip(packed(c2, **selection), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_packing_needs_room_for_the_blocks_only(monkeypatch):
    n = 1200
    c2 = np.ones((1, n, n), np.float32)
    stretched(monkeypatch, 2**16)
    tracemalloc.start()
    try:
        data = pack_pairs(c2, DT * np.arange(1.0, n + 1), Q, DT, [0.0])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    blocks = sum(block.nbytes for block in data.blocks)
    # A whole matrix in float64 would take as much again, twice.
    assert peak < 1.3 * blocks


def test_sums_over_pairs_do_not_copy_the_pairs():
    n = 1200
    data = pack_pairs(np.ones((1, n, n)), DT * np.arange(1.0, n + 1), Q, DT, [0.0])
    gradient = jax.jit(jax.value_and_grad(lambda p, d: sums(p, d).dg.sum()))
    found = gradient.lower(jnp.asarray(PARAMETERS), data).compile().memory_analysis()
    assert found.temp_size_in_bytes < data.blocks[0].nbytes


@pytest.mark.parametrize("size", STRETCHES)
def test_correlation_in_stretches(monkeypatch, size):
    stretched(monkeypatch, size)
    parameters, t = jnp.asarray(PARAMETERS), jnp.asarray(T)
    whole = np.asarray(correlation_matrix(parameters, t, Q, DT, 20.0))
    frames = np.flatnonzero(MASK)
    for chosen, expected in ((None, whole), (frames, whole[np.ix_(frames, frames)])):
        found = np.full_like(expected, np.nan)
        parts = correlation_stretches(parameters, t, Q, DT, 20.0, chosen, multiple=4)
        for part, g in parts:
            assert part.start % 4 == 0
            found[part] = g
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("height", [1, 2, 5, N])
def test_moments_of_residuals_in_stretches(height):
    residuals = C2[0] - 1.15 + 0.0
    used = (WEIGHTS[0] + WEIGHTS[0].T > 0) & ~np.eye(N, dtype=bool)
    g = np.asarray(correlation_matrix(jnp.asarray(PARAMETERS), jnp.asarray(T), Q, DT, 20.0))
    whole = ResidualMoments.of(residuals, g, 0.3, used)
    cuts = [slice(k, k + height) for k in range(0, N, height)]
    limit = 6 * 1.4826 * np.median(np.abs(residuals[used]))
    found = ResidualMoments.summed([Rows(residuals[c], g[c], used[c]) for c in cuts], 0.3, limit)
    for name, value in vars(whole).items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("size", [1, 2500])
@pytest.mark.parametrize(
    "simulate",
    [
        lambda e: simulate_pairs(e, [0.2, 0.3], 1.0, 0.02, 5),
        lambda e: simulate_speckles(e, Detector(60, 2, photons=3.0), 5),
    ],
    ids=["pairs", "speckles"],
)
def test_simulated_data_do_not_depend_on_the_stretches(monkeypatch, simulate, size):
    experiment = creep_flow(24, (0.0, 45.0))
    expected = simulate(experiment)
    np.testing.assert_array_equal(expected, expected.swapaxes(1, 2))
    stretched(monkeypatch, size)
    np.testing.assert_allclose(simulate(experiment), expected, rtol=1e-13)


@pytest.mark.parametrize("size", STRETCHES)
def test_means_at_each_lag(monkeypatch, size):
    stretched(monkeypatch, size)
    weights = WEIGHTS.copy()
    weights[1, *np.diag_indices(N)] = 3.0
    i, j = np.triu_indices(N, 1)
    weights[:, i[j - i == 4], j[j - i == 4]] = 0.0
    found = mean_by_lag(weights, C2)
    assert np.isnan(found[:, [0, 4]]).all()
    for lag in (1, 7, N - 1):
        w, v = (np.diagonal(x, lag, 1, 2) for x in (weights, C2))
        np.testing.assert_allclose(found[:, lag], (w * v).sum(1) / w.sum(1))
