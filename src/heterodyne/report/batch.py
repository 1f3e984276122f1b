"""The page of a batch: which members can be used, and J, v and s of all of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from heterodyne.io import files
from heterodyne.io.batch_folder import DOCUMENT, PAGE, PICTURE, TABLE, BatchFolder
from heterodyne.report.markup import Html, bullets, facts, join, section, table, tag
from heterodyne.report.members import summarise, to_csv
from heterodyne.report.numbers import Rounding, count, exact, moment, plus_minus
from heterodyne.report.page import document as page
from heterodyne.report.pictures import picture
from heterodyne.viz import members as drawing
from heterodyne.viz import style
from heterodyne.viz.members import Point
from heterodyne.viz.posterior import CURVES

Member = Mapping[str, Any]
Row = Mapping[str, Any]

_CONTENTS = (
    ("picture", "Picture"),
    ("members", "Members"),
    ("values", "Values"),
    ("files", "Files"),
)
_POSITIONS = ("10 % of the window", "middle of the window", "90 % of the window")
_MIDDLE = 1
_MOST_SENTENCES = 8


def write(batch: BatchFolder, problems: Mapping[str, str]) -> dict[str, Any]:
    """Write what a batch has found: table, picture, page, and last the JSON document.

    Args:
        batch: The folder.
        problems: Why a member has no results, by its name.

    Returns:
        What ``batch.json`` holds.
    """
    found = summarise(batch, problems)
    drawn = _picture(found["members"])
    if drawn is None:
        (batch.path / PICTURE).unlink(missing_ok=True)
    else:
        files.write_bytes(batch.path / PICTURE, style.png(drawn.figure))
    title = f"{batch.path.resolve().name}: heterodyne batch"
    files.write_text(batch.path / TABLE, to_csv(found["members"]))
    files.write_text(batch.path / PAGE, page(title, _body(batch.path, found, drawn)))
    files.write_json(batch.path / DOCUMENT, found)
    return found


class _Drawn(NamedTuple):
    """A picture and what it shows."""

    figure: Any
    words: str


def _body(folder: Path, found: Mapping[str, Any], drawn: _Drawn | None) -> Html:
    members = found["members"]
    return join(
        [
            _verdict(folder, found),
            tag("nav", *(tag("a", text, href=f"#{anchor}") for anchor, text in _CONTENTS)),
            section(
                "picture",
                "J, v and s of all members",
                tag("p", "No member has results yet.")
                if drawn is None
                else picture(drawn.figure, drawn.words),
            ),
            _members(members),
            _values(members),
            _files(),
        ],
        "\n",
    )


def _verdict(folder: Path, found: Mapping[str, Any]) -> Html:
    judged = found["verdict"]
    good, some = judged["converged"], judged["n_converged"] > 0
    sentences = judged["sentences"]
    left = len(sentences) - _MOST_SENTENCES
    advice = "Nothing needs to be done."
    if not good:
        advice = (
            "Members that did not converge, or have no results, are named here; the report of a "
            "member says what to change. The same command samples those without results again."
        )
    return tag(
        "header",
        tag("h1", tag("span", "✓" if good else "✗", class_="mark"), " ", judged["headline"]),
        bullets(sentences[:_MOST_SENTENCES]),
        tag("p", f"{left} more in the table of members.") if left > 0 else None,
        tag("p", tag("strong", "What to do: "), advice),
        tag("p", f"{folder} · {moment(found['created'])}", class_="source"),
        class_=f"verdict {'good' if good else 'mixed' if some else 'bad'}",
    )


def _members(members: Sequence[Member]) -> Html:
    head = tag(
        "tr",
        tag("th", "Member"),
        tag("th", "q (1/Å)", class_="number whole"),
        tag("th", "File"),
        tag("th", "Verdict"),
        tag("th", "Intervals to believe"),
        tag("th", "R-hat", class_="number whole"),
        tag("th", "Effective draws", class_="number"),
        tag("th", "Divergences", class_="number"),
        tag("th", "Engine"),
    )
    return section(
        "members",
        "Members",
        tag(
            "p",
            "Each member was fitted to its own data, from the start values of the run file. "
            "The name of a member leads to its report.",
        ),
        table([head], [_member(one) for one in members]),
    )


def _member(one: Member) -> Html:
    name = tag("code", one["name"])
    linked = tag("a", name, href=one["report"]) if one.get("report") else name
    return tag(
        "tr",
        tag("th", linked, scope="row"),
        tag("td", exact(one["q"]), class_="number"),
        tag("td", tag("span", Path(one["file"]).name, title=one["file"])),
        tag("td", *_outcome(one)),
        tag("td", one["believe"] if one["converged"] else "–"),
        tag("td", Rounding(3)(one.get("r_hat")), class_="number"),
        tag("td", count(one.get("ess")), class_="number"),
        tag("td", count(one.get("divergences")), class_="number"),
        tag("td", one.get("engine") or "–"),
        class_=None if one["converged"] else "open",
    )


def _outcome(one: Member) -> Iterator[Html]:
    if one["converged"]:
        yield tag("span", "✓ converged", class_="right")
        return
    bad = one["converged"] is False
    yield tag("span", "✗ not converged" if bad else "✗ no results", class_="wrong")
    reason = ", ".join(one["reasons"]) if bad else one["problem"]
    yield tag("span", reason, class_="description")


def _values(members: Sequence[Member]) -> Html:
    shown = [one for one in members if one["rows"]]
    parts: list[Html] = []
    for curve, (title, unit) in CURVES.items():
        rows = {one["name"]: _rows(one, curve) for one in shown}
        if any(rows.values()):
            parts.append(tag("h3", f"{title} ({unit})" if unit else title))
            parts.append(_curve_table(shown, rows))
    return section(
        "values",
        "Values",
        tag(
            "p",
            "Medians ± standard deviations and 95 % intervals at three times of the window, each "
            "with the interval to believe: corrected for shared speckle noise where that was "
            "found. Grey values are set by the prior, or come from a member that did not converge.",
        ),
        *parts,
    )


def _curve_table(members: Sequence[Member], rows: Mapping[str, Sequence[Row]]) -> Html:
    labels = _labels(rows.values())
    head = [
        tag(
            "tr",
            tag("th", "Member", rowspan=2),
            tag("th", "q (1/Å)", rowspan=2, class_="number whole"),
            *(tag("th", label, colspan=2, class_="span") for label in labels),
        ),
        tag(
            "tr",
            *[tag("th", "Value", class_="number"), tag("th", "95 %", class_="number")]
            * len(labels),
        ),
    ]
    body = [
        tag(
            "tr",
            tag("th", tag("code", one["name"]), scope="row"),
            tag("td", exact(one["q"]), class_="number"),
            *(cell for row in rows[one["name"]] for cell in _cells(row, one["converged"])),
        )
        for one in members
    ]
    return table(head, body)


def _cells(row: Row, converged: bool) -> list[Html]:
    ends = Rounding.of(row["sd"], row["low"], row["high"])
    kind = "believed" if converged and row["informed"] else "other"
    interval = f"{ends(row['low'])} to {ends(row['high'])}"
    return [
        tag("td", plus_minus(row["median"], row["sd"]), class_=f"number {kind}"),
        tag("td", interval, class_="number other"),
    ]


def _files() -> Html:
    return section(
        "files",
        "Files",
        facts(
            [
                ("Every quantity of every member", tag("a", TABLE, href=TABLE)),
                ("The same, with the verdict, for programs", tag("a", DOCUMENT, href=DOCUMENT)),
                ("Draws, fit and data of a member", "in the folder of its name"),
            ]
        ),
    )


def _rows(one: Member, curve: str) -> list[Row]:
    """Rows of a curve at the reference times, in order."""
    return [row for row in one["rows"] if row["quantity"].startswith(f"{curve}(")]


def _labels(rows: Iterable[Sequence[Row]]) -> tuple[str, ...]:
    """What the reference times are called: their values where all members share them."""
    times = {tuple(row["quantity"].partition("(")[2].removesuffix(")") for row in some)
             for some in rows if some}  # fmt: skip
    return tuple(f"t = {t}" for t in times.pop()) if len(times) == 1 else _POSITIONS


def _picture(members: Sequence[Member]) -> _Drawn | None:
    shown = [one for one in members if one["rows"]]
    if not shown:
        return None
    layout = _layout(shown)
    if not layout.over_q:
        # Files without results keep their place.
        layout = layout._replace(files=_file_names(one["file"] for one in members))
    curves: dict[str, dict[str, list[Point]]] = {curve: {} for curve in CURVES}
    for one in shown:
        for curve in CURVES:
            for k, row in enumerate(_rows(one, curve)):
                label = layout.label(one, k)
                if label is not None:
                    curves[curve].setdefault(label, []).append(_point(one, row, layout.x(one)))
    figure = drawing.over_members(curves, names=layout.names, note=_note(members))
    words = f"Medians and 95 % intervals {layout.words}."
    if layout.over_q:
        words += (
            " In the model neither J nor v depends on q, so a trend is more than the model "
            "describes, in the sample or in the data."
        )
    return _Drawn(figure, words)


def _point(one: Member, row: Row, x: float) -> Point:
    ends = row["median"], row["low"], row["high"]
    return Point(x, *ends, converged=bool(one["converged"]), informed=row["informed"])


class _Layout(NamedTuple):
    """What is drawn over what.

    Attributes:
        files: Name of each file by its path, in order.
        over_q: Whether q is the axis, rather than the files.
        times: Labels of the reference times, where each is a series; else the rarer of files
            and wavevectors are, at the middle of the window.
    """

    files: Mapping[str, str]
    over_q: bool
    times: tuple[str, ...] | None

    @property
    def names(self) -> list[str] | None:
        """Names along the axis, where that is not q."""
        return None if self.over_q else list(self.files.values())

    def x(self, one: Member) -> float:
        """Place of a member on the axis."""
        return float(one["q"] if self.over_q else list(self.files).index(one["file"]))

    def label(self, one: Member, k: int) -> str | None:
        """Series of the k-th reference time of a member; None if that is not drawn."""
        if self.times is not None:
            return self.times[k]
        if k != _MIDDLE:
            return None
        return self.files[one["file"]] if self.over_q else f"q = {one['q']:.3g} 1/Å"

    @property
    def words(self) -> str:
        """What is drawn, for the caption."""
        axis = "over q" if self.over_q else "from file to file"
        return f"{axis}, at {'three times' if self.times else 'the middle'} of the window"


def _layout(members: Sequence[Member]) -> _Layout:
    """Choose the axis: q where that varies, else the files; the rarer of both is a series."""
    names = _file_names(one["file"] for one in members)
    wavevectors = {f"{one['q']:.3g}" for one in members}
    times = _labels(_rows(one, curve) for one in members for curve in list(CURVES)[:1])
    if len(names) == 1 or len(wavevectors) == len(members) == len(names):
        return _Layout(names, True, times)
    if len(wavevectors) == 1 or len(members) == len(names):
        return _Layout(names, False, times)
    return _Layout(names, len(names) <= len(wavevectors), None)


def _file_names(paths: Iterable[str]) -> dict[str, str]:
    """Shortest text that tells each file from the others."""
    known = [Path(path) for path in dict.fromkeys(paths)]
    candidates = [(path.stem, f"{path.parent.name}/{path.name}", os.fspath(path)) for path in known]
    names: dict[str, str] = {}
    for texts in candidates:
        unique = (t for k, t in enumerate(texts) if [c[k] for c in candidates].count(t) == 1)
        names[texts[-1]] = next(unique)
    return names


def _note(members: Sequence[Member]) -> str:
    bad = [one["name"] for one in members if one["converged"] is False]
    none = [one["name"] for one in members if one["converged"] is None]
    parts = [f"Not converged: {', '.join(bad)}." if bad else ""]
    parts.append(f"Without results: {', '.join(none)}." if none else "")
    return " ".join(part for part in parts if part)
