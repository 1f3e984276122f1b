"""Run benchmarks, all of them or those that are named: ``python -m benchmarks kernel``."""

from __future__ import annotations

import sys
from collections.abc import Callable

from benchmarks import kernel, memory, shards, whole
from benchmarks.performance import PATH, Section, write

SECTIONS: dict[str, Callable[[], Section]] = {
    "kernel": kernel.section,
    "whole": whole.section,
    "memory": memory.section,
    "shards": shards.section,
}


def main(names: list[str]) -> int:
    """Run benchmarks, print their sections and write them to docs/performance.md."""
    unknown = sorted(set(names) - set(SECTIONS))
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
        return 2
    for name in names or SECTIONS:
        section = SECTIONS[name]()
        print(section.markdown())
        write(section)
    print(f"written to {PATH}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
