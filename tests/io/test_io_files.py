import json
import math
from enum import Enum
from pathlib import Path

import numpy as np
import pytest

from heterodyne._errors import ConfigError, DataError
from heterodyne.io import files


class Word(Enum):
    YES = "yes"


def write_half(target, failure):
    with files.replacing(target) as partial:
        partial.write_text("half")
        raise failure


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_written_file_holds_its_content_and_nothing_is_left_beside(tmp_path):
    path = files.write_text(tmp_path / "a.txt", "Å\r\n")
    assert path.read_bytes() == b"\xc3\x85\r\n"
    assert names(tmp_path) == ["a.txt"]


def test_a_file_is_replaced_as_a_whole(tmp_path):
    files.write_bytes(tmp_path / "a", b"long content")
    files.write_bytes(tmp_path / "a", b"b")
    assert (tmp_path / "a").read_bytes() == b"b"


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    target = files.write_text(tmp_path / "a.txt", "old")
    with pytest.raises(failure):
        write_half(target, failure)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere.a\.txt: the file cannot be written \(No such"):
        files.write_text(tmp_path / "nowhere" / "a.txt", "")
    assert names(tmp_path) == []


def test_numbers_that_are_not_finite_become_null(tmp_path):
    value = {
        "a": [1.5, math.nan, -math.inf],
        "b": np.array([[1.0, np.nan], [np.inf, 2.0]]),
        "c": np.float64("nan"),
        "d": (np.int64(3), np.bool_(True), True, None, "Å"),
        "path": Path("x") / "y",
        "word": Word.YES,
    }
    text = files.write_json(tmp_path / "a.json", value).read_text(encoding="utf-8")
    plain = json.loads(text, parse_constant=pytest.fail)
    assert plain == {
        "a": [1.5, None, None],
        "b": [[1.0, None], [None, 2.0]],
        "c": None,
        "d": [3, True, True, None, "Å"],
        "path": str(Path("x") / "y"),
        "word": "yes",
    }
    assert files.read_json(tmp_path / "a.json") == plain


def test_floats_survive_json_exactly(tmp_path):
    values = np.random.default_rng(0).normal(size=50) * 10.0 ** np.arange(-25, 25)
    files.write_json(tmp_path / "a.json", values)
    assert np.array_equal(files.read_json(tmp_path / "a.json"), values)


def test_arrays_come_back(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.array([1, 2], np.int32)}
    stored = files.read_npz(files.write_npz(tmp_path / "a.npz", arrays))
    assert set(stored) == {"a", "b"}
    assert stored["b"].dtype == np.int32
    assert np.array_equal(stored["a"], arrays["a"])
    assert names(tmp_path) == ["a.npz"]


def test_json_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"b\.json: the file cannot be read"):
        files.read_json(tmp_path / "b.json")
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(ConfigError, match=r"b\.json: not valid JSON"):
        files.read_json(tmp_path / "b.json")


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 damaged"])
def test_arrays_that_cannot_be_read_are_named(tmp_path, content):
    if content is not None:
        (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.npz: the arrays cannot be read"):
        files.read_npz(tmp_path / "a.npz")


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ConfigError, match="cannot be read"):
        files.read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("value", "kind"),
    [(None, "NoneType"), ([1.0, None], "NoneType, float"), (np.array([{}], object), "dict")],
)
def test_nothing_is_written_that_only_a_pickle_could_hold(tmp_path, value, kind):
    with pytest.raises(DataError, match=rf"a\.npz: b holds Python objects \({kind}\)"):
        files.write_npz(tmp_path / "a.npz", {"a": np.ones(2), "b": value})
    assert names(tmp_path) == []
