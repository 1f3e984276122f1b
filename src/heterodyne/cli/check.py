"""``heterodyne check``: what a run would fit, before it does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from heterodyne.cli import _output, _run
from heterodyne.cli._options import Json, RunFile, Settings

if TYPE_CHECKING:
    from heterodyne.config.schema import RunConfig

_DATA_ERROR = 2


def command(run: RunFile, settings: Settings = None, as_json: Json = False) -> None:
    """Check a run file and its data.

    Says what would be fitted, what stands out in the data, and what the run costs.
    """
    config = _run.load(run, settings)
    document = _examine(config)
    if as_json:
        _output.say_json({"run_file": run} | document)
    else:
        _describe(run, document)
    if any(one["severity"] == "error" for one in document["data"]["findings"]):
        raise typer.Exit(_DATA_ERROR)


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
