import os
import signal
import subprocess
import sys
import time

import pytest
import typer

import heterodyne
from heterodyne._errors import ConfigError, DataError, InterruptedRunError, SamplingError
from heterodyne.cli import main as main_module

VERBS = [
    "simulate", "inspect", "init", "check", "fit", "sample", "worker", "watch", "cancel", "report",
]  # fmt: skip


def test_help_lists_the_verbs_in_the_order_of_the_work(run):
    done = run("--help")
    listed = done.out.partition("Commands:")[2].split("Exit codes")[0].splitlines()
    assert [line.split()[0] for line in listed if line.strip()] == VERBS
    assert "..." not in done.out.partition("Commands:")[2]
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(run, verb):
    done = run(verb, "--help")
    assert done.code == 0
    assert done.out.startswith(f"Usage: heterodyne {verb} ")
    assert max(map(len, done.out.splitlines())) <= 100


def test_version(run):
    assert run("--version").out == f"heterodyne {heterodyne.__version__}\n"


def test_no_arguments_show_the_help_as_a_usage_error(run):
    done = run()
    assert done.code == 1
    assert done.out == ""
    assert done.err.startswith("Usage: heterodyne")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["bogus"], "heterodyne: No such command 'bogus'"),
        (["fit"], "heterodyne fit: Missing argument 'RUN.yaml'"),
        (["fit", "--nope", "run.yaml"], "heterodyne fit: No such option: --nope"),
        (
            ["simulate", "a.h5", "--frames", "x"],
            "heterodyne simulate: Invalid value for '--frames'",
        ),
        (
            ["simulate", "a.h5", "--frames", "1"],
            "heterodyne simulate: Invalid value for '--frames'",
        ),
    ],
)
def test_usage_errors_are_one_paragraph_with_code_1(run, tmp_path, args, said):
    done = run(*args)
    assert done.code == 1
    assert done.out == ""
    assert done.err.startswith(said)
    assert done.err.count("\n") == 1
    assert "--help" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("a", where="x"), 1),
        (DataError("a", where="x"), 2),
        (SamplingError("a", where="x"), 1),
        (InterruptedRunError("a", where="x"), 130),
        (typer.Exit(3), 3),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_code_belongs_to_the_outcome(run, monkeypatch, error, code):
    def app(**_):
        raise error

    if isinstance(error, typer.Exit):
        app = typer.Typer()
        app.command()(lambda: (_ for _ in ()).throw(error))
    monkeypatch.setattr(main_module, "app", app)
    done = run()
    assert done.code == code
    if code in (1, 2):
        assert done.err == "heterodyne: x: a.\n"


def test_several_problems_are_one_line_each(run, tmp_path):
    (tmp_path / "run.yaml").write_text("experimental_data: {file: a}\nnoise: {x: 1}\n")
    done = run("check", "run.yaml")
    assert done.code == 1
    lines = done.err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("heterodyne: run.yaml:") for line in lines)


def test_a_termination_signal_interrupts_and_the_handler_is_given_back(run, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)

    def app(**_):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal did not interrupt")

    monkeypatch.setattr(main_module, "app", app)
    done = run()
    assert (done.code, done.err) == (130, "heterodyne: interrupted.\n")
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interrupt_that_a_finaliser_drops_comes_again(run, monkeypatch):
    class Finalised:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)
            for _ in range(1000):  # the handler runs between two steps
                pass

    def app(**_):
        Finalised()
        time.sleep(5.0)
        raise AssertionError("the interrupt was lost")

    hook = sys.unraisablehook
    monkeypatch.setattr(main_module, "app", app)
    # As jobs in the background have it.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        done = run()
    finally:
        signal.signal(signal.SIGINT, before)
    assert (done.code, done.err) == (130, "heterodyne: interrupted.\n")
    assert sys.unraisablehook is hook


def loaded(code):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stderr.split())


def test_help_needs_none_of_the_heavy_packages():
    names = loaded("from heterodyne.cli.main import main\nmain(['--help'])")
    assert "heterodyne.cli.fit" in names
    heavy = {"numpy", "h5py", "pydantic", "ruamel", "rich", "jax", "numpyro", "matplotlib", "scipy"}
    assert not heavy & names


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "heterodyne", "bogus"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("heterodyne: No such command 'bogus'")
    assert "Traceback" not in done.stderr
