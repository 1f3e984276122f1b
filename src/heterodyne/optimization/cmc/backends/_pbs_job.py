"""What a job runs: ``python -m`` this module, with the folder, the digest and the shard."""

from __future__ import annotations

import logging
import pickle
import sys
from functools import partial
from pathlib import Path

from heterodyne.config.cmc import CMCConfig
from heterodyne.core._jax import jnp
from heterodyne.optimization.cmc.backends._draw import draw
from heterodyne.optimization.cmc.backends._pbs_folder import JobFolder


class _Remarks(logging.Handler):
    """Keeps what the sampler warns of, for the user who waits elsewhere."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def draw_shard(folder: JobFolder, digest: str, shard: int) -> None:
    """Draw a shard and write its result.

    Args:
        folder: Folder of the run.
        digest: SHA-256 of the task that was submitted.
        shard: Number of the shard.

    Raises:
        ConfigError: The folder is not private, a file is not what was submitted, or the
            model does not take what it is given.
        SamplingError: Sampling fails.
    """
    pickled, settings, search = folder.read_task(digest)
    sys.path += [entry for entry in search if entry not in sys.path]
    # From a private folder, and with the digest that came with the job script.
    model = pickle.loads(pickled)
    given = folder.read_input(shard)
    remarks = _Remarks()
    logging.getLogger("heterodyne").addHandler(remarks)
    try:
        draws = draw(
            partial(model, **given.arguments),
            CMCConfig.from_dict(settings),
            jnp.asarray(given.key),
            given.starts,
        )
    finally:
        logging.getLogger("heterodyne").removeHandler(remarks)
    folder.write_result(shard, draws, remarks.texts)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    draw_shard(JobFolder(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3]))
