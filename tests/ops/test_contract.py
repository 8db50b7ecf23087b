"""What torch asks of every registered op, on kernels and without: opcheck, torch.compile, vmap, autocast, FLOPs."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import fastseg
from fastseg import _native, _registry, ops, testing
from fastseg.testing import Case
from fastseg.testing.check import differentiated

# Made of lists whose lengths are read, in Python: no graph holds it.
READS = ("surface_metrics",)
SMOKE = [case for case in testing.find_cases(None, "smoke") if case.op not in READS]
ONE_PER_OP = [case for case in SMOKE if case.id.endswith(("x2", "square")) and "ties" not in case.id]
FLOATS = [
    case for case in ONE_PER_OP if case.dtypes == testing.FLOATS and case.op.startswith(("upsample", "confusion"))
]
CHEAP = ("test_schema", "test_autograd_registration", "test_faketensor")
# Backwards that say so when they are differentiated again.
ONCE = (
    "upsample_softmax_backward",
    "upsample_cross_entropy_backward",
    "pyramid_pool_backward",
    "global_conv2d_backward",
    "ksac_fuse_backward",
    "prepack_atrous_weight",
    "aspp_conv2d",
    "directed_hausdorff",
    "gaussian_filter_gradient",
    "permutohedral_lattice",
    "permutohedral_diagonal",
    "region_statistics_backward",
    "lovasz_softmax_backward",
)
# Ops of which PyTorch computes a part, a mean or a gradient's sum for example, that Inductor adds up in another order.
COMPOSED = ("ksac_conv2d_train", "aspp_conv2d", "separable_atrous_conv2d", "dense_crf")


@pytest.fixture(autouse=True, params=["auto", "reference"])
def side(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every promise is kept by the kernels and by the references."""
    with fastseg.backend(request.param):
        yield request.param


def name(case: Case) -> str:
    return case.name


def test_every_registered_op_is_reached_by_a_smoke_row() -> None:
    reached = {str(op).split(".")[1] for case in ONE_PER_OP for op, _ in testing.recorded_calls(case, case.dtypes[0])}
    assert reached == set(_registry.OPS)


@pytest.mark.parametrize("layout", testing.LAYOUTS)
@pytest.mark.parametrize("case, dtype", [pytest.param(c, d, id=f"{c.name}-{d}") for c in ONE_PER_OP for d in c.dtypes])
def test_opcheck(case: Case, dtype: torch.dtype, layout: str) -> None:
    # Tracing meets no dtype or layout but through the fake, which all of them check, and takes a minute of many ops.
    layouts = testing.LAYOUTS[: 1 if case.op in COMPOSED else 2]
    traced = ("test_aot_dispatch_dynamic",) if dtype == torch.float32 and layout in layouts else ()
    for op, args in testing.recorded_calls(case, dtype, layout):
        args = tuple(a.detach() if isinstance(a, Tensor) else a for a in args)
        torch.library.opcheck(op, args, test_utils=CHEAP + traced)
        tracked = tuple(
            a.detach().requires_grad_() if isinstance(a, Tensor) and a.is_floating_point() else a for a in args
        )
        once = op.name().split("::")[1] in ONCE
        torch.library.opcheck(op, tracked, test_utils=CHEAP + (() if once else traced))


def compiled_run(case: Case, backend: str) -> None:
    """Forward and backward of one row, compiled without a graph break, give what eager gives."""
    dtype = case.dtypes[0]
    (args, kwargs), inputs = differentiated(case, testing.inputs_of(case, dtype))
    # An `out` argument is added to, so each call gets its own.
    fresh = {k: v.clone() if k == "out" else v for k, v in kwargs.items()}
    function: Callable[..., Any] = getattr(ops, case.op)
    want = function(*args, **kwargs)
    got = torch.compile(function, backend=backend, fullgraph=True)(*args, **fresh)
    want, got = (result if isinstance(result, tuple) else (result,) for result in (want, got))
    near = backend == "inductor" and case.op in COMPOSED
    same = (lambda w, g: torch.allclose(w, g, rtol=1e-4, atol=1e-5)) if near else torch.equal
    for w, g in zip(want, got, strict=True):
        assert same(w, g) and w.stride() == g.stride() and w.dtype == g.dtype
    if case.grad:
        gradients = (
            torch.autograd.grad(through, inputs, [torch.ones_like(r) for r in through])
            for through in ([r for r in result if r.requires_grad] for result in (want, got))
        )
        for w, g in zip(*gradients, strict=True):
            assert same(w, g)


def test_confidence_of_trained_logits_compiles() -> None:
    torch._dynamo.reset()
    x = torch.randn(1, 3, 4, 5, requires_grad=True)
    function = lambda x: (*ops.upsample_argmax(x, (9, 11), return_confidence=True), ops.upsample_softmax(x, (9, 11)))  # noqa: E731
    got, want = torch.compile(function, backend="aot_eager", fullgraph=True)(x), function(x)
    assert [t.requires_grad for t in got] == [t.requires_grad for t in want] == [False, False, True]
    assert all(map(torch.equal, got, want))
    assert torch.equal(*(torch.autograd.grad(t[2].square().sum(), x)[0] for t in (got, want)))


@pytest.mark.parametrize("case", SMOKE, ids=name)
def test_compiles_as_one_graph(case: Case) -> None:
    torch._dynamo.reset()
    compiled_run(case, "aot_eager")


@pytest.mark.parametrize("case", ONE_PER_OP, ids=name)
def test_compiles_with_inductor(case: Case) -> None:
    torch._dynamo.reset()
    compiled_run(case, "inductor")


def test_ops_that_look_at_labels_are_exported() -> None:
    class Both(torch.nn.Module):
        def forward(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
            return ops.upsample_cross_entropy(x, target), ops.confusion_matrix(x, target, 3)

    x, target = torch.randn(1, 3, 4, 5), torch.randint(0, 3, (1, 9, 11))
    for got, want in zip(torch.export.export(Both(), (x, target)).module()(x, target), Both()(x, target), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("op", ["upsample_bilinear", "upsample_argmax", "upsample_softmax", "upsample_threshold"])
def test_a_third_size_does_not_recompile(op: str) -> None:
    torch._dynamo.reset()
    graphs = 0

    def count(module: Any, example_inputs: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return module.forward

    function = torch.compile(getattr(ops, op), backend=count, fullgraph=True)
    for n, h, w, height, width in ((2, 5, 7, 11, 13), (3, 6, 9, 17, 19), (4, 8, 10, 23, 29), (5, 11, 12, 31, 37)):
        x = torch.randn(n, 3, h, w)
        assert torch.equal(function(x, (height, width)), getattr(ops, op)(x, (height, width)))
    assert graphs <= 2


def test_a_third_size_does_not_recompile_the_loss() -> None:
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    function = torch.compile(ops.upsample_cross_entropy, backend=counter, fullgraph=True)
    for n, h, height in ((2, 5, 11), (3, 6, 17), (4, 8, 23), (5, 11, 31)):
        x, target = torch.randn(n, 3, h, h + 1), torch.randint(0, 3, (n, height, height + 1))
        assert torch.equal(function(x, target), ops.upsample_cross_entropy(x, target))
    assert counter.frame_count <= 2


@pytest.mark.parametrize("op", ["upsample_bilinear", "upsample_argmax", "upsample_softmax", "upsample_threshold"])
@pytest.mark.parametrize("dim", [0, 2])
def test_vmap_is_a_stack_of_calls(op: str, dim: int, side: str) -> None:
    function = getattr(ops, op)
    x = torch.randn(2, 3, 4, 5, 6).movedim(0, dim)
    want = torch.stack([function(one, (9, 11)) for one in x.unbind(dim)])
    got = torch.vmap(lambda one: function(one, (9, 11)), in_dims=dim)(x)
    # The exponential of plain PyTorch depends on the place in the vector.
    plain = side == "reference" or not _native.loaded
    tolerance = {"rtol": 0, "atol": 1e-6 if want.is_floating_point() and plain else 0}
    torch.testing.assert_close(got, want, **tolerance)


def test_vmap_of_the_loss_and_its_gradient() -> None:
    x, target = torch.randn(3, 2, 4, 5, 6, requires_grad=True), torch.randint(0, 4, (3, 2, 9, 11))
    want = torch.stack([ops.upsample_cross_entropy(a, b) for a, b in zip(x, target, strict=True)])
    got = torch.vmap(ops.upsample_cross_entropy)(x, target)
    assert torch.equal(got, want)
    assert torch.equal(torch.autograd.grad(got.sum(), x)[0], torch.autograd.grad(want.sum(), x)[0])


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("prediction", [torch.randn(3, 2, 4, 5, 6), torch.randint(0, 4, (3, 2, 9, 11))])
def test_vmap_of_counts(prediction: Tensor, dim: int) -> None:
    target = torch.randint(0, 4, (3, 2, 9, 11)).movedim(0, dim)
    count = lambda p, t, out=None: ops.confusion_matrix(p, t, 4, out=out)  # noqa: E731
    want = torch.stack([count(p, t) for p, t in zip(prediction, target.unbind(dim), strict=True)])
    assert torch.equal(torch.vmap(count, (0, dim))(prediction, target), want)
    out = torch.ones(3, 4, 4, dtype=torch.int64)
    assert torch.equal(torch.vmap(count, (0, dim, 0))(prediction, target, out), want + 1)
    assert torch.equal(out, want + 1)


def test_vmap_does_not_add_every_entry_to_one_matrix() -> None:
    prediction, target = torch.randint(0, 4, (3, 2, 9, 11)), torch.randint(0, 4, (2, 9, 11))
    with pytest.raises(ValueError, match="fastseg::confusion_matrix: out must be mapped by vmap where prediction is"):
        torch.vmap(lambda p: ops.confusion_matrix(p, target, 4))(prediction)


@pytest.mark.parametrize("op, dtype", [("upsample_softmax", torch.float32), ("upsample_bilinear", torch.bfloat16)])
def test_autocast(op: str, dtype: torch.dtype) -> None:
    x = torch.randn(1, 3, 4, 5, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert getattr(ops, op)(x, (9, 11)).dtype == dtype


def test_autocast_computes_the_loss_in_float32() -> None:
    x = torch.randn(1, 3, 4, 5, dtype=torch.bfloat16, requires_grad=True)
    target = torch.randint(0, 3, (1, 9, 11))
    with torch.autocast("cpu", torch.bfloat16):
        loss = ops.upsample_cross_entropy(x, target)
    loss.backward()
    assert loss.dtype == torch.float32 and x.grad is not None and x.grad.dtype == torch.bfloat16
    assert torch.equal(loss, ops.upsample_cross_entropy(x.float(), target))


UPSAMPLED = [case for case in FLOATS if case.op.startswith("upsample")]


@pytest.mark.parametrize("case", UPSAMPLED, ids=name)
def test_flop_counter_sees_every_upsampling(case: Case) -> None:
    args, kwargs = testing.inputs_of(case, torch.float32)
    with FlopCounterMode(display=False) as counter:
        getattr(ops, case.op)(*args, **kwargs)
    if not case.op.startswith(("upsample", "confusion")):
        assert counter.get_total_flops() > 0  # of how many, the tests of the stem speak
        return
    out = args[1].shape[1:] if isinstance(args[1], Tensor) else args[1]
    pixels = args[0].shape[0] * args[0].shape[1] * out[0] * out[1]
    assert 6 * pixels <= counter.get_total_flops() <= 20 * pixels


def test_flop_counter_counts_convolutions() -> None:
    x, weight = torch.randn(2, 6, 9, 11, requires_grad=True), torch.randn(4, 3, 3, 3, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        out = ops.atrous_conv2d(x, weight, groups=2, stride=2, dilation=2)
        forward = counter.get_total_flops()
        out.sum().backward()
    assert forward == 2 * out.numel() * 3 * 9 and counter.get_total_flops() == 3 * forward


@pytest.mark.parametrize("layout", testing.LAYOUTS)
@pytest.mark.parametrize("op", ["upsample_bilinear", "upsample_softmax", "upsample_threshold"])
def test_maps_keep_the_memory_format(op: str, layout: str) -> None:
    for isa in testing.isas():
        with testing.use_isa(isa):
            x = testing.with_layout(torch.randn(2, 3, 4, 5), layout).requires_grad_()
            out = getattr(ops, op)(x, (9, 11))
            testing.assert_memory_format(out, x, op)
            if out.is_floating_point():
                (grad,) = torch.autograd.grad(out, x, torch.randn_like(out))
                testing.assert_memory_format(grad, x, f"gradient of {op}")
