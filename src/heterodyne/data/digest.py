"""Digests of files."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path


def file_sha256(path: str) -> str:
    """Digest of a file, as hexadecimal text."""
    state = Path(path).stat()
    return _sha256(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=8)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    """Digest of a file in the given state; size and time are there to key the cache."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
