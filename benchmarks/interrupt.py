"""Whether runs survive SIGTERM: ``python -m benchmarks.interrupt [COUNT]``.

Runs of the command line are stopped at random moments and run again; what they leave is
compared with an undisturbed run. From 20 repeats on, the figures go to docs/performance.md.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray

from benchmarks.performance import Section, machine, write
from benchmarks.runs import set_words
from heterodyne.cli.main import INTERRUPTED
from heterodyne.io.run_folder import FIT, MANIFEST, POSTERIOR, REPORT, RESULTS, SUMMARY, checkpoint

COUNT = 20
SEED = 1
ENGINES = ("nuts", "auto")
TWICE = 3  # every so many repeats the resumed run is stopped, too
# So little information that importance sampling hands over to NUTS: all kinds of checkpoints.
DATA = ("--frames", "30", "--angle", "0", "--pixels", "200")
HELD = {"reference.alpha_ref": 0.2, "reference.D_offset_ref": 200, "velocity.v_offset": 20,
        "sample.D_offset_sample": -500, "angle.phi0": -2}  # fmt: skip
MCMC = {"num_chains": 2, "num_warmup": 200, "num_samples": 150, "max_tree_depth": 6,
        "adaptive_sampling": "false"}  # fmt: skip
FINISHED = (0, 3)
UNHEARD = "unheard"
# A process that has done its work ignores signals while it ends, and takes no longer for that.
LEAVING_S = 2.0
# Before Python runs any code of ours there is nothing to lose.
KILLED = 128 + signal.SIGTERM
PATIENCE_S = 600.0  # blocks and compilations end before a signal acts; later, a process hangs
COLUMNS = ("engine", "SIGTERM after, s", "stage", "ended later by, s", "exit codes",
           "draws identical", "left behind")  # fmt: skip
TEXT = (
    "`heterodyne sample` on a small simulation (`{data}`) is stopped by SIGTERM at a moment that "
    "is random (seeded) and uniform over the duration of an undisturbed run ({durations}), in "
    "every third repeat once more while it goes on, and then run to its end. *Stage* is what the "
    "files of the run tell; *done*: it was over before the signal, *unheard*: it went on to its "
    "end. Draws exactly those of the undisturbed run, variable by variable: **{identical} of "
    "{count}**; stopped with exit code 130, unless done: {codes} of {count}; no checkpoint or "
    "temporary file left: {clean} of {count}. Undisturbed runs that compile and that find compiled "
    "code agree as well. Machine: {machine}; load average {load:.1f} at the start."
)


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: Exit code, or 128 and the number of the signal that ended it.
        seconds: How long it ran.
        moment: When SIGTERM was due, in s after the start; 0 for never.
        stage: How far it came.
    """

    code: int
    seconds: float
    moment: float
    stage: str


@dataclass(frozen=True)
class Repeat:
    """A run that was stopped and run again.

    Attributes:
        engine: What drew.
        ends: How each of its processes ended; all but a last one that finished were stopped.
        code: Exit code of the undisturbed run.
        different: Variables whose draws are not those of the undisturbed run.
        left: Files that no finished run has.
    """

    engine: str
    ends: Sequence[Ended]
    code: int
    different: Sequence[str]
    left: Sequence[str]

    @property
    def codes_hold(self) -> bool:
        """Whether each process that got SIGTERM stopped with its code, and the last finished."""
        last = self.ends[-1].code
        heard = all(ended.stage != UNHEARD for ended in self.ends)
        early = {ended.code for ended in self.ends if ended.stage == "start"} <= {
            INTERRUPTED,
            KILLED,
        }
        late = {ended.code for ended in self.ends[:-1] if ended.stage != "start"}
        return heard and early and late <= {INTERRUPTED} and last == self.code

    def cells(self) -> list[str]:
        """Describe the repeat, a cell for each column."""
        sent = [ended for ended in self.ends if ended.moment]
        return [
            self.engine,
            ", then ".join(f"{ended.moment:.1f}" for ended in sent),
            ", then ".join(ended.stage for ended in sent),
            ", ".join(f"{max(0.0, ended.seconds - ended.moment):.1f}" for ended in sent),
            ", ".join(f"{ended.code}" for ended in self.ends),
            f"no: {', '.join(self.different)}" if self.different else "yes",
            ", ".join(self.left) or "–",
        ]


@dataclass(frozen=True)
class Bench:
    """A folder with data, a run file, and a cache of compiled code of its own."""

    folder: Path

    def run(self, words: Sequence[str], name: str, moment: float = 0.0) -> Ended:
        """Run a command, with SIGTERM at a moment unless it is 0; the log gets that name."""
        # A process that is stopped must not damage the compiled code of the user.
        env = os.environ | {"XDG_CACHE_HOME": f"{self.folder / 'cache'}"}
        env.pop("JAX_COMPILATION_CACHE_DIR", None)
        command = [sys.executable, "-m", "heterodyne", *words]
        how: dict[str, Any] = {"cwd": self.folder, "env": env, "stderr": subprocess.STDOUT}
        log_file, started, sent = self.folder / f"{name}.log", time.monotonic(), False
        with log_file.open("wb") as log, subprocess.Popen(command, stdout=log, **how) as process:
            try:
                if moment:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(moment)
                    sent = process.poll() is None
                    process.send_signal(signal.SIGTERM)
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                print(f"{name} hangs: {' '.join(words)}", flush=True)
            finally:
                process.kill()
        seconds, code = time.monotonic() - started, process.returncode
        code = 128 - code if code < 0 else code  # as a shell tells it, where 130 is a SIGINT, too
        if code not in (*FINISHED, INTERRUPTED):
            print(f"{name}: exit code {code}\n{log_file.read_text('utf-8')[-3000:]}", flush=True)
        finished = UNHEARD if sent and seconds > moment + LEAVING_S else "done"
        found = finished if code in FINISHED else stage(self.folder / name)
        return Ended(code, seconds, moment, found)

    def sample(self, engine: str, name: str, moment: float = 0.0) -> Ended:
        """Draw into the folder of that name."""
        settings = {f"cmc.per_shard_mcmc.{key}": value for key, value in MCMC.items()}
        settings |= {"engine": engine, "nlsq.n_starts": 2}
        settings = {f"optimization.{key}": value for key, value in settings.items()}
        settings |= {f"parameters.{key}.value": value for key, value in HELD.items()}
        settings |= {f"parameters.{key}.vary": "false" for key in HELD}
        settings |= {"output.directory": f"{self.folder / name}"}
        words = set_words(settings)
        return self.run(["sample", "run.yaml", *words], name, moment)

    def undisturbed(self, engine: str) -> Ended:
        """Run an engine without compiled code at hand, and again with it."""
        cold, warm = self.sample(engine, f"{engine}_cold"), self.sample(engine, engine)
        different = differing(self.folder / f"{engine}_cold", self.folder / engine)
        print(f"{engine}: {cold.seconds:.1f} s, then {warm.seconds:.1f} s", flush=True)
        if different or warm.code not in FINISHED:
            raise SystemExit(f"undisturbed runs differ in {different}, so nothing can be compared")
        return warm

    def repeat(self, number: int, engine: str, whole: Ended) -> Repeat:
        """Stop a run, perhaps twice, run it to its end, and compare."""
        name, rng, duration = f"repeat_{number}", random.Random(SEED + number), whole.seconds
        first = rng.random() * duration
        # A resumed run has less to draw, but starts and fits anew.
        second = rng.random() * max(duration - first, duration / 2)
        ends: list[Ended] = []
        for moment in (first, second, 0.0) if number % TWICE == 0 else (first, 0.0):
            ends.append(self.sample(engine, name, moment))
            if ends[-1].code in FINISHED:
                break
        results = self.folder / name
        different = differing(results, self.folder / engine)
        done = Repeat(engine, ends, whole.code, different, leftovers(results))
        print(f"{number} | {' | '.join(done.cells())}", flush=True)
        return done


def stage(results: Path) -> str:
    """Say how far a run has come, from the files in its folder."""
    if not (results / MANIFEST).exists():
        return "start"
    if (results / SUMMARY).exists():
        return "exit" if (results / REPORT).exists() else "report"
    kept = max(results.glob(checkpoint("*")), key=lambda f: f.stat().st_mtime_ns, default=None)
    if kept is not None:
        return kept.stem.partition("_")[2].replace("_", " ")
    return "first block" if (results / FIT).exists() else "fit"


def differing(ours: Path, theirs: Path) -> list[str]:
    """Names of the variables in which the draws of two run folders are not identical."""
    if not (ours / POSTERIOR).exists():
        return [f"no {POSTERIOR}"]
    a, b = (_variables(folder / POSTERIOR) for folder in (ours, theirs))
    same = {n for n in a.keys() & b.keys() if a[n].dtype == b[n].dtype and a[n].identical(b[n])}
    return sorted((a.keys() | b.keys()) - same)


def _variables(path: Path) -> dict[str, xarray.Variable]:
    tree = xarray.load_datatree(path, engine="h5netcdf")
    return {f"{node.path}/{n}": x for node in tree.subtree for n, x in node.variables.items()}


def leftovers(results: Path) -> list[str]:
    """Names of the files that no finished run has, such as checkpoints."""
    return sorted({file.name for file in results.glob("*")} - {MANIFEST, *RESULTS})


def section(whole: dict[str, Ended], repeats: Sequence[Repeat], load: float) -> Section:
    """Collect what was found."""
    text = TEXT.format(
        data=f"heterodyne simulate {' '.join(DATA)}",
        durations=", ".join(f"{name}: {ended.seconds:.0f} s" for name, ended in whole.items()),
        identical=sum(not r.different for r in repeats),
        codes=sum(r.codes_hold for r in repeats),
        clean=sum(not r.left for r in repeats),
        count=len(repeats),
        machine=machine(),
        load=load,
    )
    return Section("Interruption", text, COLUMNS, [r.cells() for r in repeats])


def main(args: Sequence[str]) -> int:
    """Stop and compare so many runs, print what was found, and write it where they suffice."""
    if len(args) > 1 or not all(word.isdecimal() and int(word) > 0 for word in args):
        print("usage: python -m benchmarks.interrupt [COUNT], a number from 1 on")
        return 2
    count, load = int(args[0]) if args else COUNT, os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="heterodyne-interrupt-") as folder:
        bench = Bench(Path(folder))
        bench.run(["simulate", "data.h5", *DATA], "simulate")
        bench.run(["init", "data.h5", "-o", "run.yaml"], "init")
        whole = {engine: bench.undisturbed(engine) for engine in ENGINES[:count]}
        order = [(k + 1, ENGINES[k % len(ENGINES)]) for k in range(count)]
        repeats = [bench.repeat(number, engine, whole[engine]) for number, engine in order]
    found = section(whole, repeats, load)
    print(found.markdown())
    if count >= COUNT:
        write(found)
    return 0 if all(r.codes_hold and not (r.different or r.left) for r in repeats) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
