"""Names of the parameters in canonical order, derived from the parameter table."""

from __future__ import annotations

from heterodyne.config.parameter_registry import DEFAULT_REGISTRY

ALL_PARAM_NAMES: tuple[str, ...] = tuple(DEFAULT_REGISTRY)
PHYSICS_PARAM_NAMES: tuple[str, ...] = tuple(
    name for name, row in DEFAULT_REGISTRY.items() if row.is_physical
)
SCALING_PARAM_NAMES: tuple[str, ...] = tuple(
    name for name, row in DEFAULT_REGISTRY.items() if row.is_scaling
)
PARAM_GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(name for name, row in DEFAULT_REGISTRY.items() if row.group == group)
    for group in dict.fromkeys(row.group for row in DEFAULT_REGISTRY.values())
}
