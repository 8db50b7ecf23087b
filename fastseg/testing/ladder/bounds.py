"""Every address that Triton's interpreter touches has to lie in a tensor of the launch."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor

from ..layouts import reach_of


class OutOfBounds(RuntimeError):
    """An access that no mask holds back, beside every tensor."""


@contextmanager
def within(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Raise where a load or a store of a kernel leaves these tensors: loads too, whose values nothing may use."""
    from triton.runtime.interpreter import InterpreterBuilder as builder

    spans = [(x.data_ptr(), x.data_ptr() + reach_of(x) * x.element_size()) for x in tensors]
    methods = {name: getattr(builder, name) for name in ("create_masked_load", "create_masked_store")}

    def checked(method: Any, mask_at: int) -> Any:
        def access(self: Any, pointers: Any, *rest: Any) -> Any:
            touched = np.atleast_1d(pointers.data)[np.atleast_1d(rest[mask_at].data).astype(bool)]
            inside = np.zeros(touched.shape, bool)
            for begin, end in spans:
                inside |= (touched >= begin) & (touched < end)
            if not inside.all():
                raise OutOfBounds(f"{(~inside).sum()} of {inside.size} accesses leave the tensors of the launch")
            return method(self, pointers, *rest)

        return access

    builder.create_masked_load = checked(methods["create_masked_load"], 0)
    builder.create_masked_store = checked(methods["create_masked_store"], 1)
    try:
        yield
    finally:
        for name, method in methods.items():
            setattr(builder, name, method)
