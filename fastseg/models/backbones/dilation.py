"""How strides become dilation."""

from collections.abc import Sequence


def stride_to_dilation(strides: Sequence[int], output_stride: int) -> list[tuple[int, int, int]]:
    """Trade the strides beyond ``output_stride`` for dilation, stage by stage.

    A stage that may not stride keeps the rate that stood before it in its first block and has twice that rate in the
    others (and everything after it). This is torchvision's ``replace_stride_with_dilation`` and it is exact: with
    symmetric padding, the dilated features at every second position are the strided features.

    Args:
        strides: stride of every stage from the input on, each 1 or 2.
        output_stride: 8, 16 or 32.

    Returns:
        Per stage ``(stride, dilation of the first block, dilation of the other blocks)``.
    """
    if output_stride not in (8, 16, 32):
        raise ValueError(f"fastseg::backbone: output_stride must be 8, 16 or 32, got {output_stride}")
    schedule = []
    reached, rate = 1, 1
    for stride in strides:
        first = rate
        if reached * stride > output_stride:
            rate *= stride
            stride = 1
        reached *= stride
        schedule.append((stride, first, rate))
    return schedule
