"""Whether shards agree: the distances of their means, held against their own errors.

Independent sound shards have means that scatter as their posteriors are wide. Two figures tell more
scatter from that: Cochran's Q, the sum of the squared distances of the K means from their mean
over the squared widths, which follows chi-square with K - 1 degrees of freedom, where many shards
are off; and the distance of one shard from the mean of the others, where one is. Shards disagree
where a figure is larger than sound ones make it in 1 % of runs, both figures of all quantities
together. Nothing is divided by the mean, which may be 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import stats

from heterodyne._errors import SamplingError
from heterodyne._events import EventSink, Message
from heterodyne._typing import FloatArray
from heterodyne.config.cmc import CMCConfig

FALSE_ALARMS = 0.01
"""Share of runs whose shards are sound and nevertheless disagree by these figures."""

_BANDS = "contiguous"
# Widths this small, over the largest mean, are rounding.
_ROUNDING = 1e-12


def distances(shards: Sequence[Mapping[str, FloatArray]]) -> dict[str, float]:
    """Distances between means of shards that their own errors do not explain.

    Args:
        shards: Draws of each shard by name.

    Returns:
        By name, the largest distance of two means in widths of a shard's posterior; 0 where sound
        shards lie as far apart.
    """
    means, variances = (_of_each(shards, f) for f in (np.mean, np.var))
    vary = [n for n, v in variances.items() if _wide(v, means[n])]
    apart = dict.fromkeys(means, 0.0)
    for name in vary if len(shards) > 1 else ():
        m, v = means[name], variances[name]
        if _disagree(m, v, FALSE_ALARMS / len(vary)):
            apart[name] = float(np.ptp(m) / np.sqrt(v.mean()))
    return apart


def _of_each(
    shards: Sequence[Mapping[str, FloatArray]], figure: Callable[[FloatArray], float]
) -> dict[str, FloatArray]:
    return {name: np.array([figure(one[name]) for one in shards]) for name in shards[0]}


def _wide(variances: FloatArray, means: FloatArray) -> bool:
    return bool(np.sqrt(variances.min()) > _ROUNDING * np.abs(means).max())


def _disagree(means: FloatArray, variances: FloatArray, share: float) -> bool:
    """Whether means differ by more than sound shards do in a share of all cases."""
    k = means.size
    if _q(means, variances) > stats.chi2.isf(0.5 * share, k - 1):
        return True
    return bool(_farthest(means, variances) > stats.chi2.isf(0.5 * share / k, 1))


def _q(means: FloatArray, variances: FloatArray) -> float:
    """The smaller of Cochran's Q with equal weights and with those of the variances.

    Skewed posteriors are narrow where their means are small, which the weights take for
    contradictions; equal weights do so where some shards are much wider than others.
    """
    weights = 1.0 / variances
    centre = float(weights @ means / weights.sum())
    equal = float(((means - means.mean()) ** 2).sum() / variances.mean())
    return min(equal, float(weights @ (means - centre) ** 2))


def _farthest(means: FloatArray, variances: FloatArray) -> float:
    """Largest squared distance of a mean from that of the others, over its variance."""
    k = means.size
    others, error = ((x.sum() - x) / (k - 1) for x in (means, variances))
    # A shard that is narrow by chance, or by skewness, is no farther away for that.
    wide = np.maximum(variances, variances.mean()) + error / (k - 1)
    return float(((means - others) ** 2 / wide).max())


def refuse_contradiction(
    apart: Mapping[str, float],
    config: CMCConfig,
    strategy: str,
    *,
    speckles: bool,
    on_event: EventSink,
) -> None:
    """Stop where shards contradict each other, if settings say so.

    Bands of time hold different speckles, so that their values differ by more than independent
    errors explain. Where the residuals show such noise that is told only, since the corrected
    draws, which are to be believed then, come from all pairs.

    Args:
        apart: From ``distances``.
        config: ``heterogeneity_abort`` and ``max_parameter_cv``.
        strategy: How pairs were divided.
        speckles: Whether speckle noise is likely.
        on_event: Receives what is told.

    Raises:
        SamplingError: They contradict each other.
    """
    worst = max(apart, key=lambda name: apart[name])
    if not config.heterogeneity_abort or apart[worst] <= config.max_parameter_cv:
        return
    problem = (
        f"the shards contradict each other: their values of {worst} lie up to {apart[worst]:.2g} "
        "widths of a shard's posterior apart"
    )
    if speckles and strategy == _BANDS:
        text = f"{problem[0].upper()}{problem[1:]}: bands of time hold other speckles."
        on_event(Message(text, "warning"))
        return
    raise SamplingError(
        problem,
        where="max_parameter_cv",
        allowed=f"at most {config.max_parameter_cv:g}",
        remedy="Sample all data in one pass, or divide them by angle_balanced; "
        "heterogeneity_abort: false combines them all the same",
    )
