"""Unbounded coordinates of the parameters as NumPyro sites, one number z per parameter.

The prior of a site is the prior of its parameter, mapped with the exact Jacobian: whatever
z counts from, the posterior of the parameters is the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform

from heterodyne._errors import ConfigError
from heterodyne._log import get_logger
from heterodyne._typing import ArrayLike, JaxArray, Numeric
from heterodyne.config._distributions import numpyro_prior
from heterodyne.config._suggest import not_known
from heterodyne.config.parameter_names import ALL_PARAM_NAMES, PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import Parameter, ParameterSpace, PriorKind
from heterodyne.core._jax import jnp
from heterodyne.optimization.cmc._model_sites import in_order
from heterodyne.optimization.cmc.reparameterization import ReparamConfig, reparam_to_physics_jax
from heterodyne.optimization.cmc.scaling import ParameterScaling
from heterodyne.optimization.coordinates.curves import LOG_WALL, WALL
from heterodyne.optimization.coordinates.walls import bend, unbend
from heterodyne.optimization.prior import prior_width

_LOG = get_logger(__name__)

_EDGE = 1e-3


class Coordinate(Transform):
    """From a parameter x between its bounds to z on the real line.

    z = (unbend(a) + shift - centre) / scale with a = log x or x. ``unbend`` leaves alone
    what lies well inside the bounds, so that a shift moves log x to the logarithm of the
    power law at another time.

    Args:
        low: Lower bound of a.
        high: Upper bound of a.
        wall: Distance from a bound over which the map bends.
        shift: Exponent times log(reference time); 0 for a plain parameter.
        centre: Where z counts from.
        scale: Unit of z.
        logarithmic: Whether a = log x.
    """

    def __init__(
        self,
        low: float,
        high: float,
        wall: float,
        shift: Numeric,
        centre: Numeric,
        scale: float,
        logarithmic: bool,
    ) -> None:
        self.low, self.high, self.wall = low, high, wall
        self.shift, self.centre, self.scale = shift, centre, scale
        self.logarithmic = logarithmic

    @property
    def domain(self) -> constraints.Constraint:
        """The bounds of x."""
        ends = (self.low, self.high)
        return constraints.interval(*map(math.exp, ends) if self.logarithmic else ends)

    @property
    def sign(self) -> int:
        """It is increasing."""
        return 1

    def __call__(self, x: Any) -> JaxArray:
        """Return z."""
        a = jnp.log(x) if self.logarithmic else x
        raw = unbend(a, self.low, self.high, self.wall)
        return (raw + self.shift - self.centre) / self.scale

    def _bent(self, z: Any) -> tuple[JaxArray, JaxArray]:
        raw = z * self.scale + self.centre - self.shift
        return bend(raw, self.low, self.high, self.wall)

    def _inverse(self, y: Any) -> JaxArray:
        a, _ = self._bent(y)
        return jnp.exp(a) if self.logarithmic else a

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> JaxArray:
        """Return log |dz / dx|."""
        a, log_slope = self._bent(y)
        return -math.log(self.scale) - log_slope - (a if self.logarithmic else 0.0)

    def tree_flatten(self) -> Any:
        """Say which parts JAX may trace."""
        fixed = ("low", "high", "wall", "scale", "logarithmic")
        values = {name: getattr(self, name) for name in fixed}
        return (self.shift, self.centre), (("shift", "centre"), values)


@dataclass(frozen=True, eq=False)
class CoordinateSites:
    """Sites ``x_z`` of the varying parameters; the parameters are deterministic sites.

    Attributes:
        space: Values, bounds and priors.
        centres: Parameters at z = 0, by name, strictly inside the bounds.
        config: Power laws that are sampled at a reference time; None for none.
        scalings: Coordinates with a standard normal z in place of the prior, by the name
            of the parameter or of its value at the reference time.

    Raises:
        ConfigError: A scaling of something that is not sampled.
    """

    space: ParameterSpace
    centres: Mapping[str, float]
    config: ReparamConfig | None
    scalings: Mapping[str, ParameterScaling]

    def __post_init__(self) -> None:
        known = [self._referred.get(name, name) for name in self.space.varying_names]
        for name in self.scalings:
            if name not in known:
                raise ConfigError(
                    not_known("sampled quantity", name, known),
                    where="scalings",
                    allowed=", ".join(known),
                )
        if self.scalings:
            _LOG.warning(
                "scalings replace the priors of %s. Where they come from a fit of the same data, "
                "the data count twice.",
                ", ".join(self.scalings),
            )

    @property
    def _referred(self) -> dict[str, str]:
        """Name of the value at the reference time, by prefactor."""
        if self.config is None:
            return {}
        return {name: self.config.get_reparam_name(name) for name in self.config.pairs}

    def draw(self, name: str) -> Numeric:
        """Return a parameter: sampled, or the value of the space where it is fixed."""
        if not self.space[name].vary:
            return self.space[name].value
        value = self._draw(name, name, 0.0, 0.0)[0]
        return jnp.asarray(numpyro.deterministic(name, value))

    def physics(self) -> JaxArray:
        """Return the 14 physics parameters in canonical order."""
        later = [name for name in self._referred if self.space[name].vary]
        values = {name: self.draw(name) for name in PHYSICS_PARAM_NAMES if name not in later}
        for name in later:
            values[name] = self._draw_prefactor(name, values)
        return in_order(values)

    def _draw_prefactor(self, name: str, values: Mapping[str, Numeric]) -> JaxArray:
        """Sample a prefactor by its power law at the reference time."""
        assert self.config is not None
        exponent, log_time = self.config.pairs[name], math.log(self.config.t_ref)
        site, shift = self._referred[name], values[exponent] * log_time
        drawn, scaled = self._draw(name, site, shift, self.centres[exponent] * log_time)
        if scaled:
            log_at, value = (
                drawn,
                reparam_to_physics_jax(drawn, values[exponent], self.config.t_ref),
            )
        else:
            log_at, value = jnp.log(drawn) + shift, drawn
        numpyro.deterministic(site, log_at)
        return jnp.asarray(numpyro.deterministic(name, value))

    def _draw(
        self, name: str, site: str, shift: Numeric, centre_shift: float
    ) -> tuple[JaxArray, bool]:
        """Sample z; return the parameter, or what its scaling gives and True."""
        if site in self.scalings:
            z = numpyro.sample(f"{site}_z", dist.Normal(0.0, 1.0))
            return self.scalings[site].to_original(jnp.asarray(z)), True
        coordinate = _coordinate(self.space[name], self.centres[name], shift, centre_shift)
        prior = numpyro_prior(self.space[name])
        z = numpyro.sample(f"{site}_z", dist.TransformedDistribution(prior, coordinate))
        return jnp.asarray(coordinate.inv(z)), False


def _coordinate(
    parameter: Parameter, centre: float, shift: Numeric, centre_shift: float
) -> Coordinate:
    """Coordinate in which the prior has a width of about 1 and ``centre`` is 0."""
    logarithmic = _is_logarithmic(parameter)
    low, high, at = (
        math.log(x) if logarithmic else x for x in (parameter.min, parameter.max, centre)
    )
    wall = LOG_WALL if logarithmic else WALL * (high - low)
    start = unbend(at, low, high, wall) + centre_shift
    scale = prior_width(parameter, logarithmic=logarithmic)
    return Coordinate(low, high, wall, shift, start, scale, logarithmic)


def _is_logarithmic(parameter: Parameter) -> bool:
    return parameter.info.log_space or parameter.prior.kind is PriorKind.LOGNORMAL


def centres_of(space: ParameterSpace, nlsq_params: ArrayLike | None) -> dict[str, float]:
    """Choose what z counts from: fitted values, else centres of the priors.

    Centres on or outside a bound are moved inside by a thousandth of the range, which is
    logged for fitted values; this changes no density.

    Args:
        space: Bounds and priors.
        nlsq_params: The 14 physics parameters in canonical order, shape (14,), or with
            contrast and offset, shape (16,).

    Returns:
        Values by name, strictly inside the bounds; of fixed parameters their values.

    Raises:
        ConfigError: Another number of values, or one that is not finite.
    """
    fitted: dict[str, float] = {}
    if nlsq_params is not None:
        given = np.asarray(nlsq_params, float)
        sizes = (len(PHYSICS_PARAM_NAMES), len(ALL_PARAM_NAMES))
        if given.shape not in [(n,) for n in sizes] or not np.isfinite(given).all():
            raise ConfigError(
                f"{given.tolist()} of shape {given.shape}",
                where="nlsq_params",
                allowed=f"{sizes[0]} finite numbers in the order {', '.join(PHYSICS_PARAM_NAMES)}; "
                f"or {sizes[1]}, with contrast and offset",
            )
        fitted = dict(zip(ALL_PARAM_NAMES[: given.size], given.tolist(), strict=True))
    centres = space.values
    for name in space.varying_names:
        setting = space[name]
        value = fitted.get(name, setting.prior.mean)
        centres[name] = _inside(setting, value)
        if name in fitted and centres[name] != value:
            _LOG.info(
                "The fit has %s = %g, at or outside its bounds %g to %g: z counts from %g.",
                name, value, setting.min, setting.max, centres[name],
            )  # fmt: skip
    return centres


def _inside(parameter: Parameter, value: float) -> float:
    low, high = parameter.min, parameter.max
    if _is_logarithmic(parameter):
        edge = (high / low) ** _EDGE
        return min(max(value, low * edge), high / edge)
    edge = _EDGE * (high - low)
    return min(max(value, low + edge), high - edge)
