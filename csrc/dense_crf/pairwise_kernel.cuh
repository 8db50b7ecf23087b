// The Gaussian kernel of features, all pairs of points, on a GPU: a thread for each point, which meets all others a few
// at a time. d differences, an exponential and C products a pair; the kernel is made again for every 16 channels.
// CUDA C++ and not Triton: d and C are arguments, and what a pair needs fits registers.
#pragma once
#include "../common/kernel.cuh"

namespace fastseg {

constexpr int kPairThreads = 128;
constexpr int kOthers = 8;     // points met at a time
constexpr int kChannels = 16;  // channels added up at a time

template <class T>
struct Pairs {
  int64_t samples, channels, axes, points;
  int64_t point_step, channel_step;     // of values and of results
  const T *values, *before, *features;  // [samples, ...]; factors [samples, points], or null; [samples, axes, points]

  __device__ int64_t tasks() const { return (points + kPairThreads - 1) / kPairThreads; }
};

// exp(-|f_i - f_j|^2 / 2) with the points j from `first` on; 0 beyond the last one.
template <class T>
__device__ inline void weigh(const Pairs<T>& p, int64_t sample, int64_t i, int64_t first, T* weights) {
#pragma unroll
  for (int j = 0; j < kOthers; ++j) weights[j] = 0;
  for (int64_t axis = 0; axis < p.axes; ++axis) {
    const T* const f = p.features + (sample * p.axes + axis) * p.points;
    const T mine = f[i];
#pragma unroll
    for (int j = 0; j < kOthers; ++j) {
      const T between = mine - f[smaller(first + j, p.points - 1)];
      weights[j] = multiply_add(between, between, weights[j]);
    }
  }
#pragma unroll
  for (int j = 0; j < kOthers; ++j) weights[j] = first + j < p.points ? exponential(T(-0.5) * weights[j]) : T(0);
}

template <class T>
__global__ void __launch_bounds__(kPairThreads) filter_pairs(Pairs<T> p, T* out) {
  const int64_t chunks = (p.channels + kChannels - 1) / kChannels;
  for (int64_t task = blockIdx.x; task < p.samples * chunks * p.tasks(); task += gridDim.x) {
    const int64_t i = task % p.tasks() * kPairThreads + threadIdx.x, sample = task / p.tasks() / chunks;
    const int64_t channel = task / p.tasks() % chunks * kChannels;
    if (i >= p.points) continue;
    const int64_t start = sample * p.channels * p.points + channel * p.channel_step;
    T sums[kChannels] = {}, weights[kOthers];
    for (int64_t first = 0; first < p.points; first += kOthers) {
      weigh(p, sample, i, first, weights);
      if (p.before) {
#pragma unroll
        for (int j = 0; j < kOthers; ++j) weights[j] *= p.before[sample * p.points + smaller(first + j, p.points - 1)];
      }
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        if (channel + c >= p.channels) break;
        const T* const values = p.values + start + c * p.channel_step;
#pragma unroll
        for (int j = 0; j < kOthers; ++j)
          sums[c] = multiply_add(weights[j], values[smaller(first + j, p.points - 1) * p.point_step], sums[c]);
      }
    }
#pragma unroll
    for (int c = 0; c < kChannels; ++c)
      if (channel + c < p.channels) out[start + c * p.channel_step + i * p.point_step] = sums[c];
  }
}

// out [samples, axes, points], zero at first: sum_j k_ij (g_i v_j + v_i g_j) (f_j - f_i). Values are planes.
template <class T>
__global__ void __launch_bounds__(kPairThreads) differentiate_pairs(Pairs<T> p, const T* g, T* out) {
  for (int64_t task = blockIdx.x; task < p.samples * p.tasks(); task += gridDim.x) {
    const int64_t i = task % p.tasks() * kPairThreads + threadIdx.x, sample = task / p.tasks();
    if (i >= p.points) continue;
    T weights[kOthers], products[kOthers];
    for (int64_t first = 0; first < p.points; first += kOthers) {
      weigh(p, sample, i, first, weights);
#pragma unroll
      for (int j = 0; j < kOthers; ++j) products[j] = 0;
      for (int64_t c = 0; c < p.channels; ++c) {
        const T* const v = p.values + (sample * p.channels + c) * p.points;
        const T* const u = g + (sample * p.channels + c) * p.points;
#pragma unroll
        for (int j = 0; j < kOthers; ++j) {
          const int64_t other = smaller(first + j, p.points - 1);
          products[j] = multiply_add(u[i], v[other], multiply_add(v[i], u[other], products[j]));
        }
      }
      for (int64_t axis = 0; axis < p.axes; ++axis) {
        const int64_t plane = (sample * p.axes + axis) * p.points;
        T sum = 0;
#pragma unroll
        for (int j = 0; j < kOthers; ++j)
          sum = multiply_add(weights[j] * products[j],
                             p.features[plane + smaller(first + j, p.points - 1)] - p.features[plane + i], sum);
        out[plane + i] += sum;
      }
    }
  }
}

}  // namespace fastseg
