"""trace(): the paths of the ops that run."""

import torch

from . import _native

_traces: list[list[str]] = []


class trace:
    """Collect the path of every op run in a `with` block, as `op:path` strings, those of inner blocks too.

    Example:
        >>> with trace() as paths:
        ...     fastseg.ops.upsample_argmax(logits, (512, 512))
        >>> paths
        ['upsample_argmax:cpu/avx512']
    """

    def __enter__(self) -> list[str]:
        _collect()
        _traces.append([])
        _start()
        return _traces[-1]

    def __exit__(self, *_: object) -> None:
        _collect()
        _traces.pop()
        if _traces:
            _start()


def took(path: str) -> None:
    """Note a path in every open trace."""
    for paths in _traces:
        paths.append(path)


def _libraries() -> list[str]:
    """What the names of each loaded library's functions begin with: libraries note paths of their own."""
    return [prefix for prefix, loaded in (("", _native.loaded), ("_cuda", _native.cuda_loaded)) if loaded]


def _start() -> None:
    for prefix in _libraries():
        getattr(torch.ops.fastseg, f"{prefix}_trace_start")()


def _collect() -> None:
    """Hand what the libraries noted to every open trace."""
    if not _traces:
        return
    for prefix in _libraries():
        for path in filter(None, getattr(torch.ops.fastseg, f"{prefix}_trace_stop")().split("\n")):
            took(path)
