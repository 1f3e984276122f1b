"""Power laws by their value at a reference time.

Data inform A(t) = A0 t**alpha at the times of the measurement, not A0, its value at 1 s: in
(A0, alpha) the posterior is a thin curved ridge. The pairs (D0_ref, alpha_ref),
(D0_sample, alpha_sample) and (v0, beta) are therefore replaced by (log A(t_ref), alpha), and
offsets of transport coefficients by their ratios to A(t_ref).

The sampler of the package has coordinates of its own (``optimization.coordinates``); these
serve NumPyro models that a user writes. A density in log A(t_ref) is one in A0 only with the
factor d log A / d A0 = 1 / A0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from heterodyne._errors import ConfigError
from heterodyne._log import get_logger
from heterodyne._typing import FloatArray, JaxArray, Numeric
from heterodyne.config._suggest import not_known
from heterodyne.core._jax import jnp
from heterodyne.core.traced import traced
from heterodyne.optimization.cmc._unique import unique
from heterodyne.optimization.coordinates.curves import EXPONENTS, OFFSETS, PREFACTORS

__all__ = [
    "D_OFFSET_RATIO_MIN",
    "ReparamConfig",
    "compute_t_ref",
    "d_offset_to_ratio",
    "heterodyne_offset_ratios_from_physics",
    "heterodyne_physics_offsets_from_ratios",
    "ratio_to_d_offset",
    "reparam_to_physics_jax",
    "transform_nlsq_to_reparam_space",
    "transform_to_physics_space",
    "transform_to_sampling_space",
]

_log = get_logger(__name__)

D_OFFSET_RATIO_MIN: float = -0.99
"""Smallest ratio of offset to transport coefficient for sampling; at -1, J(t_ref) is 0."""

# The fourth curve, the sample fraction, is no power law.
_POWER_LAWS = tuple(zip(PREFACTORS, EXPONENTS, OFFSETS, strict=True))[:3]
_EXPONENT_OF = {prefactor: exponent for prefactor, exponent, _ in _POWER_LAWS}
_CHANNELS = {f"{offset}_ratio": (d0, alpha, offset) for d0, alpha, offset in _POWER_LAWS[:2]}


def _check_time(t_ref: float, where: str) -> None:
    if not (math.isfinite(t_ref) and t_ref > 0):
        raise ConfigError(f"{t_ref} s", where=where, allowed="finite, > 0 s")


@dataclass(frozen=True)
class ReparamConfig:
    """Which power laws are sampled by their value at a reference time.

    Attributes:
        enable_d_ref: Replace D0_ref of (D0_ref, alpha_ref).
        enable_d_sample: Replace D0_sample of (D0_sample, alpha_sample).
        enable_v_ref: Replace v0 of (v0, beta).
        t_ref: Reference time in s, > 0; see ``compute_t_ref``.

    Raises:
        ConfigError: A reference time that is not positive.
    """

    enable_d_ref: bool = True
    enable_d_sample: bool = True
    enable_v_ref: bool = True
    t_ref: float = 1.0

    def __post_init__(self) -> None:
        _check_time(self.t_ref, "t_ref")

    @property
    def pairs(self) -> dict[str, str]:
        """Exponent by prefactor of the pairs that are switched on."""
        on = (self.enable_d_ref, self.enable_d_sample, self.enable_v_ref)
        return {p: e for (p, e), use in zip(_EXPONENT_OF.items(), on, strict=True) if use}

    def is_reparameterized(self, name: str) -> bool:
        """Whether a parameter, prefactor or exponent, is in a pair that is switched on."""
        return name in self.pairs or name in self.pairs.values()

    def get_reparam_name(self, prefactor: str) -> str:
        """Name of log A(t_ref), such as ``log_D0_ref_at_tref``, whether or not it is on.

        Raises:
            ConfigError: Not the name of a prefactor of a power law.
        """
        if prefactor not in _EXPONENT_OF:
            raise ConfigError(
                not_known("prefactor of a power law", prefactor, _EXPONENT_OF),
                allowed=", ".join(_EXPONENT_OF),
            )
        return f"log_{prefactor}_at_tref"


def compute_t_ref(dt: float, t_max: float, fallback_value: float | None = None) -> float:
    """Return the middle of the times on a logarithmic axis, sqrt(dt * t_max), in s.

    Args:
        dt: Shortest time in s, > 0.
        t_max: Longest time in s, not below ``dt``.
        fallback_value: Returned, with a warning in the log, where the times cannot be used.

    Raises:
        ConfigError: Times that cannot be used and no fallback, or one that is not positive.
    """
    if math.isfinite(t_max) and 0 < dt <= t_max:
        return math.sqrt(dt * t_max)
    if fallback_value is None:
        raise ConfigError(
            f"no reference time between dt = {dt} s and t_max = {t_max} s",
            where="dt, t_max",
            allowed="finite, 0 < dt <= t_max",
        )
    _check_time(fallback_value, "fallback_value")
    _log.warning("no reference time between %s s and %s s: %g s is used", dt, t_max, fallback_value)
    return float(fallback_value)


def transform_nlsq_to_reparam_space(
    nlsq_values: Mapping[str, float],
    nlsq_uncertainties: Mapping[str, float] | None,
    t_ref: float,
    config: ReparamConfig | None = None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Turn least-squares values and standard errors into those of log A(t_ref).

    To first order, Var(log A(t_ref)) = (s_A0 / A0)**2 + (log(t_ref) s_alpha)**2. This takes
    the errors of A0 and alpha as independent. Those of a fit mostly cancel in A(t_ref), and
    the result is then too large: its covariance matrix gives the right one.

    Args:
        nlsq_values: Values by name; both of each pair that is switched on.
        nlsq_uncertainties: Standard errors by name. Where one of a pair is missing, so is
            the one of log A(t_ref), with a warning in the log.
        t_ref: Reference time in s, > 0; it replaces the one in ``config``.
        config: Which pairs are switched on, by default all.

    Returns:
        New mappings of values and standard errors; what is in no pair is unchanged.

    Raises:
        ConfigError: A pair without its exponent, a prefactor that is not positive, a
            negative standard error, or a reference time that is not positive.
    """
    if config is not None and config.t_ref != t_ref:
        _log.warning(
            "t_ref = %g s replaces %g s of the configuration, which therefore does not "
            "transform back",
            t_ref,
            config.t_ref,
        )
    config = replace(config or ReparamConfig(), t_ref=t_ref)
    values = transform_to_sampling_space(nlsq_values, config)
    pairs, errors = config.pairs, nlsq_uncertainties or {}

    def entries() -> Iterator[tuple[str, float]]:
        for name, error in errors.items():
            if error < 0:
                raise ConfigError(f"{error}", where=f"error of {name}", allowed=">= 0")
            if name not in pairs:
                yield name, error
            elif pairs[name] in errors:
                of_prefactor = error / _needed(nlsq_values, name, f"the error of {name}")
                of_exponent = errors[pairs[name]]
                yield (
                    config.get_reparam_name(name),
                    _log_error(of_prefactor, of_exponent, math.log(t_ref)),
                )

    transformed = unique(entries(), "nlsq_uncertainties")
    missing = [n for n in map(config.get_reparam_name, pairs) if n in values.keys() - transformed]
    if missing:
        _log.warning("no standard error of %s", ", ".join(missing))
    return values, transformed


def _log_error(of_log_prefactor: float, of_exponent: float, log_time: float) -> float:
    # At 1 s the exponent does not count, even where its error is infinite.
    drift = log_time * of_exponent if log_time else 0.0
    return math.sqrt(of_log_prefactor * of_log_prefactor + drift * drift)


def transform_to_sampling_space(
    params: Mapping[str, float], config: ReparamConfig
) -> dict[str, float]:
    """Turn parameters into sampling coordinates: log A(t_ref) = log A0 + alpha log t_ref.

    Args:
        params: Values by name; both of each pair that is switched on.
        config: Reference time and which pairs are switched on.

    Returns:
        A new mapping with log A(t_ref) in the place of A0; all else is unchanged.

    Raises:
        ConfigError: A prefactor that is not positive or has no finite exponent, or two
            entries with one name.
    """
    pairs, log_time = config.pairs, math.log(config.t_ref)

    def entries() -> Iterator[tuple[str, float]]:
        for name, value in params.items():
            if name not in pairs:
                yield name, value
                continue
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(
                    f"{value} has no logarithm",
                    where=name,
                    allowed="finite, > 0",
                    remedy="Switch the pair off in ReparamConfig, or start elsewhere",
                )
            exponent = _needed(params, pairs[name], f"log {name} at t_ref")
            if not math.isfinite(exponent):
                raise ConfigError(f"{exponent}", where=pairs[name], allowed="a finite number")
            yield config.get_reparam_name(name), math.log(value) + exponent * log_time

    return unique(entries(), "params")


def _needed(values: Mapping[str, Numeric], name: str, purpose: str) -> Any:
    if name not in values:
        raise ConfigError(
            f"{name} is missing, without which there is no {purpose}",
            where=name,
            remedy="Give its value, fixed ones too",
        )
    return values[name]


def reparam_to_physics_jax(log_at_tref: Numeric, alpha: Numeric, t_ref: Numeric) -> JaxArray:
    """Return the prefactor A0 = exp(log A(t_ref) - alpha log t_ref), traceable by JAX.

    Args:
        log_at_tref: Logarithm of A(t_ref), any shape; NumPy, JAX or plain.
        alpha: Exponent, a scalar or the same shape.
        t_ref: Reference time in s, > 0.

    Raises:
        ConfigError: A reference time that is not positive (not checked while JAX traces).
    """
    if not traced(t_ref):
        _check_time(float(t_ref), "t_ref")
    return jnp.exp(log_at_tref - alpha * jnp.log(t_ref))


def transform_to_physics_space(
    samples: Mapping[str, Numeric], config: ReparamConfig
) -> dict[str, FloatArray]:
    """Turn draws of sampling coordinates into draws of the parameters.

    Args:
        samples: Draws by name, any shape; log A(t_ref) with the exponent beside it, of the
            same shape or one number where it is fixed.
        config: The configuration with which they were drawn.

    Returns:
        A new mapping with A0 in the place of log A(t_ref); all else is unchanged.

    Raises:
        ConfigError: log A(t_ref) without the exponent, shapes that differ, or two entries
            with one name.
    """
    prefactors = {config.get_reparam_name(prefactor): prefactor for prefactor in config.pairs}

    def entries() -> Iterator[tuple[str, FloatArray]]:
        for name, draws in samples.items():
            prefactor = prefactors.get(name)
            if prefactor is None:
                yield name, np.asarray(draws)
                continue
            exponent = _needed(samples, config.pairs[prefactor], prefactor)
            if np.shape(exponent) not in ((), np.shape(draws)):
                raise ConfigError(
                    f"{np.shape(exponent)} is not the shape of {name}, {np.shape(draws)}",
                    where=config.pairs[prefactor],
                )
            log_value = jnp.asarray(draws)
            yield prefactor, np.asarray(reparam_to_physics_jax(log_value, exponent, config.t_ref))

    return unique(entries(), "samples")


def d_offset_to_ratio(d_offset: float, d_ref: float) -> float:
    """Return d_offset / d_ref; 0, with a warning in the log, where d_ref is not positive.

    Args:
        d_offset: Offset of a transport coefficient in Å²/s.
        d_ref: Its power law at the reference time in Å²/s.
    """
    return 0.0 if _is_degenerate(d_ref) else d_offset / d_ref


def ratio_to_d_offset(ratio: float, d_ref: float) -> float:
    """Return ratio * d_ref in Å²/s; 0, with a warning in the log, where d_ref is not positive.

    Args:
        ratio: Offset over power law.
        d_ref: Power law of the transport coefficient at the reference time in Å²/s.
    """
    return 0.0 if _is_degenerate(d_ref) else ratio * d_ref


def _is_degenerate(d_ref: float) -> bool:
    if d_ref <= 0:
        _log.warning("power law %g Å²/s at t_ref: the offset has no ratio to it, 0 is used", d_ref)
        return True
    return False


def heterodyne_offset_ratios_from_physics(
    params: Mapping[str, float], t_ref: float
) -> dict[str, float]:
    """Return the ratios of offset to power law at t_ref, D_offset / (D0 t_ref**alpha).

    A ratio below ``D_OFFSET_RATIO_MIN`` is returned as it is, with a warning in the log: at
    t_ref the model then has a transport coefficient near or at its floor 0.

    Args:
        params: D0, alpha and D_offset of both components by name.
        t_ref: Reference time in s, > 0.

    Returns:
        ``D_offset_ref_ratio`` and ``D_offset_sample_ratio``; 0 where the power law is not
        positive.

    Raises:
        ConfigError: A parameter is missing, or a reference time that is not positive.
    """
    _check_time(t_ref, "t_ref")
    ratios: dict[str, float] = {}
    for key, (prefactor, exponent, offset) in _CHANNELS.items():
        power_law = _power_law(params, prefactor, exponent, t_ref)
        ratios[key] = d_offset_to_ratio(_needed(params, offset, key), power_law)
        if ratios[key] < D_OFFSET_RATIO_MIN:
            _log.warning("%s = %g is below %g", key, ratios[key], D_OFFSET_RATIO_MIN)
    return ratios


def heterodyne_physics_offsets_from_ratios(
    ratios: Mapping[str, float], physics: Mapping[str, float], t_ref: float
) -> dict[str, float]:
    """Return the offsets with given ratios to the power laws at t_ref, in Å²/s.

    Args:
        ratios: ``D_offset_ref_ratio``, ``D_offset_sample_ratio`` or both.
        physics: D0 and alpha of these components by name.
        t_ref: Reference time in s, > 0.

    Returns:
        ``D_offset_ref``, ``D_offset_sample`` or both: one for each ratio.

    Raises:
        ConfigError: An unknown ratio, a missing parameter, or a reference time that is not
            positive.
    """
    _check_time(t_ref, "t_ref")
    offsets: dict[str, float] = {}
    for key, ratio in ratios.items():
        if key not in _CHANNELS:
            raise ConfigError(
                not_known("ratio", key, _CHANNELS), where="ratios", allowed=", ".join(_CHANNELS)
            )
        prefactor, exponent, offset = _CHANNELS[key]
        offsets[offset] = ratio_to_d_offset(ratio, _power_law(physics, prefactor, exponent, t_ref))
    return offsets


def _power_law(params: Mapping[str, float], prefactor: str, exponent: str, t_ref: float) -> float:
    purpose = f"power law {prefactor} t**{exponent}"
    return _needed(params, prefactor, purpose) * t_ref ** _needed(params, exponent, purpose)
