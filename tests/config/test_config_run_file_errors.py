import json
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heterodyne._errors import ConfigError
from heterodyne.config.load import check_run_config, load_run_config


def messages(folder, text, name="run.yaml"):
    """Lines of the error of a run file, each split into position and the rest."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_run_config(path)
    lines = str(caught.value).split("\n")
    assert all(line.startswith(str(path)) and line.endswith(".") for line in lines)
    return [line.removeprefix(f"{path}:").split(": ", 1) for line in lines]


DATA = "experimental_data: {file_path: a.hdf}\n"

SINGLE = [
    # what is below line 1, position, words of the message in order
    (
        "nois: {}",
        "2:1",
        ["nois is not a known key", "did you mean 'noise'", "known here", "output"],
    ),
    ("dt: 0.1", "2:1", ["did you mean 'analyzer_parameters.dt'"]),
    (
        "analyzer_parameters:\n  dt: -1e-3",
        "3:7",
        ["analyzer_parameters.dt is -1e-3", "a number above 0 in s"],
    ),
    ("analyzer_parameters: {dt: '0.1'}", "2:27", ["dt is '0.1'", "a number above 0 in s"]),
    ("analyzer_parameters: {dt: .inf}", "2:27", ["dt is .inf", "a number above 0 in s"]),
    (
        "analyzer_parameters:\n  scattering:\n    wavevector_q: 0",
        "4:19",
        ["analyzer_parameters.scattering.wavevector_q is 0", "above 0 in 1/Å"],
    ),
    ("analyzer_parameters: {start_frame: 0}", "2:36", ["start_frame is 0", "at least 1"]),
    ("analyzer_parameters: {start_frame: 1.5}", "2:36", ["start_frame is 1.5", "an integer"]),
    (
        "analyzer_parameters:\n  end_frame: 5\n  start_frame: 5",
        "3:14",
        ["end_frame", "5 is not after start_frame", "at least 6"],
    ),
    ("analyzer_parameters: {bad_frames: [3, x]}", "2:39", ["bad_frames[1] is 'x'", "an integer"]),
    ("analyzer_parameters: {bad_frames: 3}", "2:35", ["bad_frames is 3", "a list"]),
    (
        "analyzer_parameters: {time_origin: windw}",
        "2:36",
        ["time_origin is 'windw'", "did you mean 'window'", "absolute, window"],
    ),
    (
        "phi_filtering:\n  target_ranges:\n    - {min_angle: 0, max_angle: 10}\n"
        "    - {min_angle: 400, max_angle: 10}",
        "5:19",
        ["phi_filtering.target_ranges[1].min_angle is 400", "from -360 to 360 in deg"],
    ),
    (
        "phi_filtering:\n  target_ranges:\n    - {min_angle: 0}",
        "4:7",
        ["target_ranges[0].max_angle is missing", "in deg"],
    ),
    (
        "optimization: {cmc: {nlsq: {use_nlsq_informed_priors: literal}}}",
        "2:55",
        ["use_nlsq_informed_priors", "a run file takes none", "true or false", "set prior under"],
    ),
    (
        "optimization: {cmc: {nlsq: {use_nlsq_informed_priors: 2}}}",
        "2:55",
        ["use_nlsq_informed_priors is 2", "true or false"],
    ),
    ("phi_filtering: {enabled: yes}", "2:26", ["enabled is 'yes'", "true or false"]),
    ("parameters: {reference: {D0_ref: 100}}", "2:34", ["D0_ref is 100", "a mapping with value"]),
    (
        "parameters:\n  velocity:\n    v0:\n      value: 2e4",
        "5:14",
        ["parameters.velocity.v0.value", "v0 = 20000 Å/s^(1+beta)", "1e-06 to 10000 Å/s^(1+beta)"],
    ),
    (
        "parameters:\n  velocity:\n    v0: {min: 0, value: 1}",
        "4:15",
        ["parameters.velocity.v0.min", "stay positive"],
    ),
    (
        "parameters:\n  velocity:\n    v0: {max: 1e-7}",
        "4:5",
        ["parameters.velocity.v0.min", "min 1e-06 is not below max 1e-07"],
    ),
    ("parameters: {sample: {D0_ref: {}}}", "2:23", ["did you mean 'parameters.reference.D0_ref'"]),
    ("parameters: {reference: {D0_reff: {}}}", "2:26", ["did you mean 'D0_ref'"]),
    ("parameters: {fraction: {f0: {vary: on}}}", "2:36", ["vary is 'on'", "true or false"]),
    (
        "parameters: {fraction: {f0: {prior: {type: lognorm}}}}",
        "2:44",
        ["f0.prior.type", "'lognorm'", "did you mean 'lognormal'", "normal, lognormal, uniform"],
    ),
    ("parameters: {fraction: {f0: {prior: {std: 0}}}}", "2:43", ["prior width 0", "> 0"]),
    (
        "optimization: {method: mcmc}",
        "2:24",
        ["optimization.method is 'mcmc'", "did you mean 'cmc'", "nlsq, cmc"],
    ),
    ("optimization: {nlsq: {n_starts: 0}}", "2:33", ["n_starts is 0", "at least 1"]),
    (
        "optimization:\n  cmc:\n    per_shard_mcmc:\n      target_accept_prob: 0.3",
        "5:27",
        ["target_accept_prob is 0.3", "0.5 to 0.99"],
    ),
    (
        "optimization:\n  cmc:\n    target_accept: 0.3",
        "4:20",
        ["optimization.cmc.target_accept is 0.3", "0.5 to 0.99"],
    ),
    (
        "optimization:\n  cmc:\n    num_chain: 3",
        "4:5",
        [
            "num_chain is not a known key",
            "did you mean 'optimization.cmc.per_shard_mcmc.num_chains",
        ],
    ),
    (
        "optimization: {cmc: {sharding: {num_shards: some}}}",
        "2:45",
        ["num_shards is 'some'", "an integer of at least 1, or auto"],
    ),
    ("optimization: {cmc: {timeout: 7}}", "2:31", ["timeout is 7", "per_shard_timeout"]),
    (
        "optimization: {cmc: {require_nlsq_warmstart: true, use_nlsq_warmstart: false}}",
        "2:21",
        ["require_nlsq_warmstart is true and use_nlsq_warmstart is false"],
    ),
    ("optimization: {cmc: {run_id: 2024-01-01}}", "2:30", ["run_id is 2024-01-01", "in quotes"]),
    ("noise: {effective_speckles: 0}", "2:29", ["effective_speckles is 0", "auto", "above 0"]),
    ("output: {directory: ''}", "2:21", ["directory is ''", "not empty"]),
    ("output: [a]", "2:9", ["output is a list", "a mapping with directory"]),
    ("1: {}", "2:1", ["1 is not a known key"]),
    ("noise: {}\nnoise: {}", "3:1", ["noise occurs twice", "line 2"]),
    ("noise: {effective_speckles: 3, effective_speckles: 4}", "2:32", ["occurs twice", "line 2"]),
    ("experimental: {}", "2:1", ["did you mean 'experimental_data'"]),
]


@pytest.mark.parametrize(("text", "position", "words"), SINGLE)
def test_position_and_words(tmp_path, text, position, words):
    ((found, message),) = messages(tmp_path, DATA + text)
    assert found == position
    at = 0
    for word in words:
        assert word in message[at:], message
        at = message.index(word, at) + len(word)


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("", "1:1", "run file is empty"),
        ("# nothing\n", "1:1", "run file is empty"),
        ("- 1", "1:1", "holds [1]. Allowed: a mapping"),
        ("noise:\n", "1:1", "experimental_data is missing"),
        ("experimental_data:\n", "1:1", "experimental_data.file_path is missing"),
        ("noise:\n\n\nexperimental_data:\n", "4:1", "experimental_data.file_path is missing"),
        ("experimental_data: {file_path: 3}", "1:32", "file_path is 3; allowed: text"),
        ("experimental_data: {file_path: [", "1:33", "not valid YAML"),
        ("a: b: c", "1:5", "not valid YAML: mapping values are not allowed here"),
        ("a:\n\tb: 1", "2:1", "not valid YAML"),
        ("a: *b", "1:4", "not valid YAML"),
        ("a: !!python/object:os.system x", "1:4", "not valid YAML"),
        ("a: 1\n---\nb: 1", "2:1", "not valid YAML"),
        ("a: 1\nb: \x07", "2:4", "the character U+0007 is not allowed"),
    ],
)
def test_files_without_content_or_syntax(tmp_path, text, position, words):
    ((found, message),) = messages(tmp_path, text)
    assert (found, words in message) == (position, True), message


def test_tags_that_do_not_fit_their_value(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("a: !!int ''", encoding="utf-8")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_run_config(path)


def test_all_problems_of_a_file_in_the_order_of_its_lines(tmp_path):
    text = textwrap.dedent(
        """\
        experimental_data:
          file_path: a.hdf
          layout: chxx
        analyzer_parameters:
          dt: 0
          dt: 0.1
        parameters:
          reference: {D0_ref: {value: 1}, alpha_ref: {value: 9}}
        optimization:
          cmc: {seed: -1, per_shard_mcmc: {num_chains: 0}}
        """
    )
    found = [(position, message.split()[0]) for position, message in messages(tmp_path, text)]
    assert found == [
        ("3:11", "experimental_data.layout"),
        ("5:7", "analyzer_parameters.dt"),
        ("6:3", "analyzer_parameters.dt"),
        ("8:31", "parameters.reference.D0_ref.value:"),
        ("8:54", "parameters.reference.alpha_ref.value:"),
        ("10:15", "optimization.cmc.seed"),
        ("10:48", "optimization.cmc.per_shard_mcmc.num_chains"),
    ]


def test_one_problem_per_entry(tmp_path):
    text = DATA.replace("}", ", keys: {t: [1, x], q: {}}}")
    found = [position for position, _ in messages(tmp_path, text)]
    assert found == ["1:53", "1:60"]


def test_key_that_is_given_in_two_spellings(tmp_path):
    text = f"{DATA}optimization:\n  cmc: {{seed: 1, per_shard_mcmc: {{seed: 2}}}}"
    ((position, message),) = messages(tmp_path, text)
    assert position == "3:9"
    assert "optimization.cmc.seed is not a known key" in message


def test_json_with_tabs_keeps_its_columns(tmp_path):
    text = json.dumps({"experimental_data": {"file_path": 3}}, indent="\t")
    ((position, _),) = messages(tmp_path, text, "run.json")
    assert position == "3:16"


def test_merged_entries_are_found_where_they_are_written(tmp_path):
    text = f"base: &base {{dt: -1}}\n{DATA}analyzer_parameters:\n  <<: *base\n"
    (known, merged) = messages(tmp_path, text)
    assert known[1].startswith("base is not a known key")
    assert merged[1].startswith("analyzer_parameters.dt is -1")
    assert {known[0], merged[0]} == {"1:1", "1:18"}


def test_long_values_are_cut(tmp_path):
    ((_, message),) = messages(tmp_path, f"{DATA}noise: {{effective_speckles: {'x' * 500}}}")
    assert len(message) < 200


def test_recursion_is_survived(tmp_path):
    found = messages(tmp_path, f"{DATA}noise: &a\n  b: *a\n")
    assert [position for position, _ in found] == ["3:3"]


def test_files_that_cannot_be_read(tmp_path):
    missing = tmp_path / "none.yaml"
    with pytest.raises(ConfigError, match=r"none.yaml: the run file cannot be read .No such file"):
        load_run_config(missing)
    broken = tmp_path / "latin.yaml"
    broken.write_bytes("a: ü".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin.yaml: byte 4 of the run file is not UTF-8"):
        load_run_config(broken)


def test_mappings_are_refused_without_a_position():
    with pytest.raises(ConfigError) as caught:
        check_run_config({"experimental_data": {"file_path": "a"}, "noise": {"speckles": 3}})
    assert str(caught.value).startswith("noise.speckles is not a known key")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["cmc", "dt", "seed", "reference", "D0_ref", "value", "keys", "q", "x"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
SECTIONS = ["experimental_data", "analyzer_parameters", "parameters", "optimization", "noise"]


@given(st.dictionaries(st.sampled_from([*SECTIONS, "output", "phi_filtering"]), VALUES))
def test_any_mapping_is_read_or_refused_in_words(config):
    lines = []
    try:
        check_run_config(config)
    except ConfigError as error:
        lines = str(error).split("\n")
    assert all(line.endswith(".") for line in lines)
