"""Values in the data that an op refuses, as a device does that cannot raise: it poisons the result.

`python -m fastseg.testing.data_errors cuda` checks all of them there, `... cpu` those whose kernels run on the host, in
an environment of `fastseg.testing.ladder.host`.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._trace import trace
from .case import tables
from .layouts import poison

Result = Tensor | tuple[Tensor, ...]
POISONING = ("cuda", "triton")  # kernels that cannot raise


@dataclass(frozen=True)
class DataError:
    """A call whose data may hold what is refused. A stem lists its own as `DATA_ERRORS`, beside its `CASES`.

    Args:
        name: of the row, unique within the stem.
        argument: that the message names.
        make: `(device, value) -> call`, with the value in several places of the data.
        values: that are refused.
        right: a value that is not.
        first: index of the first place, which the message names; (): it names no place.
        poisoned: where the result must be NaN or the largest integer, and nowhere else; None: everywhere.
    """

    name: str
    argument: str
    make: Callable[[str, Any], Callable[[], Result]]
    values: tuple[Any, ...]
    right: Any
    first: tuple[int, ...]
    poisoned: Callable[[], Tensor] | None = None


def find_data_errors() -> dict[str, DataError]:
    """Rows of every stem, by stem and name."""
    rows = [(f"{stem} {e.name}", e) for stem, table in tables().items() for e in getattr(table, "DATA_ERRORS", ())]
    found = dict(rows)
    if len(found) < len(rows):
        raise ValueError(
            f"fastseg::data_errors: a name must be unique within its stem, got {[name for name, _ in rows]}"
        )
    return found


@contextmanager
def checked(on: bool = True) -> Iterator[None]:
    """FASTSEG_CHECK=1: ops wait for the device and raise."""
    before = os.environ.get("FASTSEG_CHECK", "")
    os.environ["FASTSEG_CHECK"] = "1" if on else ""
    try:
        yield
    finally:
        os.environ["FASTSEG_CHECK"] = before


def poisons(error: DataError, device: str) -> bool:
    """Whether the call runs on kernels that cannot raise: the CPU's and the references do."""
    with trace() as paths:
        error.make(device, error.right)()
    return bool(paths) and all(path.split(":")[1].startswith(POISONING) for path in paths)


def check_data_error(error: DataError, device: str, value: Any) -> None:
    """Raise AssertionError unless a bad value poisons the result, raises under FASTSEG_CHECK=1, and a right one does
    neither."""
    what, call = f"{error.name} {value}", error.make(device, value)
    with checked(False):
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
            place = f"got {value} at {list(error.first)}" if error.first else "got"
            if f"{error.argument} must" not in str(said) or place not in str(said):
                raise AssertionError(f"{what}: {said}") from None
        else:
            raise AssertionError(f"{what} does not raise")


def is_poisoned(result: Result) -> Tensor:
    """Where a result is NaN or the largest integer; of several results, one after the other."""
    if isinstance(result, tuple):
        return torch.cat([is_poisoned(one).flatten() for one in result])
    return result.isnan() if result.is_floating_point() else result == poison(result.dtype)


def fault_of(error: DataError, device: str, value: Any) -> str:
    """What is wrong with one value of a row, if anything."""
    try:
        check_data_error(error, device, value)
    except Exception as wrong:  # whatever a kernel raises is the fault of this row
        return f"{type(wrong).__name__}: {wrong}"
    return ""


def main() -> int:
    """1 if a row is wrong, or none poisons; on a GPU, if one does not."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__)
    parser.add_argument("device", choices=("cpu", "cuda"))
    device, faults, count = parser.parse_args().device, [], 0
    for name, error in find_data_errors().items():
        if poisons(error, device):
            told = [(value, fault_of(error, device, value)) for value in error.values]
            faults += [f"{name} {value}: {fault}" for value, fault in told if fault]
            count += 1
        elif device == "cuda":
            faults.append(f"{name}: runs on no kernel of the GPU")
    print(*faults, f"{count} data errors poison, {len(faults)} wrong", sep="\n")
    return int(bool(faults) or not count)


if __name__ == "__main__":
    sys.exit(main())
