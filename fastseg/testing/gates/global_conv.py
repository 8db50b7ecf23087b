"""Promises of GCN's kernel. Maps are read and written as planes of any alignment, which neighbouring threads share out;
what the second stages multiply with is read 16 bytes at a time. They have no tensor cores: kernels/global_conv.py says
why."""

from ..ladder.gate import Gate

_BOTH = ("global_conv2d", "global_conv2d_backward")
_BACKWARD = ("global_conv2d_backward",)

GATES = (
    Gate(
        "global_conv/second<float32,channels_last>",
        ("global_conv2d",),
        library=True,
        registers=168,
        occupancy=0.18,
        barriers=8,
    ),
    Gate("global_conv/second<*>", ("global_conv2d",), library=True, registers=152, occupancy=0.18, loads={128: 0.35}),
    Gate("global_conv/adjoint<*>", _BACKWARD, library=True, registers=152, occupancy=0.18, loads={128: 0.3}),
    Gate("global_conv/first<*>", _BOTH, library=True, registers=80, occupancy=0.35),
    Gate("global_conv/shifted<*>", _BACKWARD, library=True, registers=88, occupancy=0.3),
)
_TWICE = (
    "The number of a pixel and the width are both cast, and either makes the offsets wide at the ends that "
    "`fastseg.testing.limit` runs."
)
SURVIVORS: dict[str, dict[str, str]] = {
    "kernels/global_conv.py": {
        f"the other variant `WIDE` in `if WIDE:`{number}": _TWICE for number in ("", " 2", " 3", " 4")
    }
}
