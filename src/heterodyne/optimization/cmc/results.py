"""Result of a Consensus Monte Carlo analysis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

import numpy as np
import xarray

from heterodyne._errors import DataError
from heterodyne._typing import ArrayLike, FloatArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.optimization.cmc import _table
from heterodyne.optimization.cmc._convergence import validate_convergence
from heterodyne.optimization.cmc._convert import cmc_result_to_arviz, compare_cmc_nlsq
from heterodyne.optimization.cmc._merge import merge_shard_cmc_results
from heterodyne.optimization.cmc._summary import (
    by_chain,
    deviation,
    mixing,
    moments,
    narrowest,
    status_of,
)

__all__ = [
    "CMCResult",
    "ParameterStats",
    "cmc_result_summary_table",
    "cmc_result_to_arviz",
    "compare_cmc_nlsq",
    "merge_shard_cmc_results",
]

_HDI = 0.9
_DIAGNOSTICS = ("r_hat", "ess_bulk", "ess_tail")


class ParameterStats(dict[str, float]):
    """Figures by name, which an integer finds by position as well.

    Args:
        ordered_names: Names in order.
        values: One figure for each.

    Raises:
        ValueError: There are more of one than of the other.
    """

    def __init__(self, ordered_names: Iterable[str], values: ArrayLike) -> None:
        figures = np.asarray(values, float).tolist()
        super().__init__(zip(ordered_names, figures, strict=True))

    def __getitem__(self, key: str | int) -> float:
        if isinstance(key, int | np.integer):
            return list(self.values())[key]
        return super().__getitem__(key)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self), list(self.values()))

    @property
    def as_array(self) -> FloatArray:
        """The figures in order, shape (n,)."""
        return np.array(list(self.values()), float)


@dataclass(eq=False, repr=False)
class CMCResult:
    """Result of a Consensus Monte Carlo analysis.

    Means, deviations, intervals, draws and diagnostics are those to believe: corrected for
    speckle noise where that is likely. Those of independent pairs then stand in
    ``metadata["plain"]``; why, in ``metadata["verdict"]``.

    Attributes:
        parameter_names: Varying physics parameters, then contrasts and offsets.
        posterior_mean: Posterior means in that order, shape (n,).
        posterior_std: Posterior standard deviations, shape (n,).
        credible_intervals: Central intervals by name and percentage, ``95`` and ``89``.
        convergence_passed: Whether the limits of the configuration were reached.
        r_hat: Rank-normalised split R-hat, shape (n,).
        ess_bulk: Bulk effective numbers of draws, shape (n,).
        ess_tail: Tail effective numbers of draws, shape (n,).
        bfmi: Energy-based fraction of missing information of each chain; where draws of shards
            were combined, the worst of all their chains for each.
        samples: Draws by name, shape (chains, draws); ``sigma`` among them.
        map_estimate: Mode of the density of the sampling coordinates, shape (n,).
        num_warmup: Warm-up steps of each chain, or of each chain of the shards whose draws were
            combined; 0 for draws without any.
        num_samples: Draws of each chain.
        num_chains: Number of chains.
        num_shards: Number of shards.
        divergences: Number of divergent draws.
        wall_time_seconds: Time of sampling in s.
        metadata: Verdict, plain intervals and what else is known.
        convergence_status: ``converged`` or ``not_converged``.
        warmup_time: Time of warm-up in s; None where it was not measured.
        per_angle_mode: How contrast and offset depend on the angle.
        chi_squared: Sum of squared residuals of the fit over the variance that
            neighbouring pairs do not share.
        quality_flag: ``good`` where both the limits of the configuration and those of
            the verdict were reached, ``marginal`` where one of them was, else ``poor``.
        mean_contrast: Posterior mean of the contrast of each angle, shape (n_angles,).
        std_contrast: Its standard deviation, 0 where it is held.
        mean_offset: Posterior mean of the offset of each angle, shape (n_angles,).
        std_offset: Its standard deviation, 0 where it is held.
        inference_data: Draws as ArviZ groups.
    """

    parameter_names: list[str]
    posterior_mean: FloatArray
    posterior_std: FloatArray
    credible_intervals: dict[str, dict[str, tuple[float, float]]]
    convergence_passed: bool
    r_hat: FloatArray | None = None
    ess_bulk: FloatArray | None = None
    ess_tail: FloatArray | None = None
    bfmi: Sequence[float] | FloatArray | None = None
    samples: dict[str, FloatArray] | None = None
    map_estimate: FloatArray | None = None
    num_warmup: int = 0
    num_samples: int = 0
    num_chains: int = 0
    num_shards: int = 1
    divergences: int = 0
    wall_time_seconds: float | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    convergence_status: str = "not_converged"
    warmup_time: float | None = None
    per_angle_mode: str = "auto"
    chi_squared: float | None = None
    quality_flag: str | None = None
    mean_contrast: FloatArray | None = None
    std_contrast: FloatArray | None = None
    mean_offset: FloatArray | None = None
    std_offset: FloatArray | None = None
    inference_data: xarray.DataTree | None = None

    def __repr__(self) -> str:
        quality = "" if self.quality_flag is None else f", {self.quality_flag}"
        return (
            f"CMCResult({self.n_params} parameters, {self.num_chains} chains of "
            f"{self.num_samples} draws, {self.convergence_status}{quality})"
        )

    def __str__(self) -> str:
        parts = [*_table.headlines(self), _table.text_table(self)]
        if self.metadata.get("plain"):
            parts += [_table.PLAIN, _table.text_table(plain_result(self))]
        return "\n\n".join(parts)

    def _repr_html_(self) -> str:
        first, *others = _table.headlines(self)
        parts = [f"<strong>{escape(first)}</strong>", *map(escape, others)]
        html = "".join(f"<p>{part}</p>" for part in parts) + _table.html_table(self)
        if self.metadata.get("plain"):
            html += f"<p>{_table.PLAIN}</p>{_table.html_table(plain_result(self))}"
        return html

    @property
    def n_params(self) -> int:
        """Number of parameters."""
        return len(self.parameter_names)

    @property
    def parameters(self) -> FloatArray:
        """Posterior means."""
        return self.posterior_mean

    @property
    def uncertainties(self) -> FloatArray:
        """Posterior standard deviations."""
        return self.posterior_std

    def _index(self, name: str) -> int:
        try:
            return self.parameter_names.index(name)
        except ValueError:
            known = ", ".join(self.parameter_names)
            raise KeyError(f"{name!r} was not sampled; sampled: {known}") from None

    def get_param_summary(self, name: str) -> dict[str, Any]:
        """Return mean, std, intervals, r_hat, ess_bulk and ess_tail of a parameter.

        Intervals are (low, high) under their percentage; a diagnostic that was not
        measured is NaN.

        Raises:
            KeyError: No parameter of that name.
        """
        k = self._index(name)
        return {
            "mean": float(self.posterior_mean[k]),
            "std": float(self.posterior_std[k]),
            **self.credible_intervals.get(name, {}),
            "r_hat": _entry(self.r_hat, k),
            "ess_bulk": _entry(self.ess_bulk, k),
            "ess_tail": _entry(self.ess_tail, k),
        }

    def get_samples(self, name: str) -> FloatArray | None:
        """Return the draws of a parameter or of sigma; None where they were not kept.

        Raises:
            KeyError: No parameter of that name.
        """
        samples = self.samples or {}
        if name not in samples:
            self._index(name)
        return samples.get(name)

    def validate_convergence(
        self, r_hat_threshold: float = 1.1, min_ess: float = 100, min_bfmi: float = 0.3
    ) -> list[str]:
        """Compare the diagnostics with limits.

        Returns:
            The messages of ``diagnostics.validate_convergence``: one sentence per problem,
            empty if there is none.
        """
        return validate_convergence(self, r_hat_threshold, min_ess, min_bfmi).messages

    def get_samples_array(self) -> FloatArray:
        """Return all draws, shape (chains, draws, n); NaN where draws are missing.

        Raises:
            DataError: Draws that do not fit the number of chains, or each other.
        """
        found = self._draws()
        shape = next((x.shape for x in found.values()), (self.num_chains, self.num_samples))
        missing = np.full(shape, np.nan)
        columns = [found.get(name, missing) for name in self.parameter_names]
        return np.stack(columns, axis=-1) if columns else np.zeros((*shape, 0))

    def _draws(self) -> dict[str, FloatArray]:
        samples = self.samples or {}
        return by_chain({name: samples.get(name) for name in self.parameter_names}, self.num_chains)

    def get_posterior_stats(self) -> dict[str, dict[str, float]]:
        """Return mean, std, median, hdi_5%, hdi_95%, r_hat, ess_bulk and ess_tail by name.

        ``hdi_5%`` and ``hdi_95%`` are the ends of the narrowest interval that holds 90 %
        of the draws. Parameters without draws are left out; diagnostics that the result
        does not hold are measured on the draws.

        Raises:
            DataError: Draws that do not fit the number of chains, or each other.
        """
        draws = self._draws()
        held = {what: getattr(self, what) for what in _DIAGNOSTICS}
        measured = mixing(draws) if any(x is None for x in held.values()) else {}
        stats = {}
        for k, (name, x) in enumerate(draws.items()):
            low, high = narrowest(x, _HDI)
            at = self._index(name)
            stats[name] = {
                "mean": float(x.mean()),
                "std": deviation(x),
                "median": float(np.median(x)),
                "hdi_5%": low,
                "hdi_95%": high,
            } | {
                what: float(measured[what][k] if values is None else values[at])
                for what, values in held.items()
            }
        return stats

    @classmethod
    def from_mcmc_samples(
        cls,
        mcmc_samples: Any,
        stats: Any,
        analysis_mode: str = "static",
        n_warmup: int = 500,
        min_ess: float | None = None,
    ) -> CMCResult:
        """Build a result from draws, and measure their convergence.

        Whether it passed is decided by the limits of ``CMCConfig`` on R-hat, effective draws
        and divergences; the energy, and with it BFMI, is not known.

        Args:
            mcmc_samples: Has ``samples`` (draws by name), ``param_names``, ``n_chains``
                and ``n_samples`` (draws of each chain).
            stats: Has ``num_divergent``, and may have ``wall_time`` and ``warmup_time`` in s.
            analysis_mode: Kept in ``metadata``.
            n_warmup: Warm-up steps of each chain.
            min_ess: Effective draws that a converged run needs, in place of the usual limit.

        Raises:
            DataError: Draws that do not fit the number of chains, or no draws of a name.
        """
        names, chains = list(mcmc_samples.param_names), int(mcmc_samples.n_chains)
        samples = by_chain(mcmc_samples.samples, chains)
        missing = [name for name in names if name not in samples]
        if missing:
            raise DataError(f"no draws of {', '.join(missing)}", where="mcmc_samples.samples")
        draws = {name: samples[name] for name in names}
        count, measured = int(mcmc_samples.n_samples), mixing(draws)
        limits, divergences = CMCConfig(), int(stats.num_divergent)
        fewest = limits.min_ess if min_ess is None else min_ess
        passed = bool(
            np.all(measured["r_hat"] <= limits.max_r_hat)
            and np.all(measured["ess_bulk"] >= fewest)
            and np.all(measured["ess_tail"] >= fewest)
            and divergences <= limits.max_divergence_rate * chains * count
        )
        return cls(
            parameter_names=names,
            **moments(draws),
            **measured,
            convergence_passed=passed,
            samples=samples,
            num_warmup=n_warmup,
            num_samples=count,
            num_chains=chains,
            divergences=divergences,
            wall_time_seconds=getattr(stats, "wall_time", None),
            warmup_time=getattr(stats, "warmup_time", None),
            metadata={"analysis_mode": analysis_mode},
            convergence_status=status_of(passed),
        )


def _entry(values: FloatArray | None, k: int) -> float:
    return math.nan if values is None else float(values[k])


def plain_result(result: CMCResult) -> CMCResult:
    """Return a result whose figures are those of independent pairs.

    Args:
        result: One with ``metadata["plain"]``; its draws are left out.
    """
    figures = [result.metadata["plain"][name] for name in result.parameter_names]
    return replace(
        result,
        posterior_mean=np.array([f["mean"] for f in figures]),
        posterior_std=np.array([f["std"] for f in figures]),
        credible_intervals={
            name: {level: f[level] for level in _table.LEVELS}
            for name, f in zip(result.parameter_names, figures, strict=True)
        },
        **{what: np.array([f[what] for f in figures]) for what in _DIAGNOSTICS},
        samples=None,
        inference_data=None,
    )


def cmc_result_summary_table(result: CMCResult, ci_level: str = "95", width: int = 80) -> str:
    """Write the parameters of a result as a table.

    Args:
        result: The result.
        ci_level: Probability of the intervals in percent, ``95`` or ``89``.
        width: Width in characters; gaps and then names are cut to fit.

    Returns:
        Lines with mean, standard deviation, interval, R-hat and bulk effective number of
        draws; N/A where one is not known.

    Raises:
        ConfigError: Another level, or a width in which the figures do not fit.
    """
    return _table.text_table(result, ci_level, width)
