import numpy as np
import pytest

from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jax, jnp
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates

T = 0.1 * np.arange(1.0, 31.0)


def test_centring_changes_f0_and_f2_alone_and_not_the_fraction():
    coordinates = PhysicsCoordinates.of(ParameterSpace(), T)
    start = np.array([ParameterSpace()[n].value for n in coordinates.names])
    start[coordinates.names.index("f1")] = 0.3
    start[coordinates.names.index("f2")] = 2.0
    forward = jax.jit(lambda y: coordinates.forward(y)[0])
    y = np.asarray(coordinates.inverse(jnp.asarray(coordinates.inside(start)))) + 0.01
    before, after = (np.asarray(forward(jnp.asarray(x))) for x in (y, coordinates.ridge_centred(y)))
    names = list(coordinates.names)
    kept = [k for k, n in enumerate(names) if n not in ("f0", "f2")]
    np.testing.assert_allclose(after[kept], before[kept], rtol=1e-12)
    assert abs(after[names.index("f2")] - before[names.index("f2")]) > 1e-3
    f0, f1, f2 = (names.index(n) for n in ("f0", "f1", "f2"))
    amplitudes = [p[f0] * np.exp(-p[f1] * p[f2]) for p in (before, after)]
    assert amplitudes[1] == pytest.approx(amplitudes[0], rel=1e-9)


def test_without_a_ridge_nothing_is_centred():
    coordinates = PhysicsCoordinates.of(ParameterSpace().fix("f0"), T)
    y = np.arange(2.0 * coordinates.size).reshape(2, -1)
    np.testing.assert_array_equal(coordinates.ridge_centred(y), y)
