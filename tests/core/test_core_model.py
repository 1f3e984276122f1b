"""The model of a run file: frames, time origin, start values, errors."""

from __future__ import annotations

import copy

import numpy as np
import numpy_model as oracle
import pytest

from heterodyne._errors import ConfigError
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core.heterodyne_model import HeterodyneModel

CONFIG = {
    "analyzer_parameters": {
        "dt": 0.25,
        "start_frame": 5,
        "end_frame": 20,
        "scattering": {"wavevector_q": 0.01},
    },
    "parameters": {
        "reference": {"D0_ref": {"value": 700.0}},
        "sample": {"D0_sample": {"value": 4e3}, "alpha_sample": {"value": -0.5}},
        "scaling": {"contrast": {"value": 0.2}},
    },
}


def changed(**values):
    config = copy.deepcopy(CONFIG)
    for key, value in values.items():
        section = config["analyzer_parameters"]
        section = section["scattering"] if key == "wavevector_q" else section
        if value is None:
            del section[key]
        else:
            section[key] = value
    return config


def test_frames_are_counted_from_one_and_both_ends_are_included():
    model = HeterodyneModel.from_config(CONFIG)
    np.testing.assert_allclose(model.t, 0.25 * np.arange(5, 21), rtol=1e-15)
    assert (model.q, model.dt) == (0.01, 0.25)


def test_absolute_is_the_default_time_origin():
    absolute = HeterodyneModel.from_config(changed(time_origin="absolute"))
    np.testing.assert_array_equal(absolute.t, HeterodyneModel.from_config(CONFIG).t)


def test_window_starts_at_one_frame_spacing():
    window = HeterodyneModel.from_config(changed(time_origin="window"))
    np.testing.assert_allclose(window.t, 0.25 * np.arange(1, 17), rtol=1e-15)


def test_first_frame_is_one_by_default():
    model = HeterodyneModel.from_config(changed(start_frame=None))
    np.testing.assert_allclose(model.t, 0.25 * np.arange(1, 21), rtol=1e-15)


def test_start_values_come_from_the_parameters():
    model = HeterodyneModel.from_config(CONFIG)
    values = dict(zip(PHYSICS_PARAM_NAMES, model.parameters, strict=True))
    assert values["D0_ref"] == 700
    assert values["alpha_sample"] == -0.5
    assert values["v0"] == 1e3
    assert (model.scaling.contrast, model.scaling.offset) == (0.2, 1.0)


def test_c2_is_that_of_the_start_values_unless_given():
    model = HeterodyneModel.from_config(CONFIG)
    grid = oracle.Grid(model.t, 0.01, 0.25, np.array([30.0]))
    g = oracle.correlation(model.parameters, grid)[0].astype(float)
    np.testing.assert_allclose(model.c2(30.0), 1 + 0.2 * g, rtol=1e-11)
    other = model.parameters * 1.1
    g = oracle.correlation(other, grid)[0].astype(float)
    np.testing.assert_allclose(model.c2(30.0, other, 0.4, 1.2), 1.2 + 0.4 * g, rtol=1e-11)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dt": None}, "analyzer_parameters: dt is None. Allowed: a number"),
        ({"dt": "0.1 s"}, "dt is '0.1 s'"),
        ({"dt": True}, "dt is True"),
        ({"dt": -0.5}, r"dt = -0.5 s. Allowed: > 0 s"),
        ({"dt": float("nan")}, "dt = nan s"),
        ({"wavevector_q": None}, "analyzer_parameters.scattering: wavevector_q is None"),
        ({"wavevector_q": 0}, r"q = 0.0 1/Å. Allowed: > 0 1/Å"),
        ({"end_frame": None}, "end_frame is None"),
        ({"end_frame": 5}, "frames 5 to 5. Allowed: whole numbers, 1 <= start_frame < end_frame"),
        ({"end_frame": 19.5}, "frames 5 to 19.5"),
        ({"start_frame": 0}, "frames 0 to 20"),
        ({"start_frame": 1.5}, "frames 1.5 to 20"),
        ({"time_origin": "first"}, "time_origin: time origin 'first'. Allowed: absolute, window"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(change, message):
    with pytest.raises(ConfigError, match=message):
        HeterodyneModel.from_config(changed(**change))


def test_sections_that_are_missing_are_reported():
    with pytest.raises(ConfigError, match="analyzer_parameters: dt is None"):
        HeterodyneModel.from_config({})


@pytest.mark.parametrize(
    ("t", "message"),
    [
        ([0.1, 0.2, 0.4], r"not spaced by dt = 0.1 s; they differ by 0.1 s.*mask bad frames"),
        ([0.1, 0.2, 0.3001], None),
        ([0.1], r"shape \(1,\)"),
        ([[0.1, 0.2]], r"shape \(1, 2\)"),
    ],
)
def test_times_must_be_an_even_grid(t, message):
    def build():
        return HeterodyneModel(np.array(t), 0.01, 0.1, ParameterSpace.from_config(None))

    if message is None:
        assert build().t.tolist() == t
    else:
        with pytest.raises(ConfigError, match=message):
            build()
