"""Draws of some parameters from their priors, against differentiated maps and prior draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jax, jnp
from heterodyne.optimization.cmc import _renewal
from heterodyne.optimization.cmc._linear import searched
from heterodyne.optimization.cmc._mixture import Component, covering
from heterodyne.optimization.cmc._renewal import (
    _GROUPS,
    beside_fraction,
    log_prior,
    of_course,
    of_fraction,
    physics_from_prior,
    renewed,
    reshaped,
    swapped,
)
from heterodyne.optimization.coordinates.curves import CURVE_PARAMETERS
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.nlsq.starts import to_coordinates
from heterodyne.optimization.posterior import Posterior
from heterodyne.optimization.prior import LogPrior
from heterodyne.optimization.scaling import Scaling, ScalingMode

T = 0.1 * np.arange(1.0, 61.0)


# With the documented priors almost every fraction is constant.
FRACTION = {"f1": {"prior": {"mean": 0.0, "std": 0.2}}, "f2": {"prior": {"mean": 0.0, "std": 6.0}}}


# Other priors than those of the reference, so that components are not alike.
SAMPLE = {"D0_sample": {"prior": {"mean": 2e4, "std": 1e4}}, "D_offset_sample": {"min": -2e3}}


def posterior_of(*fixed, phi=None, fraction=FRACTION):
    space = ParameterSpace.from_config({"fraction": fraction, "sample": SAMPLE}).fix(*fixed)
    scaling = Scaling.of(ScalingMode.INDIVIDUAL, space, 2)
    return Posterior(PhysicsCoordinates.of(space, T, phi=phi), scaling)


WHOLE = posterior_of()
# With coordinates of the velocity that depend on the flow angle.
ALONG = posterior_of(phi=60.0)
EITHER = pytest.mark.parametrize("posterior", [WHOLE, ALONG], ids=["flow", "axis"])


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


def test_the_prior_density_counts_the_volume_and_integrates_f2():
    chart = WHOLE.coordinates
    place = chart.names.index("f2")
    prior = LogPrior.of(chart.space, chart.names)
    slope = jax.jit(jax.jacfwd(lambda y: chart.forward(y)[0][chart.indices]))
    x = points(WHOLE, 3)
    forward, u = jax.jit(jax.vmap(chart.forward)), np.linspace(-14.0, 14.0, 5601)
    for row, found in zip(x, log_prior(x, WHOLE), strict=True):
        y = np.tile(np.insert(row[:-1], place, 0.0), (u.size, 1))
        y[:, place] = u
        parameters, log_det = forward(jnp.asarray(y))
        volume = np.linalg.slogdet(np.asarray(slope(jnp.asarray(y[2800]))))[1]
        assert float(log_det[2800]) == pytest.approx(volume, abs=1e-6)
        density = np.exp(jax.vmap(prior)(parameters[:, chart.indices]) + log_det)
        assert found == pytest.approx(np.log(np.trapezoid(density, u)), abs=1e-6)


def test_without_a_ridge_the_prior_density_is_that_of_all_coordinates():
    part = posterior_of("f0")
    chart = part.coordinates
    prior = LogPrior.of(chart.space, chart.names)
    for row, found in zip(x := points(part, 3), log_prior(x, part), strict=True):
        parameters, log_det = chart.forward(jnp.asarray(row[:-1]))
        assert found == pytest.approx(float(prior(parameters[chart.indices]) + log_det), abs=1e-9)


@EITHER
def test_one_group_changes_and_the_proposal_has_the_density_of_the_prior(posterior):
    x = points(posterior, 300)
    new, ratio = renewed(x, posterior, np.random.default_rng(1))
    expected = log_prior(x, posterior) - log_prior(new, posterior)
    np.testing.assert_allclose(ratio, expected, atol=1e-9)
    names = [n for n in posterior.coordinates.names if n != "f2"]
    in_coordinates = {tuple(n for n, c in zip(names, row, strict=False) if c) for row in new != x}
    # On an axis amplitude and level of the velocity follow the flow angle, and so would the
    # slope, were it not 0 at these points.
    tied = {"v0", "v_offset"} if posterior is ALONG else set()
    groups = [{*group, *(tied if "phi0" in group else ())} for group in _GROUPS]
    assert in_coordinates == {tuple(n for n in names if n in group) for group in groups}
    forward = jax.jit(jax.vmap(posterior.coordinates.forward))
    place = posterior.coordinates.names.index("f2")
    old, now = (np.asarray(forward(np.insert(z[:, :-1], place, 0.0, axis=1))[0]) for z in (x, new))
    columns = [PHYSICS_PARAM_NAMES.index(n) for n in names]
    moved = ~np.isclose(old, now, rtol=1e-9, atol=1e-7)[:, columns]
    changed = {tuple(n for n, c in zip(names, row, strict=True) if c) for row in moved}
    assert changed == {tuple(n for n in names if n in group) for group in _GROUPS}


def prior_columns(posterior, x, rng, n=2000):
    """Columns of points beside those of draws from the priors, by parameter."""
    chart = posterior.coordinates
    expected = physics_from_prior(chart, n, rng)
    for column, name in enumerate(n for n in chart.names if n != "f2"):
        yield name, x[:, column], expected[:, chart.names.index(name)]


@EITHER
def test_without_data_walkers_follow_the_priors(posterior, monkeypatch):
    # What counts is prior times proposal, the ratio of which is 1.
    monkeypatch.setattr(_renewal, "log_prior", lambda x, posterior: np.zeros(len(x)))
    rng = np.random.default_rng(2)
    x = points(posterior, 2000)
    for _ in range(40):
        x = renewed(x, posterior, rng)[0]
    for name, found, known in prior_columns(posterior, x, rng):
        assert stats.ks_2samp(found, known).pvalue > 1e-4, name


@pytest.mark.parametrize("step", [reshaped, renewed, swapped])
@pytest.mark.parametrize(
    "posterior",
    [WHOLE, ALONG, posterior_of("f2"), posterior_of(fraction={})],
    ids=["flow", "axis", "f2 fixed", "documented"],
)
def test_steps_leave_draws_from_the_priors_what_they_are(posterior, step):
    assert_invariant(step, posterior, least=0.5)


def assert_invariant(step, posterior, least):
    rng = np.random.default_rng(3)
    x = prior_points(posterior, rng)
    moved = np.zeros(len(x), int)
    for _ in range(6):
        new, ratio = step(x, posterior, rng)
        gain = log_prior(new, posterior) - log_prior(x, posterior) + ratio
        gain += 0.5 * (x[:, -1] ** 2 - new[:, -1] ** 2)
        taken = (np.log(rng.random(len(x))) < gain) & (new != x).any(axis=1)
        x, moved = np.where(taken[:, None], new, x), moved + taken
    assert moved.mean() > least
    for name, found, known in prior_columns(posterior, x, rng):
        assert stats.ks_2samp(found, known).pvalue > 1e-4, name
    assert stats.kstest(x[:, -1], "norm").pvalue > 1e-4


def prior_points(posterior, rng, n=1024):
    """Draws from the priors, and standard normal numbers for the logarithm of sigma."""
    chart = posterior.coordinates
    y = np.zeros((n, posterior.size))
    y[:, : chart.size] = physics_from_prior(chart, n, rng)
    y[:, -1] = rng.normal(size=n)
    x = y[:, searched(posterior)]
    return x[np.isfinite(x).all(axis=1) & np.isfinite(log_prior(x, posterior))]


# A mixture of few components covers the priors of few parameters.
FEW_FREE = (*CURVE_PARAMETERS[0], "alpha_sample", "D_offset_sample", "beta", "v_offset")


@pytest.mark.parametrize(
    "posterior",
    [posterior_of(*FEW_FREE), posterior_of(*FEW_FREE, fraction={})],
    ids=["informed", "documented"],
)
def test_draws_beside_the_fraction_leave_the_priors_what_they_are(posterior):
    fraction = of_fraction(posterior)
    rng = np.random.default_rng(6)
    known = prior_points(posterior, rng)[:, ~fraction]
    # Off the priors, which the ratio makes up for.
    mixture = covering(known + 0.5 * known.std(axis=0), 4, 0.1, rng)

    def step(x, posterior, rng):
        return beside_fraction(x, mixture, posterior, rng)

    assert_invariant(step, posterior, least=1.0)


@EITHER
def test_beside_the_fraction_all_else_is_drawn(posterior):
    x, rng = points(posterior, 400), np.random.default_rng(5)
    fraction, course = of_fraction(posterior), of_course(posterior)
    size = int((~fraction).sum())
    mixture = (Component(1.0, x[0, ~fraction], 0.1 * np.eye(size), 5.0),)
    new, ratio = beside_fraction(x, mixture, posterior, rng)
    names = np.array([n for n in posterior.coordinates.names if n != "f2"] + ["sigma"])
    assert names[fraction].tolist() == ["f0", "f1", "f3"]
    assert names[course].tolist() == ["f0", "f1"]
    assert (new != x)[:, ~fraction].all()
    renewed_too = (new != x)[:, fraction]
    assert (renewed_too.all(axis=1) == renewed_too.any(axis=1)).all()
    assert 0.4 < renewed_too.any(axis=1).mean() < 0.6
    assert np.isfinite(ratio).all()


def test_a_new_shape_keeps_the_value_at_one_time():
    x = points(WHOLE, 200)
    new, _ = reshaped(x, WHOLE, np.random.default_rng(4))
    chart = WHOLE.coordinates
    place = chart.names.index("f2")
    forward, times = jax.jit(chart.forward), np.linspace(0.01, 2.0 * T[-1], 4000)
    known = set()
    for old, now in zip(x, new, strict=True):
        if (old == now).all():
            continue
        values = []
        for row in (old, now):
            p = np.asarray(forward(jnp.asarray(np.insert(row[:-1], place, 0.0)))[0])
            p = dict(zip(PHYSICS_PARAM_NAMES, p, strict=True))
            power = [p[a] * times ** p[b] + p[c] for a, b, c in CURVE_PARAMETERS[:3]]
            grown = p["f0"] * np.exp(p["f1"] * (times - p["f2"])) + p["f3"]
            values.append(np.array([*power, grown]))
        change = values[1] - values[0]
        different = np.flatnonzero(
            np.abs(change).max(axis=1) > 1e-9 * np.abs(values[0]).max(axis=1)
        )
        assert len(different) == 1
        one = change[different[0]]
        assert one.min() <= 0.0 <= one.max()
        known.add(int(different[0]))
    assert known == {0, 1, 2, 3}


def test_components_change_places():
    x = points(WHOLE, 400)
    new, _ = swapped(x, WHOLE, np.random.default_rng(5))
    chart = WHOLE.coordinates
    place, forward = chart.names.index("f2"), jax.jit(jax.vmap(chart.forward))
    old, now = (np.asarray(forward(np.insert(z[:, :-1], place, 0.0, axis=1))[0]) for z in (x, new))
    old, now = ({n: p[:, k] for k, n in enumerate(PHYSICS_PARAM_NAMES)} for p in (old, now))
    moved = (new != x).any(axis=1)
    assert moved.all()
    for one, other in zip(CURVE_PARAMETERS[0], CURVE_PARAMETERS[1], strict=True):
        np.testing.assert_allclose(now[one][moved], old[other][moved], rtol=1e-6, atol=1e-3)
        np.testing.assert_allclose(now[other][moved], old[one][moved], rtol=1e-6, atol=1e-3)
    for kept in (*CURVE_PARAMETERS[2], "phi0"):
        np.testing.assert_allclose(now[kept], old[kept], rtol=1e-9)
    mirrored = moved & np.isclose(now["f1"], old["f1"], rtol=0, atol=1e-9)
    assert 0.4 < mirrored.sum() / moved.sum() < 0.6
    np.testing.assert_allclose(now["f3"][mirrored], 1.0 - old["f3"][mirrored], atol=1e-9)


def test_fixed_parameters_are_left_out():
    part = posterior_of("D0_ref", "alpha_ref", "D_offset_ref", "v0", "beta", "v_offset", "phi0")
    x = points(part, 200)
    new, _ = renewed(x, part, np.random.default_rng(1))
    changed = (new != x).any(axis=0)
    varying = [n for n in part.coordinates.names if n != "f2"]
    assert changed.tolist() == [n in (*_GROUPS[1], *_GROUPS[3]) for n in varying] + [False]
    # Of the transport of the reference only one parameter varies, so that its shape stays.
    single = posterior_of(*(n for n in PHYSICS_PARAM_NAMES if n != "D0_ref"))
    x = points(single, 5)
    for propose in (reshaped, swapped):
        new, ratio = propose(x, single, np.random.default_rng(1))
        np.testing.assert_array_equal(new, x)
        assert not ratio.any()


def test_where_all_parameters_are_fixed_nothing_is_drawn():
    none = posterior_of(*PHYSICS_PARAM_NAMES)
    x = points(none, 5)
    for propose in (renewed, reshaped, swapped):
        new, ratio = propose(x, none, np.random.default_rng(1))
        np.testing.assert_array_equal(new, x)
        assert not ratio.any()
