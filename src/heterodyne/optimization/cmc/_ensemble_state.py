"""What ensemble sampling goes on from, and its kinds of steps."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from heterodyne._typing import FloatArray
from heterodyne.optimization.cmc._mixture import Component, Mixture
from heterodyne.optimization.cmc._walkers import Walkers


class Kind(IntEnum):
    """Kinds of steps, in the order in which their acceptance is recorded."""

    DIFFERENCE = 0
    INDEPENDENT = 1
    RENEWED = 2
    RESHAPED = 3
    AXIS = 4
    SWAPPED = 5
    BESIDE = 6


class EnsembleState(NamedTuple):
    """Everything that decides how sampling goes on.

    Attributes:
        walkers: Populations until the power is 1, then groups.
        power: Power of the likelihood that the walkers follow, or came to before the groups.
        block: Number of blocks done, of all kinds.
        started: Number of blocks when the groups started; 0 before.
        adapted: Number of blocks when adaptation ended; 0 before.
        reference: Points whose differences are proposed, shape (r, m).
        mixture: What independent proposals are drawn from.
        first: The same of the mixture before adaptation, which stays as a part.
        beside: What all but the fraction is drawn from.
        kept: Coordinates of all unknowns, shape (kept, n, d).
        log_density: Log density of these, shape (kept, n).
        accepted: Steps that were accepted and proposed, a row for each kind
            of ``Kind``.
    """

    walkers: Walkers
    power: float
    block: int
    started: int
    adapted: int
    reference: FloatArray
    mixture: Mixture
    first: Mixture
    beside: Mixture
    kept: FloatArray
    log_density: FloatArray
    accepted: FloatArray

    @property
    def in_groups(self) -> bool:
        """Whether the populations have become groups."""
        return self.started > 0

    @property
    def n_blocks(self) -> int:
        """Blocks of draws after adaptation; 0 before."""
        return self.block - self.adapted if self.adapted > 0 else 0

    def to_arrays(self) -> dict[str, FloatArray]:
        """Return everything that the state holds, by name."""
        return {
            "counts": np.array([self.power, self.block, self.started, self.adapted], float),
            "reference": self.reference,
            "kept": self.kept,
            "log_density": self.log_density,
            "accepted": self.accepted,
            **{f"walkers_{name}": x for name, x in self.walkers._asdict().items()},
            **_as_arrays("mixture", self.mixture),
            **_as_arrays("first", self.first),
            **_as_arrays("beside", self.beside),
        }

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, FloatArray]) -> EnsembleState:
        """Rebuild the state that ``to_arrays`` took apart."""
        given = {name: np.asarray(x) for name, x in arrays.items()}
        power, block, started, adapted = given["counts"].tolist()
        return cls(
            Walkers(*(given[f"walkers_{name}"] for name in Walkers._fields)),
            power,
            int(block),
            int(started),
            int(adapted),
            given["reference"],
            _of_arrays("mixture", given),
            _of_arrays("first", given),
            _of_arrays("beside", given),
            given["kept"],
            given["log_density"],
            given["accepted"],
        )


def _as_arrays(name: str, mixture: Mixture) -> dict[str, FloatArray]:
    """The components of a mixture by field, components as the leading axis."""
    fields = Component._fields
    return {f"{name}_{f}": np.array([getattr(c, f) for c in mixture], float) for f in fields}


def _of_arrays(name: str, arrays: Mapping[str, FloatArray]) -> Mixture:
    """Rebuild the mixture that ``_as_arrays`` took apart."""
    columns = [arrays[f"{name}_{field}"] for field in Component._fields]
    return tuple(
        Component(float(share), centre, factor, float(degrees))
        for share, centre, factor, degrees in zip(*columns, strict=True)
    )
