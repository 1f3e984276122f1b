"""ArviZ's statistics of arrays, imported on first use.

The import takes longer than most of what is computed with them, and work that does without,
such as a fit, is not to wait for it.
"""

from __future__ import annotations

from typing import Any

from heterodyne.core.ahead import import_ahead

_HOME = "arviz_stats.base.array"


def array_stats() -> Any:
    """Return ArviZ's functions of arrays."""
    from arviz_stats.base.array import array_stats as functions

    return functions


def import_statistics() -> None:
    """Have them imported in the background."""
    import_ahead(_HOME)
