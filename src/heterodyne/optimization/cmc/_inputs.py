"""What the documented functions are given, as data, parameters and settings of the engine."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpyro.distributions as dist

from heterodyne._errors import ConfigError
from heterodyne._log import get_logger
from heterodyne._typing import ArrayLike
from heterodyne.config._suggest import not_known
from heterodyne.config.cmc import CMCConfig
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import Parameter, ParameterSpace, Prior, PriorKind
from heterodyne.optimization.cmc._priors_build import build_nlsq_informed_priors
from heterodyne.optimization.cmc._priors_families import logarithm_of, normal_of
from heterodyne.optimization.cmc._warm_start import best_of, started
from heterodyne.optimization.nlsq.results import NLSQResult

_LOG = get_logger(__name__)

_METHODS = ("mcmc", "nuts", "cmc")

LITERAL = "literal"
"""Value of ``use_nlsq_informed_priors`` that centres priors on a fit to the same data."""


def checked(config: CMCConfig | None) -> CMCConfig:
    """Return settings without problems; the defaults for None.

    Raises:
        ConfigError: With all problems.
    """
    config = config or CMCConfig()
    problems = config.validate()
    if problems:
        raise ConfigError("; ".join(problems), where="CMCConfig")
    return config


def noise_scale(sigma: ArrayLike | None, shape: tuple[int, ...]) -> float | None:
    """Root mean square of an estimate of the errors, over the pairs; None for None.

    Raises:
        ConfigError: A shape that does not fit, or a value that is not above 0.
    """
    if sigma is None:
        return None
    given = np.asarray(sigma, float)
    try:
        full = np.broadcast_to(given, shape)
    except ValueError:
        raise ConfigError(
            f"sigma has the shape {given.shape}",
            where="sigma",
            allowed=f"a number, or an array that fits c2_data, {shape}",
        ) from None
    pairs = full[:, *np.triu_indices(shape[-1], 1)]
    wrong = pairs[~(np.isfinite(pairs) & (pairs > 0))]
    if wrong.size:
        raise ConfigError(
            f"{wrong.size} pairs have a sigma such as {wrong[0]:g}",
            where="sigma",
            allowed="finite, > 0",
        )
    return float(np.sqrt(np.mean(pairs**2)))


def prepared(
    space: ParameterSpace,
    results: Sequence[NLSQResult],
    config: CMCConfig,
    overrides: Mapping[str, dist.Distribution] | None = None,
    width: float = 1.0,
) -> tuple[ParameterSpace, tuple[str, ...]]:
    """Settle priors and start values.

    Priors are centred on a fit, then replaced, then widened.

    Args:
        space: Start values, bounds and priors.
        results: Earlier fits.
        config: Which of these count, and for what.
        overrides: As for ``with_priors``.
        width: Likewise.

    Returns:
        The parameters, and sentences for the verdict.

    Raises:
        ConfigError: Something that cannot be used, or a fit that is needed and not given.
    """
    space, notes = informed(space, results, config, overrides or (), width)
    return started(with_priors(space, config, overrides, width), results, config), notes


def informed(
    space: ParameterSpace,
    results: Sequence[NLSQResult],
    config: CMCConfig,
    others: Collection[str] = (),
    width: float = 1.0,
) -> tuple[ParameterSpace, tuple[str, ...]]:
    """Centre priors on the best of earlier fits, where the configuration says so literally.

    Args:
        space: Bounds and priors.
        results: Earlier fits.
        config: Whether priors are centred, and the width of these.
        others: Names of parameters that will have other priors.
        width: Factor by which all priors will be widened.

    Returns:
        The parameters, and sentences for the verdict.

    Raises:
        ConfigError: It is asked for and no fit is given.
    """
    if config.use_nlsq_informed_priors != LITERAL:
        if results and config.use_nlsq_informed_priors:
            _LOG.info("The earlier fit sets the start; priors stay as they are.")
        return space, ()
    if not results:
        raise ConfigError(
            "priors are to be centred on a fit, and none was given",
            where="use_nlsq_informed_priors",
            remedy="Give nlsq_result, or leave the priors as they are",
        )
    best = best_of(results)
    priors = build_nlsq_informed_priors(best, space, config.nlsq_prior_width_factor)
    physics = {name: x for name, x in priors.items() if name in PHYSICS_PARAM_NAMES}
    kept = [name for name in physics if name in others]
    which = f"The priors but those of {', '.join(kept)}" if kept else "The priors"
    note = (
        f"{which} are centred on a fit, with {config.nlsq_prior_width_factor * width:g} of its "
        "standard errors for their width. If it is a fit of these data, they count twice and "
        "the intervals are too narrow."
    )
    return ParameterSpace(_replaced(space.parameters, physics)), (note,)


def with_priors(
    space: ParameterSpace,
    config: CMCConfig,
    overrides: Mapping[str, dist.Distribution] | None = None,
    width: float = 1.0,
) -> ParameterSpace:
    """Replace priors.

    Args:
        space: Bounds and priors.
        config: ``use_log_space_priors``: false makes log-normal priors normal.
        overrides: NumPyro distributions by name.
        width: Factor on the width of every prior, on the axis on which it is normal.

    Raises:
        ConfigError: A family or name that is not known, or a factor that is not above 0.
    """
    if not (np.isfinite(width) and width > 0):
        raise ConfigError(f"it is {width:g}", where="prior_width_multiplier", allowed="above 0")
    if not config.use_log_space_priors:
        space = space.without_log_normal_priors()
    parameters = _replaced(space.parameters, overrides or {})
    if width != 1.0:
        parameters = {n: replace(p, prior=_widened(p.prior, width)) for n, p in parameters.items()}
    return ParameterSpace(parameters)


def _replaced(
    parameters: Mapping[str, Parameter], priors: Mapping[str, dist.Distribution]
) -> dict[str, Parameter]:
    """Give parameters other priors."""
    changed = dict(parameters)
    for name, distribution in priors.items():
        if name not in changed:
            raise ConfigError(
                f"no parameter {name!r}", where="priors_override", allowed=", ".join(changed)
            )
        changed[name] = _overridden(changed[name], distribution)
    return changed


def _widened(prior: Prior, width: float) -> Prior:
    if prior.kind is PriorKind.LOGNORMAL:
        return replace(prior, std=float(prior.mean * np.expm1(width * prior.scale)))
    return replace(prior, std=width * prior.std)


def _overridden(parameter: Parameter, distribution: dist.Distribution) -> Parameter:
    """Read family, width and support off a NumPyro distribution."""
    where = f"priors_override[{parameter.info.name!r}]"
    logarithm = logarithm_of(distribution)
    normal = normal_of(logarithm or distribution)
    low, high = (
        float(getattr(distribution.support, end, default))
        for end, default in (("lower_bound", -np.inf), ("upper_bound", np.inf))
    )
    if normal is not None:
        centre, width = (float(np.asarray(x)) for x in (normal.loc, normal.scale))
        if logarithm is None:
            prior = Prior(PriorKind.NORMAL, centre, width)
        else:
            median = float(np.exp(centre))
            prior = Prior(PriorKind.LOGNORMAL, median, float(median * np.expm1(width)))
    elif isinstance(distribution, dist.Uniform):
        prior = Prior(PriorKind.UNIFORM, 0.5 * (low + high), high - low)
    else:
        raise ConfigError(
            f"a prior of the family {type(distribution).__name__}",
            where=where,
            allowed="Normal, TruncatedNormal, LogNormal, Uniform",
        )
    changed = replace(
        parameter, prior=prior, min=max(parameter.min, low), max=min(parameter.max, high)
    )
    value = min(max(parameter.value, changed.min), changed.max)
    changed = replace(changed, value=value)
    changed.check(where)
    return changed


def only_sigma(others: Mapping[str, Any]) -> ArrayLike | None:
    """Return sigma of further arguments.

    Raises:
        ConfigError: There are others.
    """
    unknown = sorted(set(others) - {"sigma"})
    if unknown:
        raise ConfigError(
            f"unknown arguments {', '.join(unknown)}", where="fit_mcmc_jax", allowed="sigma"
        )
    return others.get("sigma")


def method_settings(method: str, given: Mapping[str, Any] | CMCConfig | None) -> CMCConfig:
    """Check the method, and read the settings, which alone decide on shards.

    Raises:
        ConfigError: A method that is not known, or a section that is no mapping.
    """
    if method not in _METHODS:
        raise ConfigError(
            not_known("method", method, _METHODS), where="method", allowed=", ".join(_METHODS)
        )
    return CMCConfig.from_dict(given) if isinstance(given, Mapping) else given or CMCConfig()
