"""Figures of convergence by name: judged, summed up in words, and what to do about them."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from heterodyne._errors import ConfigError
from heterodyne._log import get_logger
from heterodyne.config.cmc import CMCConfig
from heterodyne.io.files import to_json
from heterodyne.optimization.cmc._convergence import ess_problems, r_hat_problems
from heterodyne.optimization.cmc._diagnostics import THRESHOLDS
from heterodyne.optimization.cmc._summary import status_of

DEFAULT_MAX_RHAT: float = CMCConfig.max_r_hat
"""Largest R-hat that counts as converged."""

DEFAULT_MIN_ESS: int = CMCConfig.min_ess
"""Smallest bulk effective number of draws that counts as converged."""

DEFAULT_MAX_DIVERGENCE_RATE: float = CMCConfig.max_divergence_rate
"""Largest share of divergent draws that counts as converged."""

DIVERGENCE_REMEDY = "raise target_accept_prob towards 0.95 or 0.99"

_LOG = get_logger("heterodyne.optimization.cmc.diagnostics")
_NOT_KNOWN = "not known"
# A number of draws to ask for is rounded up to this.
_ROUND = 100


def check_convergence(
    r_hat: Mapping[str, float],
    ess_bulk: Mapping[str, float],
    divergences: int,
    n_samples: int,
    n_chains: int,
    max_rhat: float = DEFAULT_MAX_RHAT,
    min_ess: float = DEFAULT_MIN_ESS,
    max_divergence_rate: float = DEFAULT_MAX_DIVERGENCE_RATE,
    num_shards: int = 1,
) -> tuple[str, list[str]]:
    """Judge figures of convergence.

    Figures at a limit meet it. What is not known does not: a figure that is NaN or that
    only one of the mappings has, R-hat of a single chain, a rate without draws.

    Args:
        r_hat: R-hat by parameter.
        ess_bulk: Bulk effective number of draws by parameter.
        divergences: Number of divergent draws of all chains and shards.
        n_samples: Draws of each chain.
        n_chains: Chains of each shard.
        max_rhat: Largest R-hat.
        min_ess: Smallest bulk effective number of draws.
        max_divergence_rate: Largest share of divergent draws.
        num_shards: Number of shards.

    Returns:
        ``converged`` or ``not_converged``, and sentences: one per limit that is not met,
        then what is within wider limits than those of a verdict (``Thresholds``).

    Raises:
        ConfigError: Negative numbers, or more divergences than draws.
    """
    names = list(dict.fromkeys([*r_hat, *ess_bulk]))
    rate = divergence_rate(divergences, n_samples, n_chains, num_shards)
    problems = [
        *r_hat_problems(_complete(r_hat, names), n_chains, max_rhat),
        *ess_problems(_complete(ess_bulk, names), "bulk", min_ess),
        *_rate_problems(divergences, rate, max_divergence_rate),
    ]
    remarks = _remarks(_complete(r_hat, names), rate, max_rhat, max_divergence_rate)
    return status_of(not problems), [*problems, *remarks]


def divergence_rate(divergences: int, n_samples: int, n_chains: int, num_shards: int) -> float:
    """Share of divergent draws; NaN without draws.

    Raises:
        ConfigError: Negative numbers, or more divergences than draws.
    """
    counts = {
        "divergences": divergences,
        "n_samples": n_samples,
        "n_chains": n_chains,
        "num_shards": num_shards,
    }
    for where, count in counts.items():
        if count < 0:
            raise ConfigError(f"{count} is negative", where=where, allowed="0 or more")
    total = n_samples * n_chains * num_shards
    if divergences > total > 0:
        raise ConfigError(
            f"{divergences} divergences of {total} draws",
            where="divergences",
            allowed="at most n_samples * n_chains * num_shards",
            remedy="Give the number of shards, and draws of each chain",
        )
    return divergences / total if total else math.nan


def _complete(figures: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """Figures of all names; NaN where there is none."""
    found = {name: figures.get(name) for name in names}
    return {name: math.nan if x is None else float(x) for name, x in found.items()}


def _rate_problems(divergences: int, rate: float, limit: float) -> Iterator[str]:
    if math.isnan(rate):
        yield f"The rate of divergences is {_NOT_KNOWN}: there are no draws."
    elif rate > limit:
        yield f"{divergences} draws diverged, {_percent(rate)} (allowed {_percent(limit)})."


def _remarks(
    r_hat: Mapping[str, float], rate: float, max_rhat: float, max_rate: float
) -> Iterator[str]:
    """Say what is within the limits given but not within those of a verdict."""
    for name, x in r_hat.items():
        if THRESHOLDS.r_hat < x <= max_rhat:
            yield (
                f"R-hat of {name} is {x:.3f}: within {max_rhat:g}, but chains that agree reach "
                f"{THRESHOLDS.r_hat:g}."
            )
    if THRESHOLDS.divergent_share < rate <= max_rate:
        yield (
            f"{_percent(rate)} of the draws diverged: within {_percent(max_rate)}, but more "
            f"than {_percent(THRESHOLDS.divergent_share)} may bias the posterior."
        )


def _percent(share: float) -> str:
    return f"{100.0 * share:.4g}%"


def create_diagnostics_dict(
    r_hat: Mapping[str, float],
    ess_bulk: Mapping[str, float],
    ess_tail: Mapping[str, float],
    divergences: int,
    convergence_status: str,
    warnings: Sequence[str],
    n_chains: int,
    n_warmup: int,
    n_samples: int,
    warmup_time: float | None,
    sampling_time: float | None,
    num_shards: int = 1,
) -> dict[str, Any]:
    """Gather diagnostics in values that JSON holds.

    Args:
        r_hat: R-hat by parameter.
        ess_bulk: Bulk effective number of draws by parameter.
        ess_tail: Tail effective number of draws by parameter.
        divergences: Number of divergent draws of all chains and shards.
        convergence_status: Word of ``check_convergence``.
        warnings: Sentences to keep.
        n_chains: Chains of each shard.
        n_warmup: Warm-up steps of each chain.
        n_samples: Draws of each chain.
        warmup_time: Time of warm-up in s.
        sampling_time: Time of sampling in s.
        num_shards: Number of shards.

    Returns:
        The arguments under their names, and ``divergence_rate``. Figures that are not
        finite are None.

    Raises:
        ConfigError: Negative numbers, or more divergences than draws.
    """
    document = {
        "convergence_status": convergence_status,
        "warnings": list(warnings),
        "r_hat": r_hat,
        "ess_bulk": ess_bulk,
        "ess_tail": ess_tail,
        "divergences": divergences,
        "divergence_rate": divergence_rate(divergences, n_samples, n_chains, num_shards),
        "n_chains": n_chains,
        "n_warmup": n_warmup,
        "n_samples": n_samples,
        "num_shards": num_shards,
        "warmup_time": warmup_time,
        "sampling_time": sampling_time,
    }
    return json.loads(to_json(document))


def summarize_diagnostics(
    r_hat: Mapping[str, float],
    ess_bulk: Mapping[str, float],
    divergences: int,
    n_samples: int,
    n_chains: int,
    num_shards: int = 1,
) -> str:
    """Sum diagnostics up in one line, with the number of figures that are not known.

    Args:
        r_hat: R-hat by parameter.
        ess_bulk: Bulk effective number of draws by parameter.
        divergences: Number of divergent draws of all chains and shards.
        n_samples: Draws of each chain.
        n_chains: Chains of each shard.
        num_shards: Number of shards.

    Raises:
        ConfigError: Negative numbers, or more divergences than draws.
    """
    names = list(dict.fromkeys([*r_hat, *ess_bulk]))
    rate = divergence_rate(divergences, n_samples, n_chains, num_shards)
    share = f"rate {_NOT_KNOWN}" if math.isnan(rate) else f"{100.0 * rate:.1f}%"
    return (
        f"Diagnostics: R-hat(max)={_worst(_complete(r_hat, names), 1, '.3f')}, "
        f"ESS(min)={_worst(_complete(ess_bulk, names), -1, '.0f')}, "
        f"divergences={divergences} ({share})"
    )


def _worst(figures: Mapping[str, float], sign: int, digits: str) -> str:
    known = [x for x in figures.values() if not math.isnan(x)]
    if not known:
        return _NOT_KNOWN
    unknown = len(figures) - len(known)
    more = f" ({unknown} {_NOT_KNOWN})" if unknown else ""
    return f"{sign * max(sign * x for x in known):{digits}}{more}"


def get_convergence_recommendations(
    max_rhat: float,
    min_ess: float,
    divergences: int,
    n_samples: int,
    n_chains: int,
    num_shards: int = 1,
) -> list[str]:
    """Say what to change so that a verdict accepts the draws (limits of ``Thresholds``).

    Args:
        max_rhat: Largest R-hat of all parameters.
        min_ess: Smallest effective number of draws of all parameters.
        divergences: Number of divergent draws of all chains and shards.
        n_samples: Draws of each chain.
        n_chains: Chains of each shard.
        num_shards: Number of shards.

    Returns:
        One text per criterion that is not met or not known, with its figure.

    Raises:
        ConfigError: Negative numbers, or more divergences than draws.
    """
    rate = divergence_rate(divergences, n_samples, n_chains, num_shards)
    return [
        *_about_r_hat(max_rhat, n_samples, n_chains, num_shards),
        *_about_ess(min_ess, n_samples),
        *_about_divergences(divergences, rate, num_shards),
    ]


def _about_r_hat(r_hat: float, n_samples: int, n_chains: int, num_shards: int) -> Iterator[str]:
    limit = THRESHOLDS.r_hat
    if n_chains < 2:
        yield f"R-hat cannot be known with {n_chains} chain: set num_chains to 2 or more."
    elif math.isnan(r_hat):
        yield f"R-hat is {_NOT_KNOWN} (allowed {limit:g}): look for draws that are not finite."
    elif r_hat > limit:
        shards = f", or have fewer and larger shards than {num_shards}" if num_shards > 1 else ""
        yield (
            f"The largest R-hat is {r_hat:.3f} (allowed {limit:g}): raise num_samples from "
            f"{n_samples}{shards}; num_warmup helps where it is below 400, or with NUTSSampler. "
            "If it stays, chains are in several modes, or parameters are not informed: narrow "
            "bounds or priors, or fix parameters."
        )


def _about_ess(ess: float, n_samples: int) -> Iterator[str]:
    limit = THRESHOLDS.ess
    if math.isnan(ess):
        yield f"Effective draws are {_NOT_KNOWN} (needed {limit:g}): draw at least 4 a chain."
    elif ess < limit:
        enough = math.ceil(n_samples * limit / max(ess, 1.0) / _ROUND) * _ROUND
        yield (
            f"The fewest effective draws are {ess:.0f} (needed {limit:g}): raise num_samples "
            f"from {n_samples} to about {enough}."
        )


def _about_divergences(divergences: int, rate: float, num_shards: int) -> Iterator[str]:
    limit = THRESHOLDS.divergent_share
    if math.isnan(rate):
        yield f"The rate of divergences is {_NOT_KNOWN}: there are no draws."
    elif rate > limit:
        where = f" of {num_shards} shards" if num_shards > 1 else ""
        yield (
            f"{divergences} draws{where} diverged, {_percent(rate)} (allowed {_percent(limit)}): "
            f"{DIVERGENCE_REMEDY}."
        )


def log_analysis_summary(
    convergence_status: str,
    r_hat: Mapping[str, float],
    ess_bulk: Mapping[str, float],
    divergences: int,
    n_samples: int,
    n_chains: int,
    n_shards: int,
    shards_succeeded: int,
    execution_time: float,
) -> None:
    """Log how an analysis went: at INFO where it converged with all shards, else at ERROR.

    Args:
        convergence_status: Word of ``check_convergence``.
        r_hat: R-hat by parameter.
        ess_bulk: Bulk effective number of draws by parameter.
        divergences: Number of divergent draws of all chains and shards that succeeded.
        n_samples: Draws of each chain.
        n_chains: Chains of each shard.
        n_shards: Number of shards.
        shards_succeeded: Number of shards that have draws.
        execution_time: Time of the analysis in s.

    Raises:
        ConfigError: Negative numbers, or more divergences than draws.
    """
    missing = n_shards - shards_succeeded
    well = convergence_status == status_of(True) and missing == 0
    level = logging.INFO if well else logging.ERROR
    figures = summarize_diagnostics(
        r_hat, ess_bulk, divergences, n_samples, n_chains, shards_succeeded
    )
    _LOG.log(level, "CMC analysis: %s after %.1f s", convergence_status, execution_time)
    _LOG.log(level, "%s", figures)
    _LOG.log(level, "Shards: %d of %d have draws", shards_succeeded, n_shards)
    if missing:
        _LOG.log(level, "Shards whose data are not in the posterior: %d", missing)
