import io
import json
import math

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from pydantic import BaseModel
from ruamel.yaml import YAML

from heterodyne.config.cmc import CMCConfig
from heterodyne.config.load import check_run_config, load_run_config
from heterodyne.config.parameter_registry import DEFAULT_REGISTRY
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.config.schema import RunConfig
from heterodyne.config.template import (
    MINIMAL,
    committed_files,
    json_schema,
    main,
    render_template,
)


def load_text(text):
    return check_run_config(YAML(typ="safe", pure=True).load(io.StringIO(text)))


@pytest.mark.parametrize("path", committed_files(), ids=lambda path: path.name)
def test_committed_files_are_fresh(path):
    stale = f"run: python -m heterodyne.config.template ({path.name} is not what it writes)"
    read = json.loads if path.suffix == ".json" else str
    assert read(path.read_text(encoding="utf-8")) == read(committed_files()[path]), stale


def test_main_writes_them(tmp_path, monkeypatch):
    monkeypatch.setattr("heterodyne.config.template.TEMPLATES", tmp_path / "new")
    monkeypatch.setattr("heterodyne.config.template.MINIMAL", tmp_path / "new" / "m.yaml")
    monkeypatch.setattr("heterodyne.config.template.SCHEMA", tmp_path / "new" / "s.json")
    main()
    assert (tmp_path / "new" / "m.yaml").read_text(encoding="utf-8") == MINIMAL.read_text(
        encoding="utf-8"
    )
    assert json.loads((tmp_path / "new" / "s.json").read_text(encoding="utf-8")) == json_schema()


def test_minimal_file_is_the_default_run():
    run = load_run_config(MINIMAL)
    assert run.parameter_space() == ParameterSpace()
    assert run.cmc_config() == CMCConfig(per_angle_mode="individual")
    assert run.analyzer_parameters.scattering.wavevector_q == 0.0054


def test_every_parameter_stands_with_description_and_unit():
    text = MINIMAL.read_text(encoding="utf-8")
    for name, row in DEFAULT_REGISTRY.items():
        comment, _, entry = text.partition(f"    {name}: ")
        comment = comment.splitlines()[-1]
        assert row.description[1:] in comment
        assert row.unit in comment
        assert entry.startswith("{value: ")
    assert all(len(line) <= 100 for line in text.splitlines())


finite = {"allow_nan": False, "allow_infinity": False}


@st.composite
def spaces(draw):
    config = {}
    for name in draw(st.lists(st.sampled_from(list(DEFAULT_REGISTRY)), unique=True)):
        row = DEFAULT_REGISTRY[name]
        low = draw(st.floats(row.min_bound, row.max_bound, exclude_max=True, **finite))
        high = draw(st.floats(low, row.max_bound, exclude_min=True, **finite))
        config[name] = {
            "min": low,
            "max": high,
            "value": draw(st.floats(low, high, **finite)),
            "vary": draw(st.booleans()),
        }
        kind = draw(st.sampled_from(["normal", "uniform", None, "lognormal" if low > 0 else None]))
        if kind is not None:
            mean = draw(st.floats(1e-3, 1e3, **finite))
            config[name]["prior"] = {"type": kind, "mean": mean, "std": mean / 3}
    return ParameterSpace.from_config(config)


def same(left, right):
    """Whether two spaces agree; mean and std of a uniform prior mean nothing."""
    for name in left:
        a, b = left[name], right[name]
        assert (a.value, a.min, a.max, a.vary) == (b.value, b.min, b.max, b.vary)
        assert a.prior.kind is b.prior.kind
        if math.isfinite(a.prior.scale):
            assert a.prior == b.prior
    return True


@settings(max_examples=50)
@given(
    file_path=st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), min_size=1).filter(
        str.isprintable
    ),
    q=st.none() | st.floats(1e-6, 1, **finite),
    dt=st.none() | st.floats(1e-9, 1e3, **finite),
    angles=st.lists(st.none() | st.floats(-360, 360) | st.just(math.nan), max_size=30),
    n_frames=st.integers(2, 10**6),
    space=st.none() | spaces(),
)
def test_template_reads_back(file_path, q, dt, angles, n_frames, space):
    text = render_template(
        file_path=file_path, q=q, dt=dt, angles=angles, n_frames=n_frames, space=space
    )
    run = load_text(text)
    assert run.experimental_data.file_path == file_path
    assert run.analyzer_parameters.dt == dt
    assert run.analyzer_parameters.scattering.wavevector_q == q
    assert run.analyzer_parameters.end_frame == n_frames
    assert same(run.parameter_space(), space or ParameterSpace())


def test_example_range_of_the_template_can_be_used():
    text = render_template(file_path="a", q=None, dt=None, angles=[30.2, 75], n_frames=9)
    assert "30.2, 75" in text
    example = text.partition("For example: target_ranges: ")[2].splitlines()[0]
    run = load_text(text.replace("target_ranges: []", f"target_ranges: {example}", 1))
    assert run.phi_filtering.ranges == ((25, 35),)


def test_files_without_angles_say_so():
    assert "gives no angles" in render_template(file_path="a", q=1, dt=1, angles=[None], n_frames=2)


def fields(model, seen=()):
    for name, info in model.model_fields.items():
        yield f"{model.__name__}.{name}", info
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in seen:
            yield from fields(kind, (*seen, kind))


def test_every_key_is_described():
    names = [name for name, _ in fields(RunConfig)]
    assert len(names) > 90
    assert [name for name, info in fields(RunConfig) if not info.description] == []


def test_schema_holds_limits_units_and_refuses_other_keys():
    definitions = json_schema()["$defs"]
    assert definitions["CmcPerShardMcmc"]["properties"]["target_accept_prob"]["maximum"] == 0.99
    assert definitions["CmcTimeout"]["properties"]["per_shard_timeout"]["unit"] == "s"
    assert all(d["additionalProperties"] is False for d in definitions.values())
