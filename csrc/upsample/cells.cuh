// Where the output pixels of a resize lie, for the CUDA kernels of every stem that upsamples.
//
// An output row lies between the source rows lower and lower + 1; the output rows of one lower row are a *cell row*. A
// block takes a cell row and a tile of output columns, a thread one column: for every kRows output rows it interpolates
// the two source rows horizontally and steps down.
#pragma once
#include "../common/kernel.cuh"

namespace fastseg {

constexpr int kThreads = 256;  // of a block: output columns of a tile
constexpr int kRows = 4;       // output rows that a thread holds in registers

// Blocks that a multiprocessor should hold at least: bounds the registers of a thread, without spilling any.
template <class S>
constexpr int kResident = sizeof(Wide<S>) == 8 ? 1 : 3;

// One axis of a resize. Coordinates are exact: quotients of integers.
struct Resample {
  int32_t in, out;  // below 2^30
  bool aligned;     // align_corners

  __device__ int32_t denominator() const { return aligned ? (out > 1 ? out - 1 : 1) : 2 * out; }

  // Where an axis keeps its size each value is its own neighbour: an infinity makes no NaN of the one before it.
  __device__ int32_t upper(int32_t lower) const { return lower + (in != out && lower + 1 < in); }
};

// An output position: between two source indices, with weights of sum 1.
template <class T>
struct Tap {
  int32_t lower, upper;
  T lower_weight, upper_weight;
};

__host__ __device__ inline int64_t quotient(int64_t a, int64_t b) {
  // 32-bit division is several times faster, and nearly always enough.
  return uint64_t(a | b) >> 32 ? a / b : int64_t(uint32_t(a) / uint32_t(b));
}

// The weight of the upper index, where the lower one is known. Beyond its outputs the weight is any finite number.
template <class T>
__device__ inline T upper_weight(const Resample& r, int32_t at, int32_t lower) {
  // Modulo 2^32: of an output of `lower` the remainder is at least -2^30, and below the denominator.
  const uint32_t n = r.aligned ? uint32_t(at) * (r.in - 1) : (2 * uint32_t(at) + 1) * r.in - r.out;
  const int32_t remainder = int32_t(n - uint32_t(lower) * r.denominator());
  return T(larger(remainder, 0)) / T(r.denominator());
}

// Beyond the last output the indices are those of no pixel, and not to be read; the weights are finite.
template <class T>
__device__ inline Tap<T> tap(const Resample& r, int32_t at) {
  const int64_t numerator = r.aligned ? int64_t(at) * (r.in - 1) : (2 * int64_t(at) + 1) * r.in - r.out;
  const int32_t lower = int32_t(quotient(larger<int64_t>(numerator, 0), r.denominator()));
  const T between = upper_weight<T>(r, at, lower);
  return {lower, r.upper(lower), 1 - between, between};
}

// The first output whose lower index is at least `index`, which may be `in`.
__device__ inline int32_t first_of(const Resample& r, int32_t index) {
  if (index <= 0) return 0;
  if (index >= r.in || (r.aligned && r.out == 1)) return r.out;
  const int64_t numerator = r.aligned ? int64_t(index) * (r.out - 1) : (2 * int64_t(index) + 1) * r.out - r.in;
  const int64_t denominator = r.aligned ? r.in - 1 : 2 * int64_t(r.in);
  return int32_t(quotient(larger<int64_t>(numerator, 0) + denominator - 1, denominator));
}

// Source maps [n, c, h, w] of any strides, in elements.
template <class S>
struct Planes {
  const S* data;
  int32_t classes;
  int64_t stride_n, stride_c, stride_y, stride_x;
};

// The blocks of a resize of `images` maps: one for each cell row and tile of columns, columns first.
struct Cells {
  Resample y, x;
  int64_t images;

  __host__ __device__ int64_t tiles() const { return (x.out + kThreads - 1) / kThreads; }
  __host__ __device__ int64_t tasks() const { return images * y.in * tiles(); }
};

// The first of every kRows output rows, for a range-based for.
struct RowGroups {
  struct Step {
    int32_t y;
    __device__ int32_t operator*() const { return y; }
    __device__ void operator++() { y += kRows; }
    __device__ bool operator!=(Step end) const { return y < end.y; }
  };
  int32_t first, stop;
  __device__ Step begin() const { return {first}; }
  __device__ Step end() const { return {stop}; }
};

struct CellTile {
  int64_t image;
  int32_t row, column;  // the source row, the first output column
  int32_t begin, end;   // the output rows

  __device__ CellTile(const Cells& cells, int64_t task) {
    const int64_t tiles = cells.tiles(), cell = quotient(task, tiles);
    image = quotient(cell, cells.y.in);
    row = int32_t(cell - image * cells.y.in);
    column = int32_t(task - cell * tiles) * kThreads;
    begin = first_of(cells.y, row);
    end = first_of(cells.y, row + 1);
  }

  __device__ RowGroups groups() const { return {begin, end}; }
};

// One output column between two source rows: gives the horizontal interpolations of class after class.
template <class S>
struct Column {
  using T = Wide<S>;
  const S *top, *bottom;  // the left pixels
  int64_t right, stride;  // to the pixels on the right, and to the next class
  T left_weight, right_weight;

  __device__ Column(const Planes<S>& p, int64_t image, int32_t above, int32_t below, const Tap<T>& x)
      : top(p.data + image * p.stride_n + above * p.stride_y + x.lower * p.stride_x),
        bottom(p.data + image * p.stride_n + below * p.stride_y + x.lower * p.stride_x),
        right((x.upper - x.lower) * p.stride_x),
        stride(p.stride_c),
        left_weight(x.lower_weight),
        right_weight(x.upper_weight) {}

  __device__ void at(int32_t c, T& above, T& below) const {
    const int64_t left = c * stride;
    above = blend(widen(top[left]), left_weight, widen(top[left + right]), right_weight);
    below = blend(widen(bottom[left]), left_weight, widen(bottom[left + right]), right_weight);
  }
};

}  // namespace fastseg
