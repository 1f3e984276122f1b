"""The folder of a run on PBS: inputs of jobs, their results and logs.

It belongs to this user alone, because a job runs what it finds there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from heterodyne._errors import ConfigError
from heterodyne._log import get_logger
from heterodyne._typing import FloatArray
from heterodyne.io import files
from heterodyne.optimization.cmc.backends._pbs_payload import Payload, ShardInput

_log = get_logger(__name__)

_PREFIX = "heterodyne-pbs-"
_TASK, _MODEL, _JOBS = "task.json", "model.pkl", "jobs.json"
_ARGUMENT, _START, _DRAWS, _KEY, _REMARKS = "argument.", "start.", "draws.", "key", "remarks"
_LOG_LINES, _LOG_BYTES = 20, 4000
# Between attempts to remove a folder, in s.
_PAUSES_S = (0.2, 1.0)


@dataclass(frozen=True)
class JobFolder:
    """A folder with the files of one run.

    Attributes:
        path: The folder.
    """

    path: Path

    @classmethod
    def fresh(cls, base: Path) -> JobFolder:
        """Make a new folder.

        Raises:
            ConfigError: It cannot be made.
        """
        try:
            return cls(Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base)))
        except OSError as error:
            raise _not_made(base, error) from None

    @classmethod
    def of_run(cls, base: Path, fingerprint: str) -> JobFolder:
        """Take the folder of a run, where an earlier process may have left some results.

        Raises:
            ConfigError: It cannot be made, or does not belong to this user alone.
        """
        folder = cls(base / f"{_PREFIX}{fingerprint[:24]}")
        try:
            folder.path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise _not_made(base, error) from None
        folder.check_private()
        return folder

    def check_private(self) -> None:
        """Raise a ConfigError unless the folder belongs to this user alone."""
        found = self.path.lstat()
        mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
        if not mine or found.st_mode & 0o077:
            raise ConfigError(
                f"the folder has mode {stat.filemode(found.st_mode)} and belongs to user "
                f"{found.st_uid}",
                where=self.path,
                allowed=f"drwx------ of user {os.getuid()}, as others could change what jobs run",
                remedy="Remove it, or choose another working_dir",
            )

    def write_inputs(self, payload: Payload, inputs: Mapping[int, ShardInput]) -> str:
        """Write what the jobs read, unless it is there; return the digest of the task.

        Raises:
            ConfigError: A file cannot be written.
        """
        task = self.path / _TASK
        if not task.exists():
            for shard, given in inputs.items():
                about = {"values": given.values, "starts": given.starts is not None}
                files.write_text(self.path / f"{_name(shard)}.json", json.dumps(about))
                arrays = {f"{_ARGUMENT}{name}": x for name, x in given.arrays.items()}
                arrays |= {f"{_START}{name}": x for name, x in (given.starts or {}).items()}
                arrays[_KEY] = given.key
                files.write_npz(self.path / f"{_name(shard)}.npz", arrays)
            files.write_bytes(self.path / _MODEL, payload.model)
            # Last, because its presence says that all are there.
            files.write_bytes(task, payload.task)
        return hashlib.sha256(payload.task).hexdigest()

    def read_task(self, digest: str) -> tuple[bytes, dict[str, Any], list[str]]:
        """Read the pickled model, the settings and the folders to import from.

        Args:
            digest: SHA-256 of the task, as the job script gives it.

        Raises:
            ConfigError: The folder is not private, or a file is not what was submitted.
        """
        self.check_private()
        content = (self.path / _TASK).read_bytes()
        _check_digest(self.path / _TASK, content, digest)
        task = json.loads(content)
        model = (self.path / _MODEL).read_bytes()
        _check_digest(self.path / _MODEL, model, task["model"])
        return model, task["settings"], task["search"]

    def read_input(self, shard: int) -> ShardInput:
        """Read the input of a shard.

        Raises:
            ConfigError: A file is missing or damaged.
        """
        about = files.read_json(self.path / f"{_name(shard)}.json")
        arrays = files.read_npz(self.path / f"{_name(shard)}.npz")
        starts = _with(_START, arrays) if about["starts"] else None
        return ShardInput(arrays[_KEY], about["values"], _with(_ARGUMENT, arrays), starts)

    def write_result(
        self, shard: int, draws: Mapping[str, np.ndarray], remarks: Sequence[str]
    ) -> None:
        """Write the draws of a shard, and what is to be said of them, at once.

        Raises:
            ConfigError: The file cannot be written.
        """
        arrays = {f"{_DRAWS}{name}": x for name, x in draws.items()}
        files.write_npz(self._result(shard), {**arrays, _REMARKS: np.array(remarks, str)})

    def names(self) -> set[str]:
        """Names of the files that are there, read anew from a shared file system."""
        try:
            return set(os.listdir(self.path))
        except FileNotFoundError:
            return set()

    def has_result(self, shard: int, names: Collection[str]) -> bool:
        """Whether the result of a shard is among the files."""
        return self._result(shard).name in names

    def read_result(self, shard: int) -> tuple[dict[str, FloatArray], list[str]]:
        """Read the draws of a shard, and remarks; a file that is damaged is removed.

        Raises:
            ConfigError: The file is missing or damaged.
        """
        try:
            arrays = files.read_npz(self._result(shard))
            draws = _with(_DRAWS, arrays)
            if not draws:
                raise ConfigError("there are no draws in it", where=self._result(shard))
        except ConfigError:
            self._result(shard).unlink(missing_ok=True)
            raise
        return draws, [str(remark) for remark in arrays.get(_REMARKS, ())]

    def write_jobs(self, jobs: Mapping[int, tuple[str, str]]) -> None:
        """Note job id and log of each shard, for a process that goes on.

        Raises:
            ConfigError: The file cannot be written.
        """
        files.write_json(self.path / _JOBS, {str(k): list(job) for k, job in jobs.items()})

    def read_jobs(self) -> dict[int, tuple[str, str]]:
        """Job id and log of each shard that was submitted.

        Raises:
            ConfigError: The file is damaged.
        """
        if not (self.path / _JOBS).exists():
            return {}
        return {int(k): (job[0], job[1]) for k, job in files.read_json(self.path / _JOBS).items()}

    def write_script(self, text: str, number: int) -> Path:
        """Write a job script.

        Raises:
            ConfigError: The file cannot be written.
        """
        return files.write_text(self.path / f"job_{number:03d}.sh", text)

    def next_number(self) -> int:
        """Number of the next job script, from 1."""
        return 1 + len(list(self.path.glob("job_*.sh")))

    def log_tail(self, log: str, job_id: str) -> str:
        """Last lines that a job printed, or that PBS wrote about it; empty if none."""
        sequence = job_id.partition(".")[0]
        by_pbs = f"*.o{sequence.replace('[', '.').rstrip(']')}"
        for path in (self.path / log, *self.path.glob(by_pbs)):
            if path.is_file() and path.stat().st_size:
                text = path.read_bytes()[-_LOG_BYTES:].decode("utf-8", errors="replace")
                return "\n".join(text.splitlines()[-_LOG_LINES:])
        return ""

    def remove_shard(self, shard: int) -> None:
        """Remove the files of a shard."""
        for path in self.path.glob(f"*{_name(shard)}.*"):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder; what cannot be removed is logged."""
        failure: OSError | None = None
        # A job that has ended may still write its last lines while files are removed.
        for pause in (0.0, *_PAUSES_S):
            time.sleep(pause)
            try:
                shutil.rmtree(self.path)
            except OSError as error:
                failure = error
            if not self.path.exists():
                return
        _log.warning("%s could not be removed: %s", self.path, failure)

    def _result(self, shard: int) -> Path:
        return self.path / f"result_{_name(shard)}.npz"


def _not_made(base: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"no folder can be made in it ({error.strerror})",
        where=base,
        remedy="Give as working_dir a folder that exists and that you may write to",
    )


def _check_digest(path: Path, content: bytes, digest: str) -> None:
    if hashlib.sha256(content).hexdigest() != digest:
        raise ConfigError(
            "the file is not the one that was submitted, so nothing in it was run",
            where=path,
            remedy="Submit again",
        )


def _name(shard: int) -> str:
    return f"shard_{shard:05d}"


def _with(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {n.removeprefix(prefix): x for n, x in arrays.items() if n.startswith(prefix)}
