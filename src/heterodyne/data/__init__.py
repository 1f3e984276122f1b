"""Two-time data: reading, selecting, judging and writing them."""

from heterodyne.data.arrays import file_from_arrays, from_arrays
from heterodyne.data.findings import Finding
from heterodyne.data.quality import assess
from heterodyne.data.readers import open_two_time
from heterodyne.data.select import TimeOrigin, select
from heterodyne.data.two_time import (
    Asymmetric,
    Bin,
    Layout,
    Provenance,
    TwoTimeData,
    TwoTimeFile,
)
from heterodyne.data.writers import write_layout_a

__all__ = [
    "open_two_time",
    "select",
    "assess",
    "from_arrays",
    "file_from_arrays",
    "write_layout_a",
    "TwoTimeData",
    "TwoTimeFile",
    "Bin",
    "Provenance",
    "Finding",
    "Layout",
    "Asymmetric",
    "TimeOrigin",
]
