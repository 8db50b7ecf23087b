"""Every row of the table of cases: right, on the path it claims, and bitwise equal over repeats, and over threads where
no library's GEMM is behind it."""

from collections.abc import Iterator

import pytest
import torch

from fastseg import testing
from fastseg.testing import Case, Run


def combinations() -> Iterator[object]:
    """Smoke rows meet everything; odd rows every dtype and layout, and every instruction set in float32; timed rows one
    combination; the others every instruction set in float32."""
    best = testing.best_isa()
    for case in testing.find_cases():
        if "heavy" in case.tags:
            continue
        layouts = testing.layouts_of(case)
        for dtype in case.dtypes if len(layouts) > 1 else case.dtypes[:1]:
            for layout in layouts:
                plain = dtype == case.dtypes[0] and layout == "contiguous" and "bench" not in case.tags
                for isa in testing.isas() if plain or "smoke" in case.tags else (best,):
                    name = f"{case.name}-{str(dtype).removeprefix('torch.')}-{layout}-{isa}"
                    yield pytest.param(case, dtype, layout, isa, id=name)


def poison_freed_memory(got: Run) -> None:
    """Fill blocks of the sizes of these results and free them, so that the allocator hands them out next."""
    blocks = [torch.full_like(t, 0x5A) for t in (*got.outputs, *got.gradients) for _ in range(2)]
    del blocks


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("case, dtype, layout, isa", list(combinations()))
def test_case(case: Case, dtype: torch.dtype, layout: str, isa: str) -> None:
    with testing.use_isa(isa):
        torch.set_num_threads(2)
        got = testing.run(case, dtype, layout)
        # Two threads only for the op: the comparisons are many small ones.
        torch.set_num_threads(2 if "bench" in case.tags else 1)
        testing.judge(case, dtype, got)
        testing.assert_paths(got, testing.expected_path(isa))
        if "bench" in case.tags:
            return
        alone = testing.run(case, dtype, layout)
        if case.gemm:
            testing.judge(case, dtype, alone)
        else:
            testing.assert_same(alone, got, "one thread")
        torch.set_num_threads(2)
        torch.utils.deterministic.fill_uninitialized_memory = False
        poison_freed_memory(got)
        again = testing.run(case, dtype, layout)
        torch.set_num_threads(1)
    testing.assert_same(again, got, "a repeat with other garbage in fresh memory")


def test_poison_reaches_fresh_memory(poisoned: None) -> None:
    assert torch.empty(7).isnan().all()
    assert (torch.empty(7, dtype=torch.uint8) == 255).all()
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.full((1000,), 0x5A, dtype=torch.uint8)
    assert (torch.empty(1000, dtype=torch.uint8) != 255).any()


def test_rows_are_unique_and_every_op_has_smoke_rows() -> None:
    rows = testing.find_cases()
    assert len({case.name for case in rows}) == len(rows)
    for op in {case.op for case in rows}:
        assert testing.find_cases(op, "smoke"), op


def test_layouts_hold_the_same_values_in_other_places() -> None:
    x = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    for layout in testing.LAYOUTS:
        assert torch.equal(testing.with_layout(x, layout), x)
    assert testing.with_layout(x, "channels_last").stride() == (60, 1, 15, 3)
    assert testing.with_layout(x, "permuted").stride() == (1, 2, 6, 24)
    sliced = testing.with_layout(x, "sliced")
    assert sliced.storage_offset() > 0 and sliced.stride(-1) == 2
