"""Inputs flush against pages that nobody may touch: one element too far is a crash, not luck.

`python -m fastseg.testing.guard ISA` runs the smoke and odd rows so, and prints how many calls it made.
"""

import ctypes
import mmap
import sys
from typing import Any

import torch
from torch import Tensor

from . import isa
from .case import Case, find_cases
from .check import inputs_of, judge, run_inputs
from .layouts import LAYOUTS, reach_of

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_NOTHING = 0  # PROT_NONE
_kept: list[mmap.mmap] = []


def guarded(x: Tensor, *, at_end: bool) -> Tensor:
    """Copy `x`, with its strides, to where the byte before its first element or after its last is forbidden."""
    if x.numel() == 0:
        return x
    size = reach_of(x) * x.element_size()
    page = mmap.PAGESIZE
    room = -(-size // page) * page
    pages = mmap.mmap(-1, room + 2 * page)
    # Unmapping would fail while tensors point into it.
    _kept.append(pages)
    start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    for forbidden in (start, start + page + room):
        if _libc.mprotect(forbidden, page, _NOTHING) != 0:
            raise OSError(ctypes.get_errno(), "mprotect failed")
    address = start + page + (room - size if at_end else 0)
    memory = (ctypes.c_char * size).from_address(address)
    return torch.frombuffer(memory, dtype=x.dtype).as_strided(x.shape, x.stride()).copy_(x)


def run_guarded(case: Case, dtype: torch.dtype, layout: str, *, at_end: bool) -> None:
    """Run and judge one row with every tensor guarded."""

    def place(value: Any) -> Any:
        return guarded(value, at_end=at_end) if isinstance(value, Tensor) else value

    args, kwargs = inputs_of(case, dtype, layout)
    inputs = tuple(map(place, args)), {k: place(v) for k, v in kwargs.items()}
    torch.set_num_threads(2)
    got = run_inputs(case, inputs, dtype, layout)
    torch.set_num_threads(1)
    judge(case, dtype, got)


def _main(name: str) -> None:
    calls = 0
    with isa.use_isa(name):
        for case in find_cases(None, "smoke", "odd"):
            for dtype in case.dtypes[:3:2][: 1 + ("smoke" in case.tags)]:
                for layout in LAYOUTS:
                    for at_end in (False, True):
                        run_guarded(case, dtype, layout, at_end=at_end)
                        calls += 1
    print(calls)


if __name__ == "__main__":
    _main(*sys.argv[1:])
