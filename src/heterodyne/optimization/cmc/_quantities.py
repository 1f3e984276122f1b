"""Draws in documented parameters, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from heterodyne._typing import ArrayLike, FloatArray, JaxArray
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.core._jax import jax, jnp
from heterodyne.core.frames import FrameFunctions, frame_functions
from heterodyne.core.kept import kept
from heterodyne.optimization.derived import Derived
from heterodyne.optimization.posterior import Posterior, Unknowns
from heterodyne.optimization.prior import draw_columns

_BATCH = 256


@dataclass(frozen=True)
class Quantities:
    """Draws by name, leading axes (chain, draw).

    Attributes:
        parameters: Varying physics parameters, contrasts, offsets and sigma.
        derived: Rates and fraction at reference times.
        physics: All 14 physics parameters, fixed ones included, shape (chains, draws, 14).
    """

    parameters: Mapping[str, FloatArray]
    derived: Mapping[str, FloatArray]
    physics: FloatArray

    @classmethod
    def of(cls, posterior: Posterior, y: ArrayLike, derived: Derived) -> Quantities:
        """Map draws of the coordinates, shape (chains, draws, d)."""
        y = np.asarray(y, float)
        shape = y.shape[:2]
        unknowns = _batched(y.reshape(-1, y.shape[-1]), posterior)
        return cls.of_unknowns(posterior, unknowns, derived, shape)

    @classmethod
    def of_unknowns(
        cls, posterior: Posterior, unknowns: Unknowns, derived: Derived, shape: tuple[int, int]
    ) -> Quantities:
        """Name unknowns with a flat leading axis."""
        physics = np.asarray(unknowns.parameters)
        columns = np.concatenate(
            [
                physics[:, posterior.coordinates.indices],
                np.asarray(unknowns.scaling),
                np.asarray(unknowns.sigma)[:, None],
            ],
            axis=1,
        )
        named = zip(posterior.names, columns.T, strict=True)
        of_times = zip(derived.names, derived.batch(physics).T, strict=True)
        return cls(
            {name: column.reshape(shape) for name, column in named},
            {name: column.reshape(shape) for name, column in of_times},
            physics.reshape(*shape, -1),
        )

    def all(self) -> dict[str, FloatArray]:
        """Parameters and derived quantities."""
        return {**self.parameters, **self.derived}


@kept("posterior", returns=Unknowns)
def _mapped(y: JaxArray, posterior: Posterior) -> Unknowns:
    return jax.vmap(lambda row: posterior.forward(row)[0])(y)


def _batched(y: FloatArray, posterior: Posterior) -> Unknowns:
    """Map draws in batches of one shape, so that any number of them shares compiled code."""
    missing = -y.shape[0] % _BATCH
    padded = np.concatenate([y, np.repeat(y[-1:], missing, axis=0)])
    parts = [
        jax.tree.map(np.asarray, _mapped(part, posterior))
        for part in padded.reshape(-1, _BATCH, y.shape[1])
    ]
    return Unknowns(*(np.concatenate(c)[: y.shape[0]] for c in zip(*parts, strict=True)))


def prior_draws(
    posterior: Posterior, noise_scale: float, derived: Derived, count: int, seed: int
) -> Quantities:
    """Draw from the documented priors.

    Args:
        posterior: Parameters and their priors.
        noise_scale: Estimate of sigma that scales its prior.
        derived: Quantities to evaluate as well.
        count: Number of draws.
        seed: Seed of the random numbers.
    """
    rng = np.random.default_rng(seed)
    physics = draw_columns(posterior.space, PHYSICS_PARAM_NAMES, rng, count)
    scaling = draw_columns(posterior.space, posterior.scaling_kinds, rng, count)
    sigma = posterior.sigma_width(noise_scale) * np.abs(rng.normal(size=count))
    unknowns = Unknowns(physics, scaling, sigma)
    return Quantities.of_unknowns(posterior, unknowns, derived, (1, count))


CURVE_NAMES = ("J_ref", "J_sample", "v", "s")


def curve_bands(physics: FloatArray, t: ArrayLike) -> dict[str, FloatArray]:
    """Bands of rates and fraction over the window.

    Args:
        physics: Draws of the 14 physics parameters, shape (n, 14).
        t: Times in s, shape (T,).

    Returns:
        For each curve its 2.5 %, 50 % and 97.5 % quantiles, shape (3, T).
    """
    f: FrameFunctions = _curves(jnp.asarray(physics), jnp.asarray(t))
    curves = (f.transport_reference, f.transport_sample, f.velocity, f.fraction)
    levels = (0.025, 0.5, 0.975)
    return {
        name: np.quantile(np.asarray(values), levels, axis=0)
        for name, values in zip(CURVE_NAMES, curves, strict=True)
    }


@jax.jit
def _curves(physics: JaxArray, t: JaxArray) -> FrameFunctions:
    return jax.vmap(lambda p: frame_functions(p, t))(physics)
