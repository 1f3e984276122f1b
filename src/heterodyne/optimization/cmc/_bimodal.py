"""Whether draws of a parameter have two modes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import gaussian_kde

from heterodyne._errors import ConfigError, DataError
from heterodyne._typing import ArrayLike, FloatArray
from heterodyne.optimization.cmc._statistics import array_stats
from heterodyne.optimization.cmc._summary import by_chain

# Parameters of a normal distribution, and of a mixture of two.
_ONE, _TWO = 2, 5
# Variance, relative to that of all draws, below which no component may shrink: a draw that
# a chain repeats is no mode.
_SMALLEST_VARIANCE = 1e-4
_TOLERANCE, _STARTS, _STEPS = 1e-5, 3, 1000
# The density between two modes falls below this share of the lower of them.
_TROUGH = 0.8
_POINTS = 51
_FEWEST_DRAWS = 8


@dataclass(frozen=True)
class BimodalResult:
    """Whether draws of a parameter have two modes.

    Attributes:
        param_name: The parameter.
        is_bimodal: Whether two normal distributions describe the draws better than one, and
            the draws are rarer between the two than at either.
        bic_unimodal: Bayesian information criterion of one normal distribution; NaN for a
            constant.
        bic_bimodal: That of two.
        delta_bic: ``bic_unimodal - bic_bimodal``, positive in favour of two.
        means: Means of the two, the lower first; None where the draws are not bimodal.
        weights: Their weights; None where the draws are not bimodal.
    """

    param_name: str
    is_bimodal: bool
    bic_unimodal: float
    bic_bimodal: float
    delta_bic: float
    means: tuple[float, float] | None
    weights: tuple[float, float] | None


def detect_bimodal(
    samples: ArrayLike,
    param_name: str,
    bic_threshold: float = 10.0,
    min_weight: float = 0.0,
    min_separation: float = 0.0,
) -> BimodalResult:
    """Fit one and two normal distributions to draws, and compare their BIC.

    Draws of a chain repeat each other, so n draws count as the number m of independent ones
    that are worth as much within the modes: the log likelihood is multiplied by m / n, and
    BIC is k log m - 2 log L (Schwarz, Annals of Statistics 6, 461, 1978) for k parameters.
    Skewed and flat distributions are described better by two normals as well, so the draws
    must also be rarer between them: their density has to fall to 80 % of that of the lower
    mode.

    Args:
        samples: Draws, shape (draws,) or (chains, draws).
        param_name: The parameter.
        bic_threshold: Smallest difference of BIC that counts; 10 is very strong evidence
            (Raftery, Sociological Methodology 25, 111, 1995).
        min_weight: Smallest weight of the lesser mode, 0 to 0.5; with 0, a few outliers far
            away may be a mode.
        min_separation: Smallest distance of the means in standard deviations of all draws.

    Raises:
        ImportError: scikit-learn is not installed.
        ConfigError: A weight or distance outside its range.
        DataError: Draws of another shape, fewer than 8, or ones that are not finite.
    """
    if not 0.0 <= min_weight <= 0.5:
        raise ConfigError(f"{min_weight:g}", where="min_weight", allowed="0 to 0.5")
    if not min_separation >= 0.0:
        raise ConfigError(f"{min_separation:g}", where="min_separation", allowed="0 or more")
    x = _checked(samples, param_name)
    centre, spread = float(x.mean()), float(x.std())
    if np.ptp(x) <= 1e-12 * np.abs(x).max():
        _mixture_class()
        return BimodalResult(param_name, False, math.nan, math.nan, math.nan, None, None)
    z = (x - centre) / spread
    two = _fitted(z, 2)
    unimodal, bimodal = _criteria(z, _fitted(z, 1), two, spread)
    order = np.argsort(two.means_[:, 0])
    means, weights = two.means_[order, 0], two.weights_[order]
    found = (
        unimodal - bimodal > bic_threshold
        and float(weights.min()) >= min_weight
        and float(means[1] - means[0]) >= min_separation
        and _rarer_between(z, means)
    )
    return BimodalResult(
        param_name,
        bool(found),
        unimodal,
        bimodal,
        unimodal - bimodal,
        (centre + spread * float(means[0]), centre + spread * float(means[1])) if found else None,
        (float(weights[0]), float(weights[1])) if found else None,
    )


def _checked(samples: ArrayLike, name: str) -> FloatArray:
    x = by_chain({name: np.asarray(samples, float)}, 1)[name]
    if x.size < _FEWEST_DRAWS:
        raise DataError(f"{x.size} draws", where=name, allowed=f"{_FEWEST_DRAWS} or more")
    if not np.isfinite(x).all():
        raise DataError(
            f"{np.sum(~np.isfinite(x))} of {x.size} draws are not finite",
            where=name,
            allowed="finite numbers",
        )
    return x


def _mixture_class() -> Any:
    try:
        from sklearn.mixture import GaussianMixture
    except ImportError as error:
        raise ImportError(
            "The test for two modes needs scikit-learn. "
            "Install it with: pip install 'heterodyne[diagnostics]'"
        ) from error
    return GaussianMixture


def _fitted(z: FloatArray, components: int) -> Any:
    mixture = _mixture_class()(
        components,
        reg_covar=_SMALLEST_VARIANCE,
        tol=_TOLERANCE,
        n_init=_STARTS,
        max_iter=_STEPS,
        random_state=0,
    )
    with warnings.catch_warnings():
        # A likelihood short of its maximum makes two modes less likely, not more.
        warnings.filterwarnings("ignore", message=".*did not converge.*")
        return mixture.fit(z.reshape(-1, 1))


def _criteria(z: FloatArray, one: Any, two: Any, spread: float) -> tuple[float, float]:
    """BIC of one and of two components, for draws before they were divided by their spread."""
    count = _independent(z, two)
    logs = (mixture.score(z.reshape(-1, 1)) - math.log(spread) for mixture in (one, two))
    unimodal, bimodal = (
        size * math.log(count) - 2.0 * count * log
        for size, log in zip((_ONE, _TWO), logs, strict=True)
    )
    return unimodal, bimodal


def _independent(z: FloatArray, mixture: Any) -> float:
    """Number of independent draws that draws are worth within the components.

    What a chain remembers of the component it is in does not count: chains that rarely
    change between two modes would be worth few draws, and show their modes all the same.
    """
    within = z - (mixture.predict_proba(z.reshape(-1, 1)) @ mixture.means_).reshape(z.shape)
    statistics = array_stats()
    count = float(statistics.ess(within, method="mean"))
    return min(count, float(z.size)) if count >= 1.0 else 1.0


def _rarer_between(z: FloatArray, means: FloatArray) -> bool:
    density = gaussian_kde(z.ravel())(np.linspace(means[0], means[1], _POINTS))
    lowest = int(np.argmin(density))
    lower_mode = min(density[: lowest + 1].max(), density[lowest:].max())
    return bool(density[lowest] < _TROUGH * lower_mode)


def check_shard_bimodality(
    shard_samples: Mapping[int, Mapping[str, ArrayLike]] | Sequence[Mapping[str, ArrayLike]],
    bic_threshold: float = 10.0,
    min_weight: float = 0.0,
    min_separation: float = 0.0,
) -> dict[str, list[BimodalResult]]:
    """Look for two modes in every parameter of every shard.

    Shards that each found another mode are not bimodal here; their means tell them apart.

    Args:
        shard_samples: Draws by parameter of each shard, in a sequence or by shard.
        bic_threshold: As in ``detect_bimodal``.
        min_weight: As in ``detect_bimodal``.
        min_separation: As in ``detect_bimodal``.

    Returns:
        One result per shard, in the order of the shards, by parameter.

    Raises:
        ImportError: scikit-learn is not installed.
        ConfigError: A weight or distance outside its range.
        DataError: Shards with different parameters, or draws that cannot be used.
    """
    shards = in_order(shard_samples)
    found: dict[str, list[BimodalResult]] = {}
    for draws in shards.values():
        for name, x in draws.items():
            result = detect_bimodal(x, name, bic_threshold, min_weight, min_separation)
            found.setdefault(name, []).append(result)
    return found


def in_order(
    shard_samples: Mapping[int, Mapping[str, ArrayLike]] | Sequence[Mapping[str, ArrayLike]],
) -> dict[int, Mapping[str, ArrayLike]]:
    """Return draws by shard, in the order of the shards.

    Raises:
        DataError: Shards with different parameters.
    """
    by_shard = (
        dict(sorted(shard_samples.items()))
        if isinstance(shard_samples, Mapping)
        else dict(enumerate(shard_samples))
    )
    names = [set(draws) for draws in by_shard.values()]
    for shard, own in zip(by_shard, names, strict=True):
        if own != names[0]:
            raise DataError(
                f"shard {shard} differs in {', '.join(sorted(own ^ names[0]))}",
                where="shard_samples",
                allowed="the same parameters in every shard",
            )
    return by_shard
