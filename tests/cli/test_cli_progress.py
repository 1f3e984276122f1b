import io
import sys
import threading

from heterodyne._events import Message, Progress
from heterodyne.cli import _progress
from heterodyne.cli._progress import Lines, progress


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_short_work_shows_nothing():
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    for k in range(10):
        clock.now = 100.0 + 0.19 * k
        lines(Progress("search", k, 10))
    assert stream.getvalue() == ""


def test_long_work_shows_a_line_in_ten_seconds_with_what_is_left():
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    for k in range(41):
        clock.now = 100.0 + k
        lines(Progress("sampling", k, 80, {"divergences": 0}))
    seen = stream.getvalue().splitlines()
    assert len(seen) == 4
    assert seen[0] == "sampling: 2%, about 1 min left; divergences 0"
    assert seen[-1] == "sampling: 40%, about 48 s left; divergences 0"


def test_time_left_counts_from_the_start_of_the_stage():
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    lines(Progress("first", 0, 1))
    clock.now = 200.0
    lines(Progress("second", 0, 10))
    clock.now = 210.0
    lines(Progress("second", 5, 10))
    assert stream.getvalue().splitlines()[-1] == "second: 50%, about 10 s left"


def test_messages_are_shown_at_once():
    stream = io.StringIO()
    lines = Lines(stream, Clock())
    lines(Message("Compiling."))
    lines(Message("The data are odd.", "warning"))
    assert stream.getvalue() == "Compiling.\nwarning: The data are odd.\n"


def test_quiet_shows_warnings_only(capsys):
    with progress(quiet=True) as on_event:
        on_event(Message("Compiling."))
        on_event(Progress("search", 1, 2))
        on_event(Message("The data are odd.", "warning"))
    assert capsys.readouterr() == ("", "warning: The data are odd.\n")


def test_work_of_unknown_length_shows_no_time_left():
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    clock.now += 5
    lines(Progress("search", 0, 0))
    assert stream.getvalue() == "search: 0%\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def use_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_a_bar_appears_between_two_events(monkeypatch):
    terminal = use_terminal(monkeypatch)
    drawn = threading.Event()
    make = _progress._make_bars

    def bars():
        made = make()
        drawn.set()
        return made

    monkeypatch.setattr(_progress, "_make_bars", bars)
    monkeypatch.setattr(_progress, "PATIENCE_S", 0.0)
    with progress() as on_event:
        on_event(Progress("search [1]", 1, 4, {"divergences": 2}))
        assert drawn.wait(20)
        on_event(Message("A [word] to say."))
        on_event(Progress("search [1]", 2, 4, {"divergences": 3}))
    shown = terminal.getvalue()
    assert "search [1]" in shown
    assert "50%" in shown
    assert "divergences 3" in shown
    assert "A [word] to say." in shown


def test_a_bar_does_not_appear_for_short_work(monkeypatch):
    terminal = use_terminal(monkeypatch)
    with progress() as on_event:
        on_event(Progress("search", 1, 4))
        on_event(Message("Said."))
    assert terminal.getvalue() == "Said.\n"
