"""Where the chains of a user's own NumPyro model start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.distributions.transforms import IdentityTransform, IndependentTransform, Transform
from numpyro.infer import init_to_median, init_to_sample, init_to_value
from numpyro.infer.util import compute_log_probs

from heterodyne._errors import ConfigError, SamplingError
from heterodyne._log import get_logger
from heterodyne._typing import JaxArray
from heterodyne.config._suggest import not_known
from heterodyne.core._jax import jax, jnp

_log = get_logger(__name__)

Site = Mapping[str, Any]
Sites = dict[str, Site]

STRATEGIES: Mapping[str, Callable[..., Any]] = {
    "init_to_median": init_to_median,
    "init_to_sample": init_to_sample,
    "init_to_value": init_to_value,
}
ONLY_GIVEN = "init_to_value"
# Spread of the chains: 1 % of a value that may have both signs, else 0.01 in the coordinate
# that NumPyro maps the support to, which is 1 % of a positive value.
_SPREAD = 0.01


def start_of_site(values: Mapping[str, JaxArray], strategy: str, site: Site) -> Any:
    """Return where a site of a model starts; None for one that is not an unknown.

    With the first two arguments bound, this is an initialization strategy of NumPyro.

    Args:
        values: Values by site, looked up at each call.
        strategy: Name of NumPyro's strategy for other sites.
        site: Site as NumPyro's handlers see it.
    """
    if site["type"] != "sample" or site["is_observed"]:
        return None
    return values[site["name"]] if site["name"] in values else STRATEGIES[strategy](site)


def check_strategy(name: str) -> None:
    """Raise a ConfigError unless a strategy is known."""
    if name not in STRATEGIES:
        raise ConfigError(
            not_known("strategy", name, STRATEGIES),
            where="init_strategy",
            allowed=", ".join(STRATEGIES),
        )


def scattered_starts(
    model: Callable[..., Any], given: Mapping[str, JaxArray], strategy: str, keys: JaxArray
) -> dict[str, JaxArray]:
    """Place every chain near given values of a model.

    Args:
        model: NumPyro model without arguments.
        given: Values by site, in the units of the model.
        strategy: Name of the strategy for sites without a value.
        keys: A random key for each chain.

    Returns:
        Coordinates by site, as NumPyro's ``init_params`` takes them: unconstrained, with a
        leading axis of chains.

    Raises:
        ConfigError: A value belongs to no site or has another shape, or one is missing and
            the strategy takes given values only.
        SamplingError: The log density at the values is not finite.
    """
    _check_names(_latent_sites(handlers.seed(model, keys[0]), given, strategy), given, strategy)
    starts = [_scattered_start(model, given, strategy, key) for key in keys]
    return {name: jnp.stack([start[name] for start in starts]) for name in starts[0]}


def _scattered_start(
    model: Callable[..., Any], given: Mapping[str, JaxArray], strategy: str, key: JaxArray
) -> dict[str, JaxArray]:
    filling, moving = jax.random.split(key)
    seeded = handlers.seed(model, filling)
    sites = _latent_sites(seeded, given, strategy)
    values = {name: site["value"] for name, site in sites.items()}
    _check_densities(seeded, values)
    maps = {name: biject_to(site["fn"].support) for name, site in sites.items()}
    here = {name: maps[name].inv(value) for name, value in values.items()}
    moves = dict(zip(maps, jax.random.split(moving, len(maps)), strict=True))
    moved = {name: _moved(here[name], maps[name], moves[name]) for name in maps}
    densities, _ = compute_log_probs(seeded, (), {}, {n: maps[n](z) for n, z in moved.items()})
    if np.all([np.isfinite(x) for x in densities.values()]):
        return moved
    _log.warning(
        "a chain starts at the given values themselves: the log density is not finite "
        "1 %% away from them"
    )
    return here


def _latent_sites(
    seeded: Callable[..., Any], given: Mapping[str, JaxArray], strategy: str
) -> Sites:
    """Continuous unknowns of a model, at given values or where the strategy puts them."""

    def place(site: Site) -> Any:
        value = start_of_site(given, strategy, site)
        # The model goes on with the value, so that it is checked here.
        if value is not None and site["name"] in given:
            _check_value(site, value)
        return value

    trace = handlers.trace(handlers.substitute(seeded, substitute_fn=place)).get_trace()
    return {
        name: site
        for name, site in trace.items()
        if site["type"] == "sample"
        and not site["is_observed"]
        and not site["fn"].support.is_discrete
    }


def _check_names(sites: Sites, given: Mapping[str, JaxArray], strategy: str) -> None:
    unknown = sorted(given.keys() - sites.keys())
    if unknown:
        raise ConfigError(
            not_known("site", unknown[0], sites),
            where="initial values",
            allowed=f"the unknowns of the model, {', '.join(sites)}",
        )
    missing = [name for name in sites if name not in given]
    if missing and strategy == ONLY_GIVEN:
        raise ConfigError(
            f"{strategy} has no value for {', '.join(missing)}",
            where="initial values",
            remedy="Give a value for each, or choose another init_strategy",
        )
    if missing:
        _log.info("%s gives the start of %s", strategy, ", ".join(missing))


def _check_value(site: Site, value: JaxArray) -> None:
    name, prior = site["name"], site["fn"]
    if np.shape(value) != tuple(prior.shape()):
        raise ConfigError(
            f"{name} has shape {np.shape(value)}",
            where="initial values",
            allowed=str(tuple(prior.shape())),
        )
    if prior.support.is_discrete:
        return
    inside = np.all(np.isfinite(value)) and np.all(prior.support(value))
    if inside and np.all(np.isfinite(biject_to(prior.support).inv(value))):
        return
    raise SamplingError(
        f"{name} = {_text(value)} lies {'on the edge' if inside else 'outside'} of its support, "
        "so the log density is not finite there",
        where="initial values",
        allowed=f"{prior.support}, without its edges",
    )


def _check_densities(seeded: Callable[..., Any], values: Mapping[str, JaxArray]) -> None:
    densities, _ = compute_log_probs(seeded, (), {}, dict(values))
    bad = {name: float(x) for name, x in densities.items() if not np.isfinite(x)}
    if bad:
        name, density = next(iter(bad.items()))
        at = ", ".join(f"{n} = {_text(value)}" for n, value in values.items())
        raise SamplingError(
            f"the log density of site {name} is {density} at {at}",
            where="initial values",
            allowed="values at which every site of the model is possible",
        )


def _text(value: Any) -> str:
    return np.array2string(np.asarray(value), precision=6, threshold=6)


def _moved(z: JaxArray, to_support: Transform, key: JaxArray) -> JaxArray:
    """Move coordinates a little, in the space where every point belongs to the support."""
    while isinstance(to_support, IndependentTransform):
        to_support = to_support.base_transform
    unit = jnp.abs(z) if isinstance(to_support, IdentityTransform) else 1.0
    return z + _SPREAD * unit * jax.random.normal(key, jnp.shape(z))
