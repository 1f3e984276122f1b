"""The page: its sections in order, and the file it becomes."""

from __future__ import annotations

from importlib.resources import files as package_files
from pathlib import Path
from string import Template

from heterodyne.io import files, run_folder
from heterodyne.report import facts, pictures, tables
from heterodyne.report.markup import Html, escaped, join, tag
from heterodyne.report.run import Run, read
from heterodyne.report.shards import shards
from heterodyne.report.verdict import verdict

_SHARDS = "shards"
_CONTENTS = (
    ("quantities", "Quantities"),
    ("fit", "Fit"),
    ("parameters", "Parameters"),
    ("identifiability", "What the data can tell apart"),
    ("priors", "Priors"),
    ("sampler", "Sampler"),
    (_SHARDS, "Shards"),
    ("data", "Data"),
    ("noise", "Noise"),
    ("provenance", "Where this came from"),
    ("words", "Words"),
)


def build(folder: Path) -> Path:
    """Write the report of a run into its folder.

    Args:
        folder: Folder that ``heterodyne sample`` has filled.

    Returns:
        Path of the HTML file. It holds its pictures and loads nothing.

    Raises:
        ConfigError: A file that every run leaves is missing or cannot be read.
    """
    run = read(Path(folder))
    return files.write_text(run.path / run_folder.REPORT, render(run))


def render(run: Run) -> str:
    """Return the report of a run as an HTML document."""
    return document(f"{run.path.resolve().name}: heterodyne report", _body(run))


def document(title: str, body: Html) -> str:
    """Return an HTML document in the style of the reports."""
    templates = package_files("heterodyne.report") / "templates"
    page = Template((templates / "page.html").read_text(encoding="utf-8"))
    return page.substitute(
        title=escaped(title),
        style=(templates / "report.css").read_text(encoding="utf-8"),
        body=body,
    )


def _body(run: Run) -> Html:
    of_shards = shards(run)
    contents = [entry for entry in _CONTENTS if entry[0] != _SHARDS or of_shards is not None]
    return join(
        [
            verdict(run),
            tag("nav", *(tag("a", text, href=f"#{anchor}") for anchor, text in contents)),
            tables.identified(run, pictures.quantities(run), pictures.bands(run)),
            pictures.fit_section(run, facts.least_squares(run)),
            tables.parameters(run, pictures.scaling(run)),
            facts.identifiability(run),
            pictures.priors(run),
            facts.sampler(run, *pictures.sampler_pictures(run)),
            of_shards,
            facts.data_quality(run),
            facts.noise(run),
            facts.provenance(run),
            facts.words(),
        ],
        "\n",
    )
