"""Progress as a stream of typed events.

Long work reports what it does by calling an ``EventSink``; progress bars, logs
and tests are sinks. Work never prints.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Progress:
    """Work done so far in one stage.

    Attributes:
        stage: Short name of the stage, the same for all events of it.
        done: Units finished.
        total: Units in all; the estimate may change from event to event.
        detail: Figures worth showing beside the bar, such as divergences.
    """

    stage: str
    done: float
    total: float
    detail: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Message:
    """Something the user should read.

    Attributes:
        text: One sentence or paragraph.
        severity: ``info``, ``warning`` or ``error``.
    """

    text: str
    severity: Literal["info", "warning", "error"] = "info"


Event = Progress | Message
EventSink = Callable[[Event], None]


def ignore_events(event: Event) -> None:
    """Drop an event; the default sink of the Python interface."""


def log_events(logger: logging.Logger, info: int = logging.INFO) -> EventSink:
    """Make a sink that writes messages to a log and drops progress.

    Args:
        logger: Where to.
        info: Level of messages without a warning.
    """
    levels = {"info": info, "warning": logging.WARNING, "error": logging.ERROR}

    def sink(event: Event) -> None:
        if isinstance(event, Message):
            logger.log(levels[event.severity], "%s", event.text)

    return sink
