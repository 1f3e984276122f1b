"""Sections of docs/performance.md."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PATH = Path(__file__).parents[1] / "docs" / "performance.md"
_HEAD = (
    "# Performance\n\nWritten by `make bench`; what varies between runs is said in each section.\n"
)


@dataclass(frozen=True)
class Section:
    """One measurement: what was done, and its table.

    Attributes:
        title: Heading.
        text: What was measured, and how.
        columns: Heads of the table.
        rows: Cells of the table.
    """

    title: str
    text: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Return the section as Markdown, ending with a line break."""
        lines = [f"## {self.title}", "", self.text, ""]
        table = [self.columns, ["---"] * len(self.columns), *self.rows]
        lines += [f"| {' | '.join(cells)} |" for cells in table]
        return "\n".join(lines) + "\n"


def machine() -> str:
    """Return the kind of machine, for example ``2-core x86-64, CPU, float64``."""
    kind = platform.machine().replace("_", "-")
    return f"{os.cpu_count()}-core {kind}, CPU, float64"


def write(section: Section, path: Path = PATH, head: str = _HEAD) -> None:
    """Put a section into the file, in place of the one with its title."""
    old = path.read_text(encoding="utf-8") if path.exists() else head
    head, *parts = re.split(r"^(?=## )", old, flags=re.MULTILINE)
    # Parts end with one line break, so that a section that is replaced changes no other.
    found = {part.splitlines()[0]: f"{part.rstrip()}\n" for part in parts}
    found[f"## {section.title}"] = section.markdown()
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join([f"{head.rstrip()}\n", *found.values()]), encoding="utf-8")
