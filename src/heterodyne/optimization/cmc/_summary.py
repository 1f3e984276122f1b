"""Figures of draws by name: means, deviations, intervals and convergence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from heterodyne._errors import DataError
from heterodyne._typing import FloatArray
from heterodyne.optimization.cmc._diagnostics import diagnose

INTERVALS = {"95": (0.025, 0.975), "89": (0.055, 0.945)}
"""Ends of the central intervals, as quantiles, by percentage."""

KINDS = ("r_hat", "ess_bulk", "ess_tail")
"""Names under which results and diagnoses have the figures of convergence."""

# R-hat compares halves of chains, each of two draws at least.
_FEWEST_DRAWS = 4


def by_chain(samples: Mapping[str, Any], num_chains: int) -> dict[str, FloatArray]:
    """Return draws with leading axes (chain, draw); entries that are None are left out.

    Args:
        samples: Draws by name, shape (chains, draws), or (chains * draws,) with one chain
            after the other.
        num_chains: Number of chains of flat draws; 0 counts as 1.

    Raises:
        DataError: Draws that do not fit the number of chains, or each other.
    """
    chains = max(num_chains, 1)
    found: dict[str, FloatArray] = {}
    for name, values in samples.items():
        if values is None:
            continue
        x = np.asarray(values, float)
        if x.ndim == 1 and x.size % chains == 0:
            x = x.reshape(chains, -1)
        if x.ndim != 2:
            raise DataError(
                f"the draws have the shape {x.shape} for {chains} chains",
                where=name,
                allowed="(chains, draws), or (chains * draws,)",
            )
        found[name] = x
    if len({x.shape for x in found.values()}) > 1:
        shapes = ", ".join(f"{name} {x.shape}" for name, x in found.items())
        raise DataError(f"draws of several shapes: {shapes}", allowed="one (chains, draws)")
    return found


def deviation(x: FloatArray) -> float:
    """Standard deviation of draws; NaN for a single one."""
    return float(x.std(ddof=1)) if x.size > 1 else math.nan


def intervals(x: FloatArray) -> dict[str, tuple[float, float]]:
    """Central intervals of draws by percentage."""
    return {
        level: (float(low), float(high))
        for level, (low, high) in ((k, np.quantile(x, ends)) for k, ends in INTERVALS.items())
    }


def narrowest(x: FloatArray, share: float) -> tuple[float, float]:
    """Narrowest interval that holds a share of the draws, its ends draws."""
    ordered = np.sort(x, axis=None)
    inside = max(1, math.ceil(share * ordered.size))
    widths = ordered[inside - 1 :] - ordered[: ordered.size - inside + 1]
    k = int(np.argmin(widths))
    return float(ordered[k]), float(ordered[k + inside - 1])


def moments(draws: Mapping[str, FloatArray]) -> dict[str, Any]:
    """Means, deviations and intervals, under the names that a result has for them."""
    return {
        "posterior_mean": np.array([float(x.mean()) for x in draws.values()]),
        "posterior_std": np.array([deviation(x) for x in draws.values()]),
        "credible_intervals": {name: intervals(x) for name, x in draws.items()},
    }


def mixing(draws: Mapping[str, FloatArray]) -> dict[str, Any]:
    """R-hat and effective numbers of draws, shape (n,) each; NaN for too few draws.

    They stand under the names that a result has for them.
    """
    shape = next((x.shape for x in draws.values()), (0, 0))
    if shape[1] < _FEWEST_DRAWS:
        return {key: np.full(len(draws), np.nan) for key in KINDS}
    found = diagnose(draws, np.full(shape, np.nan), np.zeros(shape))
    return {key: np.array([getattr(found, key)[name] for name in draws]) for key in KINDS}


def status_of(passed: bool) -> str:
    """Word for ``convergence_status``."""
    return "converged" if passed else "not_converged"
