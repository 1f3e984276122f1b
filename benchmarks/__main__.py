"""Run benchmarks, all of them or those that are named: ``python -m benchmarks kernel``.

That of a GPU is left out where there is none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from benchmarks import gpu, kernel, linear, memory, shards, whole
from benchmarks.performance import PATH, Section, write

SECTIONS: dict[str, Callable[[], list[Section]]] = {
    # First, for what runs in this process reserves the memory of a GPU.
    "gpu": gpu.sections,
    "kernel": lambda: [kernel.section()],
    "linear": lambda: [linear.section()],
    "whole": lambda: [whole.section()],
    "memory": lambda: [memory.section()],
    "shards": lambda: [shards.section()],
}


def main(names: list[str]) -> int:
    """Run benchmarks, print their sections and write them to docs/performance.md."""
    unknown = sorted(set(names) - set(SECTIONS))
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
        return 2
    written = 0
    for name in names or SECTIONS:
        for section in SECTIONS[name]():
            print(section.markdown())
            write(section)
            written += 1
    if written:
        print(f"written to {PATH}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
