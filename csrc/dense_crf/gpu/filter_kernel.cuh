// Values through the lattice on a GPU: channels of a point or of a vertex beside each other, a warp for each of them.
//
// Splat is a gather over the corners of a vertex in their order, so that no float is added up atomically, and results
// are the same bits every time. Each stage reads and writes a line for each warp: splat d + 1 a point, blur three a
// vertex and axis, slice d + 1 a point. Vertices beyond their number, which is known on the device alone, are left out.
#pragma once
#include "../../common/kernel.cuh"

namespace fastseg {

constexpr int kFilterThreads = 256;
constexpr int kFilterWarps = kFilterThreads / 32;
constexpr int64_t kFilterBlocks = 4096;  // stride over the room that there is for vertices

template <class T>
struct OnLattice {
  int64_t samples, points, channels;
  int sides;
  const int* vertices;    // [samples, points, sides]
  const T* weights;       // as vertices
  const int* neighbours;  // [samples, sides, corners, 2]
  const int64_t* count;   // [samples]
  const int64_t* order;   // [samples, corners], corners by vertex
  const int* starts;      // [samples, corners + 1], of each vertex in it
  T scale;                // of results

  __device__ int64_t corners() const { return points * sides; }
};

// Where each vertex begins in the sorted vertices of corners.
__global__ void __launch_bounds__(kFilterThreads)
    find_starts(const int* sorted, int64_t samples, int64_t corners, int* starts) {
  for (int64_t i = int64_t(blockIdx.x) * kFilterThreads + threadIdx.x; i < samples * corners;
       i += int64_t(gridDim.x) * kFilterThreads) {
    const int64_t n = i / corners, at = i % corners;
    int* const mine = starts + n * (corners + 1);
    if (at == 0 || sorted[i] != sorted[i - 1]) mine[sorted[i]] = int(at);
    if (at == corners - 1) mine[sorted[i] + 1] = int(corners);
  }
}

// values [samples, points, channels] -> grid [samples, corners, channels].
template <class T>
__global__ void __launch_bounds__(kFilterThreads) splat(OnLattice<T> p, const T* values, T* grid) {
  const int64_t corners = p.corners(), warps = int64_t(gridDim.x) * kFilterWarps;
  for (int64_t task = int64_t(blockIdx.x) * kFilterWarps + threadIdx.x / 32; task < p.samples * corners;
       task += warps) {
    const int64_t n = task / corners, v = task % corners;
    if (v >= p.count[n]) continue;
    const int* const starts = p.starts + n * (corners + 1) + v;
    for (int64_t c = threadIdx.x % 32; c < p.channels; c += 32) {
      T sum = 0;
      for (int at = starts[0]; at < starts[1]; ++at) {
        const int64_t corner = n * corners + p.order[n * corners + at];
        sum = multiply_add(p.weights[corner], values[corner / p.sides * p.channels + c], sum);
      }
      grid[task * p.channels + c] = sum;
    }
  }
}

// Half of both neighbours along an axis is added.
template <class T>
__global__ void __launch_bounds__(kFilterThreads) blur(OnLattice<T> p, int axis, const T* grid, T* blurred) {
  const int64_t corners = p.corners(), warps = int64_t(gridDim.x) * kFilterWarps;
  for (int64_t task = int64_t(blockIdx.x) * kFilterWarps + threadIdx.x / 32; task < p.samples * corners;
       task += warps) {
    const int64_t n = task / corners, v = task % corners, count = p.count[n];
    if (v >= count) continue;
    const int* const beside = p.neighbours + ((n * p.sides + axis) * corners + v) * 2;
    for (int64_t c = threadIdx.x % 32; c < p.channels; c += 32) {
      T both = 0;
      if (beside[0] < count) both += grid[(n * corners + beside[0]) * p.channels + c];
      if (beside[1] < count) both += grid[(n * corners + beside[1]) * p.channels + c];
      blurred[task * p.channels + c] = multiply_add(T(0.5), both, grid[task * p.channels + c]);
    }
  }
}

// grid -> results [samples, points, channels].
template <class T>
__global__ void __launch_bounds__(kFilterThreads) slice(OnLattice<T> p, const T* grid, T* results) {
  const int64_t corners = p.corners(), warps = int64_t(gridDim.x) * kFilterWarps;
  for (int64_t task = int64_t(blockIdx.x) * kFilterWarps + threadIdx.x / 32; task < p.samples * p.points;
       task += warps) {
    const int64_t n = task / p.points;
    for (int64_t c = threadIdx.x % 32; c < p.channels; c += 32) {
      T sum = 0;
      for (int k = 0; k < p.sides; ++k) {
        const int64_t corner = task * p.sides + k;
        sum = multiply_add(p.weights[corner], grid[(n * corners + p.vertices[corner]) * p.channels + c], sum);
      }
      results[task * p.channels + c] = p.scale * sum;
    }
  }
}

}  // namespace fastseg
