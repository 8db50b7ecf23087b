"""Promises of the dense CRF's kernels. Rows of values are read in the order of vertices and as many channels wide as
there are, so that loads are of one value: neighbours in a warp read neighbours."""

from ..ladder.gate import Gate

_FIELD = ("dense_crf",)
_BUILT = ("permutohedral_lattice", "permutohedral_filter", *_FIELD)
_APPLIED = ("permutohedral_apply", "permutohedral_filter", *_FIELD)
_SMOOTH = ("gaussian_filter_2d", *_FIELD)

GATES = (
    # A corner for each axis in registers, in double as the CPU has it.
    Gate("dense_crf/place<[5-8],*>", _BUILT, registers=104, occupancy=0.25, threads=256),
    Gate("dense_crf/place<*>", _BUILT, registers=72, occupancy=0.375, threads=256),
    Gate("dense_crf/find_digits", _BUILT, registers=64, occupancy=0.5, threads=256),
    *(
        Gate(f"dense_crf/{name}", _BUILT, registers=48, occupancy=0.625, threads=256)
        for name in ("measure<*>", "insert", "mark", "number", "name_corners", "find_neighbours")
    ),
    Gate(
        "dense_crf/find_diagonal<*>",
        ("permutohedral_diagonal", *_FIELD),
        registers=64,
        occupancy=0.5,
        threads=256,
    ),
    *(
        Gate(f"dense_crf/{name}<*>", _APPLIED, registers=64, occupancy=0.5, threads=256)
        for name in ("list_corners", "find_starts", "splat", "join", "blur")
    ),
    Gate("dense_crf/slice<*>", ("permutohedral_apply", "permutohedral_filter"), registers=64, occupancy=0.5,
         threads=256),  # fmt: skip
    Gate("dense_crf/find_factors<*>", ("permutohedral_filter", *_FIELD), registers=48, occupancy=0.625, threads=256),
    *(Gate(f"dense_crf/{name}<*>", _FIELD, registers=64, occupancy=0.5, threads=256) for name in
      ("settle", "find_positions", "find_coupling")),  # fmt: skip
    *(Gate(f"dense_crf/{name}<*>", _SMOOTH, registers=64, occupancy=0.5, threads=256) for name in
      ("find_taps", "filter_axis")),  # fmt: skip
    # 16 sums and 8 weights of a thread.
    Gate("dense_crf/filter_pairs<float64>", ("gaussian_filter", *_FIELD), registers=240, occupancy=0.125, threads=128),
    Gate("dense_crf/filter_pairs<*>", ("gaussian_filter", *_FIELD), registers=168, occupancy=0.18, threads=128),
    Gate("dense_crf/differentiate_pairs<*>", ("gaussian_filter_gradient",), registers=128, occupancy=0.25,
         threads=128),  # fmt: skip
)

# Mutants that live on, by the file and the key of benchmarks/results/gpu_mutation.jsonl: why that is no gap.
SURVIVORS: dict[str, dict[str, str]] = {}
