"""A least-squares fit as plain values, for run folders and machines."""

from __future__ import annotations

import math
from typing import Any

from heterodyne.config.parameter_registry import parameter_info
from heterodyne.optimization.derived import unit_of
from heterodyne.optimization.nlsq.identifiability import Identifiability
from heterodyne.optimization.nlsq.results import NLSQResult


def fit_record(result: NLSQResult) -> dict[str, Any]:
    """Describe a fit; an error is None where the data leave the value open."""
    return {
        "success": result.success,
        "message": result.message,
        "parameters": [
            {
                "name": name,
                "unit": parameter_info(name).unit,
                "value": result.get_param(name),
                "error": _known(result.get_uncertainty(name)),
            }
            for name in result.parameter_names
        ],
        "fixed": dict(result.fixed_parameters),
        "derived": [
            {"name": name, "unit": unit_of(name), "value": value, "error": _known(error)}
            for name, (value, error) in result.derived.items()
        ],
        "sigma": result.sigma,
        "reduced_chi_square": _known(result.reduced_chi_square),
        "sum_of_squares": result.sum_of_squares,
        "n_pairs": result.n_pairs,
        "modes": list(result.modes),
        "identifiability": _directions(result.identifiability),
    }


def _directions(found: Identifiability | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "sentences": list(found.sentences),
        "contraction": dict(found.contraction),
        "names": list(found.names),
        "information": found.information.tolist(),
        "directions": found.directions.tolist(),
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
