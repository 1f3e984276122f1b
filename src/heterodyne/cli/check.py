"""``heterodyne check``: what a run would fit, before it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from heterodyne._errors import DataError
from heterodyne.cli import _cluster, _output, _run
from heterodyne.cli._options import Json, RunFile, Settings

if TYPE_CHECKING:
    from heterodyne.config.schema import RunConfig
    from heterodyne.data.batch import Member

_DATA_ERROR = 2


def command(run: RunFile, settings: Settings = None, as_json: Json = False) -> None:
    """Check a run file and its data.

    Says what would be fitted, what stands out in the data, and what the run costs.
    """
    from heterodyne.data.batch import is_batch

    config = _run.load(run, settings)
    if is_batch(config):
        document = _examine_batch(config)
        errors = [one for one in document["members"] if one["problem"]]
    else:
        document = _examine(config)
        errors = _errors(document)
    document["cluster"] = _cluster.examine(config)
    if as_json:
        _output.say_json({"run_file": run} | document)
    elif "members" in document:
        _describe_batch(run, document)
    else:
        _describe(run, document)
    if document["cluster"] is not None and not as_json:
        _output.say(_output.pairs(_cluster.entries(document["cluster"])))
    if errors:
        raise typer.Exit(_DATA_ERROR)


def _errors(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for one in document["data"]["findings"] if one["severity"] == "error"]


def _examine_batch(config: RunConfig) -> dict[str, Any]:
    """What the members would fit, and what all of them cost one after the other."""
    from heterodyne.data.batch import find_members
    from heterodyne.optimization.cost import RATES

    members = [_examine_member(one) for one in find_members(config)]
    usable = [one for one in members if not one["problem"]]
    costs = [one["predicted"] for one in usable]
    shapes = {(one["data"]["n_fitted_frames"], len(one["data"]["bins"])) for one in usable}
    # Members of the same shape share what is compiled.
    shared = RATES.compile_s * (len(usable) - len(shapes))
    total = {
        "n_pairs": sum(cost["n_pairs"] for cost in costs),
        "memory_bytes": max((cost["memory_bytes"] for cost in costs), default=0.0),
        "fit_s": sum(cost["fit_s"] for cost in costs) - shared,
        "sampling_s": sum(cost["sampling_s"] for cost in costs),
    }
    return {
        "method": config.optimization.method,
        "members": members,
        "predicted": total,
        "output": config.output.directory,
    }


def _examine_member(member: Member) -> dict[str, Any]:
    about = {"name": member.name, "file": member.config.experimental_data.file_path}
    try:
        document = _examine(member.config)
    except DataError as error:
        return about | {"problem": str(error)}
    problem = " ".join(f"{one['text']} {one['advice']}" for one in _errors(document))
    return about | {"problem": problem or None} | document


def _describe_batch(run: Path, document: Mapping[str, Any]) -> None:
    members, cost = document["members"], document["predicted"]
    usable = [one for one in members if not one["problem"]]
    _output.say(f"{run} is valid; a batch of {len(members)} members.\n")
    rows = [_member_cells(one) for one in members]
    header = ("member", "q (1/Å)", "angles", "frames", "unique pairs", "fit", "draws")
    _output.say(_output.table(header, rows))
    found = [
        (one["name"], f"{severity}: {text} {advice}")
        for one in usable
        for severity, text, advice in _warnings(one)
    ]
    found += [(one["name"], f"error: {one['problem']}") for one in members if one["problem"]]
    _output.say(f"\nFindings:\n{_output.pairs(found, '  ') if found else '  none'}\n")
    entries = [
        ("memory", f"about {_output.memory(cost['memory_bytes'])} for one member at a time"),
        ("fits", f"about {_output.duration(cost['fit_s'])} in all"),
    ]
    if document["method"] == "cmc":
        entries.append(("draws", f"about {_output.duration(cost['sampling_s'])} in all"))
    _output.say(_output.pairs([*entries, ("results", document["output"])]))


def _member_cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    if "data" not in one:
        return (one["name"], *["–"] * 6)
    data, cost = one["data"], one["predicted"]
    return (
        one["name"],
        f"{data['q']:.6g}",
        f"{len(data['bins'])}",
        f"{data['n_fitted_frames']}",
        f"{data['unique_pairs']:,}",
        _output.duration(cost["fit_s"]),
        _output.duration(cost["sampling_s"]) if one["method"] == "cmc" else "–",
    )


def _warnings(one: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for finding in one["data"]["findings"]:
        if finding["severity"] == "warning":
            yield finding["severity"], finding["text"], finding["advice"]


def _examine(config: RunConfig) -> dict[str, Any]:
    from dataclasses import asdict

    from heterodyne.data.run_data import describe_data, read_run_data
    from heterodyne.optimization.cost import predict

    data = describe_data(read_run_data(config, strict=False))
    space, sampler = config.parameter_space(), config.cmc_config()
    parameters = {
        name: {"value": p.value, "min": p.min, "max": p.max, "unit": p.info.unit, "vary": p.vary}
        for name, p in space.parameters.items()
    }
    physics = [name for name in space.varying_names if space[name].info.is_physical]
    sampled = config.optimization.method == "cmc"
    cost = predict(
        data["n_fitted_frames"],
        len(data["bins"]),
        len(physics),
        sampler.num_chains if sampled else 0,
        sampler.num_warmup + sampler.num_samples,
        nuts=config.optimization.engine == "nuts",
    )
    return {
        "data": data,
        "method": config.optimization.method,
        "parameters": parameters,
        "varying": space.varying_names,
        "predicted": asdict(cost),
        "output": config.output.directory,
    }


def _describe(run: Path, document: dict[str, Any]) -> None:
    data, cost = document["data"], document["predicted"]
    _output.say(f"{run} is valid.\n\n{_run.data_lines(data)}\n")
    rows = [
        (name, f"{p['value']:g}", f"{p['min']:g}", f"{p['max']:g}", p["unit"] or "–")
        for name, p in document["parameters"].items()
        if p["vary"]
    ]
    header = ("fitted", "start", "min", "max", "unit")
    _output.say(_output.table(header, rows, left=(0, 4)))
    fixed = [f"{n} = {p['value']:g}" for n, p in document["parameters"].items() if not p["vary"]]
    if fixed:
        _output.say(_output.pairs([("fixed", ", ".join(fixed))]))
    _output.say(f"\nFindings:\n{_output.findings(data['findings'])}\n")
    entries = [
        ("memory", f"about {_output.memory(cost['memory_bytes'])}"),
        ("fit", f"about {_output.duration(cost['fit_s'])}"),
    ]
    if document["method"] == "cmc":
        entries.append(("draws", f"about {_output.duration(cost['sampling_s'])}"))
    _output.say(_output.pairs([*entries, ("results", document["output"])]))
