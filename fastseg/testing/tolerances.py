"""Every tolerance, with its reason. Nothing else in the tests compares with a number of its own.

The truth is float64 arithmetic on the given inputs. A kernel may be wrong by at most PLAIN times the error of plain
PyTorch in the same dtype on the same case, plus `floor(dtype)` times the largest magnitude of the truth.
"""

import math

import torch

# Twice PyTorch's own error: another order of the same roundings moves an error by a factor, not by a magnitude.
PLAIN = 2.0

# Round-off that is always granted, in units of the dtype's epsilon. PyTorch's measured error is zero by luck on some
# rows (constant maps, identity sizes). A bilinear value is three roundings of the weights and four of the sum.
FLOOR_EPSILONS = {
    torch.float32: 8,
    torch.float64: 8,
    # Half precision is computed in float32 and rounded once: half an epsilon where the rounding falls the other way.
    torch.bfloat16: 1,
    torch.float16: 1,
}

# exp turns the absolute error of its argument, epsilons of the largest |z| + log C, into a relative one: one epsilon
# for z, one for the log-sum-exp that the backward reads back in the same precision. A sum over C classes, one after
# the other, adds sqrt(C) / 2 (PyTorch sums pairwise).
EXP_EPSILONS = 2

# In float64 the truth is no more exact than the kernel: both place a sample with an error of about one epsilon times
# the extent of the source, in pixels, and that moves the value by as much times the slope.
FLOAT64_EXTENT_EPSILONS = 4

# A gradient is a sum over the outputs that reach a source pixel. PyTorch's float64 backward, the truth, adds n of them
# one after the other: against long double it is off by 28 epsilons on the row x1000 (6,000 outputs), where
# our kernels, which add in runs, are off by 2. Roundings that have no preferred sign add up to sqrt(n) / 2.
FLOAT64_SUM_EPSILONS = 0.5

# Roundings of a sum of n products that are not PyTorch's, because the sum is in another order: as above, in the dtype
# that is summed in. It matters where the sum is then rounded to a narrow dtype, and could fall to the neighbour.
SUM_EPSILONS = 0.5

# Algorithms whose error is not PyTorch's own for the same convolution, in times of that, measured on 2048 channels:
# Winograd's transforms add and subtract before and after the products (Lavin and Gray 2015, arXiv 1509.09308). And the
# bound that docs/ops/atrous_conv.md promises of them, relative to the largest magnitude.
GROWTH = {"winograd3": 2.0, "winograd4": 4.0}
GROWN_MOST = 1e-4

# Two classes may change places only where they are this near, in units in the last place of the largest corner: each
# value is off by at most 2 ulp (weights rounded once, two products, a sum), the difference by twice that.
TIE_ULPS = 4

# Gradients are also compared as vectors, so that a small bias in all entries cannot hide below the largest one.
# Signed bias: mean error over mean magnitude. Rounding has no preferred sign, so over n pixels it may be the floor over
# sqrt(n), and never needs to be under this share of it.
SIGNED_BIAS_SHARE = 1 / 8
# 1 - cosine is half the squared relative error; what is left is the rounding of the cosine itself, a float64
# sum of up to 1e7 products.
COSINE_FLOOR = 1e-12

# A rival has to do the same job, not to be as exact: float32 coordinates move a value by this much of the largest, and
# this share of labels over a tie. A wrong option (align_corners, an ignored class) is wrong by far more.
RIVAL = 1e-3

# gradcheck in float64: a central difference of step 1e-6 is good to about 1e-10 / 1e-6.
GRADCHECK = {"eps": 1e-6, "atol": 1e-5, "rtol": 1e-3, "nondet_tol": 0.0}

# Peak memory beyond inputs and outputs that a fused op may use: one band of scratch per thread.
SCRATCH_BYTES = 1 << 20


def floor(dtype: torch.dtype, extent: int, exponent: float = 0.0) -> float:
    """Round-off relative to the largest magnitude.

    Args:
        dtype: of the result.
        extent: longer side of the source in pixels.
        exponent: largest magnitude that goes through exp, for results that do.
    """
    epsilons = FLOOR_EPSILONS[dtype] + (FLOAT64_EXTENT_EPSILONS * extent if dtype == torch.float64 else 0)
    wide = torch.finfo(compute_dtype(dtype)).eps
    return epsilons * torch.finfo(dtype).eps + EXP_EPSILONS * exponent * wide


def sum_floor(dtype: torch.dtype, terms: float) -> float:
    """What is granted to a gradient beside `floor`: the rounding of the truth's own sum of so many terms."""
    return FLOAT64_SUM_EPSILONS * math.sqrt(terms) * torch.finfo(dtype).eps if dtype == torch.float64 else 0.0


def wide_sum(dtype: torch.dtype, terms: float) -> float:
    """Error of a sum of so many terms relative to the largest magnitude, in the dtype that it is computed in."""
    return SUM_EPSILONS * math.sqrt(terms - 1) * torch.finfo(compute_dtype(dtype)).eps


def growth(path: str) -> float:
    """How many times PyTorch's own error an algorithm is granted, by the path that was taken."""
    return GROWTH.get(path.split(":")[-1], 1.0)


def exponent(largest: float, classes: int) -> float:
    """What `floor` takes for a softmax or log-sum-exp over this many logits up to this magnitude."""
    return largest + math.log(classes) + math.sqrt(classes) / 2


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that kernels compute in."""
    return torch.float64 if dtype == torch.float64 else torch.float32
