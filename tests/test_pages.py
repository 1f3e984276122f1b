"""The first Python lines of the pages do what they say, up to the sampling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from heterodyne.core.simulate import creep_flow, simulate_pairs
from heterodyne.data.writers import write_layout_a
from heterodyne.optimization.measured import two_time_data

ROOT = Path(__file__).parents[1]
ANGLES = (0.0, 45.0)


def first_lines(page):
    block = (ROOT / page).read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    assert "\nresult = fit_cmc_multi_phi(model, data.c2_with_gaps, data.phi)\n" in block
    return block.split("\nresult =")[0]


@pytest.mark.parametrize(("page", "first"), [("README.md", 1), ("docs/guide.md", 11)])
def test_model_and_data_belong_together(tmp_path, monkeypatch, page, first):
    flow = creep_flow(220, ANGLES)
    c2 = simulate_pairs(flow, 0.3, 1.0, 0.01, 1)
    path = tmp_path / "two_time.h5"
    write_layout_a(path, c2, q_axis=[flow.q], phi_axis=ANGLES, frame_time=flow.dt)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(first_lines(page), names)
    data, model = names["data"], names["model"]
    assert model.t[0] == pytest.approx(first * flow.dt)
    taken = two_time_data(model, data.c2_with_gaps, data.phi)
    left_out = np.flatnonzero(~taken.frame_mask) + first
    assert left_out.tolist() == [17]
