"""Sections of words and figures: fit, sampler, data, noise and where all of it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from heterodyne.io.files import to_json
from heterodyne.report.checks import Check, checks
from heterodyne.report.markup import Html, bullets, facts, folded, join, section, table, tag
from heterodyne.report.numbers import (
    NONE,
    count,
    duration,
    exact,
    known,
    moment,
    percent,
    significant,
)
from heterodyne.report.run import Run

_SEVERITY = {"error": "Problem", "warning": "Warning", "info": "Note"}
_MOST_OPEN = 8
_MOST_MODES = 5


def least_squares(run: Run) -> Html:
    """Return the figures of the least-squares fit that started the sampler."""
    fit = run.fit
    modes = fit.get("modes") or []
    others = ", ".join(significant(mode) for mode in modes[:_MOST_MODES])
    if len(modes) > _MOST_MODES:
        others += f" and {len(modes) - _MOST_MODES} more"
    return facts(
        [
            ("Least-squares fit", _sentence(str(fit.get("message") or NONE))),
            ("Fitted pairs", _if_known(fit.get("n_pairs"), count)),
            ("Typical residual", _if_known(fit.get("sigma"), significant)),
            ("Reduced chi-square", _if_known(fit.get("reduced_chi_square"), significant)),
            ("Other minima, chi-square above the best", others or "none found"),
        ]
    )


def identifiability(run: Run) -> Html:
    """Return what the data inform, in words."""
    found = run.fit.get("identifiability") or {}
    sentences = list(found.get("sentences") or ())
    return section(
        "identifiability",
        "What the data can tell apart",
        bullets(sentences) if sentences else tag("p", "No combination of parameters is open."),
    )


def sampler(run: Run, *pictures: Html) -> Html:
    """Return the health of the sampler."""
    s = run.summary.get("sampler") or {}
    head = tag(
        "tr",
        *(tag("th", text) for text in ("Check",)),
        *(tag("th", text, class_="number") for text in ("Found", "Limit")),
        tag("th", "Result"),
    )
    return section(
        "sampler",
        "Health of the sampler",
        *(tag("p", text) for text in _how_it_works(s)),
        table([head], [_check(one) for one in checks(run.summary)], class_="compact"),
        facts(_sampler_facts(s)),
        *pictures,
    )


def _how_it_works(s: Mapping[str, Any]) -> Iterator[str]:
    if known(s.get("k_hat")) and "averaged" not in str(s.get("engine") or ""):
        yield (
            "Importance sampling draws points from an approximation of the posterior, weighs "
            "each by the posterior over the approximation, and picks draws by these weights. If "
            "the weights are stable and independent groups of points describe the same values, "
            "the result does not depend on the approximation."
        )
    if "ensemble" in str(s.get("engine") or ""):
        yield (
            "Ensemble sampling moves many walkers at once, in groups. Half of the groups start at "
            "weighted points around the minima of the fit. The others start from populations "
            "that know nothing of the fit: they are drawn from the priors, and the data then "
            "count with a power that grows from 0 to 1. A walker steps along the difference of "
            "two other points (differential evolution) or along one coordinate, or jumps to a draw "
            "from a mixture that was fitted to earlier walkers, which can lie in another minimum, "
            "or takes some parameters, or the shape of a curve, from a draw of their priors, which "
            "matters where the data hardly see them. The posterior decides whether it goes there. "
            "Contrast and offset are integrated out of this decision and drawn anew with each "
            "step, and so is f2 where f0 varies too."
        )
        yield (
            "If groups of different starts describe the same values, early and late (R-hat), their "
            "draws are worth enough independent ones (effective draws), and intervals no longer "
            "grow or shrink, the result does not depend on where walkers started. R-hat alone does "
            "not see tails that all groups still lack. Draws from before mixture and differences "
            "were settled are not used."
        )
    if "averaged" in str(s.get("engine") or ""):
        yield (
            "Here the walkers moved given averages of neighbouring frames, which cost far less "
            "than all pairs. Their draws were then weighed by the posterior of all pairs over "
            "that of the averages, and picked by these weights. If the weights are stable, the "
            "result is that of all pairs."
        )
    if known(s.get("bfmi_min")):
        yield (
            "NUTS walks through all parameter values that fit the data. Several chains start at "
            "different points; if they end up describing the same values, the result does not "
            "depend on where they started."
        )


def _sampler_facts(s: Mapping[str, Any]) -> list[tuple[str, object]]:
    size = None
    if known(s.get("chains")) and known(s.get("draws")):
        groups = known(s.get("points")) or known(s.get("walkers"))
        what = "groups" if groups else "chains"
        size = f"{count(s['chains'])} {what} of {count(s['draws'])} draws"
        if known(s.get("warmup")):
            size += f" after {count(s['warmup'])} warm-up steps"
        if known(s.get("points")):
            size += f" from {count(s['points'])} weighted points"
        if known(s.get("walkers")):
            size += f" from {count(s['steps'])} steps of {count(s['walkers'])} walkers"
    return [
        ("Engine", s.get("engine")),
        ("Length", size),
        ("Time of the fit", _if_known(s.get("seconds_fit"), duration)),
        ("Time of sampling", _if_known(s.get("seconds_sampling"), duration)),
        ("Gradients per draw", _if_known(s.get("gradients_per_draw"), significant)),
        ("Step size", _if_known(s.get("step_size"), significant)),
        ("Acceptance", _if_known(s.get("acceptance"), percent)),
        ("Acceptance of jumps", _if_known(s.get("acceptance_of_jumps"), percent)),
        ("Acceptance of draws from priors", _if_known(s.get("acceptance_of_prior"), percent)),
        ("Acceptance of new shapes", _if_known(s.get("acceptance_of_shapes"), percent)),
        ("Acceptance along axes", _if_known(s.get("acceptance_of_axes"), percent)),
        ("Acceptance of swaps", _if_known(s.get("acceptance_of_swaps"), percent)),
        (
            "Acceptance beside the fraction",
            _if_known(s.get("acceptance_beside_fraction"), percent),
        ),
        ("Longest trajectory", _if_known(s.get("longest_trajectory"), _gradients)),
    ]


def _gradients(number: float) -> str:
    return f"{count(number)} gradients"


def _check(check: Check) -> Html:
    return tag(
        "tr",
        tag("th", check.words, scope="row"),
        tag("td", check.write(check.value), class_="number"),
        tag("td", check.allowed, class_="number"),
        tag("td", "✗ fails" if check.fails else "✓ passes",
            class_="wrong" if check.fails else "right"),
    )  # fmt: skip


def data_quality(run: Run) -> Html:
    """Return what was noticed about the data, and what was measured."""
    d = run.data
    findings = d.get("findings") or ()
    shown = [_finding(finding) for finding in findings]
    nothing = tag("p", "Nothing unusual was noticed about the data.")
    return section(
        "data",
        "Quality of the data",
        tag("div", *shown, class_="findings") if shown else nothing,
        facts(
            [
                ("q", f"{exact(d['q'])} 1/Å" if known(d.get("q")) else None),
                ("Time between frames", _seconds(d.get("dt"))),
                ("Window", _window(d)),
                ("Time origin", d.get("time_origin")),
                ("Frames fitted", _of(d.get("n_fitted_frames"), d.get("n_frames"))),
                ("Pairs fitted, all angles", _if_known(d.get("unique_pairs"), count)),
            ]
        ),
        bullets(list(d.get("notes") or ())),
        _bins(d.get("bins") or ()),
    )


def _finding(finding: Mapping[str, Any]) -> Html:
    severity, text = str(finding.get("severity", "info")), str(finding.get("text", ""))
    return tag(
        "div",
        tag("strong", _SEVERITY.get(severity, severity)),
        tag("p", _sentence(text), " ", tag("span", finding.get("advice", ""))),
        class_=f"finding {severity if severity in _SEVERITY else 'info'}",
    )


def _bins(bins: Sequence[Mapping[str, Any]]) -> Html | None:
    if not bins:
        return None
    head = tag("tr", *(tag("th", text, class_="number") for text in ("Bin", "q (1/Å)", "φ (deg)")))
    body = [
        tag(
            "tr",
            tag("td", entry.get("label"), class_="number"),
            tag("td", exact(entry.get("q")), class_="number"),
            tag("td", exact(entry.get("phi")), class_="number"),
        )
        for entry in bins
    ]
    return fold_long("bins", table([head], body, class_="compact"), len(bins))


def noise(run: Run) -> Html:
    """Return what is known about the noise, and how much it widens the intervals."""
    n = run.summary.get("noise") or {}
    return section(
        "noise",
        "Noise",
        tag("p", n["text"]) if n.get("text") else None,
        facts(
            [
                (
                    "Correlation of neighbouring pairs",
                    _if_known(n.get("neighbour_correlation"), lambda x: significant(x, 2)),
                ),
                (
                    "Residuals at each lag beyond the noise, in standard deviations",
                    _if_known(n.get("misfit"), lambda x: significant(x, 2)),
                ),
            ]
        ),
        _noise_angles(run, n),
        _inflation(n.get("inflation") or {}),
    )


def _noise_angles(run: Run, n: Mapping[str, Any]) -> Html | None:
    speckles, shot = n.get("effective_speckles") or (), n.get("shot_noise") or ()
    if not speckles and not shot:
        return None
    bins = run.data.get("bins") or ()
    head = tag(
        "tr",
        *(tag("th", x, class_="number") for x in ("φ (deg)", "Effective speckles", "Shot noise")),
    )
    body = [
        tag(
            "tr",
            *(
                tag("td", value, class_="number")
                for value in (
                    exact(bins[k].get("phi")) if k < len(bins) else str(k + 1),
                    count(_at(speckles, k)),
                    significant(_at(shot, k)),
                )
            ),
        )
        for k in range(max(len(speckles), len(shot)))
    ]
    return fold_long("angles", table([head], body, class_="compact"), len(body))


def _inflation(factors: Mapping[str, Any]) -> Html | None:
    known_factors = {name: x for name, x in factors.items() if known(x)}
    if not known_factors:
        return None
    ordered = sorted(known_factors.items(), key=lambda item: -item[1])
    entries = [
        tag("span", tag("code", name), f" × {significant(x, 2)}", class_="factor")
        for name, x in ordered
    ]
    words = "Corrected intervals are wider than plain ones by these factors:"
    return join([tag("p", words), tag("p", join(entries, " "), class_="factors")])


def provenance(run: Run) -> Html:
    """Return where the numbers came from, so that they can be made again."""
    m = run.manifest
    data = m.get("data") or {}
    versions = m.get("versions") or {}
    return section(
        "provenance",
        "Where this came from",
        facts(
            [
                ("Data file", data.get("path")),
                ("SHA-256 of the file", _code(data.get("sha256"))),
                ("Layout", data.get("layout")),
                *((str(key), value) for key, value in (data.get("details") or {}).items()),
                ("Command", _code(" ".join(m.get("command") or ()) or None)),
                ("Seed", m.get("seed")),
                ("Created", moment(m.get("created"))),
                ("SHA-256 of the settings", _code(m.get("config_sha256"))),
                ("heterodyne", m.get("heterodyne")),
                ("Python", m.get("python")),
                ("Packages", ", ".join(f"{k} {v}" for k, v in versions.items()) or None),
            ]
        ),
        folded("All settings", tag("pre", to_json(run.config))),
    )


def words() -> Html:
    """Return the words of this page that not everybody uses."""
    return section(
        "words",
        "Words used here",
        facts(
            [
                ("Prior", "What was assumed about a parameter before the measurement."),
                ("Posterior", "What is known after it: prior and data together."),
                ("Draw", "One set of parameter values that fits the data and the priors. Means "
                 "and intervals are taken over all draws."),
                ("Chain", "A series of draws from one starting point."),
                ("Group", "Draws from weighted points, or of walkers, that no other group has. It "
                 "stands in for a chain."),
                ("R-hat", "Spread of all chains or groups over the spread within one. It is 1 "
                 "when they agree."),
                ("Effective draws", "How many independent draws the draws are worth."),
                ("Contraction", "1 − width of the posterior / width of the prior: 1 where the "
                 "data decide, 0 where the prior does."),
                ("Plain and corrected", "Plain intervals take all pairs of frames as independent. "
                 "Corrected ones allow for the speckle noise that pairs share."),
                ("Set by the prior", "The data say nothing about this value alone."),
            ]
        ),
    )  # fmt: skip


def fold_long(what: str, content: Html, length: int) -> Html:
    """Return a table, which is opened by a click where it has many rows."""
    return content if length <= _MOST_OPEN else folded(f"Table of {length} {what}", content)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _if_known(value: Any, write: Any) -> Any:
    return write(value) if known(value) else None


def _seconds(value: Any) -> str | None:
    return f"{exact(value)} s" if known(value) else None


def _window(d: Mapping[str, Any]) -> str | None:
    if not (known(d.get("t_first")) and known(d.get("t_last"))):
        return None
    return f"{exact(d['t_first'])} s to {exact(d['t_last'])} s"


def _of(part: Any, whole: Any) -> str | None:
    return f"{count(part)} of {count(whole)}" if known(part) and known(whole) else None


def _code(text: Any) -> Html | None:
    return None if text is None else tag("code", text)


def _at(values: Sequence[Any], k: int) -> Any:
    return values[k] if k < len(values) else None
