"""What a launcher of this folder hands to Triton, so that tools can compile exactly what would be launched."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler.compiler import make_backend
from triton.runtime.jit import create_function_from_signature

MOST_PROGRAMS = 2**31 - 1  # in the first dimension of a grid, which all launches use alone


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel: its grid, its arguments by name, and the options of the compiler."""

    kernel: Any
    programs: int
    arguments: dict[str, Any]
    options: dict[str, Any]

    def run(self) -> None:
        self.kernel[(self.programs,)](**self.arguments, **self.options)

    def program(self) -> ASTSource:
        """What Triton would compile for this launch on any CUDA device: types, constants, and what it knows of sizes.

        Tensors may be on the meta device: their addresses count as divisible by 16, as those of torch's allocator are.
        """
        backend = make_backend(GPUTarget("cuda", 80, 32))
        bind = create_function_from_signature(self.kernel.signature, self.kernel.params, backend)
        bound = bind(**self.arguments, **self.options)
        _, signature, constants, attributes = self.kernel._pack_args(backend, self.options, *bound)
        return ASTSource(self.kernel, signature, constants, attributes)


def interpreted(kernel: Any) -> bool:
    """Whether a kernel runs in Triton's interpreter, because it was imported under TRITON_INTERPRET=1."""
    return not isinstance(kernel, triton.JITFunction)


def needs_int64(largest: int) -> bool:
    """Whether a kernel that forms this number is to compute in int64."""
    return largest >= 2**31


def grids(planes: int, programs: int) -> Iterator[tuple[int, int]]:
    """Split planes of so many programs each over launches: the first plane and the programs of each."""
    most = MOST_PROGRAMS // programs
    if not most:
        raise ValueError(f"fastseg::launch: a plane must take at most {MOST_PROGRAMS} programs, got {programs}")
    for first in range(0, planes, most):
        yield first, min(most, planes - first) * programs
