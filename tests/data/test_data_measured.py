"""A measured two-time matrix from NSLS-II CHX, as far as it is at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from heterodyne.data import assess, from_arrays, open_two_time, select

BLOCKS = Path(__file__).parents[2].parent / "shared" / "data" / "chx_twotime_blocks.npz"
pytestmark = pytest.mark.skipif(not BLOCKS.exists(), reason="the measured data are not at hand")


def test_blocks_are_read_by_naming_what_the_file_does_not_say():
    name = "m55yp9kzm2_3"
    keys = {"c2": name, "q": 0.01, "phi": np.arange(18.0)}
    data = select(open_two_time(BLOCKS, dt=1.0, keys=keys), frames=(11, 50))
    with np.load(BLOCKS) as archive:
        stored = archive[name][:, 10:, 10:]
    np.testing.assert_array_equal(data.c2, stored)
    assert data.t.tolist() == list(range(11, 51))
    assert data.unique_pairs == 40 * 39 // 2


def test_findings_tell_what_the_authors_did():
    with np.load(BLOCKS) as archive:
        blocks = {name: archive[name] for name in archive.files}
    seen = {
        name: {f.code for f in assess(from_arrays(c2, q=0.01, phi=np.arange(18.0), dt=1.0))}
        for name, c2 in blocks.items()
    }
    assert all("diagonal_raw" not in codes for codes in seen.values())
    assert all("dt_given" in codes for codes in seen.values())
    assert "baseline_high" in seen["m55yp9kzm2_0"]
