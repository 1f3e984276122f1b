"""Parsl's interchange as a process that ends with the one that started it.

Workers that have lost it end soon, so that nodes are free again after the process that submitted
the jobs was killed. It is run by its path, and imports nothing of this package.
"""

import os
import runpy
import sys
import threading
import time
from pathlib import Path

_LOOK_S = 1.0


def command(log: Path) -> list[str]:
    """Command line that runs the interchange as a child of this process.

    Args:
        log: File that takes what it prints.
    """
    # With -P, modules of this folder do not stand in for those of the standard library.
    return [sys.executable, "-P", __file__, str(log), str(os.getpid())]


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)


def main() -> None:
    """Run the interchange, out of reach of Ctrl-C."""
    log, parent = sys.argv[1:]
    os.setsid()
    with Path(log).open("ab") as stream:
        for output in (sys.stdout, sys.stderr):
            os.dup2(stream.fileno(), output.fileno())
    threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    runpy.run_module(
        "parsl.executors.high_throughput.interchange", run_name="__main__", alter_sys=True
    )


if __name__ == "__main__":
    main()
