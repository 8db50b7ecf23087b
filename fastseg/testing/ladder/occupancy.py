"""How many warps of a kernel a multiprocessor holds at once, by NVIDIA's own `cuda_occupancy.h`."""

import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from .devices import MULTIPROCESSORS
from .sources import ROOT
from .toolchain import cuda_include, find

# arch, threads per block, registers per thread, static and dynamic shared bytes
Launch = tuple[int, int, int, int, int]


def occupancies(launches: Sequence[Launch]) -> list[float]:
    """Resident warps over the most that the architecture's multiprocessor holds; 0 where not one block fits."""
    lines = []
    for arch, threads, registers, fixed, dynamic in launches:
        sm = MULTIPROCESSORS[arch]
        limits = (*divmod(arch, 10), sm.threads, sm.registers, sm.shared, sm.block_shared, sm.reserved)
        lines.append(" ".join(map(str, (*limits, threads, registers, fixed, dynamic))))
    told = subprocess.run([str(_program())], input="\n".join(lines), capture_output=True, text=True, check=True)
    blocks = map(int, told.stdout.split())
    return [
        max(0, count) * -(-threads // 32) / MULTIPROCESSORS[arch].warps
        for count, (arch, threads, *_) in zip(blocks, launches, strict=True)
    ]


_folder = tempfile.TemporaryDirectory(prefix="fastseg-occupancy-")


@cache
def _program() -> Path:
    program = Path(_folder.name) / "occupancy"
    source = ROOT / "csrc" / "testing" / "occupancy.cpp"
    subprocess.run([find("g++"), "-std=c++20", f"-I{cuda_include()}", str(source), "-o", str(program)], check=True)
    return program
