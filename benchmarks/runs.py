"""Runs of ``heterodyne`` that benchmarks start, and what the system tells of processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path


def set_words(settings: Mapping[str, object]) -> list[str]:
    """Command-line words that replace entries of a run file."""
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def prepare(base: Path, n_frames: int, options: Sequence[str] = ()) -> None:
    """Write data and run file; options are those of ``heterodyne simulate``."""
    for words in (
        ["simulate", "data.h5", "--frames", f"{n_frames}", *options, "--quiet"],
        ["init", "data.h5", "-o", "run.yaml"],
    ):
        command = [sys.executable, "-m", "heterodyne", *words]
        subprocess.run(command, cwd=base, check=True, stdout=subprocess.DEVNULL)


def processes_of(session: int) -> Iterator[tuple[int, list[str]]]:
    """Numbers of the processes of a session, and what /proc/[pid]/stat tells from the state on."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                yield int(path.parent.name), fields
