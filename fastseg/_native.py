"""Finds and loads the compiled op libraries, and remembers why not."""

import os
from pathlib import Path

import torch

LIBRARY = Path(__file__).parent / "lib" / "libfastseg_cpu.so"


def _load() -> str:
    """Load the CPU library; return the reason where there is none. A library that is there but broken raises."""
    if not LIBRARY.exists():
        return f"{LIBRARY.name} was not built (FASTSEG_NATIVE=1 pip install --no-build-isolation fastseg shows why)"
    torch.ops.load_library(str(LIBRARY))
    wanted = os.environ.get("FASTSEG_CPU_ISA")
    if wanted:
        torch.ops.fastseg._use_cpu_isa(wanted)
    return ""


why_not = _load()
loaded = not why_not


def cpu_isa() -> str:
    """Instruction set that the CPU kernels run on: `base`, `avx2`, `avx512`, or `none` without the library."""
    return str(torch.ops.fastseg._cpu_isa()) if loaded else "none"
