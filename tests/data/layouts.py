"""Files of every layout, built key by key as the programs that write them do."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np


@dataclass(frozen=True)
class Sample:
    """A measurement that can be written in every layout.

    Cells 0, 3 and 6 of the 3 x 4 map hold no pixels, so nine bins are left.
    """

    q_axis: np.ndarray = field(default_factory=lambda: np.array([0.004, 0.006, 0.009]))
    phi_axis: np.ndarray = field(default_factory=lambda: np.array([-150.0, -60.0, 30.0, 120.0]))
    cells: np.ndarray = field(default_factory=lambda: np.array([1, 2, 4, 5, 7, 8, 9, 10, 11]))
    N: int = 16
    dt: float = 0.25

    @property
    def n(self) -> int:
        return len(self.cells)

    @property
    def q(self) -> np.ndarray:
        return self.q_axis[self.cells // len(self.phi_axis)]

    @property
    def phi(self) -> np.ndarray:
        return self.phi_axis[self.cells % len(self.phi_axis)]

    @property
    def t(self) -> np.ndarray:
        return np.arange(1, self.N + 1) * self.dt

    @property
    def c2(self) -> np.ndarray:
        """Full matrices (n, N, N), exact in float32, with a raised diagonal."""
        rng = np.random.default_rng(7)
        lag = np.abs(self.t[:, None] - self.t[None, :])
        speed = 1.0 + self.q * 100 + np.cos(np.radians(self.phi))
        c2 = 1.0 + 0.3 * np.exp(-speed[:, None, None] * lag)
        noise = rng.normal(0.0, 0.01, c2.shape)
        c2 = c2 + noise + noise.transpose(0, 2, 1)
        c2 += np.eye(self.N) * rng.uniform(0.5, 0.7, (self.n, self.N, 1))
        return c2.astype(np.float32).astype(np.float64)


SAMPLE = Sample()


def many_bins() -> Sample:
    """Twelve bins, so that names sorted as text are out of order."""
    return replace(SAMPLE, cells=np.arange(12))


def write_aps_u(path: Path, s: Sample = SAMPLE, *, digits: int = 5, unit: str = "1/angstrom"):
    """boost_corr since 2024: float32 upper triangles with lzf, scalars as (1, 1)."""
    with h5py.File(path, "w") as f:
        for k, matrix in enumerate(s.c2, start=1):
            f.create_dataset(
                f"/xpcs/twotime/correlation_map/c2_{k:0{digits}d}",
                data=np.triu(matrix).astype(np.float32),
                compression="lzf",
            )
        f.create_dataset(
            "/xpcs/twotime/processed_bins", data=np.arange(1, s.n + 1), compression="lzf"
        )
        f["/xpcs/qmap/dynamic_v_list_dim0"] = s.q_axis * (10 if "nm" in unit.lower() else 1)
        f["/xpcs/qmap/dynamic_v_list_dim1"] = s.phi_axis
        f["/xpcs/qmap/map_names"] = np.array([b"q", b"phi"])
        f["/xpcs/qmap/map_units"] = np.array([unit.encode(), b"degree"])
        f["/xpcs/qmap/dynamic_num_pts"] = np.array([len(s.q_axis), len(s.phi_axis)])
        f["/xpcs/qmap/dynamic_index_mapping"] = s.cells
        for name, value in (("stride", 1), ("avg", 1), ("begin", 1), ("end", s.N)):
            f[f"/xpcs/twotime/config/{name}_frame"] = value
        f["/entry/instrument/detector_1/frame_time"] = np.array([[s.dt]])
        f["/entry/instrument/detector_1/count_time"] = np.array([[s.dt * 0.9]])
        f["/entry/schema_version"] = "1.1"
    return path


def write_data_exchange(path: Path, s: Sample = SAMPLE, *, digits: int = 5):
    """xpcs-eigen: the number in the name is the bin, lists and scalars have two dimensions."""
    with h5py.File(path, "w") as f:
        for k, matrix in enumerate(s.c2, start=1):
            f[f"/exchange/C2T_all/g2_{k:0{digits}d}"] = np.triu(matrix).astype(np.float32)
        f["/xpcs/dqlist"] = s.q[None, :]
        f["/xpcs/dphilist"] = s.phi[None, :]
        f["/xpcs/stride_frames"] = np.array([[1]])
        f["/xpcs/avg_frames"] = np.array([[1]])
        f["/measurement/instrument/detector/exposure_period"] = np.array([[s.dt]])
    return path


def write_chx(path: Path, s: Sample = SAMPLE, *, time_name: str = "frame_time"):
    """pyCHX: one full array with q last, dictionaries as attributes of dummy datasets."""
    with h5py.File(path, "w") as f:
        f.create_dataset("g12b", data=np.moveaxis(s.c2, 0, 2))
        regions = f.create_dataset("qval_dict", (1,), dtype="i")
        for k, (q, phi) in enumerate(zip(s.q, s.phi, strict=True)):
            regions.attrs[str(k)] = np.array([q, phi])
        meta = f.create_dataset("md", (1,), dtype="i")
        meta.attrs[time_name] = s.dt
        meta.attrs["sample"] = "silica"
    return path


def write_nexus(
    path: Path,
    s: Sample = SAMPLE,
    *,
    storage: str = "one_array_q_first",
    baseline: int = 1,
    origin: str = "upper_left",
    populated: str = "all",
    digits: int = 3,
):
    """NXxpcs with its four attributes in any combination."""
    keep = {"all": lambda m: m, "upper_half": np.triu, "lower_half": np.tril}[populated]
    stored = keep(s.c2 - (1 - baseline) * keep(np.ones_like(s.c2)))
    if origin == "lower_left":
        stored = stored[:, ::-1, :]
    with h5py.File(path, "w") as f:
        f.create_group("entry").attrs["NX_class"] = "NXentry"
        f["entry/definition"] = "NXxpcs"
        name = "entry/twotime/two_time_corr_func"
        if storage == "data_exchange_keys":
            holder = f.create_group(name)
            for k, matrix in enumerate(stored, start=1):
                holder[f"g2_{k:0{digits}d}"] = matrix
        else:
            last = storage == "one_array_q_last"
            holder = f.create_dataset(name, data=np.moveaxis(stored, 0, 2) if last else stored)
        holder.attrs["storage_mode"] = storage
        holder.attrs["baseline_reference"] = baseline
        holder.attrs["time_origin_location"] = origin
        holder.attrs["populated_elements"] = populated
        f["entry/instrument/masks/dynamic_q_list"] = s.q * 10
        f["entry/instrument/masks/dynamic_q_list"].attrs["units"] = "nm^-1"
        f["entry/instrument/masks/dynamic_phi_list"] = np.radians(s.phi)
        f["entry/instrument/masks/dynamic_phi_list"].attrs["units"] = "rad"
        f["entry/instrument/detector_1/frame_time"] = s.dt * 1e3
        f["entry/instrument/detector_1/frame_time"].attrs["units"] = "ms"
        f["entry/instrument/incident_beam/incident_energy"] = 10920.0
        f["entry/instrument/incident_beam/incident_energy"].attrs["units"] = "eV"
    return path


def write_cache(path: Path, s: Sample = SAMPLE, **changes):
    """The .npz caches other tools of this model write: meshgrids of time."""
    t1, t2 = np.meshgrid(s.t, s.t, indexing="ij")
    arrays = {
        "c2_exp": s.c2,
        "phi_angles_list": s.phi,
        "wavevector_q_list": s.q,
        "t1": t1,
        "t2": t2,
    } | changes
    with path.open("wb") as stream:
        np.savez_compressed(stream, **{k: v for k, v in arrays.items() if v is not None})
    return path


def write_npz(path: Path, s: Sample = SAMPLE, **changes):
    """An .npz file with short names."""
    arrays = {"c2": s.c2, "t": s.t, "phi": s.phi, "q": s.q} | changes
    with path.open("wb") as stream:
        np.savez(stream, **{k: v for k, v in arrays.items() if v is not None})
    return path


def write_generic(path: Path, s: Sample = SAMPLE, *, names: dict[str, str] | None = None):
    """HDF5 with names of one's own, the upper half only."""
    names = {"c2": "c2", "t": "t", "phi": "phi", "q": "q"} | (names or {})
    with h5py.File(path, "w") as f:
        f[names["c2"]] = np.triu(s.c2)
        f[names["t"]] = s.t * 1e6
        f[names["t"]].attrs["units"] = "us"
        f[names["phi"]] = s.phi
        f[names["q"]] = s.q
    return path


WRITERS = {
    "aps_u": write_aps_u,
    "data_exchange": write_data_exchange,
    "chx": write_chx,
    "nexus": write_nexus,
    "cache": write_cache,
    "npz": write_npz,
    "generic": write_generic,
}

LAYOUT_OF = {"cache": "plain", "npz": "plain", "generic": "plain"}
