// The Gaussian kernel of distances between features [d, P], all pairs of them, never as a matrix.
#pragma once
#include <stdint.h>

#include "../common/isa.h"

namespace fastseg {

template <class T>
struct Pairs {
  int64_t d, count, pitch, chunks, stride;  // values [chunks, count, pitch], chunks `stride` values apart
  const T* features;                        // [d, count]
  const T* before;                          // [count], factors of values, or null
  const T* values;
};

template <class T>
struct PairwiseKernels {
  // The results of points [begin, end) as blocks [chunks, end - begin, pitch], chunks `stride` apart.
  void (*filter)(const Pairs<T>&, int64_t begin, int64_t end, int64_t stride, T* results);
  // [d, count] for the points [begin, end): sum_j k_ij (g_i v_j + v_i g_j) (f_j - f_i), with g as the values are.
  void (*gradient)(const Pairs<T>&, const T* g, int64_t begin, int64_t end, T* out);
};

FASTSEG_TABLES(PairwiseKernels<float>, pairwise_f32);
FASTSEG_TABLES(PairwiseKernels<double>, pairwise_f64);

}  // namespace fastseg
