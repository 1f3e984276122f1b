"""The same code on a GPU and on the processors beside it: ``python -m benchmarks.gpu``.

Parts run one after the other, each in a process of its own with a time limit, and what they find
goes to a file of JSON lines at once, so a part that fails or hangs loses only itself. Given such
a file, which may come from another machine, the program writes its sections to
docs/performance.md: ``python -m benchmarks.gpu build/gpu.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks._gpu_sections import sections_of
from benchmarks.performance import PATH, Section, write

RESULTS = Path(__file__).parents[1] / "build" / "gpu.jsonl"
# Names of platforms as JAX_PLATFORMS takes them.
_PLATFORMS = {"gpu": "cuda,cpu", "cpu": "cpu"}
STARTED = "HETERODYNE_STARTED"
"""Variable with the time at which a process was started, in s since 1970."""
BUDGET = 420.0
"""Time for all parts in s."""
# A part is left out if less time, in s, is left for it.
_LEAST = 15.0
_OUTPUT = 12_000


class Part(NamedTuple):
    """One process.

    Attributes:
        name: What it is called in the file.
        words: What ``benchmarks._gpu_parts`` is to do.
        device: What JAX computes with by default.
        limit: Its longest time in s.
        cache: Folder of compiled code that it uses; parts that share it start warm.
    """

    name: str
    words: tuple[str, ...]
    device: str
    limit: float
    cache: str


# The most telling come first, in case that the time does not suffice for all.
PARTS = (
    Part("smoke", ("smoke",), "gpu", 90, "smoke"),
    Part("kernel", ("kernel", "200", "1000", "4000"), "gpu", 130, "kernel"),
    Part("1001 gpu", ("whole", "1001", "auto", "2"), "gpu", 180, "1001 gpu"),
    Part("1001 cpu", ("whole", "1001", "auto", "2"), "cpu", 90, "1001 cpu"),
    Part("183 gpu", ("whole", "183", "auto", "2"), "gpu", 120, "183 gpu"),
    Part("183 cpu", ("whole", "183", "auto", "2"), "cpu", 60, "183 cpu"),
    Part("1001 nuts cpu", ("whole", "1001", "nuts", "1"), "cpu", 90, "1001 cpu"),
    Part("1001 nuts gpu", ("whole", "1001", "nuts", "1"), "gpu", 90, "1001 gpu"),
    Part("kernel more", ("kernel", "500", "2000"), "gpu", 90, "kernel"),
    Part("1001 gpu warm", ("whole", "1001", "auto", "1"), "gpu", 60, "1001 gpu"),
)


def present() -> bool:
    """Whether JAX finds a GPU; asked in another process, for to ask reserves its memory."""
    code = "import jax; print(jax.devices()[0].platform)"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip().endswith("gpu")


def measure(
    path: Path,
    names: Sequence[str],
    budget: float = BUDGET,
    platforms: Mapping[str, str] = _PLATFORMS,
) -> None:
    """Run parts and add what they find to a file.

    Args:
        path: The file.
        names: Which parts; all of them if empty.
        budget: Time for all together in s.
        platforms: What JAX computes on, for each device.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + budget
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            if names and part.name not in names:
                continue
            limit = min(part.limit, end - time.monotonic())
            if limit < _LEAST:
                _add(path, part, {"failed": "left out: no time was left"})
                continue
            before = time.monotonic()
            cache = Path(folder) / part.cache.replace(" ", "-")
            _run(part, limit, cache, path, platforms)
            _add(path, part, {"took": time.monotonic() - before})


def _run(part: Part, limit: float, cache: Path, path: Path, platforms: Mapping[str, str]) -> None:
    """Run a part until it ends or its time is up."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": platforms[part.device],
        "XDG_CACHE_HOME": str(cache),
        "PYTHONUNBUFFERED": "1",
        STARTED: repr(time.time()),
    }
    words = [sys.executable, "-m", "benchmarks._gpu_parts", *part.words]
    process = subprocess.Popen(
        words,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    output: list[str] = []
    reader = threading.Thread(target=_read, args=(process, part, path, output), daemon=True)
    reader.start()
    why = ""
    try:
        if process.wait(limit) != 0:
            why = f"ended with {process.returncode}"
    except subprocess.TimeoutExpired:
        why = f"did not end within {limit:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    reader.join(5.0)
    if why:
        _add(path, part, {"failed": why, "output": "".join(output)[-_OUTPUT:]})


def _read(process: subprocess.Popen[str], part: Part, path: Path, output: list[str]) -> None:
    """Put lines of JSON into the file, and keep the others for the case of a failure."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            _add(path, part, json.loads(line))
        else:
            output.append(line)


def _add(path: Path, part: Part, found: Mapping[str, Any]) -> None:
    line = json.dumps({"part": part.name, "on": part.device, **found})
    with path.open("a", encoding="utf-8") as stream:
        stream.write(f"{line}\n")
    print(line[:300], flush=True)


def read(path: Path) -> list[dict[str, Any]]:
    """Read a file that ``measure`` wrote."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def sections() -> list[Section]:
    """Measure where there is a GPU; nothing, with a word about it, where there is none."""
    if not present():
        print("gpu: left out, since JAX finds no GPU on this machine")
        return []
    RESULTS.unlink(missing_ok=True)
    measure(RESULTS, ())
    return sections_of(read(RESULTS))


def main(words: list[str]) -> int:
    """Measure, or write the sections of what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("results", nargs="?", type=Path, help="file to write the sections of")
    parser.add_argument("--to", type=Path, default=RESULTS, help="file that results are added to")
    parser.add_argument("--budget", type=float, default=BUDGET, help="time for all parts in s")
    parser.add_argument(
        "--part", action="append", default=[], choices=[part.name for part in PARTS]
    )
    parser.add_argument(
        "--try-out", action="store_true", help="take the processor for the GPU; no result counts"
    )
    asked = parser.parse_args(words)
    if asked.results is not None:
        for section in sections_of(read(asked.results)):
            print(section.markdown())
            write(section)
        print(f"written to {PATH}")
        return 0
    if not asked.try_out and not present():
        print("gpu: left out, since JAX finds no GPU on this machine")
        return 2
    platforms = dict.fromkeys(_PLATFORMS, "cpu") if asked.try_out else _PLATFORMS
    measure(asked.to, asked.part, asked.budget, platforms)
    print(f"written to {asked.to}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
