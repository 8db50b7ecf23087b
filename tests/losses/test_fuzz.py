"""Every loss against its formula, pixel by pixel, on random shapes, labels and options."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from fastseg import losses

EXACT = {"rtol": 1e-9, "atol": 1e-12}  # float64, sums of at most some hundred terms
IGNORE = 7


@st.composite
def calls(draw: st.DrawFn) -> tuple[Tensor, Tensor, str]:
    """Logits [N, C, h, w], labels [N, H, W], some or all of them ignored, some classes absent, and an activation."""
    extent = st.integers(1, 5)
    n, c, activation = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.sampled_from(["softmax", "sigmoid"]))
    size = draw(extent), draw(extent)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    logits = 2 * torch.randn(n, c, draw(extent), draw(extent), generator=generator, dtype=torch.float64)
    most = 2 if c == 1 and activation == "sigmoid" else c
    labels = torch.randint(draw(st.integers(1, most)), (n, *size), generator=generator)
    ignored = torch.rand(n, *size, generator=generator) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    return logits, labels.masked_fill(ignored, IGNORE), activation


def pixels(logits: Tensor, labels: Tensor, activation: str) -> list[list[tuple[list[float], list[int]]]]:
    """For each image the pixels that count: probabilities and truth of each class."""
    full = F.interpolate(logits, size=labels.shape[1:], mode="bilinear")
    p = full.softmax(1) if activation == "softmax" else full.sigmoid()
    binary = logits.shape[1] == 1 and activation == "sigmoid"
    images = []
    for image, truth in zip(p, labels, strict=True):
        columns, found = image.flatten(1).T.tolist(), truth.flatten().tolist()
        images.append([
            (column, [label] if binary else [int(label == c) for c in range(len(column))])
            for column, label in zip(columns, found, strict=True) if label != IGNORE
        ])  # fmt: skip
    return images


OVERLAPS = {
    "dice": lambda tp, p, t, p2: (2 * tp, p + t),
    "squared": lambda tp, p, t, p2: (2 * tp, p2 + t),
    "jaccard": lambda tp, p, t, p2: (tp, p + t - tp),
    "tversky": lambda tp, p, t, p2: (tp, tp + 0.3 * (p - tp) + 0.7 * (t - tp)),
    "focal_tversky": lambda tp, p, t, p2: (tp, tp + 0.3 * (p - tp) + 0.7 * (t - tp)),
}


def overlap(name: str, images: list, classes: int, o: dict[str, Any]) -> float:
    """The loss by its definition."""
    first = 0 if o["include_background"] else 1
    w = [1.0] * classes if o["weight"] is None else o["weight"].tolist()
    sets = [[pixel for image in images for pixel in image]] if o["average"] == "class" else images
    kinds = [list(range(first, classes))] if o["average"] == "micro" else [[c] for c in range(first, classes)]
    rows = []
    for members in sets:
        terms = []
        for kind in kinds:
            scale = {c: w[c] if o["average"] == "micro" else 1.0 for c in kind}
            tp, p, t, p2 = (
                math.fsum(scale[c] * f(q[c], y[c]) for q, y in members for c in kind)
                for f in (lambda q, y: q * y, lambda q, y: q, lambda q, y: y, lambda q, y: q * q)
            )
            above, below = OVERLAPS[name](tp, p, t, p2)
            above, below = above + o["smooth_numerator"], below + o["smooth_denominator"]
            score = above / below if below else 1.0
            loss = 1 - score
            if o.get("log"):
                loss = -math.log(max(score, 1e-7))
            if name == "focal_tversky":
                loss = max(loss, 0.0) ** 0.75
            present = any(y[c] * scale[c] for _, y in members for c in kind)
            if o["absent"] == "zero" and not present:
                loss = 0.0
            if o["absent"] != "skip" or present:
                terms.append((1.0 if o["average"] == "micro" else w[kind[0]], loss))
        share = math.fsum(v if o["normalizer"] == "weight" else 1.0 for v, _ in terms)
        if members and share:
            rows.append(math.fsum(v * loss for v, loss in terms) / share)
    return math.fsum(rows) / len(rows) if rows else 0.0


@given(
    calls(),
    st.sampled_from(sorted(OVERLAPS)),
    st.fixed_dictionaries({
        "average": st.sampled_from(["class", "sample", "micro"]),
        "absent": st.sampled_from(["skip", "keep", "zero"]),
        "weight": st.sampled_from([None, [1.0, 2.0, 0.5, 3.0]]),
        "normalizer": st.sampled_from(["weight", "count"]),
        "include_background": st.booleans(),
        "smooth_numerator": st.sampled_from([0.0, 1e-5, 1.0]),
        "smooth_denominator": st.sampled_from([0.0, 1e-5, 2.0]),
    }),
    st.booleans(),
)  # fmt: skip
def test_overlap(call: tuple[Tensor, Tensor, str], name: str, options: dict[str, Any], log: bool) -> None:
    logits, labels, activation = call
    classes = logits.shape[1]
    weight = None if options["weight"] is None else torch.tensor(options["weight"][:classes], dtype=torch.float64)
    options = {**options, "weight": weight, "include_background": options["include_background"] or classes == 1}
    if name != "focal_tversky":
        options["log"] = log
    extra = {"squared": True} if name == "squared" else {}
    function = getattr(losses, "dice" if name == "squared" else name)
    got = function(logits, labels, ignore_index=IGNORE, activation=activation, **options, **extra)
    want = overlap(name, pixels(logits, labels, activation), classes, options)
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), **EXACT)
    if activation == "sigmoid" and classes == 1:
        dense = labels[:, None]
    else:
        dense = F.one_hot(labels.masked_fill(labels == IGNORE, 0), classes).permute(0, 3, 1, 2)
        dense = dense.masked_fill((labels == IGNORE)[:, None], IGNORE)
    again = function(logits, dense.double(), ignore_index=IGNORE, activation=activation, **options, **extra)
    torch.testing.assert_close(again, got, **EXACT)


@given(
    calls(),
    st.sampled_from([0.0, 0.5, 2.0]),
    st.sampled_from([None, 0.25]),
    st.booleans(),
    st.sampled_from(["weight", "count"]),
    st.sampled_from(["mean", "sum"]),
)
def test_pixels(
    call: tuple[Tensor, Tensor, str],
    gamma: float,
    alpha: float | None,
    weighted: bool,
    normalizer: str,
    reduction: str,
) -> None:
    logits, labels, activation = call
    classes = logits.shape[1]
    w = [1.0, 2.0, 0.5, 3.0][:classes] if weighted else [1.0] * classes
    options: dict[str, Any] = {"ignore_index": IGNORE, "activation": activation, "normalizer": normalizer,
                               "reduction": reduction}  # fmt: skip
    options["weight"] = torch.tensor(w, dtype=torch.float64) if weighted else None
    above, entropy, below = [], [], []
    for image in pixels(logits, labels, activation):
        for p, y in image:
            for c in range(classes):
                if activation == "softmax" and not y[c]:
                    continue
                right = p[c] if y[c] else 1 - p[c]
                balance = (y[c] if activation == "sigmoid" else c > 0) if alpha is not None else None
                scale = w[c] if balance is None else w[c] * (alpha if balance else 1 - alpha)
                above.append(scale * (1 - right) ** gamma * -math.log(right))
                entropy.append(w[c] * -math.log(right))
                below.append(w[c] if normalizer == "weight" else 1.0)
    s = losses.statistics(logits, labels, activation=activation, ignore_index=IGNORE)
    of_sums = {k: v for k, v in options.items() if k not in ("ignore_index", "activation")}
    for got, terms in (
        (losses.focal(logits, labels, gamma=gamma, alpha=alpha, **options), above),
        (losses.cross_entropy(logits, labels, **options), entropy),
        (losses.cross_entropy(s, **of_sums), entropy),
    ):
        want = math.fsum(terms) / (math.fsum(below) or 1.0 if reduction == "mean" else 1.0)
        torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), **EXACT)


@given(calls(), st.sampled_from([0.01, 0.25, 0.7, 1.0]))
def test_hard_examples(call: tuple[Tensor, Tensor, str], share: float) -> None:
    logits, labels, activation = call
    assume(activation == "softmax")
    loss = losses.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    ranked = sorted(loss[labels != IGNORE].tolist(), reverse=True)
    kept = ranked[: max(int(share * len(ranked)), 1)]
    got = losses.cross_entropy(logits, labels, ignore_index=IGNORE, ohem=share)
    assert got.item() == pytest.approx(sum(kept) / max(len(kept), 1), rel=1e-9)
    got = losses.cross_entropy(logits, labels, ignore_index=IGNORE, ohem=share, reduction="sum")
    assert got.item() == pytest.approx(sum(kept), rel=1e-9)


def other_side(mask: list[list[bool]], counts: list[list[bool]], y: int, x: int, spacing: tuple[float, float]) -> float:
    found = [math.hypot(spacing[0] * (y - v), spacing[1] * (x - u)) for v, row in enumerate(mask)
             for u, side in enumerate(row) if counts[v][u] and side != mask[y][x]]  # fmt: skip
    return min(found, default=0.0)


@given(calls(), st.sampled_from([(1.0, 1.0), (2.0, 0.5)]), st.booleans())
def test_distances(call: tuple[Tensor, Tensor, str], spacing: tuple[float, float], one_sided: bool) -> None:
    logits, labels, activation = call
    options: dict[str, Any] = {"activation": activation, "spacing": spacing, "ignore_index": IGNORE}
    full = F.interpolate(logits, size=labels.shape[1:], mode="bilinear")
    p = full.softmax(1) if activation == "softmax" else full.sigmoid()
    kinds = [1] if logits.shape[1] == 1 and activation == "sigmoid" else range(logits.shape[1])
    linear, squares = [], []
    for image, truth in zip(p, labels, strict=True):
        counts = (truth != IGNORE).tolist()
        places = [(y, x) for y, row in enumerate(counts) for x, on in enumerate(row) if on]
        for q, kind in zip(image, kinds, strict=True):
            mask, guess = (truth == kind).tolist(), (q > 0.5).tolist()
            if places:
                d = {at: other_side(mask, counts, *at, spacing) for at in places}
                dq = {at: 0.0 if one_sided else other_side(guess, counts, *at, spacing) for at in places}
                phi = {(y, x): 1 - d[y, x] if mask[y][x] and d[y, x] else d[y, x] for y, x in places}
                linear.append(math.fsum(q[at].item() * phi[at] for at in places) / len(places))
                squares.append(math.fsum((q[y, x].item() - mask[y][x]) ** 2 * (d[y, x] ** 2 + dq[y, x] ** 2)
                                         for y, x in places) / len(places))  # fmt: skip
    for got, terms in (
        (losses.boundary(logits, labels, **options), linear),
        (losses.hausdorff_dt(logits, labels, one_sided=one_sided, **options), squares),
    ):
        want = math.fsum(terms) / max(len(terms), 1)
        torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), **EXACT)


@given(
    st.integers(1, 9), st.integers(1, 12), st.integers(0, 5), st.integers(0, 2**20), st.sampled_from([0.2, 1.0, 5.0])
)
def test_border_weights(height: int, width: int, instances: int, seed: int, sigma: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(instances + 1, (2, height, width), generator=generator)
    labels *= torch.rand(labels.shape, generator=generator) < 0.3
    want = torch.zeros(labels.shape)
    for n, image in enumerate(labels):
        for place in range(height * width):
            y, x = divmod(place, width)
            nearest = sorted(
                min(math.hypot(v - y, u - x) for v, u in (image == i).nonzero().tolist())
                for i in set(image.flatten().tolist()) - {0}
            )
            if len(nearest) > 1:
                want[n, y, x] = 10 * math.exp(-((nearest[0] + nearest[1]) ** 2) / (2 * sigma**2))
    got = losses.border_weight_map(labels, sigma=sigma)
    # float32: an exponent of x is known to x times its round-off, and x passes 87 only where the weight is 0.
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-37)


def eroded(error: dict[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    """One erosion of the errors of the pixels that count; others are 0, as what is beyond the image."""
    cross = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))
    out = {(y, x): max(sum(error.get((y + v, x + u), 0.0) for v, u in cross) / 5 - 0.5, 0.0) for y, x in error}
    least, most = min(out.values()), max(out.values())
    return {at: (e - least) / (most - least) for at, e in out.items()} if most > least else out


@given(calls(), st.integers(1, 3), st.booleans())
def test_erosions(call: tuple[Tensor, Tensor, str], erosions: int, wrong: bool) -> None:
    logits, labels, activation = call
    if wrong:  # everywhere, so that the least error is not 0
        logits, activation = torch.full_like(logits[:, :1], 3.0), "sigmoid"
        labels = torch.where(labels == IGNORE, IGNORE, 0)
    full = F.interpolate(logits, size=labels.shape[1:], mode="bilinear")
    p = full.softmax(1) if activation == "softmax" else full.sigmoid()
    kinds = [1] if logits.shape[1] == 1 and activation == "sigmoid" else range(logits.shape[1])
    terms = []
    for image, truth in zip(p, labels, strict=True):
        places = [tuple(at) for at in (truth != IGNORE).nonzero().tolist()]
        for q, kind in zip(image, kinds, strict=True):
            error = {at: (q[at].item() - (truth[at].item() == kind)) ** 2 for at in places}
            total = 0.0
            for k in range(1, erosions + 1 if places else 1):
                error = eroded(error)
                total += k**2 * math.fsum(error.values())
            terms.extend([total / len(places)] if places else [])
    got = losses.hausdorff_erosion(logits, labels, activation=activation, erosions=erosions, ignore_index=IGNORE)
    # Where the largest and the least error are nearly the same, their difference has fewer digits than they have.
    torch.testing.assert_close(
        got, torch.tensor(math.fsum(terms) / max(len(terms), 1), dtype=torch.float64), rtol=1e-6, atol=1e-9
    )


@given(calls(), st.sampled_from(["class", "sample"]), st.sampled_from(["skip", "keep"]), st.sampled_from([0, 1, 2]))
def test_generalized_dice(call: tuple[Tensor, Tensor, str], average: str, absent: str, exponent: int) -> None:
    logits, labels, activation = call
    images = pixels(logits, labels, activation)
    values = []
    for members in [[pixel for image in images for pixel in image]] if average == "class" else images:
        tp, p, t = ([math.fsum(f(q[c], y[c]) for q, y in members) for c in range(logits.shape[1])]
                    for f in (lambda q, y: q * y, lambda q, y: q, lambda q, y: y))  # fmt: skip
        w = [1 / size**exponent if size else None for size in t]
        largest = max((x for x in w if x is not None), default=0.0)
        w = [(largest if absent == "keep" else 0.0) if x is None else x for x in w]
        below = math.fsum(v * (a + b) for v, a, b in zip(w, p, t, strict=True)) + 1e-5
        score = (2 * math.fsum(v * a for v, a in zip(w, tp, strict=True)) + 1e-5) / below
        if members and (absent == "keep" or any(t)):
            values.append(1 - score)
    got = losses.generalized_dice(
        logits, labels, activation=activation, ignore_index=IGNORE, average=average, absent=absent,
        class_weight=("uniform", "simple", "square")[exponent], smooth_numerator=1e-5, smooth_denominator=1e-5,
    )  # fmt: skip
    torch.testing.assert_close(got, torch.tensor(math.fsum(values) / max(len(values), 1), dtype=torch.float64), **EXACT)
