"""Processes that work off tasks, which reach them and are answered through pipes.

They are spawned, for a fork of a process that runs JAX locks up. Whatever goes wrong in a worker
comes back as data. A worker ends when its parent does, even if that was killed.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from heterodyne._cores import ONE_BLAS_THREAD
from heterodyne._log import get_logger
from heterodyne.optimization.cmc.backends._pickling import pickled

_LOG = get_logger(__name__)
_ROOT = "heterodyne"
_BEAT = 5.0
_THREADS = ("NPROC", "OMP_NUM_THREADS")
# Where JAX keeps compiled code, and how long compiling must take to be kept.
_COMPILED = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
# Environment changes for the moment of a start, which must not overlap.
_STARTING = threading.Lock()


class Answer(NamedTuple):
    """What a function returned, or how it failed.

    Attributes:
        value: What it returned; for a worker's answer, pickled.
        problem: Type and text of the exception; None if there was none.
        details: Its traceback.
    """

    value: Any
    problem: str | None = None
    details: str = ""


class Message(NamedTuple):
    """What a worker says.

    Attributes:
        kind: ``ready``, ``broken`` (it could not be set up), ``beat``, ``log``, ``answer``,
            or ``ended`` (the process is gone).
        content: An ``Answer``, the fields of a log record, or None.
        task: Number of the task that an answer belongs to.
    """

    kind: str
    content: Any = None
    task: int = -1


@dataclass(frozen=True)
class Job:
    """What workers do.

    Attributes:
        work: Called with each task and the arguments; a function of a module.
        arguments: Keyword arguments of ``work`` and ``setup``.
        setup: Called once with the number of the worker and the arguments; None for nothing.
        threads: Threads of JAX in a worker; BLAS has one.
        beat: Seconds between signs of life.
    """

    work: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    setup: Callable[..., None] | None = None
    threads: int = 1
    beat: float = _BEAT

    def pickled(self) -> bytes:
        """Pickle functions and arguments.

        Raises:
            ConfigError: They cannot be pickled.
        """
        content = (self.work, dict(self.arguments), self.setup)
        return pickled(content, "the function or its arguments", "worker process")


def beat_for(silence: float) -> float:
    """Seconds between signs of life where silence of some seconds counts as the end."""
    return min(_BEAT, silence / 4.0)


def attempt(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Answer:
    """Call a function; an exception becomes an answer."""
    try:
        return Answer(function(*args, **kwargs))
    except Exception as error:  # noqa: BLE001
        text = f"{type(error).__name__}: {error}".rstrip(".: ")
        return Answer(None, text, traceback.format_exc())


class Worker:
    """One process, and a thread that reads its answers.

    Args:
        number: Number of the worker.
        job: What it does.
        pickled_job: ``job.pickled()``.
        hear: Called in the thread, with the worker and each of its messages; the last one
            has the kind ``ended``.
    """

    def __init__(
        self,
        number: int,
        job: Job,
        pickled_job: bytes,
        hear: Callable[[Worker, Message], None],
    ) -> None:
        self.number = number
        context = multiprocessing.get_context("spawn")
        tasks, self._tasks = context.Pipe(duplex=False)
        answers, voice = context.Pipe(duplex=False)
        level = logging.getLogger(_ROOT).getEffectiveLevel()
        self._process = context.Process(
            target=_serve,
            args=(number, tasks, voice, pickled_job, job.beat, level),
            name=f"heterodyne worker {number}",
            daemon=True,
        )
        with _environment(job.threads):
            self._process.start()
        # Once the process is gone, nothing holds these ends, and neither pipe blocks.
        tasks.close()
        voice.close()
        self._sending = threading.Lock()
        self._reader = threading.Thread(target=self._read, args=(answers, hear), daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.is_alive()

    @property
    def pid(self) -> int | None:
        """Number of the process."""
        return self._process.pid

    def give(self, task: int, content: bytes) -> None:
        """Send a pickled task; returns at once."""
        self._send((task, content))

    def leave(self) -> None:
        """Let the worker end after the tasks that it was given."""
        self._send(None)

    def _send(self, content: tuple[int, bytes] | None) -> None:
        # A process that is frozen does not read, and writing would wait for it.
        threading.Thread(target=self._write, args=(content,), daemon=True).start()

    def _write(self, content: tuple[int, bytes] | None) -> None:
        with self._sending:
            try:
                self._tasks.send(content)
            except OSError:
                _LOG.debug("worker %d was gone before it got a task", self.number)

    def close(self, patience: float = 0.0) -> None:
        """End the process and release everything; may be called more than once.

        Args:
            patience: Time in s that it has to end by itself.
        """
        self._process.join(patience)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        with self._sending:
            self._tasks.close()
        self._reader.join()

    def how_it_ended(self) -> str:
        """Say how the process ended."""
        self._process.join(1.0)
        code = self._process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
            hint = ", as when memory runs out" if name == "SIGKILL" else ""
            return f"its process was ended by {name}{hint}"
        return f"its process ended with exit code {code}"

    def _read(self, pipe: Connection, hear: Callable[[Worker, Message], None]) -> None:
        with pipe:
            while True:
                try:
                    message = pipe.recv()
                except (EOFError, OSError):
                    break
                if message.kind == "log":
                    _relay(message.content)
                else:
                    hear(self, message)
        hear(self, Message("ended"))


def _relay(fields: Mapping[str, Any]) -> None:
    record = logging.makeLogRecord(dict(fields))
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Set what libraries read when a process loads them."""
    from heterodyne.core._jax import jax

    changes = dict.fromkeys(_THREADS, str(threads)) | ONE_BLAS_THREAD | {"JAX_PLATFORMS": "cpu"}
    for name in _COMPILED:
        value = jax.config.values.get(name)
        if value is not None:
            changes[name.upper()] = str(value)
    with _STARTING:
        before = {name: os.environ.get(name) for name in changes}
        os.environ.update(changes)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


class _Voice:
    """The pipe of a worker, for more than one thread."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._lock = pipe, threading.Lock()

    def say(self, kind: str, content: Any = None, task: int = -1) -> None:
        try:
            with self._lock:
                self._pipe.send(Message(kind, content, task))
        except OSError:
            # Nobody listens: the parent is gone, and with it any use for this process.
            os._exit(1)

    def beat(self, seconds: float) -> None:
        while True:
            time.sleep(seconds)
            self.say("beat")


class _LogHandler(logging.Handler):
    """Sends records to the parent."""

    def __init__(self, voice: _Voice) -> None:
        super().__init__()
        self._voice = voice

    def emit(self, record: logging.LogRecord) -> None:
        fields = {name: getattr(record, name) for name in ("name", "levelno", "levelname")}
        text = f"{record.processName}: {record.getMessage()}"
        self._voice.say("log", {**fields, "msg": text})


def _serve(
    number: int, tasks: Connection, pipe: Connection, pickled_job: bytes, beat: float, level: int
) -> None:
    """Work off tasks until there is None, or nobody to answer to."""
    # Ctrl-C reaches all processes of a terminal; the parent decides what follows.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    voice = _Voice(pipe)
    logger = logging.getLogger(_ROOT)
    logger.addHandler(_LogHandler(voice))
    logger.setLevel(level)
    logger.propagate = False
    threading.Thread(target=voice.beat, args=(beat,), daemon=True).start()
    made = attempt(_made, number, pickled_job)
    if made.problem is not None:
        voice.say("broken", made)
        return
    work, arguments = made.value
    voice.say("ready")
    while (task := _next_task(tasks)) is not None:
        which, content = task
        voice.say("answer", attempt(_worked, work, content, arguments), which)


def _next_task(tasks: Connection) -> tuple[int, bytes] | None:
    try:
        return tasks.recv()
    except (EOFError, OSError):
        return None


def _made(number: int, pickled_job: bytes) -> tuple[Callable[..., Any], dict[str, Any]]:
    work, arguments, setup = pickle.loads(pickled_job)
    if setup is not None:
        setup(number, **arguments)
    return work, arguments


def _worked(work: Callable[..., Any], content: bytes, arguments: Mapping[str, Any]) -> bytes:
    return pickle.dumps(work(pickle.loads(content), **arguments))
