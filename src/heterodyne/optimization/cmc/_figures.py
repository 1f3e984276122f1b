"""Figures as files of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from heterodyne._errors import ConfigError
from heterodyne._typing import PathArg
from heterodyne.io import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Size = tuple[float, float]


def finished(figure: Figure, figsize: Size | None, note: str = "", warning: str = "") -> Figure:
    """Give a figure its size, its footnote and its warning.

    Args:
        figure: What to finish.
        figsize: Width and height in inches; those of the figure if None.
        note: Words below the panels.
        warning: Words above the panels.

    Raises:
        ConfigError: That is no size.
    """
    from heterodyne.viz import style

    if figsize is not None:
        if len(figsize) != 2 or not all(np.isfinite(x) and x > 0 for x in figsize):
            raise ConfigError(
                f"a figure of the size {figsize}",
                where="figsize",
                allowed="width and height in inches, above 0",
            )
        figure.set_size_inches(*figsize)
    style.warning(figure, warning)
    style.footnote(figure, note)
    return figure


def save(figure: Figure, output_dir: PathArg, kind: str, dpi: float) -> Path:
    """Write a figure as ``<kind>_plot.png``; pyplot does not know it, so nothing stays open.

    Args:
        figure: What to write.
        output_dir: Folder, made if it is missing.
        kind: First part of the name.
        dpi: Pixels per inch.

    Raises:
        ConfigError: No number of pixels, or a place that cannot be written.
    """
    from heterodyne.viz import style

    if not dpi > 0:
        raise ConfigError(f"{dpi} pixels per inch", where="dpi", allowed="above 0")
    content = style.png(figure, dpi / 96.0)
    return files.write_bytes(files.folder_of(output_dir) / f"{kind}_plot.png", content)
