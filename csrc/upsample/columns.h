// One vector of output columns and its horizontal interpolation, for the kernels of this folder.
#pragma once
#include "upsample.h"

namespace fastseg {
namespace {

template <class T>
struct Columns {
  int64_t base;       // first source column that is loaded
  bool near;          // every neighbour lies within one vector from base
  I<T> lower, upper;  // indices from base
  V<T> lower_weight, upper_weight;
};

template <class T>
inline Columns<T> columns(const Axis<T>& x, int64_t at) {
  constexpr int L = Simd<T>::lanes;
  const int64_t pitch = x.in > kPadding ? x.in : kPadding;
  const int64_t base = x.lower[at] < pitch - L ? x.lower[at] : pitch - L;
  return {base,
          x.upper[at + L - 1] - base < L,
          load_index<T>(x.lower + at) - typename Simd<T>::Int(base),
          load_index<T>(x.upper + at) - typename Simd<T>::Int(base),
          load(x.lower_weight + at),
          load(x.upper_weight + at)};
}

// a * wa + b * wb, the same float for the same inputs everywhere: a backward finds the values of its forward again.
template <class T>
inline V<T> blend(V<T> a, V<T> wa, V<T> b, V<T> wb) {
  return multiply_add<T>(a, wa, b * wb);
}

// Monotone in both neighbours under rounding, so that classes which are ordered at both stay ordered between them.
template <class T>
__attribute__((always_inline)) inline V<T> along(const T* row, const Columns<T>& k) {
  V<T> a, b;
  if (k.near) {
    const V<T> v = load(row + k.base);
    a = permute<T>(v, k.lower);
    b = permute<T>(v, k.upper);
  } else {
    for (int l = 0; l < Simd<T>::lanes; ++l) {
      a[l] = row[k.base + k.lower[l]];
      b[l] = row[k.base + k.upper[l]];
    }
  }
  return blend<T>(a, k.lower_weight, b, k.upper_weight);
}

template <class X>
inline void exchange(X& a, X& b) {
  const X was = a;
  a = b;
  b = was;
}

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// What a range of cell rows shares: the image, its source row and the one below, and the output rows between them.
template <class T>
struct CellRow {
  int64_t image, row, below, begin, end;

  CellRow(const Axis<T>& y, int64_t index)
      : image(index / y.in), row(index % y.in), below(row), begin(y.first[row]), end(y.first[row + 1]) {
    if (begin < end) below = y.upper[begin];
  }
};

template <class T>
inline void store_some(T* p, V<T> v, int64_t n) {
  if (n >= Simd<T>::lanes) return store(p, v);
  memcpy(p, &v, n * sizeof(T));
}

}  // namespace
}  // namespace fastseg
