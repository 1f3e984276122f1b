"""The separable sum of squares against two evaluations pair by pair."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy_model as oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heterodyne.core._jax import jax, jnp
from heterodyne.core.likelihood import (
    PairData,
    direct_sum_of_squares,
    pack_pairs,
    sum_of_squares,
    sums,
)
from heterodyne.core.separable import Layout

N_SETS = 50
DT, Q = 0.1, 0.02
ANGLES = np.array([-40.0, 15.0, 80.0])
UNITS = jnp.asarray(oracle.UNITS)


class Setting(NamedTuple):
    """What the 50 parameter sets are evaluated on; frames are one more than a power of 2."""

    n_frames: int
    n_angles: int
    sigma: float
    weighted: bool = False


SMALL_NOISE = Setting(65, 3, sigma=1e-4)
NOISE = Setting(65, 3, sigma=1e-2)
WEIGHTS = Setting(33, 3, sigma=1e-2, weighted=True)
ONE_ANGLE = Setting(33, 1, sigma=1e-2)
SETTINGS = {"small": SMALL_NOISE, "noise": NOISE, "weights": WEIGHTS, "one_angle": ONE_ANGLE}


def on(*names):
    return pytest.mark.parametrize("setting", [SETTINGS[n] for n in names], ids=names)


class Case(NamedTuple):
    grid: oracle.Grid
    parameters: np.ndarray
    contrast: np.ndarray
    offset: np.ndarray
    c2: np.ndarray
    weights: np.ndarray  # of all pairs, zero where a frame is not fitted
    data: PairData

    @property
    def point(self):
        return self.parameters, self.contrast, self.offset

    @property
    def scaled(self):
        return np.concatenate([self.parameters / oracle.UNITS, self.contrast, self.offset])

    @property
    def reference(self):
        return self.grid, self.c2, self.weights


def make_case(k, parameters, rng, setting):
    # Every other time axis starts at 0; a third of the sets has bad frames.
    n, n_angles, sigma, weighted = setting
    t = DT * np.arange(n) + (DT if k % 2 else 0.0)
    grid = oracle.Grid(t, Q, DT, ANGLES[:n_angles])
    mask = rng.random(n) > (0.1 if k % 3 == 1 else 0.0)
    contrast, offset = rng.uniform(0.05, 0.4, n_angles), rng.uniform(0.9, 1.1, n_angles)
    shape = (n_angles, n, n)
    c2 = offset[:, None, None] + contrast[:, None, None] * oracle.correlation(parameters, grid)
    c2 = c2.astype(float) + rng.normal(scale=sigma, size=shape)
    c2[:, ~mask] = c2[:, :, ~mask] = np.nan
    c2[:, np.arange(n), np.arange(n)] = 7.0
    weights = None
    if weighted:
        weights = np.where(rng.random(shape) < 0.3, 0.0, rng.uniform(0.2, 3.0, shape))
    data = pack_pairs(c2, t, Q, DT, grid.phi, mask=mask, weights=weights)
    used = np.outer(mask & (t > 0), mask & (t > 0)) * np.ones(shape)
    used = used if weights is None else used * weights
    return Case(grid, parameters, contrast, offset, c2, used, data)


@lru_cache
def make_cases(setting):
    rng = np.random.default_rng(20)
    t = DT * np.arange(setting.n_frames + 1)
    sets = oracle.draw_parameters(N_SETS, t, rng)
    return [make_case(k, p, rng, setting) for k, p in enumerate(sets)]


def value_and_gradient(squares, x):
    """Squares of each angle, and the gradient of their sum in units of the parameters."""

    def total(x):
        n = (x.shape[0] - 14) // 2
        value = squares(x[:14] * UNITS, x[14 : 14 + n], x[14 + n :])
        return value.sum(), value

    (_, value), slope = jax.value_and_grad(total, has_aux=True)(x)
    return value, slope


@jax.jit
def separable(x, data):
    return value_and_gradient(lambda *point: sum_of_squares(*point, data), x)


@jax.jit
def direct(x, data, c2, weights):
    return value_and_gradient(lambda *point: direct_sum_of_squares(*point, data, c2, weights), x)


def relative(value, expected):
    return float(np.abs(np.asarray(value) / expected - 1).max())


def distance(found, expected):
    """Errors of the gradient in physics parameters and in scaling, each over its norm."""
    found = np.asarray(found)
    parts = ((found[k], expected[k]) for k in (slice(0, 14), slice(14, None)))
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in parts)


def test_parameter_sets_cover_every_branch():
    cases = make_cases(SMALL_NOISE)
    floored, fractions, decays, turns = [], [], [], []
    for case in cases:
        *rates, fraction = oracle.unclipped(case.parameters, case.grid.t[1:])
        floored += [min(rate.min() for rate in rates) < 0]
        fractions += [(fraction.min() < 0, fraction.max() > 1)]
        decays += [max(oracle.integral(np.maximum(rate, 0), DT)[-1] for rate in rates)]
        v = oracle.power_law(case.grid.t[1:], *case.parameters[6:9])
        turns += [v.min() < 0 < v.max()]
    assert sum(floored) >= 10
    assert np.sum(fractions, axis=0).min() >= 5
    assert np.sum(Q**2 * np.array(decays) > 1000) >= 5
    assert sum(turns) >= 10
    assert {float(case.grid.t[0]) for case in cases} == {0.0, DT}
    assert 5 <= sum(np.isnan(case.c2).any() for case in cases) < N_SETS


@on("noise", "weights")
def test_value_and_gradient_equal_direct_evaluation(setting):
    errors = []
    for case in make_cases(setting):
        value, slope = separable(case.scaled, case.data)
        expected, expected_slope = direct(case.scaled, case.data, case.c2, case.weights)
        errors.append((relative(value, expected), distance(slope, expected_slope)))
    assert np.max(errors, axis=0) == pytest.approx([0, 0], abs=1e-10)


@on("noise", "weights", "one_angle")
def test_value_equals_formula_in_extended_precision(setting):
    errors = []
    for case in make_cases(setting):
        value, _ = separable(case.scaled, case.data)
        errors.append(relative(value, oracle.sum_of_squares(*case.point, *case.reference)))
    assert max(errors) < 1e-10


def test_value_at_small_noise_equals_formula_in_extended_precision():
    cases = make_cases(SMALL_NOISE)
    errors = []
    for case, other in zip(cases, cases[7:] + cases[:7], strict=True):
        point = (other.parameters, case.contrast, case.offset)
        scaled = np.concatenate([other.parameters / oracle.UNITS, case.contrast, case.offset])
        value, _ = separable(scaled, case.data)
        errors.append(relative(value, oracle.sum_of_squares(*point, *case.reference)))
    assert max(errors) < 1e-10


@on("small", "weights", "one_angle")
def test_gradient_equals_differences_in_extended_precision(setting):
    errors = []
    for case in make_cases(setting)[::7]:
        _, slope = separable(case.scaled, case.data)
        errors.append(distance(slope, oracle.gradient(*case.point, *case.reference)))
    assert max(errors) < 1e-8


def test_no_digits_are_lost_to_the_baseline():
    # At the truth the squares of the signal cancel down to the squares of the noise, here
    # by up to 1e7; what may remain is the rounding of the largest terms without baseline.
    errors, chi_squares = [], []
    for case in make_cases(SMALL_NOISE):
        value, _ = separable(case.scaled, case.data)
        expected = oracle.sum_of_squares(*case.point, *case.reference)
        error = np.abs(np.asarray(value) - expected).astype(float)
        errors.append(np.max(error / rounding(case)))
        chi_squares.append(error.sum() / SMALL_NOISE.sigma**2)
    assert max(errors) < 4
    assert max(chi_squares) < 1e-4


def rounding(case):
    """Rounding of the terms that cancel, with signal and data counted from their mean."""
    used = np.where(np.triu(np.ones(case.c2.shape[1:]), 1) * case.weights > 0, 1.0, np.nan)
    g = oracle.correlation(case.parameters, case.grid).astype(float) * used
    d = case.c2 * used - np.nanmean(case.c2 * used, axis=(1, 2), keepdims=True)
    o = case.offset - np.nanmean(case.c2 * used, axis=(1, 2))
    terms = [
        np.nansum(d**2, axis=(1, 2)),
        o**2 * np.nansum(used, axis=(1, 2)),
        case.contrast**2 * np.nansum(g**2, axis=(1, 2)),
        2 * np.abs(o) * case.contrast * np.nansum(g, axis=(1, 2)),
        2 * case.contrast * np.abs(np.nansum(d * g, axis=(1, 2))),
    ]
    return np.finfo(float).eps * np.sum(terms, axis=0)


@given(st.integers(2, 200))
def test_layout_holds_every_pair_once(n):
    layout = Layout.of(n)
    matrix = np.triu(np.arange(1.0, n * n + 1).reshape(n, n), 1)
    blocks = layout.split(np.arange(1.0, n * n + 1).reshape(n, n))
    found = np.concatenate([block[block > 0] for block in blocks])
    assert np.sort(found).tolist() == np.sort(matrix[matrix > 0]).tolist()
    assert len(blocks) == layout.levels + 1
    assert blocks[-1].shape == (2**layout.levels, layout.leaf, layout.leaf)


def test_two_frames_are_one_pair():
    t = DT * np.arange(1.0, 3.0)
    parameters = jnp.asarray(make_cases(ONE_ANGLE)[0].parameters)
    g = float(oracle.correlation(parameters, oracle.Grid(t, Q, DT, ANGLES[:1]))[0, 0, 1])
    data = pack_pairs(1.25 * np.ones((1, 2, 2)), t, Q, DT, ANGLES[:1])
    found = jax.jit(sums)(parameters, data)
    assert float(found.g[0]) == pytest.approx(g, rel=1e-13)
    assert float(found.gg[0]) == pytest.approx(g**2, rel=1e-13)
    assert float(found.dg[0] + data.baseline[0] * found.g[0]) == pytest.approx(1.25 * g, rel=1e-13)
