"""Comparisons whose messages show the first bad place, both values, and what was allowed."""

from collections.abc import Callable

import torch
from torch import Tensor

from . import tolerances
from .bands import Band

PIECE = 1 << 20


def _first(bad: Tensor) -> tuple[int, ...]:
    return tuple(bad.nonzero()[0].tolist())


def assert_shape(got: Tensor, truth: Tensor, what: str = "result") -> None:
    """Same shape and same dtype family."""
    if got.shape != truth.shape:
        raise AssertionError(f"{what}: shape {list(got.shape)} instead of {list(truth.shape)}")
    if got.is_floating_point() != truth.is_floating_point():
        raise AssertionError(f"{what}: dtype {got.dtype} where the truth has {truth.dtype}")


def assert_close(got: Tensor, truth: Tensor, plain: Tensor, floor: float, what: str, growth: float = 1.0) -> None:
    """Floating results: the infinities and NaN of the truth, and elsewhere an error judged against plain PyTorch's.

    Args:
        got: the kernel's result.
        truth: the float64 result.
        plain: plain PyTorch's result in the dtype of `got`.
        floor: error granted in any case, relative to the largest magnitude of the truth.
        what: names the result in the message.
        growth: how many times the error of PyTorch the algorithm is granted, up to a bound of its own.
    """
    assert_shape(got, truth, what)
    error = plain_error = largest = 0.0
    # In pieces: temporaries of large results would be mapped and cleared afresh each time.
    pieces = zip(*(x.flatten().split(PIECE) for x in (got, truth, plain)), strict=True)
    for number, (g, t, p) in enumerate(pieces):
        # Beyond the range of a narrow dtype infinity is the right answer.
        rounded = t.to(g.dtype)
        finite = rounded.isfinite()
        wrong = ~torch.where(finite, g.isfinite(), (g == rounded) | (g.isnan() & rounded.isnan()))
        if wrong.any():
            at = _place(number * PIECE + int(wrong.int().argmax()), got.shape)
            raise AssertionError(f"{what}{list(at)}: {got[at].item()} where the truth is {truth[at].item()}")
        error = max(error, _largest(g - t, finite))
        plain_error = max(plain_error, _largest(p - t, finite & p.isfinite()))
        largest = max(largest, _largest(t, finite))
    allowed = growth * (tolerances.PLAIN * plain_error + floor * largest)
    if growth > 1:
        allowed = min(allowed, tolerances.GROWN_MOST * largest)
    if error > allowed:
        at = _first(torch.where(truth.to(got.dtype).isfinite(), (got - truth).abs(), 0.0) > allowed)
        raise AssertionError(
            f"{what}{list(at)}: {got[at].item()!r} where the truth is {truth[at].item()!r}; largest error "
            f"{error:.3g}, plain PyTorch {plain_error:.3g}, allowed {allowed:.3g}"
        )


def _largest(x: Tensor, where: Tensor) -> float:
    return float(torch.where(where, x.abs(), 0.0).max()) if x.numel() else 0.0


def _place(index: int, shape: torch.Size) -> tuple[int, ...]:
    return tuple(int(i) for i in torch.unravel_index(torch.tensor(index), shape))


def assert_rounded(got: Tensor, truth: Tensor, error: float, what: str) -> None:
    """A narrow result is a wide one, wrong by at most `error`, rounded to nearest once."""
    finite = truth.isfinite()
    least, most = (truth - error).to(got.dtype), (truth + error).to(got.dtype)
    wrong = finite & ~((least <= got) & (got <= most))
    if wrong.any():
        at = _first(wrong)
        raise AssertionError(
            f"{what}{list(at)}: {got[at].item()!r} where the truth {truth[at].item()!r} rounds to "
            f"{truth[at].to(got.dtype).item()!r} ({int(wrong.sum())} of {wrong.numel()} are wrong)"
        )


def assert_gradient(got: Tensor, truth: Tensor, plain: Tensor, floor: float, pixels: int, what: str) -> None:
    """A gradient [N, C, h, w]: as `assert_close`, and as a vector, by relative length of the error, angle to the truth
    and signed bias over so many independent pixels."""
    assert_close(got, truth, plain, floor, what)
    if got.numel() == 0 or not (truth.isfinite().all() and plain.isfinite().all()) or not truth.any():
        return
    g, p, t = got.double().flatten(), plain.double().flatten(), truth.flatten()
    relative, plain_relative = (g - t).norm() / t.norm(), (p - t).norm() / t.norm()
    allowed = tolerances.PLAIN * plain_relative + floor
    if relative > allowed:
        raise AssertionError(f"{what}: relative L2 error {relative:.3g}, plain PyTorch {plain_relative:.3g}")
    angle = 1 - torch.dot(g, t) / (g.norm() * t.norm())
    if angle > allowed**2 + tolerances.COSINE_FLOOR:
        raise AssertionError(f"{what}: 1 - cosine to the truth is {angle:.3g}, allowed {(allowed**2).item():.3g}")
    bias, plain_bias = (g - t).mean() / t.abs().mean(), (p - t).mean() / t.abs().mean()
    share = max(pixels**-0.5, tolerances.SIGNED_BIAS_SHARE)
    most = tolerances.PLAIN * plain_bias.abs() + share * floor
    if bias.abs() > most:
        raise AssertionError(f"{what}: signed bias {bias:.3g}, plain PyTorch {plain_bias:.3g}, allowed {most:.3g}")


def assert_pixels(got: Tensor, truth: Tensor, tie: Callable[[], Band | None], what: str) -> None:
    """Integers or booleans: equal, except where the band of `tie()` proves that both answers are as good."""
    assert_shape(got, truth, what)
    wrong = got.long() != truth.long()
    band = tie() if wrong.any() else None
    if band is not None:
        wrong &= ~band.undecided
    if wrong.any():
        at = _first(wrong)
        gap = (
            "" if band is None else f"; the gap is {band.gap[at].item():.3g}, a tie at most {band.width[at].item():.3g}"
        )
        raise AssertionError(
            f"{what}{list(at)}: {int(got[at])} where the truth is {int(truth[at])}{gap} "
            f"({int(wrong.sum())} of {wrong.numel()} are wrong)"
        )


def assert_counts(got: Tensor, truth: Tensor, tie: Callable[[], Band | None], what: str) -> None:
    """Confusion matrices: same rows, and at most one pixel moved within a row for every undecided pixel of `tie()`."""
    assert_shape(got, truth, what)
    if torch.equal(got, truth):
        return
    band = tie()
    moved = 0 if band is None else int(band.undecided.sum())
    if not torch.equal(got.sum(1), truth.sum(1)):
        at = _first(got.sum(1) != truth.sum(1))
        raise AssertionError(f"{what}: row {at[0]} sums to {int(got.sum(1)[at])} instead of {int(truth.sum(1)[at])}")
    difference = (got - truth).abs()
    if int(difference.sum()) > 2 * moved:
        at = _first(difference > 0)
        raise AssertionError(
            f"{what}{list(at)}: {int(got[at])} instead of {int(truth[at])}; {int(difference.sum()) // 2} pixels moved, "
            f"{moved} are undecided"
        )


def assert_memory_format(got: Tensor, like: Tensor, what: str) -> None:
    """Maps [N, C, H, W] are stored as their input: channels_last if that is, else NCHW."""
    channels_last = like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous()
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    if not got.is_contiguous(memory_format=wanted):
        raise AssertionError(f"{what}: strides {got.stride()} of {list(got.shape)} are not {wanted}")
