"""What may happen to processes that work off tasks, and what is left of them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.runs import processes_of
from heterodyne.io.work_folder import WorkFolder

SHARED = Path("/dev/shm")
# What a process whose driver has ended takes at most until it ends as well.
ORPHANS_S = 10.0
PATIENCE_S = 120.0


class Driver:
    """A process that has tasks worked off, and all that it starts."""

    def __init__(self, command: Sequence[str], temporary: Path) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=Path(__file__).parents[1],
            env={**os.environ, "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid

    def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        self._process.communicate(timeout=PATIENCE_S)
        return self._process.returncode

    def family(self) -> list[int]:
        """All processes of its session."""
        return [pid for pid, fields in processes_of(self.pid) if fields[0] != "Z"]

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send the driver a signal."""
        os.kill(self.pid, number)


def signal_worker(driver: Driver, folder: Path, rng: random.Random, number: int) -> None:
    """Send a signal to a process that has claimed a task."""
    family = set(driver.family()) - {driver.pid}
    state = WorkFolder.open(folder).state() if WorkFolder.is_in(folder) else None
    owners = [] if state is None else [
        one.seen.owner.pid for one in state.tasks if one.seen.owner is not None
    ]  # fmt: skip
    chosen = sorted(family & set(owners)) or sorted(family)
    if chosen:
        with suppress(ProcessLookupError):
            os.kill(rng.choice(chosen), number)


def kill_worker(driver: Driver, folder: Path, rng: random.Random) -> None:
    """Kill a worker."""
    signal_worker(driver, folder, rng, signal.SIGKILL)


def freeze_worker(driver: Driver, folder: Path, rng: random.Random) -> None:
    """Freeze a worker."""
    signal_worker(driver, folder, rng, signal.SIGSTOP)


def fill_disk(driver: Driver, folder: Path, rng: random.Random) -> None:
    """Leave no room on the file system."""
    with suppress(OSError), (folder / "fill").open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(1024))


def cut_record(driver: Driver, folder: Path, rng: random.Random) -> None:
    """Cut off a record, once there is one."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        records = sorted((folder / "work" / "done").glob("*.json"))
        if records:
            path = rng.choice(records)
            os.truncate(path, rng.randrange(path.stat().st_size - 1))
            return
        time.sleep(0.01)


def kill_driver(driver: Driver, folder: Path, rng: random.Random) -> None:
    """Kill the driver; its workers have to notice."""
    with suppress(ProcessLookupError):
        driver.kill()


Disturbance = Callable[[Driver, Path, random.Random], None]
DISTURBANCES: dict[str, tuple[Disturbance, float]] = {
    "a worker is killed": (kill_worker, 1.0),
    "a worker freezes": (freeze_worker, 0.25),
    "the disk is full": (fill_disk, 0.25),
    "a record is cut off": (cut_record, 0.25),
    "the driver is killed": (kill_driver, 0.25),
}
"""What happens, and how often beside the first."""


def segments() -> set[str]:
    """Segments of shared memory that no process has; those in use by others are theirs."""
    found = set(os.listdir(SHARED)) if SHARED.is_dir() else set[str]()
    for path in Path("/proc").glob("[0-9]*/maps") if found else ():
        with suppress(OSError):
            text = path.read_text()
            found = {name for name in found if f"{SHARED}/{name}" not in text}
    return found


def await_begin(folder: Path) -> None:
    """Wait until a worker has a task; starting takes longer than all else."""
    end = time.monotonic() + PATIENCE_S
    while not any((folder / "work" / "claims").glob("*.json")) and time.monotonic() < end:
        time.sleep(0.01)


def await_orphans(driver: Driver) -> None:
    """Give the processes of a driver that has ended time to notice it."""
    end = time.monotonic() + ORPHANS_S
    while driver.family() and time.monotonic() < end:
        time.sleep(0.05)
