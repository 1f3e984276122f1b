"""Draws of some parameters from their priors, against differentiated maps and prior draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jax, jnp
from heterodyne.optimization.cmc._linear import searched
from heterodyne.optimization.cmc._renewal import _GROUPS, log_prior, renewed
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.nlsq.starts import to_coordinates
from heterodyne.optimization.posterior import Posterior
from heterodyne.optimization.prior import LogPrior, draw_columns
from heterodyne.optimization.scaling import Scaling, ScalingMode

T = 0.1 * np.arange(1.0, 61.0)


def posterior_of(*fixed):
    space = ParameterSpace().fix(*fixed)
    scaling = Scaling.of(ScalingMode.INDIVIDUAL, space, 2)
    return Posterior(PhysicsCoordinates.of(space, T), scaling)


WHOLE = posterior_of()


def points(posterior, n, seed=0):
    """Points around the documented values, in the coordinates that are walked in."""
    rng = np.random.default_rng(seed)
    values = np.array([posterior.space[name].value for name in PHYSICS_PARAM_NAMES])
    spread = values * (1.0 + 0.1 * rng.normal(size=(n, values.size)))
    chart = posterior.coordinates
    y = np.zeros((n, posterior.size))
    y[:, : chart.size] = to_coordinates(chart.inside(spread), chart)
    y[:, -1] = np.log(0.01)
    return y[:, searched(posterior)]


def test_the_prior_density_counts_the_volume_of_the_coordinates():
    chart = WHOLE.coordinates
    place = chart.names.index("f2")
    prior = LogPrior.of(chart.space, chart.names)
    slope = jax.jit(jax.jacfwd(lambda y: chart.forward(y)[0]))
    x = points(WHOLE, 3)
    found = log_prior(x, WHOLE)
    for row, value in zip(x, found, strict=True):
        y = jnp.asarray(np.insert(row[:-1], place, 0.0))
        volume = np.linalg.slogdet(np.asarray(slope(y)))[1]
        assert value == pytest.approx(float(prior(chart.forward(y)[0])) + volume, abs=1e-6)


def test_one_group_changes_and_the_proposal_has_the_density_of_the_prior():
    x = points(WHOLE, 300)
    new, ratio = renewed(x, WHOLE, np.random.default_rng(1))
    np.testing.assert_allclose(ratio, log_prior(x, WHOLE) - log_prior(new, WHOLE), atol=1e-9)
    names = [n for n in WHOLE.coordinates.names if n != "f2"]
    changed = {tuple(n for n, c in zip(names, row, strict=False) if c) for row in new != x}
    assert changed == {tuple(n for n in names if n in group) for group in _GROUPS}


def test_without_data_walkers_follow_the_priors():
    rng = np.random.default_rng(2)
    x = points(WHOLE, 2000)
    for _ in range(25):
        # What counts is prior times proposal, the ratio of which is 1.
        x = renewed(x, WHOLE, rng)[0]
    chart = WHOLE.coordinates
    drawn = draw_columns(WHOLE.space, PHYSICS_PARAM_NAMES, rng, 2000)
    expected = to_coordinates(chart.inside(drawn), chart)
    for column, name in enumerate(n for n in chart.names if n != "f2"):
        if not name.startswith("f"):
            known = expected[:, chart.names.index(name)]
            assert stats.ks_2samp(x[:, column], known).pvalue > 1e-4, name


def test_fixed_parameters_are_left_out():
    part = posterior_of("D0_ref", "alpha_ref", "D_offset_ref", "v0", "beta", "v_offset", "phi0")
    x = points(part, 200)
    new, _ = renewed(x, part, np.random.default_rng(1))
    changed = (new != x).any(axis=0)
    assert changed.tolist() == [n in _GROUPS[1] for n in part.coordinates.names if n != "f2"] + [
        False
    ]
    none = posterior_of(*(n for n in PHYSICS_PARAM_NAMES if not n.startswith("f")))
    x = points(none, 5)
    new, ratio = renewed(x, none, np.random.default_rng(1))
    np.testing.assert_array_equal(new, x)
    assert not ratio.any()
