"""Whether shared work survives what goes wrong: ``python -m benchmarks.campaign [COUNT]``.

Cheap tasks that compute known arrays, with checkpoints, are worked off by two processes while
something happens at a random moment; what they leave is compared with undisturbed work. From 20
repeats on, the figures go to docs/performance.md. ``benchmarks.shard_failures`` does the same to
shards of real runs.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.disturbances import (
    DISTURBANCES,
    Driver,
    await_begin,
    await_orphans,
    fill_disk,
    segments,
)
from benchmarks.performance import Section, machine, write
from heterodyne._events import Event, EventSink, Message, Progress
from heterodyne.cli import _tasks
from heterodyne.io import files
from heterodyne.io.work_folder import Rules, Task, WorkFolder
from heterodyne.optimization.cmc.backends._local_work import LocalWork, run_tasks

COUNT = 20
SEED = 1
N_TASKS, N_STEPS, STEP_S, SIZE = 8, 20, 0.02, 64
WORKERS = 2
RULES = Rules(silence=2.0)
KIND = "known"
ROOM_KIB = 600
# Exit code of a driver that says which tasks have no result.
LEFT = 3
COLUMNS = ("what happens", "repeats", "whole by itself", "whole by the same call",
           "said what was missing", "identical", "processes left", "files left")  # fmt: skip
TEXT = (
    f"{N_TASKS} tasks of {N_STEPS} steps with a checkpoint each are worked off by {WORKERS} "
    f"processes; a silence of {RULES.silence:g} s counts as the end of a worker. At a moment that "
    "is random (seeded) and uniform over the {seconds:.1f} s that undisturbed work takes from its "
    "first task on, a worker is killed (SIGKILL) or frozen (SIGSTOP), the file system is filled up "
    "for good (a tmpfs of {room} KiB), a record is cut off, or the driver is killed. Work not "
    "whole by itself then is taken up by the same call, on a full disk with room again. Results "
    "are those of undisturbed work, number by number: **{identical} of {count}**. *Files left*: "
    "temporary ones in the run folder and in the folder for temporary files, and segments of "
    "shared memory. Machine: {machine}; load average {load:.1f} at the start."
)

_tasks.KINDS[KIND] = ("benchmarks.campaign", "compute")


# What processes do.


def perform(folder: str, name: str) -> str | None:
    """Do a task, in a process that knows the kind."""
    return _tasks.perform(folder, name)


def compute(folder: Path, name: str, on_event: EventSink) -> Mapping[str, Any]:
    """Multiply random matrices, going on from the last step that was kept."""
    kept = folder / f"{name}.state.npz"
    state = files.read_npz(kept) if kept.exists() else start(name)
    for step in range(int(state["step"]), N_STEPS):
        rng = np.random.default_rng([step, *name.encode()])
        state = {"step": np.array(step + 1), "x": state["x"] @ rng.normal(size=(SIZE, SIZE)) / 8}
        files.write_npz(kept, state)
        on_event(Progress("steps", step + 1, N_STEPS))
        time.sleep(STEP_S)
    files.write_npz(folder / f"{name}.result.npz", {"x": state["x"]})
    return {"r_hat": 1.0, "divergences": 0}


def start(name: str) -> dict[str, Any]:
    """State before the first step."""
    return {"step": np.array(0), "x": np.random.default_rng(list(name.encode())).normal(size=SIZE)}


def drive(folder: Path) -> int:
    """Work off the tasks of a folder, and say what is left."""
    said: list[str] = []

    def hear(event: Event) -> None:
        if isinstance(event, Message):
            said.append(event.text)

    tasks = [Task(f"task-{k}", 1.0 + k) for k in range(N_TASKS)]
    work = WorkFolder.create(folder, KIND, tasks, RULES)
    work.free_failed()
    run_tasks(perform, folder, tasks, LocalWork(WORKERS), hear)
    missing = {task.name for task in work.unsettled()}
    problems = {name for name, one in work.records().items() if one.problem is not None}
    print("\n".join(said), flush=True)
    if not missing and not problems:
        return 0
    return LEFT if all(name in "".join(said) for name in missing | problems) else 1


@dataclass(frozen=True)
class Repeat:
    """Work that was disturbed.

    Attributes:
        what: What happened.
        alone: Whether it ended whole without another call.
        said: Whether the driver said which tasks have no result; None if it did not end so.
        calls: Number of calls until it was whole; 0 if it never was.
        different: Tasks whose results are not those of undisturbed work.
        processes: Processes left.
        files: Files left.
    """

    what: str
    alone: bool
    said: bool | None
    calls: int
    different: Sequence[str]
    processes: Sequence[int]
    files: Sequence[str]

    @property
    def well(self) -> bool:
        """Whether nothing is to be complained of."""
        ended = self.calls > 0 and self.said is not False
        return ended and not (self.different or self.processes or self.files)


# The comparison.


@dataclass(frozen=True)
class Work:
    """Work that is to be disturbed.

    Attributes:
        command: Has the tasks of a folder worked off, or goes on with them.
        is_whole: Whether the results in a folder are whole.
        differing: Results in a folder that are not those of undisturbed work.
        finished: Exit codes of the command where it has finished.
    """

    command: Callable[[Path], Sequence[str]]
    is_whole: Callable[[Path], bool]
    differing: Callable[[Path], Sequence[str]]
    finished: Sequence[int] = (0,)

    def begin(self, folder: Path, temporary: Path) -> Driver:
        """Start the command in a process."""
        return Driver(self.command(folder), temporary)


def driving(folder: Path) -> Sequence[str]:
    """Command that works off the tasks of a folder."""
    return [sys.executable, "-m", "benchmarks.campaign", "drive", str(folder)]


def results(folder: Path) -> dict[str, Any]:
    """Arrays of the tasks by name."""
    found = {}
    for path in sorted(folder.glob("*.result.npz")):
        found[path.name.partition(".")[0]] = files.read_npz(path)["x"]
    return found


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Tasks whose arrays are not identical."""
    return [
        name
        for name in sorted({*ours, *theirs})
        if name not in ours or name not in theirs or not np.array_equal(ours[name], theirs[name])
    ]


def is_whole(folder: Path) -> bool:
    """Whether every task has a record without a problem."""
    if not WorkFolder.is_in(folder):
        return False
    work = WorkFolder.open(folder)
    records = work.records()
    return len(records) == N_TASKS and all(one.problem is None for one in records.values())


@contextmanager
def place(what: str, base: Path) -> Iterator[Path]:
    """Folder of a run; one on a file system that can be filled up where that is to happen."""
    folder = Path(tempfile.mkdtemp(dir=base))
    if DISTURBANCES[what][0] is not fill_disk:
        yield folder
        return
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM_KIB}k", "tmpfs", str(folder)]
    subprocess.run(command, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def repeat(number: int, what: str, base: Path, seconds: float, work: Work) -> Repeat:
    """Disturb work once, take it up until it is whole, and compare."""
    rng = random.Random(SEED + number)
    temporary = Path(tempfile.mkdtemp(dir=base))
    shared = segments()
    drivers: list[Driver] = []
    with place(what, base) as folder:
        drivers.append(work.begin(folder, temporary))
        await_begin(folder)
        time.sleep(rng.random() * seconds)
        DISTURBANCES[what][0](drivers[0], folder, rng)
        code = drivers[0].wait()
        await_orphans(drivers[0])
        alone, calls = code in work.finished and work.is_whole(folder), 1
        (folder / "fill").unlink(missing_ok=True)
        while not work.is_whole(folder) and calls < 3:
            drivers.append(work.begin(folder, temporary))
            drivers[-1].wait()
            await_orphans(drivers[-1])
            calls += 1
        left = [path.name for path in folder.rglob(".*") if path.name != ".clock"]
        left += [path.name for path in temporary.iterdir()]
        left += sorted(segments() - shared)
        done = Repeat(
            what=what,
            alone=alone,
            said=None if code in (*work.finished, -signal.SIGKILL) else code == LEFT,
            calls=calls if work.is_whole(folder) else 0,
            different=work.differing(folder),
            processes=[pid for driver in drivers for pid in driver.family()],
            files=left,
        )
    print(f"{number} | {done}", flush=True)
    return done


def undisturbed(base: Path) -> tuple[float, dict[str, Any]]:
    """Duration from the first task on, and results, of work to which nothing happens."""
    folder, temporary = Path(tempfile.mkdtemp(dir=base)), Path(tempfile.mkdtemp(dir=base))
    Driver(driving(folder), temporary).wait()
    for path in folder.glob("*.npz"):
        path.unlink()
    WorkFolder.remove(folder)
    driver = Driver(driving(folder), temporary)
    await_begin(folder)
    begun = time.monotonic()
    if driver.wait() != 0 or not is_whole(folder):
        raise SystemExit("undisturbed work does not end, so nothing can be compared")
    return time.monotonic() - begun, results(folder)


def row(what: str, repeats: Sequence[Repeat]) -> list[str]:
    """Cells of what happened in one way."""
    said = [one.said for one in repeats if one.said is not None]
    return [
        what,
        f"{len(repeats)}",
        f"{sum(one.alone for one in repeats)}",
        f"{sum(not one.alone and one.calls > 0 for one in repeats)}",
        f"{sum(said)} of {len(said)}" if said else "–",
        f"{sum(not one.different for one in repeats)}",
        f"{sum(len(one.processes) for one in repeats)}",
        f"{sum(len(one.files) for one in repeats)}",
    ]


def section(seconds: float, repeats: Sequence[Repeat], load: float) -> Section:
    """Collect what was found."""
    text = TEXT.format(
        seconds=seconds,
        room=ROOM_KIB,
        identical=sum(not one.different for one in repeats),
        count=len(repeats),
        machine=machine(),
        load=load,
    )
    rows = [row(what, [one for one in repeats if one.what == what]) for what in DISTURBANCES]
    return Section(
        "Failures of workers", text, COLUMNS, [cells for cells in rows if cells[1] != "0"]
    )


def asked(args: Sequence[str], name: str, usual: int) -> int:
    """Number of repeats that a command line asks for; ends the process where it is none."""
    if len(args) > 1 or not all(word.isdecimal() and int(word) > 0 for word in args):
        print(f"usage: python -m benchmarks.{name} [COUNT], a number from 1 on")
        raise SystemExit(2)
    return int(args[0]) if args else usual


def told(found: Section, repeats: Sequence[Repeat], *, keep: bool) -> int:
    """Print what was found, write it to the documents on request; returns the exit code."""
    print(found.markdown())
    if keep:
        write(found)
    return 0 if all(one.well for one in repeats) else 1


def main(args: Sequence[str]) -> int:
    """Disturb and compare, print what was found, and write it where the repeats suffice."""
    if len(args) == 2 and args[0] == "drive":
        return drive(Path(args[1]))
    count, load = asked(args, "campaign", COUNT), os.getloadavg()[0]
    order = [
        what for what, (_, share) in DISTURBANCES.items() for _ in range(max(1, int(count * share)))
    ]
    with tempfile.TemporaryDirectory(prefix="heterodyne-campaign-") as name:
        base = Path(name)
        seconds, expected = undisturbed(base)
        work = Work(driving, is_whole, lambda folder: differing(results(folder), expected))
        print(f"undisturbed: {seconds:.1f} s", flush=True)
        repeats = []
        for number, what in enumerate(order, 1):
            try:
                repeats.append(repeat(number, what, base, seconds, work))
            except subprocess.CalledProcessError as error:
                print(f"{number} | {what}: left out, {error}")
    return told(section(seconds, repeats, load), repeats, keep=count >= COUNT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
