"""The KSAC module: its parts in PyTorch, statistics, parameters, and what it refuses."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseg.nn import KSAC


def plain(head: KSAC, x: Tensor) -> Tensor:
    """The module from its own submodules and `F.conv2d`."""
    norms = [head.norms[k % len(head.norms)] for k in range(len(head.rates))]
    terms = [
        torch.relu(norm(F.conv2d(x, head.weight, padding=r, dilation=r)))
        for norm, r in zip(norms, head.rates, strict=True)
    ]
    shared = terms if head.fusion == "concat" else [torch.stack(terms).sum(0)]
    return head.project(torch.cat([head.local(x), *shared, head.pool(x).expand(-1, -1, *x.shape[-2:])], 1))


def randomised(**options: Any) -> KSAC:
    torch.manual_seed(0)
    head = KSAC(12, (2, 3, 7), 20, dropout=0.0, **options).double()
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d):
            for t, bounds in ((module.running_mean, (-0.3, 0.3)), (module.running_var, (0.5, 1.5))):
                t.uniform_(*bounds)
            nn.init.uniform_(module.weight, -1, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return head


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("bn_shared", [False, True])
@pytest.mark.parametrize("fusion", ["sum", "concat"])
def test_the_module_is_its_composition(fusion: str, bn_shared: bool, train: bool) -> None:
    ours, theirs = (randomised(fusion=fusion, bn_shared=bn_shared).train(train) for _ in range(2))
    x = torch.randn(2, 12, 9, 11, dtype=torch.float64)
    got, want = ours(x), plain(theirs, x)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-10, atol=1e-10)
    up = torch.randn_like(got)
    got.backward(up)
    want.backward(up)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-8, atol=1e-8)


def test_a_batch_norm_without_momentum_averages_all_batches() -> None:
    ours, theirs = (randomised() for _ in range(2))
    for head in (ours, theirs):
        for norm in head.norms:
            norm.momentum = None
            norm.reset_running_stats()
    for seed in range(3):
        x = torch.randn(2, 12, 9, 11 + seed, dtype=torch.float64)
        ours(x)
        plain(theirs, x)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "channels, rates, stacked, summed",
    [
        (320, (6, 12, 18), 1_231_872, 1_100_800),
        (320, (6, 12, 18, 24), 1_297_920, 1_101_312),
        (1280, (6, 12, 18), 3_935_232, 3_804_160),
        (2048, (6, 12, 18), 6_097_920, 5_966_848),
        (2048, (6, 12, 18, 24), 6_163_968, 5_967_360),
    ],
)
def test_numbers_of_parameters(channels: int, rates: tuple[int, ...], stacked: int, summed: int) -> None:
    with torch.device("meta"):
        heads = [KSAC(channels, rates, fusion=fusion) for fusion in ("concat", "sum")]
        shared = KSAC(channels, rates, bn_shared=True)
    assert [sum(p.numel() for p in head.parameters()) for head in heads] == [stacked, summed]
    assert sum(p.numel() for p in shared.parameters()) == summed - 512 * (len(rates) - 1)
    for head in (*heads, shared):
        assert [p.shape for p in head.parameters() if p.shape[2:] == (3, 3)] == [(256, channels, 3, 3)]


def test_the_module_refuses_another_fusion() -> None:
    with pytest.raises(ValueError, match="fastseg::KSAC: fusion must be one of sum, concat, got 'mean'"):
        KSAC(8, fusion="mean")


def test_the_module_trains() -> None:
    torch.manual_seed(0)
    head, x = KSAC(8, (1, 2), 6, dropout=0.0), torch.randn(4, 8, 9, 9)
    target = torch.randn(4, 6, 9, 9).relu()
    optimizer = torch.optim.SGD(head.parameters(), 0.1)
    losses = []
    for _ in range(20):
        loss = (head(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


CHANGES: dict[str, Callable[[KSAC], object]] = {
    "eps": lambda head: setattr(head.norms[1], "eps", 1.0),
    "one_frozen": lambda head: head.norms[1].eval(),
    "no_affine": lambda head: head.norms.__setitem__(1, nn.BatchNorm2d(6, affine=False)),
    "no_statistics": lambda head: head.norms.__setitem__(1, nn.BatchNorm2d(6, track_running_stats=False)),
    "hook": lambda head: head.norms[0].register_forward_hook(lambda module, given, y: 2 * y),
}


@pytest.mark.parametrize("fusion", ["sum", "concat"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("change", CHANGES)
def test_norms_that_differ_run_as_they_are(change: str, training: bool, fusion: str) -> None:
    torch.manual_seed(0)
    head = KSAC(8, (1, 2), 6, fusion=fusion, dropout=0.0).train(training)
    CHANGES[change](head)
    other, x = copy.deepcopy(head), torch.randn(4, 8, 9, 9)
    terms = [
        norm(F.conv2d(x, head.weight, padding=r, dilation=r)).relu()
        for norm, r in zip(other.norms, head.rates, strict=True)
    ]
    want = torch.cat(terms, 1) if fusion == "concat" else terms[0] + terms[1]
    torch.testing.assert_close(head.shared(x), want, rtol=1e-4, atol=1e-5)
    for got, right in zip(head.norms.buffers(), other.norms.buffers(), strict=True):
        torch.testing.assert_close(got, right)


def test_no_rates_are_refused() -> None:
    with pytest.raises(ValueError, match=r"fastseg::KSAC: rates must name at least one, got \(\)"):
        KSAC(8, ())
