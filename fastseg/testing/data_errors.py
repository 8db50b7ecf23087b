"""Values in the data that an op refuses, as a device does that cannot raise: it poisons the result.

`python -m fastseg.testing.data_errors DEVICE` checks all of them, and prints how many there are.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from .case import tables


@dataclass(frozen=True)
class DataError:
    """A call whose data may hold what is refused. A stem lists its own as `DATA_ERRORS`, beside its `CASES`.

    Args:
        name: of the row.
        argument: that the message names.
        make: `(device, value) -> call`, with the value in several places of the data.
        values: that are refused.
        right: a value that is not.
        first: index of the first place, which the message names.
        poisoned: where the result must be NaN or the largest integer, and nowhere else; None: everywhere.
    """

    name: str
    argument: str
    make: Callable[[str, int], Callable[[], Tensor]]
    values: tuple[int, ...]
    right: int
    first: tuple[int, ...]
    poisoned: Callable[[], Tensor] | None = None


def find_data_errors() -> dict[str, DataError]:
    """Rows of every stem, by name."""
    return {error.name: error for table in tables().values() for error in getattr(table, "DATA_ERRORS", ())}


@contextmanager
def checked() -> Iterator[None]:
    """FASTSEG_CHECK=1: ops wait for the device and raise."""
    before = os.environ.get("FASTSEG_CHECK", "")
    os.environ["FASTSEG_CHECK"] = "1"
    try:
        yield
    finally:
        os.environ["FASTSEG_CHECK"] = before


def check_data_error(error: DataError, device: str, value: int) -> None:
    """Raise AssertionError unless a bad value poisons the result, raises under FASTSEG_CHECK=1, and a right one does
    neither."""
    what, call = f"{error.name} {value}", error.make(device, value)
    got = is_poisoned(call()).cpu()
    wanted = error.poisoned() if error.poisoned else torch.ones_like(got)
    if not torch.equal(got, wanted):
        raise AssertionError(f"{what}: {int(got.sum())} places are poisoned, not these {int(wanted.sum())}")
    with checked():
        if is_poisoned(error.make(device, error.right)()).any():
            raise AssertionError(f"{error.name} {error.right}, which is right, poisons the result")
        try:
            call()
        except RuntimeError as said:
            if f"{error.argument} must" not in str(said) or f"got {value} at {list(error.first)}" not in str(said):
                raise AssertionError(f"{what}: {said}") from None
        else:
            raise AssertionError(f"{what} does not raise")


def is_poisoned(result: Tensor) -> Tensor:
    """Where a result is NaN or the largest integer."""
    return result.isnan() if result.is_floating_point() else result == torch.iinfo(result.dtype).max


def _main(device: str) -> None:
    checks = [(error, value) for error in find_data_errors().values() for value in error.values]
    for error, value in checks:
        check_data_error(error, device, value)
    print(len(checks))


if __name__ == "__main__":
    _main(*sys.argv[1:])
