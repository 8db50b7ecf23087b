"""Every tolerance, with its reason. Nothing else in the tests compares with a number of its own.

The truth is float64 arithmetic on the given inputs. A kernel may be wrong by at most PLAIN times the error of plain
PyTorch in the same dtype on the same case, plus `floor(dtype)` times the largest magnitude of the truth.
"""

import torch

# Twice PyTorch's own error: another order of the same roundings moves an error by a factor, not by a magnitude.
PLAIN = 2.0

# Round-off that is always granted, in units of the dtype's epsilon. PyTorch's measured error is zero by luck on some
# rows (constant maps, identity sizes). A bilinear value is three roundings of the weights and four of the sum; exp and
# log add one or two.
FLOOR_EPSILONS = {
    torch.float32: 8,
    torch.float64: 8,
    # Half precision is computed in float32 and rounded once: half an epsilon where the rounding falls the other way.
    torch.bfloat16: 1,
    torch.float16: 1,
}

# In float64 the truth is no more exact than the kernel: both place a sample with an error of about one epsilon times
# the extent of the source, in pixels, and that moves the value by as much times the slope.
FLOAT64_EXTENT_EPSILONS = 4

# Two classes may change places only where they are this near, in units in the last place of the largest corner: each
# value is off by at most 2 ulp (weights rounded once, two products, a sum), the difference by twice that.
TIE_ULPS = 4

# Gradients are also compared as vectors, so that a small bias in all entries cannot hide below the largest one.
# Signed bias: mean error over mean magnitude; errors of rounding have no preferred sign, so the mean of many is small.
SIGNED_BIAS_EPSILONS = 4
# 1 - cosine is half the squared relative error; what is left is the rounding of the cosine itself, in float64.
COSINE_FLOOR = 1e-14

# A rival has to do the same job, not to be as exact: float32 coordinates move a value by this much of the largest, and
# this share of labels over a tie. A wrong option (align_corners, an ignored class) is wrong by far more.
RIVAL = 1e-3

# gradcheck in float64: a central difference of step 1e-6 is good to about 1e-10 / 1e-6.
GRADCHECK = {"eps": 1e-6, "atol": 1e-5, "rtol": 1e-3, "nondet_tol": 0.0}

# Peak memory beyond inputs and outputs that a fused op may use: one band of scratch per thread.
SCRATCH_BYTES = 1 << 20


def floor(dtype: torch.dtype, extent: int) -> float:
    """Round-off relative to the largest magnitude, for sources of `extent` pixels on the longer side."""
    epsilons = FLOOR_EPSILONS[dtype] + (FLOAT64_EXTENT_EPSILONS * extent if dtype == torch.float64 else 0)
    return epsilons * torch.finfo(dtype).eps


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that kernels compute in."""
    return torch.float64 if dtype == torch.float64 else torch.float32
