"""The permutohedral lattice as a thing to keep: built once, applied to many values."""

from typing import Any

import torch
from torch import Tensor

from .._registry import call, declare, not_differentiable
from ..reference import dense_crf_filters as reference
from ..reference.dense_crf_lattice import EPSILON, NORMALIZATIONS, TRANSPOSED
from .arguments import brief, check_devices, checked_choice, is_differentiated

DTYPES = (torch.float32, torch.float64)


class PermutohedralLattice:
    r"""The lattice of some features, for filtering many values: what `permutohedral_filter` builds in each call.

    Args:
        features: [N, d, P], float32 or float64, d from 1 to 8, finite, each already divided by its standard deviation.

    Attributes:
        vertices: int32 [N, P, d + 1], the corners of the simplex around each point, in the order of first touch.
        weights: [N, P, d + 1], barycentric coordinates, dtype of `features`.
        neighbours: int32 [N, d + 1, P (d + 1), 2], the vertex before and behind each one along each axis of the
            lattice, or `count` where there is none.
        count: int64 [N], how many vertices there are: at most P (d + 1), which there is room for.

    Memory: 8 (d + 1)^2 + 8 (d + 1) bytes a point (12 in float64), most of which is room that few features need.
    Gradient: of what is filtered, by the transposed kernel; none of the features. Devices: CPU and CUDA compiled,
    others through the reference. Errors, source: as in `permutohedral_filter`.

    Example:
        >>> lattice = PermutohedralLattice(torch.rand(1, 5, 100) * 4)
        >>> lattice.filter(torch.rand(1, 2, 100), normalization="symmetric").shape
        torch.Size([1, 2, 100])
    """

    def __init__(self, features: Tensor) -> None:
        op = "permutohedral_lattice"
        fits = isinstance(features, Tensor) and features.dim() == 3 and features.dtype in DTYPES
        if not fits or not 1 <= features.shape[1] <= 8:
            raise ValueError(f"fastseg::{op}: features must be float32 or float64 [N, 1 to 8, P], got "
                             f"{brief(features)}")  # fmt: skip
        if is_differentiated(features):
            raise ValueError(f"fastseg::{op}: features must not require a gradient, which the lattice has not, got "
                             f"{brief(features)} that does")  # fmt: skip
        self.vertices, self.weights, self.neighbours, self.count = call(op, features)

    def filter(self, values: Tensor, *, normalization: str = "none", transposed: bool = False) -> Tensor:
        """`permutohedral_filter` of values [N, C, P], or the transposed kernel of it."""
        op, (n, points, _) = "permutohedral_apply", self.vertices.shape
        fits = isinstance(values, Tensor) and values.dim() == 3 and values.dtype == self.weights.dtype
        if not fits or values.shape[::2] != (n, points):
            raise ValueError(f"fastseg::{op}: values must be {self.weights.dtype} [{n}, C, {points}], got "
                             f"{brief(values)}")  # fmt: skip
        state = {"weights": self.weights, "neighbours": self.neighbours, "count": self.count}
        check_devices(op, values, vertices=self.vertices, **state)
        mode = checked_choice(op, "normalization", normalization, NORMALIZATIONS)
        if mode == "none":
            return self._apply(values, transposed)
        sums = self._apply(torch.ones_like(values[:, :1]), False) + EPSILON
        mode = TRANSPOSED[mode] if transposed else mode
        factors = sums.rsqrt() if mode == "symmetric" else sums.reciprocal()
        result = self._apply(values if mode == "after" else values * factors, transposed)
        return result if mode == "before" else result * factors

    def diagonal(self) -> Tensor:
        """What the kernel takes from each point to itself [N, P]."""
        state = {"vertices": self.vertices, "neighbours": self.neighbours, "count": self.count}
        check_devices("permutohedral_diagonal", self.weights, **state)
        result: Tensor = call("permutohedral_diagonal", self.vertices, self.weights, self.neighbours, self.count)
        return result

    def _apply(self, values: Tensor, transposed: bool) -> Tensor:
        state = self.vertices, self.weights, self.neighbours, self.count
        result: Tensor = call("permutohedral_apply", values, *state, transposed)
        return result


def _fake_lattice(features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n, d, points = features.shape
    return (
        features.new_empty(n, points, d + 1, dtype=torch.int32),
        features.new_empty(n, points, d + 1),
        features.new_empty(n, d + 1, points * (d + 1), 2, dtype=torch.int32),
        features.new_empty(n, dtype=torch.long),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, *state, ctx.transposed = inputs
    ctx.save_for_backward(*state)


def _backward(ops: Any, ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return ops.permutohedral_apply(grad, *ctx.saved_tensors, not ctx.transposed), None, None, None, None, None


def _flops(values: Any, vertices: Any, *_: Any, **__: Any) -> int:
    n, c, points = values
    return int(4 * n * c * points * vertices[2])


declare(
    "permutohedral_lattice(Tensor features) -> (Tensor, Tensor, Tensor, Tensor)",
    reference=reference.permutohedral_lattice,
    fake=_fake_lattice,
    dtypes=DTYPES,
    autocast=torch.float32,
    per_sample=True,
    **not_differentiable("permutohedral_lattice"),
)
declare(
    "permutohedral_apply(Tensor values, Tensor vertices, Tensor weights, Tensor neighbours, Tensor count, "
    "bool transposed) -> Tensor",
    reference=reference.permutohedral_apply,
    fake=lambda values, *_: values.new_empty(values.shape),
    dtypes=DTYPES,
    setup_context=_save,
    backward=_backward,
    per_sample=True,
    flops=_flops,
)
declare(
    "permutohedral_diagonal(Tensor vertices, Tensor weights, Tensor neighbours, Tensor count) -> Tensor",
    reference=reference.permutohedral_diagonal,
    fake=lambda vertices, weights, *_: weights.new_empty(weights.shape[:2]),
    dtypes=(torch.int32,),
    per_sample=True,
    **not_differentiable("permutohedral_diagonal"),
)
