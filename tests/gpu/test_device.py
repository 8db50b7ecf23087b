"""The last word: the table of cases and the promises of the ops on a real GPU.

`pytest tests/gpu/test_device.py` on a machine that has one; elsewhere the file is one skip.
"""

import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA begins; deterministic mode asks for it

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from fastseg import ops, testing
from fastseg.cli.main import app
from fastseg.profiler import gpu
from fastseg.testing import Case, tolerances
from fastseg.testing.contenders import OURS, contender
from fastseg.testing.installation import cuda_path
from fastseg.testing.ladder.kernels import gpu_ops
from fastseg.testing.selftest import deterministic, kernels, unpoisoned

if gpu.why_none():
    pytest.skip("no CUDA device", allow_module_level=True)

DEVICE = "cuda"
# Of random values, so that other values give another result.
SMOKE = [case for case in testing.find_cases(None, "smoke") if not case.tags & {"degenerate", "cpu"}]
PIXELS = 1024 * 2048
SLEEP = 200_000_000  # cycles: about a tenth of a second
Call = tuple[Any, tuple[Any, ...]]


@pytest.fixture(autouse=True)
def finished() -> Iterator[None]:
    """An error of a kernel is raised in the test that launched it, and big blocks are not kept for the next test."""
    yield
    torch.cuda.synchronize()
    torch.cuda.empty_cache()


def name(case: Case) -> str:
    return case.name


def test_every_op_has_a_kernel() -> None:
    assert kernels(DEVICE) == gpu_ops()


@pytest.mark.parametrize("case", [c for c in testing.find_cases() if "cpu" not in c.tags], ids=name)
def test_row(case: Case) -> None:
    """Every dtype and layout, twice; timed rows in one dtype, because their truth on the CPU takes its time."""
    dtypes = case.dtypes[:1] if "bench" in case.tags else None
    with deterministic():
        outcomes = list(
            testing.selftest([case], cuda_path, device=DEVICE, layouts=None, dtypes=dtypes, repeat=unpoisoned)
        )
    assert outcomes
    assert [outcome for outcome in outcomes if outcome.fault or not outcome.ran] == []


def calls(case: Case, dtype: torch.dtype, layout: str = "contiguous") -> list[Call]:
    """The ops behind one row, backwards included, with their arguments on the GPU."""
    recorded = testing.recorded_calls(case, dtype, layout, DEVICE)
    return [(op, tuple(a.detach() if isinstance(a, Tensor) else a for a in args)) for op, args in recorded]


def results(op: Any, args: tuple[Any, ...]) -> list[Tensor]:
    """What a call returns and what it fills; a sum begins at zero."""
    schema = op._schema.arguments
    filled = [a for a, s in zip(args, schema, strict=True) if s.alias_info is not None and s.alias_info.is_write]
    for sum_ in filled:
        sum_.zero_()
    returned = op(*args)
    return filled or list(returned if isinstance(returned, tuple) else (returned,))


def subject(args: tuple[Any, ...]) -> Tensor:
    """The maps or labels that a call is about; the first argument of one backward is a scalar."""
    return max((a for a in args if isinstance(a, Tensor)), key=lambda a: a.dim())


def same(got: list[Tensor], want: list[Tensor]) -> bool:
    return all(torch.equal(g, w) for g, w in zip(got, want, strict=True))


def warm(op: Any, args: tuple[Any, ...]) -> torch.cuda.Stream:
    """A side stream on which Triton has compiled and the allocator has found its blocks."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            results(op, args)
    torch.cuda.synchronize()
    return side


@pytest.mark.parametrize("case", SMOKE, ids=name)
def test_capture_and_replay(case: Case) -> None:
    """A CUDA graph refuses host synchronisation and memory from elsewhere, and replays on what its inputs hold."""
    for op, args in calls(case, case.dtypes[0]):
        before = [t.clone() for t in results(op, args)]
        warm(op, args)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = results(op, args)
        subject(args).copy_(subject(args).roll(1, -1))
        graph.replay()
        torch.cuda.synchronize()
        got = [t.clone() for t in captured]
        assert same(got, results(op, args)), op
        assert not same(got, before), f"{op} gives the same for other values"


@pytest.mark.parametrize("case", SMOKE, ids=name)
def test_runs_on_the_current_stream_and_waits_for_nothing(case: Case) -> None:
    """The input arrives late, on a side stream: from another stream the op would see what was there before."""
    for op, args in calls(case, case.dtypes[0]):
        want, given = [t.clone() for t in results(op, args)], subject(args)
        right = given.clone()
        given.zero_()
        assert not same(results(op, args), want), f"{op} gives the same for zeros"
        with torch.cuda.stream(warm(op, args)):
            torch.cuda._sleep(SLEEP)
            given.copy_(right)
            got = results(op, args)
            assert not torch.cuda.current_stream().query(), f"{op} waited for the GPU"
        torch.cuda.synchronize()
        assert same(got, want), op


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
@pytest.mark.parametrize("case", SMOKE, ids=name)
def test_runs_on_the_device_of_its_inputs(case: Case) -> None:
    for op, args in calls(case, case.dtypes[0]):
        there = tuple(a.to("cuda:1") if isinstance(a, Tensor) else a for a in args)  # while cuda:0 is the current one
        got, want = results(op, there), results(op, args)
        assert all(t.device.index == 1 for t in got) and same([t.to(DEVICE) for t in got], want), op


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("case, dtype", [pytest.param(c, d, id=f"{c.name}-{d}") for c in SMOKE for d in c.dtypes])
def test_opcheck(case: Case, dtype: torch.dtype, layout: str) -> None:
    for op, args in calls(case, dtype, layout):
        torch.library.opcheck(op, args)


@pytest.mark.parametrize("layout", testing.LAYOUTS)
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("shape, size", [((2, 2, 3, 5), (7, 4)), ((1, 4, 1, 3), (5, 7)), ((1, 3, 6, 5), (3, 2))])
@pytest.mark.parametrize("op", ["upsample_bilinear", "upsample_softmax"])
def test_gradcheck(op: str, shape: tuple[int, ...], size: tuple[int, int], align_corners: bool, layout: str) -> None:
    x = testing.with_layout(torch.randn(shape, dtype=torch.float64, device=DEVICE), layout).requires_grad_()
    function = lambda x: getattr(ops, op)(x, size, align_corners=align_corners)  # noqa: E731
    assert torch.autograd.gradcheck(function, (x,), **tolerances.GRADCHECK)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradcheck_of_the_loss(reduction: str) -> None:
    wide = {"dtype": torch.float64, "device": DEVICE}
    target = torch.randint(0, 3, (2, 7, 4), device=DEVICE)
    target[:, 0, 0] = 255
    extra: dict[str, Any] = {"weight": torch.rand(3, **wide), "pixel_weight": torch.rand(target.shape, **wide)}
    x = torch.randn(2, 3, 3, 5, **wide, requires_grad=True)
    loss = lambda x: ops.upsample_cross_entropy(  # noqa: E731
        x, target, **extra, reduction=reduction, label_smoothing=0.2
    )
    assert torch.autograd.gradcheck(loss, (x,), **tolerances.GRADCHECK)


def test_data_errors_poison_the_result_or_raise_where_it_is_asked_for() -> None:
    """In a process of its own: no error may break this one's context."""
    command = [sys.executable, "-m", "fastseg.testing.data_errors", DEVICE]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


@pytest.mark.parametrize(
    "op, id, mode, result",
    [
        ("upsample_argmax", "cityscapes_noise", "forward", PIXELS),
        ("upsample_threshold", "cityscapes_noise", "forward", 19 * PIXELS),
        ("upsample_bilinear", "cityscapes_noise", "forward", 4 * 19 * PIXELS),
        ("upsample_softmax", "cityscapes_noise", "forward", 4 * 19 * PIXELS),
        ("confusion_matrix", "logits_cityscapes_noise", "forward", 8 * 19 * 19),
        ("upsample_bilinear", "cityscapes_noise", "backward", 4 * 19 * PIXELS // 64),
    ],
)
def test_peak_is_the_result_and_a_small_scratch(op: str, id: str, mode: str, result: int) -> None:
    case = next(c for c in testing.find_cases(op) if c.id == id)
    peak = gpu.peak_bytes(contender(case, OURS, mode, torch.float32, "contiguous", DEVICE).call)
    assert result <= peak <= result + tolerances.SCRATCH_BYTES


def test_the_loss_holds_one_float_per_pixel() -> None:
    """The log-sum-exp; the unfused form holds the logits, their gradient and the log-softmax: 3 * 19 floats."""
    case = next(c for c in testing.find_cases("upsample_cross_entropy") if c.id == "cityscapes_noise")
    peak = gpu.peak_bytes(contender(case, OURS, "both", torch.float32, "contiguous", DEVICE).call)
    assert peak <= 0.05 * 3 * 19 * 4 * PIXELS


@pytest.mark.skipif(torch.cuda.get_device_properties().total_memory < 2**34, reason="less than 16 GiB on the GPU")
@pytest.mark.parametrize("op", ["upsample_bilinear", "upsample_argmax", "upsample_softmax", "upsample_threshold"])
def test_an_output_of_more_than_2_to_31_values_is_right_at_its_end(op: str) -> None:
    """46341 * 46342 > 2^31 pixels: the corners of the result are those of the source."""
    classes = 2 if op == "upsample_argmax" else 1
    x = torch.zeros(1, classes, 3, 3, dtype=torch.float16, device=DEVICE)
    x[0, -1, 2, 2] = 1
    with deterministic():
        out = getattr(ops, op)(x, (46341, 46342)).reshape(46341, 46342)
    assert out.numel() > 2**31
    first = 1 if op == "upsample_softmax" else 0  # of one class the probability is 1 everywhere
    assert [float(out[y, z]) for y, z in ((-1, -1), (-1, 0), (0, -1), (0, 0))] == [1, first, first, first]


@pytest.mark.parametrize("op, dtype", [("upsample_softmax", torch.float32), ("upsample_bilinear", torch.bfloat16)])
def test_autocast(op: str, dtype: torch.dtype) -> None:
    x = torch.randn(1, 3, 4, 5, dtype=torch.bfloat16, device=DEVICE)
    with torch.autocast(DEVICE, torch.bfloat16):
        assert getattr(ops, op)(x, (9, 11)).dtype == dtype


def test_the_verbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["selftest", "--device", DEVICE, "--op", "upsample_argmax", "--quick"])
    assert done.exit_code == 0, done.output
    report = json.loads(Path("fastseg_selftest.json").read_text())
    assert report["right"] and report["gpu"]["name"] == torch.cuda.get_device_name()
    options = ["--device", DEVICE, "--case", "voc_noise", "--seconds", "0", "--no-compiled", "--submit", "rows.jsonl"]
    done = CliRunner().invoke(app, ["bench", "upsample_argmax", *options])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    assert rows[0]["path"] == cuda_path("upsample_argmax") and all(row["ms"] > 0 for row in rows)
