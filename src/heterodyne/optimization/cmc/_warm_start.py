"""Where an earlier fit lets the search start, and where it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from heterodyne._errors import ConfigError, SamplingError
from heterodyne._log import get_logger
from heterodyne.config.cmc import CMCConfig
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
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

_GUARDS = {
    "f0": (CMC_F0_DEGEN_THRESHOLD, CMC_F0_SAFE_ZONE),
    "alpha_sample": (CMC_ALPHA_SINGULARITY, CMC_ALPHA_SAFE_ZONE),
}
# What a value beyond the threshold leaves undetermined.
_AT_STAKE = {
    "f0": ("D0_sample", "alpha_sample", "D_offset_sample"),
    "alpha_sample": ("alpha_sample",),
}


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
    found = best_of(results).as_dict()
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
        safe = safe_start(name, value)
        values[name] = min(max(safe, setting.min), setting.max)
        if values[name] != safe:
            _LOG.warning(
                "The fit has %s = %g, outside its bounds %g to %g: sampling starts at %g.",
                name, value, setting.min, setting.max, values[name],
            )  # fmt: skip
    return space.with_values(values)


def safe_start(name: str, value: float) -> float:
    """Move a start value off where the data leave the sample's transport undetermined.

    Args:
        name: Name of the parameter; most have no such values.
        value: Its fitted value.
    """
    threshold, safe = _GUARDS.get(name, (-np.inf, value))
    if value >= threshold:
        return value
    _LOG.warning(
        "The fit has %s = %g, below %g, where the transport of the sample is undetermined: the "
        "search starts at %g.", name, value, threshold, safe,
    )  # fmt: skip
    return safe


def refuse_degenerate(
    values: Mapping[str, float], space: ParameterSpace, config: CMCConfig, where: str
) -> None:
    """Refuse to divide data whose fit leaves the sample's transport undetermined.

    Values that are not used matter nothing: those of held parameters, and all of them without
    ``use_nlsq_warmstart``.

    Args:
        values: Fitted values by name.
        space: Which parameters vary.
        config: ``allow_degenerate_warmstart`` lets everything pass.
        where: Argument that holds the fit.

    Raises:
        SamplingError: A value is beyond a threshold, and that is not allowed.
    """
    if config.allow_degenerate_warmstart or not config.use_nlsq_warmstart:
        return
    for name, (threshold, _) in _GUARDS.items():
        undetermined = [n for n in _AT_STAKE[name] if space[n].vary]
        if not (space[name].vary and undetermined and name in values):
            continue
        value = float(values[name])
        if value < threshold:
            raise SamplingError(
                f"the fit has {name} = {value:g}, so that shards cannot determine the "
                "transport of the sample",
                where=where,
                allowed=f"{name} of at least {threshold:g}",
                remedy=f"Sample all data in one pass, fix {', '.join(undetermined)}, or set "
                "allow_degenerate_warmstart to true",
            )


def best_of(results: Sequence[NLSQResult]) -> NLSQResult:
    """Return the best of earlier fits; there is at least one."""
    return min(results, key=_badness)


def best_values(results: Sequence[NLSQResult]) -> dict[str, float]:
    """Values of the best of earlier fits by name; none without a fit."""
    return best_of(results).as_dict() if results else {}


def _badness(result: NLSQResult) -> tuple[bool, float]:
    return not result.success, float(np.nan_to_num(result.sigma, nan=np.inf))
