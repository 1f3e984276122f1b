"""Large matrices in stretches of rows, so that what is computed on the way stays small."""

from __future__ import annotations

from collections.abc import Iterator

STRETCH_BYTES = 2**24
"""Size of one stretch of a matrix in float64; a few arrays of that size exist at a time."""


def row_slices(n_rows: int, n_columns: int, multiple: int = 1) -> Iterator[slice]:
    """Cut the rows of a matrix into stretches.

    Args:
        n_rows: Number of rows.
        n_columns: Number of columns.
        multiple: What the number of rows of every stretch but the last is a multiple of.

    Yields:
        The rows of each stretch, in order.
    """
    fit = STRETCH_BYTES // (8 * max(n_columns, 1))
    height = max(fit // multiple, 1) * multiple
    for start in range(0, n_rows, height):
        yield slice(start, min(start + height, n_rows))
