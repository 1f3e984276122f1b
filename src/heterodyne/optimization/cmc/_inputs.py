"""What the documented functions are given, as data, parameters and settings of the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpyro.distributions as dist

from heterodyne._errors import ConfigError, DataError, SamplingError
from heterodyne._log import get_logger
from heterodyne._typing import ArrayLike
from heterodyne.config._suggest import not_known
from heterodyne.config.cmc import CMCConfig
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import Parameter, ParameterSpace, Prior, PriorKind
from heterodyne.core.heterodyne_model import HeterodyneModel
from heterodyne.data import TwoTimeData, from_arrays
from heterodyne.optimization.cmc._priors_build import build_nlsq_informed_priors
from heterodyne.optimization.cmc._priors_families import logarithm_of, normal_of
from heterodyne.optimization.nlsq.results import NLSQResult

_LOG = get_logger(__name__)

CMC_F0_DEGEN_THRESHOLD: float = 0.1
"""Amplitude of the fraction below which the transport of the sample is undetermined."""

CMC_ALPHA_SINGULARITY: float = -1.5
"""Exponent of the sample's transport below which J cannot be integrated from t = 0."""

CMC_F0_SAFE_ZONE: float = 0.2
"""Amplitude of the fraction that a start below the threshold is moved to."""

CMC_ALPHA_SAFE_ZONE: float = -1.0
"""Exponent that a start below the singularity is moved to."""

_METHODS = ("mcmc", "nuts", "cmc")

LITERAL = "literal"
"""Value of ``use_nlsq_informed_priors`` that centres priors on a fit to the same data."""

_GUARDS = {
    "f0": (CMC_F0_DEGEN_THRESHOLD, CMC_F0_SAFE_ZONE),
    "alpha_sample": (CMC_ALPHA_SINGULARITY, CMC_ALPHA_SAFE_ZONE),
}


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


def two_time_data(model: HeterodyneModel, c2: ArrayLike, phi: ArrayLike) -> TwoTimeData:
    """Put matrices and angles together.

    Args:
        model: Time grid and wavevector.
        c2: Symmetric matrices, shape (N, N) for one angle, or (n_phi, N, N).
        phi: Angles in degrees, scalar or shape (n_phi,).

    Raises:
        DataError: Shapes that do not match, or halves that differ.
    """
    matrices = np.asarray(c2, float)
    matrices = matrices[None] if matrices.ndim == 2 else matrices
    angles = np.atleast_1d(np.asarray(phi, float))
    shape = (angles.size, model.t.size, model.t.size)
    if angles.ndim != 1 or matrices.shape != shape:
        raise DataError(
            f"{angles.size} angles and {model.t.size} times with c2 of shape {matrices.shape}",
            where="c2_data",
            allowed=f"(N, N) for one angle, or (n_phi, N, N): {shape}",
        )
    return from_arrays(matrices, q=model.q, phi=angles, t=model.t, dt=model.dt, source="c2_data")


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


def refuse_missing_fit(config: CMCConfig, where: str) -> None:
    """Refuse to go on without an earlier fit, if the configuration requires one.

    Args:
        config: Settings.
        where: Argument that would have held the fit.

    Raises:
        ConfigError: It is required.
    """
    if config.require_nlsq_warmstart:
        raise ConfigError(
            "no earlier fit was given, and require_nlsq_warmstart is true",
            where=where,
            remedy="Give one, or set require_nlsq_warmstart to false: a fit from many starts "
            "always comes first",
        )


def started(
    space: ParameterSpace, results: Sequence[NLSQResult], config: CMCConfig
) -> ParameterSpace:
    """Take start values of the varying physics parameters from the best of earlier fits.

    Raises:
        ConfigError: A fit is required, and none given.
    """
    if not results:
        refuse_missing_fit(config, "nlsq_result")
        return space
    if not config.use_nlsq_warmstart:
        return space
    found = min(results, key=_badness).as_dict()
    values: dict[str, float] = {}
    for name in space.varying_names:
        if name not in PHYSICS_PARAM_NAMES or name not in found:
            continue
        value, setting = found[name], space[name]
        if not np.isfinite(value):
            _LOG.warning(
                "The fit has %s = %g: its start value stays %g.", name, value, setting.value
            )
            continue
        safe = _safe(name, value)
        values[name] = min(max(safe, setting.min), setting.max)
        if values[name] != safe:
            _LOG.warning(
                "The fit has %s = %g, outside its bounds %g to %g: sampling starts at %g.",
                name, value, setting.min, setting.max, values[name],
            )  # fmt: skip
    return space.with_values(values)


def informed(
    space: ParameterSpace, results: Sequence[NLSQResult], config: CMCConfig
) -> tuple[ParameterSpace, tuple[str, ...]]:
    """Centre priors on the best of earlier fits, where the configuration says so literally.

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
    best = min(results, key=_badness)
    priors = build_nlsq_informed_priors(best, space, config.nlsq_prior_width_factor)
    physics = {name: x for name, x in priors.items() if name in PHYSICS_PARAM_NAMES}
    note = (
        "The priors are centred on a fit, with "
        f"{config.nlsq_prior_width_factor:g} of its standard errors for their width. If it is a "
        "fit of these data, they count twice and the intervals are too narrow."
    )
    return ParameterSpace(_replaced(space.parameters, physics)), (note,)


def _safe(name: str, value: float) -> float:
    """Move a start value off where the data leave the sample's transport undetermined."""
    threshold, safe = _GUARDS.get(name, (-np.inf, value))
    if value >= threshold:
        return value
    _LOG.warning(
        "The fit has %s = %g, below %g, where the transport of the sample is undetermined: the "
        "search starts at %g.", name, value, threshold, safe,
    )  # fmt: skip
    return safe


def refuse_degenerate(results: Sequence[NLSQResult], config: CMCConfig) -> None:
    """Refuse to divide data whose fit leaves the sample's transport undetermined.

    Raises:
        SamplingError: A fit is beyond a threshold, and that is not allowed.
    """
    if config.allow_degenerate_warmstart:
        return
    for result in results:
        found = result.as_dict()
        for name, (threshold, _) in _GUARDS.items():
            if name in found and found[name] < threshold:
                raise SamplingError(
                    f"the fit has {name} = {found[name]:g}, so that shards cannot determine the "
                    "transport of the sample",
                    where="nlsq_result",
                    allowed=f"{name} of at least {threshold:g}",
                    remedy="Sample all data in one pass, fix the parameters of the sample, or "
                    "set allow_degenerate_warmstart to true",
                )


def _badness(result: NLSQResult) -> tuple[bool, float]:
    return not result.success, float(np.nan_to_num(result.sigma, nan=np.inf))


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
    parameters = dict(space.parameters)
    if not config.use_log_space_priors:
        parameters = {n: replace(p, prior=_linear(p.prior)) for n, p in parameters.items()}
    parameters = _replaced(parameters, overrides or {})
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


def _linear(prior: Prior) -> Prior:
    return replace(prior, kind=PriorKind.NORMAL) if prior.kind is PriorKind.LOGNORMAL else prior


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
    """Read settings, without shards unless the method is ``cmc``.

    Raises:
        ConfigError: A method that is not known, or a section that is no mapping.
    """
    if method not in _METHODS:
        raise ConfigError(
            not_known("method", method, _METHODS), where="method", allowed=", ".join(_METHODS)
        )
    config = CMCConfig.from_dict(given) if isinstance(given, Mapping) else given or CMCConfig()
    return config if method == "cmc" else replace(config, enable="never")
