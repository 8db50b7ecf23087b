"""fastseg: hand-written kernels for semantic segmentation in PyTorch."""

from . import _native, ops
from ._config import backend
from ._registry import Description, describe, trace

__version__ = "0.1.0"

__all__ = ["Description", "__version__", "backend", "describe", "ops", "trace"]
