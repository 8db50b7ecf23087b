// An iteration of mean field on a GPU, but for what the kernels' filters do: messages are taken from the lattice,
// weighed by compatibility, added to the energies, and become probabilities, in one kernel with a warp for each pixel.
// A pixel reads its energies and its d + 1 vertices, and writes its probabilities; nothing of it goes through memory in
// between but what a lane wrote itself. CUDA C++ and not Triton: a pixel gathers rows, and labels are an argument.
#pragma once
#include "filter_kernel.cuh"

namespace fastseg {

constexpr int kFieldThreads = 256;
constexpr int kFieldWarps = kFieldThreads / 32;

// What a kernel tells a pixel: from its grid on the lattice, or from a map [samples, points, channels].
template <class T>
struct Message {
  OnLattice<T> lattice;  // without one, only the numbers of samples, points and channels
  const T *grid, *map;   // one of them is null
  const T* after;        // [samples, points], factors, or null
  const T* self;         // as after: of the pixel's own value, which is taken off, or null
  const T* table;        // [channels, channels], compatibility by columns

  __device__ T at(const T* old, int64_t pixel, int64_t sample, int64_t channel) const {
    const int64_t place = pixel * lattice.channels + channel;
    T value = grid ? lattice.at(grid, sample, pixel - sample * lattice.points, channel) : map[place];
    if (after) value *= after[pixel];
    return self ? value - self[pixel] * old[place] : value;
  }
};

// Features of pixels [axes, ...] by their place, the last axis first: sizes and deviations of z, y and x.
struct Grid {
  int64_t size[3];
  double sigma[3];
  int axes;  // 2: y and x
};

template <class T>
__global__ void __launch_bounds__(kFieldThreads) find_positions(Grid grid, int64_t samples, T* features) {
  const int64_t points = grid.size[0] * grid.size[1] * grid.size[2];
  for (int64_t i = int64_t(blockIdx.x) * kFieldThreads + threadIdx.x; i < samples * points;
       i += int64_t(gridDim.x) * kFieldThreads) {
    T* const mine = features + i / points * grid.axes * points + i % points;
    int64_t rest = i % points;
#pragma unroll
    for (int axis = 0; axis < 3; ++axis) {
      if (axis < grid.axes) mine[axis * points] = T(double(rest % grid.size[2 - axis]) / grid.sigma[2 - axis]);
      rest /= grid.size[2 - axis];
    }
  }
}

// -(unary + sum of compatibility * message) of pixels [samples, points, channels], or minus unary where there are no
// messages; or the softmax of it. `coupled` says whether compatibilities are more than their diagonals, `unfit`
// [samples], or null, which samples become NaN.
template <class T>
__global__ void __launch_bounds__(kFieldThreads, 4)
    settle(Message<T> one, Message<T> other, bool messages, const bool* coupled, bool softmax, const int* unfit,
           const T* unary, const T* old, T* values) {
  const int64_t channels = one.lattice.channels, lane = threadIdx.x % 32;
  const bool apart = !*coupled;
  for (int64_t pixel = int64_t(blockIdx.x) * kFieldWarps + threadIdx.x / 32;
       pixel < one.lattice.samples * one.lattice.points; pixel += int64_t(gridDim.x) * kFieldWarps) {
    T* const mine = values + pixel * channels;
    const int64_t sample = pixel / one.lattice.points;
    const bool known = !unfit || unfit[sample] == 0;
    for (int64_t c = lane; c < channels; c += 32) mine[c] = known ? -unary[pixel * channels + c] : T(NAN);
    for (int64_t first = 0; messages && first < channels; first += 32) {
      const int64_t c = smaller(first + lane, channels - 1);
      const T from_one = one.at(old, pixel, sample, c), from_other = other.at(old, pixel, sample, c);
      if (apart) {
        const int64_t at = c * channels + c;
        if (first + lane < channels) mine[c] -= multiply_add(one.table[at], from_one, other.table[at] * from_other);
        continue;
      }
      for (int k = 0; k < smaller<int64_t>(32, channels - first); ++k) {
        const T a = __shfl_sync(kWarp, from_one, k), b = __shfl_sync(kWarp, from_other, k);
        const int64_t column = (first + k) * channels;
        for (int64_t row = lane; row < channels; row += 32)
          mine[row] -= multiply_add(one.table[column + row], a, other.table[column + row] * b);
      }
    }
    if (!softmax) continue;
    T most = T(-INFINITY), sum = 0;
    for (int64_t c = lane; c < channels; c += 32) most = larger(most, mine[c]);
    for (int by = 16; by > 0; by /= 2) most = larger(most, __shfl_xor_sync(kWarp, most, by));
    for (int64_t c = lane; c < channels; c += 32) sum += mine[c] = exponential(mine[c] - most);
    for (int by = 16; by > 0; by /= 2) sum += __shfl_xor_sync(kWarp, sum, by);
    for (int64_t c = lane; c < channels; c += 32) mine[c] /= sum;
  }
}

}  // namespace fastseg
