// Vectors of columns of a cell row, all classes of them, for softmax_kernel.cpp and what else sums over classes.
#pragma once
#include "progression.h"

namespace fastseg {
namespace {

// The classes of one vector of columns: at the two source rows, less the largest of each, then at output rows.
template <class T>
struct Block {
  static constexpr int L = Simd<T>::lanes;
  const Softmax<T>& p;
  const CellRow<T>& cell;
  T *top, *bottom, *value;  // [c, lanes], the last [c, kRows, lanes]
  bool fits = false;        // whether the exponentials of all values are normal numbers

  Block(const Softmax<T>& p_, const CellRow<T>& cell_, T* scratch)
      : p(p_), cell(cell_), top(scratch), bottom(top + p.source.c * L), value(bottom + p.source.c * L) {}

  void across(int64_t x) {
    const Maps<T>& s = p.source;
    const T* image = s.data + cell.image * s.stride_n;
    const Columns<T> k = columns(p.x, x);
    Reach<T> reach;
    differences(image + cell.row * s.stride_y, s.stride_c, s.c, k, top, int64_t(L), reach);
    differences(image + cell.below * s.stride_y, s.stride_c, s.c, k, bottom, int64_t(L), reach);
    fits = reach.fits();
  }

  V<T> between(const V<T>& above, const V<T>& below, int64_t y) const {
    return blend<T>(above, splat(p.y.lower_weight[y]), below, splat(p.y.upper_weight[y]));
  }

  // Interpolates row y; returns what to subtract before the exponentials: nothing where the values fit, else the
  // largest.
  V<T> row(int64_t y) const {
    const int64_t stop = p.source.c * L;  // a local: the stores below could alias the parameters
    V<T> most = between(load(top), load(bottom), y);
    store(value, most);
    for (int64_t i = L; i < stop; i += L) {
      const V<T> v = between(load(top + i), load(bottom + i), y);
      store(value + i, v);
      most = maximum<T>(most, v);
    }
    return fits ? V<T>{} : most;
  }

  // Sum of exp(value - reference); kKeep stores the terms.
  template <bool kKeep>
  V<T> sum(V<T> reference) const {
    const int64_t stop = p.source.c * L;
    V<T> total = {}, even = {};  // two sums: half the round-off, and no wait for the last addition
    for (int64_t i = 0; i < stop; i += L) {
      const V<T> e = exponential(load(value + i) - reference);
      if (kKeep) store(value + i, e);
      const V<T> next = even + e;
      even = total;
      total = next;
    }
    return total + even;
  }

  // For each row of a run the sum of exp(value).
  template <int R, bool kKeep>
  void sums(const Run<T>& run, V<T>* total) const {
    const T wa = p.y.lower_weight[run.y], wb = p.y.upper_weight[run.y], step = run.step;
    const int64_t classes = p.source.c;
    const T *above = top, *below = bottom;
    T* keep = value;
    V<T> sum[R] = {};
    for (int64_t c = 0; c < classes; ++c, above += L, below += L, keep += R * L) {
      const V<T> a = load(above), b = load(below);
      V<T> terms[R];
      progression<T, R>(exponential_within(a * wa + b * wb), exponential_within((b - a) * step), terms);
#pragma GCC unroll 8
      for (int j = 0; j < R; ++j) {
        if (kKeep) store(keep + j * L, terms[j]);
        sum[j] += terms[j];
      }
    }
#pragma GCC unroll 8
    for (int j = 0; j < R; ++j) total[j] = sum[j];
  }

  bool progressive(const Run<T>& run) const { return fits && run.n >= kShortestRun; }

  template <bool kKeep>
  void sums(const Run<T>& run, V<T>* total) const {
    run.n > 4 ? sums<kRows, kKeep>(run, total) : sums<4, kKeep>(run, total);
  }
};

// Calls use(block, run, x, lanes) for the runs of rows of each vector of columns, whose source rows are interpolated.
template <class T, class Use>
void each_run(const Softmax<T>& p, int64_t index, const Use& use) {
  constexpr int L = Simd<T>::lanes;
  const CellRow<T> cell(p.y, index);
  Block<T> block(p, cell, p.scratch);
  for (int64_t x = 0; x < p.x.out && cell.begin < cell.end; x += L) {
    block.across(x);
    for (int64_t y = cell.begin; y < cell.end;) {
      const Run<T> run = run_from(p.y, y, cell.end);
      use(block, run, x, least(L, p.x.out - x));
      y += run.n;
    }
  }
}

// n labels as the integer lanes of T; lanes beyond n are `fill`.
template <class T>
I<T> load_labels(const void* labels, Int type, int64_t at, int64_t n, int32_t fill) {
  constexpr int L = Simd<T>::lanes;
  int32_t lanes[L];
  const char* from = (const char*)labels + at * size_of(type);
  if (n == L) {
    widen_labels(from, type, L, lanes);
  } else {
    for (int l = 0; l < L; ++l) lanes[l] = fill;
    widen_labels(from, type, n, lanes);
  }
  return load_index<T>(lanes);
}

}  // namespace
}  // namespace fastseg
