"""Limits of the configuration that are stricter than those of the verdict."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cmc_cases import CONFIG, CONTRAST, OFFSET, SIGMA, experiment, measured

from heterodyne._events import Message
from heterodyne.core.simulate import simulate_pairs
from heterodyne.optimization.cmc import _ensemble, _passes
from heterodyne.optimization.cmc._analysis import analyse
from heterodyne.optimization.cmc._assign import Sharding
from heterodyne.optimization.cmc._diagnostics import THRESHOLDS, limits_of
from heterodyne.optimization.cmc._pipeline import fit_run

BASE = replace(CONFIG.cmc_config(), num_samples=6000, adaptive_sampling=False)


@pytest.fixture(scope="module")
def data():
    c2 = simulate_pairs(experiment(0.5, 0.0), CONTRAST, OFFSET, SIGMA, 2)
    return fit_run(CONFIG, measured(c2)), c2


def drawn(data, engine, **kwargs):
    """Effective draws and their number, with the default limits and with stricter ones."""
    found = []
    for config in (BASE, replace(BASE, min_ess=1500, max_r_hat=1.005)):
        one = analyse(*data, config, engine=engine, **kwargs)
        passed = one.diagnosis.passed(limits_of(config))
        found.append((one.diagnosis.worst_ess_bulk[1], one.diagnosis.n_draws, passed))
    return found


@pytest.mark.parametrize(
    "engine", ["nuts", pytest.param("ensemble", marks=pytest.mark.slow), "importance"]
)
def test_an_engine_goes_on_until_limits_of_the_run_are_reached(data, engine):
    (ess, count, passed), (strict_ess, strict_count, strict_passed) = drawn(data, engine)
    assert passed
    assert strict_passed
    assert strict_ess >= 1500
    if engine == "nuts":
        assert ess < 1500
        assert strict_count > count


def test_shards_go_on_likewise(data):
    config = replace(BASE, min_ess=1500, min_success_rate=1.0)
    found = analyse(*data, config, engine="nuts", sharding=Sharding(2, "random", 0))
    shards = found.combination.shards
    assert min(one.worst_ess_bulk[1] for one in shards) >= 1500


def test_looser_limits_change_nothing(data):
    loose = replace(BASE, min_ess=0, max_r_hat=1.5)
    first, second = (analyse(*data, c, engine="nuts") for c in (BASE, loose))
    assert first.diagnosis == second.diagnosis


def test_the_limits_that_another_engine_is_needed_for_are_named(data, monkeypatch):
    monkeypatch.setattr(_passes, "MOST", 4096)
    monkeypatch.setattr(_ensemble, "_WALKERS", 128)
    monkeypatch.setattr(_ensemble, "_POPULATION", 128)
    events = []
    config = replace(BASE, min_ess=3000)
    found = analyse(*data, config, on_event=events.append)
    (said,) = [e.text for e in events if isinstance(e, Message)]
    assert "effective draws, wanted 3000), so ensemble sampling takes over" in said
    assert found.draws.engine == "ensemble"
    assert found.diagnosis.passed(limits_of(config))


def test_limits_are_never_looser_than_those_of_the_verdict():
    assert THRESHOLDS.at_least(1.1, 400.0) == THRESHOLDS
    assert THRESHOLDS.at_least(1.001, 900.0) == replace(THRESHOLDS, r_hat=1.001, ess=900.0)
