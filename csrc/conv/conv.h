// What the convolution family shares: dense maps in both memory formats, and what follows a convolution.
#pragma once
#include <stdint.h>

#include "../common/activation.h"
#include "../common/dtypes.h"
#include "../common/isa.h"

namespace fastseg {

// activation(scale * y + shift + residual), with a scale and a shift for each channel; null where there is none.
template <class T>
struct Epilogue {
  const T *scale, *shift, *residual;  // the residual is stored as y
  Activation activation;

  bool empty() const { return !scale && !shift && !residual && activation == Activation::none; }
};

// Dense maps y as a matrix: a row is a pixel and `inner` its channels (channels_last), or a row is one of `channels`
// planes and `inner` its pixels.
template <class T>
struct Rows {
  T* y;
  int64_t inner, channels;
  bool channels_last;
  Epilogue<T> epilogue;
};

template <class T>
struct ConvTable {
  // in [rows][columns] -> out [columns][rows], of the rows [begin, end).
  void (*transpose)(const T* in, T* out, int64_t rows, int64_t columns, int64_t begin, int64_t end);
  // In place, rows [begin, end).
  void (*finish)(const Rows<T>&, int64_t begin, int64_t end);
};

FASTSEG_TABLES(ConvTable<float>, conv_f32);
FASTSEG_TABLES(ConvTable<double>, conv_f64);

#if defined(FASTSEG_ISA)
namespace {

// The epilogue of one vector.
template <class T>
inline V<T> finished(V<T> y, V<T> scale, V<T> shift, V<T> residual, Activation activation) {
  return activate<T>(multiply_add<T>(y, scale, shift) + residual, activation);
}

// Loads n < lanes values; the other lanes are zero.
template <class T>
inline V<T> load_part(const T* p, int64_t n) {
  V<T> v{};
  memcpy(&v, p, n * sizeof(T));
  return v;
}

template <class T>
inline void store_part(T* p, V<T> v, int64_t n) {
  memcpy(p, &v, n * sizeof(T));
}

}  // namespace
#endif
}  // namespace fastseg
