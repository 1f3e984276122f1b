"""Start values of a sampling run: their order, their bounds, and room to the bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest

import numpy as np

from heterodyne._errors import ConfigError
from heterodyne._log import get_logger
from heterodyne._typing import ArrayLike, FloatArray
from heterodyne.config._suggest import not_known
from heterodyne.config.parameter_registry import DEFAULT_REGISTRY, ParameterInfo, parameter_info
from heterodyne.optimization.nlsq.results import NLSQResult

_LOG = get_logger(__name__)
_FALLBACKS = ("prior_mean", "default")

BOUNDARY_INTERIOR_MARGIN: float = 0.05
"""Share of the range, or of its logarithm, that start values keep from each bound.

The distance to a bound is sampled in coordinates in which the bound lies at infinity. A chain
that starts next to it starts far out, where the step size of NUTS cannot be found.
"""


def get_param_names_in_order(vary_flags: Mapping[str, bool] | None = None) -> list[str]:
    """Return the names of the parameters that vary, in the order of the parameter table.

    Args:
        vary_flags: Whether a parameter varies, by name. Where a name is absent, or None is
            given, the table decides.

    Raises:
        ConfigError: A name that is not in the table, or a flag that is not true or false.
    """
    varies = {name: row.vary_default for name, row in DEFAULT_REGISTRY.items()}
    for name, flag in (vary_flags or {}).items():
        if name not in varies:
            raise _unknown(name, "vary_flags")
        if not isinstance(flag, bool | np.bool_):
            raise ConfigError(
                f"{name} has {flag!r}", where="vary_flags", allowed="true or false for each name"
            )
        varies[name] = bool(flag)
    return [name for name, flag in varies.items() if flag]


def validate_initial_value_bounds(
    init_values: Mapping[str, float],
    param_specs: Mapping[str, ParameterInfo | tuple[float, float]] | None = None,
) -> dict[str, list[str]]:
    """Say which start values do not lie within their bounds; a bound itself is allowed.

    Args:
        init_values: Start values by name, in the units of the parameters. ``contrast_2``
            and the like have the bounds of ``contrast``.
        param_specs: Rows of a parameter table, or (min, max) as in ``ParameterSpace.bounds``,
            by name; the default table if None.

    Returns:
        Sentences by name; empty where every value lies within its bounds. A value that is
        not finite and a name without bounds are listed too.
    """
    specs = DEFAULT_REGISTRY if param_specs is None else param_specs
    found = {}
    for name, value in init_values.items():
        problem = _outside(name, float(value), specs)
        if problem is not None:
            found[name] = [problem]
    return found


def _outside(
    name: str, value: float, specs: Mapping[str, ParameterInfo | tuple[float, float]]
) -> str | None:
    row = _row_or_none(name)
    spec = specs.get(name)
    if spec is None and row is not None:
        spec = specs.get(row.name)
    if spec is None:
        return f"{not_known('parameter', name, specs)}: its bounds are not known"
    unit = f" {row.unit}" if row is not None and row.unit else ""
    low, high = (spec.min_bound, spec.max_bound) if isinstance(spec, ParameterInfo) else spec
    if low <= value <= high:
        return None
    return f"{name} = {value:g}{unit} is not within its bounds {low:g} to {high:g}{unit}"


def build_init_values_dict(
    nlsq_values: Mapping[str, float] | None = None,
    vary_flags: Mapping[str, bool] | None = None,
    fallback: str = "prior_mean",
) -> dict[str, float]:
    """Choose a start value for every parameter that varies.

    It is the estimate of the fit where that is finite, else the fallback. A value outside the
    bounds of the parameter table is moved to the nearest one; that is logged, and so is an
    estimate that is not used because it is not finite or its name is not in the table.

    Args:
        nlsq_values: Estimates by name, in the units of the parameters. Contrast and offset of
            single angles have no place here.
        vary_flags: As in ``get_param_names_in_order``.
        fallback: What stands in for an estimate: ``prior_mean`` or ``default`` of the table.

    Returns:
        Start values by name, in the order of the table.

    Raises:
        ConfigError: An unknown fallback, or flags that cannot be used.
    """
    if fallback not in _FALLBACKS:
        raise ConfigError(
            not_known("fallback", fallback, _FALLBACKS),
            where="fallback",
            allowed=", ".join(_FALLBACKS),
        )
    estimates = dict(nlsq_values or {})
    unused = [name for name in estimates if name not in DEFAULT_REGISTRY]
    if unused:
        _LOG.warning("No start values are taken from %s.", ", ".join(unused))
    values = {}
    for name in get_param_names_in_order(vary_flags):
        row = DEFAULT_REGISTRY[name]
        value = row.prior_mean if fallback == "prior_mean" else row.default
        if name in estimates:
            if math.isfinite(estimates[name]):
                value = estimates[name]
            else:
                _LOG.warning("%s = %g: it starts at %g.", name, estimates[name], value)
        values[name] = within(name, float(value), row.min_bound, row.max_bound)
    return values


def within(name: str, value: float, low: float, high: float) -> float:
    """Move a value to the nearest bound, with a warning, where it lies outside."""
    inside = min(max(value, low), high)
    if inside != value:
        _LOG.warning(
            "%s = %g is outside its bounds %g to %g: %g is used.", name, value, low, high, inside
        )
    return inside


def validate_init_values_order(
    init_values: Mapping[str, float], expected_names: Sequence[str]
) -> None:
    """Raise an error unless start values have the expected names in the expected order.

    Code that pairs start values with an array relies on it.

    Args:
        init_values: Start values by name.
        expected_names: Names in order.

    Raises:
        ConfigError: Another number of names, or another name at some index.
    """
    found, expected = list(init_values), list(expected_names)
    if found == expected:
        return
    pairs = enumerate(zip_longest(found, expected))
    index, (seen, wanted) = next((k, pair) for k, pair in pairs if pair[0] != pair[1])
    raise ConfigError(
        f"{len(found)} start values for {len(expected)} names: at index {index} "
        f"{_or_nothing(seen)} instead of {_or_nothing(wanted)}; they are {found}",
        where="init_values",
        allowed=f"{expected}, in this order",
    )


def _or_nothing(name: str | None) -> str:
    return "nothing" if name is None else repr(name)


def extract_nlsq_values_for_cmc(
    nlsq_result: NLSQResult,
) -> tuple[dict[str, float], dict[str, float] | None]:
    """Return what a fit found as plain numbers by name.

    Args:
        nlsq_result: A least-squares fit.

    Returns:
        Values, and standard errors or None where the fit has none. Numbers that are not
        finite are left out and logged: an error is infinite where the data leave the
        parameter open.
    """
    names = nlsq_result.parameter_names
    values = _finite(names, nlsq_result.parameters, "values")
    if nlsq_result.uncertainties is None:
        return values, None
    return values, _finite(names, nlsq_result.uncertainties, "standard errors")


def _finite(names: Sequence[str], numbers: ArrayLike, what: str) -> dict[str, float]:
    pairs = dict(zip(names, np.asarray(numbers, float).tolist(), strict=True))
    open_ = [name for name, x in pairs.items() if not math.isfinite(x)]
    if open_:
        _LOG.warning("The fit has no finite %s of %s.", what, ", ".join(open_))
    return {name: x for name, x in pairs.items() if math.isfinite(x)}


def clamp_params_to_interior(
    params: ArrayLike,
    parameter_names: Sequence[str],
    *,
    margin: float = BOUNDARY_INTERIOR_MARGIN,
) -> tuple[FloatArray, list[str]]:
    """Move values that lie next to a bound of the parameter table away from it.

    With the bounds a and b and the margin m, values stay within a + m (b - a) and
    b - m (b - a); those of the positive prefactors D0_ref, D0_sample and v0, whose ranges span
    decades, within a (b/a)^m and b (a/b)^m. What is moved is logged.

    Args:
        params: Values in the units of the parameters, shape (n,).
        parameter_names: Their names; ``contrast_2`` and the like have the bounds of
            ``contrast``.
        margin: Share of the range to keep from each bound, from 0 to below 0.5.

    Returns:
        New values, shape (n,), and the names of those that were moved.

    Raises:
        ConfigError: An unknown name, a value that is not finite, another number of names than
            values, or a margin that leaves no room.
    """
    names = list(parameter_names)
    values = np.array(params, float)
    if values.shape != (len(names),):
        raise ConfigError(
            f"values of shape {values.shape} for {len(names)} names",
            where="params",
            allowed=f"({len(names)},)",
        )
    if not 0.0 <= margin < 0.5:
        raise ConfigError(f"margin {margin!r}", where="margin", allowed="0 to below 0.5")
    moved = []
    for k, name in enumerate(names):
        value = _checked(name, float(values[k]), "params")
        low, high = _interior(_row(name, "parameter_names"), margin)
        values[k] = min(max(value, low), high)
        if values[k] != value:
            moved.append(name)
            _LOG.warning(
                "%s = %g is not well within its bounds: it starts at %g.", name, value, values[k]
            )
    return values, moved


def _interior(row: ParameterInfo, margin: float) -> tuple[float, float]:
    low, high = row.min_bound, row.max_bound
    if row.log_space and low > 0:
        return low * (high / low) ** margin, high * (low / high) ** margin
    return low + margin * (high - low), high - margin * (high - low)


def clamp_to_interior(
    result: NLSQResult,
    fixed_param_overrides: Mapping[str, float] | None = None,
    *,
    margin: float = BOUNDARY_INTERIOR_MARGIN,
) -> NLSQResult:
    """Turn the values of a fit into start values.

    A fit may have been made with other settings. Parameters that are now held take the value
    they are held at, also where it lies at a bound; all others are moved away from the bounds
    of the parameter table as in ``clamp_params_to_interior``.

    Args:
        result: A least-squares fit.
        fixed_param_overrides: Values of the parameters that are held, by name; ``contrast``
            and ``offset`` apply to every angle.
        margin: Share of the range to keep from each bound, from 0 to below 0.5.

    Returns:
        ``result`` itself where nothing had to change. Else a copy in which only the values
        differ; its errors and residuals still are those of the fit, and
        ``details["before_clamping"]`` holds the values of the fit that were replaced.

    Raises:
        ConfigError: An unknown name, a value that is not finite, or a margin that leaves no
            room.
    """
    held = _held(fixed_param_overrides or {})
    before = result.as_dict()
    after = {name: held.get(name, held.get(_base(name), x)) for name, x in before.items()}
    free = [n for n in result.parameter_names if n not in held and _base(n) not in held]
    inside, _ = clamp_params_to_interior([before[n] for n in free], free, margin=margin)
    after |= dict(zip(free, inside.tolist(), strict=True))
    changed = {name: value for name, value in before.items() if after[name] != value}
    if not changed:
        return result
    for name in (n for n in changed if n not in free):
        _LOG.warning(
            "The fit has %s = %g, which is held at %g now.", name, before[name], after[name]
        )
    return replace(
        result,
        parameters=np.array([after[name] for name in result.parameter_names]),
        fixed_parameters={name: after[name] for name in result.fixed_parameters},
        details={**result.details, "before_clamping": changed},
    )


def _held(overrides: Mapping[str, float]) -> dict[str, float]:
    where = "fixed_param_overrides"
    for name in overrides:
        _row(name, where)
    return {name: _checked(name, float(x), where) for name, x in overrides.items()}


def _checked(name: str, value: float, where: str) -> float:
    if not math.isfinite(value):
        raise ConfigError(f"{name} = {value!r}", where=where, allowed="finite values")
    return value


def _row_or_none(name: str) -> ParameterInfo | None:
    try:
        return parameter_info(name)
    except KeyError:
        return None


def _base(name: str) -> str:
    row = _row_or_none(name)
    return name if row is None else row.name


def _row(name: str, where: str) -> ParameterInfo:
    row = _row_or_none(name)
    if row is None:
        raise _unknown(name, where)
    return row


def _unknown(name: str, where: str) -> ConfigError:
    return ConfigError(
        not_known("parameter", name, DEFAULT_REGISTRY),
        where=where,
        allowed=", ".join(DEFAULT_REGISTRY),
    )
