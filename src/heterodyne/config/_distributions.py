"""Priors as NumPyro distributions; imported only where one is asked for."""

from __future__ import annotations

import math

import numpyro.distributions as dist

from heterodyne.config.parameter_space import Parameter, PriorKind


def numpyro_prior(parameter: Parameter) -> dist.Distribution:
    """Return the truncated prior of a parameter.

    A log-normal prior is a truncated normal of the logarithm, transformed by exp.
    """
    prior = parameter.prior
    low, high = parameter.min, parameter.max
    if prior.kind is PriorKind.UNIFORM:
        return dist.Uniform(low, high)
    if prior.kind is PriorKind.LOGNORMAL:
        log = dist.TruncatedNormal(
            prior.loc, prior.scale, low=math.log(low), high=math.log(high)
        )
        return dist.TransformedDistribution(log, dist.transforms.ExpTransform())
    return dist.TruncatedNormal(prior.loc, prior.scale, low=low, high=high)
