"""Launchers around a library's product hold no more than they state, and cut what they compute without a change."""

import re
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from fastseg import _triton
from fastseg.testing.ladder.interpreter import interpret
from fastseg.testing.ladder.kernels import FOLDER, use_kernels

pytestmark = pytest.mark.skipif(bool(_triton.why_not), reason=_triton.why_not)
WORKSPACE = 64 << 20


def kernels(stem: str) -> Any:
    use_kernels()
    return import_module(f"fastseg.kernels.{stem}")


@pytest.mark.parametrize(
    ("row", "bytes_"),
    [
        ("ksac_conv2d-concat_even", 80 << 10),
        ("ksac_conv2d-trained_beyond", 12 << 10),
        ("global_conv2d-one_in", 5 << 10),
    ],
)
def test_a_small_workspace_changes_nothing(row: str, bytes_: int, tmp_path: Path) -> None:
    """Slices of channels and bands of rows, on maps that need neither."""
    shutil.copytree(FOLDER, tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "kernels" / "_products.py"
    text, count = re.subn(r"^WORKSPACE = .*$", f"WORKSPACE = {bytes_}", path.read_text(), flags=re.MULTILINE)
    path.write_text(text)
    report = interpret(pattern=row, fast=True, kernels=tmp_path / "kernels")
    assert count == 1 and report.outcomes and not report.left_out
    assert not report.faults, "\n".join(report.faults)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 256, 33, 33), (1, 256, 33)),  # a map whole
        ((16, 256, 33, 33), (6, 256, 33)),  # images together
        ((1, 256, 128, 256), (1, 48, 128)),  # slices of channels
        ((1, 256, 512, 512), (1, 16, 179)),  # the fewest, in bands with a halo
        ((1, 5, 512, 512), (1, 5, 512)),
    ],
)
def test_responses_fit_the_workspace(shape: tuple[int, int, int, int], expected: tuple[int, int, int]) -> None:
    n, channels, height, width = shape
    images, together, rows = kernels("ksac").sliced(n, channels, height, width, 9, 24, 4)
    assert (images, together, rows) == expected
    assert 36 * images * together * min(height, rows + 48) * width <= WORKSPACE


def test_rates_beyond_the_map_are_one() -> None:
    assert kernels("ksac")._live((3, 9, 2**30 - 1), 8, 9) == ((3, 9, 9), 3, 3)
    assert kernels("ksac")._live((8, 9), 8, 9) == ((8, 9), 1, 3)
    assert kernels("ksac")._live((9,), 8, 9) == ((9,), 1, 1)


def ones() -> Iterator[Any]:
    """Launches whose sizes and strides are 1, of which the compiler makes constants and the interpreter does not."""
    empty = lambda *shape: torch.empty(shape, device="meta")  # noqa: E731
    ksac, fuse, gcn = (kernels(stem) for stem in ("ksac", "ksac_fuse", "global_conv"))
    maps, vector = empty(1, 1, 1, 1, 1), empty(1, 1)
    yield ksac.gathered(maps, maps, vector, vector, (1,), (1, 1), 1, 0, 0, False, "silu")
    yield ksac.gathered(empty(1, 9, 1, 1, 1), maps, None, None, (1, 1), (3, 3), 1, 0, 0, True, "none")
    yield ksac.spreaded(maps, maps, (1,), (1, 1), 0)
    for concat in (False, True):
        tensors = {"terms": maps[0], "out": maps[0]}
        yield fuse.fused(fuse.fuse, tensors, vector, None, 1, concat, "relu6")
        tensors = {"grad": maps[0], "terms": maps[0], "of_terms": maps[0], "sums": maps[0]}
        yield fuse.fused(fuse.unfuse, tensors, None, vector, 1, concat, "relu6")
    for reach in ((0, 0), (1, 0)):
        middle, products = empty(1, 2, 1, 3, 1), empty(1, 4, 3, 1)
        yield gcn.firsts(products, vector, middle, reach, slice(0, 3), 0)
        yield gcn.seconds(middle, empty(4, 1, 16), vector, middle[:, :1], reach, True)
        yield gcn.seconds(middle[:, :1], empty(4, 1, 16), vector, middle, reach, False)
        yield gcn.shifts(middle, products, reach, True, 0)


def test_sizes_of_one_compile() -> None:
    from triton import compile
    from triton.backends.compiler import GPUTarget

    for launch in ones():
        assert compile(launch.program(), target=GPUTarget("cuda", 80, 32), options=launch.options).asm["cubin"]
