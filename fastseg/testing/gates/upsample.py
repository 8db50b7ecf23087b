"""Promises of the upsample family.

Loads are gathers of source pixels, so no width is promised of them. Stores of Triton's kernels are 16 bytes a thread
where the output rows allow it (8 masks: 8 bytes). Those of CUDA C++ write one pixel a thread: neighbouring threads,
neighbouring addresses. Computing in float64 takes twice the registers; it serves gradcheck. There one block of 256
threads fits a multiprocessor, with 129 registers as with 255: the promise is what the compilers take, rounded up.
"""

from typing import Any

from ..ladder.gate import Gate

_LOSS = ("upsample_cross_entropy",)
# Dynamic: 24 KiB of sums, and where the columns of a tile begin.
_ADJOINT: dict[str, Any] = {
    "registers": 128,
    "occupancy": 0.25,
    "threads": 256,
    "dynamic": (24 << 10) + 4 * 129,
    "barriers": 8,
}
_LOSSES_DOUBLE = {**_ADJOINT, "registers": 176, "occupancy": 0.125}

GATES = (
    # CUDA C++: 80 registers are three blocks of 256 threads.
    Gate("upsample/argmax<float64,*>", ("upsample_argmax",), registers=128, occupancy=0.25, threads=256, barriers=2),
    Gate("upsample/argmax<*>", ("upsample_argmax",), registers=80, occupancy=0.375, threads=256, barriers=2),
    Gate("upsample/confidence<float64>", ("upsample_argmax_confidence",), registers=152, occupancy=0.125, threads=256),
    Gate("upsample/confidence<*>", ("upsample_argmax_confidence",), registers=80, occupancy=0.375, threads=256),
    Gate("upsample/softmax<float64,*>", ("upsample_softmax",), registers=160, occupancy=0.125, threads=256),
    # In channels_last a block turns its tile in 36 KiB of shared memory, of which sm_75 holds one.
    Gate("upsample/softmax<*,true>", ("upsample_softmax",), registers=80, occupancy=0.25, threads=256),
    Gate("upsample/softmax<*>", ("upsample_softmax",), registers=80, occupancy=0.375, threads=256),
    Gate("upsample/cross_entropy<float64>", _LOSS, registers=176, occupancy=0.125, threads=256, barriers=2),
    Gate("upsample/cross_entropy<*>", _LOSS, registers=128, occupancy=0.25, threads=256, barriers=2),
    Gate("upsample/reduce_loss<*>", _LOSS, registers=80, occupancy=0.375, threads=256, barriers=2),
    # The gather-style backwards: 128 registers are two blocks; of the loss in float64 one.
    Gate("upsample/adjoint<float64,Loss*", ("upsample_cross_entropy_backward",), **_LOSSES_DOUBLE),
    Gate("upsample/adjoint<*,Given*", ("upsample_bilinear_backward",), **_ADJOINT),
    Gate("upsample/adjoint<*,Prob*", ("upsample_softmax_backward",), **_ADJOINT),
    Gate("upsample/adjoint<*,Loss*", ("upsample_cross_entropy_backward",), **_ADJOINT),
    # Triton.
    Gate("upsample/bilinear<*divisible*>", ("upsample_bilinear",), registers=80, occupancy=0.375, stores={128: 1}),
    Gate("upsample/bilinear<*>", ("upsample_bilinear",), registers=80, occupancy=0.375),
    Gate(
        "upsample/threshold<float64,divisible>", ("upsample_threshold",), registers=128, occupancy=0.25, stores={64: 1}
    ),
    Gate("upsample/threshold<float64,*>", ("upsample_threshold",), registers=128, occupancy=0.25),
    Gate("upsample/threshold<*int64>", ("upsample_threshold",), registers=96, occupancy=0.3, stores={64: 1}),
    Gate("upsample/threshold<*divisible*>", ("upsample_threshold",), registers=80, occupancy=0.375, stores={64: 1}),
    Gate("upsample/threshold<*>", ("upsample_threshold",), registers=80, occupancy=0.375),
)

_EMPTY = "Once more, with nothing to do: what follows is bounded by itself."
_STRIDES = "The strides only choose the order in which threads take values; at equal strides either order is as good."
_VOTE = (
    "The vote saves time: a class that is not left out loses, and a lane that starts by itself finds the same label."
)

# Mutants that live on, by the file and the key of benchmarks/results/gpu_mutation.jsonl: why that is no gap.
SURVIVORS: dict[str, dict[str, str]] = {
    "csrc/upsample/adjoint_kernel.cuh": {
        "comparison shifted `k % 2 == 0` in `downwards = k % 2 == 0;`": (
            "The direction of a walk decides what is still in L2, not the sums."
        ),
        "comparison shifted `maps.stride_c < maps.stride_x` in `return maps.stride_c < maps.stride_x;`": _STRIDES,
        "comparison shifted `j < kTogether<T>` in `for (int32_t j = 0; j < kTogether<T>; ++j) {`": _EMPTY,
        "comparison shifted `x < first[own.columns + 1]` in `for (int32_t x = first[0]; x < "
        "first[own.columns + 1]; x += kThreads) {`": _EMPTY,
        "comparison shifted `c < (Upstream::kEveryClass ? own.classes : 1)` in `for (int32_t c = 0; c < "
        "(Upstream::kEveryClass ? own.classes : 1); c += kTogether<T>) {`": _EMPTY,
        "limit dropped `smaller` in `const int32_t pause = smaller(stop, x + kRun);`": (
            "Sums of sums keep digits that no tolerance resolves."
        ),
    },
    "csrc/upsample/argmax_kernel.cuh": {
        "vote of the own lane `__all_sync` in `const bool started = __all_sync(kWarp, start != -1);`": _VOTE,
        "guard deleted `__all_sync(kWarp, larger(above, below) < least && finite(below))` in `if "
        "(__all_sync(kWarp, larger(above, below) < least && finite(below))) continue;`": _VOTE,
        "vote of the own lane `__all_sync` in `if (__all_sync(kWarp, larger(above, below) < least && "
        "finite(below))) continue;`": _VOTE,
        "term dropped `v == best[r]` in `const bool wins = v > best[r] || (v == best[r] && c < label[r]) "
        "|| (v != v && best[r] == best[r]);`": (
            "The first class then starts the search anew, in order, which finds the same label."
        ),
        "comparison shifted `c < label[r]` in `const bool wins = v > best[r] || (v == best[r] && c < label[r]) "
        "|| (v != v && best[r] == best[r]);`": "A class that meets itself gives the label that it is.",
    },
    "csrc/upsample/softmax_kernel.cuh": {
        "comparison shifted `first < classes` in `for (int32_t first = 0; first < classes; first += n) {`": _EMPTY,
        "comparison shifted `k < n` in `for (int k = 0; k < n; ++k) {`": (
            "The first class of the next turn, twice: in NCHW to the same place, in channels_last to the padding."
        ),
    },
    "kernels/upsample.py": {
        "limit dropped `tl.maximum(source - 1, 1)` in `return tl.cdiv(i * _denominator(out, "
        "ALIGN_CORNERS), tl.maximum(source - 1, 1))`": (
            "Of a single source row the quotient is not used; the division by zero is one of integers, which "
            "traps nowhere."
        ),
        "always the first `tl.where(z == z, nearest, z)` in `return tl.where(z == z, nearest, z)`": (
            "The NaN that arithmetic makes is one after the rounding too."
        ),
    },
}
