"""Fit and posterior as whole processes: with empty caches, with warm ones, and once more.

Run as ``python -m benchmarks whole``.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks.performance import Section, machine

# Angles, frames, and whether a second process and a second data set are measured too.
SIZES = ((3, 183, True), (3, 1001, True), (23, 1001, False))


def worker(n_angles: int, n_frames: int, repeats: int) -> None:
    """Analyse simulated data some times over and print what it took as JSON lines."""
    started = time.time() - time.process_time()
    from benchmarks import recovery
    from benchmarks.calibrate import analysed
    from heterodyne.core.simulate import simulate_pairs

    recovery.N_FRAMES = n_frames
    if n_angles != len(recovery.ANGLES):
        recovery.ANGLES = tuple(np.linspace(-30.0, 70.0, n_angles).tolist())
    for seed in range(repeats):
        before = time.time()
        e, contrast, offset, sigma = recovery.draw_experiment(seed)
        c2 = simulate_pairs(e, contrast, offset, sigma, seed)
        simulated = time.time() - before
        found, _ = analysed(e, c2, None)
        now = time.time()
        total = now - (started if seed == 0 else before) - simulated
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        d = found.diagnosis
        line = {
            "seconds": total,
            "engine": found.draws.engine,
            "r_hat": d.worst_r_hat[1],
            "ess": d.worst_ess_bulk[1],
            "gib": peak,
        }
        print(json.dumps(line), flush=True)


def measured(n_angles: int, n_frames: int, cache: str, repeats: int) -> list[dict[str, Any]]:
    """Run a worker process and read what it prints."""
    words = [sys.executable, "-m", "benchmarks.whole", str(n_angles), str(n_frames), str(repeats)]
    environment = {**os.environ, "XDG_CACHE_HOME": cache}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def section() -> Section:
    """Measure all sizes."""
    rows = []
    for n_angles, n_frames, more in SIZES:
        with tempfile.TemporaryDirectory() as cache:
            found = measured(n_angles, n_frames, cache, 1)
            if more:
                found += measured(n_angles, n_frames, cache, 2)
        for how, x in zip(("empty cache", "warm cache", "same process"), found, strict=False):
            rows.append(
                [f"{n_angles} x {n_frames}", how, f"{x['seconds']:.1f}", x["engine"],
                 f"{x['r_hat']:.3f}", f"{x['ess']:.0f}", f"{x['gib']:.2f}"]
            )  # fmt: skip
            print(" | ".join(rows[-1]), flush=True)
    return Section(
        "Whole runs",
        "Seconds from the start of a process to judged draws with the default engine, import "
        "of the package, fit and compilation included, simulation of the data (independent "
        "errors) not; *same process* is another data set of the same shape in a process that "
        f"has analysed one before. Machine: {machine()}.",
        ["angles x frames", "compiled code", "s", "engine", "R-hat", "bulk ESS", "memory, GiB"],
        rows,
    )


if __name__ == "__main__":
    worker(*map(int, sys.argv[1:]))
