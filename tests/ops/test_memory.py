"""What ops read, allocate, keep and share."""

import ctypes
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from fastseg import _native, ops, testing
from fastseg.profiler.measure import peak_bytes
from fastseg.testing import tolerances
from fastseg.testing.case import tensors_of
from fastseg.testing.check import bits

native = pytest.mark.skipif(not _native.loaded, reason="memory is promised for the native kernels: " + _native.why_not)
ROWS = [case for case in testing.find_cases(None, "smoke") if case.id.endswith(("_x2", "x2", "square", "fraction"))]


@native
@pytest.mark.parametrize("isa", testing.isas())
def test_nothing_beyond_the_inputs_is_read(isa: str) -> None:
    """In a process of its own, because a read too far kills it."""
    command = [sys.executable, "-m", "fastseg.testing.guard", isa]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 100


@pytest.mark.parametrize("at_end", [False, True])
def test_the_guard_bites(at_end: bool) -> None:
    code = (
        "import ctypes, torch\nfrom fastseg.testing.guard import guarded\n"
        f"x = guarded(torch.zeros(1000), at_end={at_end})\n"
        f"ctypes.string_at(x.data_ptr() + {4000 if at_end else -1}, 1)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode < 0


PREPARED = "fastseg.testing.contenders:prepared"
PIXELS = 1024 * 2048


@native
@pytest.mark.parametrize("op, output", [("upsample_argmax", PIXELS), ("upsample_threshold", 19 * PIXELS)])
def test_peak_is_the_result_and_a_small_scratch(op: str, output: int) -> None:
    peak = peak_bytes(PREPARED, op, "cityscapes_noise", "fastseg", "forward", "float32", "contiguous")
    assert output <= peak <= output + tolerances.SCRATCH_BYTES


@native
def test_the_loss_holds_one_float_per_pixel() -> None:
    """The log-sum-exp; the unfused form holds the logits, their gradient and the log-softmax: 3 * 19 floats."""
    row = ("upsample_cross_entropy", "cityscapes_noise", "fastseg", "both", "float32", "contiguous")
    assert peak_bytes(PREPARED, *row) <= 0.05 * 3 * 19 * 4 * PIXELS
    x = torch.randn(1, 19, 8, 16, requires_grad=True)
    saved: list[int] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        ops.upsample_cross_entropy(x, torch.zeros(1, 64, 128, dtype=torch.uint8))
    assert max(saved) <= 64 * 128


def grown(calls: int) -> int:
    """Bytes by which a thousand calls of every op make this process grow."""
    rows = [(case, testing.inputs_of(case, case.dtypes[0])) for case in ROWS]

    def once() -> None:
        for case, (args, kwargs) in rows:
            getattr(ops, case.op)(*args, **kwargs)

    def resident() -> int:
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096

    for _ in range(20):
        once()
    before = resident()
    for _ in range(calls):
        once()
    return resident() - before


def test_a_thousand_calls_do_not_grow() -> None:
    torch.set_num_threads(1)
    assert grown(1000) < 1 << 20


def test_eight_python_threads_at_once() -> None:
    torch.set_num_threads(2)
    inputs = [(case, testing.inputs_of(case, case.dtypes[0])) for case in ROWS for _ in range(8)]

    def call(row: Any) -> Any:
        case, (args, kwargs) = row
        return getattr(ops, case.op)(*args, **kwargs)

    want = [call(row) for row in inputs]
    with ThreadPoolExecutor(8) as pool:
        for w, g in zip(want, pool.map(call, inputs), strict=True):
            for a, b in zip(tensors_of(w), tensors_of(g), strict=True):
                assert torch.equal(bits(a), bits(b))


@pytest.mark.parametrize("layout", testing.LAYOUTS)
@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.name)
def test_inputs_are_left_alone(case: testing.Case, layout: str) -> None:
    args, kwargs = testing.inputs_of(case, case.dtypes[0], layout)
    before = [a.clone() if isinstance(a, torch.Tensor) else a for a in args]
    getattr(ops, case.op)(*args, **kwargs)
    for a, b in zip(before, args, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@native
@pytest.mark.parametrize("pixels", [2**31 + 6])
def test_more_than_2_to_31_pixels(pixels: int) -> None:
    """Labels that share one row in memory: counts and offsets pass 2^31 without 2 GB of labels."""
    height = pixels // 2048
    labels = (torch.arange(2048) % 7).to(torch.uint8).expand(1, height, 2048)
    matrix = ops.confusion_matrix(labels, labels, 7)
    want = torch.bincount(labels[0, 0].long(), minlength=7) * height
    assert torch.equal(matrix.diagonal(), want) and matrix.sum() == height * 2048


@native
def test_an_output_of_more_than_2_to_31_values_is_right_at_its_end() -> None:
    """One class, 46341^2 > 2^31 labels: the last row must come from the last source row."""
    x = torch.zeros(1, 2, 3, 3)
    x[0, 1, 2, 2] = 1
    labels = ops.upsample_argmax(x, (46341, 46342))
    assert labels.numel() > 2**31
    assert labels[0, -1, -1] == 1 and labels[0, -1, 0] == 0 and labels[0, 0, -1] == 0
