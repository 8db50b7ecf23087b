"""One row of the table as functions to time: ours and its rivals, on the same values."""

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch
import torch._functorch.config
from torch import Tensor

from .. import ops
from . import rivals, tolerances
from .case import Case, find_cases, tensors_of
from .check import SEED, differentiated, inputs_of
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


class _Frozen(torch.nn.Module):
    """A function with those of its arguments that are weights as parameters: a compiler may reorder them once."""

    def __init__(self, function: Callable[..., Any], weights: dict[int | str, list[Tensor]]) -> None:
        super().__init__()
        self.function = function
        owned = {str(k): torch.nn.ParameterList(torch.nn.Parameter(w, False) for w in t) for k, t in weights.items()}
        self.weights = torch.nn.ModuleDict(owned)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        def own(place: int | str, value: Any) -> Any:
            if str(place) not in self.weights:
                return value
            weights = list(self.weights[str(place)].parameters())
            return weights[0] if isinstance(value, Tensor) else weights

        return self.function(*(own(i, a) for i, a in enumerate(args)), **{k: own(k, a) for k, a in kwargs.items()})


def _frozen(op: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Callable[..., Any] | None:
    """The plain function of an op that has weights, compiled as torch.compile serves inference best."""
    table = next(table for table in _tables() if op in table.PLAIN)
    places = getattr(table, "WEIGHTS", {}).get(op, ())
    given = {p: args[p] if isinstance(p, int) else kwargs.get(p) for p in places}
    weights = {p: [w] if isinstance(w, Tensor) else list(w) for p, w in given.items() if w is not None}
    if not weights:
        return None
    module = _Frozen(table.PLAIN[op], weights).eval()
    return cast(Callable[..., Any], torch.compile(module, fullgraph=True, dynamic=False, options={"freezing": True}))


def contender_names(op: str, *, compiled: bool = True) -> list[str]:
    """Ours first, then eager, eager channels_last, torch.compile where it can and the libraries that are installed."""
    compiled = compiled and not any(op in getattr(table, "UNCOMPILED", ()) for table in _tables())
    libraries = [name for table in _tables() for name in table.LIBRARIES.get(op, {}) if importlib.util.find_spec(name)]
    if libraries and any(op in getattr(table, "BY_LIBRARY", ()) for table in _tables()):
        return [OURS, *libraries]
    return [OURS, "eager", "eager channels_last"] + ["torch.compile"] * compiled + libraries


def has_other_numbers(op: str, name: str) -> bool:
    """Whether a library does the job of an op by another convention, so that its results are others."""
    return any(name in getattr(table, "OTHER_NUMBERS", {}).get(op, ()) for table in _tables())


def rival_tolerance(op: str) -> float:
    """How far a rival's result may be from ours, as a share of the sum of magnitudes."""
    return max(float(getattr(table, "NEAR", {}).get(op, tolerances.RIVAL)) for table in _tables())


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
    if name == "torch.compile":
        torch.compiler.reset()  # its limit on what was compiled before is that of a model, not of a table
    own = {"eager": "contiguous", "eager channels_last": "channels_last"}.get(name, layout)
    args, kwargs = inputs_of(case, dtype, own, device)
    if name != OURS and not any(case.op in getattr(table, "AS_GIVEN", ()) for table in _tables()):
        args = tuple(a.long() if isinstance(a, Tensor) and not a.is_floating_point() else a for a in args)
    frozen = _frozen(case.op, args, kwargs) if name == "torch.compile" and mode == "forward" else None
    function = _function(case.op, name) if frozen is None else frozen
    tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]

    if mode == "forward":

        def call() -> Any:
            with torch.inference_mode():
                return function(*args, **kwargs)

        return Contender(name, call, _bytes(tensors, call()))
    (args, kwargs), inputs = differentiated(case, (args, kwargs))
    if not inputs:
        raise ValueError(f"fastseg::contender: mode must be forward for {case.op}, which has no gradient, got {mode!r}")
    # A compiled graph frees what its backward needs, unless told that the backward comes again.
    with torch._functorch.config.patch(donated_buffer=False):
        result = function(*args, **kwargs)
    out = tensors_of(result)
    upstream = [with_layout(torch.randn(o.shape, generator=generator(SEED + 1)).to(o), own) for o in out]
    moved = _bytes([*tensors, *upstream], inputs)
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
    return sum(t.numel() * t.element_size() for t in (*read, *tensors_of(written)))
