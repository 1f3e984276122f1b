"""The parameter table: bounds, defaults, priors, units and order of every parameter.

Everything else that needs such a fact derives it from here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from heterodyne._errors import ConfigError


@dataclass(frozen=True)
class ParameterInfo:
    """One row of the parameter table.

    Attributes:
        name: Name used in run files, results and plots.
        default: Value where a run file gives none.
        min_bound: Smallest allowed value.
        max_bound: Largest allowed value.
        description: What the parameter is, in a few words.
        unit: Unit as printed; empty for dimensionless parameters.
        group: Section of the run file that holds the parameter.
        prior_mean: Centre of the default prior.
        prior_std: Width of the default prior.
        log_space: Whether the default prior is log-normal.
        vary_default: Whether the parameter is free where a run file is silent.
    """

    name: str
    default: float
    min_bound: float
    max_bound: float
    description: str
    unit: str
    group: str
    prior_mean: float
    prior_std: float
    log_space: bool = False
    vary_default: bool = True

    @property
    def is_scaling(self) -> bool:
        """Whether there is one value per detector angle."""
        return self.group == "scaling"

    @property
    def is_physical(self) -> bool:
        """Whether the parameter describes the specimen rather than the detector."""
        return not self.is_scaling

    @property
    def is_flow(self) -> bool:
        """Whether the parameter enters the phase between the two components."""
        return self.group in ("velocity", "angle")

    @property
    def log_prior_scale(self) -> float:
        """Scale of the log-normal prior, ln(1 + std/mean)."""
        return math.log1p(self.prior_std / self.prior_mean)


def _transport(component: str, suffix: str) -> tuple[ParameterInfo, ...]:
    return (
        ParameterInfo(
            f"D0_{suffix}", 1e4, 100.0, 1e6,
            f"prefactor of the transport coefficient J of the {component}",
            "Å²/s^(1+alpha)", component, 1e4, 1e4, log_space=True,
        ),
        ParameterInfo(
            f"alpha_{suffix}", 0.0, -5.0, 5.0,
            f"exponent of the transport coefficient J of the {component}",
            "", component, 0.0, 1.0,
        ),
        ParameterInfo(
            f"D_offset_{suffix}", 0.0, -1e5, 1e5,
            f"offset of the transport coefficient J of the {component}",
            "Å²/s", component, 0.0, 1e3,
        ),
    )  # fmt: skip


_TABLE: tuple[ParameterInfo, ...] = (
    *_transport("reference", "ref"),
    *_transport("sample", "sample"),
    ParameterInfo(
        "v0", 1e3, 1e-6, 1e4, "prefactor of the velocity", "Å/s^(1+beta)",
        "velocity", 1e3, 1e3, log_space=True,
    ),
    ParameterInfo("beta", 0.0, -2.0, 2.0, "exponent of the velocity", "", "velocity", 0.0, 1.0),
    ParameterInfo(
        "v_offset", 0.0, -100.0, 100.0, "offset of the velocity", "Å/s", "velocity", 0.0, 25.0
    ),
    ParameterInfo(
        "f0", 0.5, 0.0, 1.0, "amplitude of the sample fraction", "", "fraction", 0.5, 0.25
    ),
    ParameterInfo(
        "f1", 0.0, -10.0, 10.0, "rate of change of the sample fraction", "1/s", "fraction", 0.0, 5.0
    ),
    ParameterInfo(
        "f2", 0.0, -1e4, 1e4, "time origin of the sample fraction", "s", "fraction", 0.0, 1e3
    ),
    ParameterInfo("f3", 0.0, 0.0, 1.0, "offset of the sample fraction", "", "fraction", 0.0, 0.5),
    ParameterInfo(
        "phi0", 0.0, -10.0, 10.0, "angle between flow and detector axis", "deg", "angle", 0.0, 5.0
    ),
    ParameterInfo("contrast", 0.5, 0.0, 1.0, "speckle contrast", "", "scaling", 0.5, 0.25),
    ParameterInfo("offset", 1.0, 0.5, 1.5, "baseline of c2", "", "scaling", 1.0, 0.25),
)  # fmt: skip


class ParameterRegistry(Mapping[str, ParameterInfo]):
    """Ordered, read-only mapping from parameter name to its row.

    Args:
        rows: Rows in canonical order; names must be unique.
    """

    def __init__(self, rows: tuple[ParameterInfo, ...]) -> None:
        self._rows = {row.name: row for row in rows}
        if len(self._rows) != len(rows):
            raise ConfigError("a parameter name occurs twice in the parameter table")

    def __getitem__(self, name: str) -> ParameterInfo:
        try:
            return self._rows[name]
        except KeyError:
            raise KeyError(f"no parameter {name!r}; known: {', '.join(self._rows)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"ParameterRegistry({', '.join(self._rows)})"


DEFAULT_REGISTRY = ParameterRegistry(_TABLE)


def parameter_info(name: str) -> ParameterInfo:
    """Row of the parameter table of an unknown such as ``D0_ref`` or ``contrast_2``.

    Raises:
        KeyError: No parameter of that name.
    """
    if name in DEFAULT_REGISTRY:
        return DEFAULT_REGISTRY[name]
    return DEFAULT_REGISTRY[name.rstrip("0123456789").removesuffix("_")]
