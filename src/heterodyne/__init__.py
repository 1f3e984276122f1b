"""Posteriors of heterodyne XPCS parameters from two-time correlation files.

Names are imported on first use, so that importing the package loads nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heterodyne.config.parameter_space import ParameterSpace
    from heterodyne.core.heterodyne_model import HeterodyneModel
    from heterodyne.data import TwoTimeData, open_two_time, select, write_layout_a
    from heterodyne.optimization.cmc.config import CMCConfig
    from heterodyne.optimization.cmc.core import (
        fit_cmc_jax,
        fit_cmc_multi_phi,
        fit_cmc_sharded,
        fit_mcmc_jax,
    )
    from heterodyne.optimization.cmc.results import CMCResult
    from heterodyne.optimization.nlsq.core import fit_nlsq_jax
    from heterodyne.optimization.nlsq.results import NLSQResult

__version__ = "0.1.0"

__all__ = [
    "open_two_time",
    "select",
    "write_layout_a",
    "TwoTimeData",
    "ParameterSpace",
    "HeterodyneModel",
    "fit_nlsq_jax",
    "NLSQResult",
    "CMCConfig",
    "fit_cmc_multi_phi",
    "fit_cmc_jax",
    "fit_cmc_sharded",
    "fit_mcmc_jax",
    "CMCResult",
]

_HOME = {
    "open_two_time": "data",
    "select": "data",
    "write_layout_a": "data",
    "TwoTimeData": "data",
    "ParameterSpace": "config.parameter_space",
    "HeterodyneModel": "core.heterodyne_model",
    "fit_nlsq_jax": "optimization.nlsq.core",
    "NLSQResult": "optimization.nlsq.results",
    "CMCConfig": "optimization.cmc.config",
    "fit_cmc_multi_phi": "optimization.cmc.core",
    "fit_cmc_jax": "optimization.cmc.core",
    "fit_cmc_sharded": "optimization.cmc.core",
    "fit_mcmc_jax": "optimization.cmc.core",
    "CMCResult": "optimization.cmc.results",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
