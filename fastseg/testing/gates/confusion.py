"""Promises of the confusion matrix: every block counts into a histogram of up to 46 KiB of shared memory."""

from ..ladder.gate import Gate

_LOGITS = ("upsample_confusion_matrix",)
_HISTOGRAM = 4 * 108**2

GATES = (
    Gate(
        "confusion/argmax<float64,*>",
        _LOGITS,
        registers=128,
        occupancy=0.25,
        threads=256,
        dynamic=_HISTOGRAM,
        barriers=4,
    ),
    Gate("confusion/argmax<*>", _LOGITS, registers=80, occupancy=0.25, threads=256, dynamic=_HISTOGRAM, barriers=4),
    # Labels of one byte come 16 at a time; those of other dtypes one by one.
    Gate(
        "confusion/count_pairs",
        ("confusion_matrix",),
        registers=64,
        occupancy=0.25,
        threads=256,
        dynamic=_HISTOGRAM,
        barriers=2,
        loads={128: 0.05},
    ),
    Gate("confusion/add_counts", ("confusion_matrix", *_LOGITS), registers=48, occupancy=0.75, threads=256),
)

# Mutants that live on, by the file and the key of benchmarks/results/gpu_mutation.jsonl: why that is no gap.
SURVIVORS: dict[str, dict[str, str]] = {
    "csrc/confusion/cuda_kernel.cuh": {
        "comparison shifted `i < runs` in `for (int64_t i = int64_t(blockIdx.x) * kCountThreads + "
        "threadIdx.x; i < runs;`": "The run behind the last one has no pixel.",
        "comparison shifted `first + kLabels <= n` in `if (bytes && first + kLabels <= n) {`": (
            "The last 16 labels, read one by one, are the same."
        ),
    },
}
