import io
import subprocess
import sys
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from heterodyne.viz import style
from heterodyne.viz.fits import fit_maps
from heterodyne.viz.maps import two_time_maps


def figure():
    return two_time_maps(np.ones((1, 4, 4)), np.arange(1.0, 5.0), [0.0], title="A $ and $ B")


def test_png_has_the_pixels_of_its_size():
    drawn = figure()
    image = Image.open(io.BytesIO(style.png(drawn, 1.5)))
    assert image.size[0] == pytest.approx(96 * 1.5 * drawn.get_figwidth(), abs=1)


def test_png_keeps_the_colours_of_the_maps():
    drawn = two_time_maps(np.linspace(0, 1, 900).reshape(1, 30, 30), np.arange(1.0, 31.0), [0.0])
    shown = {colour for _, colour in pixels(style.png(drawn, 2.0))}
    ends = mpl.colormaps[style.MAP]([0.0, 0.5, 1.0])[:, :3] * 255
    distance = [min(np.abs(np.array(colour) - end).max() for colour in shown) for end in ends]
    assert max(distance) < 6
    # Neither the dark red nor the dark blue of the residuals is near any colour of this map.
    assert not [c for c in shown if c[0] > 80 and c[1] < 40 and c[2] < 60]


@pytest.mark.parametrize("dt", [0.6, 1.0])
def test_nothing_touches_the_edge_of_a_picture_of_maps(dt):
    ramp = np.linspace(0, 1, 900).reshape(1, 30, 30)
    c2, residual = 1 + 0.2 * ramp, 0.016 * (ramp - 0.5)
    drawn = fit_maps(c2, c2, residual, dt * np.arange(1.0, 31.0), [0.0])
    shown = np.asarray(Image.open(io.BytesIO(style.png(drawn, 1.0))).convert("L"))
    edges = (shown[0], shown[-1], shown[:, 0], shown[:, -1])
    assert min(edge.min() for edge in edges) > 240


def pixels(png):
    return Image.open(io.BytesIO(png)).convert("RGB").getcolors(1 << 24)


def test_svg_is_a_document_and_the_same_every_time():
    first, second = style.svg(figure()), style.svg(figure())
    assert ET.fromstring(first).tag.endswith("svg")
    assert first == second


def test_drawing_leaves_the_settings_of_matplotlib_alone():
    before = dict(mpl.rcParams)
    style.svg(figure())
    assert dict(mpl.rcParams) == before


def test_drawing_does_without_pyplot():
    code = "import sys, heterodyne.viz.{0}; print('matplotlib.pyplot' in sys.modules)"
    for module in ("maps", "fits", "posterior", "sampler"):
        done = subprocess.run(
            [sys.executable, "-c", code.format(module)],
            capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
        assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("unit", "label"),
    [
        ("", "x"),
        ("Å/s", "x (Å/s)"),
        ("Å/s^(1+beta)", r"x (Å/s$^{1+\beta}$)"),
        ("$", r"x (\$)"),
    ],
)
def test_units_in_labels(unit, label):
    assert style.with_unit("x", unit) == label
