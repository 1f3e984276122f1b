"""Errors that a user can act on.

Every message says what is wrong with the value seen, where it came from, what
is allowed and what to do next. The exit code of the command line belongs to the
class of the error, so no caller translates errors a second time.
"""

from __future__ import annotations


class HeterodyneError(Exception):
    """Base of all errors raised on purpose; its text is meant for the user.

    Args:
        problem: What is wrong, with the value seen; no full stop at the end.
        where: Path, ``file:line:column`` or argument the value came from.
        allowed: Accepted values or range, with unit.
        remedy: What to do next.
    """

    exit_code = 1

    def __init__(
        self,
        problem: str,
        *,
        where: object = None,
        allowed: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problem = problem
        self.where = None if where is None else str(where)
        self.allowed = allowed
        self.remedy = remedy
        text = problem if self.where is None else f"{self.where}: {problem}"
        sentences = [text]
        if allowed is not None:
            sentences.append(f"Allowed: {allowed}")
        if remedy is not None:
            sentences.append(remedy)
        super().__init__(" ".join(s if s[-1:] in ".?" else f"{s}." for s in sentences))


class ConfigError(HeterodyneError, ValueError):
    """A run file, option or argument that cannot be used."""


class DataError(HeterodyneError, ValueError):
    """A data file or array that cannot be used."""

    exit_code = 2


class SamplingError(HeterodyneError, RuntimeError):
    """A fit or a sampling run that could not be carried out."""


class InterruptedRunError(HeterodyneError):
    """A run stopped by the user or the scheduler; its state is on disk."""

    exit_code = 130
