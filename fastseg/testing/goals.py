"""What the library promises on the timed rows, in float32 on two threads: how much faster than the best rival, with how
much of eager's peak memory, and why where a promise is not kept."""

from dataclasses import dataclass

from .case import Case, find_cases

BOTH = ("contiguous", "channels_last")


@dataclass(frozen=True)
class Goal:
    """Speed-up over the best rival, and share of eager's peak memory if any is promised, that rows of `op` and `mode`
    with this kind of logits must reach."""

    op: str
    mode: str
    speedup: float
    kinds: tuple[str, ...] = ("smooth", "noise")
    layouts: tuple[str, ...] = ("contiguous",)
    memory: float | None = None

    def cases(self) -> list[Case]:
        """The timed rows that it speaks of."""
        return [case for case in find_cases(self.op, "bench") if case.id.endswith(self.kinds)]


GOALS = (
    Goal("upsample_argmax", "forward", 40, kinds=("smooth",)),
    Goal("upsample_argmax", "forward", 12, kinds=("noise",)),
    Goal("upsample_cross_entropy", "both", 20, memory=0.05),
    Goal("upsample_softmax", "forward", 2),
    Goal("upsample_threshold", "forward", 10),
    Goal("upsample_bilinear", "forward", 1, layouts=BOTH),
    Goal("upsample_bilinear", "backward", 2, layouts=BOTH),
    Goal("confusion_matrix", "forward", 20),
)

# Why a goal may be missed, by op and size of the row, or by op alone; how far, only the rows say.
_CONTESTED = "Where the corners of a cell disagree, its classes are interpolated: arithmetic that no shortcut saves."
_SMALL = "With so little work, cold caches and page faults of fresh memory weigh, and do so on one thread too."
_CACHED = "The plain way's full-size logits, 22 MB, fit into a large cache, so that less is gained by leaving them out."
_FRESH = "The output at full size is fresh memory, whose page faults weigh beside the kernel."
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
}


def find_goal(op: str, case: str, mode: str) -> Goal | None:
    """What is promised of a row, if anything."""
    return next((g for g in GOALS if g.op == op and g.mode == mode and case.endswith(g.kinds)), None)


def reason_for(op: str, case: str) -> str:
    """Why a row may miss its goal."""
    size = case.removeprefix("logits_").split("_")[0]
    return REASONS.get((op, size)) or REASONS[op, ""]
