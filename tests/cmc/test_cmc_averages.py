"""Averaged frames that stand in for all pairs, against dense matrices and dense integration."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from cmc_cases import (
    CONFIG,
    CONTRAST,
    DT,
    FLAT,
    FLOOR,
    OFFSET,
    PARAMETERS,
    PHI,
    POSTERIOR,
    SIGMA,
    Q,
    T,
    assert_means_agree,
    coordinates_of,
    densities,
    experiment,
    measured,
    normal,
    on_grid,
    target_of,
    truth,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from heterodyne._events import Message
from heterodyne.core._jax import jnp
from heterodyne.core.correlation import correlation_matrix
from heterodyne.core.likelihood import pack_pairs
from heterodyne.core.simulate import simulate_pairs
from heterodyne.optimization.cmc import _averages, _passes
from heterodyne.optimization.cmc._analysis import analyse
from heterodyne.optimization.cmc._averages import averages, possible, weighed
from heterodyne.optimization.cmc._diagnostics import Diagnosis
from heterodyne.optimization.cmc._draws import AVERAGED, Draws, Proposals
from heterodyne.optimization.cmc._engine import drive
from heterodyne.optimization.cmc._ensemble import EnsembleSampler
from heterodyne.optimization.cmc._pipeline import fit_run
from heterodyne.optimization.nlsq import coarse
from heterodyne.optimization.nlsq.coarse import Groups, grouped_frames


@pytest.fixture
def grouped(monkeypatch):
    """Lets few frames be averaged."""
    monkeypatch.setattr(coarse, "_FRAMES", 8)
    monkeypatch.setattr(_averages, "_PER_DECAY", 1.0)


@given(
    n=st.integers(20, 90),
    first=st.integers(0, 10),
    size=st.integers(2, 7),
    seed=st.integers(0, 100),
)
@settings(max_examples=40)
def test_means_between_groups_are_those_of_the_matrix(n, first, size, seed):
    c2 = np.random.default_rng(seed).normal(size=(2, n, n))
    c2 += c2.swapaxes(1, 2)
    data = pack_pairs(c2, DT * np.arange(1.0, n + 1.0), Q, DT, [0.0, 30.0])
    count = (n - first) // size
    found = _averages._block_means(data, Groups(first, size, np.ones(count, bool)))
    inside = slice(first, first + count * size)
    blocks = c2[:, inside, inside].reshape(2, count, size, count, size).mean(axis=(2, 4))
    expected = blocks - np.asarray(data.baseline)[:, None, None]
    upper = np.triu(np.ones((count, count), bool), 1)
    np.testing.assert_allclose(found[:, upper], expected[:, upper], atol=1e-12)


def test_averages_hold_the_model_at_the_fit_and_the_mean_residuals(grouped):
    target, y = target_of(*FLAT), coordinates_of(*FLAT)
    means = averages(POSTERIOR, target, y)
    groups = grouped_frames(target.data, 1.0)
    assert (groups.size, groups.number) == (2, 8)
    c2 = simulate_pairs(experiment(*FLAT), CONTRAST, OFFSET, SIGMA, 0)[0]
    parameters = jnp.asarray(truth(*FLAT))
    g = np.asarray(correlation_matrix(parameters, jnp.asarray(T), Q, DT, PHI))
    t = T.reshape(8, 2).mean(axis=1)
    coarse_g = np.asarray(correlation_matrix(parameters, jnp.asarray(t), Q, 2 * DT, PHI))
    residuals = (c2 - OFFSET - CONTRAST * g).reshape(8, 2, 8, 2).mean(axis=(1, 3))
    expected = pack_pairs((OFFSET + CONTRAST * coarse_g + residuals)[None], t, Q, 2 * DT, [PHI])
    for name in ("t", "q", "dt", "phi", "mask", "baseline", "n_pairs", "square"):
        found = np.asarray(getattr(means.target.data, name))
        np.testing.assert_allclose(found, getattr(expected, name), rtol=1e-10, err_msg=name)
    for found, block in zip(means.target.data.blocks, expected.blocks, strict=True):
        np.testing.assert_allclose(found, block, atol=1e-12)
    assert float(means.target.noise_scale) == pytest.approx(SIGMA / 2)


@given(step=st.floats(-3, 3))
def test_sigma_is_mapped_with_its_width(step):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coarse, "_FRAMES", 8)
        patch.setattr(_averages, "_PER_DECAY", 1.0)
        means = averages(POSTERIOR, target_of(*FLAT), coordinates_of(*FLAT))
    y = np.tile(coordinates_of(*FLAT), (2, 1))
    # 120 pairs of single frames and 28 of groups.
    width = 1 / np.sqrt(2 * np.array([120, 28]))
    y[1, -1] += step * width[0]
    found = means.of_averages(y)
    np.testing.assert_allclose(found[0, -1], np.log(SIGMA / 2))
    np.testing.assert_allclose(found[1, -1] - found[0, -1], step * width[1], atol=1e-12)
    np.testing.assert_array_equal(found[:, :-1], y[:, :-1])
    np.testing.assert_allclose(means.of_all(found), y, rtol=1e-12)


@cache
def walked(case):
    means = averages(POSTERIOR, target_of(*case), coordinates_of(*case))
    rng = np.random.default_rng(1)
    near = coordinates_of(*case) + np.array([0.02, 2e2, 1e-3, 0.02]) * rng.normal(size=(400, 4))
    points = Proposals(means.of_averages(near), np.zeros(400), np.full(400, 1 / 400), 0.9, 1)
    sampler = EnsembleSampler(POSTERIOR, means.target, points, seed=3, n_groups=2, n_steps=160)
    return means, drive(sampler, sampler.start(), lambda draws: False)


@pytest.mark.slow
@pytest.mark.parametrize("case", [FLAT, FLOOR], ids=["alpha_0", "floor"])
def test_weighed_draws_follow_the_posterior_of_all_pairs(grouped, case):
    means, before = walked(case)
    target = target_of(*case)
    draws = weighed(POSTERIOR, target, means, before, 8192, 3)
    seen = draws.proposals
    assert (draws.engine, draws.n_chains, draws.n_draws) == (AVERAGED, 2, 1000)
    assert seen.k_hat < 0.7
    assert seen.kish > 1500
    nodes, mass = on_grid(target, draws.y)
    _, found = densities(seen.y, target)
    _, unweighed = densities(means.of_all(before.y.reshape(-1, 4)), target)
    off = []
    for k, name in enumerate(PARAMETERS):
        mean = mass @ nodes[:, k]
        width = np.sqrt(mass @ (nodes[:, k] - mean) ** 2)
        assert seen.weights @ found[:, k] == pytest.approx(mean, abs=0.1 * width), name
        spread = np.sqrt(seen.weights @ (found[:, k] - mean) ** 2)
        assert spread == pytest.approx(width, rel=0.1), name
        off.append(abs(unweighed[:, k].mean() - mean) / width)
    # So coarse averages of so few frames are not the posterior by themselves.
    assert max(off) > 0.1


def equal(log_weights):
    """Takes all weights for equal, and bad."""
    return np.full(log_weights.size, 1 / log_weights.size), 0.9


def test_groups_of_draws_stay_the_groups_of_walkers(grouped, monkeypatch):
    monkeypatch.setattr(_averages, "smoothed", equal)
    means, before = walked(FLAT)
    y = before.y.copy()
    step = y[..., -1].std()
    y[1, :, -1] += step
    draws = weighed(POSTERIOR, target_of(*FLAT), means, Draws(y, y[..., 0]), 4096, 3)
    middle = draws.y[..., -1].mean(axis=1)
    assert middle[1] - middle[0] == pytest.approx(step * means.shrinkage, rel=0.2)


def test_pairs_with_weights_or_few_frames_are_not_averaged(grouped, monkeypatch):
    target = target_of(*FLAT)
    assert possible(target)
    assert not possible(normal(FLAT))
    heavier = tuple(np.ones_like(block) for block in target.data.blocks)
    assert not possible(target._replace(data=target.data._replace(weights=heavier)))
    monkeypatch.setattr(coarse, "_FRAMES", 256)
    assert not possible(target)


def test_errors_of_walks_and_weights_add_up():
    walks = Diagnosis({"a": 1.02, "b": 1.0}, {"a": 600.0, "b": 1e9}, {"a": 300.0, "b": 500.0}, (),
                      0, 4000)  # fmt: skip
    weights = Diagnosis({"a": 1.001, "b": 1.003}, {"a": 1200.0, "b": 900.0},
                        {"a": 300.0, "b": float("nan")}, (), 0, 1000, 0.4, 1500.0)  # fmt: skip
    found = weights.after(walks)
    assert found.r_hat == {"a": 1.02, "b": 1.003}
    assert found.ess_bulk == pytest.approx({"a": 400.0, "b": 900.0})
    assert found.ess_tail["a"] == 150.0
    assert (found.n_draws, found.k_hat, found.kish) == (1000, 0.4, 1500.0)


@pytest.fixture(scope="module")
def independent():
    c2 = simulate_pairs(experiment(*FLAT), CONTRAST, OFFSET, SIGMA, 2)
    return fit_run(CONFIG, measured(c2)), c2


@pytest.fixture
def many_pairs(grouped, monkeypatch):
    """Few pairs count as many, and weights of importance sampling as bad."""
    monkeypatch.setattr(_passes, "_MOST_PAIRS", 0)
    monkeypatch.setattr(_passes, "MOST", 4096)
    # Sigma given 28 pairs is skewed more than given 120, which makes weights uneven.
    loose = replace(_passes.THRESHOLDS, k_hat=0.85, kish=100.0, ess=15.0, r_hat=1.05)
    monkeypatch.setattr(_passes, "THRESHOLDS", loose)
    weigh = _passes.ImportanceSampler.draws

    def bad(self, state):
        found = weigh(self, state)
        n = len(found.proposals.y)
        flat = np.full(n, 1 / n)
        points = Proposals(found.proposals.y, found.proposals.log_density, flat, 0.9, 1)
        return Draws(found.y, found.log_density, proposals=points)

    monkeypatch.setattr(_passes.ImportanceSampler, "draws", bad)


@pytest.mark.slow
def test_averages_take_over_where_there_are_many_pairs(independent, many_pairs, monkeypatch):
    fit, c2 = independent
    events = []
    config = replace(CONFIG.cmc_config(), min_ess=0)
    found = analyse(fit, c2, config, on_event=events.append)
    assert found.draws.engine == AVERAGED
    (said,) = [e.text for e in events if isinstance(e, Message)]
    assert "ensemble sampling of averaged frames takes over" in said
    stages = {e.stage for e in events if not isinstance(e, Message)}
    assert {"plain draws of averaged frames", "plain weights of all pairs"} <= stages
    monkeypatch.undo()
    assert_means_agree(found.rows, analyse(fit, c2, CONFIG.cmc_config()).rows, sd=0.2)


@pytest.mark.parametrize(("limit", "points"), [(120, "MOST"), (119, "FEW")])
def test_where_points_take_long_few_are_tried_before_averages(
    independent, many_pairs, monkeypatch, limit, points
):
    fit, c2 = independent
    monkeypatch.setattr(_passes, "_POINT_PAIRS", limit)
    events = []

    def stop(*_):
        raise InterruptedError

    monkeypatch.setattr(_passes, "averages", stop)
    with pytest.raises(InterruptedError):
        analyse(fit, c2, CONFIG.cmc_config(), on_event=events.append)
    (total,) = {e.total for e in events if getattr(e, "stage", "") == "plain weights"}
    assert total == getattr(_passes, points)


@pytest.mark.slow
def test_nuts_takes_over_where_averages_do_not_hold(independent, many_pairs, monkeypatch):
    fit, c2 = independent
    monkeypatch.setattr(_averages, "smoothed", equal)
    events = []
    found = analyse(fit, c2, CONFIG.cmc_config(), on_event=events.append)
    assert found.draws.engine == "nuts"
    said = [e.text for e in events if isinstance(e, Message)]
    assert any("do not stand in for all pairs here, so NUTS takes over" in text for text in said)
