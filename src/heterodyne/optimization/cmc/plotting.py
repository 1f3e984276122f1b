"""Pictures of draws and of their convergence, from ArviZ groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import xarray

from heterodyne._errors import ConfigError
from heterodyne._log import get_logger
from heterodyne._typing import ArrayLike, FloatArray, PathArg
from heterodyne.io import files
from heterodyne.optimization.cmc._diagnostics import THRESHOLDS, bfmi
from heterodyne.optimization.cmc._figures import Size, finished, save
from heterodyne.optimization.cmc._groups import (
    bfmi_of,
    chains_of,
    corrected_draws,
    diverging,
    energies,
    predicted,
    tree,
    unconverged,
)
from heterodyne.optimization.cmc._summary import mixing, narrowest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = [
    "DEFAULT_DPI",
    "DEFAULT_FIGSIZE",
    "generate_diagnostic_plots",
    "plot_autocorr",
    "plot_diagnostics_summary",
    "plot_energy",
    "plot_ess",
    "plot_forest",
    "plot_pair_plot",
    "plot_posterior_predictive",
    "plot_rank",
    "plot_trace_summary",
]

DEFAULT_FIGSIZE: Final[Size | None] = None
"""None: as large as the number of quantities needs."""

DEFAULT_DPI: Final = 150
"""Pixels per inch of saved pictures."""

_LOG = get_logger(__name__)
_HDI = 0.94
_GROWTH_POINTS = 20
_FEWEST_DRAWS = 4
# What a broken plot may raise without stopping the others; the package's errors are among them.
_BROKEN = (ArithmeticError, OSError, RuntimeError, ValueError)


def plot_trace_summary(
    idata: xarray.DataTree,
    var_names: str | Sequence[str] | None = None,
    figsize: Size | None = None,
) -> Figure:
    """Draw the marginal density and the trace of each quantity, one colour per chain.

    Args:
        idata: ArviZ groups with ``posterior``, such as ``CMCResult.inference_data``.
        var_names: Quantities to draw; all if None.
        figsize: Width and height in inches; as the number of quantities needs if None.

    Raises:
        DataError: There are no such draws.
        ConfigError: That is no size.
    """
    from heterodyne.viz import chains

    found = chains_of(idata, var_names)
    figure = chains.trace_densities(found.draws, found.units, found.bounds)
    return finished(figure, figsize, found.note, found.warning)


def plot_pair_plot(
    idata: xarray.DataTree,
    var_names: str | Sequence[str] | None = None,
    divergences: bool = True,
) -> Figure:
    """Draw the quantities against each other, with the correlation of each pair.

    Of more than 24, the first are drawn, and the picture says so.

    Args:
        idata: ArviZ groups with ``posterior``.
        var_names: Quantities to draw; all if None.
        divergences: Whether to mark divergent draws, which ``sample_stats`` knows.

    Raises:
        DataError: There are no such draws, or the divergences are those of others.
    """
    from heterodyne.viz import pairs

    found = chains_of(idata, var_names)
    marked = diverging(idata, found.shape) if divergences else None
    shown = dict(list(found.draws.items())[: pairs.MOST_QUANTITIES])
    figure = pairs.pairs(shown, units=found.units, divergent=marked, bounds=found.bounds)
    notes = [found.note]
    if len(shown) < len(found.draws):
        notes.append(
            f"These are the first {len(shown)} of {len(found.draws)} quantities; var_names "
            "chooses others."
        )
    if divergences and marked is None:
        notes.append("Which draws diverged is not known.")
    elif marked is not None and not marked.any():
        notes.append("No draw diverged.")
    return finished(figure, None, " ".join(filter(None, notes)), found.warning)


def plot_posterior_predictive(
    idata: xarray.DataTree,
    c2_data: ArrayLike,
    times: ArrayLike,
    ax: Axes | None = None,
) -> Figure | SubFigure:
    """Draw measured c2 over the range of the predicted one.

    Matrices are drawn as means over all pairs of equal lag, measured and predicted alike.
    The range holds the central 90 % of the draws of ``c2_pred`` in the group
    ``posterior_predictive``; without it, the picture says that there is none.

    Args:
        idata: ArviZ groups; ``c2_pred`` has the dimensions chain and draw, then those of
            ``c2_data``.
        c2_data: Values at the times, shape (N,); a matrix (N, N); or one per angle
            (n, N, N). Values that are not finite are left out.
        times: Times in s, shape (N,), equally spaced for matrices.
        ax: Where to draw values or one matrix; a new figure if None.

    Returns:
        The figure, that of ``ax`` if it is given.

    Raises:
        DataError: Shapes that do not fit.
        ConfigError: Several angles for one panel.
    """
    from heterodyne.viz import fits, style

    found = predicted(idata, np.asarray(c2_data, float), np.asarray(times, float))
    n = len(found.measured)
    if ax is not None and n > 1:
        raise ConfigError(
            f"{n} angles for one panel", where="ax", remedy="Give one angle, or no ax"
        )
    figure, panels = (None, [ax]) if ax is not None else style.small_panels(n, 2.7, columns=3)
    for k, panel in enumerate(panels):
        fits.draw_predicted(
            panel,
            found.x,
            found.measured[k],
            None if found.ends is None else (found.ends[0, k], found.ends[1, k]),
            by_lag=found.by_lag,
            title=f"Angle {k + 1} of {n}" if n > 1 else "",
        )
    if figure is None:
        return panels[0].figure
    return finished(figure, None, warning=unconverged(idata, {}))


def plot_diagnostics_summary(idata: xarray.DataTree) -> Figure:
    """Draw R-hat and effective draws of every quantity, and BFMI of every chain.

    The dashed lines are the limits of the verdict. What is not known is named so.

    Args:
        idata: ArviZ groups with ``posterior``; ``sample_stats`` may hold ``bfmi`` or
            ``energy``.

    Raises:
        DataError: There are no draws.
    """
    from heterodyne.viz import sampler

    found = chains_of(idata, None)
    measured = mixing(found.draws)
    rows = [
        {"name": name, **{what: float(values[k]) for what, values in measured.items()}}
        for k, name in enumerate(found.draws)
    ]
    limits = THRESHOLDS
    figure = sampler.diagnostics(rows, bfmi_of(idata), limits.r_hat, limits.ess, limits.bfmi)
    return finished(figure, None, found.note, found.warning)


def plot_forest(
    idata: xarray.DataTree,
    output_dir: PathArg,
    var_names: str | Sequence[str] | None = None,
    figsize: Size | None = DEFAULT_FIGSIZE,
    dpi: int = DEFAULT_DPI,
) -> Path:
    """Save medians and narrowest 94 % intervals as ``forest_plot.png``.

    Quantities of one kind, such as the contrasts of the angles, share a panel. Where the
    groups hold ``corrected`` draws, their intervals stand behind.

    Args:
        idata: ArviZ groups with ``posterior``.
        output_dir: Folder, made if it is missing.
        var_names: Quantities to draw; all if None.
        figsize: Width and height in inches; as the number of quantities needs if None.
        dpi: Pixels per inch.

    Returns:
        The file.

    Raises:
        DataError: There are no such draws.
        ConfigError: No size, no number of pixels, or a place that cannot be written.
    """
    from heterodyne.viz import posterior

    found = chains_of(idata, var_names)
    corrected = corrected_draws(idata)
    rows = [
        {
            "name": name,
            "unit": found.units[name],
            "median": float(np.median(x)),
            **_ends(x),
            "corrected": _ends(corrected[name]) if name in corrected else None,
        }
        for name, x in found.draws.items()
    ]
    kind = "plain, " if corrected else ""
    figure = posterior.forest(rows, words=f"{kind}median and narrowest {100 * _HDI:.0f} %")
    return save(finished(figure, figsize, found.absent, found.warning), output_dir, "forest", dpi)


def _ends(x: FloatArray) -> dict[str, float]:
    return dict(zip(("low", "high"), narrowest(x, _HDI), strict=True))


def plot_energy(
    idata: xarray.DataTree,
    output_dir: PathArg,
    figsize: Size | None = (10, 6),
    dpi: int = DEFAULT_DPI,
) -> Path:
    """Save the energies of the chains and their steps as ``energy_plot.png``.

    Potential energies are drawn where others are missing, without BFMI, which is not
    defined for them. Without energies, the picture says so.

    Args:
        idata: ArviZ groups; ``sample_stats`` may hold ``energy`` or ``potential_energy``.
        output_dir: Folder, made if it is missing.
        figsize: Width and height in inches.
        dpi: Pixels per inch.

    Returns:
        The file.

    Raises:
        ConfigError: No size, no number of pixels, or a place that cannot be written.
    """
    from heterodyne.viz import sampler, style

    tree(idata)
    energy, potential = energies(idata, "energy"), energies(idata, "potential_energy")
    if energy is not None:
        figure = sampler.energies(energy, bfmi(energy), THRESHOLDS.bfmi)
    elif potential is not None:
        figure = sampler.energies(potential, (), name="potential energy")
    else:
        figure = style.notice("No energies were kept with these draws: nothing to draw")
    return save(
        finished(figure, figsize, warning=unconverged(idata, {})), output_dir, "energy", dpi
    )


def plot_autocorr(
    idata: xarray.DataTree,
    output_dir: PathArg,
    var_names: str | Sequence[str] | None = None,
    figsize: Size | None = DEFAULT_FIGSIZE,
    dpi: int = DEFAULT_DPI,
) -> Path:
    """Save the autocorrelation of the chains as ``autocorr_plot.png``.

    Arguments, result and errors are those of ``plot_forest``.
    """
    from heterodyne.viz import chains

    found = chains_of(idata, var_names).of_length(2)
    figure = chains.autocorrelations(found.draws)
    return save(finished(figure, figsize, found.note, found.warning), output_dir, "autocorr", dpi)


def plot_rank(
    idata: xarray.DataTree,
    output_dir: PathArg,
    var_names: str | Sequence[str] | None = None,
    figsize: Size | None = DEFAULT_FIGSIZE,
    dpi: int = DEFAULT_DPI,
) -> Path:
    """Save the rank histograms of the chains as ``rank_plot.png``.

    Chains that agree have flat histograms. A single chain has nothing to agree with, and the
    picture says so. Arguments, result and errors are those of ``plot_forest``.
    """
    from heterodyne.viz import chains, style

    found = chains_of(idata, var_names)
    if found.shape[0] < 2:
        figure = style.notice("There is one chain only: its ranks have nothing to compare with")
    else:
        r_hats = mixing(found.draws)["r_hat"]
        labels = {
            name: f"R-hat {value:.3f}" if np.isfinite(value) else ""
            for name, value in zip(found.draws, r_hats, strict=True)
        }
        figure = chains.ranks(found.draws, labels)
    return save(finished(figure, figsize, found.note, found.warning), output_dir, "rank", dpi)


def plot_ess(
    idata: xarray.DataTree,
    output_dir: PathArg,
    var_names: str | Sequence[str] | None = None,
    figsize: Size | None = (10, 6),
    dpi: int = DEFAULT_DPI,
) -> Path:
    """Save the growth of the effective draws with the draws as ``ess_plot.png``.

    Each point takes the first draws of every chain. Arguments, result and errors are those
    of ``plot_forest``.
    """
    from heterodyne.viz import chains

    found = chains_of(idata, var_names).of_length(_FEWEST_DRAWS)
    n_chains, n_draws = found.shape
    lengths = np.linspace(max(_FEWEST_DRAWS, n_draws / _GROWTH_POINTS), n_draws, _GROWTH_POINTS)
    lengths = np.unique(lengths.astype(int))
    steps = [mixing({name: x[:, :n] for name, x in found.draws.items()}) for n in lengths]
    bulk, tail = (
        dict(zip(found.draws, np.stack([step[what] for step in steps], axis=1), strict=True))
        for what in ("ess_bulk", "ess_tail")
    )
    figure = chains.growth(n_chains * lengths, bulk, tail, THRESHOLDS.ess)
    return save(finished(figure, figsize, found.note, found.warning), output_dir, "ess", dpi)


def generate_diagnostic_plots(
    idata: xarray.DataTree,
    output_dir: PathArg,
    var_names: str | Sequence[str] | None = None,
    dpi: int = DEFAULT_DPI,
) -> dict[str, Path]:
    """Save forest, energy, autocorrelation, rank and effective-draws plots into a folder.

    A plot that cannot be drawn is left out with a warning in the log.

    Args:
        idata: ArviZ groups with ``posterior``.
        output_dir: Folder, made if it is missing.
        var_names: Quantities to draw; all if None.
        dpi: Pixels per inch.

    Returns:
        The files under ``forest``, ``energy``, ``autocorr``, ``rank`` and ``ess``.

    Raises:
        DataError: There are no such draws.
        ConfigError: The folder cannot be made.
    """
    chains_of(idata, var_names)
    files.folder_of(output_dir)
    plots: dict[str, Callable[[], Path]] = {
        "forest": lambda: plot_forest(idata, output_dir, var_names, dpi=dpi),
        "energy": lambda: plot_energy(idata, output_dir, dpi=dpi),
        "autocorr": lambda: plot_autocorr(idata, output_dir, var_names, dpi=dpi),
        "rank": lambda: plot_rank(idata, output_dir, var_names, dpi=dpi),
        "ess": lambda: plot_ess(idata, output_dir, var_names, dpi=dpi),
    }
    found = {}
    for kind, draw in plots.items():
        try:
            found[kind] = draw()
        except _BROKEN as error:
            _LOG.warning("the %s plot is left out: %s", kind, error)
    return found
