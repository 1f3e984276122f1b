"""Importance sampling against dense integration, closed forms and simulations."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
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
    densities,
    experiment,
    frame_of,
    functions_of,
    measured,
    normal,
    on_grid,
    target_of,
)
from scipy import stats

from heterodyne._events import Message, Progress
from heterodyne.core._jax import jnp
from heterodyne.core.simulate import simulate_pairs
from heterodyne.optimization.cmc import _importance, _linear, _passes
from heterodyne.optimization.cmc._analysis import analyse
from heterodyne.optimization.cmc._diagnostics import THRESHOLDS, diagnose_weighted
from heterodyne.optimization.cmc._diagnostics import weighted_effective as effective
from heterodyne.optimization.cmc._draws import Proposals
from heterodyne.optimization.cmc._engine import drive
from heterodyne.optimization.cmc._frame import Frame
from heterodyne.optimization.cmc._importance import ImportanceSampler, smoothed
from heterodyne.optimization.cmc._linear import Completed
from heterodyne.optimization.cmc._mixture import (
    Component,
    draw_mixture,
    first_round,
    log_mixture,
    marginal,
    tempered,
)
from heterodyne.optimization.cmc._passes import Keeper, Passes
from heterodyne.optimization.cmc._pipeline import fit_run


def never(draws):
    return False


def sampler_of(target, *frames, seed=3):
    return ImportanceSampler(POSTERIOR, target, frames, seed, n_groups=2, n_draws=500)


@cache
def draws_of(case):
    sampler = sampler_of(target_of(*case), frame_of(*case))
    return drive(sampler, sampler.start(), never)


def assert_same_posterior(draws, target):
    """Weighted means, variances and quantiles agree with the grid within their errors."""
    points = draws.proposals
    weights = points.weights
    nodes, mass = on_grid(target, draws.y)
    _, found = densities(points.y, target)
    for k, name in enumerate(PARAMETERS):
        x, node = found[:, k], nodes[:, k]
        for j, test in enumerate(functions_of(node, mass)):
            values = test(x)
            spread = np.sqrt(weights @ (values - weights @ values) ** 2)
            error = spread / np.sqrt(effective(values, weights))
            assert error < 0.05 * spread
            allowed = 4.0 * error + 0.005 * spread
            assert weights @ values == pytest.approx(mass @ test(node), abs=allowed), (name, j)


@pytest.mark.parametrize("case", [FLAT, FLOOR], ids=["alpha_0", "floor"])
def test_weighted_points_follow_the_posterior(case):
    draws = draws_of(case)
    assert draws.proposals.k_hat < 0.7
    assert draws.proposals.kish > 4000
    assert_same_posterior(draws, target_of(*case))


def test_weighted_points_follow_a_normal_likelihood():
    target = normal(FLAT)
    sampler = sampler_of(target, frame_of(*FLAT))
    assert_same_posterior(drive(sampler, sampler.start(), never), target)


def test_the_recorded_density_is_that_of_the_draws():
    draws = draws_of(FLAT)
    assert draws.y.shape == (2, 500, 4)
    assert (draws.engine, draws.n_chains, draws.n_draws) == ("importance", 2, 500)
    expected, _ = densities(draws.y.reshape(-1, 4), target_of(*FLAT))
    np.testing.assert_allclose(draws.log_density.ravel(), expected, rtol=1e-9)
    np.testing.assert_allclose(draws.proposals.weights.sum(), 1.0)


def test_draws_are_picked_in_proportion_to_their_weights():
    draws = draws_of(FLAT)
    points = draws.proposals
    for name, tail in (("mean", lambda x: x), ("square", lambda x: x**2)):
        for k in range(4):
            at = tail(points.y[:, k] - draws.y[..., k].mean())
            picked = tail(draws.y[..., k] - draws.y[..., k].mean())
            spread = np.sqrt(points.weights @ (at - points.weights @ at) ** 2)
            error = spread * np.sqrt(1.0 / picked.size + 1.0 / effective(at, points.weights))
            assert picked.mean() == pytest.approx(points.weights @ at, abs=4 * error), (name, k)


def test_groups_share_no_point_and_copies_are_neighbours():
    first, second = draws_of(FLAT).y
    both = {row.tobytes() for row in first} & {row.tobytes() for row in second}
    assert not both
    weights = np.array([0.7, 0.0, 0.1, 0.0, 0.2, 0.0])
    picked = _importance._pick(weights, 0, 2, 10, np.random.default_rng(0))
    assert sorted(picked) == [0] * 7 + [2] + [4] * 2
    assert (np.diff(picked) != 0).sum() == 2


def test_a_run_goes_on_to_the_same_draws_after_any_block(tmp_path):
    sampler, states = sampler_of(target_of(*FLAT), frame_of(*FLAT)), []
    expected = drive(sampler, sampler.start(), never, states.append)
    assert len(states) == 48
    for block in (0, 3, 4, 18, 46):
        np.savez(tmp_path / "state.npz", **sampler.to_arrays(states[block]))
        with np.load(tmp_path / "state.npz") as arrays:
            # A new process knows no mixtures.
            again = sampler_of(target_of(*FLAT), frame_of(*FLAT))
            state = again.from_arrays(arrays)
        found = drive(again, state, never)
        np.testing.assert_array_equal(found.y, expected.y)
        np.testing.assert_array_equal(found.proposals.weights, expected.proposals.weights)


def test_the_seed_decides_the_draws():
    sampler = sampler_of(target_of(*FLAT), frame_of(*FLAT), seed=4)
    other = drive(sampler, sampler.start(), lambda draws: True)
    assert not np.isin(other.y, draws_of(FLAT).y).any()


def test_it_stops_after_the_round_that_suffices():
    sampler, events = sampler_of(target_of(*FLAT), frame_of(*FLAT)), []
    draws = drive(sampler, sampler.start(), lambda draws: True, on_event=events.append)
    assert (len(draws.proposals.weights), draws.proposals.rounds) == (2048, 3)
    assert all(isinstance(e, Progress) and e.stage == "draws" for e in events)
    assert [e.done for e in events] == [0, 1024, 2048, 3072, 4096]


def completed_by(log_density):
    """What completes points when the searched coordinates have a given density."""

    def fake(points, normal, target, centre, posterior):
        x, scaling = np.asarray(points), np.asarray(normal)
        y = np.concatenate([x[:, :2], scaling, x[:, 2:]], axis=1)
        integrated = log_density(x)
        return Completed(y, integrated - 0.5 * (scaling**2).sum(1), integrated)

    return fake


CENTRES = np.array([[0.0, 0.0, 0.0, 0.0], [30.0, -20.0, 0.0, 10.0]])
MASSES = (0.8, 0.2)


def two_modes(x):
    """Density of two normal distributions far from each other, the second one narrow."""
    parts = [
        np.log(m) + stats.multivariate_normal(c[[0, 1, 3]], s**2 * np.eye(3)).logpdf(x)
        for m, c, s in zip(MASSES, CENTRES, (1.0, 0.5), strict=True)
    ]
    return np.logaddexp(*parts)


def test_separated_modes_have_the_weight_of_their_mass(monkeypatch):
    monkeypatch.setattr(_linear, "complete", completed_by(two_modes))
    frames = [
        Frame(jnp.asarray(c), jnp.eye(4) * w) for c, w in zip(CENTRES, (1.2, 0.7), strict=True)
    ]
    sampler = sampler_of(target_of(*FLAT), *frames)
    draws = drive(sampler, sampler.start(), never)
    assert draws.proposals.k_hat < 0.7
    points = draws.proposals
    there = (points.y[:, 0] > 15).astype(float)
    error = 0.4 / np.sqrt(effective(there, points.weights))
    assert error < 0.01
    assert points.weights @ there == pytest.approx(MASSES[1], abs=4 * error)
    assert (draws.y[..., 0] > 15).mean() == pytest.approx(MASSES[1], abs=4 * error + 0.05)
    second = draws.y[draws.y[..., 0] > 15]
    np.testing.assert_allclose(second.mean(axis=0), CENTRES[1], atol=0.2)
    np.testing.assert_allclose(second.std(axis=0), [0.5, 0.5, 1.0, 0.5], rtol=0.25)


def test_a_bent_density_is_covered_by_several_components(monkeypatch):
    def bent(x):
        along = stats.norm.logpdf(x[:, 0]) + stats.norm.logpdf(x[:, 2])
        return along + stats.norm.logpdf(x[:, 1], 0.5 * x[:, 0] ** 2, 0.5)

    monkeypatch.setattr(_linear, "complete", completed_by(bent))
    sampler = sampler_of(target_of(*FLAT), Frame(jnp.zeros(4), jnp.eye(4)))
    draws = drive(sampler, sampler.start(), never)
    points = draws.proposals
    # One component of the same moments is worth 11,000 of the 24,576 points that count.
    assert points.kish > 15_000
    for k, (mean, variance) in enumerate(((0.0, 1.0), (0.5, 0.75), (0.0, 1.0), (0.0, 1.0))):
        x = points.y[:, k]
        error = np.sqrt(variance / effective(x, points.weights))
        assert points.weights @ x == pytest.approx(mean, abs=4 * error)
        square = (x - mean) ** 2
        error = square.std() / np.sqrt(effective(square, points.weights))
        assert points.weights @ square == pytest.approx(variance, abs=4 * error)


def test_points_of_late_rounds_count_and_know_nothing_of_later_ones():
    sampler = sampler_of(target_of(*FLAT), frame_of(*FLAT))
    state = sampler.start()
    while len(state.z) < 16_384:
        state = sampler.advance(state)
    found = sampler.draws(state).proposals
    # Rounds end after 1, 2, 4, 8, 12 and 16 blocks of 1,024 points.
    late = slice(8_192, None)
    own = [
        log_mixture(sampler._rounds[k].mixture, state.z[start : start + 4096])
        for k, start in ((4, 8_192), (5, 12_288))
    ]
    weights, _ = smoothed(state.log_integrated[late] - np.concatenate(own))
    np.testing.assert_allclose(found.weights, weights, rtol=1e-9)
    np.testing.assert_array_equal(found.y, state.y[late])


def test_tails_heavier_than_those_of_the_mixture_are_noticed():
    heavy = stats.multivariate_t(np.zeros(3), np.eye(3), df=0.3)
    mixture = first_round([(np.zeros(3), np.eye(3))]).mixture
    z = draw_mixture(mixture, np.random.default_rng(2), 20_000)
    assert smoothed(heavy.logpdf(z) - log_mixture(mixture, z))[1] > 0.7


def test_mixtures_grow_into_tails_heavier_than_theirs(monkeypatch):
    cauchy = stats.multivariate_t(np.zeros(3), np.eye(3), df=1.0)
    monkeypatch.setattr(_linear, "complete", completed_by(cauchy.logpdf))
    sampler = sampler_of(target_of(*FLAT), Frame(jnp.zeros(4), jnp.eye(4)))
    points = drive(sampler, sampler.start(), never).proposals
    assert points.k_hat < 0.7
    x = points.y[:, [0, 1, 3]]
    for place in range(3):
        below = points.weights @ (x[:, place] < stats.cauchy.ppf(0.025))
        assert below == pytest.approx(0.025, abs=0.01)


def test_points_without_density_have_no_weight(monkeypatch):
    def half(x):
        return np.where(x[:, 0] > 0, -0.5 * (x**2).sum(1), -np.inf)

    monkeypatch.setattr(_linear, "complete", completed_by(half))
    sampler = sampler_of(target_of(*FLAT), Frame(jnp.zeros(4), jnp.eye(4)))
    draws = drive(sampler, sampler.start(), never)
    assert (draws.y[..., 0] > 0).all()
    assert draws.y[..., 0].mean() == pytest.approx(np.sqrt(2 / np.pi), abs=0.08)


def test_components_have_the_density_of_student_t():
    rng = np.random.default_rng(0)
    factor = np.tril(rng.normal(size=(3, 3))) + 2 * np.eye(3)
    component = Component(1.0, rng.normal(size=3), factor, 5.0)
    reference = stats.multivariate_t(component.centre, factor @ factor.T, df=5.0)
    x = rng.normal(size=(7, 3)) * 3
    np.testing.assert_allclose(component.log_density(x), reference.logpdf(x))
    drawn = component.draw(rng, 40_000)
    np.testing.assert_allclose(np.cov(drawn.T), factor @ factor.T * 5 / 3, rtol=0.15, atol=0.15)


def test_marginal_mixtures_are_those_of_student_t():
    rng = np.random.default_rng(4)
    factor = np.tril(rng.normal(size=(4, 4))) + 2.0 * np.eye(4)
    places = np.array([True, False, True, True])
    mixture = (
        Component(0.4, np.arange(4.0), factor, 5.0),
        Component(0.6, -np.ones(4), np.eye(4), 8.0),
    )
    x = rng.normal(size=(50, 3))
    parts = [
        c.share
        * stats.multivariate_t(
            c.centre[places], (c.factor @ c.factor.T)[np.ix_(places, places)], c.degrees
        ).pdf(x)
        for c in mixture
    ]
    found = marginal(mixture, places)
    np.testing.assert_allclose(np.exp(log_mixture(found, x)), np.sum(parts, axis=0), rtol=1e-9)
    assert all((np.diagonal(c.factor) > 0).all() for c in found)


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.9])
def test_k_hat_is_the_shape_of_a_pareto_tail(shape):
    rng = np.random.default_rng(1)
    weights, k_hat = smoothed(shape * rng.exponential(size=50_000))
    assert k_hat == pytest.approx(shape, abs=0.1)
    assert weights.sum() == pytest.approx(1.0)
    assert weights.min() >= 0


def test_weights_that_cannot_be_smoothed_are_not_trusted():
    weights, k_hat = smoothed(np.full(100, -np.inf))
    assert (k_hat, weights.sum()) == (np.inf, pytest.approx(1.0))
    one = np.full(1000, -np.inf)
    one[17] = 5.0
    weights, k_hat = smoothed(one)
    assert k_hat > THRESHOLDS.k_hat
    assert weights[17] == 1.0


@pytest.mark.parametrize("least", [5.0, 100.0, 1000.0])
def test_tempered_weights_count_enough_points(least):
    log_weights = np.random.default_rng(2).normal(scale=8.0, size=2000)
    weights = tempered(log_weights, least)
    assert weights.sum() == pytest.approx(1.0)
    assert 1.0 / (weights**2).sum() >= least
    assert np.argmax(weights) == np.argmax(log_weights)


def test_light_weights_are_not_tempered():
    log_weights = np.random.default_rng(2).normal(scale=0.1, size=2000)
    expected = np.exp(log_weights) / np.exp(log_weights).sum()
    np.testing.assert_allclose(tempered(log_weights, 100.0), expected)


def test_weighted_points_give_the_next_frame():
    rng = np.random.default_rng(7)
    y = rng.normal(size=(4000, 2)) * [3.0, 0.5] + [1.0, -2.0]
    # Weights that turn the density into one of half the variance.
    weights = np.exp(-0.5 * ((y - [1.0, -2.0]) ** 2 / [9.0, 0.25]).sum(1))
    weights /= weights.sum()
    points = Proposals(y, np.zeros(4000), weights, 0.1, 1)
    old = Frame(jnp.zeros(2), jnp.eye(2))
    centre, factor = _importance.weighted_frame(points, old)
    np.testing.assert_allclose(centre, [1.0, -2.0], atol=0.2)
    np.testing.assert_allclose(np.diagonal(factor), np.array([3.0, 0.5]) / 2**0.5, rtol=0.1)
    one = np.zeros(4000)
    one[:5] = 0.2
    few = Proposals(y, np.zeros(4000), one, 0.1, 1)
    assert _importance.weighted_frame(few, old) is None


def test_effective_numbers_are_those_of_repeated_estimates():
    # The scatter of a weighted mean over many repeats, against the number from one.
    rng = np.random.default_rng(3)
    found, means = [], []
    for _ in range(400):
        x = rng.normal(size=500) * 1.5
        w = np.exp(-0.5 * x**2 + 0.5 * (x / 1.5) ** 2)
        w /= w.sum()
        found.append(effective(x, w))
        means.append(w @ x)
    assert 1.0 / np.var(means) == pytest.approx(np.mean(found), rel=0.2)
    assert effective(rng.normal(size=200), np.full(200, 1 / 200)) == pytest.approx(200)


def test_the_diagnosis_is_that_of_the_weights():
    rng = np.random.default_rng(4)
    values, points = {"x": rng.normal(size=(2, 500))}, {"x": rng.normal(size=4000)}
    equal = Proposals(np.zeros((4000, 1)), np.zeros(4000), np.full(4000, 1 / 4000), 0.1, 1)
    found = diagnose_weighted(values, points, equal)
    assert found.kish == pytest.approx(4000)
    # 4000 points, of which 1000 were picked.
    assert found.ess_bulk["x"] == pytest.approx(800, rel=0.01)
    assert found.ess_tail["x"] == pytest.approx(800, rel=0.01)
    assert found.r_hat["x"] == pytest.approx(1.0, abs=0.01)
    assert (found.bfmi, found.divergences) == ((), None)
    assert found.passed()
    apart = diagnose_weighted({"x": values["x"] + [[0.0], [3.0]]}, points, equal)
    assert apart.r_hat["x"] > 1.5
    assert not apart.passed()


@pytest.mark.parametrize(("k_hat", "kish", "passes"), [
    (0.69, 1001, True), (0.7, 1001, False), (0.1, 999, False), (float("nan"), 4000, False),
])  # fmt: skip
def test_weights_decide_on_convergence(k_hat, kish, passes):
    values = {"x": np.random.default_rng(5).normal(size=(2, 2000))}
    points = {"x": np.random.default_rng(6).normal(size=kish)}
    equal = Proposals(np.zeros((kish, 1)), np.zeros(kish), np.full(kish, 1 / kish), k_hat, 1)
    assert diagnose_weighted(values, points, equal).passed() == passes


@pytest.fixture(scope="module")
def independent():
    """Analysis of data with independent errors by the default engine."""
    c2 = simulate_pairs(experiment(0.5, 0.0), CONTRAST, OFFSET, SIGMA, 2)
    fit, kept = fit_run(CONFIG, measured(c2)), set()
    keeper = Keeper(save=lambda key, arrays: kept.add(key))
    return analyse(fit, c2, CONFIG.cmc_config(), keeper=keeper), kept, fit, c2


def test_the_default_engine_weighs_first(independent):
    found, kept, _, _ = independent
    assert found.draws.engine == "importance"
    assert kept == {"plain_importance"}
    assert found.diagnosis.kish >= THRESHOLDS.kish
    assert found.verdict.converged
    assert any("Importance weights are stable" in s for s in found.verdict.sentences)


def test_adaptation_goes_on_where_points_are_cheap(independent, monkeypatch):
    found, _, fit, c2 = independent
    assert found.diagnosis.k_hat < Passes.wanted.k_hat < THRESHOLDS.k_hat
    never = replace(THRESHOLDS, k_hat=-1.0)
    monkeypatch.setattr(Passes, "wanted", never)
    n_points = []
    for most_pairs in (0, 10**6):
        monkeypatch.setattr(_passes, "_CHEAP_PAIRS", most_pairs)
        draws = analyse(fit, c2, CONFIG.cmc_config()).draws
        assert draws.engine == "importance"
        n_points.append(len(draws.proposals.weights))
    assert n_points[0] < n_points[1] == _importance.MOST // 2


def test_engines_agree(independent):
    weighed, _, fit, c2 = independent
    config = CONFIG.cmc_config()
    walked = analyse(fit, c2, config, engine="nuts")
    assert walked.draws.engine == "nuts"
    assert_means_agree(weighed.rows, walked.rows)


def test_nuts_takes_over_where_weights_of_many_pairs_are_bad(independent, monkeypatch):
    _, _, fit, c2 = independent
    monkeypatch.setattr(_importance, "smoothed", lambda w: (np.full(w.size, 1 / w.size), 0.9))
    monkeypatch.setattr(_passes, "_MOST_PAIRS", 0)
    events, config = [], CONFIG.cmc_config()
    found = analyse(fit, c2, config, engine="auto", on_event=events.append)
    assert found.draws.engine == "nuts"
    (said,) = [e.text for e in events if isinstance(e, Message)]
    assert "k-hat 0.90" in said
    assert "NUTS takes over" in said
    # The weighted points have shown the frame, so that one stage of adaptation is left.
    assert found.draws.trajectories.warmup_steps == 50
    alone = analyse(fit, c2, config, engine="importance")
    assert alone.draws.engine == "importance"
    assert not alone.verdict.converged
    assert any("not stable" in s for s in alone.verdict.sentences)
    assert any("optimization.engine" in s for s in alone.verdict.advice)
