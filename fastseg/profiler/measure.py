"""Measuring: interleaved timing, the machine's ceilings, and peak memory in a process of its own."""

import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one contender: the median, the 20th and 80th percentile, and how many rounds."""

    ms: float
    ms20: float
    ms80: float
    rounds: int


@dataclass(frozen=True)
class Ceilings:
    """What this machine reaches: bytes per second of a copy (read and written), and FLOP/s of multiply-adds."""

    bytes_per_second: float
    flops_per_second: float

    def shortest_ms(self, bytes_moved: int, flops: int) -> float:
        """Time that neither memory nor arithmetic can beat."""
        return 1e3 * max(bytes_moved / self.bytes_per_second, flops / self.flops_per_second)


def timing_of(seconds: Sequence[float]) -> Timing:
    """Summarise samples."""
    if len(seconds) == 1:
        return Timing(1e3 * seconds[0], 1e3 * seconds[0], 1e3 * seconds[0], 1)
    fifths = statistics.quantiles(seconds, n=5, method="inclusive")
    return Timing(1e3 * statistics.median(seconds), 1e3 * fifths[0], 1e3 * fifths[3], len(seconds))


def wall_clock(function: Callable[[], Any]) -> float:
    """Seconds that a call takes on the CPU."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def interleaved(
    contenders: Mapping[str, Callable[[], Any]],
    *,
    seconds: float = 4.0,
    min_rounds: int = 7,
    max_rounds: int = 101,
    warmup: int = 2,
    clock: Callable[[Callable[[], Any]], float] = wall_clock,
) -> dict[str, Timing]:
    """Time contenders in turns, A B C A B C, so that drift of the machine meets all of them.

    Args:
        contenders: functions without arguments, by name.
        seconds: about how long the rounds may take together.
        min_rounds, max_rounds: bounds on the number of rounds, whatever `seconds` says.
        warmup: calls of each before the first round; compilation and first-touch page faults fall there.
        clock: seconds that a call takes; the default synchronises nothing, so it is for CPU work.
    """
    for function in contenders.values():
        for _ in range(warmup):
            function()
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    start = time.perf_counter()
    for done in range(max_rounds):
        if done >= min_rounds and time.perf_counter() - start > seconds:
            break
        for name, function in contenders.items():
            samples[name].append(clock(function))
    return {name: timing_of(taken) for name, taken in samples.items()}


@lru_cache
def ceilings(threads: int) -> Ceilings | None:
    """Measured once per process and thread count; None without the extension module `fastseg._C`."""
    try:
        native = importlib.import_module("fastseg._C")
    except ModuleNotFoundError:
        return None
    return Ceilings(native.measure_copy(threads), native.measure_fma(threads))


def machine() -> str:
    """Processor and number of cores."""
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown'} x{os.cpu_count()}"


def peak_bytes(setup: str, *arguments: Any, threads: int = 2) -> int:
    """Peak memory that one call adds to the process, results included, in a fresh process (Linux).

    Args:
        setup: `module:function`; called with the arguments, it prepares everything and returns the function to measure.
        *arguments: plain values that JSON can carry.
        threads: of torch.

    The high-water mark of the resident set counts every allocator. Blocks over 64 kB are mapped afresh, so memory that
    was freed before cannot hide an allocation.
    """
    # The measured process starts elsewhere, so every path it may import from goes along.
    environment = dict(os.environ, MALLOC_MMAP_THRESHOLD_="65536", PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    command = [sys.executable, "-m", "fastseg.profiler.measure", setup, json.dumps(arguments), str(threads)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"fastseg::peak_bytes: setup must run in a process of its own, got: {done.stderr[-2000:]}")
    return int(done.stdout.split()[-1])


def _resident(key: str) -> int:
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def _added_by(function: Callable[[], Any]) -> int:
    # The first call pays for thread stacks, code pages and lazy tables.
    function()
    with open("/proc/self/clear_refs", "w", encoding="ascii") as control:
        control.write("5")  # resets the high-water mark to the present size
    before = _resident("VmRSS")
    result = function()
    after = _resident("VmHWM")
    del result
    return max(0, after - before)


def _main(setup: str, arguments: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    module, name = setup.split(":")
    print(_added_by(getattr(importlib.import_module(module), name)(*json.loads(arguments))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
