// Dense maps between memory formats, and the epilogue of a convolution that a library computed. Both move each value
// once from memory and back; the transpose works in squares whose lines stay in the L1 cache.
#include "conv.h"

namespace fastseg {
namespace {

constexpr int64_t kSquare = 16;  // a cache line of floats a side

template <class T>
void transpose(const T* in, T* out, int64_t rows, int64_t columns, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; r += kSquare) {
    const int64_t height = end - r < kSquare ? end - r : kSquare;
    for (int64_t c = 0; c < columns; c += kSquare) {
      const int64_t width = columns - c < kSquare ? columns - c : kSquare;
      if (height == kSquare && width == kSquare) {
        T square[kSquare][kSquare];
        for (int64_t i = 0; i < kSquare; ++i)
          for (int64_t j = 0; j < kSquare; ++j) square[j][i] = in[(r + i) * columns + c + j];
        for (int64_t j = 0; j < kSquare; ++j) memcpy(out + (c + j) * rows + r, square[j], sizeof square[j]);
      } else {
        for (int64_t j = 0; j < width; ++j)
          for (int64_t i = 0; i < height; ++i) out[(c + j) * rows + r + i] = in[(r + i) * columns + c + j];
      }
    }
  }
}

template <class T>
void finish(const Rows<T>& p, int64_t begin, int64_t end) {
  constexpr int64_t L = Simd<T>::lanes;
  const Epilogue<T>& e = p.epilogue;
  const V<T> one = splat(T(1)), zero{};
  for (int64_t row = begin; row < end; ++row) {
    T* y = p.y + row * p.inner;
    const T* residual = e.residual ? e.residual + row * p.inner : nullptr;
    const V<T> plane_scale = e.scale && !p.channels_last ? splat(e.scale[row % p.channels]) : one;
    const V<T> plane_shift = e.shift && !p.channels_last ? splat(e.shift[row % p.channels]) : zero;
    for (int64_t i = 0; i < p.inner; i += L) {
      const int64_t n = p.inner - i < L ? p.inner - i : L;
      const auto at = [&](const T* values) { return n == L ? load(values + i) : load_part(values + i, n); };
      const V<T> scale = e.scale && p.channels_last ? at(e.scale) : plane_scale;
      const V<T> shift = e.shift && p.channels_last ? at(e.shift) : plane_shift;
      const V<T> v = finished<T>(at(y), scale, shift, residual ? at(residual) : zero, e.activation);
      if (n == L)
        store(y + i, v);
      else
        store_part(y + i, v, n);
    }
  }
}

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::ConvTable<float> FASTSEG_FOR_ISA(conv_f32) = {fastseg::transpose<float>,
                                                                        fastseg::finish<float>};
extern "C" const fastseg::ConvTable<double> FASTSEG_FOR_ISA(conv_f64) = {fastseg::transpose<double>,
                                                                         fastseg::finish<double>};
