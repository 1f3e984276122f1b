"""Priors of the parameter table, and around a fit, as NumPyro distributions.

All are truncated to the bounds of their parameters, as those of ``ParameterSpace``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpyro.distributions as dist

from heterodyne._errors import ConfigError, SamplingError
from heterodyne._log import get_logger
from heterodyne.config._distributions import numpyro_prior
from heterodyne.config._suggest import not_known
from heterodyne.config.parameter_registry import DEFAULT_REGISTRY, ParameterInfo, ParameterRegistry
from heterodyne.config.parameter_space import Parameter, ParameterSpace, Prior, PriorKind
from heterodyne.optimization.cmc._priors_start import extract_nlsq_values_for_cmc, within
from heterodyne.optimization.nlsq.results import NLSQResult
from heterodyne.optimization.prior import prior_width

_LOG = get_logger(__name__)
_REL_TOL, _ABS_TOL = 1e-6, 1e-9


def build_nlsq_informed_priors(
    nlsq_result: NLSQResult, param_space: ParameterSpace, width_factor: float = 2.0
) -> dict[str, dist.Distribution]:
    """Build priors around the values of a fit.

    **These priors use the data twice** if the same data are then sampled: once in the fit, once
    in the likelihood. With a factor f, errors come out too small by f / sqrt(1 + f^2), 11 % at
    f = 2, and what the space says about the parameters is lost. They are meant for a fit of
    other data. A warning is logged at every call.

    Each prior is a normal one, truncated to the bounds of the space, around the value of the
    fit, with ``width_factor`` times its standard error as the scale. Where the error is missing,
    infinite (the data leave the parameter open) or 0, the width that the space gives the prior
    stands in, unscaled, which is the table's unless a run file says otherwise; that of a uniform
    prior is the standard deviation. A value outside the bounds moves to the nearest one, and a
    parameter without a finite value in the fit keeps the prior of the space. All of that is
    logged.

    Args:
        nlsq_result: A least-squares fit.
        param_space: The parameters that vary, their bounds and priors.
        width_factor: Scale of a prior over the standard error, > 0.

    Returns:
        Distributions by name, of the varying parameters.

    Raises:
        ConfigError: A factor that is not finite and > 0.
    """
    if not (math.isfinite(width_factor) and width_factor > 0):
        raise ConfigError(
            f"a factor of {width_factor!r}", where="width_factor", allowed="finite, > 0"
        )
    _LOG.warning(
        "Priors around a fit use its data twice if these are sampled: errors come out too small "
        "by a factor of %.3g.",
        width_factor / math.hypot(1.0, width_factor),
    )
    if not nlsq_result.success:
        _LOG.warning("The fit behind the priors has not converged: %s.", nlsq_result.message)
    values, errors = extract_nlsq_values_for_cmc(nlsq_result)
    widths = {name: width_factor * error for name, error in (errors or {}).items() if error > 0}
    return {
        name: numpyro_prior(_around(param_space[name], values.get(name), widths.get(name)))
        for name in param_space.varying_names
    }


def _around(parameter: Parameter, value: float | None, width: float | None) -> Parameter:
    """Give a parameter a normal prior of some width around a value."""
    name = parameter.info.name
    if value is None:
        _LOG.warning("The fit has no value of %s: its prior stays as it is.", name)
        return parameter
    if width is None:
        own = parameter.prior
        uniform = own.kind is PriorKind.UNIFORM
        width = prior_width(parameter, logarithmic=False) if uniform else own.std
        _LOG.warning("The fit has no error of %s: its prior is %g wide.", name, width)
    centre = within(name, value, parameter.min, parameter.max)
    return replace(parameter, prior=Prior(PriorKind.NORMAL, centre, width))


def build_default_priors(
    param_space: ParameterSpace,
    registry: ParameterRegistry | None = None,
    use_log_space_priors: bool = True,
) -> dict[str, dist.Distribution]:
    """Build the priors of the parameter table, truncated to the bounds of the space.

    They are those of ``param_space.priors`` unless a run file sets other priors; these are not
    used here, which is logged.

    Args:
        param_space: The parameters that vary, and their bounds.
        registry: The parameter table; the usual one if None.
        use_log_space_priors: Whether D0_ref, D0_sample and v0 (``log_space`` in the table) have
            log-normal priors. False gives them normal ones with the table's mean and std.

    Returns:
        Distributions by name, of the varying parameters.

    Raises:
        ConfigError: A varying parameter that the table does not hold, or a log-normal prior on
            bounds that reach 0.
    """
    priors, unused = {}, []
    for name in param_space.varying_names:
        parameter = param_space[name]
        prior = Parameter.default(_row(registry, name)).prior
        if not use_log_space_priors:
            prior = replace(prior, kind=PriorKind.NORMAL)
        if parameter.prior != Parameter.default(parameter.info).prior:
            unused.append(name)
        parameter = replace(parameter, prior=prior)
        parameter.check(name)
        priors[name] = numpyro_prior(parameter)
    if unused:
        _LOG.warning(
            "Default priors replace those that the run sets for %s; param_space.priors has these.",
            ", ".join(unused),
        )
    return priors


def build_log_space_priors(
    param_names: Iterable[str], registry: ParameterRegistry | None = None
) -> dict[str, dist.Distribution]:
    """Build the log-normal priors among those of some parameters.

    The median is the table's ``prior_mean``, the scale of log x is ln(1 + prior_std /
    prior_mean), and they are truncated to the bounds of the table.

    Args:
        param_names: Names; those without ``log_space`` in the table are passed over.
        registry: The parameter table; the usual one if None.

    Returns:
        Distributions by name.

    Raises:
        ConfigError: A name that the table does not hold.
    """
    rows = {name: _row(registry, name) for name in param_names}
    return {
        name: numpyro_prior(Parameter.default(row)) for name, row in rows.items() if row.log_space
    }


def _row(registry: ParameterRegistry | None, name: str) -> ParameterInfo:
    table = DEFAULT_REGISTRY if registry is None else registry
    if name not in table:
        raise ConfigError(
            not_known("parameter", name, table), where="registry", allowed=", ".join(table)
        )
    return table[name]


class PriorBuilder:
    """Builds default priors, and refuses a table that a parameter space contradicts.

    A parameter space takes its priors from the table it was made of, so the two agree as long
    as there is one table. With a second one, what this class builds and what the space samples
    would differ without a word: hence the check, here against the usual space and in ``build``
    against the space at hand. Means and widths may differ by 1e-6 (relative) or 1e-9.
    ``build_default_priors`` takes any table.

    Args:
        registry: The parameter table; the usual one if None.
        use_log_space_priors: As in ``build_default_priors``.

    Raises:
        SamplingError: The table has other priors than ``ParameterSpace``; a RuntimeError.
    """

    def __init__(
        self, registry: ParameterRegistry | None = None, use_log_space_priors: bool = True
    ) -> None:
        self.registry = DEFAULT_REGISTRY if registry is None else registry
        self.use_log_space_priors = use_log_space_priors
        self._compare(ParameterSpace())

    def build(self, param_space: ParameterSpace) -> dict[str, dist.Distribution]:
        """Build the default priors of a space; see ``build_default_priors``.

        Args:
            param_space: The parameters that vary, and their bounds.

        Raises:
            SamplingError: The space was made of a table with other priors; a RuntimeError.
            ConfigError: As ``build_default_priors``.
        """
        self._compare(param_space)
        return build_default_priors(param_space, self.registry, self.use_log_space_priors)

    def _compare(self, space: ParameterSpace) -> None:
        for name in space:
            if name not in self.registry:
                continue
            ours = Parameter.default(self.registry[name]).prior
            theirs = Parameter.default(space[name].info).prior
            if not _agree(ours, theirs):
                raise SamplingError(
                    f"the table has a {_described(ours)} prior of {name}, the parameter space "
                    f"a {_described(theirs)} one",
                    where="registry",
                    remedy="Make the space of the same table, or use build_default_priors",
                )


def _agree(one: Prior, other: Prior) -> bool:
    pairs = ((one.mean, other.mean), (one.std, other.std))
    return one.kind is other.kind and all(
        math.isclose(a, b, rel_tol=_REL_TOL, abs_tol=_ABS_TOL) for a, b in pairs
    )


def _described(prior: Prior) -> str:
    return f"{prior.kind.value} {prior.mean:.9g} ± {prior.std:.9g}"
