"""Findings on data with known faults."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from heterodyne.data import assess, file_from_arrays, from_arrays, select
from heterodyne.data.quality import levels, outlier_frames


def simulated(N=80, *, contrast=0.4, offset=1.0, rate=1.0, noise=0.02, n=2, seed=3):
    """Exponential decay exp(-rate |t1 - t2|), dt = 0.1 s, symmetric noise, raised diagonal."""
    rng = np.random.default_rng(seed)
    t = np.arange(1, N + 1) * 0.1
    c2 = offset + contrast * np.exp(-rate * np.abs(t[:, None] - t))
    upper = np.triu(rng.normal(0, noise, (n, N, N)), 1)
    return c2 + upper + upper.transpose(0, 2, 1) + np.eye(N) * rng.uniform(0.4, 0.6, (n, N, 1))


def data_of(c2, **options):
    return from_arrays(c2, **{"q": 0.01, "phi": np.arange(len(c2)) * 30.0, "dt": 0.1} | options)


def codes(data):
    return {finding.code for finding in assess(data)} - {"dt_given", "diagonal_raw"}


def found(data, code):
    (finding,) = [f for f in assess(data) if f.code == code]
    assert finding.advice.endswith(".")
    return finding


@pytest.mark.parametrize("seed", range(5))
def test_good_data_are_not_blamed(seed):
    assert codes(data_of(simulated(120, rate=2.0, seed=seed))) == set()


@pytest.mark.parametrize("N", [60, 200])
@pytest.mark.parametrize("rate", [0.2, 1.0, 5.0])
def test_smooth_data_without_noise_have_no_outliers(N, rate):
    assert len(outlier_frames(data_of(simulated(N, noise=0.0, rate=rate)))) == 0


def test_levels_are_those_simulated():
    measured = levels(simulated(400, rate=2.0, n=1)[0], np.ones(400, bool))
    assert measured.far == pytest.approx(1.0, abs=4 * measured.far_error)
    assert measured.near == pytest.approx(1 + 0.4 * np.exp(-0.4), abs=0.03)


@pytest.mark.parametrize(
    ("offset", "code"), [(0.0, "baseline_low"), (0.9, "baseline_low"), (1.2, "baseline_high")]
)
def test_baseline(offset, code):
    data = data_of(simulated(offset=offset, rate=3.0))
    assert codes(data) == {code}
    text = found(data, code).text
    assert "bin 1" in text
    assert "0.5 to 1.5" in text


def test_slow_decay_is_not_called_a_fault():
    finding = found(data_of(simulated(rate=0.02)), "baseline_high")
    assert "slower than the window, which is no fault" in finding.advice
    assert "baseline_low" not in codes(data_of(simulated(rate=0.02)))


@pytest.mark.parametrize(
    ("contrast", "code"),
    [(1.8, "contrast_high"), (0.0, "contrast_low"), (-0.2, "contrast_low"), (1e-3, "contrast_low")],
)
def test_contrast(contrast, code):
    assert code in codes(data_of(simulated(contrast=contrast, rate=2.0)))


@pytest.mark.parametrize(("N", "severity"), [(9, "error"), (10, "warning"), (49, "warning")])
def test_few_frames(N, severity):
    assert found(data_of(simulated(N)), "few_frames").severity == severity


def test_excluded_frames_do_not_count():
    data = data_of(simulated(60), bad_frames=range(1, 12))
    assert "Only 49 frames" in found(data, "few_frames").text


@pytest.mark.parametrize("size", [0.15, 0.04])
@pytest.mark.parametrize("frames", [[30], [1, 80], [17, 18, 60]])
def test_outlier_frames_are_named_by_their_number_in_the_file(frames, size):
    c2 = simulated()
    for frame in frames:
        c2[1, frame - 1, :] *= 1 + size
        c2[1, :, frame - 1] *= 1 + size
    file = file_from_arrays(c2, q=0.01, phi=[0, 30], dt=0.1)
    data = select(file)
    assert outlier_frames(data).tolist() == frames
    assert f"bad_frames: {frames}" in found(data, "outlier_frames").advice
    assert outlier_frames(select(file, bad_frames=frames)).size == 0
    late = select(file, frames=(10, 80))
    assert outlier_frames(late).tolist() == [f for f in frames if f >= 10]


def test_diagonal():
    assert found(data_of(simulated()), "diagonal_raw").severity == "info"
    c2 = simulated()
    c2[:, range(80), range(80)] = 1.0
    assert found(data_of(c2), "diagonal_replaced").severity == "info"


def test_time_axis_with_a_gap():
    t = np.arange(1, 81) * 0.1
    t[40:] += 0.3
    finding = found(data_of(simulated(), t=t, dt=None), "nonuniform_times")
    assert finding.severity == "error"
    assert "frames 40 and 41 are 0.4 s apart" in finding.text


def test_rounded_time_axis_is_uniform():
    t = (np.arange(1, 81) * 0.1 + 5000).astype(np.float32)
    assert codes(data_of(simulated(), t=t, dt=None)) == set()


def test_dt_that_contradicts_the_times():
    data = replace(data_of(simulated()), dt=0.2)
    finding = found(data, "dt_contradicts_times")
    assert finding.severity == "error"
    assert "0.2 s" in finding.text
    assert "0.1 s" in finding.text


def test_dt_by_hand_is_mentioned():
    assert "0.1 s" in found(data_of(simulated()), "dt_given").text
    with_times = data_of(simulated(), t=np.arange(1, 81) * 0.1, dt=None)
    assert "dt_given" not in {f.code for f in assess(with_times)}


def test_angles_that_repeat_modulo_a_turn_or_are_missing():
    finding = found(data_of(simulated(n=3), phi=[10, 370, 20]), "angle_repeated")
    assert "10° comes 2 times: bin 1" in finding.text
    assert "bin 3" not in finding.text
    assert found(data_of(simulated(), phi=None), "angle_missing").severity == "error"


def test_findings_of_reading_come_first_and_nothing_twice():
    c2 = simulated()
    c2[0, 2, 30] += 0.2
    data = data_of(c2, asymmetric="average")
    once = assess(data)
    assert once[0].code == "asymmetry_averaged"
    assert assess(replace(data, findings=once)) == once
