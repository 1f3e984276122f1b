"""The folder of a batch: the run files of its members, and their run folders beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heterodyne._errors import ConfigError
from heterodyne.io import files
from heterodyne.io.run_folder import MANIFEST, SUMMARY, RunFolder, config_sha256
from heterodyne.io.work_folder import Status, Task, WorkFolder

if TYPE_CHECKING:
    from heterodyne._typing import PathArg

KIND = "run"
"""What the members are as tasks of shared work."""

MEMBERS = "members.json"
DOCUMENT = "batch.json"
TABLE = "batch.csv"
PICTURE = "batch.png"
PAGE = "batch.html"


@dataclass(frozen=True)
class BatchFolder:
    """A folder with the run folders of a batch.

    Attributes:
        path: The folder.
    """

    path: Path

    @classmethod
    def create(
        cls, path: PathArg, members: Mapping[str, Mapping[str, Any]], *, force: bool = False
    ) -> BatchFolder:
        """Make the folder of a batch, or take one in which members may be finished.

        Members of an earlier batch there that are not among the new ones stay as they are; its
        summary goes, for it is there only once a batch is done.

        Args:
            path: The folder.
            members: Resolved run file of each member, by name.
            force: Whether the results of the members are removed first.

        Raises:
            ConfigError: The folder belongs to a single run, a member's folder to other
                settings, or nothing can be written.
        """
        batch = cls(Path(path))
        if batch.run(".").file(MANIFEST).exists():
            raise ConfigError(
                "it holds the results of a single run",
                where=path,
                remedy="Choose another folder with --set output.directory=...",
            )
        for name, config in members.items():
            run = batch.run(name)
            if force:
                run.clear()
            elif run.file(MANIFEST).exists():
                run.check({**run.manifest, "config_sha256": config_sha256(config)})
        if force:
            WorkFolder.remove(path)
        try:
            batch.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the folder cannot be made ({error.strerror})",
                where=path,
                remedy="Choose another folder with --set output.directory=...",
            ) from None
        for name in (DOCUMENT, TABLE, PICTURE, PAGE):
            (batch.path / name).unlink(missing_ok=True)
        files.write_json(batch.path / MEMBERS, members)
        return batch

    @classmethod
    def open(cls, path: PathArg) -> BatchFolder:
        """Take the existing folder of a batch.

        Raises:
            ConfigError: It is none.
        """
        if not cls.exists(path):
            raise ConfigError(
                f"there is no {MEMBERS}, so this is no folder of a batch",
                where=path,
                remedy="Give the output.directory of a run file with several files or q",
            )
        return cls(Path(path))

    @staticmethod
    def exists(path: PathArg) -> bool:
        """Whether a folder is that of a batch."""
        return (Path(path) / MEMBERS).is_file()

    @property
    def members(self) -> dict[str, dict[str, Any]]:
        """Resolved run file of each member by name, in order.

        Their ``output.directory`` lies in this folder, under whatever path it is seen here.

        Raises:
            ConfigError: The list cannot be read.
        """
        listed: dict[str, dict[str, Any]] = files.read_json(self.path / MEMBERS)
        return {
            name: config | {"output": config["output"] | {"directory": str(self.path / name)}}
            for name, config in listed.items()
        }

    def work(self, tasks: Sequence[Task]) -> WorkFolder:
        """Make the folder of work of the batch, or go on with the one that is there.

        What became of members is in their own folders, so a folder of work for other members, or
        one that has records without results, makes way for a new one unless someone works on it.
        Members that failed are tried again.

        Args:
            tasks: The members.

        Raises:
            ConfigError: Others work on other members, or nothing can be written.
        """
        if WorkFolder.is_in(self.path):
            known = WorkFolder.open(self.path)
            settled = known.records().items()
            done = [name for name, record in settled if record.problem is None]
            whole = all(self.run(name).file(SUMMARY).is_file() for name in done)
            same = list(known.tasks.values()) == list(tasks)
            if not (same and whole) and not known.state().of(Status.RUNNING):
                WorkFolder.remove(self.path)
        work = WorkFolder.create(self.path, KIND, tasks)
        work.free_failed()
        return work

    def run(self, name: str) -> RunFolder:
        """Run folder of a member, whether it is there or not."""
        return RunFolder(self.path / name)
