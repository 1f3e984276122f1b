"""The table of results: one row for each quantity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from heterodyne._typing import FloatArray
from heterodyne.config.parameter_registry import parameter_info
from heterodyne.config.parameter_space import Parameter, ParameterSpace, PriorKind
from heterodyne.optimization.cmc._diagnostics import Diagnosis
from heterodyne.optimization.cmc._quantities import Quantities
from heterodyne.optimization.derived import Derived

Kind = Literal["parameter", "scaling", "noise", "derived"]
# The data decide on a quantity that they confine to half of its prior's width.
IDENTIFIED = 0.5
# Relative spread of a quantity all of whose parameters are held.
_ROUNDING = 1e-12
_SIGMA_TEXT = "Standard deviation of the errors of a pair"
_CURVES = {
    "J_ref": "Transport coefficient J of the reference",
    "J_sample": "Transport coefficient J of the sample",
    "v": "Velocity",
    "s": "Sample fraction",
}


@dataclass(frozen=True)
class Row:
    """One quantity.

    Attributes:
        name: Its name.
        unit: Its unit, empty where it has none.
        kind: What it is.
        description: What it is, in words.
        mean: Posterior mean.
        sd: Posterior standard deviation.
        median: Posterior median.
        low: 2.5 % quantile.
        high: 97.5 % quantile.
        corrected: ``mean``, ``sd``, ``median``, ``low`` and ``high`` corrected for speckle
            noise, or None.
        r_hat: Rank-normalised split R-hat.
        ess_bulk: Bulk effective number of draws.
        ess_tail: Tail effective number of draws.
        contraction: 1 - width of the posterior over that of the prior; 1 if the data
            decide, 0 if the prior does.
        identified: Whether the data confine the quantity well within its prior.
        prior: ``text``, ``mean`` and ``sd`` of the prior, or None.
    """

    name: str
    unit: str
    kind: Kind
    description: str
    mean: float
    sd: float
    median: float
    low: float
    high: float
    corrected: Mapping[str, float] | None
    r_hat: float
    ess_bulk: float
    ess_tail: float
    contraction: float
    identified: bool
    prior: Mapping[str, Any] | None

    def as_dict(self) -> dict[str, Any]:
        """Return all fields by name."""
        return asdict(self)

    @property
    def inflation(self) -> float:
        """Corrected over plain standard deviation; 1 where nothing is corrected or varies."""
        if self.corrected is None or self.sd <= _ROUNDING * abs(self.mean):
            return 1.0
        return self.corrected["sd"] / self.sd


@dataclass(frozen=True)
class _Description:
    kind: Kind
    unit: str
    text: str
    prior: str | None


def make_rows(
    plain: Quantities,
    corrected: Quantities | None,
    prior: Quantities,
    diagnosis: Diagnosis,
    space: ParameterSpace,
    derived: Derived,
) -> tuple[Row, ...]:
    """Summarise draws; a quantity whose parameters are all fixed has no row.

    Args:
        plain: Draws for independent errors.
        corrected: Draws corrected for speckle noise, where they are to be shown.
        prior: Draws from the priors.
        diagnosis: Convergence of the plain draws.
        space: Units and priors.
        derived: Units of derived quantities.
    """
    stretched = {} if corrected is None else corrected.all()
    before, values = prior.all(), plain.all()
    rows = []
    for name, about in _descriptions(plain, space, derived):
        x = values[name]
        if not _varies(x):
            continue
        y = stretched.get(name)
        contraction = _contraction(x if y is None else y, before[name])
        rows.append(
            Row(
                name=name,
                unit=about.unit,
                kind=about.kind,
                description=about.text,
                **_interval(x),
                corrected=None if y is None else _interval(y),
                r_hat=diagnosis.r_hat[name],
                ess_bulk=diagnosis.ess_bulk[name],
                ess_tail=diagnosis.ess_tail[name],
                contraction=contraction,
                identified=contraction >= IDENTIFIED,
                prior=None
                if about.prior is None
                else {
                    "text": about.prior,
                    "mean": float(before[name].mean()),
                    "sd": float(before[name].std()),
                },
            )
        )
    return tuple(rows)


def _interval(x: FloatArray) -> dict[str, float]:
    low, median, high = (float(v) for v in np.quantile(x, (0.025, 0.5, 0.975)))
    spread = {"mean": float(x.mean()), "sd": float(x.std(ddof=1))}
    return spread | {"median": median, "low": low, "high": high}


def _varies(x: FloatArray) -> bool:
    """Whether draws differ by more than rounding, as those of a held curve do not."""
    return bool(np.ptp(x) > 1e-12 * np.abs(x).max())


def _contraction(posterior: FloatArray, prior: FloatArray) -> float:
    """Compare the central 68 % of the draws, which heavy tails do not move."""
    before = np.diff(np.quantile(prior, (0.16, 0.84)))[0]
    after = np.diff(np.quantile(posterior, (0.16, 0.84)))[0]
    return float(1.0 - after / before) if before > 0 else 1.0


def _descriptions(
    plain: Quantities, space: ParameterSpace, derived: Derived
) -> Iterator[tuple[str, _Description]]:
    for name in plain.parameters:
        if name == "sigma":
            yield name, _Description("noise", "", _SIGMA_TEXT, "half-normal, from the noise seen")
            continue
        info = parameter_info(name)
        text = info.description[:1].upper() + info.description[1:]
        if info.name != name:
            text = f"{text} of angle {name.removeprefix(f'{info.name}_')}"
        kind: Kind = "scaling" if info.is_scaling else "parameter"
        yield name, _Description(kind, info.unit, text, prior_text(space[info.name]))
    for name, unit in zip(derived.names, derived.units, strict=True):
        curve, _, time = name.rstrip(")").partition("(")
        yield name, _Description("derived", unit, f"{_CURVES[curve]} at {time}", None)


def prior_text(parameter: Parameter) -> str:
    """Say a prior in words."""
    p, unit = parameter.prior, f" {parameter.info.unit}" if parameter.info.unit else ""
    within = f"within {parameter.min:g} to {parameter.max:g}{unit}"
    if p.kind is PriorKind.UNIFORM:
        return f"uniform {within}"
    if p.kind is PriorKind.LOGNORMAL:
        return f"log-normal, median {p.mean:g}{unit}, factor {1.0 + p.std / p.mean:.3g}, {within}"
    return f"normal, {p.mean:g} ± {p.std:g}{unit}, {within}"
