// Tensors -> the parameters of the CUDA kernels, for the launchers of every stem that upsamples.
#pragma once
#include "../common/cuda.h"
#include "cells.cuh"
#include "checks.h"

namespace fastseg {

template <class S>
Planes<S> planes(const Tensor& x) {
  return {(const S*)x.data_ptr(), int32_t(x.size(1)), x.stride(0), x.stride(1), x.stride(2), x.stride(3)};
}

inline Cells cells(const Tensor& x, int64_t height, int64_t width, bool align_corners) {
  return {{int32_t(x.size(2)), int32_t(height), align_corners},
          {int32_t(x.size(3)), int32_t(width), align_corners},
          x.size(0)};
}

// Whether the labels of the source pixels pay (several output pixels lie in a cell) and fit into shared memory (columns
// are at least doubled).
inline bool corners_pay(const Tensor& x, int64_t height, int64_t width) {
  return x.size(1) > 1 && width >= 2 * x.size(3) && height >= x.size(2);
}

}  // namespace fastseg
