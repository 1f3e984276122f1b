"""Writing two-time matrices in the layout of APS-U results."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from heterodyne._errors import DataError
from heterodyne._typing import ArrayLike, FloatArray, IntArray, PathArg
from heterodyne.core.rows import row_slices
from heterodyne.data._matrices import Completion, examine
from heterodyne.data.readers import apsu

SCHEMA_VERSION = "1.0"


@dataclass(frozen=True)
class _Map:
    """The map of q and phi.

    Attributes:
        q: Axis in 1/Å, shape (nq,).
        phi: Axis in degrees, shape (nphi,).
        cells: Grid cell of each label, counted from 0 row by row, shape (n_bins,).
        labels: Label of each matrix, counted from 1, shape (n,).
    """

    q: FloatArray
    phi: FloatArray
    cells: IntArray
    labels: IntArray


def write_layout_a(
    path: PathArg,
    c2: ArrayLike,
    *,
    q_axis: ArrayLike,
    phi_axis: ArrayLike,
    frame_time: float,
    cells: Sequence[int] | None = None,
    labels: Sequence[int] | None = None,
    stride_frame: int = 1,
    avg_frame: int = 1,
    begin_frame: int = 1,
    count_time: float | None = None,
    energy_kev: float | None = None,
    overwrite: bool = False,
) -> Path:
    """Write matrices as boost_corr does at APS-U.

    The file appears under its name only when it is complete. Matrices are stored in
    float32 as the upper triangle with the diagonal, so values change by up to 6e-8 of
    their size.

    Args:
        path: File to write.
        c2: Matrices, symmetric or upper triangle, shape (n, N, N).
        q_axis: Values of q of the map in 1/Å, shape (nq,).
        phi_axis: Values of phi of the map in degrees, shape (nphi,).
        frame_time: Time between detector frames in s.
        cells: Grid cell ``iq * nphi + iphi`` of each label, for maps with empty cells;
            all cells by default.
        labels: Label of each matrix, counted from 1; 1 to n by default.
        stride_frame: Distance of the detector frames that were used.
        avg_frame: Number of used detector frames averaged into one frame.
        begin_frame: First detector frame used, counted from 1.
        count_time: Exposure time in s; ``frame_time`` by default.
        energy_kev: Photon energy in keV.
        overwrite: Whether an existing file may be replaced.

    Returns:
        The path written.

    Raises:
        DataError: If shapes do not fit, matrices are asymmetric, or the file exists.
    """
    target = _checked_target(Path(path), overwrite)
    stack = np.asarray(c2)
    grid = _checked_map(stack.shape, q_axis, phi_axis, cells, labels)
    triangles = [_examined(matrix, label) for matrix, label in zip(stack, grid.labels, strict=True)]
    counts = {"stride_frame": stride_frame, "avg_frame": avg_frame, "begin_frame": begin_frame}
    _check_timing(counts, frame_time)
    counts["end_frame"] = begin_frame + stack.shape[1] * stride_frame * avg_frame - 1
    times = {"frame_time": frame_time, "count_time": count_time or frame_time}
    with _replacing(target) as file:
        _write_twotime(file, triangles, grid, counts)
        _write_map(file, grid)
        _write_entry(file, times, energy_kev)
    return target


@contextmanager
def _replacing(target: Path) -> Iterator[h5py.File]:
    """Open a new file beside the target that takes its name once it is complete."""
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with h5py.File(partial, "x") as file:
            yield file
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _checked_target(target: Path, overwrite: bool) -> Path:
    if not target.parent.is_dir():
        raise DataError("the folder does not exist", where=target.parent, remedy="Create it first")
    if target.exists() and not overwrite:
        raise DataError(
            "the file exists", where=target, remedy="Choose another name, or pass overwrite=True"
        )
    return target


def _check_timing(counts: dict[str, int], frame_time: float) -> None:
    for name, value in counts.items():
        if value < 1:
            raise DataError(f"{name} is {value}", where=name, allowed="whole numbers from 1")
    if not (np.isfinite(frame_time) and frame_time > 0):
        raise DataError(f"frame_time is {frame_time} s", where="frame_time", allowed="above 0 s")


def _checked_map(
    shape: tuple[int, ...],
    q_axis: ArrayLike,
    phi_axis: ArrayLike,
    cells: Sequence[int] | None,
    labels: Sequence[int] | None,
) -> _Map:
    if len(shape) != 3 or shape[1] != shape[2]:
        raise DataError(f"c2 has shape {shape}", where="c2", allowed="(n, N, N)")
    q, phi = (np.asarray(axis, dtype=np.float64).reshape(-1) for axis in (q_axis, phi_axis))
    size = len(q) * len(phi)
    grid_cells = np.arange(size) if cells is None else np.asarray(cells, dtype=np.int64)
    given = np.arange(1, shape[0] + 1) if labels is None else np.asarray(labels, dtype=np.int64)
    if len(given) != shape[0]:
        raise DataError(f"{len(given)} labels for c2 of shape {shape}", where="labels")
    if len(set(grid_cells.tolist())) != len(grid_cells) or _outside(grid_cells, 0, size - 1):
        raise DataError(
            f"the cells are {grid_cells.tolist()}",
            where="cells",
            allowed=f"0 to {size - 1}, each once",
        )
    if len(set(given.tolist())) != len(given) or _outside(given, 1, len(grid_cells)):
        raise DataError(
            f"the labels are {given.tolist()}",
            where="labels",
            allowed=f"1 to {len(grid_cells)}, each once",
        )
    return _Map(q, phi, grid_cells, given)


def _outside(values: IntArray, low: int, high: int) -> bool:
    return bool(np.any((values < low) | (values > high)))


def _examined(matrix: NDArray[np.generic], label: int) -> Completion:
    found = examine(matrix)
    if found is None:
        return Completion.of_upper(matrix)
    if found.asymmetry.significant:
        raise DataError(
            f"the halves of the matrix of label {label} differ by up to "
            f"{found.asymmetry.difference:.3g}",
            where="c2",
            allowed="symmetric matrices, or one half",
        )
    return found


def _write_twotime(
    file: h5py.File, triangles: Sequence[Completion], grid: _Map, counts: dict[str, int]
) -> None:
    maps = file.create_group(apsu.MAPS)
    for number, triangle in enumerate(triangles, start=1):
        size = len(triangle.stored)
        dataset = maps.create_dataset(
            f"c2_{number:05d}", (size, size), np.float32, compression="lzf"
        )
        # Rows of whole chunks, so that none is compressed twice.
        height, _ = dataset.chunks or (1, 1)
        for rows in row_slices(size, size, height):
            dataset[rows, rows.start :] = np.triu(triangle.rows(rows)).astype(np.float32)
    file.create_dataset(apsu.BINS, data=grid.labels, compression="lzf")
    for name, value in counts.items():
        file[f"{apsu.CONFIG}/{name}"] = value


def _write_map(file: h5py.File, grid: _Map) -> None:
    group = file.create_group(apsu.QMAP)
    group["dynamic_v_list_dim0"] = grid.q
    group["dynamic_v_list_dim1"] = grid.phi
    group["dynamic_num_pts"] = np.array([len(grid.q), len(grid.phi)])
    group["dynamic_index_mapping"] = grid.cells
    text = h5py.string_dtype()
    group.create_dataset("map_names", data=["q", "phi"], dtype=text)
    group.create_dataset("map_units", data=["1/angstrom", "degree"], dtype=text)


def _write_entry(file: h5py.File, times: dict[str, float], energy_kev: float | None) -> None:
    file[apsu.SCHEMA] = SCHEMA_VERSION
    file["/entry"].attrs["NX_class"] = "NXentry"
    for name, value in times.items():
        dataset = file.create_dataset(f"{apsu.DETECTOR}/{name}", data=value)
        dataset.attrs["units"] = "s"
    file["/entry/instrument"].attrs["NX_class"] = "NXinstrument"
    file[apsu.DETECTOR].attrs["NX_class"] = "NXdetector"
    if energy_kev is not None:
        dataset = file.create_dataset(apsu.ENERGY, data=energy_kev)
        dataset.attrs["units"] = "keV"
