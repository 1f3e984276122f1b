"""Sections of docs/performance.md about a GPU, from what ``benchmarks.gpu`` measured."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.performance import Section

Line = Mapping[str, Any]
KERNEL = (
    "frames", "gradient, ms: processors", "GPU", "64 gradients, ms: processors", "GPU",
    "value differs by", "gradient differs by", "GPU memory, MiB",
)  # fmt: skip
WHOLE = (
    "angles x frames", "engine", "computed by", "data set", "s", "of it the fit", "R-hat",
    "bulk ESS", "GPU memory, GiB", "means differ by, sd",
)  # fmt: skip
TEXT_OF_KERNEL = (
    "Value and gradient of the sum of squares at 3 angles, float64, as in *Kernel*: at one point, "
    "and at 64 points at once; medians, with the call and the wait for its end. Both are timed in "
    "one process. Values and gradients of the GPU differ from those of the processors by the "
    "figures given, relative, the largest of all 65 points; gradients over their norm. *Memory*: "
    "data, results and intermediate results of 64 gradients. Machine: {machine}.{remarks}"
)
TEXT_OF_WHOLE = (
    "Whole runs as in *Whole runs*, with JAX computing on the processors alone "
    "(`JAX_PLATFORMS=cpu`) or on the GPU. Seconds count from the start of a process, import and "
    "compilation included, with an empty cache of compiled code, unless it says *warm cache*; "
    "*same process* is another data set of the same shape. The last column compares posterior "
    "means of the same data: the largest difference over all unknowns and derived quantities in "
    "posterior standard deviations, in brackets what the Monte Carlo errors of both let expect "
    "(2.5 standard errors). Machine: {machine}.{remarks}"
)


def sections_of(lines: Sequence[Line]) -> list[Section]:
    """Put sections together; what was not measured is left out."""
    found = []
    if kernels := _kernel_rows(lines):
        remarks = [*_weighed(lines), *_not_repeatable(lines), *_failures(lines, "kernel")]
        text = TEXT_OF_KERNEL.format(machine=_machine(lines), remarks=_listed(remarks))
        found.append(Section("Kernel on a GPU", text, KERNEL, kernels))
    if runs := _whole_rows(lines):
        remarks = [*_gradients(lines), *_failures(lines, "1001"), *_failures(lines, "183")]
        text = TEXT_OF_WHOLE.format(machine=_machine(lines), remarks=_listed(remarks))
        found.append(Section("Whole runs on a GPU", text, WHOLE, runs))
    return found


def _listed(remarks: Sequence[str]) -> str:
    return "\n\n" + "\n".join(f"- {remark}" for remark in remarks) if remarks else ""


def _machine(lines: Sequence[Line]) -> str:
    """The kind of machine, as ``one H100 GPU, 16 x86-64 cores``."""
    about = next((x for x in lines if "kind" in x), None)
    if about is None:
        return "not known"
    kind = re.search(r"\b[A-Z]+\d+\w*\b", about["kind"])
    name = kind.group() if kind else about["kind"]
    processor = about["processor"].replace("_", "-")
    return f"one {name} GPU, {about['cores']} {processor} cores, JAX {about['jax']}"


def _first(lines: Sequence[Line], **given: Any) -> Line:
    """The first line with these entries, or an empty one."""
    return next((x for x in lines if given.items() <= x.items()), {})


def _said(line: Line, name: str, form: str) -> str:
    return "–" if line.get(name) is None else format(line[name], form)


def _kernel_rows(lines: Sequence[Line]) -> list[list[str]]:
    sizes = sorted({x["frames"] for x in lines if x.get("what") == "gradient" and "median" in x})
    rows = []
    for n in sizes:
        cells = [
            _said(_first(lines, frames=n, what=what, device=device), "median", ".3g")
            for what in ("gradient", "batch")
            for device in ("cpu", "gpu")
        ]
        apart = [_first(lines, frames=n, what=f"{what} differs") for what in ("gradient", "batch")]
        for name in ("value", "gradient"):
            values = [x[name] for x in apart if name in x]
            cells.append(_small(max(values)) if values else "–")
        memory = _first(lines, frames=n, what="batch", device="gpu")
        rows.append([str(n), *cells, _said(memory, "mib", ",.0f")])
    return rows


def _weighed(lines: Sequence[Line]) -> Iterator[str]:
    found = [x for x in lines if x.get("what") == "weigh" and "rate" in x]
    for n in sorted({x["frames"] for x in found}):
        words = [
            f"{_device(x['device'])} {x['rate']:,.0f} "
            f"({x['at_a_time']} at a time in each of as many threads as cores)"
            for x in found
            if x["frames"] == n
        ]
        yield f"Points that are weighed in a second, 3 angles of {n} frames: {'; '.join(words)}."


def _not_repeatable(lines: Sequence[Line]) -> Iterator[str]:
    tried = [x for x in lines if x.get("device") == "gpu" and "repeatable" in x]
    other = [x for x in tried if not x["repeatable"]]
    if other:
        yield (
            f"Repeated on the GPU, {len(other)} of {len(tried)} evaluations differ in some bits, "
            "so that draws are not repeatable there."
        )
    elif tried:
        yield "Repeated on the GPU, evaluations are the same bit by bit."


def _failures(lines: Sequence[Line], name: str) -> Iterator[str]:
    for line in lines:
        if line["part"].startswith(name) and "failed" in line:
            why = line["failed"].strip().splitlines()[-1]
            last = [x["progress"] for x in lines if x["part"] == line["part"] and "progress" in x]
            done = ""
            if last:
                stage, so_far, most = last[-1]
                done = f" ({stage}: {so_far:,.0f} of at most {most:,.0f})"
            yield f"{line['part']}: {why}{done}."


def _runs(lines: Sequence[Line]) -> list[Line]:
    return [x for x in lines if "rows" in x]


def _kind(run: Line) -> tuple[str, bool, int]:
    """Number of frames, whether NUTS was asked for, and number of the data set."""
    words = run["part"].split()
    return words[0], "nuts" in words, run["data_set"]


def _whole_rows(lines: Sequence[Line]) -> list[list[str]]:
    on_cpu = {_kind(x): x for x in _runs(lines) if x["on"] == "cpu"}
    rows = []
    for x in _runs(lines):
        how = "same process" if x["data_set"] else "first"
        if x["part"].endswith("warm"):
            how = "first, warm cache"
        of_gpu = x["on"] == "gpu"
        other = on_cpu.get(_kind(x)) if of_gpu else None
        gib = x["peak"] / 2**30 if of_gpu and x.get("peak") else None
        rows.append(
            [f"3 x {_kind(x)[0]}", x["engine"], _device(x["on"]), how, f"{x['seconds']:.1f}",
             f"{x['fit']:.1f}", f"{x['r_hat']:.3f}", f"{x['ess']:.0f}",
             _said({"gib": gib}, "gib", ".2f"), _difference(x, other) if other else "–"]
        )  # fmt: skip
    return rows


def _device(name: str) -> str:
    return "GPU" if name == "gpu" else "processors"


def _difference(run: Line, other: Line) -> str:
    """Largest difference of means, and what Monte Carlo errors let expect."""
    mine, theirs = run["rows"], other["rows"]
    shared = [name for name in theirs if name in mine and theirs[name][1] > 0]
    largest = max(abs(mine[n][0] - theirs[n][0]) / theirs[n][1] for n in shared)
    error = 2.5 * math.sqrt(1.0 / run["ess"] + 1.0 / other["ess"])
    return f"{f'{largest:.3f}' if largest >= 1e-3 else _small(largest)} ({error:.3f})"


def _small(number: float) -> str:
    return f"{number:.0e}" if number else "0"


def _gradients(lines: Sequence[Line]) -> Iterator[str]:
    for x in _runs(lines):
        if x.get("gradients"):
            cost = 1e3 * (x["seconds"] - x["fit"]) / x["gradients"]
            yield (
                f"NUTS at 3 x {_kind(x)[0]}, {_device(x['on'])}: {x['gradients']:,} gradients of "
                f"4 chains, {cost:.2f} ms for each, import and compilation included."
            )
