"""Whether ranks are uniform: simultaneous bands of their ECDF, and p-values from these.

Säilynoja, Bürkner and Vehtari, Statistics and Computing 32, 32, 2022, with the probability of
a band computed exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binom

from heterodyne._typing import FloatArray, IntArray


def rank(truth: float, draws: FloatArray, rng: np.random.Generator) -> int:
    """Number of draws below the truth, those that equal it counted at random.

    A fraction or a rate that is clipped equals the truth in many draws.
    """
    below, equal = int((draws < truth).sum()), int((draws == truth).sum())
    return below + int(rng.integers(equal + 1))


def levels(n_ranked: int) -> FloatArray:
    """Probabilities of ranks below 1, 2, ... among draws, shape (n_ranked,)."""
    return np.arange(1, n_ranked + 1) / (n_ranked + 1)


def counts_below(ranks: Sequence[int], n_ranked: int) -> IntArray:
    """Number of ranks below 1, 2, ..., shape (n_ranked,)."""
    return np.cumsum(np.bincount(np.asarray(ranks, int), minlength=n_ranked + 1))[:-1]


def limits(n: int, z: FloatArray, tail: float) -> tuple[IntArray, IntArray]:
    """Smallest and largest counts that, with all beyond them, have at least a probability."""
    low = binom.ppf(tail, n, z).astype(int)
    return low, n - binom.ppf(tail, n, 1.0 - z).astype(int)


def confidence(n: int, z: FloatArray, tail: float) -> float:
    """Probability that counts of n uniform numbers stay within the limits at all levels.

    Counts are a Markov chain: those between two levels are binomial among those above.
    """
    low, high = limits(n, z, tail)
    counts, probability, before = np.zeros(1, int), np.ones(1), 0.0
    for level, first, last in zip(z, low, high, strict=True):
        new = np.arange(first, last + 1)
        share = (level - before) / (1.0 - before)
        step = binom.pmf(new[:, None] - counts, n - counts, share)
        counts, probability, before = new, step @ probability, level
    return float(probability.sum())


def band(n: int, z: FloatArray, probability: float) -> tuple[IntArray, IntArray]:
    """Limits that the counts of n uniform numbers below levels keep at all of them at once.

    Args:
        n: Number of uniform numbers.
        z: Levels, shape (k,).
        probability: Probability that all counts lie within them; as counts are whole, it is
            slightly exceeded.

    Returns:
        Smallest and largest counts, shape (k,) each.
    """
    narrow, wide = np.log(1.0 - probability), np.log((1.0 - probability) / z.size) - 3.0
    for _ in range(25):
        middle = 0.5 * (narrow + wide)
        if confidence(n, z, float(np.exp(middle))) >= probability:
            wide = middle
        else:
            narrow = middle
    return limits(n, z, float(np.exp(wide)))


def p_value(ranks: Sequence[int], n_ranked: int) -> float:
    """Probability that uniform ranks leave the narrowest band in which these stay."""
    n, z, found = len(ranks), levels(n_ranked), counts_below(ranks, n_ranked)
    tails = np.minimum(binom.cdf(found, n, z), binom.sf(found - 1, n, z))
    # Limits that just leave out the rarest count.
    return max(0.0, 1.0 - confidence(n, z, float(tails.min()) * (1.0 + 1e-9)))
