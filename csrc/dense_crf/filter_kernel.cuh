// Values through the lattice on a GPU: channels of a point or of a vertex beside each other, neighbours in a warp.
//
// No float is added up atomically, so that results are the same bits every time: corners lie sorted by vertex, and a
// warp adds up kPiece of them, of as many vertices as these belong to; what a vertex has in later pieces is joined to
// it in their order. A piece reads a row of values for each corner; blur three rows a vertex and axis; slice d + 1 rows
// a point. How many vertices there are is known on the device alone: the room beyond them is left out.
#pragma once
#include "../common/kernel.cuh"

namespace fastseg {

constexpr int kFilterThreads = 256;
constexpr int kFilterWarps = kFilterThreads / 32;
constexpr int64_t kPiece = 64;
constexpr int kAhead = 4;        // rows that a piece asks for at a time
constexpr double kAlone = 1e-4;  // terms.h

template <class T>
struct OnLattice {
  int64_t samples, points, channels;
  int sides;
  const int* vertices;    // [samples, points, sides]
  const T* weights;       // as vertices
  const int* neighbours;  // [samples, sides, corners, 2]
  const int64_t* count;   // [samples]
  const int* unsound;     // [samples], of states that index what is not theirs; or null
  int *sorted, *owners;   // [samples, corners], corners by vertex: the vertex, and the point
  T* shares;              // of its values, as sorted
  int* starts;            // [samples, corners + 1], of each vertex in them
  T scale;                // of results
  int shift;              // 2^shift neighbouring threads share the channels of a vertex or of a point

  __device__ int64_t corners() const { return points * sides; }
  __device__ int64_t found(int64_t n) const { return unsound && unsound[n] ? 0 : count[n]; }
  __device__ int64_t threads() const { return int64_t(1) << shift; }
  __device__ int64_t first() const { return (int64_t(blockIdx.x) * kFilterThreads + threadIdx.x) >> shift; }
  __device__ int64_t step() const { return int64_t(gridDim.x) * kFilterThreads >> shift; }
  __device__ int64_t lane() const { return threadIdx.x & (threads() - 1); }
  __device__ int64_t pieces() const { return (corners() + kPiece - 1) / kPiece; }

  // What a point finds at its corners.
  __device__ T at(const T* grid, int64_t n, int64_t point, int64_t channel) const {
    const int64_t first = (n * points + point) * sides;
    T sum = 0;
    for (int k = 0; k < sides; ++k)
      sum = multiply_add(weights[first + k], grid[(n * corners() + vertices[first + k]) * channels + channel], sum);
    return scale * sum;
  }
};

// Sorted corners: `order` says which they are; values are to be multiplied by `before` [samples, points], or not.
template <class T>
__global__ void __launch_bounds__(kFilterThreads) list_corners(OnLattice<T> p, const int64_t* order, const T* before) {
  const int64_t corners = p.corners();
  for (int64_t i = int64_t(blockIdx.x) * kFilterThreads + threadIdx.x; i < p.samples * corners;
       i += int64_t(gridDim.x) * kFilterThreads) {
    const int64_t n = i / corners;
    const int corner = int(order[i]), owner = corner / p.sides;
    p.owners[i] = owner;
    p.shares[i] = p.weights[n * corners + corner] * (before ? before[n * p.points + owner] : T(1));
  }
}

// Where each vertex begins among the sorted corners, and where the last one ends.
template <class T>
__global__ void __launch_bounds__(kFilterThreads) find_starts(OnLattice<T> p) {
  const int64_t corners = p.corners();
  for (int64_t n = 0; n < p.samples; ++n)
    for (int64_t v = int64_t(blockIdx.x) * kFilterThreads + threadIdx.x; v <= p.found(n);
         v += int64_t(gridDim.x) * kFilterThreads) {
      int64_t first = 0, last = corners;
      while (first < last) {
        const int64_t middle = (first + last) / 2;
        if (p.sorted[n * corners + middle] < v)
          first = middle + 1;
        else
          last = middle;
      }
      p.starts[n * (corners + 1) + v] = int(first);
    }
}

// values [samples, points, channels] -> grid [samples, corners, channels]; of what began before a piece, to `parts`
// [samples, pieces, channels].
template <class T>
__global__ void __launch_bounds__(kFilterThreads) splat(OnLattice<T> p, const T* values, T* grid, T* parts) {
  const int64_t corners = p.corners(), pieces = p.pieces(), warps = int64_t(gridDim.x) * kFilterWarps;
  for (int64_t task = int64_t(blockIdx.x) * kFilterWarps + threadIdx.x / 32; task < p.samples * pieces; task += warps) {
    const int64_t n = task / pieces, first = task % pieces * kPiece;
    if (p.found(n) == 0) continue;
    const int size = int(smaller(kPiece, corners - first));
    const int *const sorted = p.sorted + n * corners + first, *const owners = p.owners + n * corners + first;
    const int* const starts = p.starts + n * (corners + 1);
    const T* const shares = p.shares + n * corners + first;
    for (int64_t c = threadIdx.x % 32; c < p.channels; c += 32) {
      const T* const rows = values + n * p.points * p.channels + c;
      for (int at = 0; at < size;) {
        const int vertex = sorted[at], end = int(smaller<int64_t>(starts[vertex + 1] - first, size));
        T sum = 0;
#pragma unroll kAhead
        for (; at < end; ++at) sum = multiply_add(shares[at], rows[owners[at] * p.channels], sum);
        (starts[vertex] < first ? parts + task * p.channels : grid + (n * corners + vertex) * p.channels)[c] = sum;
      }
    }
  }
}

// What vertices have in later pieces than their first; 0 for those that no point has.
template <class T>
__global__ void __launch_bounds__(kFilterThreads) join(OnLattice<T> p, const T* parts, T* grid) {
  const int64_t corners = p.corners();
  for (int64_t n = 0; n < p.samples; ++n)
    for (int64_t v = p.first(); v < p.found(n); v += p.step()) {
      const int* const starts = p.starts + n * (corners + 1) + v;
      T* const row = grid + (n * corners + v) * p.channels;
      for (int64_t c = p.lane(); c < p.channels; c += p.threads()) {
        T sum = starts[0] < starts[1] ? row[c] : T(0);
        for (int64_t piece = starts[0] / kPiece + 1; piece * kPiece < starts[1]; ++piece)
          sum += parts[(n * p.pieces() + piece) * p.channels + c];
        row[c] = sum;
      }
    }
}

// sums [n] of rows and the diagonal, or null -> factors of values and of results, of those sides that are divided, and
// the diagonal of messages. A point whose neighbours weigh less than kAlone of it all keeps its message.
template <class T>
__global__ void __launch_bounds__(kFilterThreads)
    find_factors(const T* sums, T* diagonal, int64_t n, bool divide_before, bool divide_after, T* before, T* after) {
  for (int64_t i = int64_t(blockIdx.x) * kFilterThreads + threadIdx.x; i < n;
       i += int64_t(gridDim.x) * kFilterThreads) {
    T rest = sums[i] + T(1e-20);
    if (diagonal) rest = sums[i] - diagonal[i] > T(kAlone) * sums[i] ? sums[i] - diagonal[i] : T(1);
    const T factor = T(1) / (divide_before && divide_after ? sqrt(rest) : rest);
    before[i] = divide_before ? factor : T(1);
    after[i] = divide_after ? factor : T(1);
    if (diagonal) diagonal[i] *= before[i] * after[i];
  }
}

// Half of both neighbours along an axis is added.
template <class T>
__global__ void __launch_bounds__(kFilterThreads) blur(OnLattice<T> p, int axis, const T* grid, T* blurred) {
  const int64_t corners = p.corners();
  for (int64_t n = 0; n < p.samples; ++n) {
    const int count = int(p.found(n));
    const T* const rows = grid + n * corners * p.channels;
    const int* const neighbours = p.neighbours + (n * p.sides + axis) * corners * 2;
    for (int64_t v = p.first(); v < count; v += p.step()) {
      const int one = neighbours[2 * v], other = neighbours[2 * v + 1];
      for (int64_t c = p.lane(); c < p.channels; c += p.threads()) {
        T both = 0;
        if (one < count) both += rows[one * p.channels + c];
        if (other < count) both += rows[other * p.channels + c];
        blurred[(n * corners + v) * p.channels + c] = multiply_add(T(0.5), both, rows[v * p.channels + c]);
      }
    }
  }
}

// grid -> results [samples, points, channels], times `after` [samples, points], or not; NaN where states are unsound.
template <class T>
__global__ void __launch_bounds__(kFilterThreads, 4) slice(OnLattice<T> p, const T* grid, const T* after, T* results) {
  for (int64_t point = p.first(); point < p.samples * p.points; point += p.step()) {
    const int64_t n = point / p.points;
    for (int64_t c = p.lane(); c < p.channels; c += p.threads()) {
      const T value = p.found(n) ? p.at(grid, n, point - n * p.points, c) : T(NAN);
      results[point * p.channels + c] = after ? after[point] * value : value;
    }
  }
}

}  // namespace fastseg
