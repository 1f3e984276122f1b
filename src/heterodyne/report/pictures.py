"""Pictures of the report, held in the page itself."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from heterodyne._typing import FloatArray
from heterodyne.optimization.cmc._diagnostics import bfmi
from heterodyne.report.markup import Html, folded, join, section, tag
from heterodyne.report.numbers import count, known, significant
from heterodyne.report.run import Arrays, Row, Run
from heterodyne.viz import fits, maps, posterior, sampler, style
from heterodyne.viz.thin import block_means

_MAPS = ("measured", "model", "residual")
_OPEN_ANGLES = 6
_WORST = 4
# Pixels along an axis of a map, so that the maps of all angles stay below about 3 MB.
_SIZES = ((4, 256, 2.0), (8, 128, 2.0), (24, 96, 1.25))
_SMALLEST = (64, 1.0)
_CUT_SCALE = 1.5


def picture(figure: Figure, words: str, *, raster: bool = False) -> Html:
    """Return a figure as an element that needs no other file.

    Args:
        figure: What to show.
        words: What it shows, for readers who cannot see it; also the caption.
        raster: Whether to store pixels, as suits maps, rather than curves.
    """
    content = style.png(figure, _CUT_SCALE) if raster else style.svg(figure)
    return _image(content, figure, words, raster)


def _image(content: bytes, figure: Figure, words: str, raster: bool) -> Html:
    kind = "image/png" if raster else "image/svg+xml"
    source = f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
    width = round(96 * figure.get_figwidth())
    image = tag("img", src=source, alt=words, width=width)
    return tag("figure", image, tag("figcaption", words))


def fit_section(run: Run, *facts: Html | None) -> Html:
    """Return the fit beside the data, angle by angle."""
    title = "Fit against data"
    if run.maps is None:
        return section("fit", title, *facts, tag("p", "This run left no maps."))
    scales = _scales(run.maps)
    shown = [_angle(run.maps, k, scales) for k in range(len(run.maps["phi"]))]
    more = shown[_OPEN_ANGLES:]
    return section(
        "fit",
        title,
        *facts,
        tag(
            "p",
            "Independent errors leave residuals without pattern. Speckles, which pairs with a "
            "common frame share, leave smooth patches and stripes of either sign even where the "
            "model is right. A pattern that keeps its sign from angle to angle, or along the "
            "diagonal, is a misfit. Grey pixels were not fitted.",
        ),
        *shown[:_OPEN_ANGLES],
        folded(f"Angles {_OPEN_ANGLES + 1} to {len(shown)}", *more) if more else None,
    )


class _Scales(NamedTuple):
    """What the maps of all angles share: pixels, and ends of the colour scales."""

    size: int
    scale: float
    c2: tuple[float, float]
    residual: float


def _scales(arrays: Arrays) -> _Scales:
    n = len(arrays["phi"])
    size, scale = next(((s, z) for most, s, z in _SIZES if n <= most), _SMALLEST)
    residual, _ = block_means(arrays["residual"], arrays["t"], size)
    limits = maps.robust_limits(arrays["measured"])
    return _Scales(size, scale, limits, maps.symmetric_limit(residual))


def _angle(arrays: Arrays, k: int, scales: _Scales) -> Html:
    t, name = arrays["t"], maps.angle_text(float(arrays["phi"][k]))
    measured, model, residual = (arrays[key][k : k + 1] for key in _MAPS)
    triple = fits.fit_maps(
        block_means(measured, t, scales.size)[0],
        block_means(model, t, scales.size)[0],
        block_means(residual, t, scales.size)[0],
        block_means(measured, t, scales.size)[1],
        arrays["phi"][k : k + 1],
        limits=scales.c2,
        residual_limit=scales.residual,
    )
    cuts = fits.fit_cuts(
        measured[0],
        model[0],
        residual[0],
        t,
        arrays["lags"],
        arrays["lag_measured"][k],
        arrays["lag_model"][k],
        float(arrays["phi"][k]),
    )
    words = f"{name}: measured c2, model and their difference, on the same scales for all angles."
    return join(
        [
            _image(style.png(triple, scales.scale), triple, words, raster=True),
            picture(
                cuts,
                f"{name}: cuts through the maps; points measured, lines model.",
                raster=len(arrays["phi"]) > _OPEN_ANGLES,
            ),
        ]
    )


def quantities(run: Run) -> Html | None:
    """Return intervals of the quantities that the data inform."""
    rows = run.rows("derived")
    if not rows:
        return None
    return picture(posterior.forest(rows), "Medians and 95 % intervals at the reference times.")


def bands(run: Run) -> Html | None:
    """Return J, v and s over the window."""
    if run.curves is None or not any(f"{c}_plain" in run.curves for c in posterior.CURVES):
        return None
    figure = posterior.bands(run.curves["t"], run.curves)
    return picture(figure, "Medians and 95 % bands over the window.")


def scaling(run: Run) -> Html | None:
    """Return contrast and offset of each angle."""
    rows = run.rows("scaling")
    if not rows:
        return None
    return picture(posterior.forest(rows), "Contrast and offset of each angle, 95 % intervals.")


def priors(run: Run) -> Html:
    """Return priors against posteriors."""
    rows = run.rows("parameter", "noise")
    plain = run.draws.get("posterior", {})
    names = [row["name"] for row in rows if row["name"] in plain]
    words = (
        "Where the curve is much narrower than the grey prior, the data decide. Where both "
        "have the same shape, the data say nothing."
    )
    if not names:
        return section("priors", "Prior against posterior", tag("p", "There are no draws."))
    figure = posterior.marginals(
        {name: plain[name] for name in names},
        prior=run.draws.get("prior"),
        corrected=run.draws.get("corrected"),
        units={row["name"]: row["unit"] for row in rows},
    )
    return section("priors", "Prior against posterior", picture(figure, words))


def sampler_pictures(run: Run) -> list[Html]:
    """Return pictures of how well the sampler explored, the worst quantities first."""
    limits = run.summary.get("thresholds") or {}
    rows = [row for row in run.summary["rows"] if known(row["r_hat"])]
    found = []
    energy = run.draws.get("sample_stats", {}).get("energy")
    if rows:
        figure = sampler.overview(rows, limits.get("r_hat", 1.01), limits.get("ess", 400))
        words = "Agreement of the chains or groups, and effective draws; orange fails."
        found.append(picture(figure, words))
    # Draws that were picked by weights have no order to show.
    recorded = run.summary.get("sampler") or {}
    weighed = known(recorded.get("points"))
    worst = [] if weighed else _worst(run, rows)
    if worst:
        labels = {row["name"]: _label(row) for row, _ in worst}
        figure = sampler.traces({row["name"]: chains for row, chains in worst}, labels)
        one = "group of walkers, walker by walker" if known(recorded.get("walkers")) else "chain"
        words = (
            f"The least settled quantities, one colour per {one}. Healthy ones lie on top of "
            "each other, and their ranks are even."
        )
        found.append(picture(figure, words))
    if energy is not None and np.all(np.isfinite(energy)):
        figure = sampler.energies(energy, bfmi(energy), limits.get("bfmi", 0.3))
        found.append(picture(figure, "Steps in energy should be about as wide as the energies."))
    return found


def _worst(run: Run, rows: Sequence[Row]) -> list[tuple[Row, FloatArray]]:
    ordered = sorted(rows, key=lambda row: -row["r_hat"])
    found = [(row, run.chains(row["name"])) for row in ordered]
    return [(row, chains) for row, chains in found if chains is not None][:_WORST]


def _label(row: Row) -> str:
    return f"(R-hat {significant(row['r_hat'], 4)}, {count(row['ess_bulk'])} effective draws)"
