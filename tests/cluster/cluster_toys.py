"""Tasks that cost nothing, done as those of a run are: claimed, worked on, recorded.

As a program, it works them off on a cluster until it is stopped: FOLDER SECTION, the section
``cluster`` in JSON.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from heterodyne._events import Message
from heterodyne.cli import _tasks
from heterodyne.config._cluster import Cluster
from heterodyne.io.work_folder import Rules, Task, WorkFolder
from heterodyne.optimization.cmc.backends import _cluster_gate, _cluster_work, cluster

HERE = Path(__file__).parent
BEAT_S, SILENCE_S = 1, 5


def make_work(folder, count, seconds, stuck=0):
    """Make a folder of work.

    The last of its tasks are the largest. Some of them do not end at the first attempt.
    """
    folder.mkdir(exist_ok=True)
    times = [seconds] * (count - stuck) + [3600.0] * stuck
    tasks = [
        Task(f"task_{k:02d}", float(k + 1), {"seconds": time, "again": min(time, 1.0)})
        for k, time in enumerate(times)
    ]
    return WorkFolder.create(folder, "toy", tasks, Rules(silence=SILENCE_S, attempts=6))


def perform(folder, name):
    _tasks.KINDS["toy"] = (__name__, "do")
    return _tasks.perform(folder, name)


def do(folder, name, on_event):
    details = WorkFolder.open(folder).tasks[name].details
    seconds = details["again" if name in begun(folder) else "seconds"]
    with (folder / "begun.txt").open("a") as stream:
        stream.write(f"{name} {os.getpid()}\n")
    order = folder / f"die_{name}"
    if order.exists():
        order.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.02)
    names = ("OMP_NUM_THREADS", "JAX_COMPILATION_CACHE_DIR", "TOY")
    return {"pid": os.getpid()} | {name: os.environ.get(name) for name in names}


def fail(folder, name):
    raise ModuleNotFoundError("no module of that name on the nodes")


def begun(folder):
    """Names of the tasks in the order in which they were begun."""
    file = folder / "begun.txt"
    return [line.split()[0] for line in file.read_text().splitlines()] if file.exists() else []


def section(scheduler="local", **given):
    """A section ``cluster`` whose workers find this module."""
    init = [f"export PYTHONPATH={HERE}", *given.pop("worker_init", ())]
    return {"scheduler": scheduler, "worker_init": init} | given


def hurry(patch=setattr):
    """Look more often than is good for a real cluster."""
    patch(cluster, "_BEAT_S", BEAT_S)
    patch(cluster, "_SILENCE_S", SILENCE_S)
    patch(cluster, "_SCALE_S", 0.2)
    patch(_cluster_work, "_TICK_S", 0.1)
    patch(_cluster_work, "_LOOK_S", 0.4)
    patch(_cluster_gate, "_PAUSE_S", 0.1)


def work_off(folder, given, perform=perform, on_event=None):
    """Do the tasks of a folder; return what a person was told."""
    said = []

    def hear(event):
        if isinstance(event, Message):
            said.append(event.text)
        if on_event is not None:
            on_event(event)

    tasks = list(WorkFolder.open(folder).tasks.values())
    config = Cluster.model_validate(given)
    cluster.run_on_cluster(perform, folder, tasks, config, hear)
    return said


def start_driver(folder, given, **options):
    """Work the tasks of a folder off in another process."""
    command = [sys.executable, __file__, str(folder), json.dumps(given)]
    return subprocess.Popen(command, cwd=HERE, start_new_session=True, **options)


def processes(folder):
    """Processes, other than this one, that have files of a folder open or name it."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            texts = [*process.cmdline(), *(file.path for file in process.open_files())]
            if any(str(folder) in text for text in texts):
                found.append(process)
    return found


def wait_for(condition, seconds=60.0):
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it did not come about within {seconds} s"
        time.sleep(0.05)


if __name__ == "__main__":
    hurry()
    # A shell that starts tests in the background has its children ignore interrupts.
    for sent in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sent, signal.default_int_handler)
    # Workers have to find its functions by the name of the module.
    import cluster_toys

    work_off(Path(sys.argv[1]), json.loads(sys.argv[2]), cluster_toys.perform)
