"""What the residuals of a fit say about speckles and shot noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from heterodyne._typing import ArrayLike, FloatArray, IntArray, JaxArray, StoredArray
from heterodyne.core._jax import jax, jnp
from heterodyne.core.correlation import correlation_stretches
from heterodyne.core.likelihood import PairData
from heterodyne.core.speckle import fitted_pairs
from heterodyne.core.speckle_moments import (
    ResidualMoments,
    Rows,
    clip_limit,
    lag_excess,
    neighbour_correlation,
    shot_noise,
)
from heterodyne.optimization._lag_structure import beyond_speckles
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.problem import Problem

# Standard errors above zero at which neighbours are no longer taken as independent.
SIGNIFICANCE = 5.0
# Frames, out of more, between which wild residuals are told from others.
_SELECTED = 1024


@dataclass(frozen=True)
class SpeckleNoise:
    """What the residuals of a fit say about the noise.

    Attributes:
        effective_speckles: Number of independent speckles P of each angle.
        shot_noise: What shot noise adds to the variance of the normalised intensity of a
            frame, for each angle; 1 / (mean photons per pixel) for a perfect detector.
        neighbour_correlation: Correlation of the residuals of pairs (i, j), (i + 1, j), all
            angles; independent errors have 0.
        likely: Whether that exceeds what independent errors would show.
        estimated: Whether the speckles were counted from residuals, in which the noise
            that the fit has absorbed is missing.
        misfit: Standard deviations by which the means of residuals at each lag are larger than
            the noise makes them: speckles where they are likely, else independent errors.
    """

    effective_speckles: tuple[float, ...]
    shot_noise: tuple[float, ...]
    neighbour_correlation: float
    likely: bool
    estimated: bool = True
    misfit: float = 0.0


def speckle_noise(
    problem: Problem,
    y: ArrayLike,
    contrast: ArrayLike,
    offset: ArrayLike,
    c2: ArrayLike,
    *,
    diagonal_is_raw: bool | None = None,
    effective_speckles: float | None = None,
) -> SpeckleNoise:
    """Estimate speckles and shot noise from the residuals of a fit.

    Residuals are evaluated in stretches of rows. The limit to which wild ones are drawn in is
    read off evenly chosen frames, at least a million pairs, where there are more than that.

    Args:
        problem: What was fitted.
        y: Coordinates of the physics parameters of the fit, shape (p,).
        contrast: Contrast of each angle, shape (n_angles,).
        offset: Offset of each angle, shape (n_angles,).
        c2: Measured correlation, shape (n_angles, N, N).
        diagonal_is_raw: Whether the diagonal of c2 is measured and so shows the shot noise.
        effective_speckles: Number of speckles of each angle where it is known.
    """
    angles = _residuals(problem, y, contrast, offset, np.asarray(c2))
    moments = [one.moments() for one in angles]
    on_diagonal = [_excess(one.diagonal()) for one in angles]
    correlation, error = neighbour_correlation(moments)
    if diagonal_is_raw and np.isfinite(on_diagonal).all():
        levels = on_diagonal
    else:
        levels = [shot_noise(moments)] * len(angles)
    given = [effective_speckles] * len(angles)
    speckles = [
        m.effective_speckles(v) if p is None else float(p)
        for m, v, p in zip(moments, levels, given, strict=True)
    ]
    likely = correlation > SIGNIFICANCE * error
    estimated = effective_speckles is None
    misfit = (
        beyond_speckles(problem, np.asarray(y), np.asarray(contrast), moments)
        if likely
        else lag_excess(moments)
    )
    return SpeckleNoise(
        tuple(speckles), tuple(levels), correlation, bool(likely), estimated, misfit
    )


@dataclass(frozen=True, eq=False)
class _Residuals:
    """Residuals of one angle between n fitted frames, evaluated in stretches of rows.

    Attributes:
        c2: Measured correlation, shape (N, N).
        contrast: Contrast.
        offset: Offset.
        parameters: The 14 physics parameters.
        phi: Detector angle in degrees.
        data: Times and wavevector; the measured values are not used.
        frames: Indices of the fitted frames, shape (n,).
        weights: Weights of their pairs, shape (n, n); None where all count 1.
    """

    c2: StoredArray
    contrast: float
    offset: float
    parameters: JaxArray
    phi: JaxArray
    data: PairData
    frames: IntArray
    weights: FloatArray | None

    def moments(self) -> ResidualMoments:
        """Sum over all pairs."""
        everyone = np.arange(self.frames.size)
        some = everyone[:: max(1, self.frames.size // _SELECTED)]
        limit = clip_limit(np.concatenate([r[used] for r, _, used in self._rows(some)]))
        return ResidualMoments.summed(self._rows(everyone), self.contrast, limit)

    def diagonal(self) -> FloatArray:
        """c2 of each frame with itself, minus the model, shape (n,)."""
        measured = self.c2[self.frames, self.frames].astype(np.float64)
        return measured - self.offset - self.contrast

    def _rows(self, chosen: IntArray) -> Iterator[Rows]:
        """Yield the rows of some of the n frames, all with all, in order."""
        frames, data = self.frames[chosen], self.data
        for rows, g in correlation_stretches(
            self.parameters, data.t, data.q, data.dt, self.phi, frames
        ):
            measured = self.c2[np.ix_(frames[rows], frames)].astype(np.float64)
            used = frames[rows, None] != frames
            if self.weights is not None:
                used &= self.weights[np.ix_(chosen[rows], chosen)] > 0
            yield Rows(measured - self.offset - self.contrast * g, g, used)


def _residuals(
    problem: Problem, y: ArrayLike, contrast: ArrayLike, offset: ArrayLike, c2: StoredArray
) -> list[_Residuals]:
    data = problem.data
    parameters = _parameters(jnp.asarray(y), problem.coordinates)
    frames = np.flatnonzero(np.asarray(data.mask))
    weights = [None] * data.n_angles if data.weights is None else fitted_pairs(data)[1]
    parts = zip(c2, np.asarray(contrast), np.asarray(offset), data.phi, weights, strict=True)
    return [
        _Residuals(matrix, float(scale), float(base), parameters, phi, data, frames, w)
        for matrix, scale, base, phi, w in parts
    ]


@partial(jax.jit, static_argnames="coordinates")
def _parameters(y: JaxArray, coordinates: PhysicsCoordinates) -> JaxArray:
    return coordinates.forward(y)[0]


def _excess(diagonal: FloatArray) -> float:
    """Median of a measured diagonal above the model, at least 0; NaN where there is none."""
    known = diagonal[np.isfinite(diagonal)]
    return max(0.0, float(np.median(known))) if known.size else float("nan")
