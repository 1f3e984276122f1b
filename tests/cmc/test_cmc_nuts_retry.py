"""Sampling again after divergences: when, how, and which attempt is kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from heterodyne._errors import ConfigError
from heterodyne.config.cmc import CMCConfig
from heterodyne.core._jax import jnp
from heterodyne.optimization.cmc.sampler import NUTSSampler, SamplingPlan, run_nuts_with_retry

SHORT = SamplingPlan(num_warmup=60, num_samples=80, num_chains=1, seed=1)


def free():
    numpyro.sample("x", dist.Normal(0.0, 1.0))


def walled(height):
    """A normal density with a step that no trajectory survives, unless its height is 0."""
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.factor("wall", jnp.where(x > 0.3, 0.0, -height))


def test_divergent_draws_of_a_real_run_are_tried_again(caplog, monkeypatch):
    attempts = []
    sample = NUTSSampler._sample

    def watched(self, *args):
        attempts.append((sample(self, *args), self))
        return attempts[-1][0]

    monkeypatch.setattr(NUTSSampler, "_sample", watched)
    sampler = NUTSSampler.from_plan(SHORT, walled, "init_to_sample")
    samples, stats = run_nuts_with_retry(sampler, walled, {"height": 1e4}, max_retries=1)
    assert [s.plan.target_accept for _, s in attempts] == pytest.approx([0.8, 0.85])
    assert {replace(s.plan, target_accept=0.8) for _, s in attempts} == {SHORT}
    counts = [int(s.mcmc.get_extra_fields()["diverging"].sum()) for _, s in attempts]
    assert min(counts) > 0.05 * 80
    assert stats.num_divergences == min(counts)
    assert stats.divergence_rate == pytest.approx(min(counts) / 80)
    assert samples is attempts[int(np.argmin(counts))][0]
    assert not stats.is_healthy
    assert "sampling again at 0.85" in caplog.text
    assert "of the draws diverged: the posterior has corners" in caplog.text
    assert "the best attempt is not healthy" in caplog.text


@pytest.fixture
def attempts(monkeypatch):
    """Replaces runs by given shares of divergent draws; records what was asked for."""
    rates, seen = [], []

    def pretend(self, key, values, kwargs):
        rate = rates[min(len(seen), len(rates) - 1)]
        seen.append((round(self.plan.target_accept, 6), self.plan.effective_seed, kwargs))
        self._draws = {
            "diverging": np.arange(100) < 100 * rate,
            "num_steps": np.full(100, 3),
            "accept_prob": np.full(100, 0.9),
        }
        return {"x": np.array([float(len(seen))])}

    monkeypatch.setattr(NUTSSampler, "_sample", pretend)
    return rates, seen


def tried(sampler=None, model_kwargs=None, **options):
    sampler = NUTSSampler.from_plan(SHORT, free) if sampler is None else sampler
    samples, stats = run_nuts_with_retry(sampler, free, model_kwargs, **options)
    return int(samples["x"][0]), stats


@pytest.mark.parametrize(
    ("rates", "best", "n_runs"),
    [
        ([0.0], 1, 1),
        ([0.05], 1, 1),
        ([0.06, 0.05], 2, 2),
        ([0.3, 0.1, 0.2, 0.4], 2, 4),
        ([0.1, 0.1, 0.1, 0.1], 1, 4),
    ],
)
def test_attempts_end_and_the_best_is_kept(attempts, caplog, rates, best, n_runs):
    attempts[0].extend(rates)
    which, stats = tried()
    assert which == best
    assert stats.divergence_rate == min(rates)
    assert [target for target, _, _ in attempts[1]] == [0.8, 0.85, 0.9, 0.95][:n_runs]
    assert {seed for _, seed, _ in attempts[1]} == {1}
    assert caplog.text.count("sampling again") == n_runs - 1
    assert ("is not healthy" in caplog.text) is (min(rates) >= 0.05)


def test_the_number_of_retries_is_kept(attempts):
    attempts[0].append(0.3)
    tried(max_retries=0)
    assert len(attempts[1]) == 1


def test_the_target_goes_up_to_a_limit(attempts, caplog):
    attempts[0].append(0.3)
    plan = replace(SHORT, target_accept=0.9)
    tried(NUTSSampler.from_plan(plan, free), max_retries=9, target_accept_increment=0.06)
    assert [target for target, _, _ in attempts[1]] == [0.9, 0.96, 0.99]
    assert "no further attempt: the target acceptance is 0.99 already" in caplog.text


def test_a_fixed_step_size_is_not_tried_again(attempts, caplog):
    attempts[0].append(0.3)
    tried(NUTSSampler.from_plan(replace(SHORT, adapt_step_size=False), free))
    assert len(attempts[1]) == 1
    assert "the step size is not adapted" in caplog.text


def test_a_drawn_seed_is_that_of_all_attempts(attempts):
    attempts[0].append(0.3)
    sampler = NUTSSampler.from_plan(replace(SHORT, seed=None), free)
    tried(sampler)
    assert {seed for _, seed, _ in attempts[1]} == {sampler.plan.effective_seed}


def test_the_old_factor_still_raises_the_target(attempts):
    attempts[0].append(0.3)
    with pytest.warns(DeprecationWarning, match=r"step_size_factor=0\.5.*increment=0\.05"):
        tried(step_size_factor=0.5, target_accept_increment=0.2, max_retries=1)
    with pytest.warns(DeprecationWarning, match="step_size_factor"):
        tried(step_size_factor=0.2, max_retries=1)
    assert [target for target, _, _ in attempts[1]] == [0.8, 0.85, 0.8, 0.88]
    with (
        pytest.warns(DeprecationWarning, match="step_size_factor"),
        pytest.raises(ConfigError, match="target_accept_increment is 0"),
    ):
        tried(step_size_factor=1.0)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_retries": -1}, "max_retries is -1"),
        ({"target_accept_increment": 0.0}, "target_accept_increment is 0"),
        ({"target_accept_increment": 0.5}, "target_accept_increment is 0.5"),
        ({"target_accept_increment": float("nan")}, "target_accept_increment is nan"),
        ({"model_kwargs": {"height": 1.0}}, "cannot be called with.*height"),
    ],
)
def test_arguments_of_a_retry_have_limits(attempts, options, text):
    with pytest.raises(ConfigError, match=text):
        tried(**options)
    assert attempts[1] == []


def test_attempts_sample_one_model(attempts):
    with pytest.raises(ConfigError, match="model_fn"):
        run_nuts_with_retry(NUTSSampler.from_plan(SHORT, free), walled, {})


def test_arguments_reach_the_model():
    plan = SamplingPlan.from_config(CMCConfig(num_warmup=60, dense_mass=False, num_chains=1))
    sampler = NUTSSampler.from_plan(replace(plan, num_samples=80), walled)
    samples, stats = run_nuts_with_retry(sampler, walled, {"height": 0.0})
    assert stats.is_healthy
    assert (samples["x"] < 0.3).any()
    assert (samples["x"] > 0.3).any()
