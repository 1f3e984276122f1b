"""The command ``heterodyne``: its verbs in the order of the work, and its exit codes."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from io import TextIOWrapper
from typing import Annotated, NoReturn, cast

import typer

import heterodyne
from heterodyne._errors import HeterodyneError
from heterodyne.cli import (
    cancel,
    check,
    fit,
    init,
    inspect,
    report,
    sample,
    simulate,
    watch,
    worker,
)
from heterodyne.cli._output import talk

INTERRUPTED = 130
USAGE = 1
# Long enough for the callback that dropped an interrupt to have returned.
_AGAIN_S = 0.05

_UsageError = cast("type[Exception]", typer.BadParameter.__mro__[1])

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 usage or run file, 2 data, 3 done but not converged, "
    "130 interrupted.",
)
for _verb in (simulate, inspect, init, check, fit, sample, worker, watch, cancel, report):
    app.command(_verb.__name__.rpartition(".")[2])(_verb.command)


def _print_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"heterodyne {heterodyne.__version__}\n")
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    """Posteriors of heterodyne XPCS parameters from two-time correlation files."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: Arguments after the name of the program; those of the process by default.

    Returns:
        The exit code: 0 done, 1 usage or run file, 2 data, 3 done but not converged,
        130 interrupted.
    """
    _survive_narrow_encodings()
    before, hook = _interrupt_on_termination(), sys.unraisablehook
    sys.unraisablehook = partial(_interrupt_again, hook)
    try:
        code = app(args=args, prog_name="heterodyne", standalone_mode=False)
    except HeterodyneError as error:
        talk("\n".join(f"heterodyne: {line}" for line in str(error).splitlines()))
        return error.exit_code
    except _UsageError as error:
        return _explain_usage(error)
    except (KeyboardInterrupt, typer.Abort):
        _say_interrupted()
        return INTERRUPTED
    finally:
        sys.unraisablehook = hook
        if before is not None:
            signal.signal(signal.SIGTERM, before)
    if code == INTERRUPTED:
        _say_interrupted()
    return code if isinstance(code, int) else 0


def run() -> NoReturn:
    """Be the process ``heterodyne``: a signal that comes after the work leaves its exit code."""
    code = main()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(code)


def _say_interrupted() -> None:
    talk("heterodyne: interrupted.")


def _survive_narrow_encodings() -> None:
    """Let a terminal without Å or ± show something else instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def _interrupt_on_termination() -> signal._HANDLER:
    """Let a scheduler's SIGTERM do what Ctrl-C does; returns the handler it replaces."""
    try:
        return signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not in the main thread
        return None


def _interrupt_again(
    hook: Callable[[sys.UnraisableHookArgs], object], dropped: sys.UnraisableHookArgs
) -> None:
    """Repeat an interrupt that arrived in a callback or finaliser, which drops exceptions."""
    if issubclass(dropped.exc_type, KeyboardInterrupt):
        # Shells let jobs in the background ignore SIGINT.
        threading.Timer(_AGAIN_S, _thread.interrupt_main, (signal.SIGTERM,)).start()
    else:
        hook(dropped)


def _explain_usage(error: Exception) -> int:
    context = getattr(error, "ctx", None)
    name = context.command_path if context is not None else "heterodyne"
    text = " ".join(getattr(error, "format_message", lambda: str(error))().split())
    if context is not None and text.startswith(context.get_usage()[:6]):
        sys.stderr.write(f"{context.get_help()}\n")
    else:
        talk(f"{name}: {text.removesuffix('.')}. See {name} --help.")
    return USAGE


if __name__ == "__main__":
    run()
