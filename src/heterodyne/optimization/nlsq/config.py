"""Settings of the least-squares fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from heterodyne._errors import ConfigError

if TYPE_CHECKING:
    from heterodyne.config.schema import NlsqSettings


@dataclass(frozen=True)
class NLSQConfig:
    """Settings of the least-squares fit.

    Attributes:
        n_starts: Points that are optimised in each round of the search.
        n_candidates: Points whose objective is evaluated to choose them.
        n_rounds: Rounds of the search; each looks around the best points of the last.
        max_iterations: Largest number of iterations of the final optimisation.
        tolerance: Predicted decrease, in units of chi-square, at which it stops.
        seed: Seed of the random points.
    """

    n_starts: int = 16
    n_candidates: int = 2048
    n_rounds: int = 4
    max_iterations: int = 200
    tolerance: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        counts = ("n_starts", "n_candidates", "n_rounds", "max_iterations")
        for name in counts:
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} = {getattr(self, name)}", where="NLSQConfig", allowed="at least 1"
                )
        if not self.tolerance > 0:
            raise ConfigError(f"tolerance = {self.tolerance:g}", where="NLSQConfig", allowed="> 0")

    @classmethod
    def of(cls, settings: NlsqSettings) -> NLSQConfig:
        """Take the settings of a run file."""
        return cls(
            n_starts=settings.n_starts,
            max_iterations=settings.max_iterations,
            tolerance=settings.tolerance,
            seed=settings.seed,
        )
