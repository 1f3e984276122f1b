"""A likelihood that is normal in what the data inform."""

from __future__ import annotations

import numpy as np
import pytest

from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jax, jnp
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.derived import Derived
from heterodyne.optimization.informed import carried_over, quantities

T = 0.1 * np.arange(1.0, 61.0)
TIMES = jnp.asarray([0.6, 3.0, 5.4])
PARAMETERS = np.array([2e4, 0.4, 300.0, 9e3, -0.3, 500.0, 80.0, 0.2, 5.0, 0.3, 0.2, 1.0, 0.15, 3.0])
COORDINATES = PhysicsCoordinates.of(ParameterSpace(), T)


@jax.jit
@jax.jacfwd
def slopes_at(y):
    return quantities(COORDINATES.forward(y)[0], TIMES)


def slopes_of(parameters):
    return np.asarray(slopes_at(COORDINATES.inverse(jnp.asarray(parameters))))


def test_quantities_are_those_of_the_report_and_phi0():
    found = quantities(jnp.asarray(PARAMETERS), TIMES)
    derived = Derived(tuple(TIMES.tolist()))
    np.testing.assert_allclose(found[:-1], derived(jnp.asarray(PARAMETERS)), rtol=1e-12)
    assert found[-1] == 3.0
    assert len(found) == 13


def informed_by(slopes, seed):
    """Information that comes from the quantities alone."""
    rng = np.random.default_rng(seed)
    size = np.abs(slopes).max(axis=1)
    root = rng.normal(size=(20, len(slopes))) / size
    return slopes.T @ root.T @ root @ slopes


@pytest.mark.parametrize("alpha", [0.4, 0.0], ids=["power law", "exponent 0"])
def test_information_is_carried_over_to_the_quantities(alpha):
    parameters = PARAMETERS.copy()
    parameters[PHYSICS_PARAM_NAMES.index("alpha_ref")] = alpha
    slopes = slopes_of(parameters)
    information = informed_by(slopes, 0)
    found = carried_over(information, slopes)
    size = np.sqrt(np.maximum(np.diagonal(information), 1e-12 * information.max()))
    outer = size[:, None] * size
    np.testing.assert_allclose(slopes.T @ found @ slopes / outer, information / outer, atol=1e-5)
    unit = np.abs(slopes).max(axis=1)
    values = np.linalg.eigvalsh(found * unit[:, None] * unit)
    assert values.min() > -1e-6 * values.max()


def test_coordinates_that_move_no_quantity_are_not_confined():
    # f2 alone does not change the fraction: its axis is the ridge of f0 and f2.
    slopes = slopes_of(PARAMETERS)
    k = PHYSICS_PARAM_NAMES.index("f2")
    np.testing.assert_allclose(slopes[:, k], 0.0, atol=1e-9)
    found = carried_over(informed_by(slopes, 1), slopes)
    np.testing.assert_allclose((slopes.T @ found @ slopes)[k], 0.0, atol=1e-6)


def test_without_any_information_there_is_no_precision():
    found = carried_over(np.zeros((14, 14)), slopes_of(PARAMETERS))
    np.testing.assert_array_equal(found, 0.0)
