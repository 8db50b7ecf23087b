"""declare(): everything PyTorch has to know about one op, in one call."""

import inspect
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from . import _config, _native

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

# The same ops twice, under the same rules: fastseg with kernels where there are any, fastseg_reference without.
_libraries = {name: torch.library.Library(name, "FRAGMENT") for name in ("fastseg", "fastseg_reference")}
_traces: list[list[str]] = []
_warned: set[str] = set()


@dataclass(frozen=True)
class Op:
    """One declared op: the overloads PyTorch dispatches, its reference, and what its native kernels take.

    `overload` takes a kernel where there is one, `slow` never does; `reference` is the function behind `slow`.
    """

    name: str
    overload: Any
    slow: Any
    reference: Callable[..., Any]
    dtypes: tuple[torch.dtype, ...]


@dataclass(frozen=True)
class Description:
    """What would run: `op` as `trace` names it, its `path` (`cpu/avx512`, `reference`, ...; `none` where the call would
    raise) and, for every other backend, why it would not."""

    op: str
    path: str
    reasons: dict[str, list[str]]


OPS: dict[str, Op] = {}


def declare(
    schema: str,
    *,
    reference: Callable[..., Any],
    fake: Callable[..., Any],
    dtypes: tuple[torch.dtype, ...] = FLOATS,
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
    autocast: torch.dtype | None = None,
    per_sample: bool = False,
    flops: Callable[..., int] | None = None,
) -> None:
    """Declare one op: schema, fallback, fake, autograd, autocast, vmap and FLOP formula.

    Args:
        schema: `name(arguments) -> results`, without the namespace.
        reference: plain PyTorch with the arguments of the schema; what runs where no kernel is registered.
        fake: shapes and strides of the results, for torch.compile and the meta device.
        dtypes: dtypes of the first tensor that the native kernels take.
        setup_context: as in `torch.library.register_autograd`.
        backward: as there, after a first argument: the ops of the side that the forward ran on.
        autocast: dtype that floating inputs are cast to under autocast; None keeps them.
        per_sample: dimension 0 of the tensors is a batch of independent samples, so vmap folds into it; otherwise vmap
            runs one call per entry.
        flops: floating-point operations from the shapes of the arguments, for `torch.utils.flop_counter`.
    """
    name = schema.split("(", 1)[0]

    def fallback(*args: Any) -> Any:
        _took(f"{name}:reference")
        return reference(*args)

    def register(namespace: str, library: torch.library.Library) -> Any:
        qualified, ops = f"{namespace}::{name}", getattr(torch.ops, namespace)
        library.define(schema)
        library.impl(name, fallback, "CompositeExplicitAutograd")
        torch.library.register_fake(qualified, fake, lib=library)
        overload = getattr(ops, name).default
        if backward is not None:
            rule = partial(backward, ops)
            torch.library.register_autograd(qualified, rule, setup_context=setup_context, lib=library)
        if autocast is not None:
            for device in ("cpu", "cuda"):
                torch.library.register_autocast(qualified, device, autocast, lib=library)
        torch.library.register_vmap(qualified, _batched(overload, per_sample), lib=library)
        if flops is not None:
            register_flop_formula(overload.overloadpacket)(flops)
        return overload

    overload, slow = (register(namespace, library) for namespace, library in _libraries.items())
    OPS[name] = Op(name, overload, slow, reference, dtypes)


def not_differentiable(name: str) -> dict[str, Any]:
    """Arguments of `declare` for an op that cannot be differentiated (again): its backward says so."""

    def backward(ops: Any, ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError(f"fastseg::{name} is not differentiable")

    return {"backward": backward, "setup_context": lambda ctx, inputs, output: None}


def call(name: str, first: Tensor, *args: Any) -> Any:
    """Run an op where `current_backend()` wants it, or raise with every reason why it cannot run there."""
    op = OPS[name]
    wanted = _wanted()
    if wanted == "reference" or (wanted == "auto" and supports(op, first, "native")):
        if wanted == "auto":
            _warn_once(op, first)
        return op.slow(first, *args)
    if wanted != "auto":
        reasons = supports(op, first, wanted)
        if reasons:
            raise RuntimeError(f"fastseg::{name}: backend must be able to run, got {wanted!r}: {'; '.join(reasons)}")
    return op.overload(first, *args)


def _wanted() -> str:
    """The backend asked for; a variable that cannot be followed raises."""
    wanted = _config.current_backend()
    if wanted != "reference" and _native.isa_fault:
        raise ValueError(_native.isa_fault)
    return wanted


def supports(op: Op, tensor: Tensor, backend: str) -> list[str]:
    """Reasons why `backend` cannot run `op` on a tensor like this one; an empty list means that it can."""
    if backend in ("auto", "reference"):
        return []
    reasons = []
    if tensor.dtype not in op.dtypes:
        reasons.append(f"the {backend} kernels take {', '.join(map(str, op.dtypes))}, not {tensor.dtype}")
    if backend in ("triton", "cuda"):
        reasons.append(f"{op.name} has no {backend} kernel")
    elif tensor.device.type == "cpu":
        if not _native.loaded:
            reasons.append(_native.why_not)
    elif tensor.device.type != "meta":
        reasons.append(f"{op.name} has no compiled kernel for device {tensor.device.type}")
    return reasons


def describe(op: str | Callable[..., Any], *args: Any, **kwargs: Any) -> Description:
    """Say what would run for these arguments, and why not the others.

    Args:
        op: the function (`fastseg.ops.upsample_argmax`) or its name, or that of an op in a trace.
        *args, **kwargs: the arguments of the call, and what the call refuses is refused here too; with fewer than a
            call takes, the first tensor decides.

    Example:
        >>> fastseg.describe("upsample_argmax", torch.zeros(1, 19, 8, 8), (32, 32)).path
        'cpu/avx512'
    """
    name = op if isinstance(op, str) else getattr(op, "__name__", repr(op))
    if name not in OPS:
        raise ValueError(f"fastseg::describe: op must be one of {', '.join(sorted(OPS))}, got {name!r}")
    wanted = _wanted()
    reached, tensor = _reached(name, args, kwargs)
    reasons = {b: supports(reached, tensor, b) for b in _config.BACKENDS if b not in ("auto", "reference")}
    chosen = wanted if wanted != "auto" else ("reference" if reasons["native"] else "native")
    if chosen == "native" and tensor.device.type == "cpu" and not reasons["native"]:
        path = f"cpu/{_native.cpu_isa()}"
    else:
        path = "none" if reasons.get(chosen) or tensor.dtype not in reached.dtypes else chosen
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


class trace:
    """Collect the path of every op run in a `with` block, as `op:path` strings, those of inner blocks too.

    Example:
        >>> with trace() as paths:
        ...     fastseg.ops.upsample_argmax(logits, (512, 512))
        >>> paths
        ['upsample_argmax:cpu/avx512']
    """

    def __enter__(self) -> list[str]:
        _collect()
        _traces.append([])
        if _native.loaded:
            torch.ops.fastseg._trace_start()
        return _traces[-1]

    def __exit__(self, *_: object) -> None:
        _collect()
        _traces.pop()
        if _native.loaded and _traces:
            torch.ops.fastseg._trace_start()


def _collect() -> None:
    """Hand what the kernels noted to every open trace."""
    if _native.loaded and _traces:
        for path in filter(None, torch.ops.fastseg._trace_stop().split("\n")):
            _took(path)


def _took(path: str) -> None:
    for paths in _traces:
        paths.append(path)


def _warn_once(op: Op, tensor: Tensor) -> None:
    if torch.compiler.is_compiling():
        return
    reason = "; ".join(supports(op, tensor, "native"))
    if reason not in _warned:
        _warned.add(reason)
        warnings.warn(f"fastseg::{op.name} runs its slow reference: {reason}", RuntimeWarning, stacklevel=4)


def _batched(overload: Any, per_sample: bool) -> Callable[..., Any]:
    """The vmap rule: fold the mapped dimension into the batch, or call the op once per entry."""
    schema = overload._schema.arguments
    filled = [i for i, argument in enumerate(schema) if argument.alias_info and argument.alias_info.is_write]

    def rule(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[Any, Any]:
        mapped = [a.name for a, d in zip(schema, in_dims, strict=True) if d is not None]
        for i in filled:
            if in_dims[i] is None:
                raise ValueError(f"fastseg::{overload.overloadpacket.__name__}: {schema[i].name} must be mapped by "
                                 f"vmap where {' and '.join(mapped)} is, got one for all entries")  # fmt: skip
        tensors = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        if per_sample and all(in_dims[i] is not None for i in tensors):
            folded = list(args)
            for i in tensors:
                folded[i] = args[i].movedim(in_dims[i], 0).flatten(0, 1)
            out = overload(*folded)
            unfold = lambda t: t.unflatten(0, (info.batch_size, -1))  # noqa: E731
        else:
            rows = [
                overload(*[a if d is None else a.select(d, i) for a, d in zip(args, in_dims, strict=True)])
                for i in range(info.batch_size)
            ]
            if filled:
                return None, None
            out = tuple(map(torch.stack, zip(*rows, strict=True))) if isinstance(rows[0], tuple) else torch.stack(rows)
            unfold = lambda t: t  # noqa: E731
        if isinstance(out, tuple):
            return tuple(map(unfold, out)), (0,) * len(out)
        return unfold(out), 0

    return rule
