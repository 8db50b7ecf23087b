"""What the Triton launchers compute on the host: the width of integers, tiles, grids, and programs that compile."""

from typing import Any

import pytest
import torch

from fastseg import _triton
from fastseg.ops.arguments import empty_images
from fastseg.testing.ladder.kernels import use_kernels

pytestmark = pytest.mark.skipif(bool(_triton.why_not), reason=_triton.why_not)
LIMIT = 2**31


@pytest.fixture(scope="module")
def kernels() -> Any:
    from importlib import import_module

    use_kernels()
    return import_module("fastseg.kernels.upsample")


def maps(strides: tuple[int, ...], *size: int) -> torch.Tensor:
    return torch.empty_strided((1, 1, *size), strides, device="meta")


@pytest.mark.parametrize(("largest", "wide"), [(LIMIT - 1, False), (LIMIT, True), (2 * LIMIT + 1, True)])
def test_int64_begins_at_2_to_the_31(kernels: Any, largest: int, wide: bool) -> None:
    assert kernels.needs_int64(largest) is wide
    # Offsets into the source: of its second row, the farthest element.
    far = maps((0, 0, largest, 1), 2, 1)
    out = empty_images(far, (1, 1, 3, 3), far.dtype)
    (launch,) = kernels.launches(far, out, False)
    assert launch.arguments["WIDE"] is wide


def test_the_largest_index_is_the_largest_of_each_kind(kernels: Any) -> None:
    def largest(x: torch.Tensor, height: int, width: int, row: int, block: int) -> int:
        return int(kernels.largest_index(x, torch.empty(1, 1, height, width, device="meta"), row, block))

    dense = maps((12, 12, 4, 1), 3, 4)
    assert largest(dense, 5, 2, 2, 512) == 5 * 2 + 512  # the end of the last tile
    assert largest(dense, 900, 2, 2, 0) == 2 * 3 * 900 + 3 + 900  # (2i + 1) H + h - 1 and more
    assert largest(dense, 2, 900, 900, 0) == 2 * 4 * 900 + 4 + 900
    assert largest(maps((0, 0, 10**6, 10), 3, 4), 5, 2, 2, 0) == 2 * 10**6 + 3 * 10


def test_a_dense_plane_of_2_to_the_31_pixels(kernels: Any) -> None:
    x = torch.empty(1, 1, 64, 64, dtype=torch.float16, device="meta")
    for height, wide in ((2**15 - 1, False), (2**15, True)):
        out = empty_images(x, (1, 1, height, 2**16), x.dtype)
        (launch,) = kernels.launches(x, out, False)
        assert launch.arguments["WIDE"] is wide


def test_planes_are_split_over_grids(kernels: Any) -> None:
    grids = kernels.grids
    assert list(grids(3, 7)) == [(0, 21)]
    assert list(grids(5, 2**30)) == [(i, 2**30) for i in range(5)]
    assert list(grids(7, (LIMIT - 1) // 3)) == [(0, 3 * 715827882), (3, 3 * 715827882), (6, 715827882)]
    with pytest.raises(ValueError, match="fastseg::launch: a plane must take at most 2147483647 programs"):
        list(grids(1, LIMIT))


@pytest.mark.parametrize(
    ("row", "itemsize", "expected"),
    [(2048, 4, (512, 4)), (513, 4, (256, 2)), (1, 4, (256, 2)), (2048, 2, (1024, 4)), (2048, 1, (1024, 4))],
)
def test_a_tile_is_16_bytes_a_thread_and_leaves_few_idle(
    kernels: Any, row: int, itemsize: int, expected: tuple[int, int]
) -> None:
    assert kernels.tile(row, itemsize) == expected


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1)])
def test_sizes_of_one_compile(kernels: Any, size: tuple[int, int], align_corners: bool) -> None:
    """The compiler makes constants of sizes that are 1, which the interpreter does not."""
    from triton import compile
    from triton.backends.compiler import GPUTarget

    x = torch.empty(1, 1, 1, 1, device="meta")
    (launch,) = kernels.launches(x, empty_images(x, (1, 1, *size), x.dtype), align_corners)
    code = compile(launch.program(), target=GPUTarget("cuda", 90, 32), options=launch.options)
    assert code.asm["cubin"]


def test_compilations_know_what_divides_a_row(kernels: Any) -> None:
    found = {name: program for name, program, _ in kernels.compilations()}
    row = kernels.upsample.arg_names.index("row")
    divisible = {name for name, program in found.items() if program.attrs.get((row,))}
    assert divisible == {name for name in found if "divisible" in name}
    assert len(found) == 22 and {name.split("<")[0] for name in found} == {"bilinear", "threshold"}
