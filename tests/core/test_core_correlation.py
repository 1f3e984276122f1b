"""Two-time correlation: closed forms and symmetries."""

from __future__ import annotations

import numpy as np
import numpy_model as oracle
import pytest

from heterodyne._errors import DataError
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.core._jax import jax, jnp
from heterodyne.core.correlation import correlation_matrix
from heterodyne.core.jax_backend import compute_c2_heterodyne
from heterodyne.core.physics_cmc import compute_c2_elementwise, precompute_shard_grid

N, DT, Q = 24, 0.25, 0.01
T = DT * np.arange(1.0, N + 1)
LAG = np.abs(np.subtract.outer(T, T))
matrix = jax.jit(correlation_matrix)


def parameters(**values):
    rest = dict.fromkeys(PHYSICS_PARAM_NAMES, 0.0)
    assert set(values) <= set(rest)
    return jnp.asarray(list({**rest, **values}.values()))


def correlation(phi=0.0, **values):
    return np.asarray(matrix(parameters(**values), jnp.asarray(T), Q, DT, phi))


def test_matrix_equals_formula_and_is_symmetric_with_unit_diagonal():
    grid = oracle.Grid(T, Q, DT, np.array([35.0]))
    for p in oracle.draw_parameters(20, T, np.random.default_rng(1)):
        g = np.asarray(matrix(jnp.asarray(p), jnp.asarray(T), Q, DT, 35.0))
        np.testing.assert_allclose(g, oracle.correlation(p, grid)[0].astype(float), atol=1e-12)
        np.testing.assert_allclose(g, g.T, atol=1e-15)
        np.testing.assert_allclose(np.diagonal(g), 1.0, rtol=1e-14)


@pytest.mark.parametrize(("component", "f3"), [("ref", 0.0), ("sample", 1.0)])
def test_one_component_decays_with_its_transport_coefficient(component, f3):
    values = {f"D0_{component}": 900.0, f"D_offset_{component}": 300.0, "v0": 70.0, "f3": f3}
    np.testing.assert_allclose(correlation(**values), np.exp(-(Q**2) * 1200.0 * LAG), rtol=1e-12)


def test_linear_transport_coefficient_integrates_to_a_parabola():
    g = correlation(D0_ref=800.0, alpha_ref=1.0)
    integral = np.abs(np.subtract.outer(T**2, T**2)) * 800.0 / 2
    np.testing.assert_allclose(g, np.exp(-(Q**2) * integral), rtol=1e-12)


@pytest.mark.parametrize(("phi", "phi0"), [(0, 0), (40, 5), (95, -5), (170, 10), (-60, 3)])
def test_equal_amplitudes_at_rest_oscillate_with_the_flow(phi, phi0):
    g = correlation(phi=phi, v0=80.0, v_offset=40.0, f3=0.5, phi0=phi0)
    phase = Q * np.cos(np.deg2rad(phi + phi0)) * 120.0 * LAG
    np.testing.assert_allclose(g, (1 + np.cos(phase)) / 2, atol=1e-13)


def test_cross_term_decays_with_the_mean_of_both_transports():
    g = correlation(D0_ref=400.0, D0_sample=2000.0, f3=0.25)
    own = 0.75**4 * np.exp(-(Q**2) * 400 * LAG) + 0.25**4 * np.exp(-(Q**2) * 2000 * LAG)
    cross = 2 * (0.75 * 0.25) ** 2 * np.exp(-(Q**2) * 1200 * LAG)
    np.testing.assert_allclose(g, (own + cross) / (0.75**2 + 0.25**2) ** 2, rtol=1e-12)


def test_components_can_be_swapped():
    flow = {"v0": 30.0, "v_offset": 5.0, "beta": 0.4}
    one = correlation(D0_ref=400.0, alpha_ref=0.3, D0_sample=3e3, f0=0.1, f3=0.2, **flow)
    other = correlation(D0_sample=400.0, alpha_sample=0.3, D0_ref=3e3, f0=0.1, f3=0.6, **flow)
    np.testing.assert_allclose(one, other, atol=1e-13)
    assert np.ptp(one) > 0.1


def test_amplitude_and_origin_of_the_fraction_enter_together():
    shared = {"D0_ref": 300.0, "D0_sample": 5e3, "f1": 0.4, "f3": 0.1}
    one = correlation(f0=0.2, f2=1.0, **shared)
    other = correlation(f0=0.2 * np.exp(0.4 * 2.0), f2=3.0, **shared)
    np.testing.assert_allclose(one, other, atol=1e-13)


EXAMPLE = oracle.draw_parameters(3, T, np.random.default_rng(2))[2]


def test_c2_is_offset_plus_contrast_times_correlation():
    grid = oracle.Grid(T, Q, DT, np.array([20.0]))
    g = oracle.correlation(EXAMPLE, grid)[0].astype(float)
    c2 = compute_c2_heterodyne(EXAMPLE, T, Q, DT, 20.0, 0.3, 1.1)
    np.testing.assert_allclose(c2, 1.1 + 0.3 * g, rtol=1e-12)
    np.testing.assert_allclose(compute_c2_heterodyne(EXAMPLE, T, Q, DT, 20.0), 1 + g, rtol=1e-12)


def test_chosen_pairs_equal_entries_of_the_matrix():
    rng = np.random.default_rng(6)
    i, j = rng.integers(0, N, (2, 50))
    jitter = rng.uniform(-0.009, 0.009, (2, 50)) * DT
    grid = precompute_shard_grid(T, T[i] + jitter[0], T[j] + jitter[1])
    found = compute_c2_elementwise(EXAMPLE, grid, Q, DT, 20.0, 0.3, 1.1)
    expected = np.asarray(compute_c2_heterodyne(EXAMPLE, T, Q, DT, 20.0, 0.3, 1.1))[i, j]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("time", [T[3] + 0.02 * DT, T[0] - DT, T[-1] + DT])
def test_time_on_no_frame_is_refused(time):
    with pytest.raises(DataError, match=rf"{time:g} s lies on no frame.*0.25 to 6 s in steps"):
        precompute_shard_grid(T, [T[2], time], [T[4], T[4]])
    with pytest.raises(DataError, match="lies on no frame"):
        precompute_shard_grid(T, [T[4]], [time])
