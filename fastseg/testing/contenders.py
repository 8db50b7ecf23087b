"""One row of the table as functions to time: ours and its rivals, on the same values."""

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch._functorch.config
from torch import Tensor

from .. import ops
from . import rivals
from .case import Case, find_cases
from .check import SEED, inputs_of
from .layouts import with_layout
from .signals import generator

OURS = "fastseg"
MODES = ("forward", "backward", "both")


@dataclass(frozen=True)
class Contender:
    """A call to time. `bytes` is what it has to read and write at least: arguments and results, once each."""

    name: str
    call: Callable[[], Any]
    bytes: int


@cache
def _tables() -> list[Any]:
    return [importlib.import_module(f"{rivals.__name__}.{m.name}") for m in pkgutil.iter_modules(rivals.__path__)]


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, fullgraph=True, dynamic=False)


def contender_names(op: str, *, compiled: bool = True) -> list[str]:
    """Ours first, then eager, eager channels_last, torch.compile and the libraries that are installed."""
    names = [OURS, "eager", "eager channels_last"] + ["torch.compile"] * compiled
    libraries = [name for table in _tables() for name in table.LIBRARIES.get(op, {})]
    return names + [name for name in libraries if importlib.util.find_spec(name)]


def _function(op: str, name: str) -> Callable[..., Any]:
    if name == OURS:
        return getattr(ops, op)
    if name.startswith("eager") or name == "torch.compile":
        plain = next(table.PLAIN[op] for table in _tables() if op in table.PLAIN)
        return _compiled(plain) if name == "torch.compile" else plain
    return next(table.LIBRARIES[op][name] for table in _tables() if name in table.LIBRARIES.get(op, {}))


def contender(case: Case, name: str, mode: str, dtype: torch.dtype, layout: str, device: str = "cpu") -> Contender:
    """Prepare one contender.

    Args:
        case: the row.
        name: one of `contender_names`. A rival gets its layout (`eager` NCHW, `eager channels_last` that), and labels
            as int64, outside the timing.
        mode: `forward` (inference mode), `backward` (the gradient alone) or `both`.
        dtype, layout, device: of the inputs.
    """
    if mode not in MODES:
        raise ValueError(f"fastseg::contender: mode must be one of {', '.join(MODES)}, got {mode!r}")
    own = {"eager": "contiguous", "eager channels_last": "channels_last"}.get(name, layout)
    args, kwargs = inputs_of(case, dtype, own, device)
    if name != OURS:
        args = tuple(a.long() if isinstance(a, Tensor) and not a.is_floating_point() else a for a in args)
    function = _function(case.op, name)
    tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]

    if mode == "forward":

        def call() -> Any:
            with torch.inference_mode():
                return function(*args, **kwargs)

        return Contender(name, call, _bytes(tensors, call()))
    inputs = [args[i].requires_grad_() for i in case.grad]
    if not inputs:
        raise ValueError(f"fastseg::contender: mode must be forward for {case.op}, which has no gradient, got {mode!r}")
    # A compiled graph frees what its backward needs, unless told that the backward comes again.
    with torch._functorch.config.patch(donated_buffer=False):
        torch.compiler.reset()
        out = function(*args, **kwargs)
    upstream = with_layout(torch.randn(out.shape, generator=generator(SEED + 1)).to(out), own)
    moved = _bytes([*tensors, upstream], inputs)
    if mode == "both":
        return Contender(
            name, lambda: torch.autograd.grad(function(*args, **kwargs), inputs, upstream), moved + _bytes([], out)
        )
    return Contender(name, lambda: torch.autograd.grad(out, inputs, upstream, retain_graph=True), moved)


def prepared(op: str, id: str, name: str, mode: str, dtype: str, layout: str, device: str = "cpu") -> Callable[[], Any]:
    """The call of a contender, from plain strings: for `fastseg.profiler.measure.peak_bytes`, and for profilers."""
    case = next(c for c in find_cases(op) if c.id == id)
    return contender(case, name, mode, getattr(torch, dtype), layout, device).call


def _bytes(read: list[Tensor], written: Any) -> int:
    results = written if isinstance(written, tuple | list) else [written]
    return sum(t.numel() * t.element_size() for t in (*read, *results))
