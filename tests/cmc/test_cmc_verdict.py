"""The words of a verdict for runs of every outcome."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heterodyne.optimization.cmc._diagnostics import Diagnosis
from heterodyne.optimization.cmc._rows import Row
from heterodyne.optimization.cmc._verdict import COMPETING, judge
from heterodyne.optimization.sandwich import SpeckleNoise

GOOD = Diagnosis(
    {"D0_ref": 1.001, "v0": 1.003},
    {"D0_ref": 900.0, "v0": 800.0},
    {"D0_ref": 700.0, "v0": 750.0},
    (0.9, 0.8, 1.0, 0.95),
    0,
    4000,
)
INDEPENDENT = SpeckleNoise((300.0,), (0.1,), 0.01, False)
SPECKLES = SpeckleNoise((300.0, 500.0), (0.1, 0.1), 0.45, True)
NOT_CONVERGED = "Not converged: do not use these numbers."


def row(name, kind="parameter", *, identified=True, factor=None):
    corrected = None if factor is None else {"sd": factor, "low": -factor, "high": factor}
    contraction = 0.9 if identified else 0.1
    return Row(
        name, "", kind, "", 0.0, 1.0, 0.0, -2.0, 2.0, corrected, 1.0, 900.0, 900.0,
        contraction, identified, None,
    )  # fmt: skip


ROWS = (row("D0_ref"), row("v0"), row("J_ref(0.5 s)", "derived"))
CORRECTED = tuple(replace(r, corrected={"sd": 4.0, "low": -8.0, "high": 8.0}) for r in ROWS)


def said(verdict):
    return " ".join(verdict.sentences)


def test_a_converged_run_of_independent_errors():
    found = judge(ROWS, GOOD, INDEPENDENT)
    assert found.converged
    assert found.headline.startswith("Converged. The intervals hold for independent errors")
    assert found.believe == "plain"
    assert found.advice == ()
    assert found.sentences == (
        "The chains agree: the largest R-hat is 1.003 (allowed 1.01).",
        "Every quantity has at least 800 effective draws (bulk; needed 400).",
        "Every quantity has at least 700 effective draws (tail; needed 400).",
        "Residuals of neighbouring pairs show no correlation (0.01).",
    )


@pytest.mark.parametrize(
    ("diagnosis", "who"),
    [
        (replace(GOOD, bfmi=(0.9,)), "halves of the one chain"),
        (replace(GOOD, bfmi=()), "groups of walkers"),
        (replace(GOOD, bfmi=(), k_hat=0.3, kish=2000.0), "independent groups of draws"),
    ],
)
def test_what_agrees_is_named_after_the_engine(diagnosis, who):
    found = judge(ROWS, diagnosis, INDEPENDENT)
    assert found.sentences[0] == f"The {who} agree: the largest R-hat is 1.003 (allowed 1.01)."


def test_a_converged_run_of_speckles():
    found = judge(CORRECTED, GOOD, SPECKLES)
    assert found.converged
    assert found.headline == "Converged. Believe the corrected intervals, not the plain ones."
    assert found.believe == "corrected"
    assert "correlated residuals (0.45; independent errors give 0)" in said(found)
    assert "too narrow by a factor of up to 4;" in said(found)
    assert "about 400 effective speckles an angle" in said(found)
    assert "as small as speckles leave them (+0.0 standard deviations, allowed 6)" in said(found)
    assert "as small as speckles" not in said(judge(CORRECTED, GOOD, replace(SPECKLES, misfit=7.0)))


@pytest.mark.parametrize(
    ("noise", "reduced", "fits", "sentence"),
    [
        (INDEPENDENT, 1.19, True, ""),
        (INDEPENDENT, 1.21, False, "larger than the noise between neighbours"),
        (replace(INDEPENDENT, misfit=5.9), 1.0, True, ""),
        (replace(INDEPENDENT, misfit=6.1), 1.0, False, "same lag are not zero (6 standard"),
        # Correlated errors are larger than differences of neighbours, whatever the model.
        (replace(SPECKLES, misfit=5.9), 9.0, True, ""),
        (replace(SPECKLES, misfit=6.1), 9.0, False, "(6 standard deviations more than speckles"),
    ],
)
def test_a_model_that_does_not_fit_is_not_to_be_used(noise, reduced, fits, sentence):
    found = judge(CORRECTED, GOOD, noise, reduced_chi_square=reduced)
    assert found.converged
    assert (found.fits, found.usable, found.as_dict()["usable"]) == (fits, fits, fits)
    assert found.headline.startswith("Converged." if fits else "The model does not fit: do not use")
    assert sentence in said(found)
    assert any("maps of residuals" in text for text in found.advice) == (not fits)


def test_draws_that_did_not_converge_are_not_to_be_used_though_the_model_fits():
    found = judge(ROWS, replace(GOOD, divergences=900), INDEPENDENT)
    assert (found.converged, found.fits, found.usable) == (False, True, False)


def test_speckles_without_a_correction_are_warned_of():
    found = judge(ROWS, GOOD, SPECKLES)
    assert found.believe == "plain"
    assert "no correction was made: the intervals are too narrow" in said(found)


def test_open_parameters_do_not_count_as_inflation():
    rows = (row("D0_ref", factor=2.0), row("f2", identified=False, factor=50.0))
    assert "by a factor of up to 2;" in said(judge(rows, GOOD, SPECKLES))


FAILURES = {
    "r_hat": (
        {"r_hat": {"D0_ref": 1.001, "v0": 1.4}},
        "The chains disagree: R-hat of v0 is 1.400 (allowed 1.01).",
        "Raise num_samples",
    ),
    "bulk": (
        {"ess_bulk": {"D0_ref": 120.0, "v0": 800.0}},
        "D0_ref has only 120 effective draws (bulk; needed 400).",
        "Raise num_samples",
    ),
    "tail": (
        {"ess_tail": {"D0_ref": 700.0, "v0": 90.0}},
        "v0 has only 90 effective draws (tail; needed 400).",
        "Raise num_samples",
    ),
    "divergences": (
        {"divergences": 40},
        "40 of 4000 draws diverged: the sampler missed a part of the space.",
        "Raise target_accept_prob",
    ),
    "bfmi": (
        {"bfmi": (0.9, 0.2, 1.0, 1.0)},
        "The energy moved too slowly (BFMI 0.20, needed 0.3): the tails are not explored.",
        None,
    ),
    "growing": (
        {"bfmi": (), "growth": 0.034},
        "Intervals grew by 3.4% on average while the walkers moved (allowed 3.0%): they still "
        "depend on where the walkers started.",
        "Raise num_samples",
    ),
    "shrinking": (
        {"bfmi": (), "growth": -0.05},
        "Intervals shrank by 5.0% on average while the walkers moved (allowed 3.0%): they still "
        "depend on where the walkers started.",
        "Raise num_samples",
    ),
    "constant": (
        {"r_hat": {"D0_ref": float("nan"), "v0": float("nan")}},
        "The chains disagree: R-hat of D0_ref is nan (allowed 1.01).",
        "Raise num_samples",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("noise", [INDEPENDENT, SPECKLES], ids=["independent", "speckles"])
def test_what_failed_is_said_and_the_headline_refuses_the_numbers(name, noise):
    change, sentence, advice = FAILURES[name]
    found = judge(CORRECTED, replace(GOOD, **change), noise)
    assert not found.converged
    assert found.headline == NOT_CONVERGED
    assert sentence in found.sentences
    if advice is not None:
        assert any(text.startswith(advice) for text in found.advice)


def test_a_failure_does_not_hide_behind_others():
    changes = {
        k: v
        for name in ("r_hat", "bulk", "divergences", "bfmi")
        for k, v in FAILURES[name][0].items()
    }
    found = judge(ROWS, replace(GOOD, **changes), INDEPENDENT)
    for name in ("r_hat", "bulk", "divergences", "bfmi"):
        assert FAILURES[name][1] in found.sentences
    assert len(found.advice) == 2


def test_a_few_divergences_are_mentioned():
    found = judge(ROWS, replace(GOOD, divergences=4), INDEPENDENT)
    assert found.converged
    assert "4 of 4000 draws diverged, too few to matter." in found.sentences


def test_one_chain_is_called_one_chain():
    found = judge(ROWS, replace(GOOD, bfmi=(0.9,)), INDEPENDENT)
    assert "one chain" in said(found)


@pytest.mark.parametrize(
    ("others", "words"),
    [((5.0,), "1 other minimum "), ((5.0, 12.0, 900.0), "2 other minima ")],
    ids=["one", "two"],
)
def test_competing_minima_are_told(others, words):
    found = judge(ROWS, GOOD, INDEPENDENT, other_minima=others)
    assert words in said(found)
    assert "chi-square higher by 5)" in said(found)
    assert found.headline.startswith(f"Converged around one of {1 + int(words[0])} minima: use the")
    assert any("Exclude the other minimum by physics" in text for text in found.advice)


def test_minima_that_the_draws_cover_need_no_advice():
    found = judge(ROWS, GOOD, INDEPENDENT, other_minima=(5.0,), covered=20.0)
    assert "1 other minimum that the noise does not exclude" in said(found)
    assert "cover" in said(found)
    assert found.headline.startswith("Converged. ")
    assert not any("Exclude the other minimum" in text for text in found.advice)
    # Correlated errors let the farther one compete, which the draws do not cover.
    both = judge(CORRECTED, GOOD, SPECKLES, other_minima=(5.0, 30.0), covered=20.0)
    assert "chi-square higher by 5); the draws cover" in said(both)
    assert "chi-square higher by 30); the draws describe the best one alone" in said(both)
    assert "use the corrected intervals only if physics excludes the others" in both.headline
    assert any("Exclude the other minimum" in text for text in both.advice)


def test_correlated_errors_let_more_minima_compete():
    # Chi-square of independent pairs overstates differences by the square of the inflation.
    other = (COMPETING * 10.0,)
    assert "other minim" not in said(judge(ROWS, GOOD, INDEPENDENT, other_minima=other))
    assert "1 other minimum" in said(judge(CORRECTED, GOOD, SPECKLES, other_minima=other))
    far = (COMPETING * 17.0,)
    assert "other minim" not in said(judge(CORRECTED, GOOD, SPECKLES, other_minima=far))


def test_a_misfit_is_told():
    assert "misses a part of the signal" not in said(judge(ROWS, GOOD, INDEPENDENT))
    found = judge(ROWS, GOOD, INDEPENDENT, reduced_chi_square=1.8)
    assert "reduced chi-square 1.80): the model misses a part of the signal" in said(found)


def test_parameters_that_the_prior_sets_are_named():
    rows = (*ROWS, *(row(f"p{k}", identified=False) for k in range(8)))
    text = said(judge(rows, GOOD, INDEPENDENT))
    assert "The prior, not the data, sets p0, p1, p2, p3, p4, p5 and 2 more." in text


def test_data_that_inform_nothing_call_for_a_check():
    rows = (row("D0_ref"), row("J_ref(0.5 s)", "derived", identified=False))
    found = judge(rows, GOOD, INDEPENDENT)
    assert any("the data inform no rate and no fraction" in text for text in found.advice)
