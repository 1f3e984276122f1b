"""Whether to believe the numbers, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from heterodyne.optimization.cmc._combination import (
    CORRECTED,
    SOUND,
    Combination,
    which_failed,
)
from heterodyne.optimization.cmc._diagnostics import THRESHOLDS, Diagnosis, Thresholds
from heterodyne.optimization.cmc._frame import COMPETING
from heterodyne.optimization.cmc._rows import Row
from heterodyne.optimization.sandwich import SpeckleNoise

_NAMED = 6
# Reduced chi-square of independent errors above which the model does not fit.
_MISFIT = 1.2
SYSTEMATIC = 6.0
"""Standard deviations of the means of residuals at each lag above which the model does not fit."""
_STOPPED = "The fit stopped before its steps became small: it may have missed a better minimum."
_GO_ON = "Raise max_iterations or n_starts in optimization.nlsq, and sample again."


@dataclass(frozen=True)
class Verdict:
    """What a user should make of a run.

    Attributes:
        converged: Whether every limit of the draws was reached.
        fits: Whether the residuals are what is left of a model that fits.
        headline: The verdict in one sentence.
        sentences: Why, and what to know.
        advice: What to do.
        believe: Which intervals to use.
    """

    converged: bool
    fits: bool
    headline: str
    sentences: tuple[str, ...]
    advice: tuple[str, ...]
    believe: Literal["plain", "corrected"]

    @property
    def usable(self) -> bool:
        """Whether the numbers can be used."""
        return self.converged and self.fits

    def as_dict(self) -> dict[str, Any]:
        """Return everything by name, for JSON."""
        return asdict(self) | {"usable": self.usable}


def judge(
    rows: Sequence[Row],
    diagnosis: Diagnosis,
    noise: SpeckleNoise,
    *,
    other_minima: Sequence[float] = (),
    reduced_chi_square: float = 1.0,
    fit_ended: bool = True,
    covered: float = 0.0,
    limits: Thresholds = THRESHOLDS,
    combination: Combination | None = None,
) -> Verdict:
    """Judge a run.

    Args:
        rows: The table of results.
        diagnosis: Convergence of the draws.
        noise: What the residuals say about the noise.
        other_minima: Chi-square of other minima of the fit above the best.
        reduced_chi_square: Mean square residual over the variance that neighbouring pairs
            do not share.
        fit_ended: Whether the fit went on until its steps became small.
        covered: Chi-square above the best up to which the draws cover other minima.
        limits: What a converged run must reach.
        combination: What is known about shards, where the draws were combined from some.
    """
    converged = diagnosis.passed(limits)
    corrected = noise.likely and any(row.corrected is not None for row in rows)
    sized = noise.likely or reduced_chi_square <= _MISFIT
    fits = sized and noise.misfit <= SYSTEMATIC
    inflation = max((row.inflation for row in rows if row.identified), default=1.0)
    reach = COMPETING * (inflation**2 if corrected else 1.0)
    left_out = [x for x in other_minima if covered < x <= reach]
    headline = _headline(converged, fits, len(left_out), corrected)
    sentences = (
        *_combination(combination, limits),
        *_convergence(diagnosis, limits),
        *_noise(noise, inflation, reduced_chi_square, corrected),
        *_minima(other_minima, reach, covered),
        *_informed(rows),
        *(() if fit_ended else (_STOPPED,)),
    )
    advice = (
        *_remedies(diagnosis, limits, combination),
        *_checks(left_out, rows, fits=fits),
        *(() if fit_ended else (_GO_ON,)),
    )
    believe = "corrected" if corrected else "plain"
    return Verdict(converged, fits, headline, sentences, advice, believe)


def _headline(converged: bool, fits: bool, n_left_out: int, corrected: bool) -> str:
    if not converged:
        return "Not converged: do not use these numbers."
    if not fits:
        return "The model does not fit: do not use these numbers, though the draws converged."
    if n_left_out:
        intervals = "corrected intervals" if corrected else "intervals"
        return (
            f"Converged around one of {n_left_out + 1} minima: use the {intervals} only if "
            "physics excludes the others."
        )
    if corrected:
        return "Converged. Believe the corrected intervals, not the plain ones."
    return "Converged. The intervals hold for independent errors, which the data support."


def _convergence(d: Diagnosis, limits: Thresholds) -> Iterator[str]:
    who = {0: "groups of walkers", 1: "halves of the one chain"}.get(len(d.bfmi), "chains")
    if d.k_hat is not None:
        who = "independent groups of draws"
    name, r_hat = d.worst_r_hat
    if r_hat <= limits.r_hat:
        yield f"The {who} agree: the largest R-hat is {r_hat:.3f} (allowed {limits.r_hat:g})."
    else:
        yield (f"The {who} disagree: R-hat of {name} is {r_hat:.3f} (allowed {limits.r_hat:g}).")
    for what, (name, ess) in (("bulk", d.worst_ess_bulk), ("tail", d.worst_ess_tail)):
        enough = ess >= limits.ess
        yield (
            f"{'Every quantity has at least' if enough else f'{name} has only'} {ess:.0f} "
            f"effective draws ({what}; needed {limits.ess:g})."
        )
    if d.k_hat is not None and d.kish is not None:
        yield (
            f"Importance weights are {'stable' if d.well_weighted(limits) else 'not stable'}: "
            f"Pareto k-hat {d.k_hat:.2f} (needed below {limits.k_hat:g}), worth {d.kish:.0f} "
            f"independent draws (needed {limits.kish:g})."
        )
    if d.growth is not None and not d.settled(limits):
        yield (
            f"Intervals {'grew' if d.growth > 0 else 'shrank'} by {abs(d.growth):.1%} on average "
            f"while the walkers moved (allowed {limits.growth:.1%}): they still depend on where "
            "the walkers started."
        )
    if d.divergences:
        allowed = d.divergent_share <= limits.divergent_share
        yield (
            f"{d.divergences} of {d.n_draws} draws diverged"
            + (", too few to matter." if allowed else ": the sampler missed a part of the space.")
        )
    if d.bfmi and not d.worst_bfmi >= limits.bfmi:
        yield (
            f"The energy moved too slowly (BFMI {d.worst_bfmi:.2f}, needed {limits.bfmi:g}): "
            "the tails are not explored."
        )


def _combination(c: Combination | None, limits: Thresholds) -> Iterator[str]:
    if c is None:
        return
    yield (
        f"The pairs were divided into {c.sharding.n_shards} shards ({c.sharding.strategy}), whose "
        f"draws were combined ({c.method})."
    )
    if c.failed:
        yield (
            f"{len(c.failed)} of them did not converge and were left out "
            f"({which_failed(c.failed, c.problems)})."
        )
    k_hat = f"Pareto k-hat {c.k_hat:.2f}, needed below {limits.k_hat:g}"
    if c.held == SOUND:
        yield (
            f"Held against all pairs the combination is sound ({k_hat}): weights moved means by at "
            f"most {c.shift:.2f} standard deviations and are included."
        )
    elif c.held == CORRECTED:
        yield (
            f"Held against all pairs the combination is not sound ({k_hat}): its means are off by "
            f"up to {c.shift:.2f} standard deviations. Importance sampling of all pairs went on "
            "from it; the numbers are those."
        )
    else:
        yield (
            f"Held against all pairs the combination is not sound ({k_hat}): how far off it is "
            "cannot be told."
        )


def _noise(
    noise: SpeckleNoise, inflation: float, reduced_chi_square: float, corrected: bool
) -> Iterator[str]:
    rho = f"{noise.neighbour_correlation:.2f}"
    if corrected:
        speckles = sum(noise.effective_speckles) / len(noise.effective_speckles)
        yield (
            f"Neighbouring pairs have correlated residuals ({rho}; independent errors give 0), "
            "as speckles make them. Intervals of independent pairs are too narrow by a factor "
            f"of up to {inflation:.3g}; the corrected ones account for it (about "
            f"{speckles:.0f} effective speckles an angle)."
        )
        if noise.misfit <= SYSTEMATIC:
            yield (
                "Averaged over pairs of the same lag, residuals are as small as speckles leave "
                f"them ({noise.misfit:+.1f} standard deviations, allowed {SYSTEMATIC:g})."
            )
    elif noise.likely:
        yield (
            f"Neighbouring pairs have correlated residuals ({rho}; independent errors give 0), "
            "and no correction was made: the intervals are too narrow."
        )
    else:
        yield f"Residuals of neighbouring pairs show no correlation ({rho})."
        if reduced_chi_square > _MISFIT:
            yield (
                f"Residuals are larger than the noise between neighbours (reduced chi-square "
                f"{reduced_chi_square:.2f}): the model misses a part of the signal."
            )
    if noise.misfit > SYSTEMATIC:
        errors = "speckles" if noise.likely else "independent errors"
        yield (
            "Residuals averaged over pairs of the same lag are not zero "
            f"({noise.misfit:.0f} standard deviations more than {errors} leave): the model misses "
            "a part of the signal."
        )


def _minima(others: Sequence[float], reach: float, covered: float) -> Iterator[str]:
    for kind, what in (
        ([x for x in others if x <= min(covered, reach)], "the draws cover what mass is there"),
        ([x for x in others if covered < x <= reach], "the draws describe the best one alone"),
    ):
        if kind:
            yield (
                f"The fit has {len(kind)} other minim{'a' if len(kind) > 1 else 'um'} that the "
                f"noise does not exclude (chi-square higher by {kind[0]:.3g}); {what}."
            )


def _informed(rows: Sequence[Row]) -> Iterator[str]:
    open_ = [row.name for row in rows if row.kind == "parameter" and not row.identified]
    if open_:
        yield (
            f"The prior, not the data, sets {_listed(open_)}. Rates and fraction at reference "
            "times say what the data do inform."
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _remedies(d: Diagnosis, limits: Thresholds, combination: Combination | None) -> Iterator[str]:
    if not d.well_weighted(limits) and combination is not None:
        yield "Sample all pairs in one pass (enable: never), or divide them into fewer shards."
    elif not d.well_weighted(limits):
        yield "Set optimization.engine to auto: importance sampling is not enough here."
    elif not d.mixed(limits):
        yield (
            "Raise num_samples in optimization.cmc.per_shard_mcmc; if R-hat stays above "
            f"{limits.r_hat:g}, fix parameters that the data do not inform, or give them priors."
        )
    if d.divergent_share > limits.divergent_share:
        yield "Raise target_accept_prob in optimization.cmc.per_shard_mcmc towards 0.95 or 0.99."


def _checks(left_out: Sequence[float], rows: Sequence[Row], *, fits: bool) -> Iterator[str]:
    if not fits:
        yield (
            "Look at the maps of residuals, and check dt, wavevector_q and the angles. Stripes "
            "mean that the fit has missed a mode, such as a fast phase: give it start values "
            "(parameters) near the right ones, or raise n_starts in optimization.nlsq. Otherwise "
            "leave out frames or angles that the model does not describe."
        )
    if left_out:
        yield (
            "Exclude the other minimum by physics: narrow bounds or priors, in particular of "
            "the velocity and of the fraction, and sample again."
        )
    if not any(row.identified for row in rows if row.kind == "derived"):
        yield "Check window, angles and model: the data inform no rate and no fraction."
