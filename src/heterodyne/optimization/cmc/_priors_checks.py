"""NumPyro priors checked against a parameter space, and in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpyro.distributions as dist
from scipy import stats

from heterodyne.config.parameter_registry import parameter_info
from heterodyne.config.parameter_space import Parameter, ParameterSpace
from heterodyne.optimization.cmc._priors_families import logarithm_of, normal_of
from heterodyne.optimization.cmc._table import NOT_KNOWN, figure
from heterodyne.optimization.prior import log_mass

_SMALLEST_SCALE = 1e-12
_WIDEST = len("TruncatedLogNormal")


class _Interval(NamedTuple):
    low: float
    high: float


def validate_priors(
    priors: Mapping[str, dist.Distribution], param_space: ParameterSpace
) -> list[str]:
    """Say what is wrong with priors.

    Every varying parameter needs one, whose support overlaps with the bounds, and whose scale
    (of log x for a log-normal one) is finite and at least 1e-12. A uniform one has no scale.

    Args:
        priors: Distributions by name.
        param_space: The parameters that vary, and their bounds.

    Returns:
        Sentences; empty where nothing is wrong.
    """
    problems = []
    for name in param_space.varying_names:
        if name in priors:
            problems += [f"{name}: {text}" for text in _problems(priors[name], param_space[name])]
        else:
            problems.append(f"{name}: it varies and has no prior.")
    return problems


def _problems(prior: dist.Distribution, parameter: Parameter) -> Iterator[str]:
    support, (low, high) = _support(prior), (parameter.min, parameter.max)
    unit = f" {parameter.info.unit}" if parameter.info.unit else ""
    if support is None:
        yield f"the support of its {type(prior).__name__} prior is not an interval of numbers."
    elif not max(support.low, low) < min(support.high, high):
        yield (
            f"its prior lives on {support.low:g} to {support.high:g}{unit}, and its bounds are "
            f"{low:g} to {high:g}{unit}."
        )
    location, scale = _location_and_scale(prior)
    if not math.isfinite(location):
        yield f"its prior is centred at {location:g}."
    if scale is not None and not _SMALLEST_SCALE <= scale < math.inf:
        yield f"its prior has the scale {scale:g}; needed: finite, at least {_SMALLEST_SCALE:g}."


def _support(prior: dist.Distribution) -> _Interval | None:
    """Ends of the support; None where it is not an interval of real numbers."""
    try:
        support = prior.support
    except NotImplementedError:
        return None
    if support is None or support.is_discrete or prior.shape():
        return None
    if support is dist.constraints.real:
        return _Interval(-math.inf, math.inf)
    low = getattr(support, "lower_bound", -math.inf)
    high = getattr(support, "upper_bound", math.inf)
    found = _Interval(float(low), float(high))
    return None if found == (-math.inf, math.inf) else found


def _location_and_scale(prior: dist.Distribution) -> tuple[float, float | None]:
    """Centre and scale where the prior is normal, else 0 and what stands for the scale."""
    if isinstance(prior, dist.Uniform):
        return 0.0, None
    normal = normal_of(logarithm_of(prior) or prior)
    if normal is not None:
        return float(np.mean(normal.loc)), float(np.min(normal.scale))
    scale = getattr(prior, "scale", None)
    return 0.0, _moments(prior)[1] if scale is None else float(np.min(scale))


def summarize_priors(priors: Mapping[str, dist.Distribution]) -> str:
    """Write priors below each other: family, mean, standard deviation, support, unit.

    Args:
        priors: Distributions by name.

    Returns:
        One line for each; ``N/A`` stands for a moment that is not known.
    """
    widest = max(map(len, priors), default=0)
    return "\n".join(f"{name:<{widest}}  {_in_words(name, p)}" for name, p in priors.items())


def _in_words(name: str, prior: dist.Distribution) -> str:
    mean, std = _moments(prior)
    mean, std = (math.nan if x is None else x for x in (mean, std))
    support = _support(prior)
    where = NOT_KNOWN if support is None else f"{support.low:g} to {support.high:g}"
    try:
        unit = parameter_info(name).unit
    except KeyError:
        unit = ""
    text = (
        f"{_family(prior):<18}  mean {figure(mean, std)}, std {figure(std, std)}, support {where}"
    )
    return f"{text} {unit}".rstrip()


def _family(prior: dist.Distribution) -> str:
    log = logarithm_of(prior)
    inner = log or prior
    if normal_of(inner) is None:
        return type(prior).__name__
    cut = "" if isinstance(inner, dist.Normal) else "Truncated"
    return f"{cut}{'Normal' if log is None else 'LogNormal'}"


def _moments(prior: dist.Distribution) -> tuple[float | None, float | None]:
    """Mean and standard deviation of a prior of one number; None where not known."""
    if prior.shape():
        return None, None
    log = logarithm_of(prior)
    normal = normal_of(log or prior)
    if normal is not None:
        return _normal_moments(log or prior, normal, logarithmic=log is not None)
    try:
        return float(prior.mean), math.sqrt(prior.variance)
    except NotImplementedError:
        return None, None


def _normal_moments(
    prior: dist.Distribution, normal: dist.Normal, *, logarithmic: bool
) -> tuple[float, float]:
    """Mean and standard deviation of a truncated normal distribution, or of its exponential."""
    loc, scale = float(np.asarray(normal.loc)), float(np.asarray(normal.scale))
    support = _support(prior) or _Interval(-math.inf, math.inf)
    low, high = ((end - loc) / scale for end in support)
    if not logarithmic:
        cut = stats.truncnorm(low, high, loc, scale)
        return float(cut.mean()), float(cut.std())
    # The mean of exp(k z) is the mass of the normal moved by k scales, times exp(k^2 scale^2 / 2).
    none, once, twice = (log_mass(low - k * scale, high - k * scale) for k in (0, 1, 2))
    try:
        mean = math.exp(loc + 0.5 * scale**2 + once - none)
        spread = math.expm1(scale**2 + twice + none - 2.0 * once)
    except OverflowError:
        return math.inf, math.inf
    return mean, mean * math.sqrt(max(spread, 0.0))
