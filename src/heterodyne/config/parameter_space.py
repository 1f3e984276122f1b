"""The parameters of one run: start values, bounds, what varies, and priors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from numbers import Real
from typing import Any

from heterodyne._errors import ConfigError
from heterodyne.config._suggest import not_known
from heterodyne.config.parameter_registry import DEFAULT_REGISTRY, ParameterInfo, ParameterRegistry


class PriorKind(Enum):
    """Families of priors; each is truncated to the bounds of its parameter."""

    NORMAL = "normal"
    LOGNORMAL = "lognormal"
    UNIFORM = "uniform"


PRIOR_WORDS = {
    "normal": PriorKind.NORMAL,
    "truncated_normal": PriorKind.NORMAL,
    "truncatednormal": PriorKind.NORMAL,
    "lognormal": PriorKind.LOGNORMAL,
    "log_normal": PriorKind.LOGNORMAL,
    "uniform": PriorKind.UNIFORM,
}
"""Words for priors in run files, in lower case."""


@dataclass(frozen=True)
class Prior:
    """Prior of one parameter, truncated to its bounds.

    Attributes:
        kind: Family of the distribution.
        mean: Centre (normal) or median (log-normal), in the parameter's unit.
        std: Width in the parameter's unit; a log-normal prior has the scale
            ln(1 + std/mean) in the logarithm.
    """

    kind: PriorKind
    mean: float
    std: float

    @property
    def loc(self) -> float:
        """Centre on the axis on which the prior is normal."""
        return math.log(self.mean) if self.kind is PriorKind.LOGNORMAL else self.mean

    @property
    def scale(self) -> float:
        """Width on the axis on which the prior is normal; infinite if uniform."""
        if self.kind is PriorKind.UNIFORM:
            return math.inf
        if self.kind is PriorKind.LOGNORMAL:
            return math.log1p(self.std / self.mean)
        return self.std

    @classmethod
    def from_config(cls, config: object, default: Prior, where: str) -> Prior:
        """Read ``{type, mean, std}``; what is absent comes from ``default``.

        Raises:
            ConfigError: Unknown family or key, or a width that is not positive.
        """
        if isinstance(config, str):
            config = {"type": config}
        if not isinstance(config, Mapping):
            raise ConfigError(
                f"a prior is {config!r}", where=where, allowed="a mapping with type, mean, std"
            )
        _refuse_unknown(config, ("type", "mean", "std"), where)
        kind = default.kind
        if "type" in config:
            word = str(config["type"]).lower()
            if word not in PRIOR_WORDS:
                raise ConfigError(
                    not_known("prior", config["type"], PRIOR_WORDS),
                    where=f"{where}.type",
                    allowed=", ".join(family.value for family in PriorKind),
                )
            kind = PRIOR_WORDS[word]
        mean = _number(config.get("mean", default.mean), f"{where}.mean")
        std = _number(config.get("std", default.std), f"{where}.std")
        if not std > 0:
            raise ConfigError(f"prior width {std:g}", where=f"{where}.std", allowed="> 0")
        if kind is PriorKind.LOGNORMAL and not mean > 0:
            raise ConfigError(
                f"log-normal prior with median {mean:g}", where=f"{where}.mean", allowed="> 0"
            )
        return cls(kind, mean, std)


@dataclass(frozen=True)
class Parameter:
    """One parameter as a run uses it.

    Attributes:
        info: Its row of the parameter table.
        value: Start value, or the value itself where ``vary`` is false.
        min: Lower bound, in the parameter's unit.
        max: Upper bound.
        vary: Whether it is fitted.
        prior: Its prior, truncated to [min, max].
    """

    info: ParameterInfo
    value: float
    min: float
    max: float
    vary: bool
    prior: Prior

    @classmethod
    def default(cls, info: ParameterInfo) -> Parameter:
        """The parameter as the table has it."""
        kind = PriorKind.LOGNORMAL if info.log_space else PriorKind.NORMAL
        return cls(
            info,
            info.default,
            info.min_bound,
            info.max_bound,
            info.vary_default,
            Prior(kind, info.prior_mean, info.prior_std),
        )

    def updated(self, config: object, where: str) -> Parameter:
        """Apply ``{value, min, max, vary, prior}``, or a bare number as value.

        What is absent stays, except that the value moves to the nearest bound where
        it lies outside new bounds. None changes nothing.

        Raises:
            ConfigError: An unknown key, an empty range, or a value outside it.
        """
        if config is None:
            return self
        if not isinstance(config, Mapping):
            config = {"value": config}
        _refuse_unknown(config, ("value", "min", "max", "vary", "prior"), where)
        vary = config.get("vary", self.vary)
        if not isinstance(vary, bool):
            raise ConfigError(f"vary is {vary!r}", where=f"{where}.vary", allowed="true or false")
        changed = replace(
            self,
            value=_number(config.get("value", self.value), f"{where}.value"),
            min=_number(config.get("min", self.min), f"{where}.min"),
            max=_number(config.get("max", self.max), f"{where}.max"),
            vary=vary,
        )
        if "value" not in config:
            changed = replace(changed, value=min(max(changed.value, changed.min), changed.max))
        if config.get("prior") is not None:
            prior = Prior.from_config(config["prior"], self.prior, f"{where}.prior")
            changed = replace(changed, prior=prior)
        changed.check(where)
        return changed

    def check(self, where: str) -> None:
        """Raise ConfigError unless the bounds are a range that holds the value."""
        unit = f" {self.info.unit}" if self.info.unit else ""
        limits = (self.info.min_bound, self.info.max_bound)
        if not self.min < self.max:
            raise ConfigError(
                f"min {self.min:g} is not below max {self.max:g}{unit}", where=f"{where}.min"
            )
        if self.info.log_space and self.min <= 0:
            raise ConfigError(
                f"min {self.min:g}{unit} of a prefactor that must stay positive",
                where=f"{where}.min",
                allowed=f"> 0{unit}, by default {limits[0]:g} to {limits[1]:g}",
            )
        if not self.min <= self.value <= self.max:
            raise ConfigError(
                f"{self.info.name} = {self.value:g}{unit} lies outside its bounds",
                where=f"{where}.value",
                allowed=f"{self.min:g} to {self.max:g}{unit}",
                remedy="Change the value, or set min and max beside it",
            )
        if self.prior.kind is PriorKind.LOGNORMAL and self.min <= 0:
            raise ConfigError(
                f"a log-normal prior of {self.info.name} with min {self.min:g}{unit}",
                where=f"{where}.prior.type",
                allowed="min > 0 with a log-normal prior",
                remedy="Choose a normal prior, or raise min",
            )


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ConfigError(f"{value!r} is not a number", where=where)
    if not math.isfinite(value):
        raise ConfigError(f"{value!r} is not finite", where=where)
    return float(value)


def _refuse_unknown(config: Mapping[Any, Any], known: tuple[str, ...], where: str) -> None:
    for key in config:
        if key not in known:
            raise ConfigError(not_known("key", key, known), where=where, allowed=", ".join(known))


@dataclass(frozen=True)
class ParameterSpace:
    """All parameters of a run, in canonical order.

    Attributes:
        parameters: Mapping from name to its setting; every name of the table
            occurs.
    """

    parameters: Mapping[str, Parameter] = field(
        default_factory=lambda: {
            name: Parameter.default(info) for name, info in DEFAULT_REGISTRY.items()
        }
    )

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any] | None = None, registry: ParameterRegistry = DEFAULT_REGISTRY
    ) -> ParameterSpace:
        """Build a space from a run file's ``parameters`` section.

        Args:
            config: The section ``{group: {name: {value, min, max, vary, prior}}}``,
                a mapping that has it under ``parameters``, or one without the
                group level. Names that are absent keep the table's row.
            registry: The parameter table.

        Raises:
            ConfigError: An unknown name or key, a name that occurs twice, or a value
                outside its bounds.
        """
        section: Mapping[str, Any] = config or {}
        if "parameters" in section:
            section = section["parameters"] or {}
        parameters = {name: Parameter.default(info) for name, info in registry.items()}
        seen: set[str] = set()
        for name, setting, where in _flatten(section, registry):
            if name in seen:
                raise ConfigError(f"{name} is set twice", where=where, remedy="Keep one of them")
            seen.add(name)
            parameters[name] = parameters[name].updated(setting, where)
        return cls(parameters)

    def __getitem__(self, name: str) -> Parameter:
        return self.parameters[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)

    def __hash__(self) -> int:
        return hash(tuple(self.parameters.values()))

    @property
    def varying_names(self) -> list[str]:
        """Names that are fitted, in canonical order."""
        return [name for name, p in self.parameters.items() if p.vary]

    @property
    def fixed_names(self) -> list[str]:
        """Names that keep their value, in canonical order."""
        return [name for name, p in self.parameters.items() if not p.vary]

    @property
    def values(self) -> dict[str, float]:
        """Start or fixed value of every parameter."""
        return {name: p.value for name, p in self.parameters.items()}

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """(min, max) of every parameter, in its unit."""
        return {name: (p.min, p.max) for name, p in self.parameters.items()}

    @property
    def priors(self) -> dict[str, Any]:
        """NumPyro distribution of every varying parameter (imports NumPyro)."""
        from heterodyne.config._distributions import numpyro_prior

        return {name: numpyro_prior(self.parameters[name]) for name in self.varying_names}

    def with_values(self, values: Mapping[str, float]) -> ParameterSpace:
        """Replace start values; bounds are checked.

        Raises:
            ConfigError: An unknown name, or a value outside its bounds.
        """
        self._check_names(values)
        updated = {
            name: p.updated({"value": float(values[name])}, name) if name in values else p
            for name, p in self.parameters.items()
        }
        return ParameterSpace(updated)

    def fix(self, *names: str) -> ParameterSpace:
        """Hold the named parameters at their present values.

        Raises:
            ConfigError: An unknown name.
        """
        self._check_names(names)
        return ParameterSpace(
            {n: replace(p, vary=p.vary and n not in names) for n, p in self.parameters.items()}
        )

    def without_log_normal_priors(self) -> ParameterSpace:
        """Replace log-normal priors by normal ones of the same centre and width."""

        def linear(p: Parameter) -> Parameter:
            if p.prior.kind is not PriorKind.LOGNORMAL:
                return p
            return replace(p, prior=replace(p.prior, kind=PriorKind.NORMAL))

        return ParameterSpace({name: linear(p) for name, p in self.parameters.items()})

    def _check_names(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.parameters:
                raise ConfigError(
                    not_known("parameter", name, self.parameters), allowed=", ".join(self)
                )


def _flatten(
    section: Mapping[str, Any], registry: ParameterRegistry
) -> Iterator[tuple[str, Any, str]]:
    """Yield name, setting and dotted place of each parameter that a section sets."""
    groups = dict.fromkeys(row.group for row in registry.values())
    for key, entry in section.items():
        if key in registry:
            yield key, entry, f"parameters.{key}"
        elif key not in groups:
            raise _unknown_name(key, (*groups, *registry), "parameters")
        elif not isinstance(entry, Mapping | None):
            raise ConfigError(
                f"the group is {entry!r}",
                where=f"parameters.{key}",
                allowed="a mapping from parameter names to settings",
            )
        else:
            known = tuple(name for name, row in registry.items() if row.group == key)
            for name, setting in (entry or {}).items():
                if name not in known:
                    raise _unknown_name(name, known, f"parameters.{key}")
                yield name, setting, f"parameters.{key}.{name}"


def _unknown_name(name: str, known: tuple[str, ...], where: str) -> ConfigError:
    return ConfigError(not_known("parameter", name, known), where=where, allowed=", ".join(known))
