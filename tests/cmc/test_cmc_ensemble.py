"""Ensemble sampling against dense integration, closed forms and simulations."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
from arviz_stats.base.array import array_stats
from cmc_cases import (
    CONFIG,
    CONTRAST,
    FLAT,
    FLOOR,
    OFFSET,
    PARAMETERS,
    POSTERIOR,
    SIGMA,
    assert_means_agree,
    coordinates_of,
    densities,
    experiment,
    functions_of,
    measured,
    on_grid,
    target_of,
)
from scipy import stats

from heterodyne._events import Message
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jax, jnp
from heterodyne.core.simulate import simulate_pairs
from heterodyne.optimization.cmc import _ensemble, _importance, _linear, _passes, _record
from heterodyne.optimization.cmc._analysis import analyse
from heterodyne.optimization.cmc._diagnostics import diagnose_walks
from heterodyne.optimization.cmc._draws import Proposals, Walks, kish
from heterodyne.optimization.cmc._engine import drive
from heterodyne.optimization.cmc._ensemble import EnsembleSampler
from heterodyne.optimization.cmc._ensemble_state import Kind
from heterodyne.optimization.cmc._frame import Frame
from heterodyne.optimization.cmc._linear import Completed
from heterodyne.optimization.cmc._mixture import Component, draw_mixture, fitted, log_mixture
from heterodyne.optimization.cmc._passes import Keeper
from heterodyne.optimization.cmc._pipeline import fit_run
from heterodyne.optimization.cmc._renewal import log_prior
from heterodyne.optimization.cmc._tempering import (
    from_prior,
    next_power,
    tempered_step,
    weights_of,
)
from heterodyne.optimization.cmc._walkers import Density, accepted, along_axes, differences
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.posterior import Posterior
from heterodyne.optimization.scaling import Scaling, ScalingMode


def never(draws):
    return False


def after_four_blocks(sampler):
    state = sampler.start()
    while not (state.in_groups and state.n_blocks >= 4):
        state = sampler.advance(state)
    return state


def points_around(y, width, n=400):
    """Points of equal weight around coordinates, as poor importance sampling leaves them."""
    rng = np.random.default_rng(1)
    return Proposals(y + width * rng.normal(size=(n, 4)), np.zeros(n), np.full(n, 1 / n), 0.9, 1)


@pytest.fixture
def few(monkeypatch):
    """Few walkers and points, where it does not matter what they find."""
    monkeypatch.setattr(_passes, "MOST", 4096)
    monkeypatch.setattr(_ensemble, "_WALKERS", 48)
    monkeypatch.setattr(_ensemble, "_POPULATION", 128)


@cache
def draws_of(case):
    poor = points_around(coordinates_of(*case), np.array([0.02, 2e2, 1e-3, 0.02]))
    sampler = EnsembleSampler(POSTERIOR, target_of(*case), poor, seed=3, n_groups=2)
    return sampler.draws(after_four_blocks(sampler))


@pytest.mark.parametrize("case", [FLAT, FLOOR], ids=["alpha_0", "floor"])
def test_walkers_follow_the_posterior(case):
    draws, target = draws_of(case), target_of(*case)
    assert (draws.engine, draws.n_chains) == ("ensemble", 2)
    nodes, mass = on_grid(target, draws.y)
    _, found = densities(draws.y.reshape(-1, 4), target)
    for k, name in enumerate(PARAMETERS):
        x, node = found[:, k], nodes[:, k]
        for j, test in enumerate(functions_of(node, mass)):
            values = test(x).reshape(2, -1)
            error = values.std() / np.sqrt(array_stats.ess(values, method="mean"))
            assert error < 0.06 * values.std()
            allowed = 4.0 * error + 0.005 * values.std()
            assert values.mean() == pytest.approx(mass @ test(node), abs=allowed), (name, j)


def test_the_recorded_density_is_that_of_the_draws():
    draws = draws_of(FLAT)
    density, _ = densities(draws.y.reshape(-1, 4), target_of(*FLAT))
    offset = density - draws.log_density.ravel()
    np.testing.assert_allclose(offset, offset[0], rtol=0, atol=1e-6 * np.abs(density).max())


PRIOR = stats.multivariate_normal(np.zeros(3), 25.0 * np.eye(3))
CENTRES, MASSES, WIDTHS = np.array([[0.0, 0.0, 0.0], [6.0, -5.0, 4.0]]), (0.7, 0.3), (1.0, 0.4)


def two_modes(x, masses=MASSES, widths=WIDTHS):
    parts = [
        np.log(m) + stats.multivariate_normal(c, s**2 * np.eye(3)).logpdf(x)
        for m, c, s in zip(masses, CENTRES, widths, strict=True)
    ]
    return np.logaddexp(*parts)


def one_mode(x):
    return stats.multivariate_normal([1.0, 2.0, 3.0], np.diag([0.01, 4.0, 1.0])).logpdf(x)


def pose_as(monkeypatch, log_posterior):
    """Give prior and posterior of the searched coordinates."""

    def fake(points, normal, target, centre, posterior):
        x, scaling = np.asarray(points), np.asarray(normal)
        y = np.concatenate([x[:, :2], scaling, x[:, 2:]], axis=1)
        density = log_posterior(x)
        return Completed(y, density - 0.5 * (scaling**2).sum(1), density)

    monkeypatch.setattr(_linear, "complete", fake)
    monkeypatch.setattr(Density, "log_prior", lambda _, x: PRIOR.logpdf(x))


@pytest.mark.slow
def test_modes_that_the_fit_missed_have_the_weight_of_their_mass(monkeypatch):
    pose_as(monkeypatch, two_modes)
    first_alone = points_around(np.zeros(4), 1.0)
    sampler = EnsembleSampler(POSTERIOR, target_of(*FLAT), first_alone, seed=5)
    draws = sampler.draws(after_four_blocks(sampler))
    x = draws.y[..., [0, 1, 3]]
    there = (np.linalg.norm(x - CENTRES[1], axis=-1) < 3).astype(float)
    error = 0.46 / np.sqrt(array_stats.ess(there, method="mean"))
    assert error < 0.02
    assert there.mean() == pytest.approx(MASSES[1], abs=4 * error)
    second = x[there > 0]
    np.testing.assert_allclose(second.mean(axis=0), CENTRES[1], atol=0.1)
    np.testing.assert_allclose(second.std(axis=0), WIDTHS[1], rtol=0.1)
    # What is renewed from priors of other coordinates than these is seldom accepted.
    assert min(draws.walks.acceptance[:2]) > 0.1


def test_walkers_jump_to_a_mode_of_the_fit_however_light_it_is(monkeypatch):
    masses, widths = (0.997, 0.003), (1.0, 0.05)
    light = partial(two_modes, masses=masses, widths=widths)
    pose_as(monkeypatch, light)
    rng, n = np.random.default_rng(3), 2000
    frames, points = [], []
    for centre, width in zip(CENTRES, widths, strict=True):
        at = np.insert(centre, 2, 0.0)
        frames.append(Frame(jnp.asarray(at), jnp.asarray(width * np.eye(4))))
        points.append(at + width * rng.normal(size=(n, 4)))
    known = Proposals(np.concatenate(points), np.zeros(2 * n), np.repeat(masses, n) / n, 0.6, 4)
    sampler = EnsembleSampler(
        POSTERIOR, target_of(*FLAT), known, seed=6, n_groups=2, frames=tuple(frames)
    )
    draws = sampler.draws(after_four_blocks(sampler))
    there = (np.linalg.norm(draws.y[..., [0, 1, 3]] - CENTRES[1], axis=-1) < 1).astype(float)
    error = there.std() / np.sqrt(array_stats.ess(there, method="mean"))
    assert 0 < error < 0.0015
    assert there.mean() == pytest.approx(masses[1], abs=4 * error)
    assert (there.mean(axis=1) > 0).all()


def test_populations_reach_the_posterior_from_the_prior(monkeypatch):
    pose_as(monkeypatch, one_mode)
    density = Density(POSTERIOR, target_of(*FLAT))
    rng, power, powers = np.random.default_rng(0), 0.0, []
    walkers = from_prior(density, 1024, rng)
    while power < 1.0:
        walkers, power = tempered_step(density, walkers, power, 2, rng)
        powers.append(power)
    assert powers == sorted(powers)
    z = (walkers.x - [1.0, 2.0, 3.0]) / [0.1, 2.0, 1.0]
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=0.15)
    np.testing.assert_allclose(z.std(axis=0), 1.0, rtol=0.15)
    np.testing.assert_allclose(walkers.log_power(1.0), one_mode(walkers.x))


def test_prior_and_likelihood_of_walkers_are_told_apart():
    target = target_of(*FLAT)
    density = Density(POSTERIOR, target)
    rng = np.random.default_rng(2)
    walkers = from_prior(density, 200, rng)
    width = float(POSTERIOR.sigma_width(target.noise_scale))
    log_sigma = walkers.x[:, -1]
    of_sigma = stats.halfnorm.logpdf(np.exp(log_sigma), scale=width) + log_sigma
    rest = walkers.log_prior - of_sigma - log_prior(walkers.x, POSTERIOR)
    np.testing.assert_allclose(rest, rest[0], atol=1e-9)
    whole = density.at(walkers.x, rng)
    # Contrast and offset are drawn, so that neither is exact.
    np.testing.assert_allclose(walkers.log_power(1.0), whole.log_likelihood, atol=0.05)


def test_steps_along_axes_leave_a_distribution_what_it_is():
    rng = np.random.default_rng(4)
    start = x = rng.standard_t(3.0, size=(4000, 3))
    for _ in range(30):
        new = along_axes(x, start, rng)
        assert ((new != x).sum(axis=1) == 1).all()
        gain = (stats.t.logpdf(new, 3.0) - stats.t.logpdf(x, 3.0)).sum(axis=1)
        x = np.where((np.log(rng.random(len(x))) < gain)[:, None], new, x)
    assert (x != start).all(axis=1).mean() > 0.99
    for column in x.T:
        assert stats.kstest(column, stats.t(3.0).cdf).pvalue > 1e-3


def test_steps_along_differences_change_all_coordinates_or_some():
    rng = np.random.default_rng(7)
    # Steps as long as differences of the widest coordinate leave the others hardly any density.
    width = np.array([1.0, 1.0, 1e4])
    start = x = width * rng.standard_t(3.0, size=(4000, 3))
    counts = np.zeros(4)
    for _ in range(60):
        new = differences(x, start, rng)
        counts += np.bincount((new != x).sum(axis=1), minlength=4)
        gain = (stats.t.logpdf(new / width, 3.0) - stats.t.logpdf(x / width, 3.0)).sum(axis=1)
        x = np.where((np.log(rng.random(len(x))) < gain)[:, None], new, x)
    # Of those with a random part of the coordinates all numbers are alike.
    np.testing.assert_allclose(counts / counts.sum(), [0.125, 0.125, 0.125, 0.625], atol=0.01)
    for column in (x / width).T:
        assert stats.kstest(column, stats.t(3.0).cdf).pvalue > 1e-3


def test_half_of_the_steps_along_differences_leave_what_is_apart():
    rng = np.random.default_rng(8)
    x, apart = rng.normal(size=(8000, 4)), np.array([False, True, True, False])
    new = differences(x, x, rng, apart)
    stays = (new == x)[:, apart].all(axis=1)
    # Besides, a random part of the coordinates leaves out both in a third of the other half.
    assert stays.mean() == pytest.approx(0.5 + 0.5 * 0.5 / 3.0, abs=0.02)
    assert (new != x)[stays][:, ~apart].all(axis=1).mean() > 0.4


def test_r_hat_sees_walkers_that_drift_together():
    rng = np.random.default_rng(5)
    still = rng.normal(size=(2, 64, 8))
    drifting = still + 0.25 * np.arange(8)
    values = {"x": still.reshape(2, -1), "drift": drifting.reshape(2, -1)}
    found = diagnose_walks(values, Walks(128, 64, 3, (0.3,) * 5, growth=0.0))
    assert found.r_hat["x"] < 1.01
    assert found.r_hat["drift"] > 1.1


@pytest.mark.parametrize(("narrower", "settled"), [(0.6, False), (1.0, True)])
def test_tails_that_all_groups_lack_are_seen_by_growth(narrower, settled):
    rng = np.random.default_rng(6)
    x = narrower * rng.normal(size=(1024, 3))
    kept = []
    for _ in range(80):
        x = 0.98 * x + np.sqrt(1.0 - 0.98**2) * rng.normal(size=x.shape)
        kept.append(x)
    growth = _ensemble._growth(np.array(kept))
    # Variances of such walkers come from the start to 1 as 0.98 to twice the number of steps.
    variance = 1.0 - (1.0 - narrower**2) * 0.98 ** (2.0 * np.arange(1, 81))
    earlier, later = variance[20:40].mean(), variance[40:].mean()
    assert growth == pytest.approx(0.5 * np.log(later / earlier), abs=0.015)
    draws = np.array(kept)[40::5].transpose(2, 1, 0)
    values = {f"x{k}": one.reshape(4, -1) for k, one in enumerate(draws)}
    found = diagnose_walks(values, Walks(1024, 640, 3, (0.3,) * 5, growth))
    assert found.worst_r_hat[1] < 1.01
    assert found.mixed() == settled
    assert found.joined(replace(found, growth=0.5)).growth == 0.5


def test_growth_leaves_out_what_does_not_move():
    kept = np.random.default_rng(7).normal(size=(40, 256, 2))
    kept[:10] *= 3.0
    kept[20:] *= 1.1
    kept[..., 1] = 3.0
    assert _ensemble._growth(kept) == pytest.approx(np.log(1.1), abs=0.02)
    assert np.isnan(_ensemble._growth(kept[:1]))


def test_the_next_power_halves_the_worth_of_the_weights():
    log_likelihood = np.random.default_rng(0).normal(scale=300.0, size=(2, 400))
    log_likelihood[1] *= 0.5
    power = next_power(log_likelihood, 0.1)
    assert kish(weights_of(log_likelihood[0], power - 0.1)) == pytest.approx(200, rel=1e-3)
    assert kish(weights_of(log_likelihood[1], power - 0.1)) > 200
    assert next_power(1e-3 * log_likelihood, 0.1) == 1.0


def test_walkers_without_density_are_left_behind():
    log_likelihood = np.array([0.0, -np.inf, 0.0, np.nan])
    np.testing.assert_array_equal(weights_of(log_likelihood, 0.3), [0.5, 0.0, 0.5, 0.0])
    density = Density(POSTERIOR, target_of(*FLAT))
    rng = np.random.default_rng(0)
    walkers = from_prior(density, 16, rng)
    walkers = walkers.at(np.isfinite(walkers.log_likelihood))
    lost = walkers._replace(log_likelihood=np.full(len(walkers.x), -np.inf))
    assert len(walkers.x) > 8
    assert accepted(lost, walkers, 0.0, 0.5, rng).all()
    assert not accepted(walkers, lost, 0.0, 0.5, rng).any()


def test_walkers_are_draws_from_priors_that_leave_the_fraction_constant():
    space = ParameterSpace()
    chart = PhysicsCoordinates.of(space, 0.1 * np.arange(1.0, 301.0))
    posterior = Posterior(chart, Scaling.of(ScalingMode.INDIVIDUAL, space, 1))
    walkers = from_prior(Density(posterior, target_of(*FLAT)), 1024, np.random.default_rng(0))
    assert np.isfinite(log_prior(walkers.x, posterior)).all()
    y = np.insert(walkers.x[:, :-1], chart.names.index("f2"), 0.0, axis=1)
    found = np.asarray(jax.jit(jax.vmap(chart.forward))(y)[0])[:, chart.names.index("f1")]
    low, high = (stats.norm.cdf(x, 0.0, 5.0) for x in (-10.0, 10.0))
    shares = (stats.norm.cdf(found, 0.0, 5.0) - low) / (high - low)
    assert stats.kstest(shares, "uniform").pvalue > 1e-3


def test_fitted_mixtures_have_the_density_of_narrow_and_broad_parts():
    broad = Component(0.5, np.zeros(3), np.eye(3), 8.0)
    narrow = Component(0.5, np.array([4.0, 0.0, 0.0]), 0.02 * np.eye(3), 8.0)
    rng = np.random.default_rng(0)
    truth = (broad, narrow)
    x = draw_mixture(truth, rng, 4000)
    found = fitted(x, 6, rng)
    fresh = draw_mixture(truth, rng, 4000)
    # The mean log ratio is the information lost; all points in one normal lose 5.
    assert (log_mixture(truth, fresh) - log_mixture(found, fresh)).mean() < 0.1


def test_copies_of_few_points_are_covered():
    rng = np.random.default_rng(0)
    for places in (1, 3):
        points = rng.normal(size=(places, 3))
        found = fitted(points[rng.integers(0, places, 500)], 12, rng)
        assert np.isfinite(log_mixture(found, points)).all()
        assert sum(c.share for c in found) == pytest.approx(1.0)


@pytest.mark.slow
def test_a_run_goes_on_to_the_same_draws_after_any_block(few, tmp_path, monkeypatch):
    monkeypatch.setattr(_ensemble, "_LOOK", 2)
    poor = points_around(coordinates_of(*FLAT), np.array([0.02, 2e2, 1e-3, 0.02]))

    def sampler():
        return EnsembleSampler(POSTERIOR, target_of(*FLAT), poor, seed=4, n_groups=2)

    first, states = sampler(), []
    expected = drive(first, first.start(), lambda draws: True, states.append)
    grouped = next(k for k, s in enumerate(states) if s.in_groups)
    for k in (0, grouped - 1, grouped, grouped + 2, len(states) - 2):
        np.savez(tmp_path / "state.npz", **first.to_arrays(states[k]))
        with np.load(tmp_path / "state.npz") as arrays:
            again = sampler()
            state = again.from_arrays(arrays)
        found = drive(again, state, lambda draws: True)
        np.testing.assert_array_equal(found.y, expected.y)
        assert found.walks == expected.walks


@pytest.mark.slow
def test_populations_and_blocks_are_counted(few):
    poor = points_around(coordinates_of(*FLAT), np.array([0.02, 2e2, 1e-3, 0.02]))
    sampler = EnsembleSampler(
        POSTERIOR, target_of(*FLAT), poor, seed=4, n_groups=2, n_steps=81, stage="plain draws"
    )
    events, states = [], []
    draws = drive(sampler, sampler.start(), never, states.append, events.append)
    assert draws.walks.n_steps == 640
    stages = [event.stage for event in events]
    first = stages.index("plain draws")
    assert first > 3
    assert stages == ["plain draws (populations)"] * first + ["plain draws"] * (len(events) - first)
    rising, counted = events[:first], events[first:]
    done = [event.done for event in rising]
    assert (done[0], done[-1], {event.total for event in rising}) == (0.0, 1.0, {1.0})
    assert done == sorted(set(done))
    powers = [0.0, *(state.power for state in states[: first - 1])]
    assert [float(e.detail["power of the likelihood"]) for e in rising] == pytest.approx(
        powers, rel=0.05
    )
    # Eight blocks of adaptation or more, and sixteen of draws before the first look.
    grouped = next(s for s in reversed(states) if s.in_groups)
    adaptation = grouped.adapted - grouped.started
    assert 8 <= adaptation <= 24
    assert [event.done for event in counted] == list(range(adaptation + 17))
    expected = [16 + min(max(8, done + 1), adaptation) for done in range(adaptation + 17)]
    assert [event.total for event in counted] == expected


@pytest.mark.parametrize(("apart", "blocks"), [(0.0, 8), (9.0, 24)], ids=["mingled", "apart"])
def test_adaptation_ends_when_groups_mingle(few, monkeypatch, apart, blocks):
    def two(points):
        return np.logaddexp(
            *(stats.norm.logpdf(points - c, scale=0.1).sum(axis=1) for c in (0.0, apart))
        )

    pose_as(monkeypatch, two)
    sampler = EnsembleSampler(
        POSTERIOR, target_of(*FLAT), points_around(np.zeros(4), 0.1), seed=4, n_groups=2
    )
    density, rng = Density(POSTERIOR, target_of(*FLAT)), np.random.default_rng(0)
    # A population that knows of the second mode alone, and steps along single axes, which do not
    # lead from mode to mode.
    there = density.divided_at(apart + 0.1 * rng.normal(size=(128, 3)), rng)
    state = sampler.start()._replace(walkers=there, power=1.0)
    monkeypatch.setattr(_ensemble, "_KINDS", (Kind.AXIS,))
    while state.adapted == 0:
        state = sampler.advance(state)
        assert state.n_blocks == 0
    assert state.adapted - state.started == blocks
    assert sampler.advance(state).n_blocks == 1


@pytest.fixture(scope="module")
def independent():
    c2 = simulate_pairs(experiment(0.5, 0.0), CONTRAST, OFFSET, SIGMA, 2)
    return fit_run(CONFIG, measured(c2)), c2


@pytest.mark.slow
def test_walkers_go_on_while_intervals_grow(few, independent, monkeypatch):
    fit, c2 = independent
    monkeypatch.setattr(_importance, "smoothed", lambda w: (np.full(w.size, 1 / w.size), 0.9))
    monkeypatch.setattr(_ensemble, "_LOOK", 2)
    config = replace(CONFIG.cmc_config(), num_samples=480)
    for growing, n_blocks, passed in ((0.025, 10, True), (0.035, 12, False)):
        # There are five records a block; twelve blocks are the most.
        until = 5 * n_blocks if passed else 1000
        monkeypatch.setattr(
            _ensemble, "_growth", lambda kept, g=growing, n=until: g if len(kept) < n else 0.01
        )
        found = analyse(fit, c2, config)
        assert found.draws.walks.n_steps == 40 * n_blocks
        assert found.diagnosis.passed() == passed
    # The record tells what the verdict goes by, whichever pass it is of.
    worse = replace(found, diagnosis=replace(found.diagnosis, growth=0.5))
    assert _record._sampler_health(worse, 0.0)["growth"] == 0.5


@pytest.mark.slow
def test_ensembles_take_over_where_weights_are_bad(few, independent, monkeypatch):
    fit, c2 = independent
    monkeypatch.setattr(_importance, "smoothed", lambda w: (np.full(w.size, 1 / w.size), 0.9))
    events, kept = [], set()
    keeper = Keeper(save=lambda key, arrays: kept.add(key))
    found = analyse(fit, c2, CONFIG.cmc_config(), keeper=keeper, on_event=events.append)
    assert found.draws.engine == "ensemble"
    assert kept == {"plain_importance", "plain_ensemble"}
    (said,) = [e.text for e in events if isinstance(e, Message)]
    assert "k-hat 0.90" in said
    assert "ensemble sampling takes over" in said
    # Frames so few are not averaged.
    monkeypatch.setattr(_passes, "_MOST_PAIRS", 0)
    found = analyse(fit, c2, CONFIG.cmc_config(), on_event=events.append)
    assert found.draws.engine == "nuts"


@pytest.mark.slow
def test_engines_agree(independent):
    fit, c2 = independent
    walked = analyse(fit, c2, CONFIG.cmc_config(), engine="ensemble")
    assert walked.draws.engine == "ensemble"
    assert walked.verdict.converged
    assert walked.verdict.sentences[0].startswith("The groups of walkers agree")
    assert_means_agree(walked.rows, analyse(fit, c2, CONFIG.cmc_config()).rows, sd=0.15)


def test_contrast_starts_in_the_middle_of_its_range():
    density = Density(POSTERIOR, target_of(*FLAT))
    scaling = POSTERIOR.forward(density._centre)[0].scaling
    np.testing.assert_allclose(scaling, [POSTERIOR.space["contrast"].value])
    assert jnp.isfinite(density._centre).all()
