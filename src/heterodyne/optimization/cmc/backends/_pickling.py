"""Pickles for other processes, and what to say where there can be none."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from heterodyne._errors import ConfigError


def pickled(
    content: Any,
    what: str,
    where: str,
    *,
    dumps: Callable[[Any], bytes] = pickle.dumps,
    otherwise: str = "; or use the backend cpu, which starts no process",
) -> bytes:
    """Pickle something for another process.

    Args:
        content: What to pickle.
        what: Its name in the error.
        where: Argument or step that it belongs to.
        dumps: What pickles it.
        otherwise: End of the remedy.

    Raises:
        ConfigError: It cannot be pickled.
    """
    try:
        return dumps(content)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"{what} cannot be pickled: {error}",
            where=where,
            allowed="functions and classes at the top level of a module, with plain data",
            remedy="Move what is defined inside a function to the top level of a .py file, and "
            f"bind data with functools.partial{otherwise}",
        ) from error
