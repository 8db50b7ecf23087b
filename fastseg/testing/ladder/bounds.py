"""Every address that Triton's interpreter touches has to lie in a tensor of the launch."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor

from ..layouts import reach_of

# Where the pointers are among the arguments of the interpreter, and where the mask.
_ACCESSES: dict[str, tuple[int, int | None]] = {
    "create_masked_load": (0, 1),
    "create_masked_store": (0, 2),
    "create_atomic_rmw": (1, 3),
    "create_atomic_cas": (0, None),
}


class OutOfBounds(RuntimeError):
    """An access that no mask holds back, beside every tensor."""


@contextmanager
def within(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Raise where a load, a store or an atomic of a kernel leaves these tensors: a load too that nothing uses."""
    from triton.runtime.interpreter import InterpreterBuilder as builder

    spans = [(x.data_ptr(), x.data_ptr() + reach_of(x) * x.element_size()) for x in tensors]
    methods = {name: getattr(builder, name) for name in _ACCESSES}

    def checked(method: Any, pointer_at: int, mask_at: int | None) -> Any:
        def access(self: Any, *given: Any) -> Any:
            touched = np.atleast_1d(given[pointer_at].data)
            if mask_at is not None:
                touched = touched[np.atleast_1d(given[mask_at].data).astype(bool)]
            inside = np.zeros(touched.shape, bool)
            for begin, end in spans:
                inside |= (touched >= begin) & (touched < end)
            if not inside.all():
                raise OutOfBounds(f"{(~inside).sum()} of {inside.size} accesses leave the tensors of the launch")
            return method(self, *given)

        return access

    for name, places in _ACCESSES.items():
        setattr(builder, name, checked(methods[name], *places))
    try:
        yield
    finally:
        for name, method in methods.items():
            setattr(builder, name, method)
