"""How precise a posterior is, and how it compares with a least-squares fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from heterodyne._errors import ConfigError, DataError
from heterodyne._log import get_logger
from heterodyne._typing import ArrayLike, FloatArray
from heterodyne.optimization.cmc._summary import deviation, narrowest

if TYPE_CHECKING:
    from heterodyne.optimization.cmc.results import CMCResult

_LOG = get_logger("heterodyne.optimization.cmc.diagnostics")
_HDI = 0.95
_FAR = 3.0
_NARROW = 0.5
_DASH = "–"
# Heads of the report, the keys of each column, of which the first that is there counts,
# and how its figures are written.
_COLUMNS = (
    ("CMC mean", ("cmc_mean", "mean", "posterior_mean"), "{:.5g}"),
    ("CMC std", ("cmc_std", "std", "posterior_std"), "{:.2g}"),
    ("NLSQ", ("nlsq_value",), "{:.5g}"),
    ("z", ("z_score",), "{:.2f}"),
    ("diff", ("relative_diff",), "{:+.1%}"),
    ("ratio", ("uncertainty_ratio",), "{:.2f}x"),
    ("contraction", ("posterior_contraction",), "{:.2f}"),
)
_WIDTH = 12


def compute_posterior_contraction(
    result: CMCResult, prior_std: Mapping[str, float]
) -> dict[str, float]:
    """Compare posterior with prior standard deviations: 1 - posterior / prior.

    Near 1 the data decide, near 0 the prior does; below 0 the posterior is wider than the
    prior, and the model may be wrong.

    Args:
        result: Posterior.
        prior_std: Standard deviation of the prior by parameter, in its unit; those of
            others are not used.

    Returns:
        The contraction of each parameter of the result; NaN without a standard deviation of
        prior or posterior.

    Raises:
        ConfigError: A prior standard deviation that is not positive.
    """
    found = {}
    for name, std in zip(result.parameter_names, result.posterior_std, strict=True):
        prior = float(prior_std.get(name, math.nan))
        if prior <= 0:
            raise ConfigError(
                f"{name} has the prior standard deviation {prior:g}",
                where="prior_std",
                allowed="> 0",
            )
        found[name] = 1.0 - float(std) / prior
    return found


def compute_nlsq_comparison_metrics(
    posterior_samples: Mapping[str, ArrayLike], nlsq_values: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """Compare draws with the values of a least-squares fit.

    Args:
        posterior_samples: Draws by parameter, of any shape.
        nlsq_values: Value of the fit by parameter.

    Returns:
        For each parameter that both have: ``posterior_mean``, ``posterior_std``,
        ``nlsq_value``, ``z_score`` (distance in standard deviations, NaN if those are 0) and
        ``within_hdi`` (1 where the narrowest interval with 95 % of the draws holds the
        value, else 0). What is not known is NaN.

    Raises:
        DataError: A parameter without draws.
    """
    found = {}
    for name, x in _flat(posterior_samples).items():
        if name not in nlsq_values:
            continue
        mean, std, value = float(x.mean()), _deviation(x), float(nlsq_values[name])
        low, high = _interval(x)
        inside = math.nan if math.isnan(low + value) else float(low <= value <= high)
        found[name] = {
            "posterior_mean": mean,
            "posterior_std": std,
            "nlsq_value": value,
            "z_score": abs(value - mean) / std if std > 0 else math.nan,
            "within_hdi": inside,
        }
    return found


def compute_precision_analysis(
    posterior_samples: Mapping[str, ArrayLike],
) -> dict[str, dict[str, float]]:
    """Measure how precisely draws know each parameter.

    Args:
        posterior_samples: Draws by parameter, of any shape.

    Returns:
        By parameter: ``mean``, ``std``, ``cv`` (std over the size of the mean, infinite for
        a mean of 0) and ``hdi_width``, the width of the narrowest interval with 95 % of the
        draws. What is not known is NaN.

    Raises:
        DataError: A parameter without draws.
    """
    found = {}
    for name, x in _flat(posterior_samples).items():
        mean, std = float(x.mean()), _deviation(x)
        low, high = _interval(x)
        found[name] = {
            "mean": mean,
            "std": std,
            "cv": math.inf if mean == 0 else std / abs(mean),
            "hdi_width": high - low,
        }
    return found


def _flat(samples: Mapping[str, ArrayLike]) -> dict[str, FloatArray]:
    flat = {name: np.ravel(np.asarray(values, float)) for name, values in samples.items()}
    empty = [name for name, x in flat.items() if x.size == 0]
    if empty:
        raise DataError(f"no draws of {', '.join(empty)}", where="posterior_samples")
    return flat


def _deviation(x: FloatArray) -> float:
    """Standard deviation; exactly 0 for a constant, of which rounding leaves a rest."""
    return 0.0 if x.size > 1 and np.ptp(x) == 0 else deviation(x)


def _interval(x: FloatArray) -> tuple[float, float]:
    """Narrowest interval with 95 % of the draws; NaN for one draw or draws that are not finite."""
    return narrowest(x, _HDI) if x.size > 1 and np.isfinite(x).all() else (math.nan, math.nan)


def log_precision_analysis(
    analysis: Mapping[str, Mapping[str, float]],
    log_fn: Callable[[str], None] | None = None,
    tolerance_pct: float = 20.0,
) -> str:
    """Write a posterior beside a least-squares fit as a table, and log it.

    Args:
        analysis: Figures by parameter: ``cmc_mean``, ``cmc_std``, ``nlsq_value``,
            ``z_score`` (in posterior standard deviations), ``relative_diff`` (a fraction,
            0.1 for 10 %), ``uncertainty_ratio`` (standard deviation of the posterior over
            that of the fit) and ``posterior_contraction``. Mean and standard deviation are
            also taken under the names of ``compute_precision_analysis`` and
            ``compute_nlsq_comparison_metrics``.
        log_fn: Receives the report; None logs it at INFO.
        tolerance_pct: Largest difference in % without a warning.

    Returns:
        The report. A figure that is absent or NaN is a dash; parameters more than 3 standard
        deviations off, off by more than the tolerance, or with less than half the
        uncertainty of the fit are marked ``[WARN]`` and listed with the reason.
    """
    columns = [[_written(figures, *c[1:]) for c in _COLUMNS] for figures in analysis.values()]
    warnings = {name: list(_doubts(x, tolerance_pct)) for name, x in analysis.items()}
    room = max([len("Parameter"), *map(len, analysis)]) + 2

    def line(name: str, entries: Sequence[str]) -> str:
        return name.ljust(room) + "".join(entry.rjust(_WIDTH) for entry in entries)

    rule = "-" * (room + _WIDTH * len(_COLUMNS))
    report = "\n".join(
        [
            "CMC and NLSQ",
            line("Parameter", [head for head, *_ in _COLUMNS]),
            rule,
            *(
                line(name, entries) + ("  [WARN]" if warnings[name] else "")
                for name, entries in zip(analysis, columns, strict=True)
            ),
            rule,
            *(f"[WARN] {name}: {'; '.join(why)}." for name, why in warnings.items() if why),
        ]
    )
    (_LOG.info if log_fn is None else log_fn)(report)
    return report


def _figure(figures: Mapping[str, float], keys: Sequence[str]) -> float:
    values = [figures[key] for key in keys if figures.get(key) is not None]
    return float(values[0]) if values else math.nan


def _written(figures: Mapping[str, float], keys: Sequence[str], form: str) -> str:
    x = _figure(figures, keys)
    return _DASH if math.isnan(x) else form.format(x)


def _doubts(figures: Mapping[str, float], tolerance_pct: float) -> Iterator[str]:
    """Say where a posterior contradicts the fit; a figure that is not known does not."""
    z = abs(_figure(figures, ["z_score"]))
    difference = 100.0 * abs(_figure(figures, ["relative_diff"]))
    ratio = _figure(figures, ["uncertainty_ratio"])
    if z > _FAR:
        yield f"mean and fit are {z:.1f} standard deviations apart (z > {_FAR:g})"
    if difference > tolerance_pct:
        yield f"mean and fit differ by {difference:.0f}% (|diff| > {tolerance_pct:g}%)"
    if ratio < _NARROW:
        yield f"the posterior has {ratio:.2g} of the uncertainty of the fit (ratio < {_NARROW:g}x)"
