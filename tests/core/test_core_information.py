"""Inner products of the correlation against sums over a dense Jacobian."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy_model as oracle
import pytest

from heterodyne.core._jax import jax, jnp
from heterodyne.core.information import gram
from heterodyne.core.likelihood import pack_pairs

N, DT, Q = 41, 0.1, 0.02
PHI = np.array([-30.0, 50.0])
T = DT * np.arange(N)
GRID = oracle.Grid(T, Q, DT, PHI)
MASK = np.arange(N) % 11 != 7
PAIRS = np.triu(np.outer(MASK & (T > 0), MASK & (T > 0)), 1).astype(float)
SETS = oracle.draw_parameters(10, T, np.random.default_rng(3))
# Coordinates that mix all 14 parameters.
MIX = np.random.default_rng(4).normal(size=(14, 4)) * oracle.UNITS[:, None] * 0.1


def random_weights():
    rng = np.random.default_rng(5)
    shape = (PHI.size, N, N)
    return np.where(rng.random(shape) < 0.3, 0.0, rng.uniform(0.2, 3.0, shape))


@pytest.fixture(params=[None, random_weights()], ids=["equal", "weights"], scope="module")
def data_and_weights(request):
    c2 = np.ones((PHI.size, N, N))
    data = pack_pairs(c2, T, Q, DT, PHI, mask=MASK, weights=request.param)
    weights = PAIRS * np.ones(c2.shape) if request.param is None else PAIRS * request.param
    return data, weights


@jax.jit
def gram_at(base, data):
    return gram(lambda y: base + jnp.asarray(MIX) @ y, jnp.zeros(MIX.shape[1]), data)


def dense_functions(base):
    """dG/dy_1 ... dG/dy_p, G and 1 at all pairs, shape (p + 2, n_angles, N, N)."""
    g = partial(oracle.correlation, grid=GRID)
    h = oracle.LONG(1e-5)

    def slope(direction):
        near, far = (g(base + k * h * direction) - g(base - k * h * direction) for k in (1, 2))
        return (8 * near - far) / (12 * h)

    value = g(base)
    return np.stack([*(slope(direction) for direction in MIX.T), value, np.ones_like(value)])


def test_gram_equals_sums_over_dense_jacobian(data_and_weights):
    data, weights = data_and_weights
    errors = []
    for base in SETS:
        functions = dense_functions(base)
        expected = np.einsum("paij,qaij,aij->apq", functions, functions, weights).astype(float)
        size = np.sqrt(np.einsum("app->ap", expected))
        error = np.abs(np.asarray(gram_at(base, data)) - expected)
        errors.append((error / size[:, :, None] / size[:, None]).max())
    assert max(errors) < 1e-10
