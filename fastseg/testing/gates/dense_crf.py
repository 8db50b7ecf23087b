"""Promises of the dense CRF's kernels. Rows of values are read in the order of vertices and as many channels wide as
there are, so that loads are of one value: neighbours in a warp read neighbours."""

from ..ladder.gate import Gate

_FIELD = ("dense_crf",)
_BUILT = ("permutohedral_lattice", "permutohedral_filter", *_FIELD)
_APPLIED = ("permutohedral_apply", "permutohedral_filter", *_FIELD)
_SMOOTH = ("gaussian_filter_2d", *_FIELD)
_PAIRS = ("gaussian_filter", *_FIELD)
_GRADIENT = ("gaussian_filter_gradient",)

GATES = (
    # A corner for each axis in registers, in double as the CPU has it.
    Gate("dense_crf/place<[5-8],*>", _BUILT, registers=104, occupancy=0.25, threads=256, prepares=True),
    Gate("dense_crf/place<*>", _BUILT, registers=72, occupancy=0.375, threads=256, prepares=True),
    Gate("dense_crf/find_digits", _BUILT, registers=64, occupancy=0.5, threads=256, prepares=True),
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
            "find_coupling": _FIELD,
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
SURVIVORS: dict[str, dict[str, str]] = {}
