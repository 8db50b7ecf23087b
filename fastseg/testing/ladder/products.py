"""Products of tiles that a launch takes in the interpreter, against those that it needs: a kernel that computes what it
could leave out is right, and shows it nowhere else."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

from .gate import gate_modules
from .kernels import full_name


@contextmanager
def counted() -> Iterator[list[None]]:
    """A list that has one entry for each product of two tiles."""
    from triton.runtime.interpreter import InterpreterBuilder as builder

    found: list[None] = []
    plain = builder.create_dot

    def create_dot(self: Any, *given: Any) -> Any:
        found.append(None)
        return plain(self, *given)

    with patch.object(builder, "create_dot", create_dot):
        yield found


@cache
def needs() -> dict[str, Callable[[Mapping[str, Any]], int]]:
    """By kernel, `module.function`, how many products its arguments need: `PRODUCTS` of the modules in
    fastseg/testing/gates."""
    return {name: need for module in gate_modules() for name, need in getattr(module, "PRODUCTS", {}).items()}


def check_products(launch: Any, taken: int) -> None:
    """Raise where a launch took another number of products than it needs, if its stem says how many these are."""
    need = needs().get(full_name(launch.kernel.fn))
    if need and taken != need(launch.arguments):
        raise AssertionError(f"the kernel took {taken} products of tiles, and needs {need(launch.arguments)}")
