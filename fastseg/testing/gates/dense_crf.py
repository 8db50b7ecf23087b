"""Promises of the dense CRF's kernels. Rows of values are read in the order of vertices and as many channels wide as
there are, so that loads are of one value: neighbours in a warp read neighbours."""

from ..ladder.gate import Gate

_FIELD = ("dense_crf",)
_BUILT = ("permutohedral_lattice", "permutohedral_filter", *_FIELD)
_APPLIED = ("permutohedral_apply", "permutohedral_filter", *_FIELD)
_KEPT = ("permutohedral_apply", "permutohedral_diagonal")
_SMOOTH = ("gaussian_filter_2d", *_FIELD)
_PAIRS = ("gaussian_filter", *_FIELD)
_GRADIENT = ("gaussian_filter_gradient",)

GATES = (
    # A corner for each axis in registers, in double as the CPU has it.
    Gate("dense_crf/place<[5-8],*>", _BUILT, registers=120, occupancy=0.25, threads=256, prepares=True),
    Gate("dense_crf/place<*>", _BUILT, registers=80, occupancy=0.375, threads=256, prepares=True),
    Gate("dense_crf/find_digits", _BUILT, registers=64, occupancy=0.5, threads=256, prepares=True),
    Gate("dense_crf/find_unfit", _FIELD, registers=48, occupancy=0.625, threads=256, prepares=True),
    Gate("dense_crf/find_unsound", _KEPT, registers=48, occupancy=0.625, threads=256, prepares=True),
    *(
        Gate(f"dense_crf/{name}", _BUILT, registers=48, occupancy=0.625, threads=256, prepares=True)
        for name in ("measure<*>", "insert", "mark", "number", "name_corners", "find_neighbours")
    ),
    *(
        Gate(f"dense_crf/{name}<*>", ops, registers=64, occupancy=0.5, threads=256, prepares=True)
        for name, ops in {
            "find_diagonal": ("permutohedral_diagonal", *_FIELD),
            "list_corners": _APPLIED,
            "find_starts": _APPLIED,
            "find_factors": ("permutohedral_filter", *_FIELD),
            "find_positions": _FIELD,
            "find_taps": _SMOOTH,
        }.items()
    ),
    *(
        Gate(f"dense_crf/{name}<*>", ops, registers=64, occupancy=0.5, threads=256)
        for name, ops in {
            "splat": _APPLIED,
            "join": _APPLIED,
            "blur": _APPLIED,
            "slice": ("permutohedral_apply", "permutohedral_filter"),
            "settle": _FIELD,
            "filter_axis": _SMOOTH,
        }.items()
    ),
    # 16 sums and 8 weights of a thread.
    Gate("dense_crf/filter_pairs<float64>", _PAIRS, registers=240, occupancy=0.125, threads=128),
    Gate("dense_crf/filter_pairs<*>", _PAIRS, registers=168, occupancy=0.18, threads=128),
    Gate("dense_crf/differentiate_pairs<*>", _GRADIENT, registers=128, occupancy=0.25, threads=128),
)

# Mutants that live on, by the file and the key of benchmarks/results/gpu_mutation.jsonl: why that is no gap.
_GAUSSIAN, _LATTICE = "csrc/dense_crf/gaussian_kernel.cuh", "csrc/dense_crf/lattice_kernel.cuh"
_ROW = "`starts[0] < starts[1]` in `T sum = starts[0] < starts[1] ? row[c] : T(0);`"
_REACH = (
    "limit dropped `smaller` in `const int before = int(smaller(at, axis.reach)), behind = int(smaller(axis.size - 1 - "
    "at, axis.reach));`"
)
_BEYOND = "comparison shifted `first < p.points` in `for (int64_t first = 0; first < p.points; first += kOthers) {`"
_NO_CORNERS = "A vertex of a lattice has corners: only in states that somebody else wrote there are others."
_NO_WEIGHT = "The points behind the last one have a weight of 0."
_TINY = "Weights beyond the reach are less than 2^-26 of the largest, and 2^-55 in double: no result shows them."
SURVIVORS: dict[str, dict[str, str]] = {
    "csrc/dense_crf/filter_kernel.cuh": {
        f"bound deleted {_ROW}": _NO_CORNERS,
        f"comparison shifted {_ROW}": _NO_CORNERS,
    },
    _GAUSSIAN: {
        "comparison shifted `k <= axis.far` in `for (int64_t k = -axis.far; k <= axis.far; ++k) {`": (
            "A weight 9 deviations away is less than the last bit of the sum."
        ),
        _REACH: _TINY,
        f"{_REACH} 2": _TINY,
    },
    _LATTICE: {
        "comparison shifted `r < S` in `for (int r = 0; r < S; ++r)`": "No rank is as large as S.",
        "comparison shifted `axis + 1 < sides` in `while (axis + 1 < sides && beside[(axis * corners + mine[k - 1]) * "
        "2 + 1] != mine[k]) ++axis;`": "The corners of a lattice follow each other: the search ends before its bound.",
        "comparison shifted `a < b` in `const int behind = way == 0 ? a < b : way == 1 ? a >= b : 0;`": (
            "From a corner to itself the first way has no step."
        ),
    },
    "csrc/dense_crf/mean_field_kernel.cuh": {
        "comparison shifted `first < channels` in `for (int64_t first = 0; messages && first < channels; first += 32) "
        "{`": "With as many labels as lanes there is none behind them.",
    },
    "csrc/dense_crf/pairwise_kernel.cuh": {_BEYOND: _NO_WEIGHT, f"{_BEYOND} 2": _NO_WEIGHT},
}
