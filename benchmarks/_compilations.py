"""What JAX compiles, process by process: logs that are written where the environment asks."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = "HETERODYNE_COMPILATIONS"
"""Variable with the folder of the logs."""

_MISS = "/jax/compilation_cache/cache_misses"
_COMPILED = "/jax/core/compile/backend_compile_duration"


class Compilation(NamedTuple):
    """A function that was compiled, and not found among the compiled code that is kept.

    Attributes:
        process: Number of the process.
        name: Name of the function.
        seconds: How long it took.
        time: When it ended, in s since 1970.
    """

    process: int
    name: str
    seconds: float
    time: float


def listen() -> None:
    """Log what this process compiles from now on, if the environment asks for it."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        return
    import jax

    path, missed = Path(folder) / f"{os.getpid()}.jsonl", threading.local()

    def note_miss(event: str, **about: Any) -> None:
        if event == _MISS:
            missed.last = True

    # The time is told whether code was compiled or found; which of both, the event before.
    def note_time(event: str, duration_secs: float, **about: Any) -> None:
        if event == _COMPILED and getattr(missed, "last", False):
            missed.last = False
            line = json.dumps([os.getpid(), str(about.get("fun_name")), duration_secs, time.time()])
            with path.open("a", encoding="utf-8") as stream:
                stream.write(f"{line}\n")

    jax.monitoring.register_event_listener(note_miss)
    jax.monitoring.register_event_duration_secs_listener(note_time)


def compilations(folder: Path) -> Sequence[Compilation]:
    """Read the logs of all processes, in the order of time."""
    lines = [line for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    return sorted((Compilation(*json.loads(line)) for line in lines), key=lambda one: one.time)
