"""The steps of kernel-sharing atrous convolution: responses of all rates, and what follows and fuses them."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._registry import declare, not_differentiable
from ..reference import ksac as reference
from .arguments import empty_images, wide_dtype


def unfused(
    ops: Any, grad: Tensor, terms: Tensor, scale: Tensor | None, shift: Tensor | None, *options: Any
) -> tuple[Tensor | None, ...]:
    """The gradients of terms, scale and shift; recorded step by step where they are differentiated again."""
    again = torch.is_grad_enabled()
    rule = reference.ksac_fuse_backward if again else ops.ksac_fuse_backward
    of_terms, *vectors = rule(grad, terms, scale, shift, *options)
    given = zip((scale, shift), vectors, strict=True)
    return of_terms, *(None if v is None else g.to(v.dtype) for v, g in given)


def _save_terms(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    terms, scale, shift, *ctx.options = inputs
    ctx.save_for_backward(terms, scale, shift)


def _of_fuse(ops: Any, ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return *unfused(ops, grad, *ctx.saved_tensors, *ctx.options), None, None, None


def _save_pair(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *pair, ctx.rates = inputs
    ctx.save_for_backward(*pair)


# The responses are linear in maps and in weights, so that each of these three is differentiated by the other two.
def _of_responses(ops: Any, ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, weight = ctx.saved_tensors
    return ops.ksac_responses_input(grad, weight, ctx.rates), ops.ksac_responses_weight(grad, x, ctx.rates), None


def _of_input(ops: Any, ctx: Any, x: Tensor) -> tuple[Any, ...]:
    grad, weight = ctx.saved_tensors
    return ops.ksac_responses(x, weight, ctx.rates), ops.ksac_responses_weight(grad, x, ctx.rates), None


def _of_weight(ops: Any, ctx: Any, weight: Tensor) -> tuple[Any, ...]:
    grad, x = ctx.saved_tensors
    return ops.ksac_responses(x, weight, ctx.rates), ops.ksac_responses_input(grad, weight, ctx.rates), None


def _reads(size: Sequence[int], rate: int) -> int:
    """Pixels that the nine taps of a rate read, all together."""
    return math.prod(n + 2 * max(0, n - rate) for n in size)


def _products(maps: Sequence[int], inputs: int, outputs: int, rates: Sequence[int]) -> int:
    return int(2 * maps[0] * inputs * outputs * _reads(maps[2:], min(rates)))


def _sums(maps: Sequence[int], outputs: int, rates: Sequence[int]) -> int:
    return int(maps[0] * outputs * sum(_reads(maps[2:], r) for r in rates))


def shared_flops(x: Sequence[int], weight: Sequence[int], rates: Sequence[int], *_: Any, **__: Any) -> int:
    return _products(x, x[1], weight[0], rates) + _sums(x, weight[0], rates)


declare(
    "ksac_responses(Tensor x, Tensor weight, int[] rates) -> Tensor",
    reference=reference.ksac_responses,
    fake=lambda x, weight, rates: empty_images(
        x, (x.shape[0], weight.shape[0] * len(rates), *x.shape[2:]), wide_dtype(x.dtype)
    ),
    setup_context=_save_pair,
    backward=_of_responses,
    per_sample=("x",),
    flops=shared_flops,
    triton="ksac",
)
declare(
    "ksac_responses_input(Tensor grad, Tensor weight, int[] rates) -> Tensor",
    reference=reference.ksac_responses_input,
    fake=lambda grad, weight, rates: empty_images(
        grad, (grad.shape[0], weight.shape[1], *grad.shape[2:]), weight.dtype
    ),
    setup_context=_save_pair,
    backward=_of_input,
    per_sample=("grad",),
    flops=lambda grad, weight, rates, **_: _products(grad, weight[1], weight[0], rates) + _sums(grad, weight[0], rates),
    triton="ksac",
)
declare(
    "ksac_responses_weight(Tensor grad, Tensor x, int[] rates) -> Tensor",
    reference=reference.ksac_responses_weight,
    fake=lambda grad, x, rates: x.new_empty((grad.shape[1] // len(rates), x.shape[1], 3, 3)),
    setup_context=_save_pair,
    backward=_of_weight,
    flops=lambda grad, x, rates, **_: (
        _products(x, x[1], grad[1] // len(rates), rates) + _sums(x, grad[1] // len(rates), rates)
    ),
    triton="ksac",
)
declare(
    "ksac_fuse(Tensor terms, Tensor? scale, Tensor? shift, int count, bool concat, str activation) -> Tensor",
    reference=reference.ksac_fuse,
    fake=lambda terms, scale, shift, count, concat, activation: empty_images(
        terms, (terms.shape[0], terms.shape[1] // (1 if concat else count), *terms.shape[2:]), terms.dtype
    ),
    setup_context=_save_terms,
    backward=_of_fuse,
    per_sample=("terms",),
    flops=lambda terms, *_, **__: 4 * math.prod(terms),
    triton="ksac_fuse",
)
declare(
    "ksac_fuse_backward(Tensor grad, Tensor terms, Tensor? scale, Tensor? shift, int count, bool concat,"
    " str activation) -> (Tensor, Tensor, Tensor)",
    reference=reference.ksac_fuse_backward,
    fake=lambda grad, terms, scale, shift, count, concat, activation: (
        empty_images(terms, tuple(terms.shape), terms.dtype),
        terms.new_empty((count, terms.shape[1] // count)),
        terms.new_empty((count, terms.shape[1] // count)),
    ),
    flops=lambda grad, terms, *_, **__: 8 * math.prod(terms),
    triton="ksac_fuse",
    **not_differentiable("ksac_fuse_backward"),
)
