"""Consensus Monte Carlo: draws from the posterior, and what they are worth.

Names are imported on first use, so that reading settings or results does not load JAX.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heterodyne.optimization.cmc.config import CMCConfig
    from heterodyne.optimization.cmc.core import fit_cmc_multi_phi
    from heterodyne.optimization.cmc.io import load_samples_npz, save_samples_npz
    from heterodyne.optimization.cmc.results import (
        CMCResult,
        ParameterStats,
        cmc_result_summary_table,
        cmc_result_to_arviz,
        compare_cmc_nlsq,
    )

__all__ = [
    "CMCConfig",
    "CMCResult",
    "ParameterStats",
    "fit_cmc_multi_phi",
    "cmc_result_summary_table",
    "cmc_result_to_arviz",
    "compare_cmc_nlsq",
    "save_samples_npz",
    "load_samples_npz",
]

_HOME = {
    "CMCConfig": "config",
    "fit_cmc_multi_phi": "core",
    "save_samples_npz": "io",
    "load_samples_npz": "io",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME.get(name, 'results')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
