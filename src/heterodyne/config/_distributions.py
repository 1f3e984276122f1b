"""Priors as NumPyro distributions; imported only where one is asked for."""

from __future__ import annotations

import math

import numpyro.distributions as dist

from heterodyne.config.parameter_space import Parameter, PriorKind


def numpyro_prior(parameter: Parameter) -> dist.Distribution:
    """Return the truncated prior of a parameter.

    A log-normal prior is a truncated normal of the logarithm, transformed by exp;
    the domain of exp is given so that the support is the bounds, not all x > 0.
    """
    prior = parameter.prior
    low, high = parameter.min, parameter.max
    if prior.kind is PriorKind.UNIFORM:
        return dist.Uniform(low, high)
    if prior.kind is PriorKind.LOGNORMAL:
        low, high = math.log(low), math.log(high)
        log = dist.TruncatedNormal(prior.loc, prior.scale, low=low, high=high)
        exp = dist.transforms.ExpTransform(domain=dist.constraints.interval(low, high))
        return dist.TransformedDistribution(log, exp)
    return dist.TruncatedNormal(prior.loc, prior.scale, low=low, high=high)
