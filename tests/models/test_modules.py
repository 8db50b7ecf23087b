"""Modules of the convolution family: the same numbers as their parts, in training and in evaluation."""

import copy
import pickle
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fastseg
from fastseg import _native
from fastseg.nn import ASPP, KSAC, AtrousConv2d, GlobalConv2d, SeparableAtrousConv2d, SpatialPyramidPool


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def randomised(module: nn.Module) -> nn.Module:
    """Statistics and affine parameters that hide no mistake."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in (
                (norm.running_mean, -0.3, 0.3),
                (norm.running_var, 0.5, 1.5),
                (norm.weight, 0.5, 1.5),
                (norm.bias, -0.5, 0.5),
            ):
                assert tensor is not None
                nn.init.uniform_(tensor, low, high)
    return module


def plain(module: nn.Module, x: Tensor) -> Tensor:
    """The same layers, one after the other, without our ops."""
    if isinstance(module, SeparableAtrousConv2d):
        return plain(module.pointwise, plain(module.depthwise, x))
    if isinstance(module, ASPP):
        *local, pool = module.convs
        maps = [plain(branch, x) for branch in local]
        pooled = x.mean((2, 3), keepdim=True)
        for layer in list(pool.children())[1:]:
            pooled = layer(pooled)
        return plain(module.project, torch.cat([*maps, pooled.expand(-1, -1, *x.shape[2:])], 1))
    for layer in module.children():
        x = layer(x)
    return x


MODULES: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: AtrousConv2d(6, 5, dilation=2),
    "bias": lambda: AtrousConv2d(6, 5, dilation=2, bias=True, norm=False, activation="silu"),
    "bias_and_norm": lambda: AtrousConv2d(6, 6, 5, bias=True, groups=6, activation="relu6"),
    "linear": lambda: AtrousConv2d(6, 5, 1, activation="none"),
    "stride": lambda: AtrousConv2d(6, 5, stride=2),
    "separable": lambda: SeparableAtrousConv2d(6, 5, dilation=3),
    "aspp": lambda: ASPP(6, (1, 2, 3), 4, dropout=0.0),
    "separable_aspp": lambda: ASPP(6, (1, 2, 3), 4, separable=True, dropout=0.0),
}


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest) -> Iterator[nn.Module]:
    yield randomised(MODULES[request.param]()).double()


def test_evaluation_folds_exactly(module: nn.Module) -> None:
    x = torch.randn(2, 6, 9, 11, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(module.eval()(x), plain(module, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_those_of_the_parts(module: nn.Module, training: bool) -> None:
    module.train(training)
    x = torch.randn(3, 6, 9, 11, dtype=torch.float64, requires_grad=True)
    leaves = [x, *module.parameters()]
    other = copy.deepcopy(module)
    out, want = module(x), plain(other, x)
    upstream = torch.randn_like(want)
    got = torch.autograd.grad(out, leaves, upstream)
    right = torch.autograd.grad(want, [x, *other.parameters()], upstream)
    for g, r in zip(got, right, strict=True):
        torch.testing.assert_close(g, r, rtol=1e-9, atol=1e-9)
    for a, b in zip(module.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_frozen_norm_keeps_the_dropout() -> None:
    head = ASPP(6, (1, 2), 4, dropout=1.0).train()
    for norm in head.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eval()
    assert not head(torch.randn(2, 6, 5, 5)).any()


@pytest.fixture
def conv() -> AtrousConv2d:
    """One whose weight is worth packing."""
    return randomised(AtrousConv2d(64, 64, dilation=2)).eval()  # type: ignore[return-value]


needs_native = pytest.mark.skipif(not _native.loaded, reason="the native library is not built")


@needs_native
def test_the_packed_weight_follows_the_weight(conv: AtrousConv2d) -> None:
    x = torch.randn(1, 64, 64, 64)
    changes: list[Callable[[], object]] = [
        lambda: conv.conv.weight.mul_(2),
        lambda: conv.load_state_dict({k: v + 0.1 for k, v in conv.state_dict().items()}),
        lambda: conv.to(torch.float64).to(torch.float32),
        lambda: conv.train().eval(),
        lambda: conv.conv.weight.data.mul_(2),  # which no version tells of
        lambda: conv.conv.weight.data.copy_(torch.randn(64, 64, 3, 3) / 24),
        lambda: setattr(conv.conv, "weight", nn.Parameter(torch.randn(64, 64, 3, 3) / 24)),
    ]
    with torch.no_grad():
        assert conv.packed is None
        for change in changes:
            with fastseg.trace() as paths:
                torch.testing.assert_close(conv(x), plain(conv, x), rtol=1e-4, atol=1e-4)
            assert conv.packed is not None and "prepack" in paths[0]
            with fastseg.trace() as paths:
                conv(x)
            assert len(paths) == 1
            change()


@needs_native
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_the_packed_weight_follows_a_fused_optimizer(conv: AtrousConv2d, optimizer: type) -> None:
    x = torch.randn(1, 64, 64, 64)
    steps = optimizer(conv.parameters(), lr=1e-2, fused=True)
    for _ in range(2):
        with torch.no_grad():
            torch.testing.assert_close(conv(x), plain(conv, x), rtol=1e-4, atol=1e-4)
        assert conv.packed is not None
        conv(x).square().mean().backward()
        steps.step()


@needs_native
def test_a_compiled_module_follows_the_weight(conv: AtrousConv2d) -> None:
    torch._dynamo.reset()
    x, compiled = torch.randn(1, 64, 64, 64), torch.compile(conv, backend="aot_eager")
    with torch.no_grad():
        for _ in range(2):
            assert conv(x) is not None and conv.packed is not None
            torch.testing.assert_close(compiled(x), plain(conv, x), rtol=1e-4, atol=1e-4)
            conv.conv.weight.mul_(2)


@needs_native
def test_other_weights_of_one_module(conv: AtrousConv2d) -> None:
    x = torch.randn(1, 64, 64, 64)
    with torch.no_grad():
        conv(x)
        for _ in range(3):
            state = {"0.weight": torch.randn(64, 64, 3, 3) / 24}
            got = torch.func.functional_call(conv, state, (x,))
            want = F.relu(conv[1](F.conv2d(x, state["0.weight"], padding=2, dilation=2)))
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
        weights = torch.randn(2, 64, 64, 3, 3) / 24
        got = torch.vmap(lambda w: torch.func.functional_call(conv, {"0.weight": w}, (x,)))(weights)
        want = torch.stack([torch.func.functional_call(conv, {"0.weight": w}, (x,)) for w in weights])
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def replaced(conv: AtrousConv2d, place: int, layer: nn.Module) -> None:
    conv[place] = layer


CHANGES: dict[str, Callable[[AtrousConv2d], object]] = {
    "appended": lambda conv: conv.append(nn.Conv2d(64, 3, 1)),
    "activation": lambda conv: replaced(conv, 2, nn.LeakyReLU(0.3)),
    "norm": lambda conv: replaced(conv, 1, nn.GroupNorm(4, 64)),
    "padding": lambda conv: setattr(conv.conv, "padding", (0, 1)),
    "padding_mode": lambda conv: replaced(conv, 0, nn.Conv2d(64, 64, 3, padding=2, dilation=2, padding_mode="reflect")),
    "statistics": lambda conv: replaced(conv, 1, nn.BatchNorm2d(64, track_running_stats=False)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("training", [True, False])
def test_what_is_changed_runs_as_it_is(conv: AtrousConv2d, change: str, training: bool) -> None:
    CHANGES[change](conv)
    conv.train(training)
    x = torch.randn(2, 64, 12, 11)
    torch.testing.assert_close(conv(x), plain(copy.deepcopy(conv), x), rtol=1e-4, atol=1e-4)


def test_hooks_of_layers_are_called(module: nn.Module) -> None:
    x, called = torch.randn(2, 6, 9, 11, dtype=torch.float64), []
    layers = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    want = module.eval()(x)
    for layer in layers:
        layer.register_forward_hook(lambda *_: called.append(1))
    torch.testing.assert_close(module(x), want, rtol=1e-12, atol=1e-12)
    assert len(called) == len(layers)


def test_some_layers_are_a_sequence(conv: AtrousConv2d) -> None:
    x = torch.randn(1, 64, 9, 9)
    assert type(conv[:2]) is nn.Sequential
    torch.testing.assert_close(conv[:2](x), conv[1](conv[0](x)))


def test_monte_carlo_dropout() -> None:
    head = ASPP(6, (1, 2), 4, dropout=1.0).eval()
    head.project[-1].train()
    assert not head(torch.randn(2, 6, 5, 5)).any()


@pytest.mark.parametrize("name", ["conv", "separable", "aspp", "separable_aspp"])
def test_synchronised_norms_are_folded(name: str) -> None:
    module = randomised(MODULES[name]()).eval()
    x = torch.randn(2, 6, 9, 11)
    want = module(x)
    with fastseg.trace() as paths:
        torch.testing.assert_close(nn.SyncBatchNorm.convert_sync_batchnorm(module)(x), want)
    assert len(paths) < sum(isinstance(m, nn.Conv2d) for m in module.modules()) + 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", MODULES)
def test_autocast_in_evaluation(name: str, dtype: torch.dtype) -> None:
    module = randomised(MODULES[name]()).eval()
    x = torch.randn(2, 6, 9, 11)
    with torch.no_grad():
        want = module(x)
        with torch.autocast("cpu", dtype):
            got = module(x)
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), want, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_norm_in_half_precision_is_folded_in_single(dtype: torch.dtype) -> None:
    module = randomised(AtrousConv2d(64, 64)).eval().to(dtype)
    x = torch.randn(2, 64, 9, 11, dtype=dtype)
    exact = plain(copy.deepcopy(module).double(), x.double())
    ours, theirs = ((y.double() - exact).norm() for y in (module(x), plain(module, x)))
    assert ours <= theirs


@needs_native
def test_the_packed_weight_is_no_part_of_a_checkpoint(conv: AtrousConv2d) -> None:
    keys = set(conv.state_dict())
    with torch.inference_mode():
        conv(torch.randn(1, 64, 64, 64))
    assert conv.packed is not None and set(conv.state_dict()) == keys
    assert len(pickle.dumps(conv)) < 1.5 * 4 * conv.conv.weight.numel()
    for copied in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        with torch.inference_mode():
            x = torch.randn(1, 64, 64, 64)
            assert torch.equal(copied(x), conv(x))
    assert conv.train().packed is None


def test_a_gradient_packs_nothing(conv: AtrousConv2d) -> None:
    conv(torch.randn(1, 64, 64, 64)).sum().backward()
    assert conv.packed is None and conv.conv.weight.grad is not None


@pytest.mark.parametrize("name", MODULES)
def test_compiles_as_one_graph(name: str) -> None:
    torch._dynamo.reset()
    module = randomised(MODULES[name]()).eval()
    x = torch.randn(1, 6, 9, 11)
    with torch.no_grad():
        got = torch.compile(module, backend="aot_eager", fullgraph=True)(x)
        torch.testing.assert_close(got, module(x))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", [*MODULES, "ksac", "gcn"])
def test_sizes_may_be_dynamic(name: str, training: bool) -> None:
    torch._dynamo.reset()
    others = {"ksac": lambda: KSAC(6, (1, 2), 4, dropout=0.0), "gcn": lambda: GlobalConv2d(6, 4, 5)}
    module = (MODULES | others)[name]().train(training)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch.no_grad():
        for n, side in ((2, 9), (3, 13)):
            x = torch.randn(n, 6, side, side + 2)
            torch.testing.assert_close(compiled(x), module(x), rtol=1e-4, atol=1e-5)


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="fastseg::AtrousConv2d: activation must be one of none, relu"):
        AtrousConv2d(3, 4, activation="gelu")


def test_bad_modules_are_refused_when_they_are_made() -> None:
    with pytest.raises(ValueError, match="fastseg::AtrousConv2d: kernel_size must be odd, got 2"):
        AtrousConv2d(4, 4, 2)
    with pytest.raises(ValueError, match="fastseg::SpatialPyramidPool: mode must be one of max, mean, got 'sum'"):
        SpatialPyramidPool(mode="sum")


def test_half_precision_in_evaluation() -> None:
    module = randomised(AtrousConv2d(6, 5, dilation=2)).eval()
    x = torch.randn(1, 6, 9, 11)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        got = module(x)
    assert got.dtype == torch.bfloat16
    want = F.relu(plain(module, x))
    torch.testing.assert_close(got.float(), want, rtol=0.05, atol=0.05)
