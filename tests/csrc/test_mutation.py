"""A battery that cannot fail proves nothing: flip one thing in the kernels at a time and see the rows go red.

All mutants are compiled into one library; a global variable says which of them is alive.
"""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from fastseg import _native

ROOT = Path(__file__).parents[2]
MUTANTS = [
    (file, old, new)
    for file, pairs in tomllib.loads(Path(__file__).with_name("mutants.toml").read_text()).items()
    for old, new in pairs
]
RUNNER = """
import ctypes, json, sys, torch
from fastseg import _native, testing
from fastseg.testing.case import stem_of
assert _native.LIBRARY.parts[:-3] == __import__("pathlib").Path(sys.argv[1]).parts, _native.LIBRARY
torch.set_num_threads(1)
alive = ctypes.c_int.in_dll(ctypes.CDLL(str(_native.LIBRARY)), "fastseg_mutant")
rows = testing.find_cases(None, "smoke", "odd", "degenerate")

def red(stem):
    for layout in testing.LAYOUTS[:2]:
        for case in sorted(rows, key=lambda case: stem_of(case.op) != stem):  # its own first
            try:
                testing.judge(case, case.dtypes[0], testing.run(case, case.dtypes[0], layout))
            except (AssertionError, RuntimeError) as error:
                return str(error)
    return ""

with testing.use_isa("base"):
    verdicts = []
    for alive.value, stem in enumerate(["", *sys.argv[2:]]):
        verdicts.append(red(stem))
print(json.dumps(verdicts))
"""


def mutated(tree: Path) -> None:
    """Copy the sources and write every mutant into them."""
    shutil.copytree(ROOT / "csrc", tree / "csrc")
    shutil.copy(ROOT / "CMakeLists.txt", tree)
    shutil.copytree(ROOT / "fastseg", tree / "fastseg", ignore=shutil.ignore_patterns("*.so", "weights", "__pycache__"))
    sites: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for number, (file, old, new) in enumerate(MUTANTS, 1):
        sites.setdefault((file, old), []).append((number, new))
    for (file, old), variants in sites.items():
        text = (tree / "csrc" / file).read_text()
        assert old in text, f"{file} has no {old!r}: give the mutant another place"
        replaced = f"({old})"
        for number, new in variants:
            replaced = f"(fastseg_mutant == {number} ? ({new}) : {replaced})"
        (tree / "csrc" / file).write_text(text.replace(old, replaced))
    for name in ("dtypes.h", "isa.h"):  # one of which every kernel has
        header = tree / "csrc/common" / name
        declared = '#pragma once\nextern "C" int fastseg_mutant;\n'
        header.write_text(header.read_text().replace("#pragma once\n", declared, 1))
    with (tree / "csrc/common/isa.cpp").open("a") as file:
        file.write('extern "C" { __attribute__((visibility("default"))) int fastseg_mutant = 0; }\n')


def build(tree: Path) -> None:
    """Compile without optimising: only small rows will run."""
    torch_root = Path(torch.__file__).parent
    options = {
        "CMAKE_BUILD_TYPE": "Debug",
        "FASTSEG_OUTPUT": tree / "fastseg",
        "FASTSEG_TORCH_INCLUDE": torch_root / "include",
        "FASTSEG_TORCH_LIB": torch_root / "lib",
        "FASTSEG_PYTHON": sys.executable,
    }
    defines = [f"-D{name}={value}" for name, value in options.items()]
    environment = dict(os.environ, PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    configure = ["cmake", "-S", str(tree), "-B", str(tree / "build"), "-G", "Ninja", *defines]
    for command in (configure, ["cmake", "--build", str(tree / "build"), "--target", "fastseg_cpu"]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.skipif(not _native.loaded, reason="kernels are mutated: " + _native.why_not)
def test_every_mutant_is_killed(tmp_path: Path) -> None:
    mutated(tmp_path)
    build(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, str(tmp_path), *(file.split("/")[0] for file, _, _ in MUTANTS)],
        env=dict(os.environ, PYTHONPATH=str(tmp_path)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    unchanged, *red = json.loads(done.stdout.splitlines()[-1])
    assert not unchanged, f"red without any mutant: {unchanged}"
    survivors = [f"{file}: {old} -> {new}" for (file, old, new), k in zip(MUTANTS, red, strict=True) if not k]
    assert not survivors, "\n".join(survivors)
