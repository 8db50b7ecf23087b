"""`fastseg doctor`: the truth about this machine."""

import json
import os
import platform
import sys
from contextlib import nullcontext
from importlib import import_module, metadata, util
from typing import Annotated, Any

import typer

VARIABLES = ("FASTSEG_", "OMP_", "MKL_", "KMP_")


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show what is installed, what every op would run on here, and why not on something faster.

    The exit code is 2 where ops cannot run, because something was asked for that is impossible here.
    """
    found = examine()
    if as_json:
        typer.echo(json.dumps(found))
    else:
        _print(found)
    if any(op["path"] == "none" for op in found["ops"].values()):
        raise typer.Exit(2)


def _print(found: dict[str, Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for title, facts in found["facts"].items():
        grid = Table(box=None, show_header=False, title=title, title_justify="left", title_style="bold")
        grid.add_column(min_width=16, style="cyan", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in facts.items():
            grid.add_row(name, Text(_text(value)))
        console.print(grid, "")
    table = Table("op", "runs on", "why not native", box=SIMPLE_HEAD, title="Ops", title_justify="left")
    table.title_style = "bold"
    for name, op in found["ops"].items():
        reasons = [_reason(reason) for reason in op["reasons"].get("native", [])]
        table.add_row(name, op["path"], Text("; ".join(reasons)))
    console.print(table)
    console.print(Text(found["verdict"], "bold"), soft_wrap=True)


def _reason(reason: str) -> str:
    """What is the matter with the library is said once, above the table."""
    from fastseg import _native

    return "the native library is not loaded" if reason == _native.why_not else reason


def examine() -> dict[str, Any]:
    """Collect the facts: `facts` by section, `ops` (path and reasons), `native` and the one-line `verdict`."""
    import torch

    import fastseg
    from fastseg import _native
    from fastseg._describe import describe
    from fastseg._registry import OPS, has_kernel

    backend, faults = _choice()
    ops = {}
    for name in sorted(OPS):
        # Under a variable that cannot be followed no op runs, but why it would not run natively can still be told.
        with fastseg.backend("reference") if faults else nullcontext():
            told = describe(name)
        path, reasons = "none" if faults else told.path, told.reasons
        if path.startswith("cpu/") and not has_kernel(name, "CPU"):
            path, reasons = "reference", {**reasons, "native": ["the native library has no kernel for it"]}
        ops[name] = {"path": path, "reasons": reasons}
    facts = {
        "Machine": {
            "system": platform.platform(),
            "cpu": _cpu(),
            "threads": f"{torch.get_num_threads()} of {os.cpu_count()} logical cores",
            "instruction set": torch.backends.cpu.get_cpu_capability() + " (as torch sees it)",
        },
        "Python": {
            "python": f"{sys.version.split()[0]} ({sys.executable})",
            "torch": f"{torch.__version__} ({os.path.dirname(torch.__file__)})",
            "fastseg": f"{fastseg.__version__} ({os.path.dirname(fastseg.__file__)})",
            "triton": _version("triton"),
        },
        "Native library": {
            "loaded": str(_native.LIBRARY) if _native.loaded else f"no: {_native.why_not}",
            "instruction set": _native.cpu_isa(),
            **_build(),
        },
        "CUDA": _cuda(),
        "Environment": {
            name: faults.get(name, os.environ[name]) for name in sorted(os.environ) if name.startswith(VARIABLES)
        }
        or {"variables": f"none of {', '.join(VARIABLES)} is set"},
    }
    verdict = _verdict(backend, faults, ops)
    return {"facts": facts, "ops": ops, "native": _native.loaded, "backend": backend, "verdict": verdict}


def _choice() -> tuple[str, dict[str, str]]:
    """The backend asked for and, by variable, what is wrong with its value."""
    from fastseg import _config, _native

    faults = []
    try:
        backend = _config.current_backend()
    except ValueError as error:
        backend = os.environ["FASTSEG_BACKEND"]
        faults.append(str(error))
    if _native.isa_fault and backend != "reference":  # which runs on none
        faults.append(_native.isa_fault)
    # Every message reads `fastseg::<who>: <variable> must <rule>, got <value>`.
    return backend, dict(fault.split(": ", 1)[1].split(" ", 1) for fault in faults)


def _verdict(backend: str, faults: dict[str, str], ops: dict[str, dict[str, Any]]) -> str:
    from fastseg import _native

    slow = [name for name, op in ops.items() if op["path"] == "reference"]
    stuck = [name for name, op in ops.items() if op["path"] == "none"]
    if faults:
        return f"Not working: {'; '.join(f'{name} {fault}' for name, fault in faults.items())}."
    if stuck:
        return f"Not working: backend {backend!r} is asked for and {len(stuck)} of {len(ops)} ops cannot run on it."
    if backend == "reference":
        return "Right but slow: the reference is asked for (FASTSEG_BACKEND or fastseg.backend)."
    if not _native.loaded:
        who = "every op runs" if len(slow) == len(ops) else f"{len(slow)} of {len(ops)} ops run"
        return f"Right but slow: {who} a plain PyTorch reference, because the native library is not loaded."
    if slow:
        return f"Mostly well: {len(slow)} of {len(ops)} ops run their slow reference ({', '.join(slow)})."
    return f"All well: {len(ops)} ops run native kernels on this CPU ({_native.cpu_isa()})."


def _build() -> dict[str, Any]:
    """What `fastseg._C` knows about how it was compiled."""
    try:
        native = import_module("fastseg._C")
    except ImportError as error:
        return {"build": f"unknown: fastseg._C is not built ({error.msg.split(' (')[0]})"}
    return {name.replace("_", " "): value or "none" for name, value in native.build_info().items()}


def _cuda() -> dict[str, Any]:
    import torch

    from fastseg import _native, _triton
    from fastseg._registry import OPS, has_kernel

    triton = sorted(name for name, op in OPS.items() if op.triton)
    compiled = sorted(name for name, op in OPS.items() if not op.triton and has_kernel(name, "CUDA"))
    rest = sorted(OPS.keys() - (set(compiled) if _triton.why_not else {*compiled, *triton}))
    seen = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    loaded = range(torch.cuda.device_count()) if _native.cuda_loaded else ()
    faults = [fault for i in loaded if (fault := _native.cuda_fault(i))]
    return {
        "torch built for": f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA",
        "driver": _driver(),
        "GPUs torch sees": seen or "none",
        "Triton kernels": f"none: {_triton.why_not}" if _triton.why_not else triton,
        "compiled kernels": faults or compiled or f"none: {_native.cuda_why_not}",
        "by reference": rest or "none",
    }


def _driver() -> str:
    try:
        with open("/proc/driver/nvidia/version") as file:
            return file.readline().partition(":")[2].strip()
    except OSError:
        return "none found"


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            lines = (line.partition(":") for line in file)
            return next(value.strip() for key, _, value in lines if key.strip() == "model name")
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(package: str) -> str:
    if util.find_spec(package) is None:
        return "not installed"
    names = metadata.packages_distributions().get(package, ())
    return ", ".join(f"{name} {metadata.version(name)}" for name in names) or "installed, version unknown"


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
