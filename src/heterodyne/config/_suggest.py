"""The nearest known name, for whoever mistyped one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: object, known: Iterable[str]) -> str | None:
    """Return the known name most like ``word``; None if none is alike."""
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(str(word).lower(), names, n=1)
    return names[close[0]] if close else None


def not_known(what: str, word: object, known: Iterable[str]) -> str:
    """Say that a word is not known and which one may have been meant.

    Returns:
        The text without a full stop where nothing is alike, else ending in one
        question; ``allowed`` of an error goes on from either.
    """
    close = nearest(word, known)
    hint = "" if close is None else f" (did you mean {close!r}?)"
    return f"unknown {what} {word!r}{hint}"
