"""Names for the array types that signatures use."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jax
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.float64]
    # Matrices in the precision of their file, float32 or float64.
    StoredArray = NDArray[np.floating[Any]]
    BoolArray = NDArray[np.bool_]
    IntArray = NDArray[np.int64]
    JaxArray = jax.Array
    Numeric = jax.Array | NDArray[Any] | float
else:
    # Help and configuration checks start without NumPy.
    ArrayLike = FloatArray = StoredArray = BoolArray = IntArray = JaxArray = Numeric = Any

PathArg = str | PathLike[str]

__all__ = [
    "ArrayLike",
    "BoolArray",
    "FloatArray",
    "IntArray",
    "JaxArray",
    "Numeric",
    "PathArg",
    "StoredArray",
]
