"""A stand-in for PBS on PATH, and a stand-in for the Python that a job runs."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time
from pathlib import Path

import numpy as np

STAND_IN = Path(__file__).with_name("pbs_stand_in.py")

# What a job does instead of sampling: the next word of the plan of its shard, or "good".
_PYTHON = """#!/bin/sh
plan="{plans}/$5"
echo "$5" >>"{plans}/starts"
echo "module $2 of shard $5"
word=good
if [ -s "$plan" ]; then
    word=$(head -n 1 "$plan")
    sed -i 1d "$plan"
fi
result="$3/result_shard_0000$5.npz"
case $word in
    good) cp "{plans}/$5.npz" "$3/.partial$5" && mv "$3/.partial$5" "$result" ;;
    slow) sleep 0.4; cp "{plans}/$5.npz" "$3/.partial$5" && mv "$3/.partial$5" "$result" ;;
    fail) echo "ValueError: shard $5 is broken" >&2; exit 3 ;;
    silent) exit 0 ;;
    damaged) head -c 100 "{plans}/$5.npz" >"$result" ;;
    pickled) cp "{plans}/pickled.npz" "$result" ;;
    hang) exec sleep 60 ;;
esac
"""


class Cluster:
    """The stand-in, with what was asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "server"
        self.plans = folder / "plans"
        self.shared = folder / "shared"
        self.programs = folder / "bin"
        for made in (self.folder, self.plans, self.shared, self.programs):
            made.mkdir()
        for name in ("qsub", "qstat", "qdel"):
            command = f'exec "{sys.executable}" -I -S "{STAND_IN}" "{self.folder}" {name} "$@"'
            self._program(name, f"#!/bin/sh\n{command}\n")
        self.python = str(self._program("fake_python", _PYTHON.format(plans=self.plans)))
        for shard in range(5):
            np.savez(self.plans / f"{shard}.npz", **{"draws.x": draws_of(shard)})
        np.savez(self.plans / "pickled.npz", **{"draws.x": np.array([object()])})

    def _program(self, name: str, text: str) -> Path:
        path = self.programs / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    def plan(self, **words: str) -> None:
        """Say what the jobs of shards do one after the other, as ``shard_2="fail good"``."""
        for shard, text in words.items():
            lines = "".join(f"{word}\n" for word in text.split())
            (self.plans / shard.removeprefix("shard_")).write_text(lines)

    def settings(self, **values: object) -> None:
        partial = self.folder / ".settings"
        partial.write_text(json.dumps(values))
        partial.replace(self.folder / "settings.json")

    def calls(self, program: str) -> list[list[str]]:
        path = self.folder / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [call[1:] for call in map(json.loads, lines) if call[0] == program]

    def starts(self) -> list[int]:
        """Shards in the order in which jobs of them began."""
        path = self.plans / "starts"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def jobs(self) -> list[dict]:
        return [json.loads(p.read_text()) for p in sorted(self.folder.glob("job_*.json"))]

    def purge(self) -> None:
        """Let the server forget all jobs."""
        for path in self.folder.glob("job_*.json"):
            job = json.loads(path.read_text())
            path.write_text(json.dumps({**job, "purged": True}))

    def undelivered(self) -> list[Path]:
        return list(self.folder.glob("undelivered*"))

    def wait_until(self, condition) -> None:
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.01)

    def close(self) -> None:
        for path in self.folder.glob("job_*.json"):
            job = json.loads(path.read_text())
            if job["state"] == "Q":
                path.write_text(json.dumps({**job, "state": "F", "status": 0}))
            if job["state"] == "R":
                try:
                    os.killpg(job["pid"], signal.SIGKILL)
                except ProcessLookupError:
                    continue


def draws_of(shard: int) -> np.ndarray:
    return np.arange(4.0) + 10 * shard
