"""Promises of the upsample family.

Loads are gathers of source pixels, so no width is promised of them. Stores of Triton's kernels are 16 bytes a thread
where the output rows allow it (8 masks: 8 bytes). Those of CUDA C++ write one pixel a thread: neighbouring threads,
neighbouring addresses. Computing in float64 takes twice the registers; it serves gradcheck.
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
_ADJOINT_DOUBLE = {**_ADJOINT, "registers": 216, "occupancy": 0.125}

GATES = (
    # CUDA C++: 80 registers are three blocks of 256 threads.
    Gate("upsample/argmax<float64,*>", ("upsample_argmax",), registers=128, occupancy=0.25, threads=256, barriers=2),
    Gate("upsample/argmax<*>", ("upsample_argmax",), registers=80, occupancy=0.375, threads=256, barriers=2),
    Gate("upsample/confidence<float64>", ("upsample_argmax_confidence",), registers=168, occupancy=0.125, threads=256),
    Gate("upsample/confidence<*>", ("upsample_argmax_confidence",), registers=80, occupancy=0.375, threads=256),
    Gate("upsample/softmax<float64,*>", ("upsample_softmax",), registers=168, occupancy=0.125, threads=256),
    # In channels_last a block turns its tile in 36 KiB of shared memory, of which sm_75 holds one.
    Gate("upsample/softmax<*,true>", ("upsample_softmax",), registers=80, occupancy=0.25, threads=256),
    Gate("upsample/softmax<*>", ("upsample_softmax",), registers=80, occupancy=0.375, threads=256),
    Gate("upsample/cross_entropy<float64>", _LOSS, registers=168, occupancy=0.125, threads=256, barriers=2),
    Gate("upsample/cross_entropy<*>", _LOSS, registers=128, occupancy=0.25, threads=256, barriers=2),
    Gate("upsample/reduce_loss<*>", _LOSS, registers=80, occupancy=0.375, threads=256, barriers=2),
    # The gather-style backwards: 128 registers are two blocks; in float64 one.
    Gate("upsample/adjoint<float64,Given*", ("upsample_bilinear_backward",), **_ADJOINT_DOUBLE),
    Gate("upsample/adjoint<float64,Prob*", ("upsample_softmax_backward",), **_ADJOINT_DOUBLE),
    Gate("upsample/adjoint<float64,Loss*", ("upsample_cross_entropy_backward",), **_ADJOINT_DOUBLE),
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
