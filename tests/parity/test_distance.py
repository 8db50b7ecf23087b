"""Distances beside SciPy, edt, MONAI, MedPy and surface-distance, each through an adapter of a line or two."""

import math

import edt
import numpy as np
import pytest
import surface_distance
import torch
from medpy.metric import binary
from monai import metrics as monai
from scipy.spatial.distance import directed_hausdorff

from fastseg import ops
from fastseg.testing.cases.distance import blobs


def pairs(seed):
    """Masks of noise and of blobs, flat and deep, and single elements, with their spacing."""
    numbers = np.random.default_rng(seed)
    dims = 2 + seed % 2
    shape = tuple(int(n) for n in numbers.integers(3, 20 if dims == 3 else 60, dims))
    spacing = tuple(float(s) for s in numbers.uniform(0.4, 2.5, dims)) if seed % 3 else (1.0,) * dims
    if seed % 5 == 0:  # one element each
        a, b = (torch.zeros(shape, dtype=torch.bool) for _ in range(2))
        for x in (a, b):
            x[tuple(int(numbers.integers(0, n)) for n in shape)] = True
    elif seed % 5 < 3:
        a, b = (torch.from_numpy(numbers.random(shape) < 0.3) for _ in range(2))
    else:
        base = blobs(shape, 8, seed)
        a, b = base > 0, base + 0.3 * blobs(shape, 4, seed + 1) > 0
    return a, b, spacing


SEEDS = pytest.mark.parametrize("seed", range(40))
SOME = [seed for seed in range(60) if pairs(seed)[0].any() and pairs(seed)[1].any()]
NONEMPTY = pytest.mark.parametrize("seed", SOME)


@SEEDS
def test_transform_and_edt(seed):
    mask, _, spacing = pairs(seed)
    theirs = edt.edt(np.ascontiguousarray(mask.numpy(), np.uint8), anisotropy=spacing, black_border=False)
    np.testing.assert_allclose(ops.distance_transform(mask, spacing=spacing), theirs, rtol=1e-6)


@SEEDS
def test_labels_and_edt(seed):
    """edt leaves 0 out; one more than a label is none."""
    shape = pairs(seed)[0].shape
    labels = torch.randint(0, 4, [(n + 2) // 3 for n in shape], generator=torch.Generator().manual_seed(seed))
    for dim, n in enumerate(shape):
        labels = labels.repeat_interleave(3, dim).narrow(dim, 0, n)
    theirs = edt.edt(np.ascontiguousarray(labels.numpy() + 1, np.uint32), black_border=False)
    ours = ops.distance_transform(labels, spatial_dims=labels.dim(), labels=True)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@NONEMPTY
def test_monai(seed):
    a, b, spacing = pairs(seed)
    one, given = (a[None, None], b[None, None]), {"spacing": spacing, "include_background": True}
    ours = ops.surface_metrics(
        a, b, ["hd", "hd95", "asd", "assd", "surface_dice"], spacing=spacing, tolerance=1.0
    ).values
    assert ours["hd"].item() == pytest.approx(monai.compute_hausdorff_distance(*one, **given).item(), abs=1e-5)
    hd95 = monai.compute_hausdorff_distance(*one, percentile=95, **given).item()
    assert ours["hd95"].item() == pytest.approx(hd95, abs=1e-5)
    assert ours["asd"][0].item() == pytest.approx(
        monai.compute_average_surface_distance(*one, **given).item(), abs=1e-5
    )
    assd = monai.compute_average_surface_distance(*one, symmetric=True, **given).item()
    assert ours["assd"].item() == pytest.approx(assd, abs=1e-5)
    dice = monai.compute_surface_dice(*one, [1.0], **given).item()
    assert ours["surface_dice"].item() == pytest.approx(dice, abs=1e-5)


def test_monai_drops_a_miss_and_ours_says_inf():
    """With the 95th percentile a missed object is nan there, and improves the mean of those that are kept."""
    a, b = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    b[..., 2:5, 2:5] = 1
    assert monai.compute_hausdorff_distance(a, b, percentile=95, include_background=True).isnan().all()
    assert ops.hausdorff_distance(a, b, percentile=95, spatial_dims=2).item() == math.inf


@NONEMPTY
def test_medpy(seed):
    a, b, spacing = pairs(seed)
    hd, assd = (f(a.numpy(), b.numpy(), spacing) for f in (binary.hd, binary.assd))
    ours = ops.surface_metrics(a, b, ["hd", "asd", "assd"], spacing=spacing).values
    assert (ours["hd"].item(), ours["assd"].item()) == pytest.approx((hd, assd), abs=1e-9)
    assert ours["asd"][0].item() == pytest.approx(binary.asd(a.numpy(), b.numpy(), spacing), abs=1e-9)
    pooled = ops.hausdorff_distance(a, b, spacing=spacing, percentile=95, convention="pooled").item()
    assert pooled == pytest.approx(binary.hd95(a.numpy(), b.numpy(), spacing), abs=1e-9)


@NONEMPTY
def test_surface_distance(seed):
    a, b, spacing = pairs(seed)
    theirs = surface_distance.compute_surface_distances(a.numpy(), b.numpy(), spacing)  # the first is their truth
    dual = {"boundary": "dual", "convention": "area_weighted", "spacing": spacing}
    ours = ops.surface_metrics(a, b, ["hd", "hd50", "hd95", "asd", "surface_dice"], tolerance=0.8, **dual).values
    for name, percentile in (("hd", 100), ("hd50", 50), ("hd95", 95)):
        expected = surface_distance.compute_robust_hausdorff(theirs, percentile)
        assert ours[name].item() == pytest.approx(expected, abs=1e-9), name
    average = surface_distance.compute_average_surface_distance(theirs)
    assert ours["asd"].tolist() == pytest.approx(list(average), abs=1e-9)
    dice = surface_distance.compute_surface_dice_at_tolerance(theirs, 0.8)
    assert ours["surface_dice"].item() == pytest.approx(dice, abs=1e-9)


def test_surface_distance_needs_a_name_that_numpy_dropped():
    """Its release fails on an empty mask; ours has a policy."""
    empty, full = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    if hasattr(np, "Inf"):
        pytest.skip("another package brought the name back")
    with pytest.raises(AttributeError, match=r"np\.Inf"):
        surface_distance.compute_surface_distances(empty, full, (1, 1))
    assert ops.hausdorff_distance(torch.from_numpy(empty), torch.from_numpy(full)).item() == math.inf


@SEEDS
def test_point_sets_and_scipy(seed):
    numbers = np.random.default_rng(seed)
    a, b = (numbers.normal(size=(int(numbers.integers(1, 300)), 1 + seed % 4)) for _ in range(2))
    expected = directed_hausdorff(a, b)[0]
    assert ops.directed_hausdorff(torch.from_numpy(a), torch.from_numpy(b)).item() == pytest.approx(expected, rel=1e-12)
