"""Result of a least-squares fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from heterodyne._typing import FloatArray
from heterodyne.optimization.nlsq.identifiability import Identifiability


@dataclass(frozen=True)
class NLSQResult:
    """Result of a least-squares fit.

    Attributes:
        parameters: Fitted values in the order of ``parameter_names``, shape (n,).
        parameter_names: Varying physics parameters, then contrasts and offsets.
        uncertainties: Standard errors for independent pairs, shape (n,); infinite where
            the data leave the parameter open.
        covariance: Covariance matrix, shape (n, n).
        success: Whether the best start converged.
        residuals: c2 minus fit at the fitted unique pairs of all angles, shape (n_pairs,).
        fixed_parameters: Values of the physics parameters that did not vary.
        message: What happened, in one sentence.
        sum_of_squares: Sum of squared residuals.
        n_pairs: Number of fitted unique pairs.
        sigma: Root mean square residual, from the degrees of freedom.
        reduced_chi_square: Mean square residual over the variance that neighbouring
            pairs do not share; 1 for a perfect model and independent errors.
        identifiability: What the data inform.
        derived: Value and standard error of rates and fraction at reference times.
        modes: Chi-square above the best of the other minima that were found, less what a
            wider minimum gains in mass.
        details: Everything else worth recording.
    """

    parameters: FloatArray
    parameter_names: tuple[str, ...]
    uncertainties: FloatArray | None
    covariance: FloatArray | None
    success: bool
    residuals: FloatArray | None = None
    fixed_parameters: Mapping[str, float] = field(default_factory=dict)
    message: str = ""
    sum_of_squares: float = float("nan")
    n_pairs: int = 0
    sigma: float = float("nan")
    reduced_chi_square: float = float("nan")
    identifiability: Identifiability | None = None
    derived: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    modes: tuple[float, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def _index(self, name: str) -> int:
        try:
            return self.parameter_names.index(name)
        except ValueError:
            raise KeyError(
                f"{name!r} was not fitted; fitted: {', '.join(self.parameter_names)}"
            ) from None

    def get_param(self, name: str) -> float:
        """Return the value of a fitted or fixed parameter.

        Raises:
            KeyError: No parameter of that name.
        """
        if name in self.fixed_parameters:
            return float(self.fixed_parameters[name])
        return float(self.parameters[self._index(name)])

    def get_uncertainty(self, name: str) -> float:
        """Return the standard error of a parameter; 0 for a fixed one.

        Raises:
            KeyError: No parameter of that name.
        """
        if name in self.fixed_parameters:
            return 0.0
        k = self._index(name)
        return float("nan") if self.uncertainties is None else float(self.uncertainties[k])

    def as_dict(self) -> dict[str, float]:
        """Return all values by name, fitted and fixed."""
        return dict(self.fixed_parameters) | dict(
            zip(self.parameter_names, np.asarray(self.parameters).tolist(), strict=True)
        )
