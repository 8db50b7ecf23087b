// Gaussians of distances in pixels on a GPU, a pass for each axis (gaussian.h has the law): 2 reach + 1 products a
// value and axis; neighbours in a warp read neighbours, which the nearest cache keeps. CUDA C++ and not Triton: the
// number of taps is an argument.
#pragma once
#include "../common/kernel.cuh"

namespace fastseg {

constexpr int kGaussianThreads = 256;

// One axis: weights [size] by distance, which are left out beyond `reach`, and beyond `far` of the sums that factors
// are made of, or all of them where there are no factors: -1; factors [size] of values and of results.
template <class T>
struct Axis {
  int64_t size, reach, far;
  T *weights, *before, *after;
};

// `before` and `after` say which sides the sums of rows divide: one of them whole, both by the root.
template <class T>
__global__ void __launch_bounds__(kGaussianThreads) find_taps(Axis<T> axis, double sigma, bool before, bool after) {
  for (int64_t i = int64_t(blockIdx.x) * kGaussianThreads + threadIdx.x; i < axis.size;
       i += int64_t(gridDim.x) * kGaussianThreads) {
    double sum = 0;
    for (int64_t k = -axis.far; k <= axis.far; ++k) {
      const double distance = double(k) / sigma;
      if (i + k >= 0 && i + k < axis.size) sum += exp(-0.5 * distance * distance);
    }
    const double distance = double(i) / sigma;
    axis.weights[i] = T(exp(-0.5 * distance * distance));
    const double factor = before && after ? 1 / sqrt(sum) : 1 / sum;
    axis.before[i] = before ? T(factor) : T(1);
    axis.after[i] = after ? T(factor) : T(1);
  }
}

// What values are multiplied by: the one at k along the axis has factors[start / each + k * step].
template <class T>
struct Factors {
  const T* factors;  // or null
  int64_t each, step;
};

// values [planes, size, inner] along the middle.
template <class T>
__global__ void __launch_bounds__(kGaussianThreads)
    filter_axis(Axis<T> axis, const T* values, Factors<T> by, int64_t planes, int64_t inner, T* out) {
  const int64_t tasks = planes * axis.size * inner;
  for (int64_t task = int64_t(blockIdx.x) * kGaussianThreads + threadIdx.x; task < tasks;
       task += int64_t(gridDim.x) * kGaussianThreads) {
    const int64_t at = task / inner % axis.size;
    const int before = int(smaller(at, axis.reach)), behind = int(smaller(axis.size - 1 - at, axis.reach));
    const T* value = values + task - before * inner;
    T sum = 0;
    if (by.factors) {
      const T* factor = by.factors + (task - at * inner) / by.each + (at - before) * by.step;
      for (int k = -before; k <= behind; ++k, value += inner, factor += by.step)
        sum = multiply_add(axis.weights[abs(k)] * *factor, *value, sum);
    } else {
      for (int k = -before; k <= behind; ++k, value += inner) sum = multiply_add(axis.weights[abs(k)], *value, sum);
    }
    out[task] = sum * axis.after[at];
  }
}

}  // namespace fastseg
