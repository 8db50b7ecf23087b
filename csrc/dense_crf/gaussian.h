// A Gaussian of distances in pixels on maps [planes, h, w], in two passes.
#pragma once
#include <stdint.h>

#include "../common/isa.h"

namespace fastseg {

// One axis. Weights beyond `reach` are left out: they are below 2^-26 of the largest, 2^-55 in double.
template <class T>
struct Window {
  int64_t size, reach;
  const T* weights;         // [reach + 1], by distance
  const T *before, *after;  // [size], factors of values and of results
};

template <class T>
struct Gaussian {
  Window<T> rows, columns;
  const T* values;
  T* out;
  T* scratch;  // [gaussian_scratch]
};

// Columns that a vector may read beyond a row.
constexpr int64_t kBeyond = 64;

// A row with zeros around it, and the weights of a column.
template <class T>
int64_t gaussian_scratch(const Gaussian<T>& p) {
  return p.columns.size + 2 * p.columns.reach + kBeyond + 2 * p.rows.reach + 1;
}

template <class T>
struct GaussianKernels {
  void (*filter)(const Gaussian<T>&, int64_t begin, int64_t end);  // rows of planes
};

FASTSEG_TABLES(GaussianKernels<float>, gaussian_f32);
FASTSEG_TABLES(GaussianKernels<double>, gaussian_f64);

}  // namespace fastseg
