"""Rung A: the CUDA kernels and their launchers, compiled for the host, on rows of the table, under sanitizers.

`python -m fastseg.testing.ladder.host` runs all of it. What is compiled is what nvcc compiles: `csrc/*/*cuda.cu`, and
the kernels that they include. The shim is in `csrc/testing`.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch

from ..selftest import Outcome, jobs
from . import toolchain
from .rows import Selection, run_apart
from .sources import ROOT

PATH = "cuda/host"
SANITIZERS = ("", "address", "undefined", "thread")
# What the whole rung runs: every row in every dtype on few blocks too, and what is small enough for the sanitizers.
WHOLE = {
    "": Selection(PATH, layouts=(), backwards=True),
    "address": Selection(PATH, tags=("smoke", "odd", "degenerate")),
    "undefined": Selection(PATH, tags=("smoke", "odd", "degenerate")),
    "thread": Selection(PATH, tags=("smoke", "odd"), dtypes=("float32", "bfloat16", "uint8")),
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


def main() -> int:
    """Run the whole rung; 1 if anything is wrong, 3 if it cannot be run here."""
    from rich.console import Console
    from rich.progress import track

    if reason := why_not():
        print(f"fastseg::host: {reason}", file=sys.stderr)
        return 3
    wrong = 0
    for sanitizer, selection in WHOLE.items():
        planned = sum(1 for _ in jobs(selection.cases(), selection.layouts or None, selection.torch_dtypes()))
        name, bar = sanitizer or "values", Console(stderr=True)
        outcomes = list(track(run(selection, sanitizer), name, planned, console=bar, transient=True))
        faults = [f"{o.case} {o.dtype} {o.layout}: {o.fault}" for o in outcomes if o.fault]
        print(*faults, f"{name}: {sum(o.ran for o in outcomes)} rows on the host, {len(faults)} wrong", sep="\n")
        wrong += len(faults)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
