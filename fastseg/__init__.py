"""fastseg: hand-written kernels for semantic segmentation in PyTorch."""

from typing import TYPE_CHECKING, Any

from . import ops
from ._config import backend
from ._describe import Description, describe
from ._trace import trace

if TYPE_CHECKING:
    from .models import create_model, list_models

__version__ = "0.1.0"

__all__ = ["Description", "__version__", "backend", "create_model", "describe", "list_models", "ops", "trace"]


def __getattr__(name: str) -> Any:
    # Models are imported when they are asked for: whoever only drops in an op does not pay for them.
    if name in ("create_model", "list_models"):
        from . import models

        return getattr(models, name)
    raise AttributeError(f"module 'fastseg' has no attribute {name!r}")
