"""The documents speak of what is there."""

import doctest
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import typer

import fastseg
from fastseg import ops
from fastseg.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
VERBS = {
    name: {option for parameter in verb.params for option in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    for name, verb in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
}
OPTION = re.compile(r"(?<![\w-])--?[a-z][\w-]*")


def tracked() -> list[Path]:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [ROOT / name for name in names if (ROOT / name).is_file()]


@pages
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    targets = [t for t in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text) if "://" not in t]
    assert [t for t in targets if not (page.parent / t).exists()] == []


@pages
def test_python_blocks_are_python(page: Path) -> None:
    for language, code in FENCE.findall(page.read_text()):
        if language == "python":
            compile(textwrap.dedent(code), str(page), "exec")


def impossible(verb: str, rest: str) -> list[str]:
    """What a call of the command names that does not exist."""
    if verb not in VERBS:
        return [f"fastseg {verb}"]
    return [f"fastseg {verb} {option}" for option in OPTION.findall(rest) if option not in VERBS[verb]]


@pages
def test_calls_of_the_command_are_possible(page: Path) -> None:
    text = page.read_text()
    shells = [code for language, code in FENCE.findall(text) if language in {"", "console"}]
    lines = [line.split("#")[0] for code in (*shells, *re.findall(r"`([^`\n]+)`", text)) for line in code.splitlines()]
    calls = [call for line in lines for call in re.findall(r"\bfastseg ([a-z][a-z-]*)((?:(?!\bfastseg ).)*)", line)]
    assert calls or page.name not in {"README.md", "cli.md"}
    assert [fault for call in calls for fault in impossible(*call)] == []


def test_the_page_of_the_command_names_options_that_exist() -> None:
    sections = re.split(r"^## ", (ROOT / "docs/cli.md").read_text(), flags=re.MULTILINE)
    spoken = {s.split()[0].strip(","): " ".join(re.findall(r"`(?!pip )([^`\n]+)`", s)) for s in sections}
    assert spoken.keys() & VERBS.keys() >= {"segment", "profile"}
    assert [fault for verb in spoken.keys() & VERBS.keys() for fault in impossible(verb, spoken[verb])] == []


@pytest.mark.parametrize(
    "function",
    [getattr(ops, name) for name in ops.__all__] + [fastseg.describe],
    ids=lambda function: function.__name__,
)
def test_examples_of_docstrings_run(function: object) -> None:
    torch.manual_seed(0)
    found = doctest.DocTestFinder(recurse=False).find(function, globs={"torch": torch, "fastseg": fastseg, **vars(ops)})
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found and found[0].examples
    said: list[str] = []
    for example in found:
        runner.run(example, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)


@pytest.mark.parametrize("name", ops.__all__)
def test_every_op_documents_itself(name: str) -> None:
    text = inspect.getdoc(getattr(ops, name)) or ""
    made = "Attributes:" if inspect.isclass(getattr(ops, name)) else "Returns:"
    for section in ("Args:", made, "Gradient", "Devices:", "Example:"):
        assert section in text, f"{name} says nothing of {section}"
    for argument in inspect.signature(getattr(ops, name)).parameters:
        assert re.search(rf"^    {argument}:", text, re.MULTILINE), f"{name} does not document {argument}"


def test_every_variable_is_listed_and_every_listed_one_is_read() -> None:
    sources = [p for p in tracked() if p.suffix in {".py", ".cpp", ".h", ".cu", ".cuh"}]
    reads = re.compile(r"(?:environ(?:\.get)?[\[(]|getenv\()\"(FASTSEG_\w+)\"")
    read = {name for path in sources for name in reads.findall(path.read_text())}
    listed = set(re.findall(r"`(FASTSEG_\w+)`", (ROOT / "ENVS.md").read_text()))
    assert listed == read


def test_the_worked_example_names_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`((?:fastseg|csrc|tests|docs|benchmarks|kernels)/[\w./]+)`", text)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_table_of_the_readme_is_what_the_rows_say() -> None:
    command = [sys.executable, "benchmarks/report.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_make_help_names_every_target() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    said = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert phony and {line.split()[0] for line in said.splitlines()} == set(phony[1].split())


def test_nobody_is_sent_to_another_package_of_this_name() -> None:
    install = re.compile(r"pip install\b[^\n`\")]*[\s'=]fastseg\b(?!/)")
    text = (p for p in tracked() if p.suffix in {".py", ".md", ".toml", ".txt", ".cpp", ".h"})
    assert [str(p) for p in text if p != Path(__file__) and install.search(p.read_text())] == []


def test_no_file_names_a_machine() -> None:
    local = re.compile(r"(?<![\w.])/(?:home|root|work|Users)/\w")
    text = (p for p in tracked() if p.suffix in {".py", ".md", ".toml", ".txt", ".cpp", ".h", ".json", ".jsonl"})
    assert [str(p) for p in text if p != Path(__file__) and local.search(p.read_text())] == []
