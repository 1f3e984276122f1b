"""The folder of work that many processes share: tasks, who works on them, and what came out.

It is a folder of a run on a file system that all workers see, and the only truth about the tasks:
any process may die at any time, and the same command goes on with what is there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heterodyne._errors import ConfigError
from heterodyne._log import get_logger
from heterodyne.io import _work_files as written
from heterodyne.io import files
from heterodyne.io._claims import Claim, Claims, Seen, host
from heterodyne.io._work_files import Rules
from heterodyne.io._work_state import Record, Status, Task, TaskState, WorkState, state_of

if TYPE_CHECKING:
    from heterodyne._typing import PathArg

__all__ = [
    "WORK",
    "Claim",
    "Record",
    "Rules",
    "Seen",
    "Status",
    "Task",
    "TaskState",
    "WorkFolder",
    "WorkState",
]

_LOG = get_logger(__name__)

WORK = "work"
"""Name of the folder of work in the folder of a run."""

_EVENTS, _CANCEL = "events.jsonl", "cancel"
# What a process that was killed while it wrote leaves; see files.replacing.
_PARTIAL = re.compile(r"\.[0-9a-f]{32}\..+")


@dataclass(frozen=True)
class WorkFolder:
    """Tasks of one kind, and what became of them.

    Attributes:
        path: The folder.
        kind: What the tasks are.
        tasks: The tasks, by name; their order is that of the results.
        rules: How long things may take.
        claims: Who works on what.
    """

    path: Path
    kind: str
    tasks: Mapping[str, Task]
    rules: Rules
    claims: Claims
    _known: dict[str, tuple[tuple[int, int], Record | None]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @classmethod
    def create(
        cls, run_folder: PathArg, kind: str, tasks: Sequence[Task], rules: Rules | None = None
    ) -> WorkFolder:
        """Make the folder of work of a run, or take up the one with the same tasks.

        A folder that was cancelled goes on. Rules may change; tasks may not. Whether data and
        settings are those of the run is for ``RunFolder.check`` to say, which comes first.

        Args:
            run_folder: Folder of the run; it exists.
            kind: What the tasks are.
            tasks: The tasks; names are unique, also without regard to case.
            rules: How long things may take.

        Raises:
            ConfigError: The folder holds other tasks, a name cannot be used, or nothing can be
                written.
        """
        written.check_names(tasks)
        rules = Rules() if rules is None else rules
        path = Path(run_folder) / WORK
        if not (path / written.TASKS).exists():
            written.make(path, kind, tasks, rules)
        work = cls.open(run_folder)
        different = written.difference(work.kind, work.tasks, kind, tasks)
        if different:
            raise ConfigError(
                f"the folder of work was made for other tasks: {different}",
                where=path,
                remedy=written.FORCE,
            )
        if work.rules != rules:
            files.write_json(path / written.RULES, asdict(rules))
        (path / _CANCEL).unlink(missing_ok=True)
        return replace(work, rules=rules)

    @classmethod
    def open(cls, run_folder: PathArg) -> WorkFolder:
        """Take the existing folder of work of a run.

        Raises:
            ConfigError: There is none, or its tasks cannot be read.
        """
        path = Path(run_folder) / WORK
        if not (path / written.TASKS).exists():
            raise ConfigError(
                "there is no folder of work with tasks",
                where=path,
                remedy="Give the folder of a run that is divided into tasks",
            )
        kind, tasks = written.read_tasks(path / written.TASKS)
        return cls(
            path,
            kind,
            tasks,
            written.read_rules(path / written.RULES),
            Claims(path / written.CLAIMS),
        )

    @staticmethod
    def is_in(run_folder: PathArg) -> bool:
        """Whether a run has a folder of work."""
        return (Path(run_folder) / WORK / written.TASKS).is_file()

    @staticmethod
    def remove(run_folder: PathArg) -> None:
        """Remove the folder of work of a run, if there is one.

        Raises:
            ConfigError: A file cannot be removed.
        """
        path = Path(run_folder) / WORK
        try:
            # First, because workers that still run then take no further task.
            (path / written.TASKS).unlink(missing_ok=True)
            shutil.rmtree(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise ConfigError(
                f"the folder of work cannot be removed ({error.strerror})",
                where=path,
                remedy="Stop its workers with 'heterodyne cancel', and try again",
            ) from error

    @property
    def cancelled(self) -> bool:
        """Whether all work has to stop."""
        return (self.path / _CANCEL).exists()

    def cancel(self) -> None:
        """Let all workers stop; the same tasks can be taken up again.

        Raises:
            ConfigError: The mark cannot be written.
        """
        files.write_text(self.path / _CANCEL, "")

    def claim(self, name: str, silence: float | None = None) -> Claim | None:
        """Claim a task for this process.

        Args:
            name: Name of the task.
            silence: Time in s after which a claim without a sign of life is void; by default
                that of the rules.

        Returns:
            The claim; None if the task is settled, or someone works on it.

        Raises:
            SamplingError: The claim cannot be written.
        """
        if self.record(name) is not None:
            return None
        seen = self.claims.look(name)
        silence = self.rules.silence if silence is None else silence
        if seen.held and seen.alive(self.claims.now(), silence):
            return None
        return self.take(seen)

    def take(self, seen: Seen) -> Claim | None:
        """Claim a task that was seen to be free; None if another worker was faster.

        Raises:
            SamplingError: The claim cannot be written.
        """
        claim = self.claims.take(seen)
        if claim is not None and self.record(seen.name) is not None:  # settled in between
            claim.give_back()
            return None
        return claim

    def settle(self, claim: Claim, record: Record) -> bool:
        """Write what came out of a task, unless another worker has taken it over.

        Returns:
            Whether the record was written.

        Raises:
            ConfigError: It cannot be written; nothing of it is left.
        """
        if claim.lost or self.record(claim.name) is not None:
            return False
        files.write_json(self.path / written.DONE / f"{claim.name}.json", asdict(record))
        return True

    def record(self, name: str) -> Record | None:
        """What came out of a task; None if it is not settled."""
        path = self.path / written.DONE / f"{name}.json"
        try:
            with path.open("rb") as stream:
                found = os.fstat(stream.fileno())
                version = (found.st_mtime_ns, found.st_size)
                if self._known.get(name, (None,))[0] != version:
                    self._known[name] = version, _read_record(path, stream.read())
        except FileNotFoundError:
            self._known.pop(name, None)
            return None
        return self._known[name][1]

    def records(self) -> dict[str, Record]:
        """What came out of the tasks that are settled; a damaged record counts as none."""
        try:
            there = set(os.listdir(self.path / written.DONE))
        except FileNotFoundError:
            there = set()
        found = {name: self.record(name) for name in self.tasks if f"{name}.json" in there}
        return {name: record for name, record in found.items() if record is not None}

    def unsettled(self) -> list[Task]:
        """Tasks without a record, in their order."""
        settled = self.records()
        return [task for name, task in self.tasks.items() if name not in settled]

    def free_failed(self) -> list[str]:
        """Let tasks whose record has a problem be tried again; return their names."""
        failed = [name for name, record in self.records().items() if record.problem is not None]
        for name in failed:
            self.claims.forget(name)
            (self.path / written.DONE / f"{name}.json").unlink(missing_ok=True)
        return failed

    def state(self) -> WorkState:
        """How far the work is; claims of settled tasks are not read."""
        records = self.records()
        seen = self.claims.look_at_all(without=records)
        for name, one in seen.items():
            # A task that was settled in between is not to be seen as lost.
            if one.held and (record := self.record(name)) is not None:
                records[name] = record
        now = self.claims.now()
        return state_of(self.tasks.values(), records, seen, now, self.rules.silence)

    def log(self, name: str, event: str, **about: object) -> None:
        """Append an event to the log of the work, which is for people: it may be incomplete.

        Args:
            name: Name of the task.
            event: What happened, in a word.
            about: More about it.
        """
        entry = {"time": time.time(), "task": name, "host": host(), "pid": os.getpid()}
        line = json.dumps(json.loads(files.to_json({**entry, "event": event, **about})))
        try:
            target = os.open(self.path / _EVENTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(target, f"{line}\n".encode())
            finally:
                os.close(target)
        except OSError as error:
            _LOG.debug("%s: %s", self.path / _EVENTS, error)

    def events(self, start: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Read the log of the work.

        Args:
            start: Where to start, in bytes; negative values count from the end.

        Returns:
            The events, and where the next ones start.
        """
        try:
            with (self.path / _EVENTS).open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                stream.seek(max(0, size + start if start < 0 else start))
                begin, text = stream.tell(), stream.read()
        except OSError:
            return [], max(0, start)
        whole = text[: text.rfind(b"\n") + 1]
        found = [event for line in whole.splitlines() if (event := _read_event(line))]
        return found, begin + len(whole)

    def tidy(self) -> None:
        """Remove what processes that were killed while they wrote have left in the run folder."""
        now = self.claims.now()
        # Once all is settled nobody writes any more, but who has not yet heard of that.
        enough = self.rules.silence if self.unsettled() else self.rules.beat
        for path in self.path.parent.rglob(".*"):
            if not _PARTIAL.fullmatch(path.name):
                continue
            try:
                if now - path.stat().st_mtime > enough and path.is_file():
                    path.unlink()
            except OSError as error:
                _LOG.debug("%s: %s", path, error)


def _read_record(path: Path, text: bytes) -> Record | None:
    try:
        return Record.from_dict(json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        _LOG.warning("%s: the record is damaged (%s), so its task is done again.", path, error)
        return None


def _read_event(line: bytes) -> dict[str, Any] | None:
    """Read a line of the log; lines of two machines may have been mixed up."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and {"time", "task", "event"} <= set(event) else None
