"""What ``heterodyne check`` says of the section ``cluster``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from heterodyne._errors import HeterodyneError
from heterodyne.cli import _output

if TYPE_CHECKING:
    from heterodyne.config._cluster import Cluster
    from heterodyne.config.schema import RunConfig


def examine(config: RunConfig) -> dict[str, Any] | None:
    """Say what jobs would ask for, and whether they can be submitted from here.

    Nothing is started.

    Returns:
        The section, ``seconds`` of walltime and drain, and the ``problem`` or None; None where
        there is no section.
    """
    from heterodyne.optimization.cmc.backends._cluster_script import check_here

    if config.cluster is None:
        return None
    try:
        check_here(config.cluster)
        problem = None
    except HeterodyneError as error:
        problem = str(error)
    return {
        "section": config.cluster.model_dump(mode="json"),
        "walltime_s": config.cluster.walltime_s,
        "drain_s": config.cluster.drain_s,
        "summary": _summary(config.cluster),
        "problem": problem,
    }


def _summary(cluster: Cluster) -> str:
    from heterodyne.optimization.cmc.backends._cluster_script import n_workers

    cores = _counted(cluster.cores_per_worker, "core")
    memory = "" if cluster.memory_per_worker is None else f" and {cluster.memory_per_worker}"
    workers = n_workers(cluster)
    count = "workers for all its cores," if workers is None else _counted(workers, "worker")
    node = f"{count} of {cores}{memory}" if workers else f"{count} {cores}{memory} each"
    if cluster.scheduler == "local":
        return node
    return (
        f"{cluster.first_blocks} at the start, at most {cluster.max_blocks}; each for "
        f"{_output.duration(cluster.walltime_s)}, with no new task in the last "
        f"{_output.duration(cluster.drain_s)}, on {_counted(cluster.nodes_per_block, 'node')}; "
        f"on a node {node}"
    )


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def entries(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Lines for people.

    Args:
        found: What ``examine`` returned.
    """
    section, problem = found["section"], found["problem"]
    usable = "can be used here" if problem is None else f"cannot be used here. {problem}"
    return [
        ("cluster", f"{section['scheduler']} {usable}"),
        ("workers" if section["scheduler"] == "local" else "jobs", found["summary"]),
    ]
