"""Processes that stay, so that imports and compiled code serve more than one task."""

from __future__ import annotations

import pickle
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np

from heterodyne._cores import usable_cores
from heterodyne._errors import ConfigError, SamplingError
from heterodyne._log import get_logger
from heterodyne._typing import FloatArray, JaxArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.core._jax import jax, jnp
from heterodyne.optimization.cmc._array_checks import count
from heterodyne.optimization.cmc._inputs import checked
from heterodyne.optimization.cmc.backends._dispatch import UNGUARDED, dispatch
from heterodyne.optimization.cmc.backends._draw import chain_keys, check_starts, draw
from heterodyne.optimization.cmc.backends._pickling import pickled
from heterodyne.optimization.cmc.backends._schedule import Limits
from heterodyne.optimization.cmc.backends._workers import (
    Answer,
    Job,
    Message,
    Worker,
    attempt,
    beat_for,
)

__all__ = ["PersistentWorkerPool", "WorkerPoolBackend", "should_use_persistent_pool"]

_LOG = get_logger(__name__)
_FEWEST_SHARDS = 3
_PATIENCE = 5.0


class WorkerPoolBackend:
    """Draws the chains of a model in processes of their own.

    Args:
        n_workers: Largest number of processes; None takes one for each usable processor.

    Raises:
        ConfigError: A number that is not at least 1.
    """

    def __init__(self, n_workers: int | None = None) -> None:
        self._n_workers = usable_cores() if n_workers is None else count(n_workers, "n_workers")

    @property
    def n_workers(self) -> int:
        """Largest number of processes."""
        return self._n_workers

    @staticmethod
    def should_use_pool(n_shards: int, n_workers: int) -> bool:
        """Whether processes are worth their start: from three shards on.

        Args:
            n_shards: Number of shards.
            n_workers: Not used; the time to start processes is shared by the shards.
        """
        return n_shards >= _FEWEST_SHARDS

    def run(
        self,
        model: Callable[..., Any],
        config: CMCConfig,
        rng_key: JaxArray,
        init_params: Mapping[str, JaxArray] | None = None,
    ) -> dict[str, FloatArray]:
        """Draw from the posterior of a NumPyro model, one chain at a time in each process.

        The draws are those of ``CPUBackend`` for the same key. A chain whose process ends is
        drawn again, once.

        Args:
            model: NumPyro model that can be called without arguments, and pickled: a function
                of a module, or what the functions of ``heterodyne.optimization.cmc.model``
                return. A function inside a function cannot.
            config: Counts and settings of NUTS; ``per_shard_timeout`` and
                ``heartbeat_timeout`` hold for each chain.
            rng_key: JAX random key.
            init_params: As ``CPUBackend.run`` takes them.

        Returns:
            Draws by site, chain after chain, shape (num_chains * num_samples, ...).

        Raises:
            ConfigError: A setting, start value or model that cannot be used.
            SamplingError: A chain failed, took too long, or lost its process twice.
        """
        n_chains = checked(config).num_chains
        if init_params is not None:
            check_starts(init_params, n_chains)
        keys = np.asarray(jax.random.key_data(chain_keys(rng_key, n_chains)))
        tasks = [
            {"key": keys[k], "starts": _of_chain(init_params, k), "chain": k}
            for k in range(n_chains)
        ]
        n_workers = min(self.n_workers, n_chains)
        arguments = {"model": model, "config": replace(config, num_chains=1)}
        found = dispatch(
            tasks,
            [1.0] * n_chains,
            Job(
                _draw_chain,
                arguments,
                threads=max(1, usable_cores() // n_workers),
                beat=beat_for(config.heartbeat_timeout),
            ),
            n_workers=n_workers,
            limits=Limits(config.per_shard_timeout, config.heartbeat_timeout, least_share=1.0),
            what="chain",
        )
        failed = {k: one for k, one in enumerate(found) if one.problem is not None}
        if failed:
            first = min(failed, key=lambda k: failed[k].outcome.attempts == 0)
            raise SamplingError(
                f"chain {first} (counted from 0): {failed[first].problem}",
                where="WorkerPoolBackend",
                remedy="The backend cpu runs the same draws in this process",
            )
        return {name: np.concatenate([one.value[name] for one in found]) for name in found[0].value}


def _of_chain(init_params: Mapping[str, Any] | None, chain: int) -> dict[str, np.ndarray] | None:
    if init_params is None:
        return None
    return {name: np.asarray(x)[chain : chain + 1] for name, x in init_params.items()}


def _draw_chain(
    task: Mapping[str, Any], model: Callable[..., Any], config: CMCConfig
) -> dict[str, FloatArray]:
    return draw(model, config, jnp.asarray(task["key"]), task["starts"])


def should_use_persistent_pool(n_shards: int, n_workers: int) -> bool:
    """Whether processes are worth their start, as ``WorkerPoolBackend.should_use_pool``."""
    return WorkerPoolBackend.should_use_pool(n_shards, n_workers)


class LostTask(dict[str, Any]):
    """The result of a task whose process ended."""


class PersistentWorkerPool:
    """Processes that are set up once, and then do tasks until the pool is shut down.

    Tasks go to the workers in turn. What is wrong in a worker comes back as data: the result
    of a task that raised holds ``success`` (False), ``error``, ``traceback``, ``task`` and
    ``worker_id``. Where a process ends, the task that it had is lost, and those that waited
    for it go to the others.

    Use it as a context manager, or call ``shutdown``.

    Args:
        n_workers: Number of processes.
        worker_fn: Called with each task and ``worker_init_kwargs``, in a worker; a function of
            a module. It returns a dict, or None for no result.
        worker_init_kwargs: Keyword arguments of both functions.
        worker_init_fn: Called once in each worker with its number and
            ``worker_init_kwargs``; for expensive preparations.
        startup_timeout: Longest time in s to wait until all are ready; later the pool goes on
            with those that are.

    Raises:
        ConfigError: A number that is not at least 1, or something that cannot be pickled.
        SamplingError: No worker became ready.
    """

    def __init__(
        self,
        n_workers: int,
        worker_fn: Callable[..., dict[str, Any] | None],
        worker_init_kwargs: Mapping[str, Any] | None = None,
        worker_init_fn: Callable[..., None] | None = None,
        startup_timeout: float = 120.0,
    ) -> None:
        self._n_workers = count(n_workers, "n_workers")
        if not startup_timeout > 0:
            raise ConfigError(f"{startup_timeout} s", where="startup_timeout", allowed="> 0 s")
        threads = max(1, usable_cores() // self._n_workers)
        job = Job(worker_fn, worker_init_kwargs or {}, worker_init_fn, threads)
        self._results: queue.Queue[dict[str, Any]] = queue.Queue()
        self._changed = threading.Condition(threading.RLock())
        self._waiting: dict[int, deque[tuple[int, bytes]]] = {}
        self._doing: dict[int, int] = {}
        self._problems: dict[int, str] = {}
        self._turn, self._submitted, self._closed = 0, 0, False
        content = job.pickled()
        self._workers: list[Worker] = []
        try:
            for k in range(self._n_workers):
                self._workers.append(Worker(k, job, content, self._hear))
            self._await_ready(startup_timeout)
        except BaseException:
            self.shutdown(0.0)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()

    @property
    def n_workers(self) -> int:
        """Number of processes that were started."""
        return self._n_workers

    @property
    def result_queue(self) -> queue.Queue[dict[str, Any]]:
        """Results that were not asked for yet; ``get_result`` takes them from here."""
        return self._results

    def submit(self, task: Mapping[str, Any]) -> int:
        """Hand a task to the next worker; return its number, counted from 0.

        Args:
            task: What ``worker_fn`` is called with; pickled.

        Raises:
            ConfigError: It cannot be pickled.
            SamplingError: The pool was shut down, or no process is left.
        """
        content = pickled(task, f"task {self._submitted}", "submit")
        with self._changed:
            if self._closed:
                raise SamplingError("the pool was shut down", where="submit")
            worker = self._next_worker()
            if worker is None:
                raise SamplingError(f"no process is left: {self._why()}", where="submit")
            number, self._submitted = self._submitted, self._submitted + 1
            self._waiting[worker].append((number, content))
            self._feed(worker)
        return number

    def get_result(self, timeout: float = 300.0) -> dict[str, Any]:
        """Wait for a result, and take it; results come in the order in which they were ready.

        Args:
            timeout: Longest time to wait in s.

        Returns:
            What ``worker_fn`` returned, or what went wrong with it.

        Raises:
            queue.Empty: None came in that time, or no task is out.
            SamplingError: The process of a task ended; raised once for each such task.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._results.empty():
                left = deadline - time.monotonic()
                if left <= 0 or not self._out():
                    raise queue.Empty
                self._changed.wait(left)
            result = self._results.get_nowait()
        if isinstance(result, LostTask):
            raise SamplingError(
                f"task {result['task']} is lost: {result['error']}",
                where=f"worker {result['worker_id']}",
                remedy="Submit it again, with fewer workers or a smaller task if memory ran out",
            )
        return result

    def results_pending(self) -> bool:
        """Whether there is a result to take."""
        return not self._results.empty()

    def shutdown(self, timeout: float = _PATIENCE) -> None:
        """End all processes; tasks that are not begun are dropped. May be called again.

        Args:
            timeout: Time in s that tasks which were begun have to finish.
        """
        with self._changed:
            self._closed = True
            dropped = sum(len(tasks) for tasks in self._waiting.values())
            for tasks in self._waiting.values():
                tasks.clear()
        if dropped:
            _LOG.warning("%d tasks were not begun, and are dropped.", dropped)
        deadline = time.monotonic() + timeout
        for worker in self._workers:
            worker.leave()
        for worker in self._workers:
            left = deadline - time.monotonic() if worker.number in self._waiting else 0.0
            worker.close(max(0.0, left))
        self._workers = []

    def _await_ready(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with self._changed:
            while len(self._waiting) + len(self._problems) < self._n_workers:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            ready = len(self._waiting)
        if ready == self._n_workers:
            return
        why = self._why() or f"not ready after {seconds:g} s"
        if ready == 0:
            raise SamplingError(
                f"none of {self._n_workers} workers is ready: {why}",
                where="PersistentWorkerPool",
                remedy=f"{UNGUARDED}; a slow machine needs a longer startup_timeout",
            )
        _LOG.warning("%d of %d workers are ready: %s.", ready, self._n_workers, why)

    def _why(self) -> str:
        return "; ".join(f"worker {k}: {text}" for k, text in sorted(self._problems.items()))

    def _out(self) -> bool:
        """Whether a task has no result yet."""
        return bool(self._doing) or any(self._waiting.values())

    def _next_worker(self) -> int | None:
        """The next worker in turn that can take tasks."""
        for k in range(self._n_workers):
            worker = (self._turn + k) % self._n_workers
            if worker in self._waiting:
                self._turn = worker + 1
                return worker
        return None

    def _feed(self, worker: int) -> None:
        """Send a worker that has nothing to do its next task."""
        if worker not in self._doing and self._waiting[worker]:
            number, content = self._waiting[worker].popleft()
            self._doing[worker] = number
            self._workers[worker].give(number, content)

    def _hear(self, worker: Worker, message: Message) -> None:
        """Take in a message, in the thread that reads it."""
        number = worker.number
        with self._changed:
            if message.kind == "ready":
                self._waiting[number] = deque()
            elif message.kind == "broken":
                self._problems[number] = message.content.problem
            elif message.kind == "answer":
                self._answered(number, message.task, message.content)
            elif message.kind == "ended" and not self._closed:
                self._ended(worker)
            self._changed.notify_all()

    def _answered(self, worker: int, task: int, answer: Answer) -> None:
        del self._doing[worker]
        if answer.problem is None:
            answer = attempt(_checked_result, answer.value)
        if answer.problem is not None:
            self._results.put(_failure(answer, task, worker))
        elif answer.value is not None:
            self._results.put(answer.value)
        self._feed(worker)

    def _ended(self, worker: Worker) -> None:
        number = worker.number
        problem = self._problems.setdefault(number, worker.how_it_ended())
        tasks = self._waiting.pop(number, deque())
        lost = [self._doing.pop(number)] if number in self._doing else []
        for task, content in tasks:
            other = self._next_worker()
            if other is None:
                lost.append(task)
                continue
            self._waiting[other].append((task, content))
            self._feed(other)
        for task in lost:
            self._results.put(LostTask(_failure(Answer(None, problem), task, number)))


def _checked_result(content: bytes) -> dict[str, Any] | None:
    result = pickle.loads(content)
    if result is not None and not isinstance(result, dict):
        raise TypeError(f"worker_fn returned a {type(result).__name__}; allowed: a dict, or None")
    return result


def _failure(answer: Answer, task: int, worker: int) -> dict[str, Any]:
    return {
        "success": False,
        "error": answer.problem,
        "traceback": answer.details,
        "task": task,
        "worker_id": worker,
    }
