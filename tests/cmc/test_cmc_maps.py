"""Maps of a run folder: thinned data, model and residuals, whatever is held at a time."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core import rows
from heterodyne.core._jax import jnp
from heterodyne.core.correlation import correlation_matrix
from heterodyne.core.simulate import creep_flow, simulate_pairs
from heterodyne.data import from_arrays
from heterodyne.optimization.bind import bind
from heterodyne.optimization.cmc._record import maps

N, PHI = 40, (0.0, 45.0)
CONTRAST, OFFSET = np.array([[0.2, 0.3]]), np.array([[1.0, 1.1]])
EXPERIMENT = creep_flow(N, PHI)
C2 = simulate_pairs(EXPERIMENT, CONTRAST[0], OFFSET[0], 0.01, 0).astype(np.float32)


def fitted(c2, bad=(5, 17)):
    """A fit that stands at the truth, and its data as float32."""
    data = from_arrays(c2, q=EXPERIMENT.q, phi=PHI, dt=EXPERIMENT.dt, bad_frames=bad)
    data = replace(data, c2=c2)
    scales = SimpleNamespace(contrast=CONTRAST, offset=OFFSET)
    problem = bind(data, ParameterSpace())
    return SimpleNamespace(
        problem=problem, parameters=EXPERIMENT.parameters, least_squares=scales
    ), data


def model():
    p, t = jnp.asarray(EXPERIMENT.parameters), jnp.asarray(EXPERIMENT.t)
    g = [np.asarray(correlation_matrix(p, t, EXPERIMENT.q, EXPERIMENT.dt, a)) for a in PHI]
    return OFFSET[0][:, None, None] + CONTRAST[0][:, None, None] * np.stack(g)


def test_few_frames_are_not_thinned():
    fit, data = fitted(C2)
    found = maps(fit, data)
    used = np.outer(data.fitted, data.fitted) & ~np.eye(N, dtype=bool)
    np.testing.assert_array_equal(found["measured"], C2)
    np.testing.assert_allclose(found["model"], model(), rtol=1e-6)
    residual = np.where(used, C2 - model(), np.nan)
    np.testing.assert_allclose(found["residual"], residual, atol=1e-7)
    np.testing.assert_array_equal(found["t"], data.t)
    assert found["phi"].tolist() == list(PHI)
    np.testing.assert_allclose(found["lags"], data.dt * np.arange(1, N))


def test_lag_means_of_the_model_are_those_of_the_fitted_pairs():
    fit, data = fitted(C2)
    found = maps(fit, data)
    i, j = np.triu_indices(N, 1)
    used = data.fitted[i] & data.fitted[j]
    for lag in (1, 4, N - 1):
        at = used & (j - i == lag)
        expected = model()[:, i[at], j[at]].mean(1)
        np.testing.assert_allclose(found["lag_model"][:, lag - 1], expected, rtol=1e-12)
    np.testing.assert_array_equal(found["lag_measured"], fit.problem.data.lag_mean[:, 1:])


@pytest.mark.parametrize("size", [1, 8 * N * 9, 2**24])
def test_thinned_maps_do_not_depend_on_the_stretches(monkeypatch, size):
    fit, data = fitted(C2)
    # Eight blocks of five frames.
    monkeypatch.setattr("heterodyne.viz.thin.Thinning.of.__func__.__defaults__", (8,))
    monkeypatch.setattr(rows, "STRETCH_BYTES", size)
    found = maps(fit, data)
    off = np.where(np.eye(N), np.nan, 1.0)
    used = np.where(np.outer(data.fitted, data.fitted), off, np.nan)
    parts = {"measured": C2 * off, "model": model() * off, "residual": (C2 - model()) * used}
    for name, matrices in parts.items():
        expected = np.nanmean(matrices.reshape(2, 8, 5, 8, 5), axis=(2, 4))
        np.testing.assert_allclose(found[name], expected, rtol=2e-5, atol=1e-8)
    np.testing.assert_allclose(found["t"], data.t.reshape(8, 5).mean(1))


def test_maps_need_room_for_a_few_rows(monkeypatch):
    n = 1400
    large = replace(EXPERIMENT, n_frames=n, phi=PHI[:1])
    c2 = np.ones((1, n, n), np.float32)
    data = from_arrays(c2, q=large.q, phi=PHI[:1], dt=large.dt)
    fit, _ = fitted(C2)
    fit.problem = bind(data, ParameterSpace())
    monkeypatch.setattr(rows, "STRETCH_BYTES", 2**16)
    tracemalloc.start()
    try:
        maps(fit, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 0.3 * 8 * n**2
