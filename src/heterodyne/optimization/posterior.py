"""The posterior density in sampling coordinates, for independent errors of equal size.

Coordinates are those of the physics parameters, then contrasts and offsets bent at their
bounds, then log sigma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from heterodyne._typing import FloatArray, JaxArray, Numeric
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import RUNS_ONCE, jax, jnp
from heterodyne.core.ahead import compile_ahead
from heterodyne.core.kept import kept
from heterodyne.core.likelihood import PairData, expand_squares, log_likelihood_of_squares, sums
from heterodyne.core.separable import PairSums
from heterodyne.optimization.coordinates.curves import WALL
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.coordinates.walls import bend, unbend
from heterodyne.optimization.informed import NormalLikelihood
from heterodyne.optimization.prior import LogPrior
from heterodyne.optimization.scaling import Scaling

# Scale of the half-normal prior of sigma over the noise estimate.
SIGMA_PRIOR = 1.5


class Unknowns(NamedTuple):
    """One point of the posterior in documented parameters.

    Attributes:
        parameters: The 14 physics parameters in canonical order, shape (14,).
        scaling: Contrasts, then offsets, shape (k,).
        sigma: Standard deviation of the errors, scalar.
    """

    parameters: Any
    scaling: Any
    sigma: Any


@dataclass(frozen=True)
class Posterior:
    """Map and density of the unknowns; hashable, so that compiled code is shared.

    Attributes:
        coordinates: Coordinates of the physics parameters.
        scaling: Contrast and offset.
    """

    coordinates: PhysicsCoordinates
    scaling: Scaling

    @property
    def space(self) -> ParameterSpace:
        """Bounds and priors."""
        return self.coordinates.space

    @property
    def names(self) -> tuple[str, ...]:
        """Varying parameters, contrasts, offsets, sigma: one per coordinate."""
        return (*self.coordinates.names, *self.scaling.names, "sigma")

    @property
    def size(self) -> int:
        """Number of unknowns."""
        return len(self.names)

    @cached_property
    def scaling_kinds(self) -> tuple[str, ...]:
        """``contrast`` or ``offset`` for each unknown of the scaling."""
        return ("contrast",) * self.scaling.contrast.free + ("offset",) * self.scaling.offset.free

    @cached_property
    def scaling_walls(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Bounds of contrasts and offsets, and over which distance they bend, shape (k,)."""
        low, high = (
            np.array([getattr(self.space[n], end) for n in self.scaling_kinds])
            for end in ("min", "max")
        )
        return low, high, WALL * (high - low)

    @property
    def scaling_range(self) -> FloatArray:
        """Distance between the bounds of each contrast and offset, shape (k,)."""
        low, high, _ = self.scaling_walls
        return high - low

    def forward(self, y: JaxArray) -> tuple[Unknowns, JaxArray]:
        """Map coordinates, shape (size,), to unknowns and log |d unknowns / d y|."""
        p = self.coordinates.size
        parameters, log_det = self.coordinates.forward(y[:p])
        scaling, slopes = self.bend_scaling(y[p:-1])
        return Unknowns(parameters, scaling, jnp.exp(y[-1])), log_det + slopes.sum() + y[-1]

    def bend_scaling(self, y: JaxArray) -> tuple[JaxArray, JaxArray]:
        """Return contrasts and offsets, and the logarithms of their slopes, shape (k,)."""
        return bend(y, *self.scaling_walls)

    def unbend_scaling(self, scaling: Numeric) -> JaxArray:
        """Return the coordinates of contrasts and offsets inside their bounds, shape (k,)."""
        return _unbend_scaling(scaling, self)

    def inverse(self, unknowns: Unknowns) -> JaxArray:
        """Map unknowns inside their bounds to coordinates, shape (size,)."""
        parts = (
            self.coordinates.inverse(unknowns.parameters),
            self.unbend_scaling(unknowns.scaling),
            jnp.log(unknowns.sigma)[None],
        )
        return jnp.concatenate(parts)

    def inside(self, scaling: FloatArray) -> FloatArray:
        """Move contrasts and offsets off their bounds, by a thousandth of the range."""
        low, high, _ = self.scaling_walls
        edge = 1e-3 * (high - low)
        return np.clip(scaling, low + edge, high - edge)

    def log_prior(self, unknowns: Unknowns, noise_scale: Numeric) -> JaxArray:
        """Return the log density of the documented priors, scalar.

        Args:
            unknowns: Parameters inside their bounds.
            noise_scale: Estimate of sigma that scales its half-normal prior.
        """
        physics = LogPrior.of(self.space, self.coordinates.names)
        scales = LogPrior.of(self.space, self.scaling_kinds)
        width = self.sigma_width(noise_scale)
        sigma = -0.5 * (unknowns.sigma / width) ** 2 - jnp.log(width)
        return (
            physics(unknowns.parameters[self.coordinates.indices])
            + scales(unknowns.scaling)
            + sigma
            + 0.5 * math.log(2.0 / math.pi)
        )

    @staticmethod
    def sigma_width(noise_scale: Numeric) -> Numeric:
        """Scale of the half-normal prior of sigma."""
        return SIGMA_PRIOR * noise_scale

    def log_likelihood(self, unknowns: Unknowns, data: PairData) -> JaxArray:
        """Return the Gaussian log likelihood of all fitted unique pairs, scalar."""
        return self.log_likelihood_of(sums(unknowns.parameters, data), unknowns, data)

    def log_likelihood_of(self, s: PairSums, unknowns: Unknowns, data: PairData) -> JaxArray:
        """Return the same from the sums over pairs at the physics parameters."""
        contrast, offset = self.scaling.expand(unknowns.scaling)
        squares = expand_squares(s, contrast, offset, data).sum()
        return log_likelihood_of_squares(squares, unknowns.sigma, data.n_pairs.sum())

    def log_density(
        self,
        y: JaxArray,
        data: PairData,
        noise_scale: Numeric,
        normal: NormalLikelihood | None = None,
        prior_weight: JaxArray | float = 1.0,
    ) -> JaxArray:
        """Return the log density of the coordinates, up to the evidence.

        Args:
            y: Coordinates, shape (size,).
            data: Measured pairs.
            noise_scale: Estimate of sigma that scales its prior.
            normal: Stands in for the likelihood of the pairs.
            prior_weight: Power of the prior density of the coordinates.
        """
        unknowns, log_det = self.forward(y)
        prior = prior_weight * (self.log_prior(unknowns, noise_scale) + log_det)
        if normal is None:
            return prior + self.log_likelihood(unknowns, data)
        return prior + normal.log_density(*unknowns)

    def prior_curvature(self, y: JaxArray | FloatArray, noise_scale: Numeric) -> JaxArray:
        """Hessian of minus the log prior density of the coordinates, (size, size)."""
        return _prior_curvature(y, noise_scale, self)

    def compile_prior_curvature(self) -> None:
        """Have the code of ``prior_curvature`` compiled in the background."""
        compile_ahead(_prior_curvature, np.zeros(self.size), 1.0, self)

    def scaling_slopes(self, y: JaxArray | FloatArray) -> JaxArray:
        """Derivatives of contrasts and offsets by their coordinates, shape (k,)."""
        return _scaling_slopes(y, self)


@kept("posterior", compiler_options=RUNS_ONCE)
def _prior_curvature(y: JaxArray, noise_scale: Numeric, posterior: Posterior) -> JaxArray:
    def minus(x: JaxArray) -> JaxArray:
        unknowns, log_det = posterior.forward(x)
        return -posterior.log_prior(unknowns, noise_scale) - log_det

    return jax.hessian(minus)(y)


@partial(jax.jit, static_argnames="posterior")
def _scaling_slopes(y: JaxArray, posterior: Posterior) -> JaxArray:
    return jnp.exp(posterior.bend_scaling(y[posterior.coordinates.size : -1])[1])


@partial(jax.jit, static_argnames="posterior")
def _unbend_scaling(scaling: Numeric, posterior: Posterior) -> JaxArray:
    return unbend(scaling, *posterior.scaling_walls)
