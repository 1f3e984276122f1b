"""Tables of quantities: values, intervals and whether the data decide them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from heterodyne.report.markup import Html, folded, section, table, tag
from heterodyne.report.numbers import (
    NONE,
    Rounding,
    count,
    known,
    plus_minus,
    significant,
    unit,
)
from heterodyne.report.run import Row, Run
from heterodyne.report.verdict import caution

_MOST_OPEN = 12


def identified(run: Run, *pictures: Html | None) -> Html:
    """Return the quantities that the data inform directly."""
    rows = run.rows("derived")
    corrected = _has_corrected(rows)
    head = [
        tag(
            "tr",
            tag("th", "Quantity", rowspan=2),
            tag("th", "Unit", rowspan=2),
            tag("th", "Value", rowspan=2, class_="number"),
            *_interval_heads(run, corrected),
        ),
        tag("tr", *_ends(corrected)),
    ]
    body = [
        tag(
            "tr",
            _name(row),
            tag("td", unit(row["unit"])),
            tag("td", plus_minus(*_believed(run, row)), class_="number believed"),
            *_intervals(run, row, corrected),
            class_=None if row.get("identified", True) else "open",
        )
        for row in rows
    ]
    return section(
        "quantities",
        "Quantities that the data inform",
        caution(run),
        tag(
            "p",
            "Transport coefficients J, velocity v and sample fraction s at three times of the "
            "window. Quote these rather than the parameters behind them. Values are mean ± "
            "standard deviation; a 95 % interval holds the true value with a probability of "
            "95 %, given the model and the priors.",
            " The intervals to believe are in bold." if run.usable else None,
        ),
        table(head, body, class_=_class(run))
        if rows
        else tag("p", "This run has no such quantities."),
        *pictures,
    )


def parameters(run: Run, *pictures: Html | None) -> Html:
    """Return the parameters of the model, then contrast and offset of each angle."""
    rows, scaling = run.rows("parameter", "noise"), run.rows("scaling")
    per_angle = _parameter_table(run, scaling) if scaling else None
    if per_angle is not None and len(scaling) > _MOST_OPEN:
        per_angle = folded(f"Table of {len(scaling)} values", per_angle)
    return section(
        "parameters",
        "Parameters",
        caution(run),
        _parameter_table(run, rows),
        _open_note(rows),
        _fixed_note(run),
        tag("h3", "Contrast and offset of each angle") if scaling else None,
        per_angle,
        *pictures,
    )


def _parameter_table(run: Run, rows: Sequence[Row]) -> Html:
    corrected = _has_corrected(rows)
    limits = run.summary.get("thresholds") or {}
    head = [
        tag(
            "tr",
            tag("th", "Parameter", rowspan=2),
            tag("th", "Unit", rowspan=2),
            tag("th", "Mean", rowspan=2, class_="number"),
            tag("th", "SD", rowspan=2, class_="number"),
            *_interval_heads(run, corrected),
            tag("th", "Contraction", rowspan=2, class_="number"),
            tag("th", "R-hat", rowspan=2, class_="number whole"),
            tag("th", "Effective draws", rowspan=2, class_="number"),
        ),
        tag("tr", *_ends(corrected)),
    ]
    body = [_parameter_row(run, row, corrected, limits) for row in rows]
    return table(head, body, class_=_class(run))


def _parameter_row(run: Run, row: Row, corrected: bool, limits: Mapping[str, Any]) -> Html:
    mean, sd = _believed(run, row)
    rounding = Rounding.of(sd, mean)
    sizes = [row[key] for key in ("ess_bulk", "ess_tail") if known(row[key])]
    smallest = min(sizes, default=None)
    return tag(
        "tr",
        _name(row),
        tag("td", unit(row["unit"])),
        tag("td", rounding(mean), class_="number"),
        tag("td", rounding(sd), class_="number"),
        *_intervals(run, row, corrected),
        tag("td", _meter(row.get("contraction")), class_="number"),
        _checked(row["r_hat"], limits.get("r_hat"), Rounding(3), above=True),
        _checked(smallest, limits.get("ess"), count, above=False),
        class_=None if row.get("identified", True) else "open",
    )


def _checked(value: Any, limit: Any, write: Any, *, above: bool) -> Html:
    """Cell that is marked where a value is on the wrong side of its limit."""
    wrong = known(value) and known(limit) and (value > limit if above else value < limit)
    return tag("td", write(value), class_="number wrong" if wrong else "number")


def _name(row: Row) -> Html:
    chip = None if row.get("identified", True) else tag("span", "set by the prior", class_="chip")
    description = tag("span", row.get("description") or "", class_="description")
    return tag("th", tag("code", row["name"]), " ", chip, description, scope="row")


def _meter(share: Any) -> Html:
    if not known(share):
        return Html(NONE)
    width = 100 * min(max(share, 0.0), 1.0)
    bar = tag("span", tag("i", style=f"width:{width:.0f}%"), class_="meter")
    return tag("span", bar, f"{share:.2f}".replace("-", "−"), class_="metered")


def _class(run: Run) -> str:
    """Nothing stands out in the tables of a run that has not converged."""
    return "" if run.usable else "doubtful"


def _has_corrected(rows: Sequence[Row]) -> bool:
    return any(row.get("corrected") for row in rows)


def _believed(run: Run, row: Row) -> tuple[Any, Any]:
    """Mean and standard deviation to believe."""
    wide = row.get("corrected")
    source = wide if run.believes_corrected and wide else row
    return source["mean"], source["sd"]


def _interval_heads(run: Run, corrected: bool) -> list[Html]:
    heads = [("95 %, plain", not run.believes_corrected or not corrected)]
    if corrected:
        heads.append(("95 %, corrected", run.believes_corrected))
    return [
        tag("th", text, colspan=2, class_="span believed" if believed else "span other")
        for text, believed in heads
    ]


def _ends(corrected: bool) -> list[Html]:
    one = [tag("th", "from", class_="number from"), tag("th", "to", class_="number to")]
    return one * (2 if corrected else 1)


def _intervals(run: Run, row: Row, corrected: bool) -> list[Html]:
    wide = row.get("corrected")
    believed = run.believes_corrected and bool(wide)
    cells = _interval(row, not believed)
    if corrected:
        cells += _interval(wide or {"sd": None, "low": None, "high": None}, believed)
    return cells


def _interval(source: Mapping[str, Any], believed: bool) -> list[Html]:
    rounding = Rounding.of(source["sd"], source["low"], source["high"])
    extra = "believed" if believed else "other"
    return [
        tag("td", rounding(source[key]), class_=f"number {side} {extra}")
        for key, side in (("low", "from"), ("high", "to"))
    ]


def _open_note(rows: Sequence[Row]) -> Html | None:
    names = [tag("code", row["name"]) for row in rows if not row.get("identified", True)]
    if not names:
        return tag("p", "The data decide every parameter in this table.", class_="note")
    listed = [part for name in names for part in (name, ", ")][:-1]
    return tag(
        "p",
        tag("strong", "Not identified by the data: "),
        *listed,
        ". Their values depend mostly on the prior. Do not quote them as results. "
        "Contraction is 1 where the data decide and 0 where the prior does.",
        class_="note",
    )


def _fixed_note(run: Run) -> Html | None:
    fixed = run.fit.get("fixed") or {}
    if not fixed:
        return None
    listed = ", ".join(f"{name} = {significant(value, 6)}" for name, value in fixed.items())
    return tag("p", tag("strong", "Held fixed: "), listed, ".", class_="note")
