"""Families of NumPyro priors: what they have in common, and how they are tempered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral

import numpyro.distributions as dist

from heterodyne._errors import ConfigError
from heterodyne._log import get_logger
from heterodyne.core._jax import jnp

_LOG = get_logger(__name__)
_TRUNCATED = (
    dist.TwoSidedTruncatedDistribution,
    dist.LeftTruncatedDistribution,
    dist.RightTruncatedDistribution,
)


def logarithm_of(prior: dist.Distribution) -> dist.Distribution | None:
    """The distribution of log x where x is the exponential of something, else None."""
    if (
        isinstance(prior, dist.TransformedDistribution)
        and len(prior.transforms) == 1
        and isinstance(prior.transforms[0], dist.transforms.ExpTransform)
    ):
        return prior.base_dist
    return None


def normal_of(prior: dist.Distribution) -> dist.Normal | None:
    """The normal distribution that a prior is, cut at bounds or not, else None."""
    base = prior.base_dist if isinstance(prior, _TRUNCATED) else prior
    return base if isinstance(base, dist.Normal) else None


def temper_priors(
    priors: Mapping[str, dist.Distribution], num_shards: int
) -> dict[str, dist.Distribution]:
    """Widen priors for shards, so that the priors of all shards make up the prior once.

    Each of K shards has the prior to the power 1/K (consensus Monte Carlo, Scott et al., Int. J.
    Management Science and Engineering Management 11, 78, 2016). For a normal distribution,
    truncated or not, that is the same one with sqrt(K) times the scale; a uniform one does not
    change. Log-normal ones are tempered in log x, the coordinate that is sampled and combined:
    sqrt(K) times the scale is exact for the density of log x. It is not the power of the
    density of x, whose log-normal would have its centre moved by scale^2 (K - 1).

    Args:
        priors: Distributions by name.
        num_shards: Number of shards K, at least 1.

    Returns:
        New distributions by name. One of another family is kept as it is, with a warning: it
        then counts K times.

    Raises:
        ConfigError: A number of shards that is not a whole number from 1 on.
    """
    if isinstance(num_shards, bool) or not isinstance(num_shards, Integral) or num_shards < 1:
        raise ConfigError(
            f"{num_shards!r} shards", where="num_shards", allowed="whole numbers from 1 on"
        )
    if num_shards == 1:
        return dict(priors)
    tempered = {}
    for name, prior in priors.items():
        widened = _widened(prior, math.sqrt(num_shards))
        if widened is None:
            _LOG.warning(
                "The %s prior of %s is not tempered: it counts %d times. Use a (truncated) "
                "normal, log-normal or uniform one.",
                type(prior).__name__, name, num_shards,
            )  # fmt: skip
        tempered[name] = prior if widened is None else widened
    return tempered


def _widened(prior: dist.Distribution, factor: float) -> dist.Distribution | None:
    """The prior with a larger scale; None for a family in which that is no tempering."""
    if isinstance(prior, dist.Uniform):
        return prior
    if isinstance(prior, dist.LogNormal):
        return dist.LogNormal(prior.loc, prior.scale * factor)
    if isinstance(prior, dist.TransformedDistribution):
        log = logarithm_of(prior)
        widened = None if log is None else _widened(log, factor)
        exp = prior.transforms
        return None if widened is None else dist.TransformedDistribution(widened, exp)
    normal = normal_of(prior)
    if normal is None:
        return None
    # Without bounds, TruncatedNormal makes a Normal.
    low, high = getattr(prior, "low", None), getattr(prior, "high", None)
    loc, scale = jnp.asarray(normal.loc), jnp.asarray(normal.scale)
    return dist.TruncatedNormal(loc, scale * factor, low=low, high=high)
