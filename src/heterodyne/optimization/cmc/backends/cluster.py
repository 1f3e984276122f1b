"""Tasks of a work folder on the nodes of a cluster, through Parsl.

A job of the batch system is a block of nodes with workers, and works off many tasks. Jobs may end
at any time: what they have not finished is done in further ones. The work folder tells what is
done; of Parsl, nothing is read back.
"""

from __future__ import annotations

import atexit
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from heterodyne._errors import ConfigError, InterruptedRunError
from heterodyne._events import EventSink, Message, ignore_events
from heterodyne._log import only_into
from heterodyne.config._cluster import Cluster
from heterodyne.io.cluster_jobs import (
    LOGS,
    ClusterError,
    ClusterJobs,
    drive,
    end_group,
    shell,
)
from heterodyne.io.work_folder import Task, WorkFolder
from heterodyne.optimization.cmc.backends import _interchange
from heterodyne.optimization.cmc.backends._cluster_gate import Gate
from heterodyne.optimization.cmc.backends._cluster_script import (
    POOL,
    check_here,
    launcher_options,
    launcher_script,
    n_workers,
    provider_options,
    whole_minutes,
    write_worker_script,
)
from heterodyne.optimization.cmc.backends._cluster_work import ClusterWork
from heterodyne.optimization.cmc.backends._local_work import Perform, Watch

if TYPE_CHECKING:
    from parsl.config import Config
    from parsl.launchers.base import Launcher
    from parsl.providers.base import ExecutionProvider

__all__ = ["ClusterError", "run_on_cluster"]

_LABEL = "heterodyne"
# Between two looks of Parsl at the tasks, and until a job without tasks is cancelled.
_SCALE_S, _IDLE_S = 2.0, 60.0
# Between signs of life of nodes and workers, and until a silent node counts as lost.
_BEAT_S, _SILENCE_S = 10, 60
_COMMAND_S = 120
# Between two looks at jobs of this machine.
_LOOK_S = 1
# Further attempts of Parsl at a task whose worker or job was lost.
_RETRIES = 2


def run_on_cluster(
    perform: Perform,
    folder: Path,
    tasks: Sequence[Task],
    cluster: Cluster,
    on_event: EventSink = ignore_events,
) -> None:
    """Do tasks of the work folder of a run in jobs of a batch system, the largest first.

    It returns once every task is settled, the work is cancelled, or repeated attempts settle
    nothing more; what is left is said then. In any case its jobs are over.

    Args:
        perform: Does a task, given the folder and the name; a function of a module.
        folder: Folder of the run, on a file system that all nodes share.
        tasks: The tasks.
        cluster: What jobs ask for.
        on_event: Receives progress and messages, also from another thread.

    Raises:
        KeyboardInterrupt: This process was stopped; its jobs are cancelled, all tasks are free.
        ConfigError: Jobs cannot be submitted from here, or not for this folder.
        ClusterError: The batch system takes no job, or jobs end without doing anything.
    """
    work = WorkFolder.open(folder)
    check_here(cluster, work.path)
    claim = drive(work.path)
    try:
        _free_old_jobs(work.path, on_event)
        gate = Gate(ClusterJobs(work.path, cluster.scheduler), work.path / LOGS)
        watch = Watch(work, {task.name for task in tasks}, gate.beside(on_event))
        with (
            only_into(work.path / LOGS / "parsl.log", "parsl"),
            watch,
            _ParslPilot(work, perform, cluster, gate) as pilot,
        ):
            ClusterWork(work, tasks, pilot, claim.beat).run(on_event)
    finally:
        claim.give_back()


def _free_old_jobs(work: Path, on_event: EventSink) -> None:
    """Cancel jobs of an earlier process, which has died."""
    before = ClusterJobs.read(work)
    freed = [] if before is None else before.free()
    if freed:
        on_event(Message(f"Jobs of an earlier process were cancelled: {', '.join(freed)}."))


class _ParslPilot:
    """Parsl, and jobs that hold its workers; on leaving, all of them are cancelled."""

    def __init__(self, work: WorkFolder, perform: Perform, cluster: Cluster, gate: Gate) -> None:
        from parsl import python_app
        from parsl.dataflow.dflow import DataFlowKernel

        self._perform, self._gate, self._folder = perform, gate, str(work.path.parent)
        self._kernel = DataFlowKernel(_config(work.path, cluster, gate))
        # The attributes of executors in general do not tell about jobs.
        self._executor = cast(Any, self._kernel.executors[_LABEL])
        self._app = python_app(_do, data_flow_kernel=self._kernel, executors=[_LABEL], cache=False)

    def __enter__(self) -> _ParslPilot:
        return self

    def __exit__(self, *ended: object) -> None:
        if self._connected:
            self._kernel.cleanup()
        else:
            # It would wait for an answer for ever.
            atexit.unregister(self._kernel.atexit_cleanup)
        provider = self._executor.provider
        left = [job for job, about in provider.resources.items() if not about["status"].terminal]
        if left:
            provider.cancel(left)
        self._gate.close()

    def submit(self, rank: int, name: str) -> Future[str | None]:
        """Have a task done; of those that wait, the one of the lowest rank comes first."""
        order = {"priority": rank}
        return self._app(self._perform, self._folder, name, parsl_resource_specification=order)

    def is_lost(self, error: BaseException | None) -> bool:
        """Whether there is no answer because the worker or its job is gone."""
        return _is_lost(error)

    def settled(self) -> None:
        """Note that a task was settled."""
        self._gate.settled()

    def check(self) -> None:
        """Check that tasks may still be done.

        Raises:
            ClusterError: They cannot.
        """
        problem = self._gate.problem
        if problem is None and self._executor.bad_state_is_set:
            problem = f"Parsl gave up: {self._executor.executor_exception}"
        if problem is None and not self._connected:
            problem = "the process that hands tasks to jobs was killed"
        if problem is not None:
            raise ClusterError(
                problem,
                where="cluster",
                remedy=f"Scripts and logs of the jobs are in {self._gate.logs}. Correct the "
                "section, and the same command goes on with what is there",
            )

    @property
    def _connected(self) -> bool:
        process = self._executor.interchange_proc
        return process is not None and process.poll() is None


def _do(
    perform: Perform, folder: str, name: str, parsl_resource_specification: object = None
) -> str | None:
    """Do a task in a worker, which ends if it is stopped."""
    try:
        return perform(folder, name)
    except (KeyboardInterrupt, InterruptedRunError) as error:
        raise SystemExit(InterruptedRunError.exit_code) from error


def _is_lost(error: BaseException | None) -> bool:
    from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost

    return isinstance(error, ManagerLost | WorkerLost)


def _config(work: Path, cluster: Cluster, gate: Gate) -> Config:
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD

    is_local = cluster.scheduler == "local"
    script = write_worker_script(cluster, work, Path(sys.executable).parent)
    executor = HighThroughputExecutor(
        label=_LABEL,
        provider=_provider(cluster, work, gate),
        address="127.0.0.1" if is_local else _address(cluster),
        launch_cmd=DEFAULT_LAUNCH_CMD.replace(POOL, f"bash {script}", 1),
        interchange_launch_cmd=_interchange.command(work / LOGS / "interchange.log"),
        max_workers_per_node=n_workers(cluster),
        cores_per_worker=float(cluster.cores_per_worker),
        mem_per_worker=cluster.memory_gib,
        heartbeat_period=_BEAT_S,
        heartbeat_threshold=_SILENCE_S,
        encrypted=True,
        drain_period=None if is_local else cluster.walltime_s - cluster.drain_s,
        block_error_handler=gate.look,
    )
    return Config(
        executors=[executor],
        run_dir=str(work / LOGS),
        retries=_RETRIES,
        retry_handler=lambda error, task: 1 if _is_lost(error) else _RETRIES + 1,
        strategy="htex_auto_scale",
        strategy_period=_SCALE_S,
        max_idletime=_IDLE_S,
        usage_tracking=0,
        initialize_logging=False,
    )


def _address(cluster: Cluster) -> str | None:
    """Address that nodes connect to; None lets them try all."""
    if cluster.interface is None:
        return cluster.address
    from parsl.addresses import address_by_interface

    try:
        return address_by_interface(cluster.interface)
    except OSError as error:
        raise ConfigError(
            f"there is no network interface {cluster.interface} with an address ({error})",
            where="cluster.interface",
            remedy="'ip address' lists them",
        ) from None


def _provider(cluster: Cluster, work: Path, gate: Gate) -> ExecutionProvider:
    from parsl.launchers import SimpleLauncher
    from parsl.providers import GridEngineProvider, LSFProvider, PBSProProvider, SlurmProvider

    common: dict[str, Any] = {
        "nodes_per_block": cluster.nodes_per_block,
        "init_blocks": cluster.first_blocks,
        "min_blocks": cluster.min_blocks,
        "max_blocks": cluster.max_blocks,
        "parallelism": 1,
        "walltime": whole_minutes(cluster.walltime_s),
        "cmd_timeout": _COMMAND_S,
    }
    if cluster.scheduler == "local":
        return _watched(_local_provider(), cluster, gate)(
            label="local", launcher=SimpleLauncher(), **common
        )
    kinds = {
        "pbspro": PBSProProvider,
        "slurm": SlurmProvider,
        "grid_engine": GridEngineProvider,
        "lsf": LSFProvider,
    }
    return _watched(kinds[cluster.scheduler], cluster, gate)(
        launcher=_launcher(cluster),
        worker_init=launcher_script(cluster, work),
        **common,
        **provider_options(cluster),
    )


def _launcher(cluster: Cluster) -> Launcher:
    from parsl import launchers

    options, kind = launcher_options(cluster), cluster.starts_with
    if kind == "single_node":
        return launchers.SimpleLauncher()
    if kind == "pals":
        return launchers.MpiExecLauncher(bind_cmd="--cpu-bind", overrides=options)
    kinds = {
        "srun": launchers.SrunLauncher,
        "mpiexec": launchers.MpiExecLauncher,
        "mpirun": launchers.MpiRunLauncher,
        "aprun": launchers.AprunLauncher,
        "jsrun": launchers.JsrunLauncher,
    }
    return kinds[kind](overrides=options)


def _watched(kind: type[Any], cluster: Cluster, gate: Gate) -> type[Any]:
    """Kind of provider that tells a gate about jobs, and asks it before it submits more."""
    from parsl.providers.cluster_provider import ClusterProvider

    class Heard(ClusterProvider):
        """Calls programs without the fork hooks of this process, and lets a gate hear them."""

        def execute_wait(self, cmd: str, timeout: int | None = None) -> tuple[int, str, str]:
            return gate.heard(shell(cmd, timeout or self.cmd_timeout))

    class Watched(kind, Heard):
        def submit(self, command: str, tasks_per_node: int, job_name: str = _LABEL) -> Any:
            gate.asked()
            try:
                job = super().submit(command, tasks_per_node, job_name)
            except Exception as error:
                gate.refused(str(error))
                raise
            # Some providers return no job where the batch system takes none.
            if job is None:
                gate.refused()
            else:
                gate.submitted(job)
            return job

        @property
        def max_blocks(self) -> int:
            return self._most if gate.is_open else 0

        @max_blocks.setter
        def max_blocks(self, value: int) -> None:
            self._most = value

        @property
        def status_polling_interval(self) -> int:
            return _LOOK_S if cluster.scheduler == "local" else cluster.poll_interval

    return Watched


def _local_provider() -> type[Any]:
    """Kind of provider whose jobs are processes of this machine."""
    from parsl.jobs.states import JobState, JobStatus
    from parsl.providers.cluster_provider import ClusterProvider

    class Local(ClusterProvider):
        def submit(self, command: str, tasks_per_node: int, job_name: str = _LABEL) -> str:
            script = Path(cast(str, self.script_dir)) / f"{job_name}.sh"
            script.write_text(f"{command}\n", encoding="utf-8")
            out, err = script.with_suffix(".stdout"), script.with_suffix(".stderr")
            with out.open("wb") as stdout, err.open("wb") as stderr:
                process = subprocess.Popen(
                    ["bash", str(script)], stdout=stdout, stderr=stderr, start_new_session=True
                )
            status = JobStatus(JobState.RUNNING)
            self.resources[f"{process.pid}"] = {"process": process, "status": status}
            return f"{process.pid}"

        def _status(self) -> None:
            for about in self.resources.values():
                if not about["status"].terminal and about["process"].poll() is not None:
                    about["status"] = JobStatus(JobState.COMPLETED)

        def cancel(self, job_ids: Sequence[object]) -> list[bool]:
            for job in job_ids:
                end_group(self.resources[job]["process"].pid, "", self.resources[job]["process"])
                self.resources[job]["status"] = JobStatus(JobState.CANCELLED)
            return [True] * len(job_ids)

    return Local
