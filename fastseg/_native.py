"""Finds and loads the compiled op libraries, and remembers why not."""

import os
import struct
from functools import cache
from pathlib import Path

import torch

from . import _triton

LIBRARY = Path(os.environ.get("FASTSEG_LIBRARY") or Path(__file__).parent / "lib" / "libfastseg_cpu.so")
CUDA_LIBRARY = Path(__file__).parent / "lib" / "libfastseg_cuda.so"
_BUILD = "in a checkout, FASTSEG_NATIVE=1 pip install --no-build-isolation ."


def _load() -> str:
    """Load the CPU library; return the reason where that is impossible."""
    if _triton.interpreted:
        return "TRITON_INTERPRET is set, so the Triton kernels take its place"
    return _load_file(LIBRARY, "_cpu_isa")


def _load_cuda() -> str:
    """Load the CUDA library; return the reason where that is impossible."""
    if torch.version.cuda is None:
        return "torch is built without CUDA"
    return _load_file(CUDA_LIBRARY, "_cuda_trace_stop")


@cache
def cuda_fault(index: int) -> str:
    """Why no kernel of the CUDA library runs on this device: a driver or an architecture that it was not built for."""
    with torch.cuda.device(index):
        fault = str(torch.ops.fastseg._cuda_fault())
    return f"{CUDA_LIBRARY.name} does not run on {torch.cuda.get_device_name(index)}: {fault}" if fault else ""


def _load_file(library: Path, function: str) -> str:
    """Load a library that has to define this function without arguments; return the reason where it cannot be."""
    if not library.exists():
        return f"{library.name} was not built ({_BUILD} shows why)"
    try:
        _check_length(library)
        torch.ops.load_library(str(library))
        getattr(torch.ops.fastseg, function)()
    except (OSError, RuntimeError, AttributeError) as error:
        # torch says that it failed, the loader why, after a path that is known.
        reason = str(error.__cause__ or error).removeprefix(f"{os.path.realpath(library)}: ")
        return f"{library.name} cannot be loaded: {reason} ({_BUILD} builds it anew)"
    return ""


def _check_length(path: Path) -> None:
    """Refuse a file cut short: the loader would touch pages behind its end, which kills the process."""
    with path.open("rb") as file:
        header = file.read(64)
    if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":
        return  # the loader refuses it with a reason of its own
    # Linkers write the table of sections last.
    (table,), (size, count) = struct.unpack_from("<Q", header, 40), struct.unpack_from("<HH", header, 58)
    if (length := path.stat().st_size) < table + size * count:
        raise OSError(f"it is cut short at {length} of {table + size * count} bytes")


def _choose_isa() -> str:
    """Follow FASTSEG_CPU_ISA; return why that is impossible."""
    wanted = os.environ.get("FASTSEG_CPU_ISA")
    if wanted and loaded:
        known = torch.ops.fastseg._cpu_isas().split()
        if wanted not in known:
            return f"fastseg::cpu_isa: FASTSEG_CPU_ISA must be one of {', '.join(known)} here, got {wanted!r}"
        torch.ops.fastseg._use_cpu_isa(wanted)
    return ""


why_not = _load()
loaded = not why_not
cuda_why_not = _load_cuda()
cuda_loaded = not cuda_why_not
isa_fault = _choose_isa()


def cpu_isa() -> str:
    """Instruction set that the CPU kernels run on: `base`, `avx2`, `avx512`, or `none` without the library."""
    return str(torch.ops.fastseg._cpu_isa()) if loaded else "none"
