"""A result beside others: as ArviZ groups, and against a least-squares fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import arviz_base
import numpy as np
import xarray

from heterodyne._errors import DataError
from heterodyne._log import get_logger
from heterodyne._typing import FloatArray
from heterodyne.optimization.cmc._summary import by_chain

if TYPE_CHECKING:
    from heterodyne.optimization.cmc.results import CMCResult

_LOG = get_logger(__name__)


def cmc_result_to_arviz(result: CMCResult) -> xarray.DataTree:
    """Return the draws of a result as ArviZ groups.

    Args:
        result: A result with draws; flat ones are split into its chains.

    Returns:
        A tree with ``posterior``, and ``sample_stats`` where energies, divergences or
        BFMI are known.

    Raises:
        DataError: There are no draws, or they do not fit the number of chains.
    """
    samples = by_chain(result.samples or {}, result.num_chains)
    if not samples:
        raise DataError("the result holds no draws", where="samples")
    known = result.inference_data
    tree = draws_tree(samples, result.bfmi, _recorded(known))
    if known is not None:
        # A run's verdict holds for all of its draws.
        tree.attrs |= known.attrs
    return tree


def _recorded(known: xarray.DataTree | None) -> xarray.Dataset | None:
    """What the sampler recorded of the draws to believe; None where that was not kept."""
    groups = {} if known is None else known.children
    for name in ("corrected_sample_stats", "sample_stats"):
        if name in groups:
            return groups[name].to_dataset()
    return None


def draws_tree(
    samples: Mapping[str, FloatArray],
    bfmi: Sequence[float] | FloatArray | None,
    stats: xarray.Dataset | None = None,
) -> xarray.DataTree:
    """Put draws, shape (chains, draws), and what is known of the chains into ArviZ groups.

    A BFMI for another number of chains is left out, with a warning.
    """
    tree = arviz_base.from_dict({"posterior": dict(samples)})
    stats = xarray.Dataset() if stats is None else stats
    chains = tree["posterior"].sizes["chain"]
    if bfmi is not None and len(bfmi) == chains:
        stats = stats.assign(bfmi=("chain", np.asarray(bfmi, float)))
        stats = stats.assign_coords(chain=tree["posterior"]["chain"])
    elif bfmi is not None:
        _LOG.warning("BFMI of %d chains is left out, since there are %d.", len(bfmi), chains)
    if stats:
        tree["sample_stats"] = xarray.DataTree(stats)
    return tree


def compare_cmc_nlsq(
    cmc_result: CMCResult, nlsq_result: Any, consistency_sigma: float = 2.0
) -> dict[str, Any]:
    """Compare posterior means with the values of a least-squares fit.

    Args:
        cmc_result: Posterior.
        nlsq_result: Fit, such as an ``NLSQResult``; parameters that only one of them has
            are left out.
        consistency_sigma: Largest distance, in posterior standard deviations, that
            counts as consistent.

    Returns:
        ``common_parameters``; ``differences`` (mean minus value), ``relative_deviations``
        (in standard deviations) and ``consistent`` by name; ``n_consistent``,
        ``n_inconsistent`` and ``consistency_sigma``.
    """
    fitted = set(nlsq_result.parameter_names)
    common = [name for name in cmc_result.parameter_names if name in fitted]
    differences, deviations = {}, {}
    for name in common:
        summary = cmc_result.get_param_summary(name)
        difference = summary["mean"] - float(nlsq_result.get_param(name))
        differences[name] = difference
        deviations[name] = _in_units(abs(difference), summary["std"])
    consistent = {name: x <= consistency_sigma for name, x in deviations.items()}
    return {
        "common_parameters": common,
        "differences": differences,
        "relative_deviations": deviations,
        "consistent": consistent,
        "n_consistent": sum(consistent.values()),
        "n_inconsistent": len(common) - sum(consistent.values()),
        "consistency_sigma": consistency_sigma,
    }


def _in_units(distance: float, unit: float) -> float:
    if unit == 0.0:
        return 0.0 if distance == 0.0 else math.inf
    return distance / unit
