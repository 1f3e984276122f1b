"""The run file: its sections, keys, units and limits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationInfo,
    create_model,
    field_validator,
)

from heterodyne.config._cluster import Cluster
from heterodyne.config._cmc_fields import definitions_of, sections_of
from heterodyne.config._cmc_sections import Section, gather, nest
from heterodyne.config._fields import MEMBERS, as_tuple, described
from heterodyne.config._section import RunSection
from heterodyne.config.cmc import CMCConfig
from heterodyne.config.parameter_registry import DEFAULT_REGISTRY, ParameterInfo
from heterodyne.config.parameter_space import PRIOR_WORDS, Parameter, ParameterSpace

FrameNumber = Annotated[int, Field(ge=1)]
Angle = Annotated[float, Field(ge=-360, le=360)]
Dataset = Annotated[str, Field(min_length=1)]


Values = Annotated[tuple[float, ...], BeforeValidator(as_tuple)]
Wavevector = Annotated[float, Field(gt=0)]


def _section(model: type[BaseModel], text: str) -> Any:
    return Field(default_factory=model, description=f"{text}.")


class Keys(RunSection):
    """Where a file without a convention keeps its arrays, or their values."""

    c2: Annotated[Dataset | None, described("Name of the two-time matrices")] = None
    t: Annotated[Dataset | Values | None, described("Frame times, or their name", "s")] = None
    t2: Annotated[Dataset | Values | None, described("Times of columns, or their name", "s")] = None
    phi: Annotated[
        Dataset | float | Values | None, described("Detector angles, or their name", "deg")
    ] = None
    q: Annotated[
        Dataset | float | Values | None, described("Wavevectors, or their name", "1/Å")
    ] = None
    dt: Annotated[Dataset | float | None, described("Time between frames, or its name", "s")] = None


def _layout_word(word: object) -> object:
    return "aps_u" if word == "apsu" else word


class ExperimentalData(RunSection):
    """What to read."""

    file_path: Annotated[
        Dataset | tuple[Dataset, ...],
        *MEMBERS,
        described(
            "Two-time file; a relative path starts at the run file; a list, or a pattern such as "
            "scan_*.h5, fits each file on its own"
        ),
    ]
    layout: Annotated[
        Literal["auto", "aps_u", "data_exchange", "chx", "nexus", "plain"],
        BeforeValidator(_layout_word),
        described("Convention of the file; auto recognises it"),
    ] = "auto"
    keys: Annotated[Keys | None, described("Names of the arrays of a plain HDF5 or npz file")] = (
        None
    )
    asymmetric: Annotated[
        Literal["refuse", "average"],
        described("What to do with a full matrix whose halves differ"),
    ] = "refuse"


class Scattering(RunSection):
    """Which wavevector to take."""

    wavevector_q: Annotated[
        Wavevector | Literal["all"] | tuple[Wavevector, ...] | None,
        *MEMBERS,
        described(
            "Wavevector; the nearest in the file is taken; null where it has only one; all, or "
            "a list, fits each on its own",
            "1/Å",
        ),
    ] = None
    q_tolerance: Annotated[
        float, described("Largest distance of the nearest wavevector, as a share of it", ge=0)
    ] = 0.02


class Geometry(RunSection):
    """The shear cell."""

    stator_rotor_gap: Annotated[
        float | None,
        described("Gap of the cell; it is recorded and does not enter this model", "Å"),
        Field(gt=0),
    ] = None


class AnalyzerParameters(RunSection):
    """Frames, times and wavevector."""

    dt: Annotated[
        float | None,
        described("Time between frames; null takes it from the file", "s", gt=0),
    ] = None
    start_frame: Annotated[FrameNumber, described("First frame of the window, counted from 1")] = 1
    end_frame: Annotated[
        FrameNumber | None, described("Last frame of the window, included; null: the last")
    ] = None
    bad_frames: Annotated[
        tuple[FrameNumber, ...],
        BeforeValidator(as_tuple),
        described("Frames left out of fits, counted from 1"),
    ] = ()
    time_origin: Annotated[
        Literal["absolute", "window"],
        described("What times count from; window: the first frame of the window is at dt"),
    ] = "absolute"
    scattering: Scattering = _section(Scattering, "Which wavevector to take")
    geometry: Geometry = _section(Geometry, "The shear cell")

    @field_validator("end_frame")
    @classmethod
    def _holds_two_frames(cls, end: int | None, info: ValidationInfo) -> int | None:
        start = info.data.get("start_frame")
        if end is not None and start is not None and end <= start:
            raise ValueError(f"{end} is not after start_frame; allowed: at least {start + 1}")
        return end


class AngleRange(RunSection):
    """An arc of detector angles, ends included."""

    min_angle: Annotated[Angle, described("First angle; above max_angle it wraps at 360", "deg")]
    max_angle: Annotated[Angle, described("Last angle", "deg")]


class PhiFiltering(RunSection):
    """Which detector angles to take."""

    enabled: Annotated[bool, described("Whether target_ranges apply")] = True
    target_ranges: Annotated[
        tuple[AngleRange, ...],
        BeforeValidator(as_tuple),
        described("Arcs of angles to take; without any, all angles are taken"),
    ] = ()

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """Pairs of first and last angle in degrees; empty where all are taken."""
        if not self.enabled:
            return ()
        return tuple((arc.min_angle, arc.max_angle) for arc in self.target_ranges)


class PriorSetting(RunSection):
    """Prior of one parameter, truncated to its bounds."""

    type: Annotated[
        str | None, described("Family"), Field(json_schema_extra={"enum": [*PRIOR_WORDS, None]})
    ] = None
    mean: Annotated[
        float | None, described("Centre, or median of a log-normal prior, in the parameter's unit")
    ] = None
    std: Annotated[
        float | None,
        described("Width in the parameter's unit; a log-normal prior has scale ln(1 + std/mean)"),
    ] = None


class ParameterSetting(RunSection):
    """What a run file may change about a parameter."""

    value: Annotated[float | None, described("Start value, or the value where vary is false")] = (
        None
    )
    min: Annotated[float | None, described("Lower bound")] = None
    max: Annotated[float | None, described("Upper bound")] = None
    vary: Annotated[bool | None, described("Whether the parameter is fitted")] = None
    prior: Annotated[PriorSetting | None, described("Prior, truncated to the bounds")] = None


def _check_setting(info: ParameterInfo, setting: ParameterSetting | None) -> Any:
    if setting is not None:
        entry = setting.model_dump(exclude_none=True)
        Parameter.default(info).updated(entry, f"parameters.{info.group}.{info.name}")
    return setting


def _group_model(group: str) -> type[BaseModel]:
    fields: dict[str, Any] = {
        info.name: (
            Annotated[
                ParameterSetting | None,
                AfterValidator(partial(_check_setting, info)),
                described(info.description[:1].upper() + info.description[1:], info.unit),
            ],
            None,
        )
        for info in DEFAULT_REGISTRY.values()
        if info.group == group
    }
    return create_model(f"{group.capitalize()}Parameters", __base__=RunSection, **fields)


def _parameters_model() -> type[BaseModel]:
    groups = {group: _group_model(group) for group in _groups()}
    fields: dict[str, Any] = {
        group: (model, _section(model, f"Parameters of the group {group}"))
        for group, model in groups.items()
    }
    return create_model("Parameters", __base__=RunSection, **fields)


def _groups() -> list[str]:
    return list(dict.fromkeys(info.group for info in DEFAULT_REGISTRY.values()))


def _cmc_section_model(section: Section) -> type[BaseModel]:
    fields = _run_file_fields(section)
    name = "".join(word.capitalize() for word in section.value.split("_"))
    return create_model(f"Cmc{name}", __base__=RunSection, **fields)


def _without_fit(value: object) -> object:
    if value == "literal":
        raise ValueError(
            "literal centres priors on an earlier fit, and a run file takes none; allowed: true "
            "or false; to centre priors, set prior under parameters"
        )
    return value


_InformedPriors = Annotated[
    bool,
    BeforeValidator(_without_fit),
    described(
        "No effect in a run file, which takes no earlier fit; to centre priors on one, set "
        "the priors of the parameters"
    ),
]


def _run_file_fields(section: Section) -> dict[str, Any]:
    """Fields of a section of CMCConfig; run files differ where they say less than a call.

    Angles are treated one by one, and there is no earlier fit to centre priors on.
    """
    fields = {
        name: definition
        for name, definition in definitions_of(CMCConfig).items()
        if sections_of(CMCConfig)[name] is section
    }
    if "per_angle_mode" in fields:
        fields["per_angle_mode"] = (fields["per_angle_mode"][0], "individual")
    if "use_nlsq_informed_priors" in fields:
        fields["use_nlsq_informed_priors"] = (_InformedPriors, True)
    return fields


def _cmc_model() -> type[BaseModel]:
    models = {s.value: _cmc_section_model(s) for s in Section if s is not Section.TOP}
    sections: dict[str, Any] = {
        key: (model, _section(model, f"Section {key} of CMCConfig"))
        for key, model in models.items()
    }
    fields = _run_file_fields(Section.TOP) | sections
    return create_model("CmcSections", __base__=RunSection, **fields)


if TYPE_CHECKING:
    Parameters = CmcSections = RunSection
else:
    Parameters, CmcSections = _parameters_model(), _cmc_model()


class NlsqSettings(RunSection):
    """The least-squares fit."""

    n_starts: Annotated[int, described("Number of start points", ge=1)] = 16
    max_iterations: Annotated[int, described("Largest number of steps of a start", ge=1)] = 200
    tolerance: Annotated[
        float,
        described("Predicted decrease of chi-square below which a fit has converged", gt=0, lt=1),
    ] = 1e-4
    seed: Annotated[int, described("Seed of the start points", ge=0, le=2**32 - 1)] = 0


EngineName = Literal["auto", "nuts", "importance", "ensemble"]


class Optimization(RunSection):
    """How parameters are found."""

    method: Annotated[
        Literal["nlsq", "cmc"],
        described("nlsq: least squares; cmc: least squares, then draws from the posterior"),
    ] = "cmc"
    engine: Annotated[
        EngineName,
        described(
            "What draws; auto: importance sampling where its weights are good, elsewhere "
            "ensemble sampling, for many pairs that of averaged frames, or NUTS"
        ),
    ] = "auto"
    nlsq: NlsqSettings = _section(NlsqSettings, "The least-squares fit")
    cmc: CmcSections = _section(CmcSections, "The draws, with the sections of CMCConfig")

    @field_validator("cmc", mode="before")
    @classmethod
    def _in_sections(cls, config: object) -> object:
        if not isinstance(config, dict):
            return config
        sections = sections_of(CMCConfig)
        values, left = gather(config, sections)
        nested = nest(values, sections)
        for key, value in left.items():
            both = isinstance(value, dict) and isinstance(nested.get(key), dict)
            nested[key] = nested[key] | value if both else value
        return nested

    @field_validator("cmc")
    @classmethod
    def _consistent(cls, sections: CmcSections) -> CmcSections:
        problems = CMCConfig.from_dict(sections.model_dump()).validate()
        if problems:
            raise ValueError("; ".join(problems))
        return sections


class Noise(RunSection):
    """How large the errors are."""

    effective_speckles: Annotated[
        Literal["auto"] | Annotated[float, Field(gt=0)],
        described(
            "Number of independent speckles of an angle, which sets the corrected intervals; "
            "auto estimates it from the residuals"
        ),
    ] = "auto"


class Output(RunSection):
    """Where results go."""

    directory: Annotated[
        str,
        described("Folder of the results; a relative path starts at the run file", min_length=1),
    ] = "results"


class RunConfig(RunSection):
    """A run file: what to read, what to take of it, what to fit and how."""

    experimental_data: ExperimentalData = Field(description="What to read.")
    analyzer_parameters: AnalyzerParameters = _section(
        AnalyzerParameters, "Frames, times and wavevector"
    )
    phi_filtering: PhiFiltering = _section(PhiFiltering, "Which detector angles to take")
    parameters: Parameters = _section(
        Parameters, "Start values, bounds and priors of the parameters, by group"
    )
    optimization: Optimization = _section(Optimization, "How parameters are found")
    noise: Noise = _section(Noise, "How large the errors are")
    output: Output = _section(Output, "Where results go")
    cluster: Annotated[
        Cluster | None,
        described("Jobs of a batch system that do the draws; null: this machine does them"),
    ] = None

    def parameter_space(self) -> ParameterSpace:
        """Start values, bounds and priors of all parameters, as ``use_log_space_priors`` says."""
        space = ParameterSpace.from_config(self.parameters.model_dump(exclude_none=True))
        wanted = self.cmc_config().use_log_space_priors
        return space if wanted else space.without_log_normal_priors()

    def cmc_config(self) -> CMCConfig:
        """Settings of the draws, in the form the samplers take."""
        return CMCConfig.from_dict(self.optimization.cmc.model_dump())
