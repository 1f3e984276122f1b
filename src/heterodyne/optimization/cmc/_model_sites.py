"""What NumPyro models of the correlation sample: parameters, contrast, offset and sigma."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpyro
import numpyro.distributions as dist

from heterodyne._errors import ConfigError
from heterodyne._log import get_logger
from heterodyne._typing import ArrayLike, FloatArray, JaxArray, Numeric
from heterodyne.config._distributions import numpyro_prior
from heterodyne.config._suggest import not_known
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jnp
from heterodyne.optimization.cmc._array_checks import count
from heterodyne.optimization.cmc._model_pairs import Pairs
from heterodyne.optimization.posterior import SIGMA_PRIOR

_LOG = get_logger(__name__)

_UNSCALED = 1.0


class Sites(Protocol):
    """A way to sample the parameters of a space."""

    def draw(self, name: str) -> Numeric:
        """Return a parameter: sampled, or the value of the space where it is fixed."""
        ...

    def physics(self) -> JaxArray:
        """Return the 14 physics parameters in canonical order."""
        ...


def in_order(values: Mapping[str, Numeric]) -> JaxArray:
    """Return the 14 physics parameters of a mapping in canonical order."""
    return jnp.stack([jnp.asarray(values[name], float) for name in PHYSICS_PARAM_NAMES])


@dataclass(frozen=True, eq=False)
class DocumentedSites:
    """Every varying parameter is a site of its own name, with its prior.

    Attributes:
        space: Values, bounds and priors.
        override: Distributions that replace priors, by name.
    """

    space: ParameterSpace
    override: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.override:
            if name not in self.space:
                raise ConfigError(
                    not_known("parameter", name, self.space),
                    where="priors_override",
                    allowed=", ".join(self.space.varying_names),
                )
            if not self.space[name].vary:
                _LOG.warning("priors_override: %s is fixed, and its prior is not used.", name)

    def draw(self, name: str, site: str | None = None) -> Numeric:
        """Return a parameter; ``site`` names it where that is not ``name``."""
        setting = self.space[name]
        if not setting.vary:
            return setting.value
        prior = self.override[name] if name in self.override else numpyro_prior(setting)
        return jnp.asarray(numpyro.sample(site or name, prior))

    def physics(self) -> JaxArray:
        """See ``Sites.physics``."""
        return in_order({name: self.draw(name) for name in PHYSICS_PARAM_NAMES})


@dataclass(frozen=True, eq=False)
class Held:
    """Contrast or offset that is not sampled.

    Attributes:
        values: One value, or one per angle, shape (1,) or (n_angles,).
    """

    values: FloatArray

    def __call__(self, n_angles: int) -> JaxArray:
        """Return the value of each angle, shape (n_angles,)."""
        return jnp.broadcast_to(jnp.asarray(self.values), (n_angles,))


@dataclass(frozen=True, eq=False)
class Shared:
    """One sampled contrast or offset for all angles.

    Attributes:
        name: ``contrast`` or ``offset``.
        sites: How it is sampled.
    """

    name: str
    sites: Sites

    def __call__(self, n_angles: int) -> JaxArray:
        """Return the value of each angle, shape (n_angles,)."""
        return jnp.broadcast_to(jnp.asarray(self.sites.draw(self.name)), (n_angles,))


@dataclass(frozen=True, eq=False)
class PerAngle:
    """A sampled contrast or offset for each angle: sites ``name_0``, ``name_1``, ...

    Attributes:
        name: ``contrast`` or ``offset``.
        sites: How it is sampled.
    """

    name: str
    sites: DocumentedSites

    def __call__(self, n_angles: int) -> JaxArray:
        """Return the value of each angle, shape (n_angles,)."""
        drawn = [self.sites.draw(self.name, f"{self.name}_{k}") for k in range(n_angles)]
        return jnp.stack([jnp.asarray(value, float) for value in drawn])


@dataclass(frozen=True, eq=False)
class OnPlate:
    """A contrast or offset for each angle, sampled in prior widths on the plate ``angles``.

    The site is ``name_z``; ``name_0``, ``name_1``, ... follow from it. The normal priors are
    truncated to the bounds.

    Attributes:
        name: ``contrast`` or ``offset``.
        centre: Centre of the prior of each angle, shape (n_angles,).
        width: Width of the priors.
        low: Lower bound.
        high: Upper bound.
    """

    name: str
    centre: FloatArray
    width: float
    low: float
    high: float

    def __call__(self, n_angles: int) -> JaxArray:
        """Return the value of each angle, shape (n_angles,)."""
        low, high = ((end - self.centre) / self.width for end in (self.low, self.high))
        with numpyro.plate("angles", n_angles):
            z = numpyro.sample(f"{self.name}_z", dist.TruncatedNormal(0.0, 1.0, low=low, high=high))
        values = jnp.asarray(self.centre + self.width * z)
        for k in range(n_angles):
            numpyro.deterministic(f"{self.name}_{k}", values[k])
        return values


ScalingSite = Callable[[int], JaxArray]
"""Gives contrast or offset of each angle, shape (n_angles,), for a number of angles."""


@dataclass(frozen=True, eq=False)
class PairModel:
    """A NumPyro model without arguments, which can be pickled.

    Attributes:
        sites: How the physics parameters are sampled.
        contrast: How the contrast is.
        offset: How the offset is.
        sigma_width: Scale of the half-normal prior of sigma.
        pairs: What is observed.
    """

    sites: Sites
    contrast: ScalingSite
    offset: ScalingSite
    sigma_width: float
    pairs: Pairs

    def __call__(self) -> None:
        """Sample everything and observe the data."""
        parameters = self.sites.physics()
        contrast, offset = self.contrast(self.pairs.n_angles), self.offset(self.pairs.n_angles)
        sigma = numpyro.sample("sigma", dist.HalfNormal(self.sigma_width))
        self.pairs.observe(parameters, contrast, offset, jnp.asarray(sigma))


def sigma_width(noise_scale: float, num_shards: int) -> float:
    """Scale of the half-normal prior of sigma: noise_scale * 1.5 * sqrt(num_shards).

    The product of the priors of all shards is then the prior of a single run.

    Raises:
        ConfigError: A noise scale that is not positive, or no shard.
    """
    shards = count(num_shards, "num_shards")
    scale = float(noise_scale)
    if not (math.isfinite(scale) and scale > 0):
        raise ConfigError(
            f"{scale:g}",
            where="noise_scale",
            allowed="finite, > 0",
            remedy="Estimate the error of a pair, in units of c2, with estimate_sigma",
        )
    return SIGMA_PRIOR * scale * math.sqrt(shards)


def held(values: ArrayLike, n_angles: int, where: str) -> Held:
    """Hold contrast or offset at one value, or at one per angle.

    Raises:
        ConfigError: Another number of values, or one that is not finite.
    """
    given = np.atleast_1d(np.asarray(values, float))
    if given.shape not in ((1,), (n_angles,)) or not np.isfinite(given).all():
        raise ConfigError(
            f"{np.asarray(values)} for {n_angles} angles",
            where=where,
            allowed=f"a finite number, or {n_angles} of them",
        )
    return Held(given)


def one_value(value: ArrayLike, where: str) -> Held:
    """Hold contrast or offset of all angles at one value.

    Raises:
        ConfigError: More than one value, or one that is not finite.
    """
    return held(value, 1, where)


def shared(sites: Sites, space: ParameterSpace, name: str, argument: float) -> ScalingSite:
    """Sample one contrast or offset where the space lets it vary; else take an argument.

    Args:
        sites: How it is sampled.
        space: What varies.
        name: ``contrast`` or ``offset``.
        argument: Value where it is fixed.

    Raises:
        ConfigError: An argument that is not one finite number.
    """
    fixed, setting = one_value(argument, name), space[name]
    value = fixed.values[0]
    if setting.vary:
        if value != _UNSCALED:
            _LOG.warning(
                "%s = %g is not used: the parameter space samples it. Fix it there to hold it.",
                name, value,
            )  # fmt: skip
        return Shared(name, sites)
    if value != setting.value:
        _LOG.warning(
            "%s is held at the argument, %g, not at the value of the parameter space, %g.",
            name, value, setting.value,
        )  # fmt: skip
    return fixed
