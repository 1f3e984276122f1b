"""What every engine does, and the loop that drives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from heterodyne._events import EventSink, Progress, ignore_events
from heterodyne._typing import FloatArray
from heterodyne.optimization.cmc._draws import Draws

S = TypeVar("S")


class Engine(Protocol[S]):
    """A way to draw, as a function from one state to the next.

    A state holds everything that decides how drawing goes on, so that a run that was
    interrupted goes on to the same draws.
    """

    @property
    def name(self) -> str:
        """Name of the engine."""
        ...

    def advance(self, state: S) -> S:
        """Do one block of work."""
        ...

    def looked_at(self, state: S) -> bool:
        """Whether it is time to ask if the draws suffice."""
        ...

    def finished(self, state: S) -> bool:
        """Whether there is no more work to do."""
        ...

    def draws(self, state: S) -> Draws:
        """Return the draws so far."""
        ...

    def progress(self, state: S) -> Progress:
        """Say how far the work has come."""
        ...

    def to_arrays(self, state: S) -> dict[str, FloatArray]:
        """Return everything that a state holds, by name."""
        ...

    def from_arrays(self, arrays: Mapping[str, FloatArray]) -> S:
        """Rebuild the state that ``to_arrays`` took apart."""
        ...


def drive(
    engine: Engine[S],
    state: S,
    enough: Callable[[Draws], bool],
    on_state: Callable[[S], None] = lambda state: None,
    on_event: EventSink = ignore_events,
) -> Draws:
    """Draw until there is enough, or the engine is finished.

    Args:
        engine: What draws.
        state: Where to start or go on.
        enough: Whether the draws so far suffice; asked when the engine says so.
        on_state: Receives the state after every block, to be kept.
        on_event: Receives the progress.
    """
    while True:
        on_event(engine.progress(state))
        draws = engine.draws(state) if engine.looked_at(state) else None
        if draws is not None and enough(draws):
            return draws
        if engine.finished(state):
            return engine.draws(state) if draws is None else draws
        state = engine.advance(state)
        on_state(state)
