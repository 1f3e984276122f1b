import numpy as np
import pytest

from heterodyne._errors import ConfigError, DataError
from heterodyne.config.load import check_run_config, load_run_config
from heterodyne.data import open_two_time, write_layout_a
from heterodyne.data.batch import RESERVED, distinct_q, find_members, is_batch, natural
from heterodyne.data.run_data import open_run_file, read_run_data
from heterodyne.io._work_files import check_names
from heterodyne.io.run_folder import config_sha256
from heterodyne.io.work_folder import WORK, Task

N = 20


def write(path, *wavevectors, phi=(0.0, 45.0)):
    """A file with a decaying correlation of each angle at each q."""
    lag = np.abs(np.subtract.outer(np.arange(N), np.arange(N)))
    c2 = np.broadcast_to(1.0 + 0.3 * np.exp(-lag / 6.0), (len(wavevectors) * len(phi), N, N))
    path.parent.mkdir(exist_ok=True, parents=True)
    return write_layout_a(path, c2, q_axis=wavevectors, phi_axis=phi, frame_time=0.5)


def config(path, q=None, **scattering):
    path = [str(one) for one in path] if isinstance(path, list) else str(path)
    return check_run_config(
        {
            "experimental_data": {"file_path": path},
            "analyzer_parameters": {"scattering": {"wavevector_q": q, **scattering}},
            "output": {"directory": "results"},
        }
    )


def names(*args, **more):
    return [one.name for one in find_members(config(*args, **more))]


@pytest.mark.parametrize(
    ("path", "q", "expected"),
    [
        ("a.h5", None, False),
        ("a.h5", 0.0054, False),
        ("a.h5", "all", True),
        ("a.h5", [0.0054], True),
        (["a.h5"], 0.0054, True),
        ("scan_*.h5", 0.0054, True),
    ],
)
def test_lists_patterns_and_all_make_a_batch(path, q, expected):
    assert is_batch(config(path, q)) is expected


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path):
    path = write(tmp_path / "scan[1].h5", 0.01)
    assert not is_batch(config(path))
    assert read_run_data(config(path, 0.01)).q == 0.01
    write(tmp_path / "scan1.h5", 0.02)
    assert [one.q for one in map(q_of, find_members(config([path], "all")))] == [0.01]


def q_of(member):
    return open_run_file(member.config).bins[0]


def test_all_lists_every_q_of_a_file_by_number(tmp_path):
    path = write(tmp_path / "many.h5", 0.0054, 0.01, 0.0035, 0.1, 0.02)
    found = find_members(config(path, "all"))
    assert [one.name for one in found] == ["q0.0035", "q0.0054", "q0.01", "q0.02", "q0.1"]
    for one in found:
        data = read_run_data(one.config, strict=False)
        assert one.name == f"q{data.q:g}"
        assert data.n_angles == 2
        assert one.config.output.directory == f"results/{one.name}"
        assert not is_batch(one.config)


def test_a_member_has_the_settings_of_a_run_of_its_own(tmp_path):
    path = write(tmp_path / "many.h5", 0.0035, 0.0054)
    member = find_members(config(path, "all"))[1].config
    alone = config(path, 0.0054)
    digests = {config_sha256(one.model_dump(mode="json")) for one in (member, alone)}
    assert len(digests) == 1
    assert check_run_config(member.model_dump(mode="json")) == member


def test_a_list_of_q_is_sorted_and_takes_the_nearest(tmp_path):
    path = write(tmp_path / "many.h5", 0.0035, 0.0054, 0.01)
    found = find_members(config(path, [0.01, 0.00541]))
    assert [one.name for one in found] == ["q0.00541", "q0.01"]
    assert read_run_data(found[0].config, strict=False).q == 0.0054


def test_files_of_a_pattern_follow_their_numbers_and_those_of_a_list_the_list(tmp_path):
    for number in (10, 2, 1):
        write(tmp_path / f"scan_{number}.h5", 0.004, 0.008)
    assert names(tmp_path / "scan_*.h5", 0.004) == ["scan_1", "scan_2", "scan_10"]
    listed = [tmp_path / "scan_10.h5", tmp_path / "scan_[12].h5"]
    assert names(listed, "all") == [
        f"{scan}_q{q}" for scan in ("scan_10", "scan_1", "scan_2") for q in (0.004, 0.008)
    ]


def test_natural_order_takes_numbers_as_numbers():
    listed = ["b2", "a10", "a9b3", "a9b12", "2", "10", "a"]
    assert sorted(listed, key=natural) == ["2", "10", "a", "a9b3", "a9b12", "a10", "b2"]


def test_names_are_safe_and_used_once(tmp_path):
    paths = [
        tmp_path / "one" / "scan.h5",
        tmp_path / "two" / "scan.h5",
        tmp_path / "two" / "scan.hdf",
        tmp_path / "Probe № 7 (μm).h5",
        tmp_path / "work.h5",
        tmp_path / "SCAN2.h5",
        tmp_path / "scan2.hdf",
        tmp_path / ("x" * 200 + "17.h5"),
    ]
    for path in paths:
        write(path, 0.01)
    found = names(paths)
    check_names([Task(name) for name in found])
    assert found[:5] == ["one_scan", "two_scan", "two_scan-2", "Probe_7_m", "work-2"]
    assert len({name.casefold() for name in found}) == len(paths)
    assert found[-1].endswith("x17")
    assert RESERVED == (WORK,)


def test_all_missing_files_are_named_at_once(tmp_path):
    there = write(tmp_path / "there.h5", 0.01)
    listed = [tmp_path / "gone.h5", there, tmp_path / "lost.h5", tmp_path / "no_*.h5"]
    with pytest.raises(DataError, match="3 files do not exist") as caught:
        find_members(config(listed))
    for path in (listed[0], listed[2], listed[3]):
        assert str(path) in str(caught.value)
    assert str(there) not in str(caught.value)


def test_a_q_that_no_file_has_is_refused_with_those_there_are(tmp_path):
    listed = [write(tmp_path / "a.h5", 0.004), write(tmp_path / "b.h5", 0.008)]
    with pytest.raises(DataError, match=r"no file has q = 0\.006, 0\.02 1/Å") as caught:
        find_members(config(listed, [0.004, 0.006, 0.02]))
    assert "q = 0.004, 0.008 1/Å" in str(caught.value)


def test_a_q_that_only_some_files_have_is_a_member_of_each(tmp_path):
    listed = [write(tmp_path / "a.h5", 0.004), write(tmp_path / "b.h5", 0.004, 0.008)]
    found = {one.name: one.config for one in find_members(config(listed, [0.004, 0.008]))}
    assert list(found) == ["a_q0.004", "a_q0.008", "b_q0.004", "b_q0.008"]
    with pytest.raises(DataError, match=r"the q nearest to 0\.008"):
        read_run_data(found["a_q0.008"])


def test_two_q_that_take_the_same_bins_are_refused(tmp_path):
    path = write(tmp_path / "a.h5", 0.004, 0.008)
    with pytest.raises(ConfigError, match=r"0\.004 and 0\.00402 1/Å both take q = 0\.004"):
        find_members(config(path, [0.004, 0.00402]))


def test_a_file_named_twice_is_refused(tmp_path):
    path = write(tmp_path / "a.h5", 0.004)
    with pytest.raises(ConfigError, match="named more than once"):
        find_members(config([path, tmp_path / "*.h5"]))


@pytest.mark.parametrize("q", ["all", [0.004, 0.008]])
def test_a_damaged_file_does_not_hold_up_the_others(tmp_path, q):
    listed = [write(tmp_path / "a.h5", 0.004, 0.008), tmp_path / "b.h5"]
    listed[1].write_text("no data")
    found = {one.name: one.config for one in find_members(config(listed, q))}
    assert list(found)[:2] == ["a_q0.004", "a_q0.008"]
    damaged = [one for name, one in found.items() if name.startswith("b")]
    assert damaged
    with pytest.raises(DataError, match="neither HDF5"):
        read_run_data(damaged[0])
    with pytest.raises(DataError, match="neither HDF5"):
        find_members(config(listed[1], q))


def test_bins_that_are_taken_together_count_as_one_q(tmp_path):
    rings = (0.004, 0.0041, 0.008)
    c2 = np.broadcast_to(1.0 + np.eye(N), (6, N, N))
    near = sorted(q * (1 + shift) for q in rings for shift in (-2e-4, 2e-4))
    path = write_layout_a(tmp_path / "a.h5", c2, q_axis=near, phi_axis=[0.0], frame_time=1.0)
    assert distinct_q(open_two_time(path)) == pytest.approx(rings, rel=3e-4)
    found = find_members(config(path, "all"))
    taken = [read_run_data(one.config, strict=False).bins for one in found]
    assert [[one.label for one in bins] for bins in taken] == [[1, 2], [3, 4], [5, 6]]


def test_a_batch_is_not_read_as_a_run(tmp_path):
    path = write(tmp_path / "a.h5", 0.004)
    for several in (config([path]), config(path, "all"), config(path, [0.004])):
        with pytest.raises(ConfigError, match="a batch, not a run"):
            read_run_data(several)


def test_paths_of_a_list_start_at_the_run_file(tmp_path, monkeypatch):
    folder = tmp_path / "runs"
    write(folder / "scan_2.h5", 0.01)
    write(folder / "scan_10.h5", 0.01)
    run = folder / "run.yaml"
    run.write_text("experimental_data: {file_path: [scan_*.h5]}")
    monkeypatch.chdir(tmp_path)
    found = find_members(load_run_config(run))
    paths = [one.config.experimental_data.file_path for one in found]
    assert paths == [str(folder / "scan_2.h5"), str(folder / "scan_10.h5")]
    write(tmp_path / "here.h5", 0.01)
    here = find_members(load_run_config(run, ["experimental_data.file_path=[here.h5]"]))
    assert [one.name for one in here] == ["here"]


@pytest.mark.parametrize(
    ("path", "q", "said"),
    [
        ("[]", "0.01", "experimental_data.file_path: the list is empty"),
        ("[a.h5, ./a.h5]", "0.01", "a.h5 occurs more than once"),
        ("a.h5", "[]", "wavevector_q: the list is empty"),
        ("a.h5", "[0.01, 0.02, 0.01]", "wavevector_q: 0.01 occurs more than once"),
        ("a.h5", "[0.01, -1]", "wavevector_q[1] is -1; allowed: a number above 0"),
        ("a.h5", "al", "did you mean 'all'?"),
    ],
)
def test_lists_are_checked_with_the_run_file(tmp_path, path, q, said):
    run = tmp_path / "run.yaml"
    run.write_text(
        f"experimental_data: {{file_path: {path}}}\n"
        f"analyzer_parameters: {{scattering: {{wavevector_q: {q}}}}}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_run_config(run)
    assert said in str(caught.value)
    assert f"{run}:" in str(caught.value)
