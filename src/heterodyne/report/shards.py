"""How the data were divided, what the combination was worth, and how each shard fared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from heterodyne.report.facts import fold_long
from heterodyne.report.markup import Html, facts, section, table, tag
from heterodyne.report.numbers import NONE, Rounding, count, exact, known, significant
from heterodyne.report.pictures import picture
from heterodyne.report.run import Run
from heterodyne.viz import shards as drawing

_HELD = {
    "sound": "The combined draws, picked by weights that hold them against all pairs.",
    "corrected": "Importance sampling of all pairs, which went on from the combined draws.",
    "unsound": "The combined draws. Weights could not hold them against all pairs, so how far "
    "off they are is not known.",
}


def shards(run: Run) -> Html | None:
    """Return what is known about shards; nothing where all pairs were sampled at once."""
    found = run.summary.get("shards")
    if not found:
        return None
    limit = (run.summary.get("thresholds") or {}).get("k_hat")
    each = found.get("each") or ()
    return section(
        "shards",
        "Shards",
        tag(
            "p",
            "Every pair of frames belongs to one shard. Each shard was sampled by itself, and "
            "its draws were combined with those of the others. That is exact only where all "
            "posteriors are normal, so the combined draws were held against all pairs.",
        ),
        facts(
            [
                ("Division", _division(found, each)),
                ("Rule of combination", found.get("method")),
                ("Pareto k-hat of the combined draws", _k_hat(found.get("k_hat"), limit)),
                ("Independent draws that they are worth", count(found.get("kish"))),
                (
                    "Largest distance of their means from the result",
                    f"{significant(found.get('shift'), 2)} standard deviations"
                    if known(found.get("shift"))
                    else None,
                ),
                ("The result", _HELD.get(str(found.get("held_against_all")))),
            ]
        ),
        _compared(run, found),
        fold_long("shards", _table(each), len(each)) if each else None,
    )


def _division(found: Mapping[str, Any], each: Sequence[Mapping[str, Any]]) -> str:
    used = sum(bool(one.get("converged")) for one in each)
    left_out = f", {len(each) - used} of them left out" if used < len(each) else ""
    return (
        f"{count(found.get('num_shards'))} shards ({found.get('strategy')}, seed "
        f"{found.get('seed')}){left_out}"
    )


def _k_hat(value: Any, limit: Any) -> Html | str:
    if not known(value):
        return NONE
    good = not known(limit) or value < limit
    bound = f" (needed below {exact(limit)})" if known(limit) else ""
    return tag("span", f"{Rounding(2)(value)}{bound}", class_="right" if good else "wrong")


def _compared(run: Run, found: Mapping[str, Any]) -> Html | None:
    compared = found.get("compared") or {}
    rows = [row for row in run.rows("derived") if row["name"] in compared]
    if not rows:
        return None
    return picture(
        drawing.compared(compared, rows, found.get("failed") or ()),
        "Medians and 95 % intervals of each shard, which are about √K times as wide as that of all "
        "pairs for K shards. Independent errors scatter shards around the result by that much; "
        "errors that pairs share, as speckles do, by more.",
    )


def _table(each: Sequence[Mapping[str, Any]]) -> Html:
    weighed = any(known(one.get("k_hat")) for one in each)
    names = ["Shard", "Pairs", "R-hat", "Effective draws: centre", "tails", "Divergences"]
    head = tag(
        "tr",
        *(tag("th", x, class_="number") for x in (*names, *(["k-hat"] if weighed else []))),
        tag("th", "Result"),
    )
    return table([head], [_row(one, weighed) for one in each], class_="compact")


def _row(one: Mapping[str, Any], weighed: bool) -> Html:
    cells = [
        count(one.get("shard", 0) + 1),
        count(one.get("n_pairs")),
        Rounding(3)(one.get("r_hat_max")),
        count(one.get("ess_bulk_min")),
        count(one.get("ess_tail_min")),
        count(one.get("divergences")),
        *([Rounding(2)(one.get("k_hat"))] if weighed else []),
    ]
    used = bool(one.get("converged"))
    words = "✓ used" if used else "✗ left out: did not converge"
    if one.get("problem"):
        words = f"✗ not drawn: {one['problem']}"
    return tag(
        "tr",
        *(tag("td", cell, class_="number") for cell in cells),
        tag("td", words, class_="right" if used else "wrong"),
    )
