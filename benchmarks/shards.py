"""Shards by one worker and by two, as whole processes: ``python -m benchmarks shards``."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray

from benchmarks import _compilations
from benchmarks._compilations import Compilation, compilations
from benchmarks.interrupt import differing
from benchmarks.performance import Section, machine
from benchmarks.runs import prepare, processes_of, set_words
from heterodyne.io.run_folder import POSTERIOR
from heterodyne.io.work_folder import WorkFolder

N_FRAMES, N_SHARDS = 300, 16
SETTINGS = {"num_shards": N_SHARDS, "min_points_per_shard": 1000, "min_points_per_param": 100}
IN_ONE, ALONE, SIDE_BY_SIDE = "one worker, one core", "one worker, two cores", "two workers"
CASES: Mapping[str, tuple[str | None, Sequence[str]]] = {
    IN_ONE: ("0", ("--workers", "1")),
    ALONE: (None, ("--workers", "1")),
    SIDE_BY_SIDE: (None, ("--workers", "2")),
}
"""Processors that the run is confined to (None for none), and its options."""
_LOOK_S, _TICKS = 0.2, os.sysconf("SC_CLK_TCK")
COLUMNS = ("who draws the shards", "shards, s", "their CPU, s", "two workers over it",
           "whole run, s", "CPU, s", "compiled by the run", "by its workers",
           "draws identical")  # fmt: skip
TEXT = (
    "`heterodyne sample` on 3 angles of {frames} frames from `heterodyne simulate`, divided into "
    "{shards} shards, as whole processes, each with an empty cache of compiled code. The engine "
    "is `importance`, for as much work in each run: with `auto` a shard whose weights are not good "
    "enough is walked, which takes as long as several others (1 of 48 shards). *Shards*: "
    "from the moment that the tasks are written until the last one has its record, so that the "
    "start of the workers counts; *CPU* is that of all processes of the run. One worker on two "
    "cores weighs points in two threads, so the time on one core is what a second core can be "
    "measured by: two workers take **{one:.2f}** of it, and {two:.2f} of that of one worker with "
    "two cores. *Compiled*: functions that were not found among the compiled code that is kept "
    "(an event of JAX), in brackets how often the one that weighs points is among them: for "
    "shards, for all pairs and for the corrected likelihood. *Draws identical*: variable by "
    "variable those of two workers; on one core sums of the fit are added up in another order, "
    "and draws differ from its last digits on. Machine: {machine}; load average {load:.1f} at "
    "the start."
)


@dataclass(frozen=True)
class Measured:
    """What a run took.

    Attributes:
        folder: Folder of the run.
        shards: Time of the shards in s.
        shards_cpu: CPU time meanwhile in s.
        whole: Time of the run in s.
        cpu: CPU time of the run in s.
        run: What the process of the run compiled.
        workers: What its workers compiled.
    """

    folder: Path
    shards: float
    shards_cpu: float
    whole: float
    cpu: float
    run: Sequence[Compilation]
    workers: Sequence[Compilation]


def cpu_seconds(session: int) -> float:
    """CPU time in s of the processes of a session, and of those that they have waited for."""
    ticks = sum(sum(map(int, fields[11:15])) for _, fields in processes_of(session))
    return ticks / _TICKS


def measure(base: Path, name: str) -> Measured:
    """Sample with an empty cache, and look on."""
    cores, options = CASES[name]
    folder, cache, log = (base / f"{name} {what}" for what in ("results", "cache", "compiled"))
    log.mkdir()
    settings = {f"optimization.cmc.sharding.{key}": value for key, value in SETTINGS.items()}
    settings |= {"output.directory": folder, "optimization.engine": "importance"}
    command = [sys.executable, "-m", "benchmarks.shards", "sample", f"{base / 'run.yaml'}"]
    command += set_words(settings)
    command = [*([] if cores is None else ["taskset", "-c", cores]), *command, *options, "--quiet"]
    environment = os.environ | {"XDG_CACHE_HOME": f"{cache}", _compilations.FOLDER: f"{log}"}
    began = time.monotonic()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    ) as process:
        marks = [_mark(process, folder, done) for done in (False, True)]
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    whole = time.monotonic() - began
    if process.returncode not in (0, 3):
        raise SystemExit(f"{name}: exit code {process.returncode}")
    found = compilations(log)
    return Measured(
        folder,
        marks[1][0] - marks[0][0],
        marks[1][1] - marks[0][1],
        whole,
        used.ru_utime + used.ru_stime,
        [one for one in found if one.process == process.pid],
        [one for one in found if one.process != process.pid],
    )


def _mark(process: subprocess.Popen[bytes], folder: Path, done: bool) -> tuple[float, float]:
    """Wait until tasks are there, or done; return the time and the CPU time so far."""
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if WorkFolder.is_in(folder) and not (done and WorkFolder.open(folder).unsettled()):
            break
        time.sleep(_LOOK_S)
    return time.monotonic(), cpu_seconds(process.pid)


def _cells(name: str, one: Measured, best: Measured) -> list[str]:
    different = differing(one.folder, best.folder)
    return [
        name,
        f"{one.shards:.1f}",
        f"{one.shards_cpu:.1f}",
        f"{best.shards / one.shards:.2f}",
        f"{one.whole:.1f}",
        f"{one.cpu:.1f}",
        _compiled(one.run),
        _compiled(one.workers),
        f"no: means differ by {_means_apart(one.folder, best.folder):.1g} sd"
        if different
        else "yes",
    ]


def _means_apart(ours: Path, theirs: Path) -> float:
    """Largest difference of the means of unknowns of two run folders, in standard deviations."""
    a, b = (
        xarray.load_dataset(folder / POSTERIOR, group="posterior", engine="h5netcdf")
        for folder in (ours, theirs)
    )
    apart = abs(a.mean(("chain", "draw")) - b.mean(("chain", "draw"))) / b.std(("chain", "draw"))
    return max(float(x.max()) for x in apart.values())


def _compiled(found: Sequence[Compilation]) -> str:
    points = sum(one.name == "jit(complete)" for one in found)
    return f"{len(found)} ({points}), {sum(one.seconds for one in found):.1f} s"


def section() -> Section:
    """Measure all ways."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="heterodyne-shards-") as folder:
        base, found = Path(folder), dict[str, Measured]()
        prepare(base, N_FRAMES)
        for name in CASES:
            found[name] = measure(base, name)
            print(f"{name}: {found[name].shards:.1f} s", flush=True)
        best = found[SIDE_BY_SIDE]
        rows = [_cells(name, one, best) for name, one in found.items()]
    text = TEXT.format(
        frames=N_FRAMES,
        shards=N_SHARDS,
        one=best.shards / found[IN_ONE].shards,
        two=best.shards / found[ALONE].shards,
        machine=machine(),
        load=load,
    )
    return Section("Shards on two cores", text, COLUMNS, rows)


# Workers are spawned, and run this module as well.
_compilations.listen()

if __name__ == "__main__":
    from heterodyne.cli.main import main

    sys.exit(main(sys.argv[1:]))
