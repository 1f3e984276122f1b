"""Simulated two-time correlations with known truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heterodyne._errors import ConfigError
from heterodyne._events import EventSink, Progress, ignore_events
from heterodyne._typing import ArrayLike, FloatArray
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.core._jax import jax, jnp
from heterodyne.core.correlation import correlation_matrix, correlation_stretches
from heterodyne.core.frames import frame_functions, phase_rate
from heterodyne.core.rates import cumulative_trapezoid
from heterodyne.core.rows import row_slices


@dataclass(frozen=True)
class Experiment:
    """What is measured: the parameters and the geometry.

    Attributes:
        parameters: The 14 physics parameters in canonical order.
        n_frames: Number of frames N.
        dt: Frame spacing in s; frame i (from 1) is at start + i * dt.
        q: Wavevector in 1/Å.
        phi: Detector angles in degrees, shape (n_angles,).
        start: Time in s that has passed one frame before the first.
    """

    parameters: FloatArray
    n_frames: int
    dt: float
    q: float
    phi: Sequence[float]
    start: float = 0.0

    @property
    def t(self) -> FloatArray:
        """Frame times in s, shape (N,)."""
        return self.start + self.dt * np.arange(1.0, self.n_frames + 1.0, dtype=np.float64)

    def correlation(self) -> FloatArray:
        """Return G without noise, shape (n_angles, N, N)."""
        p, t = jnp.asarray(self.parameters), jnp.asarray(self.t)
        return np.stack([np.asarray(_compiled(p, t, self.q, self.dt, a)) for a in self.phi])


_compiled = jax.jit(correlation_matrix)


def simulate_pairs(
    experiment: Experiment,
    contrast: ArrayLike,
    offset: ArrayLike,
    sigma: float,
    seed: int,
) -> FloatArray:
    """Return c2 with an independent normal error on every unique pair.

    Args:
        experiment: Parameters and geometry.
        contrast: Contrast of each angle, scalar or shape (n_angles,).
        offset: Offset of each angle, scalar or shape (n_angles,).
        sigma: Standard deviation of the errors.
        seed: Seed of the random numbers.

    Returns:
        Symmetric matrices, shape (n_angles, N, N).
    """
    rng = np.random.default_rng(seed)
    e, n = experiment, len(experiment.phi)
    parameters, t = jnp.asarray(e.parameters), jnp.asarray(e.t)
    c2 = np.empty((n, e.n_frames, e.n_frames))
    levels = (np.broadcast_to(np.asarray(x, float), (n,)) for x in (offset, contrast))
    for phi, base, scale, matrix in zip(e.phi, *levels, c2, strict=True):
        for rows, g in correlation_stretches(parameters, t, e.q, e.dt, phi):
            upper = base + scale * g + rng.normal(scale=sigma, size=g.shape)
            matrix[rows, rows.start :] = upper[:, rows.start :]
            square = upper[:, rows]
            matrix[rows, rows] = np.triu(square) + np.triu(square, 1).T
            matrix[rows.stop :, rows] = upper[:, rows.stop :].T
    return c2


@dataclass(frozen=True)
class Detector:
    """How speckles are recorded.

    Attributes:
        n_pixels: Independent speckles per angle.
        n_modes: Coherent modes M; the contrast is 1/M.
        photons: Mean photons per pixel and frame; None for no shot noise.
    """

    n_pixels: int
    n_modes: int = 5
    photons: float | None = None

    def __post_init__(self) -> None:
        if self.n_pixels < 2 or self.n_modes < 1:
            raise ConfigError(
                f"{self.n_pixels} pixels and {self.n_modes} modes",
                allowed="at least 2 pixels and 1 mode",
            )
        if self.photons is not None and self.photons <= 0:
            raise ConfigError(f"{self.photons:g} photons per pixel and frame", allowed="> 0")


def simulate_speckles(
    experiment: Experiment,
    detector: Detector,
    seed: int,
    on_event: EventSink = ignore_events,
) -> FloatArray:
    """Return c2 of simulated speckle fields, with the errors that such data have.

    Reference and sample fields are independent circular complex Gaussian processes with
    covariance exp(-|F(j) - F(i)| / 2) in the decay F = q² ∫J dt, recorded as the intensity
    of their sum, averaged over modes and normalised to an ensemble mean of 1. c2 is the
    pixel mean of I(t1) I(t2) over the product of the pixel means.

    Args:
        experiment: Parameters and geometry.
        detector: Pixels, modes and photons.
        seed: Seed of the random numbers.
        on_event: Receives the progress.

    Returns:
        Symmetric matrices, shape (n_angles, N, N); the diagonal holds the shot noise.
    """
    rng = np.random.default_rng(seed)
    c2 = np.empty((len(experiment.phi), experiment.n_frames, experiment.n_frames))
    for k, phi in enumerate(experiment.phi):
        on_event(Progress("speckles", k, len(experiment.phi)))
        intensity = _intensity(experiment, detector, phi, rng)
        mean = intensity.mean(axis=0)
        if not np.all(mean > 0):
            raise ConfigError(
                f"a frame without any photon: {detector.photons:g} photons per pixel "
                f"and frame on {detector.n_pixels} pixels",
                remedy="Raise the photons or the pixels",
            )
        np.matmul(intensity.T, intensity, out=c2[k])
        for rows in row_slices(mean.size, mean.size):
            c2[k, rows] /= detector.n_pixels
            c2[k, rows] /= np.outer(mean[rows], mean)
    on_event(Progress("speckles", len(experiment.phi), len(experiment.phi)))
    return c2


def _intensity(
    experiment: Experiment, detector: Detector, phi: float, rng: np.random.Generator
) -> FloatArray:
    """Recorded intensities over their ensemble mean, shape (n_pixels, N)."""
    functions = frame_functions(jnp.asarray(experiment.parameters), jnp.asarray(experiment.t))
    s = np.asarray(functions.fraction)
    r = 1.0 - s
    displacement = np.asarray(cumulative_trapezoid(functions.velocity, experiment.dt))
    kappa = float(phase_rate(experiment.q, jnp.asarray(phi), functions.phi0))
    moving = s * np.exp(1j * kappa * displacement)
    decays = [
        experiment.q**2 * np.asarray(cumulative_trapezoid(rate, experiment.dt))
        for rate in (functions.transport_reference, functions.transport_sample)
    ]
    total = np.zeros((detector.n_pixels, experiment.n_frames))
    for _ in range(detector.n_modes):
        reference, sample = (_field(decay, detector.n_pixels, rng) for decay in decays)
        for pixels in row_slices(*total.shape):
            total[pixels] += np.abs(r * reference[pixels] + moving * sample[pixels]) ** 2
    total /= detector.n_modes * (r**2 + s**2)
    if detector.photons is not None:
        for pixels in row_slices(*total.shape):
            total[pixels] = rng.poisson(detector.photons * total[pixels]) / detector.photons
    return total


def _field(decay: FloatArray, n_pixels: int, rng: np.random.Generator) -> np.ndarray:
    """Complex Ornstein-Uhlenbeck process in the warped time decay / 2, (n_pixels, N)."""
    keep = np.exp(-0.5 * np.diff(decay))
    fresh = np.sqrt(0.5 * -np.expm1(-np.diff(decay)))
    field = np.empty((n_pixels, decay.size), complex)
    field[:, 0] = (rng.normal(size=n_pixels) + 1j * rng.normal(size=n_pixels)) * np.sqrt(0.5)
    for k in range(decay.size - 1):
        noise = rng.normal(size=n_pixels) + 1j * rng.normal(size=n_pixels)
        field[:, k + 1] = keep[k] * field[:, k] + fresh[k] * noise
    return field


def creep_flow(n_frames: int = 300, phi: Sequence[float] = (0.0, 45.0, 90.0)) -> Experiment:
    """A creeping specimen whose correlations decay over 10 to 100 frames.

    Args:
        n_frames: Number of frames, 0.1 s apart.
        phi: Detector angles in degrees.
    """
    values = {
        "D0_ref": 4e3, "alpha_ref": 0.2, "D_offset_ref": 200.0,
        "D0_sample": 1.5e4, "alpha_sample": -0.25, "D_offset_sample": -500.0,
        "v0": 1e3, "beta": -0.4, "v_offset": 20.0,
        "f0": 0.4, "f1": -0.08, "f2": 1.0, "f3": 0.25,
        "phi0": -2.0,
    }  # fmt: skip
    parameters = np.array([values[name] for name in PHYSICS_PARAM_NAMES])
    return Experiment(parameters, n_frames, dt=0.1, q=0.0054, phi=tuple(phi))
