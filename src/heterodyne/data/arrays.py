"""Two-time data from arrays in memory, such as simulations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from heterodyne._typing import ArrayLike
from heterodyne.data.readers import _source
from heterodyne.data.readers._common import Request
from heterodyne.data.readers.plain import Part, assemble
from heterodyne.data.select import exclude_frames
from heterodyne.data.two_time import Asymmetric, TwoTimeData, TwoTimeFile

SOURCE = "arrays in memory"


def file_from_arrays(
    c2: ArrayLike,
    *,
    q: ArrayLike,
    phi: ArrayLike | None = None,
    t: ArrayLike | None = None,
    dt: float | None = None,
    source: str = SOURCE,
) -> TwoTimeFile:
    """Treat arrays like a file, so that frames, q and angles can be selected from them.

    Args:
        c2: Matrices, full or one half, shape (n, N, N) or (N, N).
        q: Wavevector in 1/Å, one or n.
        phi: Azimuths in degrees, shape (n,).
        t: Frame times in s, shape (N,); without it frame i is at i dt.
        dt: Time between frames in s.
        source: What to call the arrays in messages and results.

    Returns:
        The arrays as a file with bins labelled from 1.

    Raises:
        DataError: If shapes do not fit, or neither ``t`` nor ``dt`` is given, or they disagree.
    """
    given = {"q": q, "phi": phi, "t": t}
    parts = {
        role: Part(role, _source.floats(values, role))
        for role, values in given.items()
        if values is not None
    }
    stack = _source.floats(c2, "c2")
    whole = stack[None] if stack.ndim == 2 else stack
    return assemble(
        stack.shape,
        parts,
        Request(source, dt),
        where="c2",
        matrices=partial(_cut, whole),
        digest=partial(_digest, whole),
    )


def from_arrays(
    c2: ArrayLike,
    *,
    q: ArrayLike,
    phi: ArrayLike | None = None,
    t: ArrayLike | None = None,
    dt: float | None = None,
    bad_frames: Sequence[int] = (),
    asymmetric: Asymmetric | str = Asymmetric.REFUSE,
    source: str = SOURCE,
) -> TwoTimeData:
    """Make two-time data of arrays.

    Args:
        c2: Matrices, full or one half, shape (n, N, N) or (N, N).
        q: Wavevector in 1/Å, one or n.
        phi: Azimuths in degrees, shape (n,).
        t: Frame times in s, shape (N,); without it frame i is at i dt.
        dt: Time between frames in s.
        bad_frames: Frames to exclude, counted from 1.
        asymmetric: ``refuse`` full matrices whose halves differ, or ``average`` the halves.
        source: What to call the arrays in messages and results.

    Returns:
        The data.

    Raises:
        DataError: If shapes do not fit, times are missing or disagree, or frames
            that are not excluded hold NaN.
    """
    file = file_from_arrays(c2, q=q, phi=phi, t=t, dt=dt, source=source)
    return exclude_frames(file.load(asymmetric=asymmetric), bad_frames)


def _cut(
    stack: NDArray[np.float64], indices: Sequence[int], window: slice
) -> Iterator[NDArray[np.generic]]:
    for index in indices:
        matrix = stack[index, window, window]
        matrix.flags.writeable = False
        yield matrix


def _digest(stack: NDArray[np.float64]) -> str:
    return hashlib.sha256(np.ascontiguousarray(stack).data).hexdigest()
