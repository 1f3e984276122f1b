"""Measures on draws: convergence, divergences, memory of chains and correlation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from heterodyne._errors import ConfigError, DataError
from heterodyne._typing import ArrayLike, FloatArray
from heterodyne.optimization.cmc._criteria import DEFAULT_MAX_DIVERGENCE_RATE, DIVERGENCE_REMEDY
from heterodyne.optimization.cmc._diagnostics import THRESHOLDS, bfmi
from heterodyne.optimization.cmc._statistics import array_stats
from heterodyne.optimization.cmc._summary import by_chain, deviation, mixing

if TYPE_CHECKING:
    from heterodyne.optimization.cmc.results import CMCResult

# Autocorrelations from one draw to the next: below the first, a third or more of the draws
# of a chain that forgets at a steady rate are effective; below the second, one in 19.
_STEADY, _SLOW = 0.5, 0.9


@overload
def compute_r_hat(samples: Mapping[str, ArrayLike]) -> dict[str, float]: ...
@overload
def compute_r_hat(samples: ArrayLike) -> float: ...
def compute_r_hat(samples: Any) -> Any:
    """Rank-normalised split R-hat (Vehtari et al., Bayesian Analysis 16 (2), 667, 2021).

    Args:
        samples: Draws of one quantity, shape (chains, draws), or of several by name.

    Returns:
        R-hat, by name for several. NaN, which is no pass, for a single chain, for fewer
        than 4 draws a chain, for a constant and where draws are not finite.

    Raises:
        DataError: Draws of another shape.
    """
    return _each(samples, "r_hat", fewest_chains=2)


@overload
def compute_ess(samples: Mapping[str, ArrayLike]) -> dict[str, float]: ...
@overload
def compute_ess(samples: ArrayLike) -> float: ...
def compute_ess(samples: Any) -> Any:
    """Bulk effective number of draws (Vehtari et al., Bayesian Analysis 16 (2), 667, 2021).

    Args:
        samples: Draws of one quantity, shape (chains, draws) or (draws,), or of several by
            name.

    Returns:
        The number, by name for several. NaN for fewer than 4 draws a chain, for a constant
        and where draws are not finite.

    Raises:
        DataError: Draws of another shape.
    """
    return _each(samples, "ess_bulk", fewest_chains=1)


def _each(samples: Any, what: str, fewest_chains: int) -> Any:
    if isinstance(samples, Mapping):
        return {name: _measure(name, x, what, fewest_chains) for name, x in samples.items()}
    return _measure("samples", samples, what, fewest_chains)


def _measure(name: str, values: ArrayLike, what: str, fewest_chains: int) -> float:
    x = _chains(name, values)
    if x.shape[0] < fewest_chains or not np.isfinite(x).all():
        return math.nan
    return float(mixing({name: x})[what][0])


def _chains(name: str, values: ArrayLike) -> FloatArray:
    """Draws of one quantity, shape (chains, draws)."""
    return by_chain({name: np.asarray(values, float)}, 1)[name]


def compute_bfmi(energy: ArrayLike) -> FloatArray | float:
    """Energy-based fraction of missing information (Betancourt, arXiv:1604.00695).

    Below 0.3, the sampler does not reach the tails.

    Args:
        energy: Hamiltonian of each draw, shape (chains, draws) or (draws,).

    Returns:
        The fraction of each chain, shape (chains,), or a number for energies of shape
        (draws,); NaN for fewer than 2 draws and for a constant energy.

    Raises:
        DataError: Energies of another shape.
    """
    x = _chains("energy", energy)
    found = np.full(x.shape[0], np.nan)
    varies = np.ptp(x, axis=1) > 0 if x.shape[1] > 1 else np.zeros(x.shape[0], bool)
    if varies.any():
        found[varies] = bfmi(x[varies])
    return found if np.ndim(energy) == 2 else float(found[0])


@dataclass(frozen=True)
class DivergenceReport:
    """Divergent draws of all chains.

    Attributes:
        divergence_rate: Their share of all draws; NaN if it is not known.
        n_divergent: Their number.
        n_total: Number of all draws, 0 if it is not known.
        severity: ``none``; ``low`` up to the share that a verdict allows (0.1 %);
            ``moderate`` up to the share that ``CMCConfig`` allows (10 %); ``severe`` above;
            ``unknown``.
        messages: What was found, by chain where that is known, and what to do.
    """

    divergence_rate: float
    n_divergent: int
    n_total: int
    severity: str
    messages: list[str]


def analyze_divergences(samples: Mapping[str, ArrayLike] | CMCResult) -> DivergenceReport:
    """Count divergent draws.

    Args:
        samples: Draws by name with ``diverging``, shape (chains, draws), or a result. Of a
            result, such flags in an attribute ``extra_fields`` count; without it, its number
            of divergences over that of draws in ``metadata["divergences"]``, or of all chains
            and shards.

    Returns:
        The report. Without flags or numbers of draws, the rate is NaN and the severity
        ``unknown``.

    Raises:
        DataError: Flags of another shape.
    """
    fields = samples if isinstance(samples, Mapping) else getattr(samples, "extra_fields", None)
    if fields is not None and "diverging" in fields:
        flags = _chains("diverging", fields["diverging"]) != 0
        return _divergence_report(int(flags.sum()), flags.size, flags)
    if isinstance(samples, Mapping):
        return _divergence_report(0, 0, None)
    total = samples.num_samples * samples.num_chains * samples.num_shards
    counts = samples.metadata.get("divergences", {})
    if counts.get("divergent") == samples.divergences:
        total = int(counts["draws"])
    return _divergence_report(samples.divergences, total, None)


def _divergence_report(count: int, total: int, flags: Any) -> DivergenceReport:
    if total == 0 or count > total:
        text = "Which draws diverged, or of how many, is not known."
        return DivergenceReport(math.nan, count, 0, "unknown", [text])
    rate = count / total
    messages = [f"{count} of {total} draws diverged ({100.0 * rate:.3g}%)."]
    if flags is not None:
        messages += [
            f"Chain {k}: {int(chain.sum())} of {chain.size} draws ({100.0 * chain.mean():.3g}%)."
            for k, chain in enumerate(flags)
            if chain.any()
        ]
    severity = "none" if count == 0 else "low"
    if rate > THRESHOLDS.divergent_share:
        severity = "moderate" if rate <= DEFAULT_MAX_DIVERGENCE_RATE else "severe"
        messages.append(f"What to do: {DIVERGENCE_REMEDY}.")
    return DivergenceReport(rate, count, total, severity, messages)


def compute_trace_diagnostics(
    samples: ArrayLike, lags: Sequence[int] = (1, 5, 10)
) -> dict[str, Any]:
    """Measure the memory of the chains of one parameter.

    Args:
        samples: Draws, shape (chains, draws) or (draws,).
        lags: Distances of draws, in draws.

    Returns:
        ``autocorr``, the mean autocorrelation of the chains by lag (NaN for a chain that is
        constant or no longer than the lag); ``stationary``, whether that from one draw to
        the next is below 0.5 in size in every chain, which tells short memory and is no
        test of drift (``compute_r_hat`` is); ``mixing_quality`` by the largest of them:
        ``good`` below 0.5, ``moderate`` below 0.9, else, or if one is not known, ``poor``;
        ``n_chains``, ``n_draws``, ``mean`` and ``std``.

    Raises:
        ConfigError: A negative lag.
        DataError: Draws of another shape, or none.
    """
    x = _chains("samples", samples)
    if x.size == 0:
        raise DataError("there are no draws", where="samples")
    negative = [lag for lag in lags if lag < 0]
    if negative:
        raise ConfigError(f"lag {negative[0]} is negative", where="lags", allowed="0 or more")
    chains = np.array([_autocorrelation(chain) for chain in x])
    at = {lag: chains[:, lag] if lag < x.shape[1] else np.array(math.nan) for lag in {1, *lags}}
    largest = float(np.max(np.abs(at[1])))
    quality = "good" if largest < _STEADY else "moderate" if largest < _SLOW else "poor"
    return {
        "autocorr": {int(lag): float(np.mean(at[lag])) for lag in lags},
        "stationary": largest < _STEADY,
        "mixing_quality": quality,
        "n_chains": x.shape[0],
        "n_draws": x.shape[1],
        "mean": float(x.mean()),
        "std": deviation(x),
    }


def _autocorrelation(chain: FloatArray) -> FloatArray:
    """Autocorrelation by lag, shape (draws,) to the same."""
    if not np.isfinite(chain).all() or np.ptp(chain) == 0:
        return np.full(chain.size, math.nan)
    statistics = array_stats()
    return np.asarray(statistics.autocorr(chain), float)


def compute_pair_correlations(samples: Mapping[str, ArrayLike]) -> dict[str, dict[str, float]]:
    """Correlate the draws of every two parameters (Pearson).

    Beyond 0.9 in size, the data tell the two hardly apart.

    Args:
        samples: Draws by name, shape (chains, draws) or (draws,).

    Returns:
        Correlations by name and name, symmetric, 1 for a parameter with itself; NaN beside
        a constant. Empty for fewer than two parameters.

    Raises:
        DataError: Parameters with different numbers of draws.
    """
    if len(samples) < 2:
        return {}
    flat = {name: np.ravel(np.asarray(values, float)) for name, values in samples.items()}
    if len({x.size for x in flat.values()}) > 1:
        counts = ", ".join(f"{name} {x.size}" for name, x in flat.items())
        raise DataError(
            f"different numbers of draws: {counts}", where="samples", allowed="one number"
        )
    centred = np.array([x - x.mean() for x in flat.values()])
    lengths = np.linalg.norm(centred, axis=1)
    rounding = 1e-12 * np.array([np.linalg.norm(x) for x in flat.values()])
    lengths[lengths <= rounding] = math.nan
    units = centred / lengths[:, None]
    found = np.clip(units @ units.T, -1.0, 1.0)
    np.fill_diagonal(found, 1.0)
    return {
        a: dict(zip(flat, row.tolist(), strict=True)) for a, row in zip(flat, found, strict=True)
    }
