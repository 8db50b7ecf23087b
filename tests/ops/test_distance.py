"""Distance transforms: golden numbers, SciPy's to the bit, what SciPy gets wrong, bad input."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from fastseg import backend, testing
from fastseg.ops import distance_transform, instance_distances
from fastseg.testing.cases.distance import blobs

INF = math.inf
SITES = torch.ones(5, 7)
SITES[2, 1] = SITES[0, 6] = 0
SQUARES = [
    [5, 4, 5, 8, 4, 1, 0],
    [2, 1, 2, 5, 5, 2, 1],
    [1, 0, 1, 4, 8, 5, 4],
    [2, 1, 2, 5, 10, 10, 9],
    [5, 4, 5, 8, 13, 17, 16],
]
STRETCHED = [
    [9, 6.25, 4, 2.25, 1, 0.25, 0],
    [4.25, 4, 4.25, 5, 5, 4.25, 4],
    [0.25, 0, 0.25, 1, 2.25, 4, 6.25],
    [4.25, 4, 4.25, 5, 6.25, 8, 10.25],
    [16.25, 16, 16.25, 17, 18.25, 20, 22.25],
]


@pytest.fixture(autouse=True, params=["auto", "reference"])
def side(request):
    with backend(request.param):
        yield request.param


def test_golden_squares():
    assert distance_transform(SITES, squared=True).tolist() == SQUARES
    assert distance_transform(SITES, squared=True, spacing=(2, 0.5)).tolist() == STRETCHED
    assert torch.equal(distance_transform(SITES), torch.tensor(SQUARES).double().sqrt().float())


def test_golden_boundary_loss_map():
    square = torch.zeros(5, 5)
    square[1:4, 1:4] = 1
    far, ring = 2**0.5, [1.0, 0.0, 0.0, 0.0, 1.0]
    expected = torch.tensor([[far, 1, 1, 1, far], ring, [1, 0, -1, 0, 1], ring, [far, 1, 1, 1, far]])
    assert torch.equal(distance_transform(square, signed="kervadec"), expected)
    symmetric = distance_transform(square, signed="symmetric")
    assert torch.equal(symmetric, torch.where(square > 0, expected - 1, expected))
    assert distance_transform(square * 0, signed="kervadec").eq(0).all()
    assert distance_transform(square * 0, signed="symmetric").eq(INF).all()
    assert distance_transform(square * 0 + 1, signed="symmetric").eq(-INF).all()


def test_nothing_to_measure_to_is_infinitely_far(side):
    """scipy.ndimage.distance_transform_edt returns finite numbers that mean nothing."""
    for shape in ((1, 1), (3, 40), (40, 3)):
        distance, index = distance_transform(torch.ones(shape), return_indices=True)
        assert distance.eq(INF).all() and index.eq(-1).all()
    assert ndimage.distance_transform_edt(np.ones((3, 40))).max() < INF
    labels = distance_transform(torch.full((2, 3, 4), 7), spatial_dims=2, labels=True)
    assert labels.eq(INF).all()


def test_the_lowest_index_wins_a_tie():
    mask = torch.ones(3, 3)
    mask[0, 2] = mask[2, 0] = mask[2, 2] = 0
    _, index = distance_transform(mask, return_indices=True)
    assert index.shape == (2, 3, 3)
    assert index[:, 1, 1].tolist() == [0, 2] and index[:, 0, 0].tolist() == [0, 2] and index[:, 2, 1].tolist() == [2, 0]


@st.composite
def masks(draw):
    dims = draw(st.integers(2, 3))
    shape = draw(st.lists(st.integers(1, 9 if dims == 3 else 40), min_size=dims, max_size=dims))
    numbers = np.random.default_rng(draw(st.integers(0, 999)))
    mask = numbers.random(shape) < draw(st.sampled_from([0.3, 0.9, 0.99]))
    mask.flat[draw(st.integers(0, mask.size - 1))] = False
    return mask, draw(st.sampled_from([(1.0,) * dims, (2.0, 0.5, 1.25)[:dims], (0.3, 7.0, 1.1)[-dims:]]))


@given(masks(), st.sampled_from(testing.isas()))
def test_every_mask_is_scipys(drawn, isa):
    mask, spacing = drawn
    want, index = ndimage.distance_transform_edt(mask, sampling=spacing, return_indices=True)
    with testing.use_isa(isa):
        given_mask = torch.from_numpy(mask)
        distance, nearest = distance_transform(given_mask, spacing=spacing, return_indices=True, dtype=torch.float64)
        plain = distance_transform(given_mask, spacing=spacing, dtype=torch.float64)
        single = distance_transform(given_mask, spacing=spacing)
    np.testing.assert_allclose(distance, want, rtol=1e-14)
    np.testing.assert_allclose(plain, want, rtol=1e-14)
    np.testing.assert_allclose(single, want, rtol=1e-6)
    if spacing == (1.0,) * mask.ndim:
        squares = distance_transform(given_mask, spacing=spacing, squared=True, dtype=torch.float64)
        exact = sum((np.indices(mask.shape)[k] - index[k]) ** 2 for k in range(mask.ndim))
        assert np.array_equal(squares, exact)
    # Where ours is, there is a zero, as near as SciPy's.
    assert not mask[tuple(nearest.numpy())].any()
    away = (np.indices(mask.shape) - nearest.numpy()) * np.array(spacing).reshape(-1, *(1,) * mask.ndim)
    np.testing.assert_allclose(np.sqrt((away**2).sum(0)), want, rtol=1e-12)


@given(masks(), st.sampled_from(["taxicab", "chessboard"]))
def test_other_metrics_are_scipys(drawn, metric):
    mask, _ = drawn
    want = ndimage.distance_transform_cdt(mask, metric)
    assert np.array_equal(distance_transform(torch.from_numpy(mask), spatial_dims=mask.ndim, metric=metric), want)


@given(st.integers(0, 999), st.sampled_from(["int8", "int16", "int32", "int64", "uint8"]))
def test_labels_are_measured_one_by_one(seed, dtype):
    numbers = np.random.default_rng(seed)
    labels = numbers.integers(0, 4, numbers.integers(1, 30, 2)).repeat(2, 0).repeat(3, 1)
    given_labels = torch.from_numpy(labels).to(getattr(torch, dtype))
    got = distance_transform(given_labels, labels=True, dtype=torch.float64).numpy()
    for label in np.unique(labels):
        own = labels == label
        want = ndimage.distance_transform_edt(own) if not own.all() else np.full(own.shape, INF)
        np.testing.assert_allclose(got[own], want[own], rtol=1e-14)


@pytest.mark.parametrize("shape", [(4096, 4096), (300, 260, 270)])
def test_large_squares_are_exact(side, shape):
    if side == "reference":
        pytest.skip("minutes of plain PyTorch")
    numbers = np.random.default_rng(0)
    mask = np.ones(shape, bool)
    mask.flat[numbers.integers(0, mask.size, 40)] = False
    index = ndimage.distance_transform_edt(mask, return_distances=False, return_indices=True)
    places = np.ogrid[tuple(slice(n) for n in shape)]
    exact = sum((place - index[k]) ** 2 for k, place in enumerate(places))
    got = distance_transform(torch.from_numpy(mask), spatial_dims=len(shape), squared=True, dtype=torch.float64)
    assert np.array_equal(got.numpy(), exact)


def test_one_and_two_threads_and_leading_dimensions_agree(side):
    mask = blobs((64, 70, 90), 16, 3) > 0
    whole = distance_transform(mask, spatial_dims=2)
    if side == "auto":
        torch.set_num_threads(2)
        assert torch.equal(whole, distance_transform(mask, spatial_dims=2))
        torch.set_num_threads(1)
    assert torch.equal(whole[5], distance_transform(mask[5]))
    assert torch.equal(whole.view(8, 8, 70, 90), distance_transform(mask.view(8, 8, 70, 90), spatial_dims=2))


BAD = {
    "spatial_dims must be given where mask has more than two": (torch.ones(2, 3, 4), {}),
    "spatial_dims must be 2 or 3, got 1": (torch.ones(3, 4), {"spatial_dims": 1}),
    "spatial_dims must be 2 or 3, got 2.0": (torch.ones(3, 4), {"spatial_dims": 2.0}),
    "mask must have 3 spatial dimensions": (torch.ones(3, 4), {"spatial_dims": 3}),
    "mask must be a boolean, integer or floating tensor, got list": ([1, 0], {}),
    "mask must be a boolean, .* got torch.complex64": (torch.ones(3, 4, dtype=torch.complex64), {}),
    "spacing must have 3 numbers as spatial_dims says": (torch.ones(3, 4, 5), {"spatial_dims": 3, "spacing": (1, 1)}),
    r"spacing must be two or three positive finite numbers, got \(1, 0\)": (torch.ones(3, 4), {"spacing": (1, 0)}),
    "spacing must be two or three positive finite numbers, got .*-1": (torch.ones(3, 4), {"spacing": (1, -1)}),
    "spacing must be two or three positive finite numbers, got .*nan": (torch.ones(3, 4), {"spacing": (1, math.nan)}),
    "spacing must be two or three positive finite numbers, got 2.0": (torch.ones(3, 4), {"spacing": 2.0}),
    "metric must be one of": (torch.ones(3, 4), {"metric": "manhattan"}),
    "signed must be one of": (torch.ones(3, 4), {"signed": True}),
    "signed must be False with labels or squared": (torch.ones(3, 4), {"signed": "symmetric", "squared": True}),
    "squared must be False with metric 'taxicab'": (torch.ones(3, 4), {"squared": True, "metric": "taxicab"}),
    "dtype must be torch.float32 or torch.float64": (torch.ones(3, 4), {"dtype": torch.float16}),
    "mask must be integer labels, got torch.float32": (torch.ones(3, 4), {"labels": True}),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    mask, options = BAD[message]
    with pytest.raises(ValueError, match=f"fastseg::distance_transform: {message}"):
        distance_transform(mask, **options)


def test_labels_beyond_int32_are_refused(side):
    labels = torch.tensor([[1, 1 + 2**32]])
    if side == "reference":  # which compares them as they are
        assert distance_transform(labels, labels=True).tolist() == [[1, 1]]
        return
    with pytest.raises(RuntimeError, match=f"mask must hold labels of int32, got {1 + 2**32}"):
        distance_transform(labels, labels=True)


@given(st.integers(0, 999), st.booleans(), st.sampled_from(testing.isas()))
def test_instances_are_measured_one_by_one(seed, stretched, isa):
    numbers = np.random.default_rng(seed)
    dims = 2 + seed % 2
    instances = numbers.integers(0, 9, numbers.integers(1, 30 if dims == 2 else 9, dims))
    instances[instances > 4] = 0
    spacing = (2.0, 0.5, 1.25)[:dims] if stretched else (1.0,) * dims
    with testing.use_isa(isa):
        first, second = instance_distances(torch.from_numpy(instances), spacing=spacing)
    each = [ndimage.distance_transform_edt(instances != i, sampling=spacing) for i in np.unique(instances) if i]
    each += [np.full(instances.shape, INF)] * 2
    want = np.sort(np.stack(each), 0)
    np.testing.assert_allclose(first, want[0], rtol=1e-6)
    np.testing.assert_allclose(second, want[1], rtol=1e-6)


def test_bad_instances(side):
    with pytest.raises(ValueError, match="fastseg::instance_distances: instances must be integer labels"):
        instance_distances(torch.ones(3, 4))
    with pytest.raises(ValueError, match="fastseg::instance_distances: spatial_dims must be given"):
        instance_distances(torch.ones(2, 3, 4, dtype=torch.uint8))
    if side == "auto":
        with pytest.raises(RuntimeError, match=f"instances must hold labels of int32, got {2**32}"):
            instance_distances(torch.tensor([[0, 2**32]]))
