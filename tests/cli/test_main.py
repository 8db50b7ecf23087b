"""The command as a whole: help, version, errors in one line, and both ways to start it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

import fastseg
from fastseg.cli.main import OneLineErrors, app

Run = Callable[..., Result]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "No such command"),
        (["segment"], "Missing argument"),
        (["segment", "x.jpg"], "Missing option"),
        (["segment", "x.jpg", "-o", "out", "--max-pixels", "0"], "--max-pixels"),
        (["doctor", "--nonsense"], "No such option"),
        (["profile", "deeplab_v3_plus", "--size", "big"], "--size must be HEIGHTxWIDTH"),
        (["segment", "x.jpg", "-o", "out", "--weights", "no-such-weights"], "no-such-weights"),
        (["segment", "x.jpg", "-o", "out", "--model", "deeplab_v3_plus"], "without trained weights"),
    ],
)
def test_mistakes_get_one_line_and_code_2(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1 and said in result.stderr


def test_version_and_help(run: Run) -> None:
    assert run("--version").stdout.strip() == fastseg.__version__
    shown = run("--help").stdout
    assert all(verb in shown for verb in ("demo", "segment", "doctor", "profile", "train", "eval"))


def test_a_defect_keeps_its_traceback_and_a_library_error_does_not() -> None:
    broken = typer.Typer(cls=OneLineErrors, pretty_exceptions_enable=False)

    @broken.command()
    def defect() -> None:
        raise ValueError("operands could not be broadcast")

    @broken.command()
    def refused() -> None:
        raise ValueError("fastseg::op: size must be positive, got -1")

    @broken.command()
    def full() -> None:
        raise OSError(28, "No space left on device", "x.png")

    result = CliRunner().invoke(broken, ["full"])
    assert result.exit_code == 2 and result.stderr == "error: x.png: no space left on device\n"
    assert isinstance(CliRunner().invoke(broken, ["defect"]).exception, ValueError)
    result = CliRunner().invoke(broken, ["refused"])
    assert result.exit_code == 2 and result.stderr == "error: fastseg::op: size must be positive, got -1\n"


def start(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fastseg", *arguments]
    root = str(Path(fastseg.__file__).parents[1])
    return subprocess.run(
        command,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_process_prints_json_alone(tmp_path: Path) -> None:
    process = start("doctor", "--json", folder=tmp_path)
    assert process.returncode == 0 and process.stderr == ""
    assert json.loads(process.stdout)["verdict"]


def test_process_says_a_mistake_in_one_line(tmp_path: Path) -> None:
    process = start("profile", "missing.py:build", folder=tmp_path)
    assert process.returncode == 2 and process.stdout == ""
    assert process.stderr == "error: fastseg::profile: model must name an existing file, got 'missing.py'\n"


def test_every_verb_has_json() -> None:
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert [name for name, verb in verbs.items() if not any("--json" in p.opts for p in verb.params)] == []
