"""What the library promises on the timed rows: how much faster than the best rival, in float32 on two threads."""

from dataclasses import dataclass

CASES = tuple(f"{size}_{kind}" for size in ("cityscapes", "voc", "batch") for kind in ("smooth", "noise"))
LAYOUTS = ("contiguous", "channels_last")


@dataclass(frozen=True)
class Goal:
    """Speed-up over the best rival that rows of `op` and `mode` with this kind of logits must reach."""

    op: str
    mode: str
    speedup: float
    kinds: tuple[str, ...] = ("smooth", "noise")
    layouts: tuple[str, ...] = ("contiguous",)

    def cases(self) -> list[str]:
        """Names of the timed rows that it speaks of."""
        return [case for case in CASES if case.endswith(self.kinds)]


GOALS = (
    Goal("upsample_argmax", "forward", 40, kinds=("smooth",)),
    Goal("upsample_argmax", "forward", 12, kinds=("noise",)),
    Goal("upsample_cross_entropy", "both", 20),
    Goal("upsample_softmax", "forward", 2),
    Goal("upsample_threshold", "forward", 10),
    Goal("upsample_bilinear", "forward", 1, layouts=LAYOUTS),
    Goal("upsample_bilinear", "backward", 2, layouts=LAYOUTS),
    Goal("confusion_matrix", "forward", 20),
)
