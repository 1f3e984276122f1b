"""What starts the workers of a node: a shell script, and options of the batch system."""

from __future__ import annotations

import math
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from heterodyne._cores import ONE_BLAS_THREAD, usable_cores
from heterodyne._errors import ConfigError
from heterodyne.config._cluster import Cluster
from heterodyne.config._job_text import PATH, check_text
from heterodyne.io import files
from heterodyne.io.cluster_jobs import LOGS, check_programs
from heterodyne.optimization.cmc.backends._pbs_script import THREADS

POOL = "process_worker_pool.py"
"""Program of Parsl that runs the workers of a node."""

_COMPILED = "compiled"


def check_here(cluster: Cluster, work: Path | None = None) -> None:
    """Check that jobs can be submitted from here, without starting anything.

    Args:
        cluster: What jobs ask for.
        work: Folder of the work, if it is known.

    Raises:
        ConfigError: Parsl cannot be used here, or not for this folder.
        ClusterError: The programs of the batch system are not on PATH.
    """
    if sys.platform == "win32":
        raise ConfigError(
            "jobs cannot be submitted from Windows",
            where="cluster",
            remedy="Run this where jobs are submitted, or remove the section",
        )
    program = Path(sys.executable).with_name(POOL)
    installed = find_spec("parsl") is not None
    if not installed or not program.exists():
        raise ConfigError(
            f"{program} is missing" if installed else "Parsl is not installed",
            where="cluster",
            remedy="Install it with: pip install 'heterodyne[cluster]'",
        )
    check_programs(cluster.scheduler)
    if work is not None:
        # Parsl writes paths into scripts and commands as they are.
        check_text("the folder of work", str(work), PATH, where="output.directory")


def n_workers(cluster: Cluster) -> int | None:
    """Number of workers on a node; None if it is told there."""
    if cluster.workers_per_node is None and cluster.scheduler == "local":
        return max(1, usable_cores() // cluster.cores_per_worker)
    return cluster.workers_per_node


def write_worker_script(cluster: Cluster, work: Path, programs: Path) -> Path:
    """Write the script that runs the workers of a node until Parsl ends them.

    Args:
        cluster: What jobs ask for.
        work: Folder of the work.
        programs: Folder of Python and Parsl's programs, on the nodes as well.
    """
    return files.write_text(work / LOGS / "workers.sh", worker_script(cluster, work, programs))


def worker_script(cluster: Cluster, work: Path, programs: Path) -> str:
    """Text of the script that runs the workers of a node.

    Lines of the user come after what is set for them, and may change it.

    Args:
        cluster: What jobs ask for.
        work: Folder of the work.
        programs: Folder of Python and Parsl's programs, on the nodes as well.
    """
    compiled = shlex.quote(str(work / _COMPILED))
    threads = dict.fromkeys(THREADS, f"{cluster.cores_per_worker}") | ONE_BLAS_THREAD
    workers = n_workers(cluster)
    cores = None if workers is None else workers * cluster.cores_per_worker
    return "\n".join([
        "#!/bin/bash",
        f"cd {shlex.quote(str(work / LOGS))} || exit 1",
        f'export PATH={shlex.quote(str(programs))}:"$PATH"',
        *(f"export {name}={value}" for name, value in threads.items()),
        'export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"',
        f'export JAX_COMPILATION_CACHE_DIR="${{JAX_COMPILATION_CACHE_DIR:-{compiled}}}"',
        *([] if cores is None else [f"export PARSL_CORES={cores}"]),
        *cluster.worker_init,
        f'exec {POOL} "$@"',
        "",
    ])  # fmt: skip


def launcher_script(cluster: Cluster, work: Path) -> str:
    """Lines of a job before its launcher, which may need a module and writes files; or none.

    Args:
        cluster: What jobs ask for.
        work: Folder of the work.
    """
    if cluster.starts_with == "single_node":
        return ""
    return "\n".join([f"cd {shlex.quote(str(work / LOGS))}", *cluster.worker_init])


def provider_options(cluster: Cluster) -> dict[str, Any]:
    """Arguments of Parsl's provider that depend on the batch system."""
    lines = list(cluster.extra_directives)
    workers = cluster.workers_per_node
    cores = None if workers is None else workers * cluster.cores_per_worker
    gib = cluster.memory_gib
    memory = None if workers is None or gib is None else math.ceil(workers * gib)
    if cluster.scheduler == "slurm":
        return {
            "partition": cluster.queue,
            "account": cluster.account,
            "cores_per_node": cores,
            "mem_per_node": memory,
            "exclusive": workers is None,
            "scheduler_options": "\n".join(lines),
        }
    if cluster.scheduler == "pbspro":
        resources = [cluster.select_options, None if memory is None else f"mem={memory}gb"]
        return {
            "queue": cluster.queue,
            "account": cluster.account,
            "cpus_per_node": cores,
            "select_options": ":".join(part for part in resources if part),
            "scheduler_options": "\n".join(lines),
        }
    if cluster.scheduler == "grid_engine":
        if cluster.account is not None:
            lines.insert(0, f"#$ -P {cluster.account}")
        return {"queue": cluster.queue, "scheduler_options": "\n".join(lines)}
    return {
        "queue": cluster.queue,
        "project": cluster.account,
        "bsub_redirection": True,
        "scheduler_options": "\n".join(lines),
    }


def whole_minutes(walltime_s: int) -> str:
    """Time in the form HH:MM:SS, rounded up, for batch systems count minutes."""
    minutes = math.ceil(walltime_s / 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:00"


def launcher_options(cluster: Cluster) -> str:
    """Options of what starts the workers on each node of a job, without binding them to cores."""
    always = {
        "srun": "--kill-on-bad-exit=0 --no-kill --cpu-bind=none",
        "pals": "--ppn 1",
    }
    given = (always.get(cluster.starts_with), cluster.launcher_options)
    return " ".join(part for part in given if part)
