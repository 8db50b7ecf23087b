"""Compile CUDA sources and Triton modules to machine code for any architecture, without a GPU."""

import importlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from .sass import Code, names, read
from .sources import Source
from .toolchain import find

PROCESSES = 2
# Those of the CMake build; the host's flags make no machine code of the GPU.
NVCC_FLAGS = ("-std=c++20", "-O3", "-DTORCH_TARGET_VERSION=0x020a000000000000")


@dataclass(frozen=True)
class Kernel:
    """One kernel for one architecture. `threads` and `dynamic` shared memory are 0 where only the launcher knows."""

    name: str
    code: Code
    threads: int = 0
    dynamic: int = 0


@dataclass(frozen=True)
class Compilation:
    """What became of one source for one architecture: its kernels, or the reason why it does not compile."""

    source: Source
    arch: int
    kernels: tuple[Kernel, ...] = ()
    fault: str = ""


def compile_source(source: Source, arch: int) -> Compilation:
    """Compile one source in this process."""
    try:
        compiler = _cuda if source.language == "cuda" else _triton
        return Compilation(source, arch, tuple(compiler(source, arch)))
    except subprocess.CalledProcessError as error:
        return Compilation(source, arch, fault=_first_error(error.stderr or str(error)))
    except Exception as error:  # Triton raises what its stages raise
        if source.language != "triton":
            raise
        return Compilation(source, arch, fault=_first_error(f"{type(error).__name__}: {error}"))


def compile_all(
    sources: Iterable[Source], archs: Iterable[int], done: Callable[[Compilation], None] = lambda _: None
) -> list[Compilation]:
    """Compile each source for each architecture, two at a time; `done` hears of every one as it ends."""
    work = [(source, arch) for source in sources for arch in archs]
    results = []
    with _pool(any(source.language == "triton" for source, _ in work)) as pool:
        for future in as_completed(pool.submit(compile_source, *one) for one in work):
            results.append(future.result())
            done(results[-1])
    return results


def _pool(triton: bool) -> Executor:
    """nvcc is a process of its own, Triton compiles in ours: children that start anew, for a fork would copy torch's
    threads in whatever state they are."""
    if not triton:
        return ThreadPoolExecutor(PROCESSES)
    return ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn"), initializer=_compile_for_gpus)


def _compile_for_gpus() -> None:
    # Under the interpreter Triton's kernels cannot be compiled.
    os.environ.pop("TRITON_INTERPRET", None)


def _first_error(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[0] if lines else "no reason given")


def _cuda(source: Source, arch: int) -> list[Kernel]:
    import torch

    include = Path(torch.__file__).parent / "include"
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        command = [find("nvcc"), "-cubin", f"-arch=sm_{arch}", *NVCC_FLAGS, "-isystem", str(include)]
        subprocess.run([*command, "-o", str(cubin), str(source.path)], capture_output=True, text=True, check=True)
        codes = read(cubin, arch)
    return [Kernel(*pair) for pair in zip(names((c.symbol for c in codes), source.stem), codes, strict=True)]


def _triton(source: Source, arch: int) -> list[Kernel]:
    """What `compilations()` of the module yields: name, program and options of everything that its launchers launch."""
    import triton
    from triton.backends.compiler import GPUTarget

    module = importlib.import_module(f"fastseg.kernels.{source.stem}")
    kernels = []
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        for name, program, options in module.compilations():
            compiled = triton.compile(program, target=GPUTarget("cuda", arch, 32), options=options)
            cubin.write_bytes(compiled.asm["cubin"])
            (code,) = read(cubin, arch)
            shared = compiled.metadata.shared - code.shared
            kernels.append(Kernel(f"{source.stem}/{name}", code, 32 * compiled.metadata.num_warps, shared))
    return kernels
