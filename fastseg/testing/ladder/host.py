"""Rung A: the CUDA kernels and their launchers, compiled for the host, on rows of the table, under sanitizers.

`python -m fastseg.testing.ladder.host` runs all of it, `--help` says how to run a part. What is compiled is what nvcc
compiles: `csrc/*/*cuda.cu`, and the kernels that they include. The shim is in `csrc/testing`.
"""

import argparse
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import torch

from ..case import find_cases
from ..layouts import FAR
from ..selftest import Outcome, jobs
from . import toolchain
from .rows import Selection, run_apart
from .sources import ROOT

PATH = "cuda/host"
SANITIZERS = ("", "address", "undefined", "thread")
# What the whole rung runs: every row in every dtype on few blocks too, and what is small enough for the sanitizers.
SMALL = ("smoke", "odd", "degenerate")
WHOLE = {
    "": (Selection(PATH, layouts=(), backwards=True), Selection(PATH, tags=("smoke",), layouts=FAR)),
    "address": (Selection(PATH, tags=SMALL),),
    "undefined": (Selection(PATH, tags=SMALL), Selection(PATH, tags=("smoke",), layouts=("offset",))),
    "thread": (Selection(PATH, tags=("smoke", "odd"), dtypes=("float32", "bfloat16", "uint8")),),
}
_OPTIONS = {
    # Fibers switch stacks, and Python's own leaks are not ours.
    "address": {"ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0"},
    "thread": {"TSAN_OPTIONS": "halt_on_error=1:report_signal_unsafe=0"},
    "undefined": {"UBSAN_OPTIONS": "halt_on_error=1"},
}
_RUNTIMES = {"address": "libasan.so", "thread": "libtsan.so"}


def why_not() -> str:
    """Reason why the kernels cannot be compiled for the host here, or nothing."""
    try:
        for tool in ("cmake", "ninja", "g++"):
            _tool(tool)
        toolchain.cuda_include()
    except toolchain.MissingTool as missing:
        return str(missing)
    return ""


def _tool(name: str) -> str:
    """A tool beside the interpreter, where pip puts it, or on the path."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else toolchain.find(name)


def build(sanitizer: str = "", sources: Path = ROOT / "csrc", folder: Path | None = None) -> Path:
    """Compile the library for the host; what has not changed is not compiled again.

    Args:
        sanitizer: one of SANITIZERS.
        sources: `csrc`, or a copy of it.
        folder: where to build; in the checkout's `build` by default.

    Returns:
        The library.
    """
    folder = folder or ROOT / "build" / f"host{'-' + sanitizer if sanitizer else ''}"
    torch_root = Path(torch.__file__).parent
    options = {
        "CMAKE_MAKE_PROGRAM": _tool("ninja"),
        "FASTSEG_TORCH_INCLUDE": torch_root / "include",
        "FASTSEG_TORCH_LIB": torch_root / "lib",
        "FASTSEG_CUDA_INCLUDE": toolchain.cuda_include(),
        "FASTSEG_SANITIZER": sanitizer,
    }
    defines = [f"-D{name}={value}" for name, value in options.items()]
    configure = [_tool("cmake"), "-S", str(sources / "testing"), "-B", str(folder), "-G", "Ninja", *defines]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two builds at once would spoil the folder
        for command in (configure, [_tool("cmake"), "--build", str(folder)]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"fastseg::host: {sources} must compile, got {(done.stdout + done.stderr)[-3000:]}")
    return folder / "libfastseg_host.so"


@cache
def _runtimes(sanitizer: str) -> str:
    """What has to be there before Python: C++'s runtime too, or the sanitizer does not find the one that throws."""
    commands = [
        [toolchain.find("g++"), f"-print-file-name={name}"] for name in (_RUNTIMES[sanitizer], "libstdc++.so.6")
    ]
    return " ".join(subprocess.run(c, capture_output=True, text=True, check=True).stdout.strip() for c in commands)


def environment(library: Path, sanitizer: str = "") -> dict[str, str]:
    """Variables under which a process runs the library."""
    chosen = {"FASTSEG_LIBRARY": str(library), "OMP_NUM_THREADS": "1", **_OPTIONS.get(sanitizer, {})}
    if sanitizer in _RUNTIMES:
        chosen["LD_PRELOAD"] = _runtimes(sanitizer)
    return chosen


def prefix(sanitizer: str) -> tuple[str, ...]:
    """ThreadSanitizer wants its memory where it expects it."""
    return ("setarch", os.uname().machine, "-R") if sanitizer == "thread" else ()


def run(selection: Selection, sanitizer: str = "", library: Path | None = None) -> Iterator[Outcome]:
    """Build, unless a library is given, and run rows."""
    library = library or build(sanitizer)
    yield from run_apart(selection, environment(library, sanitizer), prefix(sanitizer))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the whole rung, or a part; 1 if anything is wrong or nothing was proved, 3 if it cannot be run here."""
    from rich.console import Console
    from rich.progress import track

    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__)
    names = {sanitizer or "values": sanitizer for sanitizer in WHOLE}
    parser.add_argument("--under", choices=names, action="append", help="values alone, or a sanitizer; all by default")
    parser.add_argument("--op")
    parser.add_argument("--case", default="", help="part of the names of the rows")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    if reason := why_not():
        print(json.dumps({"reason": reason}) if asked.json else f"fastseg::host: {reason}", file=sys.stderr)
        return 3
    wanted = [c.name for c in find_cases(asked.op) if asked.case in c.name]
    if not wanted:
        parser.error("--op and --case must name rows of the table of cases")
    told: dict[str, list[Outcome]] = {}
    for name in asked.under or names:
        outcomes = told.setdefault(name, [])
        for selection in WHOLE[names[name]]:
            chosen = replace(selection, names=tuple(wanted)) if asked.op or asked.case else selection
            if chosen.cases():
                rows = run(chosen, names[name])
                planned = sum(1 for _ in jobs(chosen.cases(), chosen.layouts or None, chosen.torch_dtypes()))
                outcomes += track(rows, name, planned, console=Console(stderr=True), transient=True)
        faults = [f"{o.case} {o.dtype} {o.layout}: {o.fault}" for o in outcomes if o.fault]
        if not asked.json:
            print(*faults, f"{name}: {sum(o.ran for o in outcomes)} rows on the host, {len(faults)} wrong", sep="\n")
    if asked.json:
        print(json.dumps({name: [asdict(o) for o in outcomes] for name, outcomes in told.items()}))
    ran = [any(o.ran for o in outcomes) for outcomes in told.values()]
    proved = any(ran) if asked.op or asked.case else all(ran)  # a row may be too large for a sanitizer
    return int(not proved or any(o.fault for outcomes in told.values() for o in outcomes))


if __name__ == "__main__":
    sys.exit(main())
