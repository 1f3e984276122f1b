"""Sampling again with smaller steps while too many draws diverge."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from heterodyne._errors import ConfigError
from heterodyne._log import get_logger
from heterodyne.optimization.cmc._nuts_sampler import NUTSSampler, Samples
from heterodyne.optimization.cmc._run_health import DIVERGENCE_RATE_HIGH, SamplingStats

_log = get_logger(__name__)

LARGEST_TARGET = 0.99
"""Largest acceptance probability that a retry aims at."""


def run_nuts_with_retry(
    sampler: NUTSSampler,
    model_fn: Callable[..., Any],
    model_kwargs: Mapping[str, Any] | None,
    max_retries: int = 3,
    target_accept_increment: float = 0.05,
    *,
    step_size_factor: float | None = None,
) -> tuple[Samples, SamplingStats]:
    """Sample, and sample again with smaller steps while more than 5 % of draws diverge.

    Every retry raises the target acceptance probability, up to 0.99, and keeps the other
    settings and the seed. There is none where it could not change anything: at 0.99, or
    with a step size that is not adapted. All that happens is logged.

    Args:
        sampler: Sampler of the first attempt.
        model_fn: Its model, which has no state.
        model_kwargs: Arguments of the model in every attempt; None for none.
        max_retries: Largest number of further attempts.
        target_accept_increment: Step of the target, between 0 and 0.5.
        step_size_factor: Deprecated; stands for an increment of (1 - factor) * 0.1.

    Returns:
        Draws by site and summary of the attempt with the smallest share of divergent
        draws. It may still be bad: look at ``is_healthy``.

    Raises:
        ConfigError: An argument is outside its limits, the model is not that of the
            sampler, or does not take the arguments.
        SamplingError: An attempt fails.
    """
    if step_size_factor is not None:
        target_accept_increment = (1.0 - step_size_factor) * 0.1
        warnings.warn(
            f"step_size_factor={step_size_factor} is deprecated; "
            f"use target_accept_increment={target_accept_increment:g}",
            DeprecationWarning,
            stacklevel=2,
        )
    kwargs = dict(model_kwargs or {})
    _check_retry(sampler, model_fn, kwargs, max_retries, target_accept_increment)
    attempts = _attempts(sampler, model_fn, kwargs, max_retries, target_accept_increment)
    best = min(attempts, key=lambda attempt: attempt[1].divergence_rate)
    if not best[1].is_healthy:
        _log.warning(
            "the best attempt is not healthy (%.1f %% of draws diverged, mean acceptance "
            "%.2f); do not rely on its draws",
            100.0 * best[1].divergence_rate,
            best[1].mean_accept_prob,
        )
    return best


def _attempts(
    sampler: NUTSSampler,
    model_fn: Callable[..., Any],
    model_kwargs: Mapping[str, Any],
    max_retries: int,
    increment: float,
) -> Iterator[tuple[Samples, SamplingStats]]:
    for attempt in range(1, max_retries + 2):
        samples, stats = sampler._sample(None, None, model_kwargs), sampler.stats
        yield samples, stats
        if stats.divergence_rate <= DIVERGENCE_RATE_HIGH or attempt > max_retries:
            return
        careful = _more_careful(sampler, model_fn, increment)
        if careful is None:
            return
        _log.warning(
            "attempt %d of %d: %.1f %% of draws diverged at a target acceptance of %.3g; "
            "sampling again at %.3g",
            attempt,
            max_retries + 1,
            100.0 * stats.divergence_rate,
            sampler.plan.target_accept,
            careful.plan.target_accept,
        )
        sampler = careful


def _more_careful(
    sampler: NUTSSampler, model_fn: Callable[..., Any], increment: float
) -> NUTSSampler | None:
    """Return a sampler that takes smaller steps; None where there is none, with a warning."""
    plan = sampler.plan
    target = min(LARGEST_TARGET, plan.target_accept + increment)
    if not plan.adapt_step_size or target <= plan.target_accept:
        _log.warning(
            "no further attempt: %s",
            f"the target acceptance is {plan.target_accept:.3g} already"
            if plan.adapt_step_size
            else "the step size is not adapted, so that a target acceptance has no effect",
        )
        return None
    plan = replace(plan, target_accept=target, seed=plan.effective_seed)
    return NUTSSampler.from_plan(plan, model_fn, sampler._strategy)


def _check_retry(
    sampler: NUTSSampler,
    model_fn: Callable[..., Any],
    model_kwargs: Mapping[str, Any],
    max_retries: int,
    increment: float,
) -> None:
    if max_retries < 0:
        raise ConfigError(f"max_retries is {max_retries}", allowed="an integer of at least 0")
    if not 0.0 < increment < 0.5:
        raise ConfigError(
            f"target_accept_increment is {increment:g}", allowed="a number above 0 and below 0.5"
        )
    if sampler.mcmc.sampler.model != model_fn:
        raise ConfigError("it is not the model of the sampler", where="model_fn")
    try:
        inspect.signature(model_fn).bind(**model_kwargs)
    except TypeError as error:
        raise ConfigError(
            f"the model cannot be called with {sorted(model_kwargs)}: {error}",
            where="model_kwargs",
        ) from error
