"""Traces of products of large matrices, from what the matrices do to random vectors.

With y drawn from a normal distribution of covariance Sigma,

    tr(A_a Sigma A_b Sigma) = E[(A_a y)' Sigma (A_b y)],

and products with A and Sigma cost O(N log N) where both are separable, not O(N**2). The mean
over k vectors is a matrix of inner products: for every sum of functions, however it cancels,
it is positive and has a relative standard error of at most sqrt(2 / k), and of far less where
many directions contribute. The few directions that contribute most are found first and taken
into account exactly (as Hutch++ does: Meyer, Musco, Musco, Woodruff, SIAM Symposium on
Simplicity in Algorithms, 142, 2021, doi 10.1137/1.9781611976496.16).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from heterodyne._typing import FloatArray
from heterodyne.core.separable import DECAY_OF_ROW, Terms

# Vectors multiplied at a time.
BATCH = 16
# Batches that look for directions, and batches that stand for all others.
_SEARCHED, _SAMPLED = 4, 8
N_BATCHES = 2 * _SEARCHED + _SAMPLED
_SEED = 1
# Directions that contribute less than this share of the largest are rounding.
_RANK = 1e-10


class Traces(NamedTuple):
    """What was found.

    Attributes:
        values: tr(A_a Sigma A_b Sigma) / 2, shape (count, count), positive semidefinite.
        error: Largest relative standard error of those with a = b.
    """

    values: FloatArray
    error: float


class Operators(NamedTuple):
    """Matrices as what they do to vectors, shape (N, k) with k up to ``BATCH``.

    Attributes:
        functions: Products with every A_a, shape (count, N, k).
        covariance: Product with Sigma, shape (N, k).
        draw: Vectors of covariance Sigma, shape (N, k), for a number k.
    """

    functions: Callable[[FloatArray], FloatArray]
    covariance: Callable[[FloatArray], FloatArray]
    draw: Callable[[int, np.random.Generator], FloatArray]


def trace_estimates(of: Operators, on_batch: Callable[[], None] = lambda: None) -> Traces:
    """Estimate tr(A_a Sigma A_b Sigma) / 2 for all pairs of functions.

    Args:
        of: The matrices.
        on_batch: Called before each of ``N_BATCHES`` batches.
    """
    rng = np.random.default_rng(_SEED)
    found = list(_searched(of, rng, on_batch))
    left, right = _normalised(np.hstack([a for a, _ in found]), np.hstack([b for _, b in found]))
    exact = 0.0
    for part in np.array_split(right, _SEARCHED, axis=1):
        on_batch()
        exact = exact + (_inner(of, part) if part.size else 0.0)
    samples = []
    for _ in range(_SAMPLED):
        on_batch()
        y = of.draw(BATCH, rng)
        samples.append(_inner(of, y - right @ (left.T @ y)) / BATCH)
    values = exact + np.mean(samples, axis=0)
    scatter = np.std([np.diagonal(x) for x in samples], axis=0, ddof=1) / np.sqrt(_SAMPLED)
    sizes = np.maximum(np.diagonal(values), 1e-300)
    return Traces(values, float((scatter / sizes).max()))


def _searched(
    of: Operators, rng: np.random.Generator, on_batch: Callable[[], None]
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Vectors that the functions lead to, all functions alike, and Sigma times them."""
    for _ in range(_SEARCHED):
        on_batch()
        products = of.functions(of.draw(BATCH, rng))
        sizes = np.sqrt(np.einsum("ank,ank->a", products, products))
        shares = rng.normal(size=(len(products), BATCH)) / np.maximum(sizes, 1e-300)[:, None]
        vectors = np.einsum("ank,ak->nk", products, shares)
        yield vectors, of.covariance(vectors)


def _normalised(vectors: FloatArray, products: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Combine vectors C so that C' Sigma C = 1.

    Args:
        vectors: C, shape (N, k).
        products: Sigma C, likewise.

    Returns:
        Both for the combined vectors, of which there may be fewer.
    """
    values, turn = np.linalg.eigh(vectors.T @ products)
    kept = values > max(_RANK * values.max(), 0.0)
    turn = turn[:, kept] / np.sqrt(values[kept])
    return vectors @ turn, products @ turn


def _inner(of: Operators, vectors: FloatArray) -> FloatArray:
    """Sum over the vectors y of (A_a y)' Sigma (A_b y) / 2, shape (count, count)."""
    products = of.functions(vectors)
    # Not a product of matrices: as one it would keep all threads waiting for each other where
    # another process has a core.
    found = np.stack([np.einsum("ank,nk->a", products, of.covariance(x)) for x in products])
    return 0.25 * (found + found.T)


def draw_intensities(
    terms: Terms, contrast: float, shot_noise: float, count: int, rng: np.random.Generator
) -> FloatArray:
    """Draw normal intensities of covariance contrast * G + shot noise.

    Each term of G is the covariance of a Markov process in the time of its own decay.

    Args:
        terms: Separable form of G at one angle, leading axis of length 1.
        contrast: Contrast of the angle.
        shot_noise: What shot noise adds to the diagonal.
        count: Number of vectors.
        rng: Source of random numbers.

    Returns:
        Array of shape (padded, count), zero at frames that are not fitted.
    """
    amplitudes = np.asarray(terms.amplitudes)[0]
    steps = np.diff(np.asarray(terms.decays), axis=1)[DECAY_OF_ROW]
    keep, fresh = np.exp(-steps)[..., None], np.sqrt(-np.expm1(-2.0 * steps))[..., None]
    state = rng.normal(size=(len(amplitudes), count))
    found = np.empty((amplitudes.shape[1], count))
    for k, weights in enumerate(amplitudes.T):
        if k > 0:
            state = keep[:, k - 1] * state + fresh[:, k - 1] * rng.normal(size=state.shape)
        found[k] = weights @ state
    fitted = (amplitudes != 0).any(axis=0)[:, None]
    noise = np.sqrt(shot_noise) * rng.normal(size=found.shape)
    return np.sqrt(contrast) * found + np.where(fitted, noise, 0.0)
