"""``heterodyne simulate``: two-time data with known truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heterodyne._errors import ConfigError
from heterodyne.cli import _output
from heterodyne.cli._options import Force, Json, Quiet
from heterodyne.cli._progress import progress

if TYPE_CHECKING:
    from heterodyne._events import EventSink
    from heterodyne._typing import FloatArray
    from heterodyne.core.simulate import Experiment

_LONGEST_AXIS = 20_000


def command(
    out: Annotated[Path, typer.Argument(metavar="OUT.h5", help="File to write.")],
    frames: Annotated[int | None, typer.Option(min=2, max=_LONGEST_AXIS, help="Frames.")] = None,
    dt: Annotated[float | None, typer.Option(help="Time between frames in s.")] = None,
    q: Annotated[list[float] | None, typer.Option(help="Wavevector in 1/Å; repeatable.")] = None,
    angle: Annotated[
        list[float] | None, typer.Option(help="Detector angle in degrees; repeatable.")
    ] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="True value of a parameter, or a run file with all of them; repeatable.",
        ),
    ] = None,
    modes: Annotated[int, typer.Option(min=1, help="Coherent modes; the contrast is 1/modes.")] = 5,
    pixels: Annotated[int, typer.Option(min=2, help="Speckles at each angle.")] = 4000,
    photons: Annotated[
        float | None,
        typer.Option(help="Mean photons per pixel and frame; without it no shot noise."),
    ] = None,
    independent_errors: Annotated[
        float | None,
        typer.Option(
            metavar="SIGMA",
            help="Instead of speckles: an independent normal error of this size on every pair.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random numbers.")] = 0,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write data with known truth.

    Without options: a creeping flow at 3 angles in 300 frames, with the noise of speckles.
    """
    sizes = {"dt": dt, "independent-errors": independent_errors, "photons": photons}
    _check_positive([*sizes.items(), *(("q", one) for one in q or ())])
    _check_target(out, force)
    speckles = {"modes": modes, "pixels": pixels} | ({"photons": photons} if photons else {})
    noise = {"sigma": independent_errors} if independent_errors else speckles
    given = {"n_frames": frames, "dt": dt, "phi": tuple(angle) if angle else None}
    experiment, scaling = _truth(
        {k: v for k, v in given.items() if v is not None}, parameters, modes, "modes" in noise
    )
    wavevectors = sorted(set(q or (experiment.q,)))
    with progress(quiet) as on_event:
        c2 = _simulate(experiment, wavevectors, scaling, noise, seed, on_event)
    truth = _by_name(experiment) | scaling
    settings = {"noise": "independent" if "sigma" in noise else "speckles", **noise, "seed": seed}
    _write(out, c2, experiment, wavevectors, truth, settings)
    _report(out, experiment, wavevectors, truth, settings, as_json)


def _check_positive(values: Sequence[tuple[str, float | None]]) -> None:
    for name, value in values:
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigError(f"the value is {value:g}", where=f"--{name}", allowed="above 0")


def _check_target(out: Path, force: bool) -> None:
    if not out.parent.is_dir():
        raise ConfigError("the folder does not exist", where=out.parent, remedy="Create it first")
    if out.exists() and not force:
        raise ConfigError(
            "the file exists", where=out, remedy="Choose another name, or replace it with --force"
        )


def _truth(
    geometry: Mapping[str, Any], entries: Sequence[str] | None, modes: int, speckles: bool
) -> tuple[Experiment, dict[str, float]]:
    """What to simulate, and contrast and offset."""
    from dataclasses import replace

    import numpy as np

    from heterodyne.config.load import load_run_config
    from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
    from heterodyne.config.parameter_space import ParameterSpace
    from heterodyne.core.simulate import creep_flow

    experiment = creep_flow()
    start = _by_name(experiment) | {"contrast": 1.0 / modes, "offset": 1.0}
    space = ParameterSpace().with_values(start)
    settings = list(entries or ())
    for file in [entry for entry in settings if "=" not in entry]:
        space = load_run_config(file).parameter_space()
    chosen = dict(_setting(entry) for entry in settings if "=" in entry)
    values = space.with_values(chosen).values
    scaling = {name: values[name] for name in ("contrast", "offset")}
    if speckles:
        if scaling.keys() & chosen.keys():
            raise ConfigError(
                "contrast and offset of speckles follow from the modes",
                where="--parameters",
                remedy="Set --modes, or simulate with --independent-errors",
            )
        scaling = {"contrast": 1.0 / modes, "offset": 1.0}
    physics = np.array([values[name] for name in PHYSICS_PARAM_NAMES])
    return replace(experiment, parameters=physics, **geometry), scaling


def _setting(entry: str) -> tuple[str, float]:
    name, _, text = entry.partition("=")
    try:
        return name.strip(), float(text)
    except ValueError:
        raise ConfigError(
            f"{text!r} is not a number", where=f"--parameters {entry}", allowed="name=value"
        ) from None


def _by_name(experiment: Experiment) -> dict[str, float]:
    from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES

    return dict(zip(PHYSICS_PARAM_NAMES, experiment.parameters.tolist(), strict=True))


def _simulate(
    experiment: Experiment,
    wavevectors: Sequence[float],
    scaling: Mapping[str, float],
    noise: Mapping[str, float],
    seed: int,
    on_event: EventSink,
) -> FloatArray:
    """Matrices of all angles at each q, which have their own speckles."""
    from dataclasses import replace

    import numpy as np

    from heterodyne.core.simulate import Detector, simulate_pairs, simulate_speckles

    found = []
    for k, q in enumerate(wavevectors):
        at_q = replace(experiment, q=q)
        if "sigma" in noise:
            levels = scaling["contrast"], scaling["offset"]
            found.append(simulate_pairs(at_q, *levels, noise["sigma"], seed + k))
        else:
            detector = Detector(int(noise["pixels"]), int(noise["modes"]), noise.get("photons"))
            found.append(simulate_speckles(at_q, detector, seed + k, on_event))
    return np.concatenate(found)


def _write(
    out: Path,
    c2: FloatArray,
    experiment: Experiment,
    wavevectors: Sequence[float],
    truth: Mapping[str, float],
    settings: Mapping[str, float | int | str],
) -> None:
    from heterodyne.data.truth import add_truth
    from heterodyne.data.writers import write_layout_a
    from heterodyne.io.files import replacing

    with replacing(out) as partial:
        write_layout_a(
            partial,
            c2,
            q_axis=list(wavevectors),
            phi_axis=list(experiment.phi),
            frame_time=experiment.dt,
        )
        add_truth(partial, truth, settings)


def _report(
    out: Path,
    experiment: Experiment,
    wavevectors: Sequence[float],
    truth: Mapping[str, float],
    settings: Mapping[str, float | int | str],
    as_json: bool,
) -> None:
    from heterodyne.config.parameter_registry import DEFAULT_REGISTRY

    if as_json:
        geometry = {
            "n_frames": experiment.n_frames,
            "dt": experiment.dt,
            "q": wavevectors[0] if len(wavevectors) == 1 else wavevectors,
            "phi": list(experiment.phi),
        }
        _output.say_json({"file": out, **geometry, "truth": truth, "settings": settings})
        return
    angles = ", ".join(f"{phi:g}" for phi in experiment.phi)
    at = ", ".join(f"{q:g}" for q in wavevectors)
    _output.say(f"{out}: {len(experiment.phi)} angles ({angles} deg), {experiment.n_frames} frames "
                f"{experiment.dt:g} s apart, q = {at} 1/Å")  # fmt: skip
    figures = ", ".join(f"{name} {value}" for name, value in settings.items() if name != "noise")
    _output.say(f"Noise: {settings['noise']} ({figures})")
    rows = [(name, f"{v:g}", DEFAULT_REGISTRY[name].unit or "–") for name, v in truth.items()]
    _output.say("\n" + _output.table(("truth", "value", "unit"), rows, left=(0, 2)))
