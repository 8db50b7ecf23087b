// How backwards walk the output pixels and gather at the source, for adjoint_kernel.cpp and other stems.
#pragma once
#include "progression.h"

namespace fastseg {
namespace {

// Output pixels [x0, x1) x [y0, y1) of one cell row; at most kTile x kTileRows.
template <class T>
struct Tile {
  int64_t image, x0, x1, y0, y1;
};

// a0 b0 c0 d0 a1 b1 c1 d1 ... of four rows, kWidth apart; rows from `classes` on repeat the first one.
template <int64_t kWidth, class T>
void interleave(const T* rows, int64_t classes, int64_t n, T* out) {
  constexpr int L = Simd<T>::lanes;
  const T* from[kTogether];
  for (int64_t k = 0; k < kTogether; ++k) from[k] = k < classes ? rows + k * kWidth : rows;
  T even[2 * L], odd[2 * L];
  for (int64_t at = 0; at < n; at += L, out += 4 * L) {
    store_pairs<T>(even, load(from[0] + at), load(from[2] + at));
    store_pairs<T>(odd, load(from[1] + at), load(from[3] + at));
    store_pairs<T>(out, load(even), load(odd));
    store_pairs<T>(out + 2 * L, load(even + L), load(odd + L));
  }
}

// Adds the columns [x0, x1) of `classes` maps, kWidth apart, to a source row of each class, `stride` apart.
template <int64_t kWidth, class T>
void gather(const Axis<T>& x, int64_t x0, int64_t x1, const T* sums, int64_t classes, T* row, int64_t stride) {
  using Four = typename Narrow<T, kTogether>::type;
  T columns[kTogether * kWidth];
  for (int64_t c = 0; c < classes; c += kTogether, sums += kTogether * kWidth, row += kTogether * stride) {
    const int64_t count = least(kTogether, classes - c);
    interleave<kWidth>(sums, count, x1 - x0, columns);
    const T* from = columns;
    for (int64_t at = x0; at < x1;) {
      const int64_t i = x.lower[at], j = x.upper[at], stop = least(x.first[i + 1], x1);
      Four left[2] = {}, right[2] = {};  // two chains each: the additions are what takes time
      const auto add = [&](int chain) {
        Four v;
        memcpy(&v, from, sizeof v);
        left[chain] += v * x.lower_weight[at];
        right[chain] += v * x.upper_weight[at];
        ++at;
        from += kTogether;
      };
      while (at + 2 <= stop) {
        add(0);
        add(1);
      }
      if (at < stop) add(0);
      left[0] += left[1];
      right[0] += right[1];
      for (int64_t k = 0; k < count; ++k) {
        row[k * stride + i] += left[0][k];
        row[k * stride + j] += right[0][k];
      }
    }
  }
}

// Walks a chunk in strips of kWidth columns: sum(cell row, x0, x1, above, below) adds the output rows of a cell row,
// weighted, to the sums [c1 - c0, kWidth] for the source rows above and below them.
template <int64_t kWidth, class T, class Sum>
void each_strip(const Adjoint<T>& p, int64_t index, int64_t c0, int64_t c1, T* scratch, const Sum& sum) {
  const int64_t image = index / p.chunks, chunk = index % p.chunks, classes = c1 - c0, plane = p.y.in * p.x.in;
  const int64_t first = chunk * p.chunk, last = least(first + p.chunk, p.y.in);
  const size_t bytes = classes * kWidth * sizeof(T);
  T* grad = p.grad + (image * p.c + c0) * plane;
  for (int64_t x0 = 0; x0 < p.x.out; x0 += kWidth) {
    const int64_t x1 = least(x0 + kWidth, p.x.out);
    T *above = scratch, *below = above + classes * kWidth;
    bool carried = false;  // whether the cell row before this one left sums
    for (int64_t r = first; r < last; ++r) {
      const CellRow<T> cell(p.y, image * p.y.in + r);
      const bool filled = cell.begin < cell.end;
      if (filled && !carried) memset(above, 0, bytes);
      if (filled) {
        memset(below, 0, bytes);
        sum(cell, x0, x1, above, below);
      }
      if (filled || carried) gather<kWidth>(p.x, x0, x1, above, classes, grad + r * p.x.in, plane);
      carried = filled && cell.below != r;
      if (filled && !carried) gather<kWidth>(p.x, x0, x1, below, classes, grad + r * p.x.in, plane);
      exchange(above, below);
    }
    if (carried) gather<kWidth>(p.x, x0, x1, above, classes, p.edge + (index * p.c + c0) * p.x.in, p.x.in);
  }
}

// Sums all classes tile by tile: prepare(tile, cell row), then add(tile, cell row, class, above, below) takes a class
// of the tile.
template <class T, class Prepare, class Add>
void each_tile(const Adjoint<T>& p, int64_t index, const Prepare& prepare, const Add& add) {
  each_strip<kTile>(p, index, 0, p.c, p.scratch,
                    [&](const CellRow<T>& cell, int64_t x0, int64_t x1, T* above, T* below) {
                      for (int64_t y = cell.begin; y < cell.end; y += kTileRows) {
                        const Tile<T> tile{cell.image, x0, x1, y, least(y + kTileRows, cell.end)};
                        prepare(tile, cell);
                        for (int64_t c = 0; c < p.c; ++c) add(tile, cell, c, above + c * kTile, below + c * kTile);
                      }
                    });
}

// One vector of columns of the sums above and below; add(gradient, row) weights a row of it.
template <class T>
struct Column {
  const Axis<T>& y;
  T *above, *below;
  V<T> up, down;

  Column(const Axis<T>& y_, T* above_, T* below_)
      : y(y_), above(above_), below(below_), up(load(above)), down(load(below)) {}
  ~Column() {
    store(above, up);
    store(below, down);
  }
  void add(V<T> g, int64_t row) {
    up += g * y.lower_weight[row];
    down += g * y.upper_weight[row];
  }
};

template <int n>
struct Count {
  static constexpr int value = n;
};

// The differences of a source row at the columns of a tile, and for each vector of them whether they fit.
template <class T>
struct Across {
  static constexpr int L = Simd<T>::lanes;
  T* value;  // [c, kTile]
  int64_t row, x0;
  bool fits[kTile / L];

  void fill(const Adjoint<T>& p, const Tile<T>& tile, int64_t row_) {
    if (row == row_ && x0 == tile.x0) return;
    row = row_;
    x0 = tile.x0;
    const T* from = p.source.data + tile.image * p.source.stride_n + row * p.source.stride_y;
    for (int64_t x = 0; x < tile.x1 - x0; x += L) {
      Reach<T> reach;
      differences(from, p.source.stride_c, p.c, columns(p.x, x0 + x), value + x, kTile, reach);
      fits[x / L] = reach.fits();
    }
  }
};

}  // namespace
}  // namespace fastseg
