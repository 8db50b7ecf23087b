// Tensors -> the parameters of the CUDA kernels, for the launchers of every stem that upsamples.
#pragma once
#include "../common/cuda.h"
#include "argmax_kernel.cuh"
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

// The shortcut pays where several output pixels lie in a cell, and its labels fit into shared memory where columns are
// at least doubled.
template <class S>
Argmax<S> argmax_of(const Tensor& logits, int64_t height, int64_t width, bool align_corners) {
  const bool corners = logits.size(1) > 1 && width >= 2 * logits.size(3) && height >= logits.size(2);
  return {planes<S>(logits), cells(logits, height, width, align_corners), corners};
}

}  // namespace fastseg
