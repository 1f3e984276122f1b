"""Value and gradient of the sum of squares: separable, pair by pair, and reading the data."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks.performance import Section, machine
from heterodyne._typing import JaxArray
from heterodyne.core._jax import jax, jnp
from heterodyne.core.likelihood import (
    PairData,
    direct_sum_of_squares,
    pack_pairs,
    sum_of_squares,
)
from heterodyne.core.simulate import Experiment, simulate_pairs

FRAMES = (100, 200, 500, 1000, 2000, 4000)
PHI = (-40.0, 15.0, 80.0)
CONTRAST, OFFSET, SIGMA = 0.2, 1.0, 0.01
PARAMETERS = np.array([3e3, 0.2, 200, 1e3, -0.3, 500, 60, 0.3, 5, 0.3, 0.02, 5, 0.2, 3.0])
DURATION = 10.0  # s in which 100 frames last as long as 1,000
REPEATS, FEWEST = 10_000, 10  # the first over the number of frames, the second at least
ROW = 5  # evaluations one after the other, as in sampling; the first finds cold caches
TEXT = (
    "Value and gradient of the sum of squares in the 14 physics parameters and in contrast and "
    "offset of 3 angles, compiled, on all unique pairs. *Separable* is the kernel that fits and "
    "samples; *direct* evaluates every pair and is the reference of the tests; *reading* "
    "multiplies the packed pairs with themselves by BLAS, twice, which is what memory allows. "
    "All are timed in turn in one process, {most} (few frames) to {least} times (many), in rows "
    "of five of which the first, which finds the data of another in the caches, is left out, as "
    "in sampling one gradient follows another. Machine: {machine}; load average {load:.1f} at "
    "the start. Other work lengthens the median more than the minimum."
)


class Timing(NamedTuple):
    """Seconds of each repeat, and how far the results of both evaluations differ.

    Attributes:
        n_frames: Number of frames.
        separable: Seconds, shape (repeats,).
        direct: Seconds, shape (repeats,).
        reading: Seconds of reading the packed pairs twice, shape (repeats,).
        value_difference: Relative difference of the values.
        gradient_difference: Difference of the gradients over their norm.
    """

    n_frames: int
    separable: np.ndarray
    direct: np.ndarray
    reading: np.ndarray
    value_difference: float
    gradient_difference: float


def measure(n_frames: int) -> Timing:
    """Time both evaluations at one number of frames."""
    experiment = Experiment(PARAMETERS, n_frames, DURATION / n_frames, 0.02, PHI)
    c2 = simulate_pairs(experiment, CONTRAST, OFFSET, SIGMA, seed=1)
    data = pack_pairs(c2, experiment.t, experiment.q, experiment.dt, experiment.phi)
    matrix = jnp.asarray(c2)
    scaling = jnp.repeat(jnp.asarray([CONTRAST, OFFSET]), len(PHI))
    x = jnp.concatenate([jnp.asarray(PARAMETERS), scaling])
    evaluations = (lambda: _separable(x, data), lambda: _direct(x, data, matrix))
    (value, slope), (expected, expected_slope) = (evaluate() for evaluate in evaluations)
    packed = [np.asarray(block).ravel() for block in data.blocks]
    timed = (*evaluations, lambda: [np.dot(x, x) for x in 2 * packed])
    rows = range(_repeats(n_frames) // ROW)
    seconds = np.array([[_seconds(evaluate) for evaluate in timed] for _ in rows])
    separable, direct, reading = seconds.transpose(1, 0, 2).reshape(len(timed), -1)
    units = jnp.maximum(jnp.abs(x), 1.0)
    error = jnp.linalg.norm((slope - expected_slope) * units)
    return Timing(
        n_frames,
        separable,
        direct,
        reading,
        abs(float(value / expected - 1)),
        float(error / jnp.linalg.norm(expected_slope * units)),
    )


def _repeats(n_frames: int) -> int:
    return max(FEWEST, REPEATS // n_frames)


def _parts(x: JaxArray) -> tuple[JaxArray, JaxArray, JaxArray]:
    return x[:14], x[14 : 14 + len(PHI)], x[14 + len(PHI) :]


@jax.jit
@jax.value_and_grad
def _separable(x: JaxArray, data: PairData) -> JaxArray:
    return sum_of_squares(*_parts(x), data).sum()


@jax.jit
@jax.value_and_grad
def _direct(x: JaxArray, data: PairData, c2: JaxArray) -> JaxArray:
    return direct_sum_of_squares(*_parts(x), data, c2).sum()


def _seconds(evaluate: Callable[[], object]) -> list[float]:
    """Times of a row of evaluations but the first."""
    ends = [0.0] * (ROW + 1)
    ends[0] = time.perf_counter()
    for k in range(ROW):
        jax.block_until_ready(evaluate())
        ends[k + 1] = time.perf_counter()
    return np.diff(ends)[1:].tolist()


def section() -> Section:
    """Run the benchmark."""
    load = os.getloadavg()[0]
    timings = [measure(n) for n in FRAMES]
    return Section(
        "Kernel",
        TEXT.format(
            most=_repeats(min(FRAMES)), least=_repeats(max(FRAMES)), machine=machine(), load=load
        ),
        (
            "frames",
            "pairs",
            "separable, ms (min / median)",
            "direct, ms (min / median)",
            "ratio (min / median)",
            "reading twice, ms (min / median)",
            "separable over it",
            "value differs by",
            "gradient differs by",
        ),
        [_row(timing) for timing in timings],
    )


def _row(timing: Timing) -> list[str]:
    fast, slow, read = (
        (1e3 * s.min(), 1e3 * np.median(s))
        for s in (timing.separable, timing.direct, timing.reading)
    )
    n_pairs = len(PHI) * timing.n_frames * (timing.n_frames - 1) // 2
    return [
        str(timing.n_frames),
        f"{n_pairs:,}",
        f"{fast[0]:.2f} / {fast[1]:.2f}",
        f"{slow[0]:.1f} / {slow[1]:.1f}",
        f"{slow[0] / fast[0]:.0f} / {slow[1] / fast[1]:.0f}",
        f"{read[0]:.2f} / {read[1]:.2f}",
        f"{fast[0] / read[0]:.1f} / {fast[1] / read[1]:.1f}",
        f"{timing.value_difference:.0e}",
        f"{timing.gradient_difference:.0e}",
    ]
