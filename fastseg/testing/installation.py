"""Is this installation right? The rows that prove it, on the CPU or on the GPU, and the report."""

import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import torch

from .. import __version__
from ..profiler import gpu, measure
from .case import Case
from .isa import expected_path, isas, use_isa
from .results import commit, write
from .selftest import Outcome, deterministic, jobs, selftest, unpoisoned


def cuda_path(op: str) -> str:
    """What a champion runs on: `triton` where a module of `fastseg.kernels` launches the op, `cuda` elsewhere."""
    return "triton" if any(hasattr(module, f"launch_{op}") for module in _triton()) else "cuda"


def _triton() -> list[Any]:
    try:
        package = import_module("fastseg.kernels")
        return [import_module(f"{package.__name__}.{module.name}") for module in iter_modules(package.__path__)]
    except ModuleNotFoundError as error:
        if error.name in ("triton", "fastseg.kernels"):
            return []
        raise


@dataclass(frozen=True)
class Plan:
    """Rows in every dtype and in `layouts_of` them, twice each, in deterministic mode: on the GPU, or on every
    instruction set of the CPU."""

    rows: Sequence[Case]
    device: str

    def __len__(self) -> int:
        return len(list(jobs(self.rows, None))) * (len(isas()) if self.device == "cpu" else 1)

    def __iter__(self) -> Iterator[Outcome]:
        with deterministic():
            if self.device == "cuda":
                yield from selftest(self.rows, cuda_path, device="cuda", layouts=None, repeat=unpoisoned)
                return
            for isa in isas():
                with use_isa(isa):
                    yield from selftest(self.rows, expected_path(isa), layouts=None, repeat=unpoisoned)


def environment(device: str) -> dict[str, Any]:
    """Machine and versions."""
    revision, dirty = commit()
    found: dict[str, Any] = {
        "machine": measure.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "triton": _version("triton"),
        "fastseg": __version__,
        "commit": revision,
        "dirty": dirty,
    }
    if device == "cuda":
        found |= {"gpu": asdict(gpu.current()), "cuda": torch.version.cuda}
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def report(plan: Plan, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Everything that is known, for JSON: `right` is the verdict."""
    failed, ran = sum(bool(o.fault) for o in outcomes), sum(o.ran for o in outcomes)
    counts = {
        "planned": len(plan),
        "run": len(outcomes),
        "failed": failed,
        "without_kernel": sum(not (o.ran or o.fault) for o in outcomes),
    }
    # On a GPU a row without a kernel proves nothing of the GPU's kernels; on the CPU it is what was installed.
    lacking = counts["without_kernel"] if plan.device == "cuda" else 0
    right = not failed and ran > 0 and not lacking and len(outcomes) == len(plan)
    return {
        "device": plan.device,
        **environment(plan.device),
        "right": right,
        "counts": counts,
        "rows": [asdict(o) for o in outcomes],
    }


def save(path: Path, found: dict[str, Any]) -> None:
    """Write a report as JSON."""
    write(path, json.dumps(found, indent=1) + "\n")
