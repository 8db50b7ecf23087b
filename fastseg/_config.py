"""The backend choice and the FASTSEG_* variables."""

import os
from types import TracebackType

BACKENDS = ("auto", "reference", "native", "triton", "cuda")


def _checked(name: str, origin: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"fastseg::backend: {origin} must be one of {', '.join(BACKENDS)}, got {name!r}")
    return name


# A plain global, not a ContextVar: torch.compile guards on it and recompiles when it changes.
_backend = os.environ.get("FASTSEG_BACKEND") or "auto"


def current_backend() -> str:
    """Name of the backend asked for: `auto` unless `backend()` or FASTSEG_BACKEND says otherwise."""
    # Checked here and not at import, so that `fastseg doctor` can say what is wrong with the variable.
    return _checked(_backend, "FASTSEG_BACKEND")


class backend:
    """Force one backend for every fastseg op inside a `with` block, in the whole process.

    `auto` may fall back to the reference; any other choice never falls back: an op that cannot run there raises with
    the reason. A backward runs where its forward ran.

    Args:
        name: `auto`, `reference` (plain PyTorch), `native` (compiled, the device of the tensors decides), `triton` or
            `cuda`.

    Example:
        >>> with fastseg.backend("reference"):
        ...     labels = fastseg.ops.upsample_argmax(logits, (512, 512))
    """

    def __init__(self, name: str) -> None:
        self.name = _checked(name, "name")
        self._previous: list[str] = []

    def __enter__(self) -> None:
        global _backend
        self._previous.append(_backend)
        _backend = self.name

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _backend
        _backend = self._previous.pop()
