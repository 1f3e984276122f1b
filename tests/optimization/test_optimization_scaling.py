"""Contrast and offset: modes, best values and information."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from heterodyne._errors import ConfigError
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jax, jnp
from heterodyne.core.correlation import correlate_pairs
from heterodyne.core.frames import frame_functions
from heterodyne.core.likelihood import expand_squares, pack_pairs, sums
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.problem import information, profiled_information
from heterodyne.optimization.scaling import Scaling, ScalingMode

# Few frames compile in a fraction of the time; the fit is tested with more of them.
T = 0.1 * np.arange(1.0, 19.0)
Q, DT, ANGLES = 0.01, 0.1, np.array([-20.0, 25.0, 70.0])
TRUTH = np.array([5e3, 0.4, 300.0, 9e3, -0.3, -500.0, 80.0, 0.2, 5.0, 0.3, 0.4, 1.0, 0.15, 3.0])
ROWS, COLUMNS = np.triu_indices(T.size, 1)


def shape_functions(parameters):
    functions = frame_functions(parameters, jnp.asarray(T))
    return jnp.stack([correlate_pairs(functions, ROWS, COLUMNS, Q, DT, phi) for phi in ANGLES])


G = np.asarray(jax.jit(shape_functions)(jnp.asarray(TRUTH)))
sums_at = jax.jit(sums)


def packed(pairs):
    c2 = np.zeros((ANGLES.size, T.size, T.size))
    c2[:, ROWS, COLUMNS] = pairs
    return pack_pairs(c2, T, Q, DT, ANGLES)


@pytest.mark.parametrize(
    ("word", "mode"),
    [
        ("individual", ScalingMode.INDIVIDUAL),
        ("scaled", ScalingMode.INDIVIDUAL),
        ("averaged", ScalingMode.AVERAGED),
        ("auto", ScalingMode.AVERAGED),
        ("constant", ScalingMode.CONSTANT),
        ("constant_averaged", ScalingMode.CONSTANT_AVERAGED),
    ],
)
def test_words_name_modes(word, mode):
    assert ScalingMode.parse(word) is mode


def test_an_unknown_word_is_refused_with_the_words_that_exist():
    with pytest.raises(ConfigError, match=r"'Individual'.*individual.*auto"):
        ScalingMode.parse("Individual")


MODES = {
    "individual": (6, ("contrast_0", "contrast_1", "contrast_2", "offset_0")),
    "averaged": (2, ("contrast", "offset")),
    "constant": (0, ()),
    "constant_averaged": (0, ()),
}


@pytest.mark.parametrize("word", MODES)
def test_mode_sets_the_number_of_unknowns(word):
    size, names = MODES[word]
    given_values = {"contrast": [0.1, 0.2, 0.6], "offset": [1.0, 1.1, 1.2]}
    scaling = Scaling.of(ScalingMode.parse(word), ParameterSpace(), 3, **given_values)
    assert (scaling.size, scaling.names[: len(names)]) == (size, names)
    unknowns = np.linspace(0.1, 0.9, size)
    contrast, offset = scaling.expand(jnp.asarray(unknowns))
    np.testing.assert_allclose(scaling.collapse(contrast, offset), unknowns, rtol=1e-14)
    assert contrast.shape == offset.shape == (3,)
    if word == "constant":
        np.testing.assert_allclose(contrast, given_values["contrast"])
        np.testing.assert_allclose(offset, given_values["offset"])
    if word == "constant_averaged":
        np.testing.assert_allclose(contrast, 0.3)
        np.testing.assert_allclose(offset, 1.1)


def test_constant_modes_need_values_of_what_varies():
    with pytest.raises(ConfigError, match="values of the contrast"):
        Scaling.of(ScalingMode.CONSTANT, ParameterSpace(), 2, offset=[1.0, 1.0])
    space = ParameterSpace.from_config({"contrast": 0.25}).fix("contrast")
    scaling = Scaling.of(ScalingMode.CONSTANT, space, 2, offset=[1.0, 1.1])
    assert scaling.expand(jnp.zeros(0))[0].tolist() == [0.25, 0.25]


def test_a_fixed_contrast_keeps_its_value_in_every_mode():
    space = ParameterSpace.from_config({"contrast": 0.25}).fix("contrast")
    scaling = Scaling.of(ScalingMode.INDIVIDUAL, space, 3)
    assert scaling.names == ("offset_0", "offset_1", "offset_2")
    contrast, _ = scaling.expand(jnp.asarray([1.0, 1.1, 1.2]))
    assert contrast.tolist() == [0.25] * 3


def bounded_minimum(scaling, pairs):
    """Contrast, offset and sum of squares by bounded linear least squares."""
    rows = [slice(None)] if scaling.mode.shared else [[k] for k in range(ANGLES.size)]
    contrast, offset, squares = np.empty(3), np.empty(3), 0.0
    for row in rows:
        g, c2 = G[row].ravel(), pairs[row].ravel()
        first = 0 if scaling.mode.shared else row[0]
        low, high = (
            np.array([getattr(p, end)[first] for p in (scaling.contrast, scaling.offset)])
            for end in ("low", "high")
        )
        design = np.stack([g, np.ones_like(g)], axis=1)
        # A range of zero width is a known term.
        free = high > low
        rest = c2 - design[:, ~free] @ low[~free]
        best = low.copy()
        if free.any():
            bounds = (low[free], high[free])
            best[free] = lsq_linear(design[:, free], rest, bounds, method="bvls").x
        contrast[row], offset[row] = best
        squares += ((c2 - design @ best) ** 2).sum()
    return contrast, offset, squares


@given(
    word=st.sampled_from(["individual", "averaged", "constant"]),
    fixed=st.sampled_from([(), ("contrast",), ("offset",)]),
    contrast=st.floats(-0.5, 1.5),
    offset=st.floats(0.2, 1.8),
    seed=st.integers(0, 2**20),
)
@settings(max_examples=80)
def test_profile_is_the_bounded_minimum(word, fixed, contrast, offset, seed):
    rng = np.random.default_rng(seed)
    spread = rng.normal(scale=0.1, size=(2, 3, 1))
    pairs = offset + spread[0] + (contrast + spread[1]) * G + rng.normal(scale=0.1, size=G.shape)
    space = ParameterSpace().fix(*fixed)
    constants = {"contrast": [0.2, 0.3, 0.4], "offset": [0.9, 1.0, 1.1]}
    scaling = Scaling.of(ScalingMode.parse(word), space, 3, **constants)
    data = packed(pairs)
    s = sums_at(jnp.asarray(TRUTH), data)
    found = scaling.profile(s, data)
    *expected, squares = bounded_minimum(scaling, pairs)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-6)
    assert float(expand_squares(s, *found, data).sum()) == pytest.approx(squares, rel=1e-8)


@pytest.mark.parametrize(
    ("word", "fixed"), [("individual", ()), ("averaged", ("offset", "f2", "v0", "alpha_sample"))]
)
def test_information_is_that_of_the_dense_jacobian(word, fixed):
    start = dict(zip(PHYSICS_PARAM_NAMES, TRUTH.tolist(), strict=True))
    space = ParameterSpace().with_values(start).fix(*fixed)
    coordinates = PhysicsCoordinates.of(space, T)
    scaling = Scaling.of(ScalingMode.parse(word), space, 3)
    rng = np.random.default_rng(4)
    pairs = 1.0 + np.array([[0.2], [0.3], [0.4]]) * G + rng.normal(scale=0.01, size=G.shape)
    y = jax.jit(coordinates.inverse)(TRUTH)
    found, contrast, _ = information(y, packed(pairs), coordinates, scaling)

    slopes = jax.jit(jax.jacfwd(lambda x: shape_functions(coordinates.forward(x)[0])))(y)
    n_pairs = G.shape[1]
    blocks = [np.asarray(slopes) * np.asarray(contrast)[:, None, None]]
    spread_c, spread_o = scaling.contrast.spread(), scaling.offset.spread()
    blocks.append(G[:, :, None] * spread_c[:, None])
    blocks.append(np.broadcast_to(spread_o[:, None], (3, n_pairs, scaling.offset.free)))
    dense = np.concatenate(blocks, axis=2).reshape(-1, coordinates.size + scaling.size)
    expected = dense.T @ dense
    # The slopes by f2 are zero but for rounding; those of the others are above 1e-5.
    scale = np.sqrt(np.diagonal(expected)) + 1e-6
    assert np.abs((found - expected) / scale[:, None] / scale).max() < 1e-9

    p = coordinates.size
    basis, _ = np.linalg.qr(dense[:, p:])
    rest = dense[:, :p] - basis @ (basis.T @ dense[:, :p])
    reduced = np.asarray(profiled_information(found, p))
    assert np.abs((reduced - rest.T @ rest) / scale[:p, None] / scale[:p]).max() < 1e-9


@pytest.mark.parametrize("mode", ["individual", "averaged", "constant"])
def test_the_sum_of_squares_is_the_parabola_of_its_derivatives(mode):
    rng = np.random.default_rng(5)
    data = packed(0.2 * G + 1.0 + 0.01 * rng.normal(size=G.shape))
    scaling = Scaling.of(
        ScalingMode.parse(mode), ParameterSpace(), 3, contrast=[0.2] * 3, offset=[1.0] * 3
    )
    s = sums_at(jnp.asarray(TRUTH), data)
    unknowns = jnp.asarray(rng.uniform(0.1, 1.2, size=scaling.size))

    def squares(x):
        return expand_squares(s, *scaling.expand(x), data).sum()

    gradient, curvature = scaling.quadratic(s, *scaling.expand(unknowns), data)
    np.testing.assert_allclose(2.0 * gradient, jax.grad(squares)(unknowns), rtol=1e-10)
    np.testing.assert_allclose(
        2.0 * curvature, jax.hessian(squares)(unknowns), rtol=1e-10, atol=1e-9
    )
