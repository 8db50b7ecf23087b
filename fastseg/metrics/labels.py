"""Label maps: comparisons that do not wrap, and runs of equal pixels."""

import torch
from torch import Tensor


def is_label(labels: Tensor, label: int) -> Tensor:
    """Where labels are this one: nowhere if it is beyond their dtype, in which torch would compare it modulo 2^n."""
    if labels.dtype != torch.bool and not torch.iinfo(labels.dtype).min <= label <= torch.iinfo(labels.dtype).max:
        return torch.zeros_like(labels, dtype=torch.bool)
    return labels == label


def runs(*maps: Tensor) -> tuple[Tensor, Tensor]:
    """Maps of one image -> int64 values [maps, R] of its runs of equal pixels, and their lengths; neighbours agree."""
    lines = [x.flatten() for x in maps]
    starts = torch.ones_like(lines[0], dtype=torch.bool)
    starts[1:] = False
    for line in lines:
        starts[1:] |= line[1:] != line[:-1]
    places = starts.nonzero().squeeze(1)
    values = torch.stack([line[places].long() for line in lines])
    return values, places.diff(append=places.new_tensor([len(lines[0])]))


def distinct(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Columns [k, R] -> the distinct ones [k, U], and which of them each is."""
    code, span = torch.zeros_like(columns[0]), 1
    for row in columns if columns.numel() else ():
        low = int(row.min())
        width = int(row.max()) - low + 1
        if span * width > 2**62:  # numbers instead of values, of which there are no more than runs
            (code, span), (row, width) = _ranks(code), _ranks(row)
            low = 0
        code, span = code * width + (row - low), span * width
    which, number = _ranks(code)
    return columns[:, which.new_empty(number).scatter_(0, which, torch.arange(len(which)).to(which))], which


def sums(which: Tensor, number: int, values: Tensor) -> Tensor:
    """The sum of the values of each of a number of groups."""
    return values.new_zeros(number).index_add_(0, which, values)


def _ranks(values: Tensor) -> tuple[Tensor, int]:
    sorted_, which = values.unique(return_inverse=True)
    return which, len(sorted_)
