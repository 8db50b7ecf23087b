"""Promises of kernel-sharing atrous convolution: memory binds its kernels; only the sums of `unfuse` have barriers.

In channels_last loads are 16 bytes a thread, and so are the stores of 16 bytes and more that a thread has; rows of NCHW
begin at any alignment, and neighbouring threads take neighbouring values.
"""

from typing import Any

from ..ladder.gate import Gate

_GATHER = ("ksac_conv2d", "ksac_responses")
_SPREAD = ("ksac_responses_input", "ksac_responses_weight")
_WIDE: dict[str, Any] = {"loads": {128: 0.8}, "stores": {128: 1}}  # and scales, shifts

GATES = (
    Gate("ksac/gather<*int64>", _GATHER, library=True, registers=168, occupancy=0.18, **_WIDE),
    Gate("ksac/gather<*channels_last,odd>", _GATHER, library=True, registers=104, occupancy=0.25),
    Gate("ksac/gather<*channels_last*>", _GATHER, library=True, registers=96, occupancy=0.3, **_WIDE),
    Gate("ksac/gather<*>", _GATHER, library=True, registers=104, occupancy=0.25),
    Gate(
        "ksac/spread<*channels_last>",
        _SPREAD,
        library=True,
        registers=64,
        occupancy=0.45,
        loads={128: 1},
        stores={128: 1},
    ),
    Gate("ksac/spread<*>", _SPREAD, library=True, registers=64, occupancy=0.45),
    Gate("ksac_fuse/fuse<float64,*>", ("ksac_fuse",), registers=80, occupancy=0.35),
    Gate(
        "ksac_fuse/fuse<*channels_last>", ("ksac_fuse",), registers=72, occupancy=0.4, loads={128: 1}, stores={128: 1}
    ),
    Gate("ksac_fuse/fuse<*>", ("ksac_fuse",), registers=64, occupancy=0.45),
    Gate("ksac_fuse/unfuse<float64,*>", ("ksac_fuse_backward",), registers=104, occupancy=0.25, barriers=10),
    Gate("ksac_fuse/unfuse<*>", ("ksac_fuse_backward",), registers=72, occupancy=0.4, barriers=24),
)
SURVIVORS: dict[str, dict[str, str]] = {
    "kernels/ksac.py": {
        "other value `0.0` in `centre = tl.load(start + at[:, None] + (ROWS * COLUMNS // 2) * y_tap, inside, "
        "other=0.0)`": "What is not inside is not stored.",
    },
    "kernels/ksac_fuse.py": {
        "other value `0.0` in `term = tl.load(terms + at + k * rate, inside, other=0.0)`": (
            "What is not inside has no gradient, and is not stored."
        ),
    },
}
