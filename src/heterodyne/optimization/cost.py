"""How much memory and time a run takes, before it starts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rates:
    """Measured costs on two cores.

    Attributes:
        compile_s: Compilation of fit and sampler, in s.
        search_s: Search of the fit whatever the data, in s.
        search_s_per_pair: Search of the fit for each pair of averaged frames, in s.
        polish_s_per_pair: Optimisation of what the search found, for each pair, in s.
        point_s: One weighted point whatever the data, in s.
        point_s_per_pair: One weighted point for each pair, in s.
        points: Weighted points after which a pass mostly ends.
        gradient_s: One gradient of the posterior whatever the data, in s.
        gradient_s_per_pair: One gradient of the posterior for each pair, in s.
        gradients_per_draw: Gradients that one draw of NUTS takes.
        draws: Draws of a chain, adaptation included, after which a pass mostly ends.
        passes: Passes over the data: plain, and corrected for speckle noise.
    """

    compile_s: float = 12.0
    search_s: float = 3.0
    search_s_per_pair: float = 3e-5
    polish_s_per_pair: float = 3e-6
    point_s: float = 5e-5
    point_s_per_pair: float = 2.6e-10
    points: int = 12_288
    gradient_s: float = 4e-4
    gradient_s_per_pair: float = 3e-9
    gradients_per_draw: float = 13.0
    draws: int = 900
    passes: int = 2


RATES = Rates()

_BYTES = 8
_READER_COPIES = 1
# Frames to which the search averages more.
_SEARCHED_FRAMES = 256
# Of a process that has compiled fit and sampler; measured by benchmarks/memory.py.
_BASE_BYTES = 1050 * 2**20
# Frames up to which the noise of the score is that of products of matrices; _score_noise has it.
_EXACT_FRAMES = 2000
# Matrices meanwhile: each product twice, as they are stacked, and those that products are of.
_STACKED, _FACTORS = 2, 4
# Physics parameters where their number does not matter to the caller.
_MOST_PARAMETERS = 14


@dataclass(frozen=True)
class Cost:
    """Prediction for one run.

    Attributes:
        n_pairs: Unique pairs of all angles.
        memory_bytes: Peak memory of the process, where errors are those of speckles.
        fit_s: Time of the least-squares fit, compilation included.
        sampling_s: Time of the draws.
    """

    n_pairs: int
    memory_bytes: float
    fit_s: float
    sampling_s: float


def predict(
    n_frames: int,
    n_angles: int,
    n_parameters: int,
    n_chains: int = 0,
    max_draws: int = 0,
    *,
    weighted: bool = False,
    nuts: bool = False,
    rates: Rates = RATES,
) -> Cost:
    """Predict memory and time.

    Args:
        n_frames: Number of frames of the window, N.
        n_angles: Number of matrices.
        n_parameters: Number of varying physics parameters; the search takes longer the
            more there are. 0 leaves out the search, and counts all of them for memory.
        n_chains: Number of chains; 0 for a fit alone.
        max_draws: Largest number of draws of a chain, warm-up included.
        weighted: Whether every pair has a weight of its own.
        nuts: Whether NUTS draws, rather than importance sampling.
        rates: Costs of the machine.
    """
    pairs = n_angles * n_frames * (n_frames - 1) // 2
    blocks = n_angles * n_frames**2 / 2 * _BYTES * (2 if weighted else 1)
    reading = n_angles * n_frames**2 * _BYTES * _READER_COPIES
    share = n_parameters / 14
    searched = n_angles * min(n_frames, _SEARCHED_FRAMES) ** 2 // 2
    search = share * (rates.search_s + rates.search_s_per_pair * searched)
    polish = rates.polish_s_per_pair * pairs if n_frames > _SEARCHED_FRAMES else 0.0
    if nuts:
        work = n_chains * min(max_draws, rates.draws) * rates.gradients_per_draw
        step = rates.gradient_s + rates.gradient_s_per_pair * pairs
    else:
        work = rates.points if n_chains else 0
        step = rates.point_s + rates.point_s_per_pair * pairs
    return Cost(
        n_pairs=pairs,
        memory_bytes=_BASE_BYTES + blocks + reading + _score_bytes(n_frames, n_parameters),
        fit_s=rates.compile_s + search + polish,
        sampling_s=rates.passes * work * step,
    )


def _score_bytes(n_frames: int, n_parameters: int) -> float:
    """Memory of the matrices that tell the noise of the score, of one angle after the other."""
    if n_frames > _EXACT_FRAMES:
        return 0.0
    # A product for each parameter, contrast and offset.
    products = (n_parameters or _MOST_PARAMETERS) + 2
    return float(n_frames**2 * _BYTES * (_STACKED * products + _FACTORS))


def duration(seconds: float) -> str:
    """Write a time to a precision that people use."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def memory(size: float) -> str:
    """Write a number of bytes."""
    return f"{size / 2**20:.0f} MiB" if size < 2**30 else f"{size / 2**30:.1f} GiB"
