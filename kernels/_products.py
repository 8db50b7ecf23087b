"""Matrix products that launchers leave to the library: pixels by channels, batches of images, sums in float32.

In half precision the factors are read as they are and the product is kept in float32. In float32 the library multiplies
as `torch.backends.cuda.matmul` says: in TF32 only where its user allows it.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

WORKSPACE = 64 << 20


def workspace() -> int:
    """Bytes that a launcher holds at a time beside arguments and results."""
    return WORKSPACE


def pixels(x: Tensor) -> Tensor:
    """Rows of dense maps [N, C, rows, W], a view as matrices [N, rows * W, C]."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def matmul(a: Tensor, b: Tensor, out: Tensor) -> None:
    """out [N, M, K] = a [N, M, J] b [J, K]; what lies together in memory is one product."""
    if a.stride(0) == a.shape[1] * a.stride(1) and out.stride(0) == out.shape[1] * out.stride(1):
        a, out = a.flatten(0, 1)[None], out.flatten(0, 1)[None]
    b = b.expand(a.shape[0], -1, -1)
    if a.dtype == b.dtype == out.dtype:
        torch.bmm(a, b, out=out)
    elif a.dtype == b.dtype and a.is_cuda:
        torch.bmm(a, b, out_dtype=out.dtype, out=out)
    else:
        torch.bmm(a.to(out.dtype), b.to(out.dtype), out=out)


def add_matmul(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total [J, K] += the sum over images of a^T b, a [N, M, J], b [N, M, K]: one image after the other, in order."""
    for one, other in zip(a, b, strict=True):
        torch.addmm(total, one.to(total.dtype).T, other.to(total.dtype), out=total)


def portions(count: int, most: int) -> Iterator[slice]:
    """`count` things, so many at a time."""
    for first in range(0, count, most):
        yield slice(first, min(count, first + most))
