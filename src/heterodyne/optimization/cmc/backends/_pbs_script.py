"""The text of a job script."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from heterodyne._errors import ConfigError
from heterodyne.config._job_text import times
from heterodyne.optimization.cmc.backends._pbs_config import PBSConfig, check

RUNNER = "heterodyne.optimization.cmc.backends._pbs_job"
JOB_NAME = "heterodyne"
# The size at which PBS Pro refuses an array unless its server is told otherwise.
LARGEST_ARRAY = 10_000


def log_name(number: int, index: int) -> str:
    """Name of the file that takes what a job prints.

    Args:
        number: Number of the submission.
        index: Place of the shard in it.
    """
    return f"job_{number:03d}.{index}.log"


def job_script(
    config: PBSConfig, folder: Path, digest: str, number: int, shards: Sequence[int]
) -> str:
    """Write the script of a job of one shard, or of an array of several.

    Args:
        config: What the job asks for; it is checked again.
        folder: Folder of the run; the job works in it.
        digest: SHA-256 of the task that the job may run.
        number: Number of the submission.
        shards: Shards; the place in this list is the index in the array.

    Raises:
        ConfigError: A field of the configuration, or the number of shards.
    """
    check(config)
    if not 1 <= len(shards) <= LARGEST_ARRAY:
        raise ConfigError(
            f"there are {len(shards)} shards", where="shards", allowed=f"1 to {LARGEST_ARRAY}"
        )
    lines = ["#!/bin/sh", *_directives(config, len(shards)), "set -eu"]
    log = log_name(number, 0).removesuffix("0.log")
    places = " ".join(str(int(shard)) for shard in shards)
    return "\n".join([
        *lines,
        f"cd {shlex.quote(str(folder))}",
        'index="${PBS_ARRAY_INDEX:-0}"',
        f'exec >"{log}${{index}}.log" 2>&1',
        *(f"export {name}={config.ppn}" for name in THREADS),
        'export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$PWD/compiled}"',
        f"set -- {places}",
        'shift "$index"',
        f'exec {shlex.quote(config.python_executable)} -m {RUNNER} "$PWD" {digest} "$1"',
        "",
    ])  # fmt: skip


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")
"""Variables with the number of threads of OpenMP, OpenBLAS, MKL and XLA."""


def _directives(config: PBSConfig, n_shards: int) -> list[str]:
    lines = [
        f"-N {JOB_NAME}",
        "-S /bin/sh",
        "-j oe",
        f"-q {config.queue}",
        f"-l walltime={config.walltime}",
    ]
    if not config.uses_select:
        # PBS takes mem for that of all nodes together.
        mem = times(config.nodes, config.memory)
        lines.append(f"-l nodes={config.nodes}:ppn={config.ppn},mem={mem}")
    if n_shards > 1:
        # PBS Pro refuses an array of one.
        limit = "" if config.max_running_shards is None else f"%{config.max_running_shards}"
        lines.append(f"-J 0-{n_shards - 1}{limit}")
    return [f"#PBS {line}" for line in lines] + config.extra_pbs_directives
