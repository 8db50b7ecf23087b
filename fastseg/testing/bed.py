"""What differs between the CPU and the GPU when rows are timed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..profiler import gpu, measure
from ..profiler.measure import Ceilings
from .case import Case
from .installation import cuda_path
from .isa import best_isa, expected_path
from .results import Row

PREPARED = "fastseg.testing.contenders:prepared"
Call = Callable[[], Any]


@dataclass(frozen=True)
class Bed:
    """A device to time rows on.

    Args:
        device: where the inputs live.
        threads: of torch, on the host.
        isas: instruction set of our kernels, and that of the rivals.
        path: what an op of ours must run on.
        clock: seconds that a call takes.
        warmup: calls of each contender before the first round.
        ceilings: what the device reaches in a dtype; None where that is unknown.
        peak: bytes that a call takes at most, from the call and the strings that `contenders.prepared` makes it of.
        predict: columns of a row's prediction, from case, mode and dtype; none where there is no model of the device.
        facts: columns that a row has because of the device, read when the rounds are over.
    """

    device: str
    threads: int
    isas: tuple[str, str]
    path: Callable[[str], str]
    clock: Callable[[Call], float]
    warmup: int
    ceilings: Callable[[torch.dtype], Ceilings | None]
    peak: Callable[[Call, tuple[str, ...]], int]
    predict: Callable[[Case, str, torch.dtype], Row]
    facts: Callable[[], Row]


def cpu_bed(threads: int = 2) -> Bed:
    """This machine's CPU; peak memory is that of a process of its own."""
    return Bed(
        device="cpu",
        threads=threads,
        isas=(best_isa(), torch.backends.cpu.get_cpu_capability().lower()),
        path=lambda op: expected_path(best_isa()),
        clock=measure.wall_clock,
        warmup=2,
        ceilings=lambda dtype: measure.ceilings(threads),
        peak=lambda call, arguments: measure.peak_bytes(PREPARED, *arguments, threads=threads),
        predict=lambda case, mode, dtype: {},
        facts=lambda: {"cpu": measure.machine()},
    )


def cuda_bed(threads: int = 2) -> Bed:
    """The current GPU: CUDA events, a cold L2, peak memory of torch's allocator."""
    found = gpu.current()
    return Bed(
        device="cuda",
        threads=threads,
        isas=(found.arch, found.arch),
        path=cuda_path,
        clock=gpu.clock(),
        warmup=10,  # the clocks rise with the load
        ceilings=partial(stated, found.name),
        peak=lambda call, arguments: gpu.peak_bytes(call),
        predict=partial(predicted, found.name),
        facts=lambda: {
            "cpu": measure.machine(),
            "device": found.name,
            "driver": found.driver,
            "cuda": torch.version.cuda,
            "clocks": gpu.clocks(),
        },
    )


def stated(name: str, dtype: torch.dtype) -> Ceilings | None:
    """What the maker says of a GPU, without tensor cores; None where it is not in the table."""
    from .ladder.devices import find_device

    try:
        device = find_device(name)
    except LookupError:
        return None
    rate = device.multiprocessor.double_rate if dtype == torch.float64 else 1.0
    return Ceilings(1e9 * device.bandwidth, 1e12 * device.tflops * rate)


def predicted(name: str, case: Case, mode: str, dtype: torch.dtype) -> Row:
    """The predicted time and what bounds it; None where the GPU is not in the table."""
    from .ladder.prediction import predict

    try:
        prediction = predict(case, mode, dtype, name)
    except LookupError:
        return {"predicted_ms": None, "bound": None}
    return {"predicted_ms": round(prediction.ms, 4), "bound": prediction.bound}
