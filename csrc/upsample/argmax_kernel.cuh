// Argmax of bilinearly upsampled logits: the corner argument of docs/ops/upsample.md.
//
// Inside a cell every class is a convex combination of its four corners with the same weights, so a class that wins at
// all four wins in the whole cell. Labels of the source pixels of a tile are found first, in shared memory; a warp
// whose columns all lie in agreeing cells stores labels and interpolates nothing. Other warps start from a corner's
// winner and leave out every class that lies below the current best of all their pixels, and of the kRows - 1 rows at
// most that a group counts beyond its cell.
//
// Reads 4 C h w bytes of float32 (each source row is read by two cell rows, the second time from the L2 cache) and
// writes one label for each output pixel; agreeing cells take about 4 instructions for each pixel, contested ones 2
// multiply-adds and a comparison for each class that is left. CUDA C++ and not Triton: the test is one vote of a warp,
// and Triton has no warps.
#pragma once
#include "cells.cuh"

namespace fastseg {

constexpr int kCorners = 2 * (kThreads / 2 + 2);  // source pixels of a tile, where columns are at least doubled

template <class S>
struct Argmax {
  Planes<S> logits;
  Cells cells;
  bool corners;  // whether the shortcut pays; columns are at least doubled then
};

// Where labels go: stored.
struct StoreLabels {
  void* labels;  // [n, H, W]
  Int type;
  __device__ void begin() const {}
  __device__ void put(int64_t at, int32_t label) const { store_label(labels, type, at, label); }
  __device__ void end() const {}
};

// The winner at a source pixel, or -1 where a class is not finite.
template <class S>
__device__ inline int32_t winner(const Planes<S>& p, const S* pixel) {
  using T = Wide<S>;
  T best = widen(pixel[0]);
  bool all = finite(best);
  int32_t label = 0;
  for (int32_t c = 1; c < p.classes; ++c) {
    const T v = widen(pixel[c * p.stride_c]);
    all &= finite(v);
    if (v > best) {
      best = v;
      label = c;
    }
  }
  return all ? label : -1;
}

// Labels of kRows output rows of one column, from the class `start`, or in order where that is -1. Every lane of a warp
// takes part.
template <class S>
__device__ inline void contest(const Column<S>& column, int32_t classes, int32_t start, const Wide<S> (&weight)[kRows],
                               int32_t (&label)[kRows]) {
  using T = Wide<S>;
  T best[kRows], above, below;
  const bool started = __all_sync(kWarp, start != -1);
  if (started) column.at(start, above, below);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    best[r] = started ? blend(above, 1 - weight[r], below, weight[r]) : T(-INFINITY);
    label[r] = started ? start : 0;
  }
  for (int32_t c = 0; c < classes; ++c) {
    column.at(c, above, below);
    T least = best[0];
#pragma unroll
    for (int r = 1; r < kRows; ++r) least = smaller(least, best[r]);
    // A value between the two is at most the larger one; but below an infinity there may be NaN, which wins.
    // Above one there is none: the weight there is 0 only for heights of 2^24 and more, where -inf is the exact value.
    if (__all_sync(kWarp, larger(above, below) < least && finite(below))) continue;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const T v = blend(above, 1 - weight[r], below, weight[r]);
      // The lowest class of equals, and the first NaN, as torch.argmax.
      const bool wins = v > best[r] || (v == best[r] && c < label[r]) || (v != v && best[r] == best[r]);
      best[r] = wins ? v : best[r];
      label[r] = wins ? c : label[r];
    }
  }
}

template <class S, class Sink>
__global__ void __launch_bounds__(kThreads, kResident<S>) argmax(const Argmax<S> p, Sink sink) {
  using T = Wide<S>;
  FASTSEG_SHARED(int32_t, corner, kCorners);
  sink.begin();
  for (int64_t task = blockIdx.x; task < p.cells.tasks(); task += gridDim.x) {
    const CellTile tile(p.cells, task);
    const int32_t below = tap<T>(p.cells.y, tile.begin).upper, width = p.cells.x.out;
    const int32_t x = tile.column + int32_t(threadIdx.x);
    const Tap<T> across = tap<T>(p.cells.x, smaller(x, width - 1));
    const int32_t last = smaller(tile.column + kThreads, width) - 1;
    const int32_t left = tap<T>(p.cells.x, tile.column).lower, span = tap<T>(p.cells.x, last).upper - left + 1;
    int32_t agreed = -1, start = -1;
    if (p.corners) {
      __syncthreads();  // the tile before this one has been read
      for (int32_t k = threadIdx.x; k < 2 * span; k += kThreads) {
        const int32_t y = k < span ? tile.row : below, column = left + (k < span ? k : k - span);
        corner[k] = winner(p.logits, p.logits.data + tile.image * p.logits.stride_n + y * p.logits.stride_y +
                                         column * p.logits.stride_x);
      }
      __syncthreads();
      const int32_t a = corner[across.lower - left], b = corner[across.upper - left];
      const int32_t c = corner[span + across.lower - left], d = corner[span + across.upper - left];
      agreed = a == b && a == c && a == d ? a : -1;
      start = (b | c | d) != -1 ? a : -1;  // none of them is -1
    }
    const bool settled = __all_sync(kWarp, agreed != -1);
    const Column<S> column(p.logits, tile.image, tile.row, below, across);
    for (const int32_t y : tile.groups()) {
      int32_t label[kRows];
      T weight[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        label[r] = agreed;
        weight[r] = settled ? T(0) : upper_weight<T>(p.cells.y, y + r, tile.row);
      }
      if (!settled) contest(column, p.logits.classes, start, weight, label);
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        if (x < width && y + r < tile.end) sink.put((tile.image * p.cells.y.out + y + r) * width + x, label[r]);
    }
  }
  sink.end();
}

}  // namespace fastseg
