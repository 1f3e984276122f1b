"""What a PBS job asks for; nothing that a shell or PBS could read as a command gets in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from heterodyne.config import _job_text as job_text
from heterodyne.config._job_text import PATH, check_text, directive_rule, resources

_WHERE = "PBSConfig"


class _Number(NamedTuple):
    kind: type
    least: float
    most: float
    allowed: str


_TEXTS = {
    "queue": job_text.QUEUE,
    "walltime": job_text.WALLTIME,
    "memory": job_text.MEMORY,
    "python_executable": PATH._replace(allowed=f"the name of a Python, or {PATH.allowed}"),
    "working_dir": PATH,
}
_NUMBERS = {
    "nodes": _Number(int, 1, 10_000, "a whole number from 1 to 10000"),
    "ppn": _Number(int, 1, 1024, "a whole number from 1 to 1024"),
    "poll_interval": _Number(float, 0.001, 86_400, "a number from 0.001 to 86400 s"),
    "max_retries": _Number(int, 0, 100, "a whole number from 0 to 100"),
    "max_running_shards": _Number(int, 1, 10_000, "a whole number from 1 to 10000, or None"),
}
_OPTIONAL = ("working_dir", "max_running_shards")
_DIRECTIVE = directive_rule("#PBS")
# What the job script sets itself, or cannot work with, and where to set it instead.
_RESERVED = {
    "-q": "Set queue",
    "-N": "The backend names its jobs",
    "-J": "The backend makes its arrays",
    "-t": "The backend makes its arrays",
    "-S": "The job script needs /bin/sh",
    "-C": "The job script needs the prefix #PBS",
    "-I": "Jobs run without a terminal",
    "-X": "Jobs run without a terminal",
    "-f": "The backend waits for jobs itself",
    "-z": "The backend reads the job id",
}
_RESERVED_RESOURCES = {
    "walltime": "Set walltime",
    "nodes": "Set nodes and ppn, or use select",
    "mem": "Set memory, or use select",
}
# PBS Pro refuses nodes beside these.
_INSTEAD_OF_NODES = ("select", "place")


@dataclass(frozen=True)
class PBSConfig:
    """What each job asks PBS for, and how the backend treats jobs; cannot be changed.

    Attributes:
        queue: Queue, or ``queue@server``.
        walltime: Longest time of a job, ``HH:MM:SS``; PBS kills it then.
        nodes: Number of nodes of a job; it draws on the first of them.
        ppn: Processors on each node; also the number of threads of the job.
        memory: Memory on each node, such as ``4gb``; PBS is asked for that of all nodes.
        python_executable: A Python on the nodes that has this package: a path, or a name
            that is found there.
        working_dir: Folder that this machine and the nodes share; the folders of jobs are
            made in it. None takes this machine's folder for temporary files, which other
            nodes can rarely see.
        extra_pbs_directives: Further lines of the form ``#PBS -A project``. A ``select`` or
            ``place`` among them takes the place of nodes, ppn and memory, which then keep
            their defaults (``ppn`` may still be set: it is the number of threads).
        poll_interval: Time between two looks at the queue in s.
        max_retries: How many times a shard that failed is submitted again.
        cleanup_on_success: Delete the files of a run in which no shard failed.
        max_running_shards: How many shards of one submission may run at the same time; None
            leaves that to PBS.

    Raises:
        ConfigError: A field is not of the allowed form; it is a ``ValueError``.
    """

    queue: str = "batch"
    walltime: str = "01:00:00"
    nodes: int = 1
    ppn: int = 1
    memory: str = "4gb"
    python_executable: str = "python"
    working_dir: str | None = None
    extra_pbs_directives: list[str] = field(default_factory=list)
    poll_interval: float = 30.0
    max_retries: int = 2
    cleanup_on_success: bool = True
    max_running_shards: int | None = None

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ConfigError: One is not of the allowed form.
        """
        check(self)
        # A copy, so that the caller's list cannot change what was checked.
        object.__setattr__(self, "extra_pbs_directives", list(self.extra_pbs_directives))

    @property
    def uses_select(self) -> bool:
        """Whether a directive takes the place of nodes, ppn and memory."""
        return any(
            resource in _INSTEAD_OF_NODES
            for line in self.extra_pbs_directives
            for resource in resources(line)
        )


def check(config: PBSConfig) -> None:
    """Raise a ConfigError unless every field is of its allowed form."""
    for name, rule in _TEXTS.items():
        value = getattr(config, name)
        if value is not None or name not in _OPTIONAL:
            check_text(name, value, rule, where=_WHERE)
    job_text.check_walltime("walltime", config.walltime, where=_WHERE)
    for name, rule in _NUMBERS.items():
        value = getattr(config, name)
        if value is not None or name not in _OPTIONAL:
            _check_number(name, value, rule)
    if not isinstance(config.cleanup_on_success, bool):
        _refuse("cleanup_on_success", config.cleanup_on_success, "true or false")
    _check_directives(config)


def _refuse(name: str, value: object, allowed: str, remedy: str | None = None) -> None:
    job_text.refuse(name, value, allowed, where=_WHERE, remedy=remedy)


def _check_number(name: str, value: Any, rule: _Number) -> None:
    kinds = (int, float) if rule.kind is float else (int,)
    fits = isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not rule.least <= value <= rule.most:
        _refuse(name, value, rule.allowed)


def _check_directives(config: PBSConfig) -> None:
    lines, name = config.extra_pbs_directives, "extra_pbs_directives"
    job_text.check_lines(name, lines, _DIRECTIVE, where=_WHERE)
    for k, line in enumerate(lines):
        for flag in job_text.flags(line):
            if flag in _RESERVED:
                _refuse(f"{name}[{k}]", line, f"any option but {flag}", _RESERVED[flag])
        for resource in resources(line):
            if resource in _RESERVED_RESOURCES:
                remedy = _RESERVED_RESOURCES[resource]
                _refuse(f"{name}[{k}]", line, f"any resource but {resource}", remedy)
        if "block=true" in line.replace(" ", ""):
            _refuse(f"{name}[{k}]", line, "any option but -W block", _RESERVED["-f"])
    if config.uses_select:
        _check_unused(config)


def _check_unused(config: PBSConfig) -> None:
    """Refuse values that PBS would not take beside a ``select`` or ``place``."""
    defaults = {f.name: f.default for f in fields(PBSConfig)}
    for name in ("nodes", "memory"):
        if getattr(config, name) != defaults[name]:
            _refuse(
                name,
                getattr(config, name),
                "nothing but the default beside select or place in extra_pbs_directives",
                "Ask for nodes and memory in the select line",
            )
