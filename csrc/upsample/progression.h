// Exponentials of values that change linearly from row to row are a geometric progression: two exponentials and a
// multiplication per row instead of an exponential per row.
#pragma once
#include "columns.h"

namespace fastseg {
namespace {

// Output rows [y, y + n) of a cell row, whose weight of the row below grows by `step`.
template <class T>
struct Run {
  int64_t y, n;
  T step;
};

// The run of at most kRows rows from y on. Within a cell row the weights are equidistant, except at the upper border,
// where the first ones are clamped to 0.
template <class T>
inline Run<T> run_from(const Axis<T>& axis, int64_t y, int64_t stop) {
  const T* w = axis.upper_weight + y;
  int64_t n = 1;
  while (n < kRows && y + n < stop && w[0] == 0 && w[n] == 0) ++n;
  if (n > 1) return {y, n, T(0)};
  n = least(kRows, stop - y);
  const T step = n > 1 ? (w[n - 1] - w[0]) / T(n - 1) : T(0), off = n > 1 ? w[1] - w[0] - step : T(0);
  return off < T(1e-6) && -off < T(1e-6) ? Run<T>{y, n, step} : Run<T>{y, 1, T(0)};
}

// Shorter runs do not pay.
constexpr int64_t kShortestRun = 3;

// Exponents of a progression start and end in [-kExponents, 0]: nothing in between is subnormal, and no power of the
// ratio that a run needs overflows.
constexpr int kExponents = 80;

// What can be subtracted without making a NaN.
template <class T>
inline V<T> finite_or_zero(V<T> v) {
  return v - v == V<T>{} ? v : V<T>{};
}

// Whether differences from a largest value are all finite and within kExponents.
template <class T>
struct Reach {
  V<T> lowest = {}, probe = {};  // the sum is finite where all are

  void add(V<T> difference) {
    lowest = minimum<T>(lowest, difference);
    probe += difference;
  }
  bool fits() const { return !any<T>((lowest < T(-kExponents)) | (probe - probe != V<T>{})); }
};

// Interpolates a source row at a vector of columns, less its largest class: out [classes, apart]. Forward and backward
// both call this, so that the one finds the floats of the other.
template <class T>
inline void differences(const T* row, int64_t stride, int64_t classes, const Columns<T>& k, T* out, int64_t apart,
                        Reach<T>& reach) {
  const int64_t stop = classes * apart;
  V<T> most = splat(-T(__builtin_inff()));
  for (int64_t i = 0; i < stop; i += apart, row += stride) {
    const V<T> v = along(row, k);
    store(out + i, v);
    most = maximum<T>(v, most);
  }
  const V<T> offset = finite_or_zero<T>(most);
  for (int64_t i = 0; i < stop; i += apart) {
    const V<T> v = load(out + i) - offset;
    store(out + i, v);
    reach.add(v);
  }
}

// out[j] = first * ratio^j for j < R; takes the relative error of the ratio up to R - 1 times.
template <class T, int R>
inline void progression(V<T> first, V<T> ratio, V<T>* out) {
  static_assert(R == 4 || R == 8);
  const V<T> squared = ratio * ratio;
  out[0] = first;
  out[1] = first * ratio;
  out[2] = first * squared;
  out[3] = out[1] * squared;
  if constexpr (R == 8) {
    const V<T> fourth = squared * squared;
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) out[4 + j] = out[j] * fourth;
  }
}

}  // namespace
}  // namespace fastseg
