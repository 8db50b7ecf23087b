"""Rows of atrous spatial pyramid pooling."""

from collections.abc import Iterator
from typing import Any

import torch

from ...ops.atrous_conv_algorithms import prepack_atrous_weight
from ..case import Case, Inputs
from ..layouts import with_layout
from ..signals import generator
from .atrous_conv import ALGORITHM

TABLES = ("branch_scale", "branch_shift", "project_scale", "project_shift")
GRAD: tuple[int | str, ...] = (0, 1, 2, 4, 5, *TABLES)


def head(
    shape: tuple[int, int, int, int],
    width: int,
    outputs: int,
    rates: tuple[int, ...],
    *,
    pool: bool = True,
    pooled: bool = False,
    tables: bool = True,
    packed: bool = False,
) -> Any:
    """Arguments (x, pointwise, branches, rates, pool, project), with scales and shifts unless `tables` says no."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        g = generator(seed)
        channels, parts = shape[1], len(rates) + 1 + pool

        def weight(out: int, into: int, side: int) -> torch.Tensor:
            values = torch.randn(out, into, side, side, generator=g, dtype=torch.float64) / (into * side * side) ** 0.5
            return with_layout(values.to(dtype=dtype, device=device), layout)

        def vector(*size: int) -> torch.Tensor:
            return (0.5 + torch.rand(size, generator=g, dtype=torch.float64)).to(dtype=dtype, device=device)

        x = with_layout(
            (torch.randn(shape, generator=g, dtype=torch.float64) + 0.1).to(dtype=dtype, device=device), layout
        )
        point, branches = weight(width, channels, 1), [weight(width, channels, 3) for _ in rates]
        of_pool, project = weight(width, channels, 1) if pool else None, weight(outputs, parts * width, 1)
        extra: dict[str, Any] = {}
        if tables:
            sizes = ((parts, width), (parts, width), (outputs,), (outputs,))
            extra |= {name: vector(*size) for name, size in zip(TABLES, sizes, strict=True)}
        if pooled:
            extra["pooled"] = vector(shape[0], channels)
        if packed:
            names = [ALGORITHM.get((shape[2], rate), "winograd3") for rate in rates]
            extra["packed"] = [prepack_atrous_weight(w, a) for w, a in zip(branches, names, strict=True)]
        return (x, point, branches, rates, of_pool, project), extra

    return make


def summands(inputs: Inputs) -> float:
    """Products behind a result: of a branch, and of the projection."""
    (x, _, _, _, _, project), _ = inputs
    return 9.0 * x.shape[1] + project.shape[1]


def terms(inputs: Inputs) -> float:
    """Products behind a gradient."""
    (x, point, branches, *_), _ = inputs
    return float(max(x[:, 0].numel(), 1) + 9 * len(branches) * point.shape[0])


def _rows() -> Iterator[Case]:
    def row(id: str, make: Any, *tags: str, grad: tuple[int | str, ...] = (), **more: Any) -> Case:
        return Case("aspp_conv2d", id, make, grad, frozenset(tags), summands=summands, terms=terms, gemm=True, **more)

    # In inference one op, in training convolutions.
    def both(id: str, make: Any, *tags: str, grad: tuple[int | str, ...] = GRAD) -> Iterator[Case]:
        yield row(id, make, *tags)
        yield row(f"trained_{id}", make, *tags, grad=grad)

    yield from both("square", head((2, 6, 9, 9), 4, 5, (1, 2, 4)), "smoke")
    yield from both("pooled", head((1, 5, 7, 8), 3, 4, (2, 3), pooled=True), "odd", grad=(*GRAD, "pooled"))
    yield from both("no_pool", head((2, 5, 6, 7), 3, 4, (2, 9), pool=False), grad=(0, 1, 2, 5, *TABLES))
    yield from both("no_tables", head((1, 5, 6, 7), 3, 4, (2, 3), tables=False), grad=GRAD[:5])
    yield from both("no_rates", head((1, 5, 6, 7), 3, 4, ()))
    yield from both("one", head((1, 1, 5, 6), 1, 1, (2,)))
    yield from both("one_pixel", head((2, 4, 1, 1), 3, 2, (1, 6)))
    yield from both("rate_beyond", head((1, 4, 5, 12), 3, 2, (6, 20)))
    yield from both("no_batch", head((0, 4, 5, 6), 3, 2, (2,)), "degenerate")
    yield row("tiles", head((2, 200, 17, 16), 64, 64, (2, 4, 9)), dtypes=(torch.float32,))
    for side, rates in ((33, (6, 12, 18)), (65, (12, 24, 36))):
        shape, tags = (1, 2048, side, side), ("bench", "paper", "heavy")
        yield row(f"c2048_{side}", head(shape, 256, 256, rates), *tags, grad=GRAD)
        packed = head(shape, 256, 256, rates, packed=True)
        yield row(f"c2048_{side}_packed", packed, *tags, dtypes=(torch.float32,))


CASES: tuple[Case, ...] = tuple(_rows())
