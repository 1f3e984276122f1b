"""Models and functions for worker processes, which import them by name: no JAX at the top."""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path

DATA = (0.3, -1.2, 2.1, 0.8, 1.7, -0.4)


def model():
    """A normal level of unit noise, whose posterior is known, and a rate."""
    import numpyro
    import numpyro.distributions as dist

    from heterodyne.core._jax import jnp

    level = numpyro.sample("level", dist.Normal(0.0, 10.0))
    numpyro.sample("rate", dist.LogNormal(0.5, 0.5))
    numpyro.sample("y", dist.Normal(level, 1.0), obs=jnp.asarray(DATA))


class MarkedModel:
    """The model, but the first process that calls it is killed."""

    def __init__(self, folder):
        self.mark = str(Path(folder) / "killed")

    def __call__(self):
        if not Path(self.mark).exists():
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        model()


def work(task, **arguments):
    """Do what the task says."""
    return globals()[f"do_{task['do']}"](task, **arguments)


def do_double(task, factor=2.0):
    time.sleep(task.get("seconds", 0.0))
    return {"x": factor * task["x"], "pid": os.getpid()}


def do_nothing(task):
    return None


def do_number(task):
    return 3


def do_raise(task):
    raise ValueError(f"cannot do {task['x']}")


def do_closure(task):
    return {"x": lambda: 1}


def do_kill(task):
    time.sleep(task.get("seconds", 0.0))
    os.kill(os.getpid(), signal.SIGKILL)


def do_leave(task):
    raise SystemExit(7)


def do_kill_once(task):
    mark = Path(task["mark"])
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"x": task["x"]}


def do_freeze(task):
    os.kill(os.getpid(), signal.SIGSTOP)


def do_log(task):
    logging.getLogger("heterodyne.work").warning("seen %d", task["x"])
    logging.getLogger("heterodyne.work").debug("too fine")
    return {"x": task["x"]}


def do_environment(task):
    names = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
             "JAX_PLATFORMS", "JAX_COMPILATION_CACHE_DIR")  # fmt: skip
    return {name: os.environ.get(name) for name in names}


def prepare(number, folder):
    """Leave a file for each worker."""
    Path(folder, f"ready-{number}").touch()


def prepared(task, folder):
    """Say who is ready."""
    return {"ready": sorted(p.name for p in Path(folder).iterdir())}


def refuse_first(number, folder):
    """Let the first worker fail."""
    if number == 0:
        raise RuntimeError("no licence")


def refuse_all(number):
    raise RuntimeError("no licence")


def sleep_first(number, folder):
    """Let the first worker be late."""
    if number == 0:
        time.sleep(60.0)


@contextmanager
def no_segments_left():
    """Every segment of shared memory that this process makes is removed again."""
    from heterodyne.optimization.cmc.backends import _shared

    made, make = [], _shared.SharedMemory

    def recorded(*args, **kwargs):
        block = make(*args, **kwargs)
        if kwargs.get("create"):
            made.append(block.name)
        return block

    _shared.SharedMemory = recorded
    try:
        yield
    finally:
        _shared.SharedMemory = make
    for name in made:
        try:
            make(name).close()
        except FileNotFoundError:
            continue
        raise AssertionError(f"{name} is left")
