"""Processors of this machine."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Number of processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


ONE_BLAS_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Environment in which NumPy and SciPy compute with one thread.

Sums over several threads are rounded differently, and draws would depend on the number of
processors; our matrices are too small to be faster with more.
"""


def use_one_blas_thread() -> None:
    """Let NumPy, if it is not yet loaded, compute with one thread, unless the user decided."""
    for name, value in ONE_BLAS_THREAD.items():
        os.environ.setdefault(name, value)
