"""Peak memory of whole runs against its prediction: ``python -m benchmarks memory``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.performance import Section, machine
from benchmarks.runs import prepare, set_words

# Angles, frames, shards, engine.
SIZES = (
    (3, 183, 1, "auto"),
    (3, 300, 16, "auto"),
    (3, 1001, 1, "auto"),
    (23, 501, 1, "auto"),
    # One angle tells so little that NUTS would take over, for minutes.
    (1, 2000, 1, "importance"),
    (3, 3000, 1, "importance"),
)
ARC = (-30.0, 70.0)
SHARDING = {"min_points_per_shard": 1000, "min_points_per_param": 100}
COLUMNS = (
    "angles x frames",
    "shards",
    "engine",
    "predicted, MiB",
    "measured, MiB",
    "predicted / measured",
)
TEXT = (
    "Largest resident memory of `heterodyne sample` on data from `heterodyne simulate`, as whole "
    "processes with an empty cache of compiled code, against what `heterodyne check` says before. "
    "Shards are drawn by the process of the run. The largest deviation is **{worst:.0%}**. "
    "Machine: {machine}."
)
_DONE = (0, 3)
_MIB = 2**20


def _predicted(base: Path, words: Sequence[str]) -> float:
    command = [sys.executable, "-m", "heterodyne", "check", "run.yaml", *words, "--json"]
    done = subprocess.run(command, cwd=base, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["predicted"]["memory_bytes"]


def peak(base: Path, *words: str) -> int:
    """Run a command with an empty cache; returns its largest resident memory in bytes."""
    environment = os.environ | {"XDG_CACHE_HOME": f"{base / 'cache'}"}
    command = [sys.executable, "-m", "heterodyne", *words, "--quiet"]
    process = subprocess.Popen(command, cwd=base, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in _DONE:
        raise SystemExit(f"{' '.join(words)}: exit code {process.returncode}")
    return used.ru_maxrss * 1024


def measured(n_angles: int, n_frames: int, n_shards: int, engine: str) -> tuple[float, float]:
    """Memory in bytes that is predicted for a run, and that it takes."""
    angles = np.linspace(*ARC, n_angles) if n_angles != 3 else (-20.0, 0.0, 40.0)
    with tempfile.TemporaryDirectory(prefix="heterodyne-memory-") as folder:
        base = Path(folder)
        at = [word for angle in angles for word in ("--angle", f"{angle:g}")]
        prepare(base, n_frames, at)
        shards = SHARDING | {"num_shards": n_shards} if n_shards > 1 else {}
        settings: dict[str, object] = {
            f"optimization.cmc.sharding.{k}": v for k, v in shards.items()
        }
        settings |= {"optimization.cmc.backend_config.name": "cpu", "optimization.engine": engine}
        words = set_words(settings)
        return _predicted(base, words), peak(base, "sample", "run.yaml", *words)


def section() -> Section:
    """Measure all sizes."""
    rows, ratios = [], []
    for size in SIZES:
        predicted, found = measured(*size)
        ratios.append(predicted / found)
        rows.append(row(size, predicted, found))
        print(" | ".join(rows[-1]), flush=True)
    return described(rows, ratios)


def row(size: tuple[int, int, int, str], predicted: float, found: float) -> list[str]:
    """Cells of one size; memory in bytes."""
    n_angles, n_frames, n_shards, engine = size
    shards = f"{n_shards}" if n_shards > 1 else "–"
    sizes = [f"{x / _MIB:.0f}" for x in (predicted, found)]
    return [f"{n_angles} x {n_frames}", shards, engine, *sizes, f"{predicted / found:.2f}"]


def described(rows: Sequence[Sequence[str]], ratios: Sequence[float]) -> Section:
    """Put the rows under what was measured."""
    text = TEXT.format(worst=max(abs(ratio - 1.0) for ratio in ratios), machine=machine())
    return Section("Memory", text, COLUMNS, rows)
