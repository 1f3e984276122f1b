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
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.memory import peak
from benchmarks.performance import Section, machine
from benchmarks.runs import prepare

# Angles, frames, and whether a second process and a second data set are measured too.
SIZES = ((3, 183, True), (3, 1001, True), (23, 1001, False))
# Frames at one angle, read from a file by the command line.
FILES = (4000, 14_000)
ANGLE, SIGMA = "0", "0.02"


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
            "converged": found.verdict.converged,
            "fits": found.verdict.fits,
        }
        print(json.dumps(line), flush=True)


def measured(n_angles: int, n_frames: int, cache: str, repeats: int) -> list[dict[str, Any]]:
    """Run a worker process and read what it prints."""
    words = [sys.executable, "-m", "benchmarks.whole", str(n_angles), str(n_frames), str(repeats)]
    environment = {**os.environ, "XDG_CACHE_HOME": cache}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def from_file(n_frames: int) -> dict[str, Any]:
    """Run ``heterodyne sample`` on a file with independent errors."""
    with tempfile.TemporaryDirectory(prefix="heterodyne-whole-") as folder:
        base = Path(folder)
        prepare(base, n_frames, ["--angle", ANGLE, "--independent-errors", SIGMA])
        started = time.monotonic()
        used = peak(base, "sample", "run.yaml", "--set", "output.directory=results")
        seconds = time.monotonic() - started
        summary = json.loads((base / "results" / "summary.json").read_text(encoding="utf-8"))
    health = summary["sampler"]
    return {
        "seconds": seconds,
        "engine": health["engine"],
        "r_hat": health["r_hat_max"],
        "ess": health["ess_bulk_min"],
        "gib": used / 2**30,
        "converged": summary["verdict"]["converged"],
        "fits": summary["verdict"]["fits"],
    }


def section() -> Section:
    """Measure all sizes."""
    rows = []
    for n_angles, n_frames, more in SIZES:
        with tempfile.TemporaryDirectory() as cache:
            found = measured(n_angles, n_frames, cache, 1)
            if more:
                found += measured(n_angles, n_frames, cache, 2)
        for how, x in zip(("empty cache", "warm cache", "same process"), found, strict=False):
            rows.append(_row(f"{n_angles} x {n_frames}", how, x))
    rows += [_row(f"1 x {n}, file", "empty cache", from_file(n)) for n in FILES]
    return Section(
        "Whole runs",
        "Seconds from the start of a process to judged draws with the default engine, import "
        "of the package, fit and compilation included, simulation of the data (independent "
        "errors) not; *same process* is another data set of the same shape in a process that "
        "has analysed one before; *file* is `heterodyne sample` on a file of "
        "`heterodyne simulate`, to the written report. *Fits* is the verdict on the residuals: "
        f"no where the fit has missed the truth. Machine: {machine()}.",
        ["angles x frames", "compiled code", "s", "engine", "R-hat", "bulk ESS", "memory, GiB",
         "converged", "fits"],
        rows,
    )  # fmt: skip


def _row(size: str, how: str, x: dict[str, Any]) -> list[str]:
    told = ("yes" if x[name] else "no" for name in ("converged", "fits"))
    cells = [size, how, f"{x['seconds']:.1f}", x["engine"], f"{x['r_hat']:.3f}",
             f"{x['ess']:.0f}", f"{x['gib']:.2f}", *told]  # fmt: skip
    print(" | ".join(cells), flush=True)
    return cells


if __name__ == "__main__":
    worker(*map(int, sys.argv[1:]))
