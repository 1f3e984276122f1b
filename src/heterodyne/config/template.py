"""A run file to start from, and the JSON schema of run files, both from the schema."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel

from heterodyne.config.parameter_space import Parameter, ParameterSpace, PriorKind
from heterodyne.config.schema import (
    AnalyzerParameters,
    CmcSections,
    ExperimentalData,
    Noise,
    Optimization,
    Output,
    Parameters,
    PhiFiltering,
    RunConfig,
    Scattering,
)

TEMPLATES = Path(__file__).parent / "templates"
MINIMAL = TEMPLATES / "minimal.yaml"
SCHEMA = TEMPLATES / "run.schema.json"

_LINE = 96
_HALF_RANGE = 5.0


def render_template(
    *,
    file_path: str,
    q: float | Literal["all"] | None,
    dt: float | None,
    angles: Sequence[float | None],
    n_frames: int,
    space: ParameterSpace | None = None,
) -> str:
    """Write a run file with comments that ``load_run_config`` reads back.

    Args:
        file_path: Two-time file.
        q: Wavevector in 1/Å; None where the file has only one; ``all`` for each of them.
        dt: Time between frames in s; None where it is to come from the file.
        angles: Detector angles of the file in degrees; None or NaN where it has none.
        n_frames: Number of frames of the file.
        space: Parameters to write; those of the parameter table by default.
    """
    lines = [
        *_section("experimental_data"),
        *_entry(ExperimentalData, "file_path", json.dumps(file_path, ensure_ascii=False)),
        *_section("analyzer_parameters"),
        *_entry(AnalyzerParameters, "dt", _number(dt)),
        *_entry(AnalyzerParameters, "start_frame", "1"),
        *_entry(AnalyzerParameters, "end_frame", f"{n_frames}"),
        *_entry(AnalyzerParameters, "bad_frames", "[]"),
        *_entry(AnalyzerParameters, "time_origin", "absolute"),
        "  scattering:",
        *_entry(Scattering, "wavevector_q", q if isinstance(q, str) else _number(q), 2),
        *_section("phi_filtering"),
        *_entry(PhiFiltering, "enabled", "true"),
        *_entry(PhiFiltering, "target_ranges", "[]"),
        *_angle_comments([a for a in angles if a is not None and math.isfinite(a)]),
        *_section("parameters"),
        *_parameters(space or ParameterSpace()),
        *_section("optimization"),
        *_entry(Optimization, "method", "cmc"),
        "  cmc:",
        *_cmc_entry("per_angle", "per_angle_mode"),
        *_cmc_entry("per_shard_mcmc", "num_chains", "num_samples", "seed"),
        *_section("noise"),
        *_entry(Noise, "effective_speckles", "auto"),
        *_section("output"),
        *_entry(Output, "directory", Output.model_fields["directory"].default),
    ]
    return "\n".join(lines).lstrip("\n") + "\n"


def json_schema() -> dict[str, Any]:
    """JSON schema of run files, for editors."""
    schema = RunConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema


def _section(name: str) -> list[str]:
    return ["", *_comment(f"{RunConfig.model_fields[name].description}"), f"{name}:"]


def _entry(model: type[BaseModel], name: str, value: str, depth: int = 1) -> list[str]:
    comment = _comment(f"{model.model_fields[name].description}", depth)
    return [*comment, f"{'  ' * depth}{name}: {value}"]


def _comment(text: str, depth: int = 0) -> list[str]:
    start = f"{'  ' * depth}# "
    return textwrap.wrap(text, _LINE, initial_indent=start, subsequent_indent=start)


def _cmc_entry(section: str, *names: str) -> Iterator[str]:
    """Fields of a section of CMCConfig at the values they have in run files."""
    yield f"    {section}:"
    settings = getattr(CmcSections(), section)
    for name in names:
        yield from _entry(type(settings), name, f"{getattr(settings, name)}", 3)


def _number(value: float | None) -> str:
    """Shortest text that reads back as the same number."""
    if value is None:
        return "null"
    short = f"{value:.6g}"
    text = short if float(short) == value else repr(float(value))
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa}{'' if '.' in mantissa else '.0'}e{exponent}" if e else text


def _angle_comments(angles: list[float]) -> Iterator[str]:
    if not angles:
        yield "  # The file gives no angles."
        return
    known = ", ".join(_number(round(angle, 3)) for angle in angles)
    yield from _comment(f"Angles of the file (deg): {known}", 1)
    first = round(angles[0])
    low, high = _number(first - _HALF_RANGE), _number(first + _HALF_RANGE)
    yield f"  # For example: target_ranges: [{{min_angle: {low}, max_angle: {high}}}]"


def _parameters(space: ParameterSpace) -> Iterator[str]:
    group, section = None, None
    for name in space:
        parameter = space[name]
        if parameter.info.group != group:
            group = parameter.info.group
            yield f"  {group}:"
            section = Parameters.model_fields[group].annotation
        yield from _entry(cast(type[BaseModel], section), name, f"{{{_setting(parameter)}}}", 2)


def _setting(parameter: Parameter) -> str:
    entries = {
        "value": _number(parameter.value),
        "min": _number(parameter.min),
        "max": _number(parameter.max),
        "vary": str(parameter.vary).lower(),
    }
    if parameter.prior != Parameter.default(parameter.info).prior:
        entries["prior"] = f"{{{_prior(parameter)}}}"
    return ", ".join(f"{key}: {text}" for key, text in entries.items())


def _prior(parameter: Parameter) -> str:
    prior = parameter.prior
    if prior.kind is PriorKind.UNIFORM:
        return f"type: {prior.kind.value}"
    return f"type: {prior.kind.value}, mean: {_number(prior.mean)}, std: {_number(prior.std)}"


def committed_files() -> dict[Path, str]:
    """Text of every file of ``templates/``, by path."""
    minimal = render_template(
        file_path="two_time.hdf", q=0.0054, dt=0.1, angles=(0.0, 45.0, 90.0), n_frames=1001
    )
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False)
    return {MINIMAL: minimal, SCHEMA: f"{schema}\n"}


def main() -> None:
    """Write the files of ``templates/`` anew."""
    TEMPLATES.mkdir(exist_ok=True)
    for path, text in committed_files().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
