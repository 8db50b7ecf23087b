"""declare(): everything PyTorch has to know about one op, in one call."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.flop_counter import register_flop_formula

from . import _config, _native, _triton
from ._trace import took

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

# The same ops twice, under the same rules: fastseg with kernels where there are any, fastseg_reference without.
_libraries = {name: torch.library.Library(name, "FRAGMENT") for name in ("fastseg", "fastseg_reference")}
_warned: set[str] = set()


@dataclass(frozen=True)
class Op:
    """One declared op: the overloads PyTorch dispatches, its reference, and what its native kernels take.

    `overload` takes a kernel where there is one, `slow` never does; `reference` is the function behind `slow`. On a GPU
    runs its Triton kernel, of the stem `triton`, or else its compiled one, if the CUDA library has `cuda`.
    """

    name: str
    overload: Any
    slow: Any
    reference: Callable[..., Any]
    dtypes: tuple[torch.dtype, ...]
    triton: str | None
    cuda: bool


OPS: dict[str, Op] = {}


def declare(
    schema: str,
    *,
    reference: Callable[..., Any],
    fake: Callable[..., Any],
    dtypes: tuple[torch.dtype, ...] = FLOATS,
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
    autocast: torch.dtype | Literal["lower"] | None = None,
    per_sample: bool | tuple[str, ...] = False,
    flops: Callable[..., int] | None = None,
    triton: str | None = None,
) -> None:
    """Declare one op: schema, fallback, fake, autograd, autocast, vmap and FLOP formula.

    Args:
        schema: `name(arguments) -> results`, without the namespace.
        reference: plain PyTorch with the arguments of the schema; what runs where no kernel is registered.
        fake: shapes and strides of the results, for torch.compile and the meta device.
        dtypes: dtypes of the first tensor that the native kernels take.
        setup_context: as in `torch.library.register_autograd`.
        backward: as there, after a first argument: the ops of the side that the forward ran on.
        autocast: dtype that floating inputs are cast to under autocast; `lower` takes autocast's own and keeps vectors
            (scales and shifts) as they are; None keeps all.
        per_sample: dimension 0 of the tensors, or of those named, is a batch of independent samples, so vmap folds into
            it; otherwise vmap runs one call per entry.
        flops: floating-point operations from the shapes of the arguments, for `torch.utils.flop_counter`.
        triton: stem of the Triton kernel where that is what runs on a GPU: `fastseg.kernels.<stem>.launch_<name>`, with
            the arguments of the schema.
    """
    name = schema.split("(", 1)[0]

    def fallback(*args: Any) -> Any:
        took(f"{name}:reference")
        return reference(*args)

    def missing(*args: Any) -> Any:
        # A backward whose forward has a kernel comes here without `call`.
        _warn_once(OPS[name], args[0])
        return fallback(*args)

    def register(namespace: str, library: torch.library.Library) -> Any:
        qualified, ops = f"{namespace}::{name}", getattr(torch.ops, namespace)
        library.define(schema)
        library.impl(name, missing if namespace == "fastseg" else fallback, "CompositeExplicitAutograd")
        torch.library.register_fake(qualified, fake, lib=library)
        overload = getattr(ops, name).default
        if backward is not None:
            rule = partial(backward, ops)
            torch.library.register_autograd(qualified, rule, setup_context=setup_context, lib=library)
        if autocast == "lower":
            _lower_under_autocast(library, name, overload)
        elif autocast is not None:
            for device in ("cpu", "cuda"):
                torch.library.register_autocast(qualified, device, autocast, lib=library)
        torch.library.register_vmap(qualified, _batched(overload, per_sample), lib=library)
        if flops is not None:
            register_flop_formula(overload.overloadpacket)(flops)
        return overload

    overload, slow = (register(namespace, library) for namespace, library in _libraries.items())
    # Asked once: torch.compile cannot follow the question.
    OPS[name] = Op(name, overload, slow, reference, dtypes, triton, has_kernel(name, "CUDA"))
    if triton and not _triton.why_not:
        launch = _triton.launcher(name, triton)

        def kernel(*args: Any) -> Any:
            took(f"{name}:{_triton.path}")
            return launch(*args)

        _libraries["fastseg"].impl(name, kernel, _triton.device.upper())


def not_differentiable(name: str) -> dict[str, Any]:
    """Arguments of `declare` for an op that cannot be differentiated (again): its backward says so."""

    def backward(ops: Any, ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError(f"fastseg::{name} is not differentiable")

    return {"backward": backward, "setup_context": lambda ctx, inputs, output: None}


def call(name: str, first: Tensor, *args: Any) -> Any:
    """Run an op where `current_backend()` wants it, or raise with every reason why it cannot run there."""
    op = OPS[name]
    if forward_ad._current_level >= 0 and any(map(_has_tangent, (first, *args))):  # which would get lost
        raise NotImplementedError(f"fastseg::{name}: tensors must have no tangents, got one: there is no forward mode")
    wanted = wanted_backend()
    if wanted == "reference" or (wanted == "auto" and supports(op, first, "native")):
        if wanted == "auto":
            _warn_once(op, first)
        return op.slow(first, *args)
    if wanted != "auto":
        reasons = supports(op, first, wanted)
        if reasons:
            raise RuntimeError(f"fastseg::{name}: backend must be able to run, got {wanted!r}: {'; '.join(reasons)}")
    return op.overload(first, *args)


def _has_tangent(x: Any) -> bool:
    if isinstance(x, list | tuple):
        return any(map(_has_tangent, x))
    return isinstance(x, Tensor) and forward_ad.unpack_dual(x).tangent is not None


def wanted_backend() -> str:
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
    device = tensor.device.type
    wanted = champion(op, device) if backend == "native" else backend
    return [*reasons, *filter(None, [_absence(op, wanted, device)])]


def champion(op: Op, device: str) -> str:
    """What `native` means for an op on a device: `cpu`, `cuda`, `triton`, or the name of another device."""
    return "triton" if op.triton and device == _triton.device else device


def _absence(op: Op, kernels: str, device: str) -> str:
    """Why there are no such kernels of an op for tensors on a device, or nothing."""
    if kernels == "cpu":
        return _native.why_not
    if kernels not in ("triton", "cuda"):
        return "" if kernels == "meta" else f"{op.name} has no compiled kernel for device {kernels}"
    if (kernels == "triton") != bool(op.triton):
        return f"{op.name} has no {kernels} kernel"
    if missing := _triton.why_not if op.triton else _native.cuda_why_not:
        return missing
    if kernels == "cuda" and not op.cuda:
        return f"{op.name} has no cuda kernel"
    where = _triton.device if op.triton else "cuda"
    return "" if device == where else f"{kernels} kernels take {where} tensors here, not {device}"


def has_kernel(name: str, key: str) -> bool:
    """Whether the dispatcher has a kernel of this op for this key, `CPU` or `CUDA`, apart from the reference."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(f"fastseg::{name}", key))


def _warn_once(op: Op, tensor: Tensor) -> None:
    if torch.compiler.is_compiling():
        return
    reason = "; ".join(supports(op, tensor, "native"))
    if reason and reason not in _warned:
        _warned.add(reason)
        warnings.warn(f"fastseg::{op.name} runs its slow reference: {reason}", RuntimeWarning, stacklevel=4)


def lowering(device: str) -> Callable[[Any], Any]:
    """What autocast does to an argument."""

    def cast(x: Any) -> Any:
        if isinstance(x, list):
            return [cast(one) for one in x]
        lower = isinstance(x, Tensor) and x.dim() > 2 and x.is_floating_point() and x.dtype != torch.float64
        return x.to(torch.get_autocast_dtype(device)) if lower and x.device.type == device else x

    return cast


def _lower_under_autocast(library: torch.library.Library, name: str, overload: Any) -> None:
    """Cast maps and weights to the dtype of autocast, as torch does for its convolutions; scales are kept."""

    def register(device: str) -> None:
        key = f"Autocast{device.upper()}"
        keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

        def kernel(*args: Any) -> Any:
            with torch._C._ExcludeDispatchKeyGuard(keys):
                return overload(*map(lowering(device), args))

        library.impl(name, kernel, key)

    register("cpu")
    register("cuda")


def _selected(argument: Any, dim: Any, i: int) -> Any:
    """Entry i of an argument that is mapped along a dimension; a list has one for each of its tensors."""
    if isinstance(argument, list) and isinstance(dim, list | tuple):
        return [_selected(a, d, i) for a, d in zip(argument, dim, strict=True)]
    return argument.select(dim, i) if isinstance(dim, int) else argument


def _batched(overload: Any, per_sample: bool | tuple[str, ...]) -> Callable[..., Any]:
    """The vmap rule: fold the mapped dimension into the batch, or call the op once per entry."""
    schema = overload._schema.arguments
    samples = {a.name for a in schema} if per_sample is True else set(per_sample or ())
    filled = [i for i, argument in enumerate(schema) if argument.alias_info and argument.alias_info.is_write]

    def rule(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[Any, Any]:
        mapped = [a.name for a, d in zip(schema, in_dims, strict=True) if d is not None and d != []]
        for i in filled:
            if in_dims[i] is None:
                raise ValueError(f"fastseg::{overload.overloadpacket.__name__}: {schema[i].name} must be mapped by "
                                 f"vmap where {' and '.join(mapped)} is, got one for all entries")  # fmt: skip
        tensors = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        batched = [i for i in tensors if schema[i].name in samples]
        if batched and all((in_dims[i] is not None) == (i in batched) for i in tensors):
            folded = list(args)
            for i in batched:
                folded[i] = args[i].movedim(in_dims[i], 0).flatten(0, 1)
            out = overload(*folded)
            unfold = lambda t: t.unflatten(0, (info.batch_size, -1))  # noqa: E731
        else:
            rows = [
                overload(*[_selected(a, d, i) for a, d in zip(args, in_dims, strict=True)])
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
