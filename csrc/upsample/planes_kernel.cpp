// Bilinear upsampling, thresholded upsampling, and the conversion of tensors to padded planes and back.
//
// Per output value: 2 multiply-adds (vertical) and 1 / scale of the horizontal ones, which are shared by the output
// rows of a cell row. Reads each source row at most twice, writes each output once.
#include "columns.h"

namespace fastseg {
namespace {

inline char* row_of(const Strided& t, int64_t n, int64_t c, int64_t y) {
  return (char*)t.data + (n * t.stride_n + c * t.stride_c + y * t.stride_y) * size_of(t.type);
}

template <class T>
void pack(const Pack<T>& p, int64_t begin, int64_t end) {
  const Strided& t = p.tensor;
  for (int64_t i = begin; i < end; ++i)
    for (int64_t c = 0; c < t.c; ++c) {
      T* out = p.planes + ((i / t.h * t.c + c) * t.h + i % t.h) * p.pitch;
      widen(row_of(t, i / t.h, c, i % t.h), t.type, t.w, t.stride_x, out);
      for (int64_t x = t.w; x < p.pitch; ++x) out[x] = out[t.w - 1];
    }
}

template <class T>
void unpack(const Pack<T>& p, int64_t begin, int64_t end) {
  const Strided& t = p.tensor;
  for (int64_t i = begin; i < end; ++i)
    for (int64_t c = 0; c < t.c; ++c)
      narrow(p.planes + ((i / t.h * t.c + c) * t.h + i % t.h) * p.pitch, t.w, t.stride_x,
             row_of(t, i / t.h, c, i % t.h), t.type);
}

// Calls put(vector, class, output row, x, lanes) for every vector of a cell row in NCHW order.
template <class T, class Put>
void each_vector(const Resize<T>& p, const CellRow<T>& cell, const Put& put) {
  constexpr int L = Simd<T>::lanes;
  const Maps<T>& s = p.source;
  for (int64_t c = 0; c < s.c; ++c) {
    const T* plane = s.data + cell.image * s.stride_n + c * s.stride_c;
    for (int64_t x = 0; x < p.x.out; x += L) {
      const Columns<T> k = columns(p.x, x);
      const V<T> a = along(plane + cell.row * s.stride_y, k), b = along(plane + cell.below * s.stride_y, k);
      const int64_t n = least(L, p.x.out - x);
      for (int64_t y = cell.begin; y < cell.end; ++y)
        put(a * p.y.lower_weight[y] + b * p.y.upper_weight[y], c, y, x, n);
    }
  }
}

template <class T>
void store_as(Float type, V<T> v, char* row, int64_t x, int64_t n) {
  constexpr int L = Simd<T>::lanes;
  if (type == (sizeof(T) == 4 ? Float::f32 : Float::f64)) return store_some((T*)row + x, v, n);
  T lanes[L];
  store(lanes, v);
  narrow(lanes, n, 1, row + x * size_of(type), type);
}

template <class T>
void planes(const Resize<T>& p, const CellRow<T>& cell) {
  const Float type = p.out.type;
  each_vector(p, cell, [&](V<T> v, int64_t c, int64_t y, int64_t x, int64_t n) {
    store_as<T>(type, v, row_of(p.out, cell.image, c, y), x, n);
  });
}

// channels_last: interpolate the two source rows vertically as one long row, then step through the columns.
template <class T>
void pixels(const Resize<T>& p, const CellRow<T>& cell) {
  constexpr int L = Simd<T>::lanes;
  const Maps<T>& s = p.source;
  const int64_t c = s.c, width = s.w * c;
  const bool direct = p.out.type == (sizeof(T) == 4 ? Float::f32 : Float::f64);
  T *top = p.scratch, *bottom = top + width, *between = bottom + width, *row = between + width;
  const T* image = s.data + cell.image * s.stride_n;
  for (int64_t k = 0; k < c; ++k)
    for (int64_t x = 0; x < s.w; ++x) {
      top[x * c + k] = image[k * s.stride_c + cell.row * s.stride_y + x];
      bottom[x * c + k] = image[k * s.stride_c + cell.below * s.stride_y + x];
    }
  for (int64_t y = cell.begin; y < cell.end; ++y) {
    const T a = p.y.lower_weight[y], b = p.y.upper_weight[y];
    for (int64_t i = 0; i < width; ++i) between[i] = a * top[i] + b * bottom[i];
    char* out = row_of(p.out, cell.image, 0, y);
    T* to = direct ? (T*)out : row;
    for (int64_t x = 0; x < p.x.out; ++x) {
      const T *left = between + p.x.lower[x] * c, *right = between + p.x.upper[x] * c;
      const T wl = p.x.lower_weight[x], wr = p.x.upper_weight[x];
      int64_t k = 0;
      for (; k + L <= c; k += L) store(to + x * c + k, load(left + k) * wl + load(right + k) * wr);
      for (; k < c; ++k) to[x * c + k] = left[k] * wl + right[k] * wr;
    }
    if (!direct) narrow(row, p.x.out * c, 1, out, p.out.type);
  }
}

template <class T>
void bilinear(const Resize<T>& p, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const CellRow<T> cell(p.y, i);
    if (p.channels_last)
      pixels(p, cell);
    else
      planes(p, cell);
  }
}

template <class T>
void threshold(const Resize<T>& p, int64_t begin, int64_t end) {
  constexpr int L = Simd<T>::lanes;
  using Bytes = typename Narrow<uint8_t, L>::type;
  const Strided& t = p.out;
  for (int64_t i = begin; i < end; ++i) {
    const CellRow<T> cell(p.y, i);
    each_vector(p, cell, [&](V<T> v, int64_t c, int64_t y, int64_t x, int64_t n) {
      const Bytes bits = __builtin_convertvector(v > p.threshold, Bytes) & 1;
      uint8_t* out =
          (uint8_t*)t.data + cell.image * t.stride_n + c * t.stride_c + y * t.stride_y + x * t.stride_x;
      if (t.stride_x != 1)
        for (int64_t l = 0; l < n; ++l) out[l * t.stride_x] = bits[l];
      else if (n == L)
        memcpy(out, &bits, L);
      else
        memcpy(out, &bits, n);
    });
  }
}

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::UpsampleKernels<float> FASTSEG_FOR_ISA(upsample_f32) = {
    fastseg::pack<float>, fastseg::unpack<float>, fastseg::bilinear<float>, fastseg::threshold<float>};
extern "C" const fastseg::UpsampleKernels<double> FASTSEG_FOR_ISA(upsample_f64) = {
    fastseg::pack<double>, fastseg::unpack<double>, fastseg::bilinear<double>, fastseg::threshold<double>};
