"""Results of shards as one result."""

from __future__ import annotations

import numpy as np
import pytest
from cmc_results import CENTRES, NAMES, WIDTHS, make_draws, make_result

from heterodyne._errors import DataError
from heterodyne.optimization.cmc.combine import combine_shard_samples
from heterodyne.optimization.cmc.results import cmc_result_to_arviz, merge_shard_cmc_results


def shard(seed, **changes):
    """A shard's result whose figures are those of its draws."""
    draws = make_draws(seed)
    flat = draws.reshape(-1, len(NAMES))
    figures = {
        "samples": {name: draws[..., k] for k, name in enumerate(NAMES)},
        "posterior_mean": flat.mean(axis=0),
        "posterior_std": flat.std(axis=0, ddof=1),
    }
    return make_result(**(figures | changes))


def test_draws_are_combined_draw_by_draw():
    shards = [shard(k) for k in range(4)]
    merged = merge_shard_cmc_results(shards)
    expected = combine_shard_samples([one.samples for one in shards])
    for k, name in enumerate(NAMES):
        np.testing.assert_array_equal(merged.samples[name], expected[name])
        assert merged.posterior_mean[k] == expected[name].mean()
        low, high = np.quantile(expected[name], [0.025, 0.975])
        assert merged.credible_intervals[name]["95"] == (low, high)
    np.testing.assert_allclose(merged.posterior_std, WIDTHS / 2, rtol=0.1)
    assert (merged.num_shards, merged.metadata["combined_from"]) == (4, "draws")


def test_without_draws_moments_are_weighted_by_inverse_variances():
    wide = {"posterior_mean": CENTRES + 3 * WIDTHS, "posterior_std": 2 * WIDTHS}
    narrow = {"posterior_mean": CENTRES, "posterior_std": WIDTHS}
    merged = merge_shard_cmc_results([make_result(samples=None, **x) for x in (wide, narrow)])
    np.testing.assert_allclose(merged.posterior_mean, CENTRES + 0.6 * WIDTHS)
    np.testing.assert_allclose(merged.posterior_std, WIDTHS * np.sqrt(0.8))
    low, high = merged.credible_intervals["D0_ref"]["95"]
    assert high - low == pytest.approx(2 * 1.96 * merged.posterior_std[0], rel=1e-4)
    assert merged.samples is None
    assert merged.metadata["combined_from"] == "moments"


def test_diagnostics_are_the_worst_of_all_shards():
    first = shard(0, divergences=3, wall_time_seconds=2.0)
    second = shard(
        1,
        r_hat=np.array([1.2, 1.0, np.nan, 1.0]),
        ess_bulk=np.array([1e4, 50.0, 1e4, 1e4]),
        bfmi=np.array([0.1, 1.0, 1.0]),
        divergences=4,
        wall_time_seconds=5.0,
        convergence_passed=False,
    )
    merged = merge_shard_cmc_results([first, second])
    np.testing.assert_array_equal(merged.r_hat, [1.2, 1.002, np.nan, 1.004])
    np.testing.assert_array_equal(merged.ess_bulk, [900, 50, 920, 930])
    np.testing.assert_array_equal(merged.bfmi, [0.1, 0.1, 0.1])
    np.testing.assert_array_equal(
        cmc_result_to_arviz(merged)["sample_stats"]["bfmi"], [0.1, 0.1, 0.1]
    )
    assert [s["bfmi_min"] for s in merged.metadata["shard_diagnostics"]] == [0.9, 0.1]
    assert (merged.divergences, merged.wall_time_seconds) == (7, 7.0)
    assert not merged.convergence_passed
    assert merged.convergence_status == "not_converged"
    assert [s["converged"] for s in merged.metadata["shard_diagnostics"]] == [True, False]
    assert np.isnan(merged.metadata["shard_diagnostics"][1]["r_hat_max"])
    unknown = merge_shard_cmc_results([first, shard(1, r_hat=None, bfmi=None)])
    assert unknown.r_hat is None
    assert unknown.bfmi is None
    lost = merge_shard_cmc_results([first, shard(1, bfmi=np.array([1.0, np.nan, 1.0]))])
    assert np.isnan(lost.bfmi).all()


def test_shards_with_several_numbers_of_chains_have_one_worst_energy():
    one, two = (make_result(samples=None, num_chains=n, bfmi=np.full(n, 0.4 + n)) for n in (2, 1))
    merged = merge_shard_cmc_results([one, two])
    np.testing.assert_array_equal(merged.bfmi, np.full(merged.num_chains, 1.4))


def test_chosen_parameters_may_stand_in_any_order():
    order = [2, 0, 1, 3]
    turned = shard(
        1,
        parameter_names=[NAMES[k] for k in order],
        posterior_mean=shard(1).posterior_mean[order],
        posterior_std=shard(1).posterior_std[order],
        r_hat=np.array([1.5, 1.0, 1.0, 1.0]),
    )
    chosen = ["contrast_0", "D0_ref"]
    merged = merge_shard_cmc_results([shard(0), turned], chosen)
    assert merged.parameter_names == chosen
    np.testing.assert_allclose(merged.posterior_mean, CENTRES[[2, 0]], rtol=0.05)
    np.testing.assert_array_equal(merged.r_hat, [1.5, 1.001])


def test_draws_of_parameters_that_were_not_asked_for_are_left_out():
    sigma = np.random.default_rng(5).uniform(1, 2, make_draws().shape[:2])
    shards = [shard(k) for k in range(2)]
    for k, one in enumerate(shards):
        one.samples["sigma"] = sigma + k
    chosen = ["contrast_0", "D0_ref"]
    merged = merge_shard_cmc_results(shards, chosen)
    assert set(merged.samples) == {*chosen, "sigma"}
    everything = merge_shard_cmc_results(shards)
    for name in merged.samples:
        np.testing.assert_array_equal(merged.samples[name], everything.samples[name])


@pytest.mark.parametrize(
    ("shards", "names", "said"),
    [
        ([], None, "no shard"),
        ([make_result(), make_result(parameter_names=list(reversed(NAMES)))], None, "shard 1"),
        ([make_result()], ["f0"], "f0"),
        ([make_result(samples=None, posterior_std=np.zeros(4))], None, "above 0"),
    ],
)
def test_what_cannot_be_merged_is_refused(shards, names, said):
    with pytest.raises(DataError, match=said):
        merge_shard_cmc_results(shards, names)
