"""How many speckles and how much shot noise residuals speak of.

With Sigma = contrast * G + shot noise on the diagonal, residuals of P speckles have

    E[r_ij r_ij]     = (Sigma_ij**2 + s**2) / P
    E[r_ij r_(i+1)j] = (Sigma_i(i+1) s + Sigma_ij Sigma_(i+1)j) / P,    s = contrast + shot noise.

Their ratio gives the shot noise, whatever P is, and their size gives P.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import root_scalar

from heterodyne._typing import BoolArray, FloatArray

# Residuals beyond this many robust standard deviations are drawn in to it.
_CLIP = 6.0
# Shot noise over contrast at which neighbours count as independent.
_LARGEST_RATIO = 1e4


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
    """

    contrast: float
    n_pairs: int
    square: float
    model_square: float
    n_neighbours: int
    product: float
    model_product: float
    model_step: float

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
        values = residuals[used]
        limit = _CLIP * 1.4826 * float(np.median(np.abs(values)))
        r = np.where(used, np.clip(residuals, -limit, limit), 0.0)
        x = np.where(used, contrast * correlation, 0.0)
        both = used[1:] & used[:-1]
        step = contrast * np.diagonal(correlation, 1)
        return cls(
            contrast,
            int(used.sum()),
            float(np.vdot(r, r)),
            float(np.vdot(x, x)),
            int(both.sum()),
            float(np.vdot(r[1:], r[:-1])),
            float(np.vdot(x[1:], x[:-1])),
            float(both.sum(1) @ step),
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


def neighbour_correlation(moments: Sequence[ResidualMoments]) -> tuple[float, float]:
    """Return the correlation of neighbours over all angles, and its standard error.

    The error is the one that independent residuals would have.
    """
    count = max(sum(m.n_neighbours for m in moments), 1)
    mean = sum(m.n_neighbours * m.correlation for m in moments) / count
    return mean, 1.0 / np.sqrt(count)


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
