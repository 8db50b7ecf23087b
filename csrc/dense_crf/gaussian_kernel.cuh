// Gaussians of distances in pixels on a GPU, a pass for each axis (gaussian.h has the law): 2 reach + 1 products a
// value and axis; neighbours in a warp read neighbours, which the nearest cache keeps. CUDA C++ and not Triton: the
// number of taps is an argument.
#pragma once
#include "../common/kernel.cuh"

namespace fastseg {

constexpr int kGaussianThreads = 256;

// One axis: weights [size] by distance, which are left out beyond `reach`; factors [size] of values and of results.
template <class T>
struct Axis {
  int64_t size, reach;
  T *weights, *before, *after;
};

// `before` and `after` say which sides the sums of rows divide: one of them whole, both by the root.
template <class T>
__global__ void __launch_bounds__(kGaussianThreads) find_taps(Axis<T> axis, double sigma, bool before, bool after) {
  for (int64_t i = int64_t(blockIdx.x) * kGaussianThreads + threadIdx.x; i < axis.size;
       i += int64_t(gridDim.x) * kGaussianThreads) {
    double sum = 0;
    for (int64_t k = 0; k < axis.size && (before || after); ++k) {
      const double distance = double(k - i) / sigma;
      sum += exp(-0.5 * distance * distance);
    }
    const double distance = double(i) / sigma;
    axis.weights[i] = T(exp(-0.5 * distance * distance));
    const double factor = before && after ? 1 / sqrt(sum) : 1 / sum;
    axis.before[i] = before ? T(factor) : T(1);
    axis.after[i] = after ? T(factor) : T(1);
  }
}

// values [planes, size, inner] along the middle; times factors of values for each `channels` of them, or not.
template <class T>
__global__ void __launch_bounds__(kGaussianThreads)
    filter_axis(Axis<T> axis, const T* values, const T* factors, int64_t channels, int64_t planes, int64_t inner,
                T* out) {
  const int64_t tasks = planes * axis.size * inner;
  for (int64_t task = int64_t(blockIdx.x) * kGaussianThreads + threadIdx.x; task < tasks;
       task += int64_t(gridDim.x) * kGaussianThreads) {
    const int64_t at = task / inner % axis.size, start = task - at * inner;
    const int64_t first = larger<int64_t>(0, at - axis.reach), last = smaller(axis.size - 1, at + axis.reach);
    const T* const mine = factors ? factors + start / channels : nullptr;
    T sum = 0;
    for (int64_t k = first; k <= last; ++k) {
      const T weight = axis.weights[k < at ? at - k : k - at] * axis.before[k];
      const T factor = mine ? mine[k * (inner / channels)] : T(1);
      sum = multiply_add(weight * factor, values[start + k * inner], sum);
    }
    out[task] = sum * axis.after[at];
  }
}

}  // namespace fastseg
