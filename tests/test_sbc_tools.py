"""Bands and p-values of simulation-based calibration, against simulated ranks."""

import numpy as np
import pytest
from benchmarks.uniformity import band, confidence, counts_below, levels, p_value, rank
from scipy.special import ndtr
from scipy.stats import binom, kstest

N_RANKED = 99
PROBABILITY = 0.99


def outside(counts, low, high):
    """Whether each row of counts leaves the band."""
    return ((counts < low) | (counts > high)).any(axis=1)


def simulated(rng, n_sets, repeats, width=1.0, shift=0.0):
    """Counts of ranks, one row for each study, of a normal posterior of wrong width or centre.

    Truths of a study are standard normal, given data that tell nothing; so would the draws be.
    """
    rows = []
    for _ in range(repeats):
        truths = rng.normal(size=n_sets)
        below = ndtr((truths - shift) / width)
        rows.append(counts_below(rng.binomial(N_RANKED, below).tolist(), N_RANKED))
    return np.array(rows)


@pytest.mark.parametrize("n_sets", [60, 300])
def test_the_band_holds_uniform_ranks_with_its_probability(n_sets):
    repeats = 10_000
    low, high = band(n_sets, levels(N_RANKED), PROBABILITY)
    rng = np.random.default_rng(n_sets)
    ranks = rng.integers(N_RANKED + 1, size=(repeats, n_sets))
    counts = np.array([counts_below(row, N_RANKED) for row in ranks])
    kept = 1.0 - outside(counts, low, high).mean()
    # Counts are whole, so the band of 60 sets may hold a little more.
    error = np.sqrt(PROBABILITY * (1.0 - PROBABILITY) / repeats)
    assert PROBABILITY - 4.0 * error < kept < PROBABILITY + 4.0 * error + 0.002


def test_the_probability_of_a_band_is_exact_where_it_can_be_enumerated():
    n, z = 5, levels(3)
    tail = 0.06
    low, high = binom.ppf(tail, n, z), n - binom.ppf(tail, n, 1.0 - z)
    cells = np.array(np.meshgrid(*[range(4)] * n)).reshape(n, -1).T
    counts = np.array([counts_below(row, 3) for row in cells])
    kept = 1.0 - outside(counts, low, high).mean()
    assert 0.0 < kept < 1.0
    assert confidence(n, z, tail) == pytest.approx(kept, abs=1e-12)


@pytest.mark.parametrize(
    ("width", "shift"), [(0.8, 0.0), (1.25, 0.0), (1.0, 0.3)], ids=["narrow", "wide", "shifted"]
)
def test_a_wrong_posterior_leaves_the_band(width, shift):
    rng = np.random.default_rng(3)
    low, high = band(500, levels(N_RANKED), PROBABILITY)
    assert outside(simulated(rng, 500, 60, width, shift), low, high).mean() > 0.8


def test_a_right_posterior_stays_in_the_band():
    rng = np.random.default_rng(4)
    low, high = band(500, levels(N_RANKED), PROBABILITY)
    assert outside(simulated(rng, 500, 200), low, high).mean() < 0.05


def test_p_values_of_uniform_ranks_are_uniform():
    rng = np.random.default_rng(5)
    found = [p_value(rng.integers(N_RANKED + 1, size=100), N_RANKED) for _ in range(300)]
    assert kstest(found, "uniform").pvalue > 1e-3


def test_p_values_and_bands_agree():
    rng = np.random.default_rng(6)
    low, high = band(100, levels(N_RANKED), 0.8)
    for _ in range(40):
        ranks = rng.integers(N_RANKED + 1, size=100)
        left = outside(counts_below(ranks, N_RANKED)[None], low, high)[0]
        p = p_value(ranks, N_RANKED)
        # As counts are whole, the band may hold slightly more than 80 %.
        assert left == (p < 0.2) or 0.17 < p < 0.2


def test_ties_are_ranked_at_random():
    rng = np.random.default_rng(7)
    clipped = np.concatenate([np.ones(60), np.linspace(0.1, 0.9, 39)])
    ranks = np.array([rank(1.0, clipped, rng) for _ in range(4000)])
    assert ranks.min() == 39
    assert ranks.max() == 99
    assert ranks.mean() == pytest.approx(69.0, abs=1.2)
    assert rank(0.05, clipped, rng) == 0
    assert rank(2.0, clipped, rng) == 99
