"""The files of a folder of work that are written once: its tasks, and the rules for them."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from heterodyne._errors import ConfigError
from heterodyne._log import get_logger
from heterodyne.io import files
from heterodyne.io._work_state import Task

_LOG = get_logger(__name__)

TASKS, RULES, CLAIMS, DONE = "tasks.json", "rules.json", "claims", "done"
FORCE = "Start anew with --force, which replaces the results"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_MOST_NAMED = 5
_LONGEST_BEAT = 10.0
_TIMES = ("silence", "task")


@dataclass(frozen=True)
class Rules:
    """How long things may take, and how often to try.

    Attributes:
        silence: Longest time without a sign of life in s; then the task is free for others.
        task: Longest time for a task in s.
        attempts: Largest number of attempts at a task whose workers died or fell silent.
    """

    silence: float = 120.0
    task: float = math.inf
    attempts: int = 3

    @property
    def beat(self) -> float:
        """Time between two signs of life in s."""
        return min(_LONGEST_BEAT, self.silence / 4.0)


def check_names(tasks: Sequence[Task]) -> None:
    """Refuse names that cannot be those of files everywhere.

    Raises:
        ConfigError: A name cannot be used, is there twice, or there is none.
    """
    seen: set[str] = set()
    for task in tasks:
        if not _NAME.fullmatch(task.name) or task.name.endswith("."):
            raise ConfigError(
                f"'{task.name}' cannot name a task",
                where="tasks",
                allowed="1 to 100 letters, digits, '_', '-' and '.', the first a letter or digit, "
                "the last no '.'",
            )
        if task.name.casefold() in seen:
            raise ConfigError(f"two tasks are named '{task.name}'", where="tasks")
        seen.add(task.name.casefold())
    if not tasks:
        raise ConfigError("there is no task", where="tasks", allowed="at least one")


def make(path: Path, kind: str, tasks: Sequence[Task], rules: Rules) -> None:
    """Make a folder with all that belongs into it at once; another process may be faster.

    Raises:
        ConfigError: It cannot be made.
    """
    partial = path.with_name(f".{uuid.uuid4().hex}.{path.name}")
    content = {"kind": kind, "tasks": [asdict(task) for task in tasks]}
    try:
        for name in (CLAIMS, DONE):
            (partial / name).mkdir(parents=True)
        files.write_json(partial / RULES, asdict(rules))
        files.write_json(partial / TASKS, {"sha256": _digest(content), **content})
        partial.rename(path)
    except OSError as error:
        if not (path / TASKS).exists():
            raise ConfigError(
                f"the folder of work cannot be made ({error.strerror})",
                where=path,
                remedy=f"Remove it, if it is the rest of another run ({FORCE.lower()}), or "
                "choose another place",
            ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _digest(content: Mapping[str, Any]) -> str:
    plain = json.loads(files.to_json({key: content[key] for key in ("kind", "tasks")}))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def read_tasks(path: Path) -> tuple[str, dict[str, Task]]:
    """Read the kind of the tasks, and the tasks by name.

    Raises:
        ConfigError: The file is damaged.
    """
    content = files.read_json(path)
    try:
        if content["sha256"] != _digest(content):
            raise ValueError("its digest does not match")
        tasks = [Task(**task) for task in content["tasks"]]
        return str(content["kind"]), {task.name: task for task in tasks}
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"the tasks are damaged ({type(error).__name__}: {error})", where=path, remedy=FORCE
        ) from None


def read_rules(path: Path) -> Rules:
    """Read the rules; what cannot be read leaves the default, for work can go on with that."""
    try:
        found = files.read_json(path)
        return Rules(
            # An infinite limit is null in JSON.
            *(math.inf if found[name] is None else float(found[name]) for name in _TIMES),
            attempts=int(found["attempts"]),
        )
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        _LOG.warning("The rules cannot be read, so the default holds: %s", error)
        return Rules()


def difference(
    known_kind: str, known_tasks: Mapping[str, Task], kind: str, tasks: Sequence[Task]
) -> str:
    """Say how known tasks differ from those that are wanted; empty if they do not."""
    if known_kind != kind:
        return f"they are of the kind {known_kind}, not {kind}"
    wanted = {task.name: json.loads(files.to_json(asdict(task))) for task in tasks}
    known = {name: json.loads(files.to_json(asdict(task))) for name, task in known_tasks.items()}
    changes: list[tuple[str, Callable[[str], bool]]] = [
        ("there before and not now", lambda name: name not in wanted),
        ("new", lambda name: name not in known),
        ("changed", lambda n: n in wanted and n in known and wanted[n] != known[n]),
    ]
    found = []
    for what, holds in changes:
        names = [name for name in {**known, **wanted} if holds(name)]
        if names:
            more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
            found.append(f"{', '.join(names[:_MOST_NAMED])}{more} {what}")
    if not found and list(known) != list(wanted):
        return "their order differs"
    return "; ".join(found)
