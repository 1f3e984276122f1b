"""Jobs of a batch system that do the draws of a run: the section ``cluster`` of a run file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NoReturn

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from heterodyne._errors import ConfigError
from heterodyne.config import _job_text as job_text
from heterodyne.config._fields import as_tuple, described
from heterodyne.config._job_text import TextRule
from heterodyne.config._section import RunSection

_MOST_CORES, _MOST_NODES = 1024, 10_000
_LONGEST_DRAIN = 300
_DRAIN_SHARE = 10


def _form(rule: TextRule) -> tuple[Any, ...]:
    """Annotations of a text of some form, which the JSON schema states as well."""

    def checked(value: str) -> str:
        job_text.check_text("it", value, rule)
        return value

    schema = {"pattern": f"^(?:{rule.pattern})$", "maxLength": rule.longest}
    return AfterValidator(checked), Field(json_schema_extra=schema)


def _above_zero(walltime: str) -> str:
    job_text.check_walltime("it", walltime)
    return walltime


_Account = Annotated[str, *_form(job_text.ACCOUNT)]
_Address = Annotated[str, *_form(job_text.ADDRESS)]
_Interface = Annotated[str, *_form(job_text.INTERFACE)]
_Memory = Annotated[str, *_form(job_text.MEMORY)]
_Options = Annotated[str, *_form(job_text.OPTIONS)]
_Queue = Annotated[str, *_form(job_text.QUEUE)]
_Resources = Annotated[str, *_form(job_text.RESOURCES)]
_Walltime = Annotated[str, *_form(job_text.WALLTIME), AfterValidator(_above_zero)]


@dataclass(frozen=True)
class _System:
    """What a batch system can be told.

    Attributes:
        prefix: Beginning of the lines that it reads; empty for none.
        more: Further characters of these lines.
        words: Whether it has options such as ``--qos``.
        whole: Whether it has options such as ``-sync``.
        launcher: What starts workers on several nodes; empty where that is not possible.
        unused: Keys of the section that mean nothing to it.
        reserved: Options and resources that it cannot have in further lines, and why.
    """

    prefix: str = ""
    more: str = ""
    words: bool = False
    whole: bool = False
    launcher: str = ""
    unused: tuple[str, ...] = ()
    reserved: Mapping[str, str] = field(default_factory=dict)

    @property
    def directive(self) -> TextRule:
        """Form of the lines that it reads."""
        return job_text.directive_rule(self.prefix, self.more, words=self.words)


_DIRECTIVES = "extra_directives"
_BLOCK_FILES = "the names and files of jobs are set for you"
_SYSTEMS = {
    "local": _System(
        unused=(
            "nodes_per_block", "min_blocks", "init_blocks", "max_blocks", "walltime", "drain",
            "queue", "account", "extra_directives", "select_options", "launcher",
            "launcher_options", "poll_interval",
        )
    ),
    "pbspro": _System(
        "#PBS",
        launcher="mpiexec",
        reserved={
            "-q": "set queue", "-A": "set account", "-J": "a block is one job",
            "-N": _BLOCK_FILES, "-o": _BLOCK_FILES, "-e": _BLOCK_FILES,
            "-S": "the script needs bash", "-C": "the script needs the prefix #PBS",
            "-I": "jobs run without a terminal", "-X": "jobs run without a terminal",
            "-f": "jobs are not waited for at their submission", "-z": "the job id is read",
            "walltime": "set walltime", "nodes": "set nodes_per_block",
            "select": "set nodes_per_block, workers_per_node and select_options",
            "ncpus": "set workers_per_node and cores_per_worker", "mem": "set memory_per_worker",
        },
    ),
    "slurm": _System(
        "#SBATCH",
        words=True,
        launcher="srun",
        unused=("select_options",),
        reserved={
            "-t": "set walltime", "--time": "set walltime",
            "-N": "set nodes_per_block", "--nodes": "set nodes_per_block",
            "-p": "set queue", "--partition": "set queue",
            "-A": "set account", "--account": "set account",
            "-a": "a block is one job", "--array": "a block is one job",
            "-J": _BLOCK_FILES, "--job-name": _BLOCK_FILES,
            "-o": _BLOCK_FILES, "--output": _BLOCK_FILES,
            "-e": _BLOCK_FILES, "--error": _BLOCK_FILES,
            "-n": "set workers_per_node", "--ntasks": "set workers_per_node",
            "--ntasks-per-node": "set workers_per_node",
            "-c": "set cores_per_worker", "--cpus-per-task": "set cores_per_worker",
            "--mem": "set memory_per_worker",
            "-W": "jobs are not waited for at their submission",
            "--wait": "jobs are not waited for at their submission",
        },
    ),
    "grid_engine": _System(
        "#$",
        whole=True,
        unused=("select_options", "launcher", "launcher_options"),
        reserved={
            "-q": "set queue", "-P": "set account", "-t": "a block is one job",
            "-N": _BLOCK_FILES, "-o": _BLOCK_FILES, "-e": _BLOCK_FILES,
            "-S": "the script needs bash", "-C": "the script needs the prefix #$",
            "-sync": "jobs are not waited for at their submission", "h_rt": "set walltime",
        },
    ),
    "lsf": _System(
        "#BSUB",
        '"[]',
        whole=True,
        launcher="jsrun",
        unused=("select_options",),
        reserved={
            "-W": "set walltime", "-q": "set queue", "-P": "set account",
            "-nnodes": "set nodes_per_block", "-J": _BLOCK_FILES,
            "-o": _BLOCK_FILES, "-e": _BLOCK_FILES,
            "-I": "jobs run without a terminal", "-K": "jobs are not waited for at submission",
        },
    ),
}  # fmt: skip


class Cluster(RunSection):
    """Jobs of a batch system that do the draws.

    Each job is a block of nodes with workers, which do one shard after the other.
    """

    scheduler: Annotated[
        Literal["local", "pbspro", "slurm", "grid_engine", "lsf"],
        described("Batch system; local: processes of this machine"),
    ]
    nodes_per_block: Annotated[int, described("Number of nodes of a job", ge=1, le=_MOST_NODES)] = 1
    workers_per_node: Annotated[
        int | None,
        described(
            "Number of workers on a node; null: whole nodes, and as many as they have cores for"
        ),
        Field(ge=1, le=_MOST_CORES),
    ] = None
    cores_per_worker: Annotated[
        int, described("Number of cores and threads of a worker", ge=1, le=_MOST_CORES)
    ] = 1
    memory_per_worker: Annotated[
        _Memory | None,
        described("Memory of a worker, such as 4gb; null: not limited"),
    ] = None
    min_blocks: Annotated[
        int, described("Number of jobs that are kept while few tasks are left", ge=0, le=1000)
    ] = 0
    init_blocks: Annotated[
        int | None,
        described("Number of jobs that are submitted at the start; null: min_blocks, at least 1"),
        Field(ge=0, le=1000),
    ] = None
    max_blocks: Annotated[
        int, described("Largest number of jobs at the same time", ge=1, le=1000)
    ] = 1
    walltime: Annotated[
        _Walltime,
        described("Longest time of a job, HH:MM:SS; what it has not finished, another does"),
    ] = "01:00:00"
    drain: Annotated[
        int | None,
        described(
            "Time before walltime from which a job begins no further task; null: a tenth of "
            "walltime, at most 300 s",
            "s",
        ),
        Field(ge=0),
    ] = None
    queue: Annotated[
        _Queue | None,
        described("Queue or partition; null: the default of the site"),
    ] = None
    account: Annotated[
        _Account | None,
        described("Account or project that pays; null: none is named"),
    ] = None
    extra_directives: Annotated[
        tuple[str, ...],
        BeforeValidator(as_tuple),
        described("Further lines for the batch system, such as '#SBATCH --qos=regular'"),
    ] = ()
    select_options: Annotated[
        _Resources | None,
        described("Further resources of a node of PBS Pro, such as system=polaris"),
    ] = None
    worker_init: Annotated[
        tuple[str, ...],
        BeforeValidator(as_tuple),
        described("Lines of shell that each node runs before its workers, such as module load"),
    ] = ()
    launcher: Annotated[
        Literal["auto", "single_node", "srun", "mpiexec", "pals", "mpirun", "aprun", "jsrun"],
        described(
            "What starts workers on the nodes of a job; auto: what the batch system comes with; "
            "pals: mpiexec of HPE Cray"
        ),
    ] = "auto"
    launcher_options: Annotated[
        _Options | None,
        described("Further options of the launcher"),
    ] = None
    address: Annotated[
        _Address | None,
        described("Address of this machine that nodes can reach; null: they try all it has"),
    ] = None
    interface: Annotated[
        _Interface | None,
        described("Network interface of this machine with that address, instead of address"),
    ] = None
    poll_interval: Annotated[
        int, described("Time between two looks at the queue", "s", ge=1, le=3600)
    ] = 30

    @model_validator(mode="after")
    def _consistent(self) -> Cluster:
        self._check_used()
        self._check_counts()
        self._check_times()
        self._check_lines()
        return self

    @property
    def prefix(self) -> str:
        """Beginning of the lines that the batch system reads; empty for none."""
        return _SYSTEMS[self.scheduler].prefix

    @property
    def starts_with(self) -> str:
        """The launcher that is used."""
        if self.launcher != "auto":
            return self.launcher
        return "single_node" if self.nodes_per_block == 1 else _SYSTEMS[self.scheduler].launcher

    @property
    def walltime_s(self) -> int:
        """Longest time of a job in s."""
        return job_text.seconds(self.walltime)

    @property
    def drain_s(self) -> int:
        """Time before the walltime from which a job begins no further task, in s."""
        if self.drain is not None:
            return self.drain
        return min(self.walltime_s // _DRAIN_SHARE, _LONGEST_DRAIN)

    @property
    def first_blocks(self) -> int:
        """Number of jobs that are submitted at the start."""
        return max(self.min_blocks, 1) if self.init_blocks is None else self.init_blocks

    @property
    def memory_gib(self) -> float | None:
        """Memory of a worker in GiB; None for no limit."""
        given = self.memory_per_worker
        return None if given is None else job_text.gibibytes(given)

    def _check_used(self) -> None:
        """Refuse what the batch system would not be told."""
        for name in _SYSTEMS[self.scheduler].unused:
            if name in self.model_fields_set:
                _refuse(
                    name,
                    f"{name} means nothing to the scheduler {self.scheduler}",
                    "nothing",
                    f"Remove {name}",
                )
        if self.address is not None and self.interface is not None:
            _refuse("interface", "there is also an address", "one of the two", "Remove one")

    def _check_counts(self) -> None:
        counts = (self.min_blocks, self.first_blocks, self.max_blocks)
        if not self.min_blocks <= self.first_blocks <= self.max_blocks:
            _refuse(
                "max_blocks",
                "min_blocks, init_blocks and max_blocks are {}, {} and {}".format(*counts),
                "numbers that do not fall",
            )
        if self.scheduler in ("pbspro", "grid_engine") and self.workers_per_node is None:
            _refuse(
                "workers_per_node",
                f"{self.scheduler} has to be told how many cores a node gives",
                f"an integer from 1 to {_MOST_CORES}",
                "Set workers_per_node and cores_per_worker",
            )
        if self.nodes_per_block > 1 and self.starts_with in ("", "single_node"):
            several = bool(_SYSTEMS[self.scheduler].launcher)
            _refuse(
                "nodes_per_block",
                f"it is {self.nodes_per_block}, and workers start on one node only",
                "1",
                "Set launcher" if several else "Set max_blocks for more jobs",
            )

    def _check_times(self) -> None:
        if self.drain_s >= self.walltime_s:
            _refuse(
                "drain",
                f"it is {self.drain_s} s, and walltime {self.walltime_s} s",
                f"0 to {self.walltime_s - 1} s",
                "No task would begin",
            )

    def _check_lines(self) -> None:
        system = _SYSTEMS[self.scheduler]
        for name, rule in (("worker_init", job_text.COMMAND), (_DIRECTIVES, system.directive)):
            job_text.check_lines(name, getattr(self, name), rule, where=f"cluster.{name}")
        for k, line in enumerate(self.extra_directives):
            names = [*job_text.flags(line, whole=system.whole), *job_text.resources(line)]
            for name in names:
                if name in system.reserved:
                    why = system.reserved[name]
                    job_text.refuse(
                        f"{_DIRECTIVES}[{k}]",
                        line,
                        f"anything but {name}",
                        where=f"cluster.{_DIRECTIVES}",
                        remedy=f"{why[:1].upper()}{why[1:]}",
                    )


def _refuse(key: str, problem: str, allowed: str, remedy: str | None = None) -> NoReturn:
    raise ConfigError(problem, where=f"cluster.{key}", allowed=allowed, remedy=remedy)
