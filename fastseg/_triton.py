"""Whether the Triton kernels can run in this process, on tensors of which device, and how they are registered."""

import os
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

# As Triton reads it, which is not imported here.
_asked = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")

why_not = "triton is not installed" if find_spec("triton") is None else ""
interpreted = _asked and not why_not
device = "cpu" if interpreted else "cuda"
path = "triton/interpreter" if interpreted else "triton"


def launcher(op: str, stem: str) -> Callable[..., Any]:
    """`fastseg.kernels.<stem>.launch_<op>`, imported at the first call."""

    def launch(*args: Any) -> Any:
        return getattr(import_module(f"fastseg.kernels.{stem}"), f"launch_{op}")(*args)

    return launch
