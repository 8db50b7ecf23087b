"""Surface distances and point sets: golden numbers of other tools, empty masks, what other tools get wrong."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import cdist

from fastseg import backend, ops, testing
from fastseg.ops import hausdorff_distance, surface_metrics
from fastseg.ops.distance_lists import EmptyCounts, percentile_of
from fastseg.reference.distance_surfaces import element_weights

INF, NAN = math.inf, math.nan


@pytest.fixture(autouse=True, params=["auto", "reference"])
def side(request):
    with backend(request.param):
        yield request.param


def mask(shape, *boxes):
    x = torch.zeros(shape, dtype=torch.bool)
    for box in boxes:
        x[tuple(slice(a, b) for a, b in box)] = True
    return x


SQUARES = mask((8, 8), ((2, 5), (2, 5))), mask((8, 8), ((2, 5), (3, 7)))
BAR = mask((40, 40), ((2, 4), (2, 38)))
ISLET = BAR | mask((40, 40), ((30, 33), (10, 13)))
LINE = mask((20, 24), ((5, 6), (2, 22)))
OUTLIER = LINE | mask((20, 24), ((15, 16), (10, 11)))


def values(pair, names, **options):
    return {name: value.tolist() for name, value in surface_metrics(*pair, names, **options).values.items()}


def test_golden_squares():
    names = ["hd", "hd95", "asd", "assd", "masd", "surface_dice"]
    got = values(SQUARES, names, tolerance=1)
    assert got.pop("asd") == pytest.approx([0.5, 0.9])
    assert got == pytest.approx({"hd": 2, "hd95": 2, "assd": 13 / 18, "masd": 0.7, "surface_dice": 15 / 18})
    got = values(SQUARES, names, tolerance=1, spacing=(2, 1))
    assert (got["hd"], got["assd"], got["surface_dice"]) == pytest.approx((2, 13 / 18, 15 / 18))


def test_golden_dual_boundary():
    """Numbers of DeepMind's surface-distance."""
    dual = {"boundary": "dual", "convention": "area_weighted", "tolerance": 1}
    got = values(SQUARES, ["hd", "hd95", "asd", "surface_dice"], **dual)
    assert got.pop("asd") == pytest.approx([0.5, 0.84409], abs=1e-5)
    assert got == pytest.approx({"hd": 2, "hd95": 2, "surface_dice": 0.855676}, abs=1e-5)
    got = values(SQUARES, ["asd", "surface_dice"], spacing=(2, 1), **dual)
    assert got["asd"] == pytest.approx([0.86425, 1.0], abs=1e-5)
    assert got["surface_dice"] == pytest.approx(0.70707, abs=1e-5)
    assert values((LINE, OUTLIER), ["hd95"], **dual)["hd95"] == 9
    assert values((BAR, ISLET), ["hd95"], **dual)["hd95"] == 28


def test_golden_sizes_of_dual_elements():
    for shape, box, size in (
        ((3, 3), ((1, 2), (1, 2)), 4 * 0.5**0.5),
        ((5, 5), ((1, 4), (1, 4)), 8 + 4 * 0.5**0.5),
        ((3, 3, 3), ((1, 2),) * 3, 1.7320508),
    ):
        x = mask(shape, box)
        found = ops.surface_distances(x, x, spatial_dims=x.dim(), boundary="dual")
        count = int(found.counts[0])
        assert found.weights[:count].sum().item() == pytest.approx(size) and found.distances.eq(0).all()


def test_sizes_of_all_codes_are_those_of_marching_cubes():
    areas, lengths = element_weights((1.0, 1.0, 1.0)), element_weights((1.0, 1.0))
    assert not areas.isnan().any() and torch.equal(areas, areas.flip(0)) and torch.equal(lengths, lengths.flip(0))
    assert lengths[3] == 1 and lengths[5] == 1 and lengths[6] == pytest.approx(2**0.5)
    stretched = element_weights((2.0, 3.0, 5.0))
    # A flat boundary across x, y and z covers one face of an element.
    assert [stretched[code].item() for code in (0b01010101, 0b00110011, 0b00001111)] == pytest.approx([6, 10, 15])


def test_golden_percentiles_by_convention():
    """MONAI, surface-distance and the mesh have 28; MedPy and seg-metrics, which pool both lists, 12.15."""
    for convention, expected in (("max_of_directed", 28), ("pooled", 12.15)):
        assert hausdorff_distance(BAR, ISLET, percentile=95, convention=convention).item() == pytest.approx(expected)
    got = values((BAR, ISLET), ["hd", "assd"])
    assert got == pytest.approx({"hd": 29, "assd": 224 / 152})
    assert hausdorff_distance(BAR, ISLET, directed=True).tolist() == [0, 29]


def test_non_square_images():
    """torchmetrics has 12, as if the image were 20 pixels wide."""
    got = values((LINE, OUTLIER), ["hd", "hd95", "assd", "surface_dice"], tolerance=1)
    assert got == pytest.approx({"hd": 10, "hd95": 0, "assd": 10 / 41, "surface_dice": 40 / 41})


def test_a_disk_is_not_the_annulus_of_its_rim():
    """miseval compares the border of one with all of the other and has 0."""
    y, x = torch.meshgrid(torch.arange(31) - 15, torch.arange(31) - 15, indexing="ij")
    square = x**2 + y**2
    assert hausdorff_distance(square <= 144, (square <= 144) & (square > 25)).item() > 5


def test_percentile_0_is_the_least_distance():
    """MONAI takes 0 for no percentile."""
    assert hausdorff_distance(*SQUARES, percentile=0).item() == 0
    assert hausdorff_distance(*SQUARES, percentile=0).item() < hausdorff_distance(*SQUARES, percentile=100).item()


def test_percentiles_of_more_elements_than_torch_quantile_takes(side):
    many = torch.arange(2**24 + 5, dtype=torch.float64).flip(0)
    assert percentile_of(many, 50).item() == (len(many) - 1) / 2
    with pytest.raises(RuntimeError, match="too large"):
        torch.quantile(many, 0.5)


EMPTY = mask((3, 8, 8))
PAIRS = (
    torch.stack([EMPTY[0], EMPTY[0], SQUARES[0], SQUARES[0]]),
    torch.stack([EMPTY[0], SQUARES[0], EMPTY[0], SQUARES[1]]),
)


@pytest.mark.parametrize(
    ("empty", "distances", "dice"),
    [
        ("default", [NAN, INF, INF, 2], [NAN, 0, 0, 15 / 18]),
        ("nan", [NAN, NAN, NAN, 2], [NAN, NAN, NAN, 15 / 18]),
        ("perfect", [0, INF, INF, 2], [1, 0, 0, 15 / 18]),
        (11.5, [0, 11.5, 11.5, 2], [1, 0, 0, 15 / 18]),
    ],
)
def test_empty_objects_follow_the_policy_and_are_counted(empty, distances, dice):
    """A missed object is 0 for seg-metrics, nan for MONAI's HD95, whose mean drops it, an exception for MedPy."""
    found = surface_metrics(*PAIRS, ["hd", "hd95", "surface_dice"], spatial_dims=2, tolerance=1, empty=empty)
    assert found.empty == EmptyCounts(both=1, prediction=1, target=1)
    for name, expected in (("hd", distances), ("hd95", distances), ("surface_dice", dice)):
        assert found.values[name].tolist() == pytest.approx(expected, nan_ok=True)
    both_ways = hausdorff_distance(*PAIRS, spatial_dims=2, empty=empty, directed=True)
    assert both_ways.shape == (4, 2) and both_ways[0].tolist() == pytest.approx([distances[0]] * 2, nan_ok=True)
    assert ops.average_surface_distance(*PAIRS, spatial_dims=2, empty=empty).shape == (4, 2)


def test_nothing_but_empty_objects_and_no_objects():
    assert hausdorff_distance(EMPTY, EMPTY, spatial_dims=2, directed=True).isnan().all()
    assert hausdorff_distance(EMPTY[:0], EMPTY[:0], spatial_dims=2).shape == (0,)
    assert ops.surface_distances(EMPTY[0], SQUARES[0]).distances.eq(INF).all()


def test_classes_are_objects_of_a_label_map():
    numbers = torch.Generator().manual_seed(0)
    a, b = (torch.randint(0, 4, (2, 9, 11), generator=numbers) for _ in range(2))
    got = hausdorff_distance(a, b, spatial_dims=2, classes=[3, 1])
    want = torch.stack([hausdorff_distance(a == c, b == c, spatial_dims=2) for c in (3, 1)], -1)
    assert torch.equal(got, want) and got.shape == (2, 2)


@st.composite
def pairs(draw):
    dims = draw(st.integers(2, 3))
    shape = draw(st.lists(st.integers(1, 12), min_size=dims, max_size=dims))
    numbers = np.random.default_rng(draw(st.integers(0, 999)))
    masks = [numbers.random(shape) < draw(st.sampled_from([0.05, 0.5, 0.95])) for _ in range(2)]
    return masks, tuple(numbers.uniform(0.3, 3, dims))


@given(pairs(), st.sampled_from(testing.isas()))
def test_every_pair_by_brute_force(drawn, isa):
    masks, spacing = drawn
    edges = [np.argwhere(x & ~ndimage.binary_erosion(x)) * spacing for x in masks]
    with testing.use_isa(isa):
        found = ops.surface_distances(*map(torch.from_numpy, masks), spacing=spacing)
    assert found.counts.tolist() == [len(e) for e in edges]
    want = [cdist(e, f).min(1) if len(e) and len(f) else np.full(len(e), INF) for e, f in (edges, edges[::-1])]
    np.testing.assert_allclose(found.distances, np.concatenate(want), rtol=1e-12)


@given(st.integers(0, 999), st.integers(1, 4), st.integers(1, 200), st.integers(1, 200))
def test_every_point_set_by_brute_force(seed, dims, n, m):
    numbers = np.random.default_rng(seed)
    a, b = numbers.normal(size=(n, dims)).round(seed % 3), numbers.normal(size=(m, dims)).round(seed % 3)
    distance, index = ops.directed_hausdorff(torch.from_numpy(a), torch.from_numpy(b), return_indices=True)
    table = cdist(a, b)
    assert distance.item() == pytest.approx(table.min(1).max(), rel=1e-12)
    assert table[tuple(index)] == pytest.approx(distance.item(), rel=1e-12)


def test_point_sets_without_points_and_far_away():
    none, some = torch.zeros(0, 3), torch.zeros(2, 3)
    assert ops.directed_hausdorff(none, some).item() == 0 and ops.directed_hausdorff(none, none).item() == 0
    distance, index = ops.directed_hausdorff(some, none, return_indices=True)
    assert distance.item() == INF and index.tolist() == [-1, -1]
    big = torch.tensor([[1e300], [-1e300]], dtype=torch.float64)
    assert ops.directed_hausdorff(big, big[:1], return_indices=True)[1].tolist()[0] == 1


BAD = {
    "surface_distances: target must have the shape of prediction": lambda: hausdorff_distance(EMPTY[0], EMPTY),
    "surface_distances: spatial_dims must be given": lambda: hausdorff_distance(EMPTY, EMPTY),
    "surface_distances: boundary must be one of": lambda: hausdorff_distance(*SQUARES, boundary="mesh"),
    "surface_distances: spacing must be two or three": lambda: hausdorff_distance(*SQUARES, spacing=(0, 1)),
    "surface_distances: classes must be distinct": lambda: hausdorff_distance(*SQUARES, classes=[1, 1]),
    "surface_distances: classes must be distinct labels": lambda: hausdorff_distance(*SQUARES, classes=[]),
    "surface_distances: prediction and target must be integer": lambda: hausdorff_distance(
        *(x.float() for x in SQUARES), classes=[1]
    ),
    "hausdorff_distance: percentile must be from 0 to 100": lambda: hausdorff_distance(*SQUARES, percentile=101),
    "hausdorff_distance: percentile must be a number": lambda: hausdorff_distance(*SQUARES, percentile="95"),
    "hausdorff_distance: convention must be one of": lambda: hausdorff_distance(*SQUARES, convention="mean"),
    "hausdorff_distance: directed must be False": lambda: hausdorff_distance(
        *SQUARES, directed=True, convention="pooled"
    ),
    "hausdorff_distance: empty must be one of": lambda: hausdorff_distance(*SQUARES, empty="skip"),
    "hausdorff_distance: empty must be a distance": lambda: hausdorff_distance(*SQUARES, empty=-1.0),
    "surface_metrics: metrics must be among": lambda: surface_metrics(*SQUARES, ["hd950"]),
    "surface_metrics: metrics must be a list": lambda: surface_metrics(*SQUARES, "hd"),
    "surface_metrics: tolerance must be": lambda: surface_metrics(*SQUARES, ["surface_dice"]),
    "surface_metrics: tolerance must be a distance": lambda: ops.surface_dice(*SQUARES, NAN),
    "directed_hausdorff: points_a must be float32": lambda: ops.directed_hausdorff(EMPTY, EMPTY),
    "directed_hausdorff: points_b must have": lambda: ops.directed_hausdorff(torch.ones(2, 3), torch.ones(2, 2)),
    "directed_hausdorff: points_b must have the": lambda: ops.directed_hausdorff(torch.ones(2, 9), torch.ones(2, 9)),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    with pytest.raises(ValueError, match=f"fastseg::{message}"):
        BAD[message]()


def test_points_that_are_not_finite_are_refused(side):
    if side == "auto":
        with pytest.raises(RuntimeError, match="points_b must be finite, got nan at coordinate 3"):
            ops.directed_hausdorff(torch.ones(2, 2), torch.tensor([[0, 1], [2, NAN]]))
