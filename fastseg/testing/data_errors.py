"""Labels that are no class: what CUDA kernels make of them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .. import ops

CLASSES, SIZE = 3, (37, 301)  # several blocks, whose last ones are not full
FIRST, SECOND, LAST = (1, 2, 3), (1, 2, 4), (1, 30, 290)  # two in one warp, one in another block


@contextmanager
def checked() -> Iterator[None]:
    """FASTSEG_CHECK=1: ops wait for the device and raise."""
    before = os.environ.get("FASTSEG_CHECK", "")
    os.environ["FASTSEG_CHECK"] = "1"
    try:
        yield
    finally:
        os.environ["FASTSEG_CHECK"] = before


def check_data_errors(device: str, value: int) -> None:
    """Raise AssertionError unless bad labels poison every result, and the first raises under FASTSEG_CHECK=1.

    Args:
        device: where the kernels run.
        value: the bad label.
    """
    x = torch.randn(2, CLASSES, 5, 150, generator=torch.Generator().manual_seed(0)).to(device)
    dtype = torch.uint8 if value in range(128, 256) else torch.int16 if abs(value) < 128 else torch.int64
    good = torch.zeros(2, *SIZE, dtype=dtype, device=device)
    bad = good.clone()
    for place in (LAST, SECOND, FIRST):
        bad[place] = value
    calls: dict[str, Callable[[], Tensor]] = {
        "target": lambda: ops.upsample_cross_entropy(x, bad, ignore_index=100),
        "target of the fused matrix": lambda: ops.confusion_matrix(x, bad, CLASSES, ignore_index=100),
        "target of a matrix": lambda: ops.confusion_matrix(good, bad, CLASSES, ignore_index=100),
        "prediction": lambda: ops.confusion_matrix(bad, good, CLASSES, ignore_index=100),
    }
    for what, call in calls.items():
        result = call()
        if not poisoned(result).all():
            raise AssertionError(f"{what} {value} leaves the result as it is")
        if result.dim() and not poisoned(ops.confusion_matrix(good, good, CLASSES, out=result)).all():
            raise AssertionError(f"{what} {value} is forgotten when a right batch is added")
        with checked():
            try:
                call()
            except RuntimeError as error:
                if f"{what.split()[0]} must" not in str(error) or f"got {value} at {list(FIRST)}" not in str(error):
                    raise AssertionError(f"{what} {value}: {error}") from None
            else:
                raise AssertionError(f"{what} {value} does not raise")
    _check_loss(x.requires_grad_(), bad)
    ignored = good.clone()
    ignored[LAST] = 100
    with checked():  # what is right raises nothing
        ops.upsample_cross_entropy(x, ignored, ignore_index=100)
        if int(ops.confusion_matrix(good, ignored, CLASSES, ignore_index=100)[0, 0]) != good.numel() - 1:
            raise AssertionError("the labels that are classes are not those that are counted")


def _check_loss(x: Tensor, bad: Tensor) -> None:
    """The loss of a bad pixel is NaN and no other; so are the gradients of the logits around it."""
    loss = ops.upsample_cross_entropy(x, bad, ignore_index=100, reduction="none")
    if not torch.equal(poisoned(loss), bad != 0):
        raise AssertionError("the loss is NaN elsewhere than at the bad labels")
    (gradient,) = torch.autograd.grad(loss, x, torch.ones_like(loss))
    if not gradient[1].isnan().any(0)[0, 1] or gradient[0].isnan().any():
        raise AssertionError("the gradient is NaN elsewhere than around the bad labels")


def poisoned(result: Tensor) -> Tensor:
    """Where a result is NaN or the largest integer."""
    return result.isnan() if result.is_floating_point() else result == torch.iinfo(result.dtype).max
