"""The affine frame in which the posterior is sampled, and how it is estimated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy.linalg import get_lapack_funcs

from heterodyne._typing import FloatArray, JaxArray
from heterodyne.core._jax import RUNS_ONCE, jax, jnp
from heterodyne.core.ahead import compile_ahead
from heterodyne.core.kept import kept
from heterodyne.optimization.nlsq.core import Fit
from heterodyne.optimization.posterior import Posterior
from heterodyne.optimization.prior import prior_width

# A covariance of draws is trusted like that of this many more draws of the old frame.
_SHRINKAGE = 10.0
# A mode whose chi-square is higher than the best one's by more holds no posterior mass.
COMPETING = 20.0
# Most modes that are sampled.
_MOST_MODES = 4
# SciPy's solver for triangles starts threads even for small ones, which wait for those of NumPy.
(_invert_triangle,) = get_lapack_funcs(("trtri",), dtype=np.float64)


class Frame(NamedTuple):
    """Coordinates y = centre + factor @ z, in which z is roughly standard normal.

    Attributes:
        centre: Shape (d,).
        factor: Shape (d, d).
    """

    centre: JaxArray
    factor: JaxArray

    def place(self, z: JaxArray) -> JaxArray:
        """Map z, shape (..., d), to coordinates."""
        return self.centre + z @ self.factor.T

    def find(self, y: FloatArray) -> FloatArray:
        """Return z of coordinates, shape (..., d), the inverse of ``place``."""
        return (y - np.asarray(self.centre)) @ inverse_factor(np.asarray(self.factor)).T

    def refined(self, z: FloatArray) -> Frame:
        """Return the frame in which draws of z, shape (n, d), have unit covariance.

        The covariance is shrunk towards that of this frame, so that few draws cannot
        make it singular.
        """
        n, d = z.shape
        share = n / (n + _SHRINKAGE)
        covariance = share * np.cov(z, rowvar=False) + (1.0 - share) * np.eye(d)
        return Frame(
            self.place(jnp.asarray(z.mean(axis=0))),
            self.factor @ jnp.linalg.cholesky(jnp.asarray(covariance)),
        )

    def scaled(self, z: FloatArray) -> Frame:
        """Return the frame in which each axis of draws, shape (n, d), has unit variance."""
        n = z.shape[0]
        share = n / (n + _SHRINKAGE)
        width = np.sqrt(share * z.var(axis=0, ddof=1) + (1.0 - share))
        return Frame(self.place(jnp.asarray(z.mean(axis=0))), self.factor * jnp.asarray(width))


def inverse_factor(factor: FloatArray) -> FloatArray:
    """Invert a Cholesky factor, shape (d, d).

    Exact to rounding however narrow a direction is given the others. Solvers that exchange rows
    lose it among their digits, or take the factor for singular.

    Raises:
        numpy.linalg.LinAlgError: An element of the diagonal is zero.
    """
    inverse, zero = _invert_triangle(factor, lower=1)
    if zero:
        raise np.linalg.LinAlgError(f"Element {zero} of the diagonal is zero.")
    return np.tril(inverse)


def posterior_mode(posterior: Posterior, fit: Fit, rank: int = 0) -> FloatArray:
    """Coordinates of a posterior mode that a fit found, the best one by default, shape (d,)."""
    modes = fit.modes
    scales = (jnp.asarray(modes.contrast[rank]), jnp.asarray(modes.offset[rank]))
    scaling = posterior.inside(np.asarray(posterior.scaling.collapse(*scales)))
    sigma = np.sqrt(modes.squares[rank] / fit.problem.degrees_of_freedom)
    tail = np.asarray(posterior.unbend_scaling(scaling))
    # The fit has nothing to go by along the ridge, and may end far out on it.
    physics = posterior.coordinates.ridge_centred(modes.y[rank])
    return np.concatenate([physics, tail, [np.log(sigma)]])


def compile_frames(posterior: Posterior) -> None:
    """Have the code of ``laplace_frame`` compiled in the background."""
    y = np.zeros(posterior.size)
    posterior.compile_prior_curvature()
    compile_ahead(_standardised_slopes, y, posterior)


def laplace_frame(
    posterior: Posterior, y: FloatArray, information: FloatArray, noise_scale: float, n_pairs: int
) -> Frame:
    """Frame of the normal approximation at the posterior mode.

    The curvature is the information of the data plus that of the priors.

    Args:
        posterior: Map and priors.
        y: Posterior mode, shape (d,).
        information: Information of the data on all coordinates but log sigma, shape
            (d - 1, d - 1).
        noise_scale: Estimate of sigma that scales its prior.
        n_pairs: Number of fitted pairs, which inform sigma.
    """
    curvature = np.asarray(posterior.prior_curvature(y, noise_scale)).copy()
    slopes = np.asarray(_standardised_slopes(y, posterior))
    curvature[:-1, :-1] = _confining(curvature[:-1, :-1], slopes.T @ slopes) + information
    curvature[-1, -1] += 2.0 * n_pairs
    scale = 1.0 / np.sqrt(np.diagonal(curvature))
    values, vectors = np.linalg.eigh(curvature * scale[:, None] * scale)
    root = (vectors / np.sqrt(np.maximum(values, 1e-12))) * scale[:, None]
    root = root @ vectors.T
    return Frame(jax.device_put(y), jnp.linalg.cholesky(root @ root.T))


def _confining(curvature: FloatArray, information: FloatArray) -> FloatArray:
    """Add to a prior's information what its exact curvature has more than it.

    Where the prior curves upward, as it may near a wall, its information alone confines.
    """
    unit = 1.0 / np.sqrt(np.diagonal(information) + np.abs(np.diagonal(curvature)) + 1e-300)
    outer = unit[:, None] * unit
    rest = (curvature - information) * outer
    values, vectors = np.linalg.eigh(0.5 * (rest + rest.T))
    return information + (vectors * np.maximum(values, 0.0)) @ vectors.T / outer


@kept("posterior", compiler_options=RUNS_ONCE)
def _standardised_slopes(y: JaxArray, posterior: Posterior) -> JaxArray:
    """Derivatives of the unknowns but sigma, in widths of their priors, by the coordinates.

    Returns:
        Array of shape (d - 1, d - 1).
    """
    names = (*posterior.coordinates.names, *posterior.scaling_kinds)
    parameters = [posterior.space[n] for n in names]
    logarithmic = np.array([p.info.log_space for p in parameters], bool)
    widths = np.array([prior_width(p, logarithmic=p.info.log_space) for p in parameters])

    def standardised(x: JaxArray) -> JaxArray:
        unknowns, _ = posterior.forward(jnp.append(x, y[-1]))
        varying = unknowns.parameters[posterior.coordinates.indices]
        values = jnp.concatenate([varying, unknowns.scaling])
        positive = jnp.where(logarithmic, values, 1.0)
        return jnp.where(logarithmic, jnp.log(positive), values) / widths

    return jax.jacfwd(standardised)(y[:-1])


def data_information(posterior: Posterior, y: FloatArray, fit: Fit, rank: int = 0) -> FloatArray:
    """Fisher information for independent errors at a posterior mode of a fit.

    Args:
        posterior: Map of the coordinates.
        y: The mode, shape (d,).
        fit: The fit that found it.
        rank: Which of its modes that is.

    Returns:
        Matrix for all coordinates but log sigma, shape (d - 1, d - 1).
    """
    p = posterior.coordinates.size
    slopes = np.ones(posterior.size - 1)
    slopes[p:] = np.asarray(posterior.scaling_slopes(y))
    return fit.modes.information[rank] * slopes[:, None] * slopes / np.exp(2.0 * y[-1])


def mode_frame(posterior: Posterior, fit: Fit, noise_scale: float, rank: int = 0) -> Frame:
    """Frame of the normal approximation, for independent errors, at a mode of a fit.

    Args:
        posterior: Map and priors.
        fit: The fit.
        noise_scale: Estimate of sigma that scales its prior.
        rank: Which of its modes.
    """
    y = posterior_mode(posterior, fit, rank)
    information = data_information(posterior, y, fit, rank)
    return laplace_frame(posterior, y, information, noise_scale, fit.problem.n_pairs)


def competing_frames(posterior: Posterior, fit: Fit, noise_scale: float) -> dict[int, Frame]:
    """Frames of the modes of a fit that may hold posterior mass, the best one first.

    A mode that several starts found counts once.

    Args:
        posterior: Map and priors.
        fit: The fit.
        noise_scale: Estimate of sigma that scales its prior.

    Returns:
        Frames by the rank of their mode in the fit.
    """
    excess = fit.modes.score - fit.modes.score[0]
    chosen: dict[int, Frame] = {}
    for rank in np.flatnonzero(excess <= COMPETING).tolist():
        frame = mode_frame(posterior, fit, noise_scale, rank)
        if apart(frame, chosen.values()):
            chosen[rank] = frame
        if len(chosen) == _MOST_MODES:
            break
    return chosen


def apart(frame: Frame, others: Iterable[Frame]) -> bool:
    """Whether a mode is none of the others.

    Modes are the same where their distance, in widths of the wider one, is that of two draws of
    one normal distribution. Their heights say nothing about that, for exchanging the components
    hardly changes the density.
    """
    return all(_squared_distance(frame, other) > frame.centre.size for other in others)


def _squared_distance(first: Frame, second: Frame) -> float:
    """Squared distance of the centres of two frames in widths of the wider one."""
    found = first.find(np.asarray(second.centre)), second.find(np.asarray(first.centre))
    return min(float(z @ z) for z in found)
