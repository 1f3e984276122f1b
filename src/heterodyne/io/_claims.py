"""Who works on which task: claims that are exclusive on any file system that workers share.

The file ``NAME.K.json`` is the K-th claim of the task NAME. It is made with O_EXCL and stays, so
its number is not used again: of all workers that find claim K abandoned exactly one makes claim
K + 1, and the holder of K sees that it has lost the task. No lock is taken. The time of the last
change of the file is its heartbeat; a claim that its holder gave back has the time 0. Of the
others, each that is followed by one was an attempt that came to nothing.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from heterodyne._errors import SamplingError
from heterodyne._log import get_logger

_LOG = get_logger(__name__)
_CLOCK = ".clock"
_GIVEN_BACK = 0.0
_BOOT, _PIDS = Path("/proc/sys/kernel/random/boot_id"), "/proc/self/ns/pid"


class FileClock:
    """The time of the file system, since the clocks of two machines differ."""

    def now(self, folder: Path) -> float:
        """Time in s since 1970 that a change in a folder would get."""
        probe = folder / _CLOCK
        try:
            descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                os.utime(probe)
                return os.fstat(descriptor).st_mtime
            finally:
                os.close(descriptor)
        except OSError:
            # Whoever may only read sees the time of their own machine.
            return time.time()

    def touch(self, path: Path) -> None:
        """Give a file the present time."""
        os.utime(path)


@dataclass(frozen=True)
class Owner:
    """The process that made a claim.

    Attributes:
        host: Name of its machine.
        pid: Number of the process.
        place: What makes the number unique: machine, boot and process namespace.
        since: Time of the claim, by the clock of the file system, in s.
    """

    host: str
    pid: int
    place: str
    since: float

    @property
    def dead(self) -> bool:
        """Whether the process is known to be gone; False where that cannot be known."""
        return self.place == place() and not _runs(self.pid)


@dataclass(frozen=True)
class Seen:
    """The claims of a task at some moment.

    Attributes:
        name: Name of the task.
        number: Number of the latest claim; 0 for none.
        held: Whether it was not given back.
        attempts: Number of claims that were not given back.
        owner: Who made the latest claim; None if there is none or it cannot be read.
        beat: Time of its last sign of life, by the clock of the file system, in s.
    """

    name: str
    number: int = 0
    held: bool = False
    attempts: int = 0
    owner: Owner | None = None
    beat: float = 0.0

    def alive(self, now: float, silence: float) -> bool:
        """Whether someone works on the task.

        Args:
            now: Time by the clock of the file system in s.
            silence: Longest time without a sign of life in s.
        """
        if not self.held or (self.owner is not None and self.owner.dead):
            return False
        return now - self.beat <= silence

    def __str__(self) -> str:
        if self.owner is None:
            return "an unknown process"
        return f"process {self.owner.pid} on {self.owner.host}"


@dataclass(frozen=True)
class Claim:
    """A task that this process works on.

    Attributes:
        name: Name of the task.
        number: Number of the claim.
        attempt: Number of the attempt, from 1.
        before: The claims before this one.
    """

    name: str
    number: int
    attempt: int
    before: Seen
    _folder: Path
    _clock: FileClock

    @property
    def lost(self) -> bool:
        """Whether another worker has taken the task over, or the claim was removed.

        Raises:
            OSError: The file system does not answer as it should.
        """
        own = _time_of(self._path)
        later = _time_of(_file(self._folder, self.name, self.number + 1))
        return own is None or own == _GIVEN_BACK or later is not None

    def beat(self) -> bool:
        """Give a sign of life; return False if the task was lost.

        Raises:
            OSError: The file system does not answer as it should.
        """
        if self.lost:
            return False
        try:
            self._clock.touch(self._path)
        except FileNotFoundError:
            return False
        return True

    def give_back(self) -> None:
        """Let others have the task; the attempt does not count."""
        try:
            # Takes no room, so it works on a full disk.
            os.utime(self._path, (_GIVEN_BACK, _GIVEN_BACK))
        except OSError as error:  # it is void once it has had no sign of life for long
            _LOG.debug("%s: %s", self._path, error)

    @property
    def _path(self) -> Path:
        return _file(self._folder, self.name, self.number)


@dataclass(frozen=True)
class Claims:
    """The claims of all tasks.

    Attributes:
        path: Their folder.
        clock: Tells the time and sets it.
    """

    path: Path
    clock: FileClock = field(default_factory=FileClock)

    def now(self) -> float:
        """Time by the clock of the file system in s."""
        return self.clock.now(self.path)

    def look(self, name: str) -> Seen:
        """Read the claims of a task."""
        return self._seen(name, self._numbers().get(name, ()))

    def look_at_all(self, without: Container[str] = ()) -> dict[str, Seen]:
        """Read the claims of all tasks that have one, but for some."""
        return {
            name: self._seen(name, numbers)
            for name, numbers in self._numbers().items()
            if name not in without
        }

    def take(self, seen: Seen) -> Claim | None:
        """Claim a task after what was seen of it; None if another worker was faster.

        Raises:
            SamplingError: The claim cannot be written.
        """
        number = seen.number + 1
        path = _file(self.path, seen.name, number)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return None
        except OSError as error:
            raise _not_written(path, error) from error
        try:
            about = {"host": host(), "pid": os.getpid(), "place": place(), "since": self.now()}
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(json.dumps(about).encode())
            self.clock.touch(path)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise _not_written(path, error) from error
        return Claim(seen.name, number, seen.attempts + 1, seen, self.path, self.clock)

    def forget(self, name: str) -> None:
        """Let no earlier attempt at a task count."""
        for number in self._numbers().get(name, ()):
            os.utime(_file(self.path, name, number), (_GIVEN_BACK, _GIVEN_BACK))

    def _numbers(self) -> dict[str, list[int]]:
        """Numbers of the claims of each task."""
        found: dict[str, list[int]] = defaultdict(list)
        try:
            listed = os.listdir(self.path)
        except FileNotFoundError:
            return found
        for file in listed:
            name, _, number = file.removesuffix(".json").rpartition(".")
            if file.endswith(".json") and name and number.isdecimal():
                found[name].append(int(number))
        return found

    def _seen(self, name: str, numbers: Iterable[int]) -> Seen:
        *earlier, latest = [0, *sorted(numbers)]
        if not latest:
            return Seen(name)
        try:
            # Opened before its time is read: NFS then asks the server instead of its cache.
            with _file(self.path, name, latest).open("rb") as stream:
                beat, text = os.fstat(stream.fileno()).st_mtime, stream.read()
        except FileNotFoundError:  # the folder is being removed
            return Seen(name)
        times = [beat, *(_time_of(_file(self.path, name, k)) for k in earlier if k)]
        attempts = sum(time is not None and time != _GIVEN_BACK for time in times)
        held = beat != _GIVEN_BACK
        return Seen(name, latest, held, attempts, _owner(text) if held else None, beat)


def host() -> str:
    """Name of this machine."""
    return socket.gethostname()


@cache
def place() -> str:
    """Machine, boot and process namespace: where numbers of processes are unique."""
    try:
        return f"{host()} {_BOOT.read_text().strip()} {os.readlink(_PIDS)}"
    except OSError:
        return host()


def _runs(pid: int) -> bool:
    """Whether a process of this place is there; True where that cannot be asked."""
    if sys.platform == "win32":
        return True  # there, os.kill would end it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _time_of(path: Path) -> float | None:
    """Time of the last change of a file in s; None if there is none.

    Raises:
        OSError: The file system does not answer as it should.
    """
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return None


def _owner(text: bytes) -> Owner | None:
    """Read a claim; None if it is damaged, as after a full disk or a crash."""
    try:
        about: Any = json.loads(text)
        return Owner(
            str(about["host"]), int(about["pid"]), str(about["place"]), float(about["since"])
        )
    except (ValueError, TypeError, KeyError):
        return None


def _file(folder: Path, name: str, number: int) -> Path:
    return folder / f"{name}.{number}.json"


def _not_written(path: Path, error: OSError) -> SamplingError:
    full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    return SamplingError(
        f"the task cannot be claimed ({error.strerror or error})",
        where=path,
        remedy="Make room on the file system; the task is free for another attempt"
        if full
        else "Check that the folder is there and that you may write to it",
    )
