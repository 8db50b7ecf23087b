"""What the library promises on the timed rows: how much faster than the best rival, in float32 on two threads."""

from dataclasses import dataclass

from .case import Case, find_cases

BOTH = ("contiguous", "channels_last")


@dataclass(frozen=True)
class Goal:
    """Speed-up over the best rival that rows of `op` and `mode` with this kind of logits must reach."""

    op: str
    mode: str
    speedup: float
    kinds: tuple[str, ...] = ("smooth", "noise")
    layouts: tuple[str, ...] = ("contiguous",)

    def cases(self) -> list[Case]:
        """The timed rows that it speaks of."""
        return [case for case in find_cases(self.op, "bench") if case.id.endswith(self.kinds)]


GOALS = (
    Goal("upsample_argmax", "forward", 40, kinds=("smooth",)),
    Goal("upsample_argmax", "forward", 12, kinds=("noise",)),
    Goal("upsample_cross_entropy", "both", 20),
    Goal("upsample_softmax", "forward", 2),
    Goal("upsample_threshold", "forward", 10),
    Goal("upsample_bilinear", "forward", 1, layouts=BOTH),
    Goal("upsample_bilinear", "backward", 2, layouts=BOTH),
    Goal("confusion_matrix", "forward", 20),
)


def goal_of(op: str, case: str, mode: str) -> float | None:
    """The promised speed-up of a row, if there is one."""
    return next((g.speedup for g in GOALS if g.op == op and g.mode == mode and case.endswith(g.kinds)), None)
