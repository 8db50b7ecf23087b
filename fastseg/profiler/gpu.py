"""The GPU of this machine: why there is none, its names and clocks, time by CUDA events with a cold L2, peak memory."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import torch

SMALLEST_FLUSH = 1 << 27
HEAD_START = 2_000_000  # cycles, about a millisecond: more than the host needs to queue any op


def why_none() -> str:
    """Why torch cannot use an NVIDIA GPU here, in a few words; empty where it can."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        # The first sentence says it (no driver, one too old, no device); the rest is advice with links.
        return " ".join(str(error).split()).split(". ")[0].rstrip(".")
    return "" if torch.cuda.device_count() else "torch sees no CUDA device"


@dataclass(frozen=True)
class Gpu:
    """The current device: its name, architecture (`sm_90`), bytes of memory and of L2, and the driver."""

    name: str
    arch: str
    memory: int
    l2: int
    driver: str


@lru_cache
def current() -> Gpu:
    """Ask torch and the driver."""
    of = torch.cuda.get_device_properties()
    driver = _ask("driver_version")[0]
    return Gpu(of.name, f"sm_{of.major}{of.minor}", of.total_memory, of.L2_cache_size, driver)


def clocks() -> str:
    """Clocks at this moment: read it right after the GPU has worked."""
    sm, most, memory, most_memory = _ask("clocks.sm", "clocks.max.sm", "clocks.mem", "clocks.max.mem")
    return f"SM {sm} of {most} MHz, memory {memory} of {most_memory} MHz"


def _ask(*fields: str) -> list[str]:
    """What nvidia-smi says of the current device; `unknown` where it does not."""
    uuid = torch.cuda.get_device_properties().uuid
    command = ["nvidia-smi", f"--id=GPU-{uuid}", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return ["unknown"] * len(fields)
    found = [field.strip() for field in said.split(",")]
    return found if len(found) == len(fields) else ["unknown"] * len(fields)


class Event(Protocol):
    """What is used of `torch.cuda.Event`."""

    def record(self) -> None: ...
    def synchronize(self) -> None: ...
    def elapsed_time(self, end: Any, /) -> float: ...


class EventClock:
    """Times one call on the current stream, in seconds, with nothing of its data in the L2 cache.

    Args:
        event: makes an event that keeps its time.
        flush: queues a write larger than the cache, and work that lasts until the host has queued the call.

    Nothing waits between the flush and the call, so that a short kernel is not timed with its launch.
    """

    def __init__(self, event: Callable[[], Event], flush: Callable[[], Any]) -> None:
        self._event, self._flush = event, flush

    def __call__(self, function: Callable[[], Any]) -> float:
        start, end = self._event(), self._event()
        self._flush()
        start.record()
        function()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def clock() -> EventClock:
    """The clock of the current device."""
    larger = torch.empty(max(SMALLEST_FLUSH, 4 * current().l2), dtype=torch.int8, device="cuda")

    def flush() -> None:
        larger.zero_()
        torch.cuda._sleep(HEAD_START)

    return EventClock(lambda: torch.cuda.Event(enable_timing=True), flush)


def peak_bytes(function: Callable[[], Any]) -> int:
    """Memory that one call takes from torch's allocator at most, results included."""
    function()  # the first call pays for workspaces and tables that stay
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = function()
    torch.cuda.synchronize()
    del result
    return torch.cuda.max_memory_allocated() - before
