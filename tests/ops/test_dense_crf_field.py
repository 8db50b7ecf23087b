"""The dense CRF against brute force, its gradients and its threads."""

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

import fastseg
from fastseg import _native, ops
from fastseg.nn import DenseCRF
from fastseg.ops.dense_crf_presets import PRESETS, dense_crf_preset
from fastseg.reference.dense_crf_lattice import NORMALIZATIONS, diagonal, filtered, lattice

SIGMAS: dict[str, Any] = {"spatial_sigma": 1.5, "bilateral_sigma_xy": 4.0, "bilateral_sigma_color": 0.5}


def problem(shape: tuple[int, ...], channels: int = 3, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(sum(shape))
    image = torch.rand(shape[0], channels, *shape[2:], generator=g, dtype=torch.float64)
    return (torch.rand(shape, generator=g, dtype=torch.float64) * 3).to(dtype), image.to(dtype)


def brute_force(
    unary: Tensor, image: Tensor, mode: str, include_self: bool, iterations: int, weights: tuple[float, float]
) -> Tensor:
    """Q [C, P] by the matrices of both kernels, in float64: the equations as they are written."""
    size = unary.shape[2:]
    at = torch.stack(torch.meshgrid(*(torch.arange(n).double() for n in size), indexing="ij")).flatten(1)
    between = lambda x: (x[:, :, None] - x[:, None]).square().sum(0)  # noqa: E731
    kernels = []
    exponents = between(at / 1.5), between(at / 4.0) + between(image[0].double().flatten(1) / 0.5)
    for exponent, weight in zip(exponents, weights, strict=True):
        k = (-0.5 * exponent).exp()
        k = k if include_self else k - torch.eye(len(k)).double()
        n = k.sum(1)
        left = {"after": 1 / n, "symmetric": n**-0.5}.get(mode, torch.ones_like(n))
        right = {"before": 1 / n, "symmetric": n**-0.5}.get(mode, torch.ones_like(n))
        kernels.append(weight * left[:, None] * k * right)
    u = unary[0].double().flatten(1)
    q = (-u).softmax(0)
    for _ in range(iterations):
        q = (-u + q @ kernels[0].T + q @ kernels[1].T).softmax(0)
    return q


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("mode", NORMALIZATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_kernels_are_the_equations(dtype: torch.dtype, mode: str, include_self: bool) -> None:
    unary, image = problem((1, 5, 24, 40), dtype=dtype)
    options = {"normalization": mode, "include_self": include_self, "iterations": 5, "bilateral": "exact"}
    # Sums that are not normalized are of some tens: these weights leave logits of the same size.
    near, alike = (0.05, 0.05) if mode == "none" else (1.5, 2.0)
    q = ops.dense_crf(unary, image, spatial_weight=near, bilateral_weight=alike, **SIGMAS, **options)
    right = brute_force(unary, image, mode, include_self, 5, (near, alike)).view(1, 5, 24, 40)
    atol = 2e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(q.double(), right, atol=atol, rtol=0)


@pytest.mark.parametrize("bilateral", ["lattice", "exact"])
@pytest.mark.parametrize("spatial", ["lattice", "exact"])
@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("mode", NORMALIZATIONS)
def test_gradients(mode: str, include_self: bool, spatial: str, bilateral: str) -> None:
    unary, image = problem((2, 3, 3, 4), channels=2)
    g = torch.Generator().manual_seed(1)
    table = torch.randn(3, 3, generator=g, dtype=torch.float64)
    inputs = [unary, table, torch.tensor(1.3).double(), torch.rand(3, generator=g).double()]

    def crf(unary: Tensor, table: Tensor, near: Tensor, alike: Tensor, recompute: bool = True) -> Tensor:
        weights = {"compatibility": table, "spatial_weight": near, "bilateral_weight": alike}
        modes = {"normalization": mode, "include_self": include_self, "spatial": spatial, "bilateral": bilateral}
        return ops.dense_crf(unary, image, iterations=3, recompute=recompute, **weights, **modes, **SIGMAS)

    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(crf, inputs)
    repeated, kept = (torch.autograd.grad(crf(*inputs, recompute=r).square().sum(), inputs) for r in (True, False))
    for a, b in zip(repeated, kept, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("mode", NORMALIZATIONS)
def test_gradients_of_image_and_deviations(mode: str, include_self: bool) -> None:
    unary, image = problem((2, 2, 3, 4), channels=2)
    sigmas = [torch.tensor(x).double() for x in ((1.0, 1.5), 2.0, (0.5, 0.6))]

    def crf(unary: Tensor, image: Tensor, near: Tensor, wide: Tensor, color: Tensor) -> Tensor:
        return ops.dense_crf(
            unary, image, spatial_sigma=near, bilateral_sigma_xy=wide, bilateral_sigma_color=color, iterations=2,
            normalization=mode, include_self=include_self, bilateral="exact",
        )  # fmt: skip

    assert torch.autograd.gradcheck(crf, [x.requires_grad_() for x in (unary, image, *sigmas)])


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("image", {}),
        ("spatial_sigma", {"spatial": "lattice", "spatial_sigma": torch.tensor(2.0, requires_grad=True)}),
        ("bilateral_sigma_xy", {"bilateral_sigma_xy": torch.tensor(2.0, requires_grad=True)}),
        ("bilateral_sigma_color", {"bilateral_sigma_color": torch.ones(3, requires_grad=True)}),
    ],
)
def test_gradients_that_do_not_exist(argument: str, options: dict[str, Any]) -> None:
    unary, image = problem((1, 2, 3, 4), dtype=torch.float32)
    image.requires_grad_(argument == "image")
    with pytest.raises(ValueError, match=f"dense_crf: {argument} must not require a gradient where .* 'lattice'"):
        ops.dense_crf(unary, image, **options)


def test_results_do_not_depend_on_threads_or_on_other_samples() -> None:
    unary, image = problem((4, 5, 70, 90), dtype=torch.float32)
    for options in ({}, {"spatial": "lattice"}, {"include_self": False}, {"bilateral": "exact"}):
        few = slice(0, 1 if options.get("bilateral") == "exact" else 4)
        torch.set_num_threads(1)
        alone = torch.cat(
            [ops.dense_crf(u[None], i[None], **options) for u, i in zip(unary[few], image[few], strict=True)]
        )
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(ops.dense_crf(unary[few], image[few], **options), alone)


def test_eight_python_threads() -> None:
    problems = [problem((1, 3, 40 + i, 50), dtype=torch.float32) for i in range(8)]
    right = [ops.dense_crf(*p, iterations=3) for p in problems]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(4):
            if not torch.equal(ops.dense_crf(*problems[i], iterations=3), right[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_the_lattice_takes_to_itself() -> None:
    for d, points in ((1, 9), (2, 40), (3, 60), (5, 70), (8, 20)):
        f = torch.randn(d, points, generator=torch.Generator().manual_seed(d), dtype=torch.float64)
        right = filtered(torch.eye(points).double(), lattice(f)).diagonal()
        torch.testing.assert_close(diagonal(lattice(f)), right, atol=1e-12, rtol=0)
        torch.testing.assert_close(ops.PermutohedralLattice(f[None]).diagonal()[0], right, atol=1e-12, rtol=0)


@pytest.mark.parametrize("mode", NORMALIZATIONS)
@pytest.mark.parametrize("side", ["auto", "reference"])
def test_a_lattice_that_is_kept(side: str, mode: str) -> None:
    g = torch.Generator().manual_seed(7)
    values, f = torch.randn(2, 3, 700, generator=g), torch.randn(2, 4, 700, generator=g)
    with fastseg.backend(side):
        kept = ops.PermutohedralLattice(f)
        right = ops.permutohedral_filter(values, f, normalization=mode)
        torch.testing.assert_close(kept.filter(values, normalization=mode), right, atol=1e-5, rtol=1e-5)
        once = kept.filter(values[:, :1], normalization=mode)
        torch.testing.assert_close(once, right[:, :1], atol=1e-5, rtol=1e-5)
        v = values.double().requires_grad_()
        doubled = ops.PermutohedralLattice(f.double())
        (grad,) = torch.autograd.grad(doubled.filter(v, normalization=mode).square().sum() / 2, v)
        back = doubled.filter(doubled.filter(v.detach(), normalization=mode), normalization=mode, transposed=True)
        torch.testing.assert_close(grad, back, atol=1e-11, rtol=1e-11)


@pytest.mark.skipif(not _native.loaded, reason="states are checked by the kernels: " + _native.why_not)
def test_states_that_are_no_lattice() -> None:
    kept = ops.PermutohedralLattice(torch.randn(1, 2, 30, generator=torch.Generator().manual_seed(8)))
    good = [kept.vertices, kept.weights, kept.neighbours, kept.count]
    apply = torch.ops.fastseg.permutohedral_apply
    changes: list[tuple[int, Any, str]] = [
        (0, lambda t: t.fill_(-1), "vertices must be in"),
        (0, lambda t: t.fill_(10**6), "vertices must be in"),
        (2, lambda t: t.fill_(10**6), "neighbours must be in"),
        (2, lambda t: t.fill_(-5), "neighbours must be in"),
        (2, lambda t: t.fill_(0), "neighbours must be mutual"),
        (3, lambda t: t.fill_(10**9), "count must be in"),
    ]
    for place, spoil, message in changes:
        state = [t.clone() for t in good]
        spoil(state[place])
        with pytest.raises(RuntimeError, match=message):
            apply(torch.ones(1, 1, 30), *state, False)
    # A ring of neighbours is no lattice either: whatever comes out, it comes, from memory of its own.
    ring, count = [t.clone() for t in good], int(kept.count)
    at = torch.arange(count, dtype=torch.int32)
    ring[2][..., :count, :] = torch.stack([at.roll(1), at.roll(-1)], -1)
    assert apply(torch.ones(1, 1, 30), *ring, False).shape == (1, 1, 30)
    assert torch.ops.fastseg.permutohedral_diagonal(*ring).shape == (1, 30)


@pytest.mark.parametrize(("include_self", "bound"), [(True, 1e-4), (False, 2e-3)])
def test_what_float32_loses_on_noise(include_self: bool, bound: float) -> None:
    for seed in range(6):
        g = torch.Generator().manual_seed(seed)
        unary, image = torch.rand(1, 21, 19, 33, generator=g) * 5, torch.rand(1, 3, 19, 33, generator=g) * 255
        for mode in NORMALIZATIONS[1:]:
            options: dict[str, Any] = {"normalization": mode, "include_self": include_self}
            right = ops.dense_crf(unary.double(), image.double(), **options)
            torch.testing.assert_close(ops.dense_crf(unary, image, **options).double(), right, atol=bound, rtol=0)


def test_any_image_and_any_format() -> None:
    unary, image = problem((1, 3, 9, 7), dtype=torch.float32)
    levels = (image * 255).round()
    right = ops.dense_crf(unary, levels)
    for dtype in (torch.uint8, torch.int32, torch.float64, torch.bfloat16):
        assert torch.equal(ops.dense_crf(unary, levels.to(dtype)), right) or dtype == torch.bfloat16
    last = ops.dense_crf(unary.contiguous(memory_format=torch.channels_last), levels)
    assert last.is_contiguous(memory_format=torch.channels_last) and torch.equal(last, right)
    assert torch.equal(ops.dense_crf(unary, levels, output="labels"), right.argmax(1))


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name: str) -> None:
    unary, image = problem((1, 3, 9, 7), dtype=torch.float32)
    layer = DenseCRF.from_preset(name, 3, output="probabilities").eval()
    right = ops.dense_crf(unary, image, **dense_crf_preset(name))
    torch.testing.assert_close(layer(-unary, image), right, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="dense_crf_preset: name must be one of"):
        dense_crf_preset(name + "?")


def test_the_layer_learns() -> None:
    """Noisy scores of two halves: its loss falls, by every one of its parameters."""
    g = torch.Generator().manual_seed(9)
    image = torch.zeros(1, 1, 12, 16)
    image[..., 8:] = 1
    target = image[:, 0].long()
    logits = torch.randn(1, 2, 12, 16, generator=g) + 0.5 * torch.stack([1 - target, target], 1)
    layer = DenseCRF(2, iterations=3, eval_iterations=5, spatial_weight=0.1, bilateral_weight=0.1, **SIGMAS)
    assert "labels=2" in repr(layer)
    start = {name: p.detach().clone() for name, p in layer.named_parameters()}
    optimizer = torch.optim.Adam(layer.parameters(), 0.1)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(layer(logits, image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(not torch.equal(p, start[name]) for name, p in layer.named_parameters())
