// The permutohedral lattice on a GPU (lattice.h has the law): simplices of points, vertices in a hash table, numbered
// as points first touch them, and their neighbours.
//
// A point takes O(d^2) operations; each of its d + 1 corners two atomics, on integers, so that any order gives the same
// lattice: the key goes into the table, and the least position of a corner that has it stays there. A scan over the
// corners that came first numbers the vertices. Nobody waits for the host: there is room for as many vertices as
// corners, and how many there are is known on the device alone. CUDA C++ and not Triton: a hash table is
// compare-and-swap.
#pragma once
#include "../../common/kernel.cuh"

namespace fastseg {

constexpr int kLatticeThreads = 256;
constexpr int kMostAxes = 8;       // kMostDims
constexpr int64_t kMeasured = 16;  // values of a plane for each thread
constexpr unsigned long long kFree = ~0ull;

// Least and largest value of each plane of features, as `ordered` has them, and whether all are finite.
struct Spans {
  unsigned long long *least, *most;  // [N, d]
  int* bad;                          // [N]
  Fault* first;                      // feature that is not finite
};

// Digits of keys (lattice.h), of one sample.
struct Geometry {
  double scale[kMostAxes], least[kMostAxes];
  int64_t place[kMostAxes + 1], carry;
  int bad;  // features that are not finite, or that no key of 62 bits holds
};

// Doubles as integers in the same order.
__device__ inline unsigned long long ordered(double x) {
  unsigned long long bits;
  memcpy(&bits, &x, sizeof bits);
  return bits >> 63 ? ~bits : bits | 1ull << 63;
}

__device__ inline double disordered(unsigned long long bits) {
  bits = bits >> 63 ? bits & ~(1ull << 63) : ~bits;
  double x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

__device__ inline unsigned long long hash_of_key(int64_t key) { return uint64_t(key) * 0x9E3779B97F4A7C15ull; }

// The vertex behind a key along an axis, and the one before it.
__device__ inline int64_t behind(const Geometry& g, int64_t key, int sides, int axis) {
  return key + 1 - g.place[axis] + (key % sides == sides - 1 ? g.carry - sides : 0);
}

__device__ inline int64_t before(const Geometry& g, int64_t key, int sides, int axis) {
  return key - 1 + g.place[axis] + (key % sides == 0 ? sides - g.carry : 0);
}

// features [planes, points], `axes` planes of each sample.
template <class T>
__global__ void __launch_bounds__(kLatticeThreads)
    measure(const T* features, int64_t planes, int axes, int64_t points, Spans spans) {
  constexpr int64_t kChunk = kLatticeThreads * kMeasured;
  const int64_t chunks = (points + kChunk - 1) / kChunk;
  for (int64_t task = blockIdx.x; task < planes * chunks; task += gridDim.x) {
    const int64_t plane = task / chunks, first = task % chunks * kChunk;
    unsigned long long least = kFree, most = 0;
    int bad = 0;
    for (int64_t i = first + threadIdx.x; i < first + kChunk && i < points; i += kLatticeThreads) {
      const double x = double(features[plane * points + i]);
      if (!finite(x)) {
        bad = 1;
        note_fault(spans.first, plane * points + i);
      }
      least = smaller(least, ordered(x));
      most = larger(most, ordered(x));
    }
    for (int by = 16; by > 0; by /= 2) {
      least = smaller(least, __shfl_xor_sync(kWarp, least, by));
      most = larger(most, __shfl_xor_sync(kWarp, most, by));
      bad |= __shfl_xor_sync(kWarp, bad, by);
    }
    if (threadIdx.x % 32 != 0) continue;
    atomicMin(&spans.least[plane], least);
    atomicMax(&spans.most[plane], most);
    if (bad) atomicOr(&spans.bad[plane / axes], 1);
  }
}

// keys.h: the place values of what features within these spans can touch.
__global__ void __launch_bounds__(kLatticeThreads)
    find_digits(Spans spans, int64_t samples, int d, Geometry* geometry) {
  const int64_t n = int64_t(blockIdx.x) * kLatticeThreads + threadIdx.x;
  if (n >= samples) return;
  Geometry& g = geometry[n];  // in place: its arrays are indexed
  g.bad = spans.bad[n];
  g.carry = 0;
  const double sides = d + 1;
  double low_sum = 0, high_sum = 0, cells = sides;
  for (int i = d - 1; i >= 0; --i) {
    g.scale[i] = sides * sqrt(2.0 / 3.0) / sqrt(double((i + 1) * (i + 2)));
    low_sum += disordered(spans.least[n * d + i]) * g.scale[i];
    high_sum += disordered(spans.most[n * d + i]) * g.scale[i];
  }
  g.place[0] = d + 1;
  double low = 0, high = 0;  // of the feature before
  for (int i = 0; i < d; ++i) {
    low_sum -= low;
    high_sum -= high;
    g.least[i] = floor((low_sum - double(i) * high) / sides) - 4;
    const double extent = ceil((high_sum - double(i) * low) / sides) + 5 - g.least[i];
    low = disordered(spans.least[n * d + i]) * g.scale[i];
    high = disordered(spans.most[n * d + i]) * g.scale[i];
    cells *= extent;
    if (!(cells < 0x1p62)) g.bad = 1;
    g.carry += g.place[i];
    g.place[i + 1] = g.bad || i + 1 == d ? 0 : g.place[i] * int64_t(extent);
  }
}

// The keys and the weights of the corners around each point. Of bad features the weights are NaN.
template <int d, class T>
__global__ void __launch_bounds__(kLatticeThreads)
    place(const T* features, int64_t samples, int64_t points, const Geometry* geometry, int64_t* keys, T* weights) {
  constexpr int S = d + 1;
  for (int64_t i = int64_t(blockIdx.x) * kLatticeThreads + threadIdx.x; i < samples * points;
       i += int64_t(gridDim.x) * kLatticeThreads) {
    const int64_t n = i / points, point = i % points;
    const Geometry& g = geometry[n];
    double y[S], sum = 0, shift = 0;
    int64_t key = 0;
#pragma unroll
    for (int k = d; k >= 1; --k) {
      const double c = double(features[(n * d + k - 1) * points + point]) * g.scale[k - 1];
      y[k] = sum - double(k) * c;
      sum += c;
    }
    y[0] = sum;
    int rank[S];
#pragma unroll
    for (int k = 0; k < S; ++k) {
      const double nearest = rint(y[k] / double(S));
      shift += nearest;
      y[k] -= double(S) * nearest;
      if (k < d && !g.bad) key += int64_t(nearest - g.least[k]) * g.place[k];
    }
#pragma unroll
    for (int k = 0; k < S; ++k) rank[k] = g.bad ? 0 : int(shift);
#pragma unroll
    for (int k = 0; k < S; ++k)
#pragma unroll
      for (int l = k + 1; l < S; ++l) ++(y[k] < y[l] ? rank[k] : rank[l]);
    double sorted[S];
    int axis[S];
#pragma unroll
    for (int k = 0; k < S; ++k) {
      const int wrap = rank[k] < 0 ? 1 : rank[k] >= S ? -1 : 0;
      rank[k] += S * wrap;
      y[k] = y[k] / double(S) - double(wrap);
      if (k < d && !g.bad) key += wrap * g.place[k];
    }
#pragma unroll
    for (int r = 0; r < S; ++r)
#pragma unroll
      for (int k = 0; k < S; ++k)
        if (rank[k] == r) {
          sorted[r] = y[k];
          axis[r] = k;
        }
    const T bad = g.bad ? T(NAN) : T(0);
    keys[i * S] = key;
    weights[i * S] = g.bad ? bad : T(sorted[d] + (1.0 - sorted[0]));
#pragma unroll
    for (int k = 1; k < S; ++k) {
      key += g.bad ? 0 : 1 - g.place[axis[S - k]];
      keys[i * S + k] = key;
      weights[i * S + k] = g.bad ? bad : T(sorted[d - k] - sorted[S - k]);
    }
  }
}

// Vertices by key: `capacity` slots for each sample, a power of 2.
struct Table {
  unsigned long long* keys;  // kFree where there is none
  int* values;               // the first corner of a vertex, then its number
  int64_t capacity;
  int shift;  // that leaves the bits of a slot

  __device__ int64_t home(int64_t n, int64_t key) const { return n * capacity + int64_t(hash_of_key(key) >> shift); }

  __device__ int64_t next(int64_t n, int64_t slot) const { return n * capacity + (slot - n * capacity + 1) % capacity; }

  // The number of a vertex, or -1.
  __device__ int find(int64_t n, int64_t key) const {
    for (int64_t slot = home(n, key);; slot = next(n, slot)) {
      if (keys[slot] == (unsigned long long)key) return values[slot];
      if (keys[slot] == kFree) return -1;
    }
  }
};

// The slot of each corner.
__global__ void __launch_bounds__(kLatticeThreads)
    insert(const int64_t* keys, int64_t samples, int64_t corners, Table table, int64_t* slots) {
  for (int64_t i = int64_t(blockIdx.x) * kLatticeThreads + threadIdx.x; i < samples * corners;
       i += int64_t(gridDim.x) * kLatticeThreads) {
    const int64_t n = i / corners;
    const unsigned long long key = (unsigned long long)keys[i];
    int64_t slot = table.home(n, keys[i]);
    for (unsigned long long old = kFree;; slot = table.next(n, slot)) {
      old = atomicCAS(&table.keys[slot], kFree, key);
      if (old == kFree || old == key) break;
    }
    atomicMin(&table.values[slot], int(i % corners));
    slots[i] = slot;
  }
}

// Whether each corner is the first of its vertex.
__global__ void __launch_bounds__(kLatticeThreads)
    mark(const int64_t* slots, int64_t samples, int64_t corners, Table table, int* first) {
  for (int64_t i = int64_t(blockIdx.x) * kLatticeThreads + threadIdx.x; i < samples * corners;
       i += int64_t(gridDim.x) * kLatticeThreads)
    first[i] = table.values[slots[i]] == int(i % corners);
}

// Numbers from the sums of `first` up to each corner; keys of the vertices, and how many there are.
__global__ void __launch_bounds__(kLatticeThreads)
    number(const int64_t* keys, const int64_t* slots, const int* first, const int64_t* sums, int64_t samples,
           int64_t corners, Table table, int64_t* vertex_keys, int64_t* count) {
  for (int64_t i = int64_t(blockIdx.x) * kLatticeThreads + threadIdx.x; i < samples * corners;
       i += int64_t(gridDim.x) * kLatticeThreads) {
    const int64_t n = i / corners;
    if (first[i]) {
      vertex_keys[n * corners + sums[i] - 1] = keys[i];
      table.values[slots[i]] = int(sums[i] - 1);
    }
    if (i % corners == corners - 1) count[n] = sums[i];
  }
}

__global__ void __launch_bounds__(kLatticeThreads)
    name_corners(const int64_t* slots, int64_t samples, int64_t corners, Table table, int* vertices) {
  for (int64_t i = int64_t(blockIdx.x) * kLatticeThreads + threadIdx.x; i < samples * corners;
       i += int64_t(gridDim.x) * kLatticeThreads)
    vertices[i] = table.values[slots[i]];
}

// neighbours [samples, sides, corners, 2], before and behind; `count` where there is none, and beyond the vertices.
__global__ void __launch_bounds__(kLatticeThreads)
    find_neighbours(const int64_t* vertex_keys, const int64_t* count, const Geometry* geometry, int64_t samples,
                    int sides, int64_t corners, Table table, int* neighbours) {
  for (int64_t i = int64_t(blockIdx.x) * kLatticeThreads + threadIdx.x; i < samples * sides * corners;
       i += int64_t(gridDim.x) * kLatticeThreads) {
    const int64_t n = i / corners / sides, v = i % corners;
    const int axis = int(i / corners % sides), none = int(count[n]);
    for (int side = 0; side < 2; ++side) {
      int found = -1;
      if (v < none && !geometry[n].bad) {
        const int64_t key = vertex_keys[n * corners + v];
        found = table.find(n, side ? behind(geometry[n], key, sides, axis) : before(geometry[n], key, sides, axis));
      }
      neighbours[2 * i + side] = found >= 0 ? found : none;
    }
  }
}

// What the kernel takes from each point to itself, [samples, points]: the corners of its simplex follow each other
// along an axis each, and all axes together lead back, so that there are two ways from one corner to another.
template <class T>
__global__ void __launch_bounds__(kLatticeThreads)
    find_diagonal(const int* vertices, const T* weights, const int* neighbours, const int64_t* count, int64_t samples,
                  int64_t points, int sides, T scale, T* diagonal) {
  const int64_t corners = points * sides;
  for (int64_t i = int64_t(blockIdx.x) * kLatticeThreads + threadIdx.x; i < samples * points;
       i += int64_t(gridDim.x) * kLatticeThreads) {
    const int64_t n = i / points;
    const int* const mine = vertices + i * sides;
    const int* const beside = neighbours + n * sides * corners * 2;
    const int none = int(smaller(larger<int64_t>(0, count[n]), corners));
    bool known = true;  // of a state that no lattice has: NaN for a vertex that is none
    for (int k = 0; k < sides; ++k) known &= unsigned(mine[k]) < unsigned(none);
    if (!known) {
      diagonal[i] = T(NAN);
      continue;
    }
    uint64_t along = 0;  // 4 bits for each corner: the axis to the next one
    unsigned used = 0;
    for (int k = 0; k < sides; ++k) {
      int axis = 0;
      const bool last = k + 1 == sides;
      while (axis + 1 < sides && (last ? used >> axis & 1 : beside[(axis * corners + mine[k]) * 2 + 1] != mine[k + 1]))
        ++axis;
      used |= 1u << axis;
      along |= uint64_t(axis) << 4 * k;
    }
    double sum = 0;
    for (int a = 0; a < sides; ++a)
      for (int b = 0; b < sides; ++b) {
        unsigned there = 0;  // the axes between both corners
        for (int k = smaller(a, b); k < larger(a, b); ++k) there |= 1u << (along >> 4 * k & 15);
        double shares = 0;
        // By the axes between them; by the others, the other way round; around once, and back.
        for (int way = 0; way < (a == b ? 3 : 2); ++way) {
          const unsigned steps = way == 0 ? there : ~there;
          const int behind = way == 0 ? a < b : way == 1 ? a >= b : 0;
          int at = mine[a];
          double share = 1;
          for (int axis = 0; axis < sides && unsigned(at) < unsigned(none); ++axis)
            if (steps >> axis & 1) {
              at = beside[(axis * corners + at) * 2 + behind];
              share /= 2;
            }
          if (at == mine[b]) shares += share;
        }
        sum += shares * double(weights[i * sides + a]) * double(weights[i * sides + b]);
      }
    diagonal[i] = scale * T(sum);
  }
}

}  // namespace fastseg
