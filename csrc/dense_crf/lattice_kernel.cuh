// The permutohedral lattice on a GPU (lattice.h has the law): simplices of points, vertices in a hash table, numbered
// as points first touch them, and their neighbours.
//
// A point takes O(d^2) operations; each of its d + 1 corners two atomics, on integers, so that any order gives the same
// lattice: the key goes into the table, and the least position of a corner that has it stays there. A scan over the
// corners that came first numbers the vertices. Nobody waits for the host: there is room for as many vertices as
// corners, and how many there are is known on the device alone. CUDA C++ and not Triton: a hash table is
// compare-and-swap.
#pragma once
#include "../common/rounding.h"

namespace fastseg {

constexpr int kLatticeThreads = 256;
constexpr int kMostAxes = 8;       // kMostDims
constexpr int64_t kMeasured = 64;  // values of a plane for each thread
constexpr double kFar = 0x1p40;    // keys.h

using Key = unsigned long long;  // wraps around where features are bad
constexpr Key kFree = ~0ull;
constexpr Key kNoVertex = 3ull << 62;  // neither it nor its neighbours are keys of vertices

// Least and largest value of each plane of features, as `ordered` has them.
struct Spans {
  unsigned long long *least, *most;  // [N, d]
  Fault* first;                      // feature that is not finite
};

// Digits of keys (lattice.h), of one sample; zeros where it is bad.
struct Geometry {
  double scale[kMostAxes + 1], least[kMostAxes + 1];
  Key place[kMostAxes + 1], carry;
  int bad;  // features that are not finite, or that no key holds
};

// Doubles as integers in the same order, NaN beyond them.
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

__device__ inline Key hash_of_key(Key key) { return key * 0x9E3779B97F4A7C15ull; }

// The vertex behind a key along an axis, and the one before it.
__device__ inline Key behind(const Geometry& g, Key key, Key sides, int axis) {
  return key + 1 - g.place[axis] + (key % sides == sides - 1 ? g.carry - sides : 0);
}

__device__ inline Key before(const Geometry& g, Key key, Key sides, int axis) {
  return key - 1 + g.place[axis] + (key % sides == 0 ? sides - g.carry : 0);
}

// features [planes, points], each plane by `chunks` blocks.
template <class T>
__global__ void __launch_bounds__(kLatticeThreads)
    measure(const T* features, int64_t planes, int64_t points, int64_t chunks, Spans spans) {
  for (int64_t task = blockIdx.x; task < planes * chunks; task += gridDim.x) {
    const int64_t plane = task / chunks;
    unsigned long long least = ~0ull, most = 0;
    for (int64_t i = task % chunks * kLatticeThreads + threadIdx.x; i < points; i += chunks * kLatticeThreads) {
      const double x = double(features[plane * points + i]);
      if (!finite(x)) note_fault(spans.first, plane * points + i);
      least = smaller(least, ordered(x));
      most = larger(most, ordered(x));
    }
    atomicMin(&spans.least[plane], least);
    atomicMax(&spans.most[plane], most);
  }
}

// Which samples have features that are not finite.
__global__ void __launch_bounds__(kLatticeThreads) find_unfit(Spans spans, int64_t samples, int d, int* unfit) {
  const int64_t n = int64_t(blockIdx.x) * kLatticeThreads + threadIdx.x;
  if (n >= samples) return;
  int bad = 0;
  for (int i = 0; i < d; ++i)
    bad |= !finite(disordered(spans.least[n * d + i])) | !finite(disordered(spans.most[n * d + i]));
  unfit[n] = bad;
}

// keys.h: the place values of what features within these spans can touch.
__global__ void __launch_bounds__(kLatticeThreads)
    find_digits(Spans spans, int64_t samples, int d, Geometry* geometry) {
  const int64_t n = int64_t(blockIdx.x) * kLatticeThreads + threadIdx.x;
  if (n >= samples) return;
  Geometry& g = geometry[n];  // in place: its arrays are indexed
  g = Geometry{};
  const double sides = d + 1;
  double low_sum = 0, high_sum = 0, cells = sides, reach = 0;
  for (int i = d - 1; i >= 0; --i) {
    g.scale[i] = sides * sqrt(2.0 / 3.0) / sqrt(double((i + 1) * (i + 2)));
    const double low = disordered(spans.least[n * d + i]) * g.scale[i];
    const double high = disordered(spans.most[n * d + i]) * g.scale[i];
    low_sum += low;
    high_sum += high;
    reach += larger(-low, high);
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
    g.carry += g.place[i];
    g.place[i + 1] = g.place[i] * Key(int64_t(extent));
  }
  g.place[d] = 0;
  if (!(reach < kFar && cells < 0x1p62)) g = Geometry{{}, {}, {}, 0, 1};
}

// The keys and the weights of the corners around each point. Of bad features the weights are NaN.
template <int d, class T>
__global__ void __launch_bounds__(kLatticeThreads)
    place(const T* features, int64_t samples, int64_t points, const Geometry* geometry, Key* keys, T* weights) {
  constexpr int S = d + 1;
  for (int64_t i = int64_t(blockIdx.x) * kLatticeThreads + threadIdx.x; i < samples * points;
       i += int64_t(gridDim.x) * kLatticeThreads) {
    const int64_t n = i / points, point = i % points;
    const Geometry& g = geometry[n];
    double y[S], sum = 0, shift = 0;
    Key key = 0;
#pragma unroll
    for (int k = d; k >= 1; --k) {
      const double x = g.bad ? 0.0 : double(features[(n * d + k - 1) * points + point]);
      const double c = rounded_product(x, g.scale[k - 1]);
      y[k] = sum - rounded_product(double(k), c);
      sum += c;
    }
    y[0] = sum;
    int rank[S];
#pragma unroll
    for (int k = 0; k < S; ++k) {
      const double nearest = rint(y[k] / double(S));
      shift += nearest;
      y[k] -= double(S) * nearest;
      key += Key(int64_t(nearest - g.least[k])) * g.place[k];
    }
#pragma unroll
    for (int k = 0; k < S; ++k) rank[k] = int(shift);
#pragma unroll
    for (int l = 1; l < S; ++l)
#pragma unroll
      for (int k = 0; k < l; ++k) ++(y[k] < y[l] ? rank[k] : rank[l]);
    double sorted[S];
    int axis[S];
#pragma unroll
    for (int k = 0; k < S; ++k) {
      const int wrap = rank[k] < 0 ? 1 : rank[k] >= S ? -1 : 0;
      rank[k] += S * wrap;
      y[k] = y[k] / double(S) - double(wrap);
      key += Key(int64_t(wrap)) * g.place[k];
    }
#pragma unroll
    for (int r = 0; r < S; ++r)
#pragma unroll
      for (int k = 0; k < S; ++k)
        if (rank[k] == r) {
          sorted[r] = y[k];
          axis[r] = k;
        }
    const double fit = g.bad ? double(NAN) : 1.0;
    keys[i * S] = key;
    weights[i * S] = T(fit * (sorted[d] + (1.0 - sorted[0])));
#pragma unroll
    for (int k = 1; k < S; ++k) {
      key += 1 - g.place[axis[S - k]];
      keys[i * S + k] = key;
      weights[i * S + k] = T(fit * (sorted[d - k] - sorted[S - k]));
    }
  }
}

// Vertices by key: `capacity` slots for each sample, a power of 2.
struct Table {
  Key* keys;    // kFree where there is none
  int* values;  // the first corner of a vertex, then its number
  int64_t capacity;
  int shift;  // that leaves the bits of a slot

  __device__ int64_t home(int64_t n, Key key) const { return n * capacity + int64_t(hash_of_key(key) >> shift); }

  __device__ int64_t next(int64_t n, int64_t slot) const { return n * capacity + (slot - n * capacity + 1) % capacity; }

  // The number of a vertex, or `none`.
  __device__ int find(int64_t n, Key key, int none) const {
    int64_t slot = home(n, key);
    while (keys[slot] != key && keys[slot] != kFree) slot = next(n, slot);
    return keys[slot] == key ? values[slot] : none;
  }
};

// The slot of each corner.
__global__ void __launch_bounds__(kLatticeThreads)
    insert(const Key* keys, int64_t samples, int64_t corners, Table table, int64_t* slots) {
  for (int64_t i = int64_t(blockIdx.x) * kLatticeThreads + threadIdx.x; i < samples * corners;
       i += int64_t(gridDim.x) * kLatticeThreads) {
    const int64_t n = i / corners;
    int64_t slot = table.home(n, keys[i]);
    for (Key old = kFree;; slot = table.next(n, slot)) {
      old = atomicCAS(&table.keys[slot], kFree, keys[i]);
      if (old == kFree || old == keys[i]) break;
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
    number(const Key* keys, const int64_t* slots, const int* first, const int64_t* sums, int64_t samples,
           int64_t corners, Table table, Key* vertex_keys, int64_t* count) {
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

// neighbours [samples, sides, corners, 2], before and behind; `count` where there is none, and beyond the vertices,
// whose keys are kNoVertex.
__global__ void __launch_bounds__(kLatticeThreads)
    find_neighbours(const Key* vertex_keys, const int64_t* count, const Geometry* geometry, int64_t samples, int sides,
                    int64_t corners, Table table, int* neighbours) {
  for (int64_t i = int64_t(blockIdx.x) * kLatticeThreads + threadIdx.x; i < samples * sides * corners;
       i += int64_t(gridDim.x) * kLatticeThreads) {
    const int64_t n = i / corners / sides;
    const int axis = int(i / corners % sides), none = int(count[n]);
    const Key key = vertex_keys[n * corners + i % corners];
    neighbours[2 * i] = table.find(n, before(geometry[n], key, sides, axis), none);
    neighbours[2 * i + 1] = table.find(n, behind(geometry[n], key, sides, axis), none);
  }
}

// Which states [samples] index what is not theirs, as only those do that somebody else wrote.
__global__ void __launch_bounds__(kLatticeThreads)
    find_unsound(const int* vertices, const int* neighbours, const int64_t* count, int64_t samples, int sides,
                 int64_t corners, int* unsound) {
  for (int64_t i = int64_t(blockIdx.x) * kLatticeThreads + threadIdx.x; i < samples * corners;
       i += int64_t(gridDim.x) * kLatticeThreads) {
    const int64_t n = i / corners;
    bool sound = count[n] <= corners && unsigned(vertices[i]) < count[n];
    for (int axis = 0; axis < sides; ++axis) {
      const int* const beside = neighbours + ((n * sides + axis) * corners + i % corners) * 2;
      sound = sound && unsigned(beside[0]) <= count[n] && unsigned(beside[1]) <= count[n];
    }
    if (!sound) atomicOr(&unsound[n], 1);
  }
}

// What the kernel takes from each point to itself, [samples, points]: the corners of its simplex follow each other
// along an axis each, and all axes together lead back, so that there are two ways from one corner to another.
template <class T>
__global__ void __launch_bounds__(kLatticeThreads)
    find_diagonal(const int* vertices, const T* weights, const int* neighbours, const int64_t* count,
                  const int* unsound, int64_t samples, int64_t points, int sides, T scale, T* diagonal) {
  const int64_t corners = points * sides;
  for (int64_t i = int64_t(blockIdx.x) * kLatticeThreads + threadIdx.x; i < samples * points;
       i += int64_t(gridDim.x) * kLatticeThreads) {
    const int64_t n = i / points;
    const int* const mine = vertices + i * sides;
    const int* const beside = neighbours + n * sides * corners * 2;
    if (unsound && unsound[n]) {
      diagonal[i] = T(NAN);
      continue;
    }
    uint64_t along = 0;  // 4 bits for each corner but the last: the axis to the next one
    for (int k = 1; k < sides; ++k) {
      int axis = 0;
      while (axis + 1 < sides && beside[(axis * corners + mine[k - 1]) * 2 + 1] != mine[k]) ++axis;
      along |= uint64_t(axis) << 4 * (k - 1);
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
          for (int axis = 0; axis < sides && at < count[n]; ++axis)
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
