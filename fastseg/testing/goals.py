"""What is timed, in float32 on two threads, and what the library promises of it: how much faster than the best rival,
with how much of its rival's peak memory, and why where a promise is not kept."""

from dataclasses import dataclass

from .case import Case, find_cases

BOTH = ("contiguous", "channels_last")


@dataclass(frozen=True)
class Goal:
    """Speed-up over the best rival, and share of the peak memory of eager (or of the library in its place), if any is
    promised, that rows of `op` and `mode` whose ids end so must reach; without a promise they are timed all the same.
    Promises are for two threads, of all `threads` that rows are timed with."""

    op: str
    mode: str
    speedup: float | None = None
    kinds: tuple[str, ...] = ("smooth", "noise")
    layouts: tuple[str, ...] = ("contiguous",)
    threads: tuple[int, ...] = (2,)
    memory: float | None = None

    def cases(self) -> list[Case]:
        """The timed rows that it speaks of."""
        return [case for case in find_cases(self.op, "bench") if case.id.endswith(self.kinds)]


@dataclass(frozen=True)
class Mean:
    """Speed-up that the geometric mean over rows must reach."""

    op: str
    mode: str
    speedup: float
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Cost:
    """How many times as long as the best rival on the row `of` ours may take on the row `case`."""

    op: str
    mode: str
    case: str
    of: str
    times: float


_ATROUS = ("33_r6", "33_r12", "33_r18", "65_r12", "65_r24", "65_r36")
_DECODER = ("64_r2", "64_r4", "128_r1")
_PACKED = tuple(f"{kind}_packed" for kind in (*_ATROUS, *_DECODER))
_PLAIN = (*(f"c2048_{kind}" for kind in _ATROUS), "c512_64_r2", "c512_64_r4", "c256_64_r2", "c304_128_r1")

GOALS = (
    Goal("upsample_argmax", "forward", 40, kinds=("smooth",)),
    Goal("upsample_argmax", "forward", 12, kinds=("noise",)),
    Goal("upsample_cross_entropy", "both", 20, memory=0.05),
    Goal("upsample_softmax", "forward", 2),
    Goal("upsample_threshold", "forward", 10),
    Goal("upsample_bilinear", "forward", 1, layouts=BOTH),
    Goal("upsample_bilinear", "backward", 2, layouts=BOTH),
    Goal("confusion_matrix", "forward", 20),
    Goal("atrous_conv2d", "forward", 1, kinds=_PACKED[:6]),
    Goal("atrous_conv2d", "forward", 2.3, kinds=_PACKED[6:]),
    Goal("atrous_conv2d", "forward", 8, kinds=tuple(f"depthwise2048_33_r{r}" for r in (6, 12, 18))),
    Goal("atrous_conv2d", "forward", 1.3, kinds=("depthwise960_33_r2",)),
    Goal("atrous_conv2d", "forward", 1, kinds=("depthwise256_128_r1",)),
    Goal("atrous_conv2d", "forward", kinds=_PLAIN),
    Goal("atrous_conv2d", "both", kinds=("c2048_33_r12", "c256_64_r2", "depthwise2048_33_r6")),
    Goal("separable_atrous_conv2d", "forward", kinds=("c2048_33_r6", "c304_128")),
    Goal("aspp_conv2d", "forward", 1.7, kinds=("33_packed", "65_packed")),
    Goal("aspp_conv2d", "forward", kinds=("c2048_33", "c2048_65")),
    Goal("aspp_conv2d", "both", kinds=("c2048_33",)),
    Goal("ksac_conv2d", "forward", 2.7, kinds=("c2048_33",)),
    Goal("ksac_conv2d", "forward", 3.5, kinds=("c2048_65", "c320_128x256")),
    Goal("ksac_conv2d", "forward", kinds=("_one", "_eight")),
    Goal("ksac_conv2d", "both", 3, kinds=("_train",)),
    Goal("global_conv2d", "forward", 2.5, kinds=("c2048_16", "c512_64")),
    Goal("global_conv2d", "forward", 2, kinds=("c256_128",)),
    Goal("global_conv2d", "both", kinds=("c2048_16", "c512_64")),
    Goal("pyramid_pool", "forward", kinds=("",)),
    Goal("dense_crf", "forward", 10, kinds=("voc_80_13",), threads=(1, 2), memory=1.5),
    Goal("dense_crf", "forward", 6, kinds=("built_80_13", "voc_67_3"), threads=(1, 2), memory=1.5),
    Goal("dense_crf", "forward", 8, kinds=("binary_80_13", "batch_80_13"), threads=(1, 2), memory=1.5),
    Goal("distance_transform", "forward", 1.2, kinds=("labels_256",)),
    Goal("distance_transform", "forward", 1.5, kinds=("_256", "_512x100", "_1024x2048", "_4096")),
    Goal("directed_hausdorff", "forward", 5, kinds=("sets_100k",)),
    Goal("permutohedral_filter", "forward", kinds=("photo_80_13", "photo_67_3")),
    Goal("gaussian_filter_2d", "forward", kinds=("voc",)),
    Goal("region_statistics", "both", 10, memory=0.05),
    Goal("lovasz_softmax", "both", 3),
)
MEANS = (Mean("atrous_conv2d", "forward", 1.7, _PACKED),)
COSTS = tuple(
    Cost("ksac_conv2d", "forward", f"{case}{suffix}", f"{case}_one", times)
    for case in ("c2048_33", "c2048_65")
    for suffix, times in (("", 1.5), ("_eight", 1.9))
)

# Why a goal may be missed, by op and row, or its size, or by op alone; how far, only the rows say.
_CONTESTED = "Where the corners of a cell disagree, its classes are interpolated: arithmetic that no shortcut saves."
_SMALL = "With so little work, cold caches and page faults of fresh memory weigh, and do so on one thread too."
_CACHED = "The plain way's full-size logits, 22 MB, fit into a large cache, so that less is gained by leaving them out."
_FRESH = "The output at full size is fresh memory, whose page faults weigh beside the kernel."
_BANDWIDTH = (
    "The map is read and written once, which binds; with AVX-512 oneDNN has a kernel for rate 6 as well, and eager "
    "takes less than twelve copies' time at the others."
)
_LATTICE = (
    "Of one thread's time splat and slice take a third, whose every product needs a load of its own, the softmax a "
    "fifth, placing points in cells a ninth: much is arithmetic that no order of memory saves."
)
_CELLS = (
    "Two fifths are placing points in cells, in double, so that no corner differs from the reference's, and an eighth "
    "page faults; lists of points and rows, which only iterations gain by, come on top."
)
_BLUR = (
    "A third is the blur: 250 thousand vertices, 24 MB, pass through memory once an axis, six times an iteration. A "
    "third of the rest is building the lattices, which five iterations do not make up for."
)
_OUTLIERS = (
    "Of normal noise the furthest points are outliers, beside which SciPy gives all others up after a few distances; "
    "ours sorts both sets first. SciPy's k-d tree takes six times as long."
)
REASONS = {
    ("upsample_argmax", ""): _CONTESTED,
    ("upsample_argmax", "voc"): _SMALL,
    (
        "upsample_cross_entropy",
        "",
    ): "Interpolation and exponentials, forward and once more backward, bind it; memory does not.",
    ("upsample_cross_entropy", "voc"): _CACHED,
    ("upsample_softmax", ""): _FRESH,
    ("upsample_threshold", ""): _FRESH,
    ("upsample_threshold", "voc"): f"{_FRESH} {_CACHED}",
    ("upsample_bilinear", ""): "Both sides must move the tensor at full size once, and do little else.",
    ("confusion_matrix", ""): _CONTESTED,
    ("confusion_matrix", "voc"): _SMALL,
    ("atrous_conv2d", ""): "oneDNN leaves dead taps out as well, and transforms move each pixel and each product once.",
    ("atrous_conv2d", "depthwise2048"): _BANDWIDTH,
    ("atrous_conv2d", "depthwise960"): "At a rate of 2 oneDNN has a kernel for it, which reads the map where it lies.",
    ("atrous_conv2d", "depthwise256"): "Both sides read and write the map once, and do little else.",
    ("aspp_conv2d", ""): "Its 1x1 convolutions, 1.7 of the 11.7 GFLOP that are left at 33x33, can be no cheaper; the "
    "transforms of the rates move 60 MB; and the rival in channels_last leaves dead taps out, too.",
    ("ksac_conv2d", ""): "The GEMM alone takes as long as one rate of the rival.",
    ("ksac_conv2d", "c320"): "With 320 channels the GEMM writes 2304 values for every 320 that it reads.",
    ("dense_crf", ""): _LATTICE,
    ("dense_crf", "built_80_13"): _CELLS,
    ("dense_crf", "voc_67_3"): _BLUR,
    ("dense_crf", "binary_80_13"): "Both lattices take as long to build as for 21 labels: nearly half of the time.",
    (
        "region_statistics",
        "",
    ): "Exponentials, and sums of each class, forward and once more backward, bind it; memory does not.",
    (
        "lovasz_softmax",
        "",
    ): "Each pass of the sort moves every error and its place, which no cache near the core holds.",
    ("directed_hausdorff", ""): _OUTLIERS,
    ("distance_transform", ""): "An element takes as many steps as its distance is long; of many dozen edt's envelope "
    "takes fewer.",
    ("global_conv2d", ""): "Transforms of x and of the weights weigh beside so few products.",
}


def find_goal(op: str, case: str, mode: str) -> Goal | None:
    """What is promised of a row, if anything."""
    promises = (g for g in GOALS if g.speedup is not None)
    return next((g for g in promises if g.op == op and g.mode == mode and case.endswith(g.kinds)), None)


def reason_for(op: str, case: str) -> str:
    """Why a row may miss its goal."""
    size = case.removeprefix("logits_").split("_")[0]
    return next((why for key in (case, size, "") if (why := REASONS.get((op, key)))), "")
