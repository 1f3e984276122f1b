"""Shards: a partition of the pairs, whose posteriors multiply to the posterior of all."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from core_cases import ANGLES, DT, NAMES, SMALL, Q, fit_result, make_model, simulate
from hypothesis import given, settings
from hypothesis import strategies as st

from heterodyne._errors import ConfigError, DataError, SamplingError
from heterodyne.config.cmc import CMCConfig
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jnp
from heterodyne.data import from_arrays
from heterodyne.optimization.bind import bind
from heterodyne.optimization.cmc import _divide, _sharded, core
from heterodyne.optimization.cmc._assign import STRATEGIES, Sharding, assigned, shard_of
from heterodyne.optimization.cmc._divide import divided
from heterodyne.optimization.cmc._nuts import Target
from heterodyne.optimization.cmc.core import fit_cmc_multi_phi, fit_cmc_sharded
from heterodyne.optimization.cmc.results import cmc_result_to_arviz
from heterodyne.optimization.posterior import Posterior, Unknowns

COUNTS = st.integers(2, 7)


def pairs_of(mask, n_angles=2):
    return np.broadcast_to(np.triu(np.outer(mask, mask), 1), (n_angles, mask.size, mask.size))


@settings(max_examples=60)
@given(
    strategy=st.sampled_from(sorted(STRATEGIES)),
    n_shards=COUNTS,
    mask=st.lists(st.booleans(), min_size=12, max_size=20),
    seed=st.integers(0, 3),
)
def test_every_pair_belongs_to_exactly_one_shard(strategy, n_shards, mask, seed):
    pairs = pairs_of(np.array([True] * 6 + mask))
    labels = Sharding(n_shards, strategy, seed).assign(pairs)
    np.testing.assert_array_equal(labels >= 0, pairs)
    sizes = np.array([(labels == k).sum() for k in range(n_shards)])
    assert sizes.sum() == pairs.sum()
    assert np.ptp(sizes) <= pairs.shape[0]
    again = Sharding(n_shards, strategy, seed).assign(pairs)
    np.testing.assert_array_equal(labels, again)
    if strategy != "random":
        in_angle = np.array([[(x == k).sum() for k in range(n_shards)] for x in labels])
        assert np.ptp(in_angle, axis=1).max() <= 1


def mean_times(strategy):
    pairs = pairs_of(np.ones(40, bool), 1)
    labels = Sharding(5, strategy, 0).assign(pairs)[0]
    i, j = np.indices(labels.shape)
    return [(i + j)[labels == k] / 2 for k in range(5)]


def test_strategies_spread_shards_over_the_measurement_as_they_say():
    bands = mean_times("contiguous")
    assert all(a.max() <= b.min() for a, b in itertools.pairwise(bands))
    spread = np.array([[x.mean(), x.std()] for x in mean_times("stratified")])
    chance = np.array([[x.mean(), x.std()] for x in mean_times("random")])
    assert np.ptp(spread, axis=0).max() < 0.25
    assert np.ptp(chance[:, 0]) > 2 * np.ptp(spread[:, 0])


@pytest.mark.parametrize(
    ("n_shards", "strategy", "said"),
    [(1, "random", "at least 2"), (3, "randm", "did you mean 'random'"), (200, "random", "190")],
)
def test_impossible_divisions_are_refused(n_shards, strategy, said):
    with pytest.raises(ConfigError, match=said):
        Sharding(n_shards, strategy).assign(pairs_of(np.ones(20, bool)))


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_posteriors_of_shards_multiply_to_the_posterior(strategy):
    """Exactly, in sampling coordinates, up to a constant."""
    model, c2 = make_model(), simulate(ANGLES)
    data = from_arrays(c2, q=Q, phi=ANGLES, t=model.t, dt=DT)
    problem = bind(data, model.param_manager)
    posterior = Posterior(problem.coordinates, problem.scaling)
    truth = np.array([model.param_manager[n].value for n in [*model.param_manager][:14]])
    scaling = jnp.array([0.2, 0.3, 1.0, 1.02])
    centre = np.asarray(posterior.inverse(Unknowns(jnp.asarray(truth), scaling, jnp.array(0.01))))
    rng = np.random.default_rng(0)
    points = centre + 0.05 * rng.normal(size=(4, centre.size))
    scale = jnp.asarray(0.01)

    def density(y, target):
        return float(posterior.log_density(jnp.asarray(y), *target))

    whole = np.array([density(y, Target(problem.data, scale)) for y in points])
    labels = assigned(problem.data, c2.shape, Sharding(3, strategy, 1))
    shards = [shard_of(problem.data, c2, labels, k) for k in range(3)]
    assert sum(int(s.n_pairs.sum()) for s in shards) == problem.n_pairs
    targets = [Target(s, scale, None, 1 / 3) for s in shards]
    product = np.array([sum(density(y, t) for t in targets) for y in points])
    np.testing.assert_allclose(np.diff(product), np.diff(whole), rtol=1e-9)


@pytest.fixture(scope="module")
def whole():
    return fit_cmc_multi_phi(make_model(), simulate(ANGLES), ANGLES, replace(SMALL, enable="never"))


@pytest.fixture(scope="module")
def sharded():
    config = replace(SMALL, enable="always", num_shards=3, min_ess=30)
    return fit_cmc_multi_phi(make_model(), simulate(ANGLES), ANGLES, config)


def test_combined_shards_agree_with_one_pass(whole, sharded):
    assert sharded.parameter_names == NAMES
    shift = (sharded.posterior_mean - whole.posterior_mean) / whole.posterior_std
    # Both rest on some 600 draws.
    assert np.abs(shift).max() < 0.25
    np.testing.assert_allclose(sharded.posterior_std, whole.posterior_std, rtol=0.2)


def test_a_result_from_shards_tells_how_they_fared(sharded):
    known = sharded.metadata["combination"]
    assert (sharded.num_shards, known["num_shards"], known["strategy"]) == (3, 3, "random")
    assert known["k_hat"] < 0.7
    assert known["held_against_all"] == "sound"
    assert sharded.metadata["engine"] == "consensus"
    shards = sharded.metadata["shard_diagnostics"]
    assert [s["shard"] for s in shards] == [0, 1, 2]
    assert sum(s["n_pairs"] for s in shards) == 2 * 30 * 29 // 2
    assert all(s["r_hat_max"] < 1.2 and s["divergences"] == 0 for s in shards)
    sentences = " ".join(sharded.metadata["verdict"]["sentences"])
    assert "divided into 3 shards (random)" in sentences
    assert "Held against all pairs the combination is sound" in sentences


def test_energies_and_warmup_of_a_result_from_shards_are_those_of_the_shards(sharded):
    assert sharded.bfmi.shape == (sharded.num_chains,)
    stored = cmc_result_to_arviz(sharded)["sample_stats"]["bfmi"]
    np.testing.assert_array_equal(stored, sharded.bfmi)
    assert 0.3 < sharded.bfmi.min() == sharded.bfmi.max() < 2.0
    assert 0 < sharded.num_warmup <= SMALL.num_warmup


def test_one_angle_in_shards_has_plain_names_and_a_seed_that_is_told():
    # The seed is drawn anew in each run: a bound on ESS that some seed misses would be chance.
    config = replace(SMALL, min_ess=30, combination_method="consensus_mc")
    result = fit_cmc_sharded(make_model(), simulate([15.0]), 15.0, config, num_shards=2)
    assert result.parameter_names == ["D0_ref", "v0", "contrast", "offset"]
    known = result.metadata["combination"]
    assert (known["num_shards"], known["method"]) == (2, "consensus_mc")
    again = fit_cmc_sharded(
        make_model(), simulate([15.0]), 15.0, config, num_shards=2, shard_seed=known["seed"]
    )
    np.testing.assert_array_equal(again.posterior_mean, result.posterior_mean)


@pytest.mark.parametrize(
    ("changes", "n_shards", "said"),
    [
        ({}, None, "149,310 pairs are sampled in one pass, which takes about 1.1 GiB of memory"),
        ({"min_points_for_cmc": 10**6}, None, "one pass, since they are few"),
        ({"enable": "never", "num_shards": 4}, None, "one pass, since enable is never"),
        ({"enable": False, "num_shards": 4}, None, "one pass, since enable is False"),
        ({"num_shards": 4}, 4, "divided into 4 shards (random), since num_shards is 4"),
        ({"num_shards": 1}, None, "in one pass"),
        ({"max_points_per_shard": 50_000}, 6, "since max_points_per_shard is 50,000"),
        ({"enable": "always"}, 3, "since enable is always"),
        ({"enable": True}, 3, "since enable is True"),
        ({"enable": "always", "num_shards": 1}, None, "enable is always, but num_shards is 1"),
        (
            {"enable": "always", "min_points_per_shard": 200_000},
            None,
            "fewer points than min_points_per_shard (200,000)",
        ),
    ],
)
def test_data_are_divided_on_request_only(changes, n_shards, said):
    events = []
    asked = divided(CMCConfig(**changes), 316, 3, "auto", events.append)
    assert (None if asked is None else asked.n_shards) == n_shards
    (message,) = events
    assert said in message.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Run night-3: all 149,310 pairs are sampled in one pass"),
        ({"num_shards": 4}, "Run night-3: the pairs are divided into 4 shards"),
        ({"enable": True, "num_shards": 1}, "Run night-3: all pairs are sampled in one pass"),
    ],
)
def test_a_run_is_called_by_its_name(changes, said):
    events = []
    divided(CMCConfig(run_id="night-3", **changes), 316, 3, "auto", events.append)
    (message,) = events
    assert message.text.startswith(said)


def test_too_little_memory_is_told_before_the_draws(monkeypatch, tmp_path):
    told = tmp_path / "meminfo"
    told.write_text("MemTotal:       24000000 kB\nMemAvailable:    1000000 kB\n")
    monkeypatch.setattr(_divide, "_MEMORY", told)
    events = []
    assert divided(CMCConfig(), 316, 3, "nuts", events.append) is None
    assert events[0].severity == "warning"
    assert "but 977 MiB are left. Shards would take more" in events[0].text
    monkeypatch.setattr(_divide, "_MEMORY", tmp_path / "none")
    assert _divide.memory_left() is None


def test_shards_that_fail_are_too_many_or_named(monkeypatch):
    strict = replace(SMALL, enable="always", num_shards=2, min_ess=10**6)
    with pytest.raises(SamplingError, match=r"2 of 2 .*numbers 1, 2, counted from 1"):
        fit_cmc_multi_phi(make_model(), simulate(ANGLES), ANGLES, strict)


def test_shards_that_contradict_each_other_stop_the_run(monkeypatch):
    monkeypatch.setattr(_sharded, "distances", lambda shards: {"v0": 1.5, "D0_ref": 0.1})
    config = replace(SMALL, enable="always", num_shards=2, min_ess=30)
    with pytest.raises(SamplingError, match=r"their values of v0 lie up to 1\.5 widths"):
        fit_cmc_multi_phi(make_model(), simulate(ANGLES), ANGLES, config)


def freed(*names):
    """A model in which some parameters vary as well."""
    model = make_model()
    parameters = {
        n: replace(p, vary=p.vary or n in names) for n, p in model.param_manager.parameters.items()
    }
    return replace(model, param_manager=ParameterSpace(parameters))


DEGENERATE = (("f0", 0.05), ("alpha_sample", -1.7))


def test_a_degenerate_fit_is_refused_before_any_shard(monkeypatch):
    monkeypatch.setattr(core, "fit_scaled", lambda *a, **k: pytest.fail("it was fitted"))
    model = freed("f0", "alpha_sample", "D0_sample")
    for name, value in DEGENERATE:
        fit = fit_result(**{name: value})
        with pytest.raises(SamplingError, match=f"the fit has {name} = {value}") as caught:
            fit_cmc_sharded(model, simulate([15.0]), 15.0, nlsq_result=fit)
        assert "fix D0_sample, alpha_sample" in str(caught.value) or name == "alpha_sample"
        with pytest.raises(SamplingError, match="nlsq_results: the fit has"):
            fit_cmc_multi_phi(model, simulate(ANGLES), ANGLES, CMCConfig(num_shards=2), [fit])


@pytest.mark.parametrize(
    ("free", "changes"),
    [
        # The remedies of the message: nothing of the sample is free, or it is allowed.
        (("f0",), {}),
        (("D0_sample",), {}),
        (("f0", "alpha_sample"), {"allow_degenerate_warmstart": True}),
        # A fit that is not used cannot make shards fail.
        (("f0", "alpha_sample"), {"use_nlsq_warmstart": False}),
    ],
)
def test_a_degenerate_fit_that_harms_nothing_is_accepted(monkeypatch, free, changes):
    class StopError(Exception):
        pass

    def stop(*args, **kwargs):
        raise StopError

    monkeypatch.setattr(core, "fit_scaled", stop)
    fit = fit_result(**dict(DEGENERATE))
    with pytest.raises(StopError):
        fit_cmc_sharded(freed(*free), simulate([15.0]), 15.0, CMCConfig(**changes), nlsq_result=fit)


def test_only_the_best_of_several_fits_counts(monkeypatch):
    bad, good = fit_result(sigma=0.02, f0=0.05), fit_result(sigma=0.01, f0=0.3)
    monkeypatch.setattr(core, "_sampled", lambda *a, **k: "sampled")
    model, config = freed("f0", "alpha_sample"), CMCConfig(num_shards=2)
    assert fit_cmc_multi_phi(model, simulate(ANGLES), ANGLES, config, [bad, good]) == "sampled"


def test_asymmetric_matrices_are_refused():
    c2 = simulate([15.0])
    c2[0, 3, 7] += 1.0
    with pytest.raises(DataError, match="halves"):
        fit_cmc_sharded(make_model(), c2, 15.0, SMALL)
