"""Names for the array types that signatures use."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import jax

    JaxArray = jax.Array
    Numeric = jax.Array | NDArray[Any] | float
else:
    JaxArray = Numeric = Any

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
PathArg = str | PathLike[str]

__all__ = ["ArrayLike", "BoolArray", "FloatArray", "IntArray", "JaxArray", "Numeric", "PathArg"]
