"""Who draws the shards of a run: this process, others of this machine, or a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heterodyne._errors import ConfigError

if TYPE_CHECKING:
    from heterodyne._events import EventSink
    from heterodyne.config.cmc import CMCConfig
    from heterodyne.config.schema import RunConfig
    from heterodyne.io.run_folder import RunFolder
    from heterodyne.optimization.cmc._shard_task import Transport

_UNUSED = (
    "The section cluster is not used: all pairs are sampled in one pass, by this process. Set "
    "optimization.cmc.sharding.num_shards to divide them."
)
_HERE = ("cpu",)
_PROCESSES = ("auto", "multiprocessing", "jax", "worker_pool")


def transport_of(
    config: RunConfig, folder: RunFolder, on_event: EventSink, workers: int | None = None
) -> Transport | None:
    """Choose who draws the shards that a run file asks for.

    Args:
        config: The run file.
        folder: Folder of the run.
        on_event: Receives the progress.
        workers: Number of processes of this machine, whatever the run file says; None goes by
            the run file.

    Returns:
        What has shards drawn; None where this process draws all there is.

    Raises:
        ConfigError: A backend that draws no shards of a run.
    """
    from heterodyne._events import Message
    from heterodyne.cli._tasks import perform
    from heterodyne.optimization.cmc._divide import asks_for_shards

    settings = config.cmc_config()
    cluster = config.cluster
    if not asks_for_shards(settings):
        if cluster is not None:
            on_event(Message(_UNUSED, "warning"))
        return None
    if cluster is not None and workers is None:
        from heterodyne.optimization.cmc.backends.cluster import run_on_cluster

        return lambda tasks: run_on_cluster(perform, folder.path, tasks, cluster, on_event)
    if workers is None and not _in_processes(settings):
        return None
    from heterodyne.optimization.cmc.backends._local_work import LocalWork, run_tasks

    return lambda tasks: run_tasks(perform, folder.path, tasks, LocalWork(workers), on_event)


def _in_processes(settings: CMCConfig) -> bool:
    """Whether the processes of this machine share the shards, by the settings of a run.

    Raises:
        ConfigError: A backend that draws no shards of a run.
    """
    from heterodyne._cores import usable_cores

    if settings.backend_name not in (*_HERE, *_PROCESSES):
        raise ConfigError(
            f"the backend {settings.backend_name!r} draws no shards of a run",
            where="optimization.cmc.backend_config.name",
            allowed=", ".join((*_HERE, *_PROCESSES)),
            remedy="Choose one of these, or describe a cluster in the section cluster",
        )
    if settings.backend_name in _HERE or usable_cores() < 2:
        return False
    # Threads of one process use as many processors as there are chains.
    enough = settings.num_chains if settings.chain_method == "parallel" else 1
    return settings.backend_name != "auto" or usable_cores() > enough
