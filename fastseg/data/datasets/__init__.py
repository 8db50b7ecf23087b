"""Datasets as plain ``torch.utils.data.Dataset`` classes over files on disk; nothing is downloaded."""

from fastseg.data.datasets.ccp import CCP, Split

__all__ = ["CCP", "open_dataset"]


def open_dataset(data: str, split: Split, *, cache: bool = False) -> CCP:
    """Open a data set named on the command line.

    Args:
        data: ``KIND:PATH``; the kind is ``ccp``.
        split: ``"train"``, ``"val"`` or ``"all"``.
        cache: keep the decoded files in memory.
    """
    kind, _, path = data.partition(":")
    if kind != "ccp" or not path:
        raise ValueError(f"fastseg::open_dataset: data must be ccp:PATH, got {data!r}")
    return CCP(path, split, cache=cache)
