"""Two modes: found where they are, not where they are not, and shards told apart by them."""

from __future__ import annotations

import itertools
import math
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.signal import lfilter
from sklearn.mixture import GaussianMixture

from heterodyne._errors import ConfigError, DataError
from heterodyne.optimization.cmc.diagnostics import (
    BimodalConsensusResult,
    BimodalResult,
    ModeCluster,
    check_shard_bimodality,
    cluster_shard_modes,
    detect_bimodal,
    summarize_cross_shard_bimodality,
)


def autoregressive(rng, rho, chains, draws):
    """Normal draws of unit variance with autocorrelation rho**lag, shape (chains, draws)."""
    x = rng.normal(size=(chains, draws))
    x[:, 1:] *= math.sqrt(1 - rho**2)
    return lfilter([1.0], [1.0, -rho], x, axis=1)


def two_modes(rng, distance, weight, size):
    return rng.normal(size=size) + distance * (rng.random(size) < weight)


def plain_delta_bic(x):
    flat = np.ravel(x).reshape(-1, 1)
    one, two = (GaussianMixture(k, n_init=3, random_state=0).fit(flat) for k in (1, 2))
    return one.bic(flat) - two.bic(flat)


# --- one parameter ----------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e5])
def test_two_modes_are_found_where_they_are(scale):
    rng = np.random.default_rng(0)
    x = scale * (two_modes(rng, 5.0, 0.3, 1500) - 2.0)
    found = detect_bimodal(x, "D0_ref")
    assert found.is_bimodal
    assert found.param_name == "D0_ref"
    assert found.delta_bic == found.bic_unimodal - found.bic_bimodal > 10
    np.testing.assert_allclose(found.means, scale * np.array([-2.0, 3.0]), atol=0.15 * scale)
    np.testing.assert_allclose(found.weights, [0.7, 0.3], atol=0.05)


def test_bic_of_independent_draws_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    half = two_modes(rng, 6.0, 0.5, 600)
    # Each draw with its mirror image: no more draws than independent ones would be.
    x = 30.0 + 7.0 * np.stack([half, 6.0 - half], axis=1).ravel()
    found = detect_bimodal(x, "p")
    flat = x.reshape(-1, 1)
    one, two = (
        GaussianMixture(k, tol=1e-8, n_init=3, random_state=0).fit(flat).bic(flat) for k in (1, 2)
    )
    assert found.bic_unimodal == pytest.approx(one, rel=1e-4)
    assert found.bic_bimodal == pytest.approx(two, rel=1e-4)


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_difference_of_bic_does_not_depend_on_the_unit(shift, exponent):
    x = two_modes(np.random.default_rng(2), 4.0, 0.4, 200)
    expected = detect_bimodal(x, "p")
    found = detect_bimodal(10.0**exponent * (x + shift), "p")
    assert found.delta_bic == pytest.approx(expected.delta_bic, rel=1e-6, abs=1e-6)


def test_normal_draws_are_not_bimodal():
    rng = np.random.default_rng(3)
    flagged = [detect_bimodal(rng.normal(size=400), "p").is_bimodal for _ in range(40)]
    assert sum(flagged) == 0


def test_draws_of_slow_chains_are_not_bimodal_though_plain_bic_says_so():
    rng = np.random.default_rng(4)
    draws = [autoregressive(rng, 0.99, 2, 500) for _ in range(25)]
    assert np.mean([plain_delta_bic(x) > 10 for x in draws]) > 0.5
    assert sum(detect_bimodal(x, "p").is_bimodal for x in draws) == 0
    assert np.mean([detect_bimodal(x, "p").delta_bic > 10 for x in draws]) < 0.05


def test_chains_that_rarely_change_modes_are_still_found():
    rng = np.random.default_rng(5)
    x = autoregressive(rng, 0.5, 2, 600)
    x[0, 200:] += 5.0
    x[1, :350] += 5.0
    found = detect_bimodal(x, "p")
    assert found.is_bimodal
    np.testing.assert_allclose(found.means, [0.0, 5.0], atol=0.3)
    assert detect_bimodal(x.ravel(), "p").is_bimodal


UNIMODAL = {
    "uniform": stats.uniform(0, 1),
    "exponential": stats.expon(),
    "log-normal": stats.lognorm(0.6),
    "heavy": stats.t(4),
    "half-normal": stats.halfnorm(),
}


@pytest.mark.parametrize("name", UNIMODAL)
def test_skewed_flat_and_heavy_distributions_have_one_mode(name):
    x = UNIMODAL[name].rvs(1500, random_state=6)
    found = detect_bimodal(x, name)
    # Two normal distributions do describe them better.
    assert found.delta_bic > 10
    assert not found.is_bimodal
    assert found.means is found.weights is None


def test_evidence_is_compared_with_its_threshold():
    x = two_modes(np.random.default_rng(7), 4.5, 0.5, 300)
    delta = detect_bimodal(x, "p").delta_bic
    assert detect_bimodal(x, "p", bic_threshold=delta - 1e-6).is_bimodal
    assert not detect_bimodal(x, "p", bic_threshold=delta).is_bimodal


def test_weights_and_distances_can_be_asked_for():
    x = two_modes(np.random.default_rng(8), 6.0, 0.1, 1500)
    found = detect_bimodal(x, "p")
    assert found.is_bimodal
    least = min(found.weights)
    assert detect_bimodal(x, "p", min_weight=least - 1e-9).is_bimodal
    assert not detect_bimodal(x, "p", min_weight=least + 1e-9).is_bimodal
    distance = (found.means[1] - found.means[0]) / x.std()
    assert detect_bimodal(x, "p", min_separation=distance - 1e-9).is_bimodal
    refused = detect_bimodal(x, "p", min_separation=distance + 1e-9)
    assert not refused.is_bimodal
    assert refused.means is None
    assert refused.delta_bic == found.delta_bic


def test_a_constant_is_not_bimodal_and_has_no_evidence():
    found = detect_bimodal(np.full(100, 0.1), "p")
    assert not found.is_bimodal
    assert np.isnan([found.bic_unimodal, found.bic_bimodal, found.delta_bic]).all()


@pytest.mark.parametrize(
    ("samples", "options", "words"),
    [
        (np.arange(7.0), {}, "7 draws"),
        (np.array([*range(9), np.nan, np.inf]), {}, "2 of 11 draws are not finite"),
        (np.zeros((2, 3, 4)), {}, "shape"),
        (np.arange(9.0), {"min_weight": 0.6}, "min_weight: 0.6"),
        (np.arange(9.0), {"min_weight": math.nan}, "min_weight"),
        (np.arange(9.0), {"min_separation": -1.0}, "min_separation: -1"),
        (np.arange(9.0), {"min_separation": math.nan}, "min_separation"),
    ],
)
def test_what_cannot_be_used_is_refused(samples, options, words):
    with pytest.raises((ConfigError, DataError), match=words):
        detect_bimodal(samples, "p", **options)


@pytest.mark.parametrize("samples", [np.arange(20.0), np.ones(20)], ids=["varies", "constant"])
def test_without_scikit_learn_the_extra_is_named(monkeypatch, samples):
    monkeypatch.setitem(sys.modules, "sklearn.mixture", None)
    with pytest.raises(ImportError, match=r"pip install 'heterodyne\[diagnostics\]'"):
        detect_bimodal(samples, "p")


# --- shards ---------------------------------------------------------------------------


def bimodal_of(name, low, high, weights=(0.5, 0.5)):
    return BimodalResult(name, True, 100.0, 0.0, 100.0, (low, high), weights)


def unimodal_of(name):
    return BimodalResult(name, False, 0.0, 5.0, -5.0, None, None)


def test_every_parameter_of_every_shard_is_tested_in_order():
    rng = np.random.default_rng(9)
    modal = {7: False, 2: True, 4: False}
    shards = {
        k: {"a": rng.normal(size=200), "b": two_modes(rng, 6.0 * both, 0.5, (2, 100))}
        for k, both in modal.items()
    }
    found = check_shard_bimodality(shards)
    assert [r.is_bimodal for r in found["a"]] == [False] * 3
    assert [r.is_bimodal for r in found["b"]] == [True, False, False]
    assert {r.param_name for r in found["b"]} == {"b"}
    assert found == check_shard_bimodality([shards[k] for k in sorted(shards)])
    none = check_shard_bimodality(shards, min_weight=0.5, min_separation=9.0, bic_threshold=1e6)
    assert not any(r.is_bimodal for results in none.values() for r in results)
    assert check_shard_bimodality([]) == {}


def test_filters_of_shards_each_act():
    x = two_modes(np.random.default_rng(10), 6.0, 0.2, 400)
    for options in ({"bic_threshold": 1e6}, {"min_weight": 0.4}, {"min_separation": 5.0}):
        assert not check_shard_bimodality([{"p": x}], **options)["p"][0].is_bimodal
    assert check_shard_bimodality([{"p": x}])["p"][0].is_bimodal


def test_shards_with_other_parameters_are_refused():
    with pytest.raises(DataError, match="shard 1 differs in b"):
        check_shard_bimodality([{"a": np.arange(9.0)}, {"a": np.arange(9.0), "b": np.ones(9)}])


def test_modes_of_shards_are_summed_up():
    detections = {
        "p": [bimodal_of("p", 1.0, 5.0), unimodal_of("p"), bimodal_of("p", 3.0, 9.0)],
        "q": [unimodal_of("q")] * 3,
    }
    found = summarize_cross_shard_bimodality(detections, 4, {"p": 4.0, "q": 0.0})
    assert (found["n_detections"], found["n_shards"]) == (2, 4)
    assert list(found["per_param"]) == ["p"]
    # Variances 2 and 8 of the modes between two shards.
    assert found["per_param"]["p"] == {
        "fraction_bimodal": 0.5,
        "lower_mode_mean": 2.0,
        "upper_mode_mean": 7.0,
        "separation": 5.0,
        "significance": pytest.approx(5.0 / math.sqrt(5.0)),
        "consensus_in_trough": True,
    }


@pytest.mark.parametrize(
    ("consensus", "expected"),
    [
        (0.0, False),
        (2.4, False),
        (2.6, True),
        (5.0, True),
        (7.6, False),
        (12.0, False),
        (None, None),
    ],
)
def test_a_mean_near_the_middle_is_in_the_trough(consensus, expected):
    detections = {"p": [bimodal_of("p", 0.0, 10.0)]}
    means = None if consensus is None else {"p": consensus}
    found = summarize_cross_shard_bimodality(detections, 1, means)
    assert found["per_param"]["p"]["consensus_in_trough"] is expected
    unknown = summarize_cross_shard_bimodality(detections, 1, {"q": 1.0})
    assert unknown["per_param"]["p"]["consensus_in_trough"] is None


def test_modes_that_scatter_more_than_they_differ_are_left_out():
    detections = {"p": [bimodal_of("p", 1.0, 2.0), bimodal_of("p", 5.0, 6.0)]}
    significance = 1.0 / math.sqrt(8.0)
    kept = summarize_cross_shard_bimodality(detections, 2, significance_threshold=significance)
    assert kept["per_param"]["p"]["significance"] == pytest.approx(significance)
    left_out = summarize_cross_shard_bimodality(detections, 2, significance_threshold=0.36)
    assert left_out == {"per_param": {}, "n_detections": 2, "n_shards": 2}


def test_scatter_of_a_single_shard_is_not_known():
    one = summarize_cross_shard_bimodality({"p": [bimodal_of("p", 0.0, 1.0)]}, 1)
    assert math.isnan(one["per_param"]["p"]["significance"])
    same = summarize_cross_shard_bimodality({"p": [bimodal_of("p", 0.0, 1.0)] * 2}, 2)
    assert same["per_param"]["p"]["significance"] == math.inf
    with pytest.raises(ConfigError, match="0 shards"):
        summarize_cross_shard_bimodality({}, 0)
    with pytest.raises(DataError, match="2 results of 1 shard"):
        summarize_cross_shard_bimodality({"p": [unimodal_of("p")] * 2}, 1)


def shards_in_modes(upper, rng, count=12):
    """Draws of shards, those in ``upper`` in the upper mode of two parameters of other scales."""
    return {
        k: {
            "D0_ref": 1e4 + 10.0 * rng.normal(size=50) + 300.0 * (k in upper),
            "phi0": 0.1 * rng.normal(size=50) + 2.0 * (k in upper),
            "beta": 1e3 * rng.normal(size=50),
        }
        for k in range(count)
    }


def detections_of(shards, **modal):
    return {
        name: [unimodal_of(name)] * (len(shards) - 1) + [modal.get(name, unimodal_of(name))]
        for name in next(iter(shards.values()))
    }


@given(st.sets(st.integers(0, 11), min_size=1, max_size=11))
def test_shards_are_divided_by_their_modes(upper):
    shards = shards_in_modes(upper, np.random.default_rng(11))
    last = 300.0 * (11 in upper)
    detections = detections_of(
        shards,
        D0_ref=bimodal_of("D0_ref", 1e4 + last, 1.2e4, (0.9, 0.1)),
        phi0=replace(bimodal_of("phi0", 2.0 * (11 in upper), 4.0, (0.8, 0.2))),
    )
    low, high = cluster_shard_modes(detections, shards)
    assert set(high) == upper
    assert set(low) | set(high) == set(range(12))
    assert low == sorted(low)
    shuffled = dict(reversed(shards.items()))
    assert cluster_shard_modes(detections, shuffled) == (low, high)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=7, unique=True))
def test_groups_of_one_parameter_have_the_smallest_sum_of_squares_nearby(values):
    shards = {k: {"p": np.array([x])} for k, x in enumerate(values)}
    results = [unimodal_of("p")] * len(values)
    results[0] = bimodal_of("p", values[0], 9.0, (0.9, 0.1))
    low, high = cluster_shard_modes({"p": results}, shards)
    assert sorted(low + high) == list(range(len(values)))
    x = np.array(values)
    if low and high:
        # Every shard is in the group whose mean is nearer, and the lower group is first.
        centres = [x[low].mean(), x[high].mean()]
        assert centres[0] < centres[1]
        for group, other in itertools.permutations((0, 1)):
            for k in (low, high)[group]:
                assert abs(x[k] - centres[group]) <= abs(x[k] - centres[other]) + 1e-9


def test_a_shard_with_two_modes_is_where_its_heavier_one_is():
    shards = {k: {"p": np.array([low, 10.0])} for k, low in enumerate([0.0, 0.0, 10.0])}
    results = [
        bimodal_of("p", 0.0, 10.0, (0.6, 0.4)),
        bimodal_of("p", 0.0, 10.0, (0.3, 0.7)),
        unimodal_of("p"),
    ]
    assert cluster_shard_modes({"p": results}, shards) == ([0], [1, 2])


def test_bounds_set_the_weight_of_a_parameter():
    # p groups shards as (0, 1), (2, 3); q as (0, 2), (1, 3).
    shards = {
        k: {"p": np.array([p]), "q": np.array([q])}
        for k, (p, q) in enumerate([(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)])
    }
    detections = {
        name: [bimodal_of(name, 0.0, 9.0, (0.9, 0.1)), *[unimodal_of(name)] * 3] for name in "pq"
    }
    wide = {"p": (0.0, 1.0), "q": (0.0, 100.0)}
    assert cluster_shard_modes(detections, shards, wide) == ([0, 1], [2, 3])
    wide = {"p": (0.0, 100.0), "q": (0.0, 1.0)}
    assert cluster_shard_modes(detections, shards, wide) == ([0, 2], [1, 3])


def test_shards_without_modes_stay_together():
    shards = shards_in_modes({1}, np.random.default_rng(12), 3)
    assert cluster_shard_modes(detections_of(shards), shards) == ([0, 1, 2], [])
    assert cluster_shard_modes({}, {}) == ([], [])
    same = {k: {"p": np.ones(3)} for k in range(3)}
    assert cluster_shard_modes({"p": [bimodal_of("p", 1.0, 2.0, (0.9, 0.1))] * 3}, same) == (
        [0, 1, 2],
        [],
    )


def test_clusters_need_results_of_the_same_shards():
    shards = {3: {"p": np.ones(3)}, 5: {"p": np.ones(3)}}
    modal = bimodal_of("p", 0.0, 1.0)
    with pytest.raises(DataError, match="1 results of 2 shards"):
        cluster_shard_modes({"p": [modal]}, shards)
    with pytest.raises(DataError, match="shard 3: no draws of q"):
        cluster_shard_modes({"q": [modal, modal]}, shards)
    for bounds in ((1.0, 1.0), (0.0, math.inf), (math.nan, 1.0)):
        with pytest.raises(ConfigError, match="p has the bounds"):
            cluster_shard_modes({"p": [modal, modal]}, shards, {"p": bounds})


def test_shards_of_two_modes_are_found_and_divided_from_their_draws():
    rng = np.random.default_rng(13)
    upper = {1, 3, 4}
    # Each shard has nine in ten of its draws in its own mode.
    shards = {
        k: {
            "v0": two_modes(rng, 8.0, 0.9 if k in upper else 0.1, 300),
            "beta": rng.normal(size=300),
        }
        for k in range(6)
    }
    detections = check_shard_bimodality(shards, min_weight=0.02, min_separation=0.5)
    assert cluster_shard_modes(detections, shards) == ([0, 2, 5], [1, 3, 4])
    middle = {"v0": float(np.mean([x["v0"].mean() for x in shards.values()]))}
    found = summarize_cross_shard_bimodality(detections, 6, middle)["per_param"]
    assert list(found) == ["v0"]
    assert found["v0"]["fraction_bimodal"] == 1.0
    assert found["v0"]["separation"] == pytest.approx(8.0, abs=0.3)
    assert found["v0"]["significance"] > 10
    assert found["v0"]["consensus_in_trough"] is True


def test_a_combination_of_modes_holds_what_it_is_given():
    modes = [
        ModeCluster({"p": m}, {"p": 0.1}, w, n) for m, w, n in ((0.0, 0.75, 3), (1.0, 0.25, 1))
    ]
    found = BimodalConsensusResult(modes, ["p"], {"p": {"q": 3}})
    assert asdict(found)["modes"][1] == {
        "mean": {"p": 1.0}, "std": {"p": 0.1}, "weight": 0.25, "n_shards": 1,
    }  # fmt: skip
    assert (found.modal_params, found.co_occurrence) == (["p"], {"p": {"q": 3}})
