"""Shards that contradict each other, and sound ones that only seem to."""

from __future__ import annotations

import numpy as np
import pytest
from cmc_cases import CONFIG, experiment, measured

from heterodyne._errors import SamplingError
from heterodyne._events import Message
from heterodyne.config.cmc import CMCConfig
from heterodyne.core.simulate import Detector, simulate_speckles
from heterodyne.optimization.cmc import _analysis
from heterodyne.optimization.cmc._agreement import distances, refuse_contradiction
from heterodyne.optimization.cmc._analysis import analyse
from heterodyne.optimization.cmc._assign import Sharding
from heterodyne.optimization.cmc._pipeline import fit_run

NAMES = [f"p{k}" for k in range(14)]
DRAWS = 200


def shards_at(means, rng, widths=1.0):
    """Shards whose posteriors are normal, means of shape (shards, parameters)."""
    means = np.asarray(means, float)
    widths = np.broadcast_to(widths, means.shape)[..., None]
    draws = means[..., None] + widths * rng.normal(size=(*means.shape, DRAWS))
    return [dict(zip(NAMES, one, strict=False)) for one in draws]


def refused(shards, strategy="random", speckles=False, events=None, **changes):
    """Whether shards are refused."""
    said = [] if events is None else events
    try:
        refuse_contradiction(
            distances(shards), CMCConfig(**changes), strategy, speckles=speckles,
            on_event=said.append,
        )  # fmt: skip
    except SamplingError:
        return True
    return False


@pytest.mark.parametrize("n_shards", [2, 4, 8])
def test_sound_shards_are_refused_in_one_run_of_a_hundred(n_shards):
    """All 14 parameters have the true value 0, whose relative scatter has no limit."""
    rng = np.random.default_rng(n_shards)
    runs = 1000
    found = [
        refused(shards_at(rng.normal(size=(n_shards, 14)), rng), max_parameter_cv=1e-9)
        for _ in range(runs)
    ]
    # A share of 1 % gives at most 18 of 1000 in 99 % of such tests.
    assert sum(found) <= 18


def apart(n_shards, distance, rng, offset=0.0):
    """Shards of which the first is off in one parameter, by so many widths."""
    means = np.zeros((n_shards, 14))
    means[0, 3] = distance
    return shards_at(means + offset, rng)


@pytest.mark.parametrize("n_shards", [2, 4, 8, 30])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_shards_six_widths_apart_are_refused_wherever_they_are(n_shards, offset):
    rng = np.random.default_rng(0)
    assert all(refused(apart(n_shards, 6.0, rng, offset)) for _ in range(50))
    assert not refused(apart(n_shards, 0.0, rng, offset))


def test_shards_of_two_kinds_are_refused_though_each_has_company():
    rng = np.random.default_rng(0)
    means = np.zeros((4, 14))
    means[:2, 3], means[2:, 3] = -3.0, 3.0
    assert all(refused(shards_at(means, rng)) for _ in range(50))


def test_the_largest_distance_that_is_allowed_can_be_set():
    shards = apart(4, 6.0, np.random.default_rng(0))
    (worst,) = (x for x in distances(shards).values() if x > 0)
    assert worst == pytest.approx(6.0, rel=0.1)
    assert refused(shards, max_parameter_cv=0.9 * worst)
    assert not refused(shards, max_parameter_cv=1.1 * worst)
    assert not refused(shards, heterogeneity_abort=False)


def test_widths_that_differ_or_grow_with_the_mean_are_no_contradiction():
    rng = np.random.default_rng(0)
    widths = np.array([1.0, 1.0, 1.0, 30.0])[:, None] * np.ones(14)
    for _ in range(200):
        assert not refused(shards_at(widths * rng.normal(size=(4, 14)), rng, widths))
    level = np.exp(rng.normal(0.0, 0.8, (200, 4, 14)))
    skewed = [refused(shards_at(x, rng, 1.2 * x)) for x in level]
    assert sum(skewed) <= 4


def test_constants_and_a_single_shard_agree():
    constant = [{"a": np.full(DRAWS, 3.0)}, {"a": np.full(DRAWS, 3.0)}]
    assert distances(constant) == {"a": 0.0}
    assert distances(constant[:1]) == {"a": 0.0}


def test_bands_of_time_may_differ_where_speckles_do():
    shards, events = apart(4, 6.0, np.random.default_rng(0)), []
    assert not refused(shards, "contiguous", speckles=True, events=events)
    (said,) = events
    assert said == Message(said.text, "warning")
    assert said.text.startswith("The shards contradict each other: their values of p3")
    assert refused(shards, "contiguous", speckles=False)
    assert refused(shards, "random", speckles=True)


def test_what_the_residuals_say_about_speckles_reaches_the_rule(monkeypatch):
    class StopError(Exception):
        pass

    def stop(*args, speckles):
        raise StopError(speckles)

    monkeypatch.setattr(_analysis, "sample_shards", stop)
    data = measured(simulate_speckles(experiment(0.0, 0.0), Detector(400, 3), 1))
    fit, sharding = fit_run(CONFIG, data), Sharding(2, "contiguous", 0)
    with pytest.raises(StopError, match="True"):
        analyse(fit, np.asarray(data.c2), CONFIG.cmc_config(), sharding=sharding)
