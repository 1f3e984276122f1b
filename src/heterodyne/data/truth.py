"""The truth beside simulated data, in a group that readers of two-time data pass over."""

from __future__ import annotations

import os
from collections.abc import Mapping

import h5py
import numpy as np

from heterodyne._errors import DataError
from heterodyne._typing import PathArg

GROUP = "/simulation"
PARAMETERS = f"{GROUP}/parameters"


def add_truth(
    path: PathArg, parameters: Mapping[str, float], settings: Mapping[str, float | int | str]
) -> None:
    """Add to an HDF5 file what its data were simulated from.

    Args:
        path: The file.
        parameters: True values by name, in the units of the parameter table.
        settings: How the data were simulated.
    """
    with h5py.File(path, "r+") as file:
        for name, entries in ((GROUP, settings), (PARAMETERS, parameters)):
            attributes = file.require_group(name).attrs
            for key, value in entries.items():
                attributes[key] = value


def read_truth(path: PathArg) -> dict[str, float]:
    """Read the true parameters of simulated data.

    Raises:
        DataError: The file holds none.
    """
    where = os.fspath(path)
    try:
        with h5py.File(path, "r") as file:
            if PARAMETERS in file:
                return {str(k): float(np.asarray(v)) for k, v in file[PARAMETERS].attrs.items()}
    except OSError as error:
        raise DataError(f"the file cannot be read ({error})", where=where) from None
    raise DataError(
        f"there is no {PARAMETERS}, so no truth is known",
        where=where,
        remedy="Use a file of 'heterodyne simulate'",
    )
