"""Convergence measures against ArviZ and closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from arviz_stats.base.array import array_stats

from heterodyne.optimization.cmc._diagnostics import (
    THRESHOLDS,
    Diagnosis,
    Thresholds,
    bfmi,
    diagnose,
    diagnose_walks,
)
from heterodyne.optimization.cmc._draws import Walks

CHAINS, DRAWS = 4, 500


def correlated(rho, seed=0, chains=CHAINS):
    """First-order autoregressive draws of unit variance, shape (chains, DRAWS)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(chains, DRAWS))
    for k in range(1, DRAWS):
        x[:, k] = rho * x[:, k - 1] + np.sqrt(1 - rho**2) * x[:, k]
    return x


def diagnosis_of(values, **changes):
    energy = correlated(0.0, 9, next(iter(values.values())).shape[0])
    found = diagnose(values, energy, np.zeros(energy.shape, bool))
    return replace(found, **changes)


VALUES = {
    "independent": correlated(0.0),
    "sticky": correlated(0.9, 1),
    "apart": correlated(0.0, 2) + np.arange(CHAINS)[:, None],
    "heavy": np.random.default_rng(3).standard_cauchy((CHAINS, DRAWS)),
}


@pytest.mark.parametrize("name", VALUES)
def test_measures_are_those_of_arviz(name):
    found = diagnosis_of(VALUES)
    x = VALUES[name]
    assert found.r_hat[name] == float(array_stats.rhat(x, method="rank"))
    assert found.ess_bulk[name] == float(array_stats.ess(x, method="bulk"))
    tail = min(array_stats.ess(x, method="quantile", prob=q) for q in (0.05, 0.95))
    assert found.ess_tail[name] == pytest.approx(float(tail))


def test_the_worst_quantity_is_named():
    found = diagnosis_of(VALUES)
    assert found.worst_r_hat == ("apart", found.r_hat["apart"])
    assert found.worst_r_hat[1] > 1.3
    lowest = min(found.ess_bulk, key=lambda name: found.ess_bulk[name])
    assert found.worst_ess_bulk == (lowest, found.ess_bulk[lowest])
    lowest = min(found.ess_tail, key=lambda name: found.ess_tail[name])
    assert found.worst_ess_tail == (lowest, found.ess_tail[lowest])


def test_effective_draws_of_correlated_draws_are_those_of_theory():
    found = diagnosis_of({"x": correlated(0.8, 4, 16)})
    assert found.ess_bulk["x"] == pytest.approx(16 * DRAWS * 0.2 / 1.8, rel=0.15)


@pytest.mark.parametrize("constant", [0.0, 1e4, -0.3])
def test_a_constant_counts_for_nothing(constant):
    flat = np.full((CHAINS, DRAWS), constant)
    found = diagnosis_of({"flat": flat, "x": VALUES["independent"]})
    assert np.isnan([found.r_hat["flat"], found.ess_bulk["flat"], found.ess_tail["flat"]]).all()
    assert found.worst_r_hat[0] == found.worst_ess_bulk[0] == found.worst_ess_tail[0] == "x"
    assert found.passed()


def test_nothing_but_constants_is_not_passed():
    found = diagnosis_of({"flat": np.ones((CHAINS, DRAWS))})
    assert not found.mixed()
    assert np.isnan(found.worst_r_hat[1])


@pytest.mark.parametrize("n_draws", [500, 1000])
def test_chains_that_each_stay_elsewhere_are_not_passed(n_draws):
    """As where importance sampling leaves each group a single point."""
    x = np.repeat(np.arange(4.0)[:, None], n_draws, axis=1)
    energy = np.random.default_rng(0).normal(size=x.shape)
    found = diagnose({"x": x}, energy, np.zeros(x.shape, bool))
    assert found.r_hat["x"] > 1e6
    assert not found.passed()


def test_a_single_chain_is_compared_with_itself():
    still, drifting = correlated(0.0, 5, 1), correlated(0.0, 5, 1) + np.linspace(0, 3, DRAWS)
    found = diagnosis_of({"still": still, "drifting": drifting})
    halves = still.reshape(2, -1)
    assert found.r_hat["still"] == float(array_stats.rhat(halves, method="rank"))
    assert found.r_hat["still"] < 1.02
    assert found.r_hat["drifting"] > 1.1
    assert len(found.bfmi) == 1
    assert found.n_draws == DRAWS


def test_a_single_chain_of_an_odd_number_of_draws():
    x = correlated(0.0, 6, 1)[:, :-1]
    found = diagnose({"x": x}, x, x > 10)
    assert found.r_hat["x"] < 1.01


def test_bfmi_of_known_energies():
    # Changes of 2, 0, -2, 0 ... around a mean of 0: mean square 2, variance 1.
    energy = np.tile([-1.0, 1.0, 1.0, -1.0], (2, 25))
    energy[1] *= 7.0
    changes = np.abs(np.diff(energy[0])).sum() * 2.0 / (energy.shape[1] - 1)
    np.testing.assert_allclose(bfmi(energy), [changes, changes])


@pytest.mark.parametrize("rho", [0.0, 0.7, 0.9])
def test_bfmi_of_correlated_energies_is_that_of_theory(rho):
    x = correlated(rho, 7, 400)
    # Means of a chain take out 1/n of the variance for each of its effective draws.
    lost = (1.0 + rho) / (1.0 - rho) / DRAWS
    assert np.mean(bfmi(x)) == pytest.approx(2.0 * (1.0 - rho) / (1.0 - lost), rel=0.05)


def test_the_worse_of_two_passes_counts():
    first = Diagnosis({"a": 1.001, "b": 1.02}, {"a": 900.0, "b": 500.0}, {"a": 1e3, "b": 2e3},
                      (0.9, 0.8), 1, 4000)  # fmt: skip
    second = Diagnosis({"a": 1.005, "b": 1.01}, {"a": 950.0, "b": 300.0}, {"a": 5e2, "b": 3e3},
                       (0.2,), 3, 1000)  # fmt: skip
    joined = first.joined(second)
    assert joined == Diagnosis(
        {"a": 1.005, "b": 1.02}, {"a": 900.0, "b": 300.0}, {"a": 5e2, "b": 2e3},
        (0.9, 0.8, 0.2), 4, 5000,
    )  # fmt: skip
    assert second.joined(first).r_hat == joined.r_hat
    assert joined.divergent_share == 4 / 5000


def test_divergences_of_an_engine_without_trajectories_are_not_known():
    walked = diagnose_walks({"a": correlated(0.0, 3, 4)}, Walks(4, 640, 3, (0.3,) * 5, growth=0.0))
    assert (walked.divergences, walked.divergent_share) == (None, 0.0)
    assert GOOD.joined(replace(GOOD, divergences=None)).divergences == 4
    assert walked.joined(walked).divergences is None


def test_a_constant_of_one_pass_takes_the_figure_of_the_other():
    nan = float("nan")
    first = Diagnosis({"a": nan}, {"a": nan}, {"a": nan}, (1.0,), 0, 10)
    second = Diagnosis({"a": 1.2}, {"a": 50.0}, {"a": 60.0}, (1.0,), 0, 10)
    for joined in (first.joined(second), second.joined(first)):
        assert (joined.r_hat["a"], joined.ess_bulk["a"], joined.ess_tail["a"]) == (1.2, 50.0, 60.0)


GOOD = Diagnosis({"a": 1.01}, {"a": 400.0}, {"a": 400.0}, (0.3, 0.9), 4, 4000)


def test_limits_are_reached_at_their_values():
    assert GOOD.mixed()
    assert GOOD.passed()
    assert (THRESHOLDS.r_hat, THRESHOLDS.ess, THRESHOLDS.bfmi) == (1.01, 400.0, 0.3)


@pytest.mark.parametrize(
    ("change", "mixed"),
    [
        ({"r_hat": {"a": 1.0101}}, False),
        ({"ess_bulk": {"a": 399.0}}, False),
        ({"ess_tail": {"a": 399.0}}, False),
        ({"r_hat": {"a": float("nan")}}, False),
        ({"bfmi": (0.29, 0.9)}, True),
        ({"bfmi": (0.9, float("nan"))}, True),
        ({"bfmi": (float("nan"), 0.9)}, True),
        ({"divergences": 5}, True),
    ],
    ids=str,
)
def test_each_limit_decides(change, mixed):
    found = replace(GOOD, **change)
    assert found.mixed() is mixed
    assert not found.passed()


def test_other_limits_may_be_asked_for():
    assert not GOOD.passed(Thresholds(ess=401.0))
    assert replace(GOOD, divergences=40).passed(Thresholds(divergent_share=0.01))
