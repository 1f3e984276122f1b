"""Whether shards of real runs survive what goes wrong: ``python -m benchmarks.shard_failures``.

As ``benchmarks.campaign``, with ``heterodyne sample`` on a small simulation that is divided into
shards. A number says how often each thing happens; from 5 on, the figures go to
docs/performance.md.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.campaign import COLUMNS, Repeat, Work, asked, repeat, row, told
from benchmarks.disturbances import DISTURBANCES, PATIENCE_S, await_begin
from benchmarks.interrupt import FINISHED, differing, leftovers
from benchmarks.performance import Section, machine
from benchmarks.runs import prepare, set_words
from heterodyne.io.run_folder import REPORT, SUMMARY
from heterodyne.io.work_folder import WORK, WorkFolder

COUNT = 5
N_FRAMES, N_SHARDS, WORKERS = 60, 4, 2
SETTINGS = {
    "sharding.num_shards": N_SHARDS,
    "sharding.min_points_per_shard": 100,
    "sharding.min_points_per_param": 1,
    # What is asked is whether draws are the same, not whether they are good.
    "combination.min_success_rate": 0.0,
    "validation.heterogeneity_abort": "false",
}
# So few unknowns, and so small errors, that few weighted points suffice.
DATA = ("--independent-errors", "0.002")
HELD = {"reference.alpha_ref": 0.2, "reference.D_offset_ref": 200, "velocity.v_offset": 20,
        "sample.D_offset_sample": -500, "angle.phi0": -2, "fraction.f1": -0.08,
        "fraction.f2": 1}  # fmt: skip
CHOSEN = ("a worker is killed", "the driver is killed", "a record is cut off")
TEXT = (
    "`heterodyne sample --workers {workers}` on 3 angles of {frames} frames from `heterodyne "
    "simulate {data}`, with {held} parameters held, divided into {shards} shards. At a moment that "
    "is random (seeded) and uniform over the {seconds:.1f} s that shards take in undisturbed work, "
    "a worker is killed (SIGKILL), the process of the run is killed, or a record is cut off. A run "
    "not whole by itself then is taken up by the same command. Draws are those of undisturbed "
    "work, variable by variable and bit by bit: **{identical} of {count}**. *Files left*: "
    "temporary ones and checkpoints. Machine: {machine}; load average {load:.1f} at the start."
)


def work(base: Path, expected: Path) -> Work:
    """A run of the data in a folder, and the folder of the undisturbed one."""

    def command(folder: Path) -> Sequence[str]:
        settings: dict[str, object] = {
            f"optimization.cmc.{key}": value for key, value in SETTINGS.items()
        }
        settings |= {"optimization.engine": "importance", "output.directory": str(folder)}
        settings |= {f"parameters.{key}.value": value for key, value in HELD.items()}
        settings |= {f"parameters.{key}.vary": "false" for key in HELD}
        words = [*set_words(settings), "--workers", f"{WORKERS}", "--quiet"]
        return [sys.executable, "-m", "heterodyne", "sample", str(base / "run.yaml"), *words]

    def is_whole(folder: Path) -> bool:
        left = set(leftovers(folder)) - {WORK}
        return all((folder / name).is_file() for name in (SUMMARY, REPORT)) and not left

    return Work(command, is_whole, lambda folder: differing(folder, expected), FINISHED)


def undisturbed(done: Work, base: Path, folder: Path) -> float:
    """Run to which nothing happens; returns the time of its shards in s."""
    driver = done.begin(folder, base)
    await_begin(folder)
    begun, end = time.monotonic(), time.monotonic() + PATIENCE_S
    while not is_settled(folder) and time.monotonic() < end:
        time.sleep(0.05)
    seconds, code = time.monotonic() - begun, driver.wait()
    if code not in FINISHED or not done.is_whole(folder):
        raise SystemExit(f"undisturbed work ends with code {code}, so nothing can be compared")
    return seconds


def is_settled(folder: Path) -> bool:
    """Whether there are shards, and all have a record."""
    return WorkFolder.is_in(folder) and not WorkFolder.open(folder).unsettled()


def section(seconds: float, repeats: Sequence[Repeat], load: float) -> Section:
    """Collect what was found."""
    text = TEXT.format(
        workers=WORKERS,
        frames=N_FRAMES,
        shards=N_SHARDS,
        data=" ".join(DATA),
        held=len(HELD),
        seconds=seconds,
        identical=sum(not one.different for one in repeats),
        count=len(repeats),
        machine=machine(),
        load=load,
    )
    rows = [row(what, [one for one in repeats if one.what == what]) for what in CHOSEN]
    return Section("Failures on real shards", text, COLUMNS, rows)


def main(args: Sequence[str]) -> int:
    """Disturb and compare, print what was found, and write it where the repeats suffice."""
    count, load = asked(args, "shard_failures", COUNT), os.getloadavg()[0]
    assert set(CHOSEN) <= set(DISTURBANCES)
    with tempfile.TemporaryDirectory(prefix="heterodyne-shard-failures-") as name:
        base = Path(name)
        # Compiled code of the user must not be damaged by processes that are killed.
        os.environ["XDG_CACHE_HOME"] = str(base / "cache")
        prepare(base, N_FRAMES, DATA)
        done = work(base, base / "warm")
        # The second run finds compiled code, as those that follow do.
        spans = [undisturbed(done, base, base / folder) for folder in ("cold", "warm")]
        different = differing(base / "cold", base / "warm")
        if different:
            raise SystemExit(f"undisturbed runs differ in {different}")
        print(f"undisturbed shards: {spans}", flush=True)
        order = [what for _ in range(count) for what in CHOSEN]
        repeats = [repeat(k, what, base, spans[1], done) for k, what in enumerate(order, 1)]
    return told(section(spans[1], repeats, load), repeats, keep=count >= COUNT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
