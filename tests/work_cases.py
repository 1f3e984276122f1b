"""Tasks whose results are known, done in whatever way a test asks for."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from heterodyne._errors import ConfigError, DataError, InterruptedRunError
from heterodyne._events import Message, Progress
from heterodyne.cli import _tasks
from heterodyne.io import files
from heterodyne.io._claims import Claims
from heterodyne.io.work_folder import WorkFolder

KIND = "toy"
_tasks.KINDS[KIND] = ("work_cases", "toy")


@dataclass
class FakeClock:
    """A clock that a test sets, for claims."""

    time: float = 1e9
    path: object = field(default=None)

    def now(self, folder):
        return self.time

    def touch(self, path):
        os.utime(path, (self.time, self.time))


def with_clock(work, clock):
    return WorkFolder(work.path, work.kind, work.tasks, work.rules, Claims(work.claims.path, clock))


def perform(folder, name):
    """As the real one, in a process that knows the toys."""
    return _tasks.perform(folder, name)


def toy(folder, name, on_event):
    task = WorkFolder.open(folder).tasks[name]
    on_event(Progress("toy", 1, 2, {"divergences": 0}))
    globals()[f"do_{task.details.get('do', 'nothing')}"](folder, task, on_event)
    result = folder / f"{name}.result.json"
    with (folder / f"{name}.runs").open("a") as stream:
        stream.write("x")
    files.write_json(result, value(name))
    return {"r_hat": 1.0 + len(name) / 100, "divergences": 1}


def value(name):
    """What a task computes."""
    return hashlib.sha256(name.encode()).hexdigest()


def runs(folder, name):
    """How often a task came to its result."""
    path = Path(folder) / f"{name}.runs"
    return len(path.read_text()) if path.exists() else 0


def do_nothing(folder, task, on_event):
    pass


def do_sleep(folder, task, on_event):
    time.sleep(task.details["seconds"])


def do_wait(folder, task, on_event):
    """Wait until the file ``go`` is there."""
    (folder / f"{task.name}.waits").touch()
    until((folder / "go").exists)


def do_raise(folder, task, on_event):
    raise ValueError("a value that is wrong")


def do_refuse(folder, task, on_event):
    on_event(Message("a warning before", "warning"))
    raise DataError("data that cannot be used", where="toy")


def do_leave(folder, task, on_event):
    raise SystemExit(7)


def do_full(folder, task, on_event):
    if not (folder / "room").exists():
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise ConfigError("the file cannot be written (No space left)") from error


def do_interrupted(folder, task, on_event):
    try:
        do_wait(folder, task, on_event)
    except KeyboardInterrupt:
        raise InterruptedRunError("the toy was stopped") from None


def do_kill(folder, task, on_event):
    os.kill(os.getpid(), signal.SIGKILL)


def do_kill_once(folder, task, on_event):
    if first(folder, task):
        os.kill(os.getpid(), signal.SIGKILL)


def do_stop_once(folder, task, on_event):
    """Freeze the process the first time."""
    if first(folder, task):
        os.kill(os.getpid(), signal.SIGSTOP)


def first(folder, task):
    mark = folder / f"{task.name}.mark"
    if mark.exists():
        return False
    mark.touch()
    return True


def until(holds, seconds=60.0):
    """Wait for something that comes soon; fail long after."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"{holds} does not hold")
        time.sleep(0.005)


if __name__ == "__main__":
    import work_cases  # noqa: F401
    from heterodyne.cli.main import run

    sys.argv[0] = "heterodyne"
    run()
