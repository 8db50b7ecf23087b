"""A time for an op on a GPU that nobody here has: predicted, never measured.

    t = max(bytes / (0.9 * bandwidth * r_m), flops / (peak * r_c), issue slots needed / (issue rate * r_c)) + launches

- `bytes` and `flops` are those of the measured rows: arguments and results once each, and the registered formulas.
- r_m, Little's law: to keep device memory busy, a multiprocessor needs its share of the bandwidth times 600 ns of
  latency in flight; a resident thread is taken to have 16 bytes under way. So r_m = min(1, occupancy * threads * 16 /
  needed).
- r_c = min(1, resident warps / 16): four schedulers, four cycles until a result can be used.
- Issue slots needed are `flops` times the instructions per FLOP in the kernel's busiest loop, as the compiler made it;
  a multiprocessor issues four warps in a cycle. Where a library's products come between the kernels, all FLOPs are
  taken to run at the peak, without tensor cores. Kernels that prepare what the FLOPs are done with are launches only.
- Where kernels of the op use tensor cores in this dtype, those count: `peak` is 0.7 of what tensor cores reach (half of
  it in TF32), issue slots are left out, and what copies hold of shared memory is in flight too.
- A launch takes 3 us. Occupancy and instructions are the worst over the kernels that the call may run, from the stored
  rows.

Left out: caches (a second reading of the inputs is free), grids too small for the device, bank conflicts, divergence,
clocks under load, and shortcuts: dead taps of a convolution, and those that depend on the data, such as that of the
argmax where the corners of a cell agree.
"""

import re
from dataclasses import dataclass
from functools import cache

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ..case import FLOATS, Case, find_cases
from ..contenders import OURS, contender
from ..record import Recorder
from .devices import Device, find_device
from .gate import Row, find_gates, gate_of
from .kernels import on_gpu
from .static import load

ATTAINABLE = 0.9  # of the bandwidth on the datasheet, by a plain copy
LATENCY = 600e-9  # of device memory, in seconds
IN_FLIGHT = 16  # bytes of each resident thread: one 128-bit load, or four narrower ones
BUSY_WARPS = 16
ISSUED = 128  # lanes in a cycle of a multiprocessor
LAUNCH = 3e-6  # seconds
TENSOR = 0.7  # of the peak on the datasheet, by a good GEMM
TENSOR_RATES = {torch.float16: 1.0, torch.bfloat16: 1.0, torch.float32: 0.5}


@dataclass(frozen=True)
class Prediction:
    """A predicted time.

    `bound` is what it is bound by: `memory` or `compute`. `kernels` are those whose stored rows were used; none where
    there are no rows, and then the time is that of the device at its best.
    """

    ms: float
    bound: str
    bytes: int
    flops: int
    device: str
    kernels: tuple[str, ...]


@dataclass(frozen=True)
class _Work:
    bytes: int
    flops: int
    ops: tuple[str, ...]


@cache
def _work(case: Case, mode: str, dtype: torch.dtype) -> _Work:
    """What a call moves and computes at least, and the ops that it runs, from shapes alone."""
    with FakeTensorMode():  # not even the inputs have values
        ours = contender(case, OURS, mode, dtype, "contiguous", "meta")
        with Recorder() as recorder, FlopCounterMode(display=False) as counter:
            ours.call()
    names = (overload._schema.name.split("::")[1] for overload, _ in recorder.calls)
    return _Work(ours.bytes, counter.get_total_flops(), tuple(names))


@cache
def _stored() -> tuple[Row, ...]:
    return tuple(load())


def predict(
    case: Case, mode: str, dtype: torch.dtype, device_name: str, rows: tuple[Row, ...] | None = None
) -> Prediction:
    """Predict one row of the table of cases.

    Args:
        case: the row.
        mode: `forward`, `backward` or `both`.
        dtype: of the inputs.
        device_name: of the table of devices, or as CUDA names it; LookupError where it is neither.
        rows: of the static report; None takes the stored ones.
    """
    device, work = find_device(device_name), _work(case, mode, dtype)
    kernels = kernels_of(work.ops, dtype, device.arch, _stored() if rows is None else rows)
    if dtype in TENSOR_RATES:
        kernels = [row for row in kernels if row.get("tensor_cores")] or kernels
    memory = work.bytes / _bandwidth(device, kernels)
    compute = _compute(work.flops, device, dtype, kernels)
    launches = len({row["kernel"].split("<")[0] for row in kernels}) or len(work.ops)
    return Prediction(
        ms=1e3 * (max(memory, compute) + launches * LAUNCH),
        bound="memory" if memory >= compute else "compute",
        bytes=work.bytes,
        flops=work.flops,
        device=device.name,
        kernels=tuple(row["kernel"] for row in kernels),
    )


def kernels_of(ops: tuple[str, ...], dtype: torch.dtype, arch: int, rows: tuple[Row, ...]) -> list[Row]:
    """Rows of the kernels that these ops launch for a dtype; a kernel without a floating dtype serves all."""
    floats = {str(f).removeprefix("torch.") for f in FLOATS}
    wanted = str(dtype).removeprefix("torch.")

    def serves(row: Row) -> bool:
        named = floats.intersection(re.findall(r"\w+", row["kernel"]))
        return bool(set(ops).intersection(row["ops"])) and row["arch"] == arch and (not named or wanted in named)

    return [row for row in rows if serves(row)]


def _occupancy(kernels: list[Row]) -> float:
    return min((row["occupancy"] for row in kernels), default=1.0)


def _in_flight(row: Row, device: Device) -> float:
    """Bytes under way to one multiprocessor."""
    threads = row["occupancy"] * device.multiprocessor.threads
    copied = row["dynamic"] * threads / row["threads"] if row.get("tensor_cores") else 0.0
    return float(max(threads * IN_FLIGHT, copied))


def _bandwidth(device: Device, kernels: list[Row]) -> float:
    """Bytes per second."""
    needed = 1e9 * device.bandwidth / device.multiprocessors * LATENCY
    in_flight = min((_in_flight(row, device) for row in kernels), default=needed)
    return 1e9 * device.bandwidth * ATTAINABLE * min(1.0, in_flight / needed)


def _compute(flops: int, device: Device, dtype: torch.dtype, kernels: list[Row]) -> float:
    """Seconds."""
    if dtype in TENSOR_RATES and any(row.get("tensor_cores") for row in kernels):
        return flops / (1e12 * device.tensor * TENSOR * TENSOR_RATES[dtype])
    rate = device.multiprocessor.double_rate if dtype == torch.float64 else 1.0
    if any(gate.library for row in kernels if (gate := gate_of(row["kernel"], find_gates()))):
        return flops / (1e12 * device.tflops * rate)
    busy = min(1.0, _occupancy(kernels) * device.multiprocessor.warps / BUSY_WARPS)
    loops = [row for row in kernels if row["loop_flops"] and not _prepares(row)]
    slots = flops * max((row["loop_instructions"] / row["loop_flops"] for row in loops), default=0.0)
    issue_rate = device.multiprocessors * ISSUED * 1e9 * device.clock
    return max(flops / (1e12 * device.tflops * rate), slots / issue_rate) / busy


def _prepares(row: Row) -> bool:
    gate = gate_of(row["kernel"], find_gates())
    return gate is not None and gate.prepares


def table(
    dtype: torch.dtype, devices: tuple[str, ...], rows: tuple[Row, ...] | None = None
) -> list[tuple[Case, str, list[Prediction]]]:
    """Predictions of the timed rows, forward and backward; rows of the same work, on other values, once."""
    lines, seen = [], set()
    for case in on_gpu(find_cases(None, "bench")):
        for mode in ("forward", "backward") if case.grad else ("forward",):
            if dtype not in case.dtypes or (work := _work(case, mode, dtype)) in seen:
                continue
            seen.add(work)
            lines.append((case, mode, [predict(case, mode, dtype, name, rows) for name in devices]))
    return lines
