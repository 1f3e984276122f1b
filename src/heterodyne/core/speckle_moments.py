"""How many speckles and how much shot noise residuals speak of.

With Sigma = contrast * G + shot noise on the diagonal, residuals of P speckles have

    E[r_ij r_ij]     = (Sigma_ij**2 + s**2) / P
    E[r_ij r_(i+1)j] = (Sigma_i(i+1) s + Sigma_ij Sigma_(i+1)j) / P,    s = contrast + shot noise.

Their ratio gives the shot noise, whatever P is, and their size gives P.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import root_scalar

from heterodyne._typing import BoolArray, FloatArray, IntArray

# Residuals beyond this many robust standard deviations are drawn in to it.
_CLIP = 6.0
# Shot noise over contrast at which neighbours count as independent.
_LARGEST_RATIO = 1e4


class Rows(NamedTuple):
    """Some rows of the residuals of one angle, shape (m, N) each.

    Attributes:
        residuals: c2 minus model.
        correlation: G.
        used: True for the pairs to use, False on the diagonal.
    """

    residuals: FloatArray
    correlation: FloatArray
    used: BoolArray


def clip_limit(residuals: FloatArray) -> float:
    """Return the size to which larger residuals are drawn in."""
    return _CLIP * 1.4826 * float(np.median(np.abs(residuals)))


@dataclass(frozen=True)
class ResidualMoments:
    """Sums over pairs of one angle, and over pairs of neighbouring pairs.

    Attributes:
        contrast: Contrast of the angle.
        n_pairs: Number of pairs, each counted in both orders.
        square: Sum of r_ij**2.
        model_square: Sum of (contrast G_ij)**2.
        n_neighbours: Number of neighbours (i, j), (i + 1, j); those with i > j stand for
            neighbours along the other index.
        product: Sum of r_ij r_(i+1)j.
        model_product: Sum of contrast**2 G_ij G_(i+1)j.
        model_step: Sum of contrast G_i(i+1).
        lag_sums: Sum of r_i(i+k) over i for each lag k of 0 ... N - 1 frames, shape (N,).
        lag_counts: Number of pairs in each.
    """

    contrast: float
    n_pairs: int
    square: float
    model_square: float
    n_neighbours: int
    product: float
    model_product: float
    model_step: float
    lag_sums: FloatArray
    lag_counts: IntArray

    @classmethod
    def of(
        cls, residuals: FloatArray, correlation: FloatArray, contrast: float, used: BoolArray
    ) -> ResidualMoments:
        """Sum over the pairs that are used.

        Args:
            residuals: c2 minus model, symmetric, shape (N, N).
            correlation: G, symmetric, shape (N, N).
            contrast: Contrast of the angle.
            used: True for the pairs to use, symmetric, False on the diagonal, (N, N).
        """
        limit = clip_limit(residuals[used])
        return cls.summed([Rows(residuals, correlation, used)], contrast, limit)

    @classmethod
    def summed(cls, stretches: Iterable[Rows], contrast: float, limit: float) -> ResidualMoments:
        """Sum over stretches of rows that together are the whole matrices.

        Args:
            stretches: The rows in order.
            contrast: Contrast of the angle.
            limit: Residuals beyond it are drawn in to it.
        """
        total = np.zeros(7)
        by_lag = np.zeros((2, 1))
        done, last = 0, None
        for residuals, correlation, used in stretches:
            # G between a frame and the next one; the last frame has none.
            step = np.append(contrast * np.diagonal(correlation, done + 1), 0.0)[: len(used)]
            rows = _Clipped(
                np.where(used, np.clip(residuals, -limit, limit), 0.0),
                np.where(used, contrast * correlation, 0.0),
                used,
                step,
            )
            by_lag = by_lag + rows.by_lag(done)
            total[:3] += rows.sums()
            total[3:] += rows.neighbours()
            if last is not None:
                total[3:] += last.joined(rows.part(0)).neighbours()
            done, last = done + len(used), rows.part(-1)
        pairs, square, model_square, neighbours, product, model_product, model_step = total
        return cls(
            contrast,
            int(pairs),
            float(square),
            float(model_square),
            int(neighbours),
            float(product),
            float(model_product),
            float(model_step),
            by_lag[0],
            by_lag[1].astype(int),
        )

    def correlation_at(self, shot_noise: float) -> float:
        """Return the correlation of neighbours that a shot noise gives."""
        s = self.contrast + shot_noise
        variance = s**2 + self.model_square / self.n_pairs
        covariance = (self.model_step * s + self.model_product) / max(self.n_neighbours, 1)
        return covariance / variance if variance > 0 else 0.0

    @property
    def correlation(self) -> float:
        """Correlation of the residuals of neighbouring pairs."""
        if self.square == 0 or self.n_neighbours == 0:
            return 0.0
        return self.product / self.n_neighbours / (self.square / self.n_pairs)

    def effective_speckles(self, shot_noise: float) -> float:
        """Return P; infinite without any residual or any intensity that varies."""
        expected = self.model_square + self.n_pairs * (self.contrast + shot_noise) ** 2
        return expected / self.square if self.square > 0 and expected > 0 else float("inf")


class _Clipped(NamedTuple):
    """Some rows of one angle, zero where they are not used.

    Attributes:
        residuals: Residuals within the limit, shape (m, N).
        model: Contrast times G, shape (m, N).
        used: True for the pairs to use, shape (m, N).
        step: Contrast times G between each frame and the next, shape (m,).
    """

    residuals: FloatArray
    model: FloatArray
    used: BoolArray
    step: FloatArray

    def part(self, row: int) -> _Clipped:
        """Return one row."""
        r, x, used = (np.array(field[row][None]) for field in self[:3])
        return _Clipped(r, x, used, self.step[row][None])

    def joined(self, later: _Clipped) -> _Clipped:
        """Return these rows and those that follow."""
        return _Clipped(
            np.concatenate([self.residuals, later.residuals]),
            np.concatenate([self.model, later.model]),
            np.concatenate([self.used, later.used]),
            np.concatenate([self.step, later.step]),
        )

    def sums(self) -> tuple[float, float, float]:
        """Number of pairs, and the squares of residuals and model."""
        r, x, used, _ = self
        return float(used.sum()), float(np.vdot(r, r)), float(np.vdot(x, x))

    def by_lag(self, first: int) -> FloatArray:
        """Residuals summed over pairs of the same lag, and their number, shape (2, N).

        Args:
            first: Which row of all the first one is.
        """
        m, n = self.used.shape
        lag = np.arange(n) - np.arange(first, first + m)[:, None]
        later = self.used & (lag > 0)
        chosen = lag[later]
        found = np.zeros((2, n))
        found[0] = np.bincount(chosen, self.residuals[later], n)
        found[1] = np.bincount(chosen, minlength=n)
        return found

    def neighbours(self) -> tuple[float, float, float, float]:
        """Number of neighbours in consecutive rows, and what is summed over them."""
        r, x, used, step = self
        both = (used[1:] & used[:-1]).sum(1)
        products = float(np.vdot(r[1:], r[:-1])), float(np.vdot(x[1:], x[:-1]))
        return float(both.sum()), *products, float(both @ step[:-1])


def neighbour_correlation(moments: Sequence[ResidualMoments]) -> tuple[float, float]:
    """Return the correlation of neighbours over all angles, and its standard error.

    The error is the one that independent residuals would have.
    """
    count = max(sum(m.n_neighbours for m in moments), 1)
    mean = sum(m.n_neighbours * m.correlation for m in moments) / count
    return mean, 1.0 / np.sqrt(count)


def lag_excess(moments: Sequence[ResidualMoments]) -> float:
    """Return by how much the means of residuals at each lag differ from zero.

    Independent errors make the sum over lags and angles of (mean / its standard error)**2 a
    chi-square variable.

    Returns:
        That sum above its expectation, in its standard deviations.
    """
    total, count = 0.0, 0
    for m in moments:
        seen = m.lag_counts > 0
        if m.square > 0:
            variance = m.square / m.n_pairs
            total += float((m.lag_sums[seen] ** 2 / m.lag_counts[seen]).sum()) / variance
            count += int(seen.sum())
    return float((total - count) / np.sqrt(2.0 * count)) if count else 0.0


def lag_share(moments: Sequence[ResidualMoments]) -> float:
    """Return the share of the squares of residuals that their means at each lag make up.

    The mean over angles: 0 for residuals that average out over pairs of the same lag, 1 for ones
    that are a function of the lag alone.
    """
    # Squares are of pairs in both orders.
    shares = [_share(m.lag_sums, m.lag_counts, 0.5 * m.square) for m in moments]
    return float(np.mean(shares))


def share_of_lags(residuals: FloatArray, lags: IntArray) -> float:
    """Return the same of one angle, from residuals of unique pairs and their lags, (n,) each."""
    sums = np.bincount(lags, residuals).astype(float)
    return _share(sums, np.bincount(lags), float(residuals @ residuals))


def _share(sums: FloatArray, counts: IntArray, square: float) -> float:
    seen = counts > 0
    return float((sums[seen] ** 2 / counts[seen]).sum() / square) if square > 0 else 0.0


def shot_noise(moments: Sequence[ResidualMoments]) -> float:
    """Return the shot noise, common to all angles, that the neighbours speak of.

    A correlation below its standard error counts as that error, because a shot noise too
    large to be told from infinity would hide what speckles there are.
    """
    target = max(neighbour_correlation(moments))
    total = max(sum(m.n_neighbours for m in moments), 1)

    def excess(noise: float) -> float:
        model = sum(m.n_neighbours * m.correlation_at(noise) for m in moments)
        return model / total - target

    contrast = max(m.contrast for m in moments)
    largest = _LARGEST_RATIO * max(contrast, 1e-3)
    if contrast == 0 or excess(largest) >= 0:
        return largest
    if excess(0.0) <= 0:
        return 0.0
    return float(root_scalar(excess, bracket=(0.0, largest), xtol=1e-12 * largest).root)
