"""describe(): what would run, and why not something else."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from . import _config, _native, _triton
from ._registry import OPS, champion, supports, wanted_backend


@dataclass(frozen=True)
class Description:
    """What would run: `op` as `trace` names it, its `path` (`cpu/avx512`, `reference`, ...; `none` where the call would
    raise) and, for every other backend, why it would not."""

    op: str
    path: str
    reasons: dict[str, list[str]]


def describe(op: str | Callable[..., Any], *args: Any, **kwargs: Any) -> Description:
    """Say what would run for these arguments, and why not the others.

    Args:
        op: the function (`fastseg.ops.upsample_argmax`) or its name, or that of an op in a trace.
        *args, **kwargs: the arguments of the call, and what the call refuses is refused here too; with fewer than a
            call takes, the first tensor decides.

    Example:
        >>> fastseg.describe("upsample_argmax", torch.zeros(1, 19, 8, 8), (32, 32)).path.split("/")[0]
        'cpu'
    """
    name = op if isinstance(op, str) else getattr(op, "__name__", repr(op))
    if name not in OPS:
        raise ValueError(f"fastseg::describe: op must be one of {', '.join(sorted(OPS))}, got {name!r}")
    wanted = wanted_backend()
    reached, tensor = _reached(name, args, kwargs)
    reasons = {b: supports(reached, tensor, b) for b in _config.BACKENDS if b not in ("auto", "reference")}
    chosen = wanted if wanted != "auto" else ("reference" if reasons["native"] else "native")
    path = "none" if reasons.get(chosen) or tensor.dtype not in reached.dtypes else chosen
    if path not in ("none", "reference"):
        kernels = champion(reached, tensor.device.type)
        path = {"cpu": f"cpu/{_native.cpu_isa()}", "triton": _triton.path, "cuda": "cuda"}.get(kernels, path)
    return Description(reached.name, path, {b: r for b, r in reasons.items() if r})


class _Reached(Exception):
    """Carries an op and its first tensor out of a door."""


def _reached(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """The op that the function of this name calls with these arguments, and its first tensor; it does not run."""
    from . import ops  # which imports this module

    def stop(name: str, first: Tensor, *_: Any) -> None:
        raise _Reached(OPS[name], first)

    given: Iterable[Any] = (*args, *kwargs.values())
    if door := getattr(ops, name, None):
        signature = inspect.signature(door)
        bound = signature.bind_partial(*args, **kwargs).arguments
        if all(key in bound or p.default is not p.empty for key, p in signature.parameters.items()):
            # The door with another `call`, so that it checks its arguments and chooses its op as ever.
            asked = FunctionType(door.__code__, {**door.__globals__, "call": stop}, name, door.__defaults__)
            asked.__kwdefaults__ = door.__kwdefaults__
            try:
                asked(*args, **kwargs)
            except _Reached as reached:
                return reached.args
        given = bound.values()
    default = torch.empty(0, dtype=OPS[name].dtypes[0])
    return OPS[name], next((a for a in given if isinstance(a, Tensor)), default)
