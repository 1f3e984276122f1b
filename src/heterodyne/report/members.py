"""What a batch has found so far, gathered from the run folders of its members."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import heterodyne
from heterodyne.io import run_folder
from heterodyne.io.batch_folder import BatchFolder
from heterodyne.io.run_folder import RunFolder
from heterodyne.report.checks import checks
from heterodyne.report.numbers import known
from heterodyne.report.run import usable

COLUMNS: Sequence[str] = (
    "member", "file", "q", "quantity", "kind", "unit", "median", "sd", "low", "high", "interval",
    "informed", "converged", "problem",
)  # fmt: skip
"""Columns of ``batch.csv``; q is in 1/Å."""

_NOT_RUN = "not sampled yet"
_ROW = ("quantity", "kind", "unit", "median", "sd", "low", "high", "interval", "informed")


def summarise(batch: BatchFolder, problems: Mapping[str, str]) -> dict[str, Any]:
    """Gather the results of all members.

    Args:
        batch: The folder.
        problems: Why a member has no results, by its name.

    Returns:
        What ``batch.json`` holds: the verdict, then every member with its quantities.
    """
    members = [
        _member(name, config, batch.run(name), problems.get(name))
        for name, config in batch.members.items()
    ]
    return {
        "heterodyne": heterodyne.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "verdict": verdict(members),
        "members": members,
    }


def figures(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Say how a finished run went: ``r_hat``, ``ess``, ``divergences``, ``converged``.

    What is not known is None.

    Args:
        summary: What ``summary.json`` of the run holds.
    """
    s = summary.get("sampler") or {}
    sizes = [s[key] for key in ("ess_bulk_min", "ess_tail_min") if known(s.get(key))]
    return {
        "r_hat": s.get("r_hat_max"),
        "ess": min(sizes, default=None),
        "divergences": s.get("divergences"),
        "converged": usable(summary["verdict"]),
    }


def _member(
    name: str, config: Mapping[str, Any], folder: RunFolder, problem: str | None
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": name,
        "file": config["experimental_data"]["file_path"],
        "q": config["analyzer_parameters"]["scattering"]["wavevector_q"],
        "problem": problem,
        "converged": None,
        "rows": [],
    }
    finished = folder.file(run_folder.SUMMARY).is_file()
    if problem is not None or not finished:
        return found | {"problem": problem or _NOT_RUN}
    summary = folder.read_json(run_folder.SUMMARY)
    data = folder.read_json(run_folder.DATA)
    believes = summary["verdict"]["believe"]
    report = f"{name}/{run_folder.REPORT}" if folder.file(run_folder.REPORT).is_file() else None
    return found | {
        "q": data["q"],
        "t_first": data["t_first"],
        "t_last": data["t_last"],
        "report": report,
        **figures(summary),
        "believe": believes,
        "engine": (summary.get("sampler") or {}).get("engine"),
        "reasons": _reasons(summary),
        "rows": [_row(row, believes) for row in summary["rows"]],
    }


def _reasons(summary: Mapping[str, Any]) -> list[str]:
    """Why a run cannot be used; empty if it can."""
    if usable(summary["verdict"]):
        return []
    if summary["verdict"]["converged"]:
        return ["the model does not fit"]
    failed = [
        f"{check.short} {check.write(check.value)} (needed: {check.allowed})"
        for check in checks(summary)
        if check.fails
    ]
    return failed or [str(text).removesuffix(".") for text in summary["verdict"]["sentences"][:1]]


def _row(row: Mapping[str, Any], believes: str) -> dict[str, Any]:
    """A quantity with the interval to believe."""
    wide = row.get("corrected") if believes == "corrected" else None
    source = wide or row
    return {
        "quantity": row["name"],
        "kind": row["kind"],
        "unit": row["unit"],
        **{key: source[key] for key in ("median", "sd", "low", "high")},
        "interval": "corrected" if wide else "plain",
        "informed": bool(row.get("identified", True)),
    }


def verdict(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Judge a batch: how many members can be used, and why the others cannot."""
    good = [one for one in members if one["converged"]]
    bad = [one for one in members if one["converged"] is False]
    none = [one for one in members if one["converged"] is None]
    return {
        "converged": len(good) == len(members),
        "headline": _headline(len(good), len(bad), len(none)),
        "sentences": [*_said(good, bad, none)],
        "n_members": len(members),
        "n_converged": len(good),
        "n_without_results": len(none),
    }


def _headline(good: int, bad: int, none: int) -> str:
    total = good + bad + none
    if total == 1:
        done = "converged" if good else "did not converge" if bad else "has no results"
        return f"The one member {done}."
    if good == total:
        return f"All {total} members converged."
    parts = [f"{bad} did not" if bad else "", f"{none} without results" if none else ""]
    left = ", ".join(part for part in parts if part)
    return f"{good or 'None'} of {total} members converged; {left}."


def _said(
    good: Sequence[Mapping[str, Any]],
    bad: Sequence[Mapping[str, Any]],
    none: Sequence[Mapping[str, Any]],
) -> Iterator[str]:
    for one in bad:
        yield f"{one['name']} did not converge, do not use it: {', '.join(one['reasons'])}."
    for one in none:
        yield f"{one['name']} has no results: {one['problem'].removesuffix('.')}."
    corrected = [one["name"] for one in good if one["believe"] == "corrected"]
    if good and len(corrected) == len(good):
        yield "Believe the corrected intervals; they are the ones shown here."
    elif corrected:
        yield (
            f"Believe the corrected intervals of {', '.join(corrected)} and the plain ones of the "
            "others; they are the ones shown here."
        )
    elif good:
        yield "Believe the plain intervals; they are the ones shown here."


def to_csv(members: Sequence[Mapping[str, Any]]) -> str:
    """Write a line for each quantity of each member, with ``COLUMNS``.

    Args:
        members: From ``summarise``.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for one in members:
        common = {"member": one["name"], "file": one["file"], "q": one["q"]}
        common |= {"converged": one["converged"], "problem": one["problem"]}
        for row in one["rows"] or [{}]:
            writer.writerow(common | {key: row[key] for key in _ROW if key in row})
    return stream.getvalue()
