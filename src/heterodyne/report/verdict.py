"""The first thing on the page: may these numbers be used, and how."""

from __future__ import annotations

from heterodyne.report.markup import Html, bullets, join, tag
from heterodyne.report.numbers import moment
from heterodyne.report.run import Run

_BELIEVE = {
    True: (
        "Believe the corrected intervals.",
        "Pairs that share a frame share its speckle noise. The plain intervals count every "
        "pair as a new measurement and are too narrow.",
    ),
    False: (
        "Believe the plain intervals.",
        "No sign was found that pairs share their noise, so each pair counts as one measurement.",
    ),
}


def verdict(run: Run) -> Html:
    """Return the band with the headline, what to believe and what to do."""
    good = run.usable
    mark, fallback = ("✓", "Converged.") if good else ("✗", "Not converged.")
    headline = run.verdict.get("headline") or fallback
    return tag(
        "header",
        tag("h1", tag("span", mark, class_="mark"), " ", headline),
        *(tag("p", sentence) for sentence in run.verdict.get("sentences") or ()),
        tag("div", _believe(run, good), _advice(run), class_="columns"),
        tag("p", _source(run), class_="source"),
        class_=f"verdict {'good' if good else 'bad'}",
    )


def caution(run: Run) -> Html | None:
    """Return a reminder for every table of a run that cannot be used."""
    if run.usable:
        return None
    why = (
        "The model does not fit. The numbers below describe a wrong model, or a wrong mode."
        if run.converged
        else "The sampler has not converged. The numbers below will change if it runs longer."
    )
    return tag("p", why, class_="caution")


def _believe(run: Run, good: bool) -> Html:
    claim, reason = _BELIEVE[run.believes_corrected]
    if not good:
        claim, reason = (
            "Nothing yet.",
            ("The model does not fit" if run.converged else "The sampler has not converged")
            + ", so means and intervals can be wrong by any amount.",
        )
    return tag("div", tag("h2", "What to believe"), tag("p", tag("strong", claim), " ", reason))


def _advice(run: Run) -> Html:
    advice = run.verdict.get("advice") or ()
    if not advice:
        return tag("div", tag("h2", "What to do"), tag("p", "Nothing needs to be done."))
    return tag("div", tag("h2", "What to do"), bullets(list(advice)))


def _source(run: Run) -> Html:
    data = run.manifest.get("data") or {}
    words = [data.get("path"), moment(run.manifest.get("created"))]
    return join([word for word in words if word], " · ")
