"""Run one row and judge it: the battery that tests, benchmarks and `fastseg bench` share."""

from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .. import _config, _registry, _trace, ops
from . import asserts
from .bands import Band
from .case import Case, Inputs, tensors_of
from .layouts import with_layout
from .signals import generator
from .tolerances import compute_dtype, exponent, floor, growth, sum_floor, wide_sum

SEED = 20
NARROW = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Run:
    """Results of one call, gradients of its differentiable inputs, and the paths taken."""

    outputs: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]
    paths: tuple[str, ...]


class _Plain(TorchFunctionMode):
    """References as the plain functions that they are, differentiated by PyTorch's rules and not by ours."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for op in _registry.OPS.values():
            if func is op.slow:
                return op.reference(*args)
        return func(*args, **(kwargs or {}))


class Truth:
    """What one row should give: float64 results, plain PyTorch's results in the row's dtype, and the tie bands."""

    def __init__(self, case: Case, dtype: torch.dtype) -> None:
        self.case, self.dtype = case, dtype
        self.inputs = inputs_of(case, dtype, exact=True)
        if case.oracle:
            self.exact = self.plain = Run(tensors_of(case.oracle(*self.inputs[0], **self.inputs[1])), (), ())
            return
        with _config.backend("reference"), _Plain():
            self.exact = run_inputs(case, self.inputs, dtype)
            self.plain = self.exact if dtype == torch.float64 else self._plain()

    def _plain(self) -> Run:
        """Plain PyTorch's run; where a library sums, the results that are further off of two memory formats."""
        if not self.case.gemm:
            return run(self.case, self.dtype)
        runs = [run(self.case, self.dtype, layout) for layout in ("contiguous", "channels_last")]

        def off(got: Tensor, right: Tensor) -> float:
            return float((got - right).nan_to_num(0, 0, 0).abs().sum())

        def worst(kind: str) -> tuple[Tensor, ...]:
            choices = zip(*(getattr(r, kind) for r in runs), getattr(self.exact, kind), strict=True)
            return tuple(max(given, key=partial(off, right=right)) for *given, right in choices)

        return Run(worst("outputs"), worst("gradients"), runs[0].paths)

    def floor(self, dtype: torch.dtype) -> float:
        """Error granted to a result of this dtype in any case, relative to the largest magnitude."""
        x = self.inputs[0][0]
        finite = x[x.isfinite()] if self.case.exponential else x[:0]
        through_exp = exponent(float(finite.abs().max()), x.shape[1]) if finite.numel() else 0.0
        summed = sum_floor(dtype, self.case.summands(self.inputs) - 1)
        return floor(dtype, max((1, *x.shape[2:])), through_exp) + summed

    def gradient_floor(self, dtype: torch.dtype) -> float:
        """The same for a gradient, which is a sum."""
        return self.floor(dtype) + sum_floor(dtype, self.case.terms(self.inputs))

    def gradients(self, got: Run) -> list[tuple[Tensor, Tensor]]:
        """The gradients that are right, and plain PyTorch's, in float64."""
        if not self.case.backward or not got.gradients or self.dtype not in NARROW:
            return list(zip(self.exact.gradients, self.plain.gradients, strict=True))
        # Plain PyTorch keeps in float32 what this backward has in the row's dtype: its error says nothing here.
        output = got.outputs[0]
        right = self.case.backward(self.inputs, output.double(), _upstream(output, self.dtype).double())
        return [(exact, exact) for exact in right]

    def wide_error(self, exact: Tensor) -> float:
        """Error granted to a result in the dtype that it was computed in, before it was rounded to a narrow one."""
        finite = exact[exact.isfinite()]
        granted = self.floor(compute_dtype(self.dtype)) + wide_sum(self.dtype, self.case.summands(self.inputs))
        return granted * float(finite.abs().max()) if finite.numel() else 0.0

    @cached_property
    def band(self) -> Band | None:
        """Where a kernel's integers may differ from the truth."""
        return self.case.band(self.inputs, self.dtype, None) if self.case.band else None

    @cached_property
    def plain_band(self) -> Band | None:
        """Where they may differ from plain PyTorch, or plain PyTorch from the truth."""
        plain = inputs_of(self.case, self.dtype)[0][0].to(compute_dtype(self.dtype))
        return self.case.band(self.inputs, self.dtype, plain) if self.case.band else None


def as_float64(value: Any) -> Any:
    """Floating tensors, and lists of them, as float64, anything else as it is."""
    if isinstance(value, list):
        return [as_float64(v) for v in value]
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def inputs_of(
    case: Case, dtype: torch.dtype, layout: str = "contiguous", device: str = "cpu", *, exact: bool = False
) -> Inputs:
    """The arguments of a row; with `exact`, their values as float64."""
    args, kwargs = case.make(SEED, dtype, device, layout)
    if exact:
        args, kwargs = tuple(map(as_float64, args)), {k: as_float64(v) for k, v in kwargs.items()}
    return args, kwargs


def differentiated(case: Case, inputs: Inputs) -> tuple[Inputs, list[Tensor]]:
    """The arguments of a row with those that it differentiates as leaves of a graph, and these leaves."""
    args, kwargs = list(inputs[0]), dict(inputs[1])
    leaves: list[Tensor] = []

    def leaf(value: Any) -> Any:
        if isinstance(value, list):
            return [leaf(v) for v in value]
        leaves.append(value.detach().requires_grad_())
        return leaves[-1]

    for at in case.grad:
        place: Any = args if isinstance(at, int) else kwargs
        place[at] = leaf(place[at])
    return (tuple(args), kwargs), leaves


def run_inputs(case: Case, inputs: Inputs, dtype: torch.dtype, layout: str = "contiguous") -> Run:
    """Call the op on these inputs and differentiate its results with fixed random upstream gradients."""
    (args, kwargs), leaves = differentiated(case, inputs)
    with _trace.trace() as paths:
        result = getattr(ops, case.op)(*args, **kwargs)
        outputs = tensors_of(result)
        gradients: tuple[Tensor, ...] = ()
        if case.grad:
            through = [o for o in outputs if o.requires_grad]
            given = [with_layout(_upstream(o, dtype, i), layout) for i, o in enumerate(through)]
            gradients = torch.autograd.grad(through, leaves, given)
    return Run(tuple(o.detach().cpu() for o in outputs), tuple(g.cpu() for g in gradients), tuple(paths))


def _upstream(output: Tensor, dtype: torch.dtype, number: int = 0) -> Tensor:
    """A random gradient of a result, the same values in every dtype up to rounding."""
    wide = torch.randn(output.shape, generator=generator(SEED + 1 + number), dtype=compute_dtype(dtype))
    return wide.to(dtype).to(output)


def run(case: Case, dtype: torch.dtype, layout: str = "contiguous", device: str = "cpu") -> Run:
    """Call the op on the inputs of a row; the results come back to the CPU."""
    return run_inputs(case, inputs_of(case, dtype, layout, device), dtype, layout)


@lru_cache(maxsize=4)
def truth(case: Case, dtype: torch.dtype) -> Truth:
    """The truth of a row, kept while tests go through its layouts and instruction sets."""
    return Truth(case, dtype)


def judge(case: Case, dtype: torch.dtype, got: Run) -> None:
    """Raise AssertionError unless `got` is right: against float64, and float32 integers also against plain PyTorch."""
    right = truth(case, dtype)
    by_reference = any(path.endswith(":reference") for path in got.paths[:1])  # the forward; a backward comes after it
    compare = asserts.assert_counts if case.counts else asserts.assert_pixels
    rows = zip(got.outputs, right.exact.outputs, right.plain.outputs, strict=True)
    for i, (value, exact, plain) in enumerate(rows):
        what = f"{case.name} {dtype} result {i}"
        if exact.is_floating_point():
            grown = growth(got.paths[0]) if value.dtype == torch.float32 and got.paths else 1.0
            asserts.assert_close(value, exact, plain, right.floor(value.dtype), what, grown)
            if value.dtype in NARROW and not by_reference:
                asserts.assert_rounded(value, exact, right.wide_error(exact), what)
            continue
        # The reference is plain PyTorch, with a source coordinate in float32.
        compare(value, exact, lambda: right.plain_band if by_reference else right.band, what)
        if dtype == torch.float32:
            compare(value, plain, lambda: right.plain_band, what + " against PyTorch")
    for i, (value, (exact, plain)) in enumerate(zip(got.gradients, right.gradients(got), strict=True)):
        what = f"{case.name} {dtype} gradient {i}"
        asserts.assert_gradient(value, exact, plain, right.gradient_floor(value.dtype), case.pixels(right.inputs), what)


def assert_paths(got: Run, expected: str) -> None:
    """Every op of the run took the expected path, and at least one op ran."""
    other = [p for p in got.paths if p.split(":")[1] != expected]
    if other or not got.paths:
        raise AssertionError(f"expected {expected}, took {other or 'no path at all'}")


def assert_same(a: Run, b: Run, what: str) -> None:
    """Bitwise equal results and gradients."""
    for kind, left, right in (("result", a.outputs, b.outputs), ("gradient", a.gradients, b.gradients)):
        for i, (x, y) in enumerate(zip(left, right, strict=True)):
            if not torch.equal(bits(x), bits(y)):
                at = (bits(x) != bits(y)).nonzero()[0].tolist()
                raise AssertionError(f"{what}: {kind} {i}{at}: {x[tuple(at)].item()!r} and {y[tuple(at)].item()!r}")


def bits(x: Tensor) -> Tensor:
    """Integers that compare as the bits do, so that NaN equals NaN and 0 differs from -0."""
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    return x.contiguous().view(integer)
