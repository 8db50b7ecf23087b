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

// Calls rows(upper, lower, class, x, lanes) for every vector of output columns of a cell row: the values at x of the
// two source rows, between which its output rows lie.
template <class T, class Rows>
void each_vector(const Resize<T>& p, const CellRow<T>& cell, const Rows& rows) {
  constexpr int L = Simd<T>::lanes;
  const Maps<T>& s = p.source;
  for (int64_t c = 0; c < s.c && cell.begin < cell.end; ++c) {
    const T* plane = s.data + cell.image * s.stride_n + c * s.stride_c;
    for (int64_t x = 0; x < p.x.out; x += L) {
      const Columns<T> k = columns(p.x, x);
      rows(along(plane + cell.row * s.stride_y, k), along(plane + cell.below * s.stride_y, k), c, x,
           least(L, p.x.out - x));
    }
  }
}

template <class T>
void planes(const Resize<T>& p, const CellRow<T>& cell) {
  constexpr int L = Simd<T>::lanes;
  const T *wa = p.y.lower_weight + cell.begin, *wb = p.y.upper_weight + cell.begin;
  const int64_t rows = cell.end - cell.begin, width = p.x.out;
  const Float type = p.out.type;
  each_vector(p, cell, [&](V<T> a, V<T> b, int64_t c, int64_t x, int64_t n) {
    char* out = row_of(p.out, cell.image, c, cell.begin) + x * size_of(type);
    if (type == kNative<T>) {
      T* to = (T*)out;
      for (int64_t j = 0; j < rows; ++j, to += width) store_some(to, a * wa[j] + b * wb[j], n);
      return;
    }
    T lanes[L];
    for (int64_t j = 0; j < rows; ++j, out += width * size_of(type)) {
      store(lanes, a * wa[j] + b * wb[j]);
      narrow(lanes, n, 1, out, type);
    }
  });
}

// channels_last: interpolate the two source rows vertically as one long row, then step through the columns.
template <class T>
void pixels(const Resize<T>& p, const CellRow<T>& cell) {
  constexpr int L = Simd<T>::lanes;
  const Maps<T>& s = p.source;
  const int64_t c = s.c, width = s.w * c;
  const bool direct = p.out.type == kNative<T>;
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
  const Strided& t = p.out;
  for (int64_t i = begin; i < end; ++i) {
    const CellRow<T> cell(p.y, i);
    // Locals: stores of bytes could alias the parameters.
    const T *wa = p.y.lower_weight + cell.begin, *wb = p.y.upper_weight + cell.begin;
    const int64_t rows = cell.end - cell.begin, step = t.stride_y, apart = t.stride_x;
    const V<T> limit = splat(p.threshold);
    each_vector(p, cell, [=, &t, &cell](V<T> a, V<T> b, int64_t c, int64_t x, int64_t n) {
      uint8_t* out = (uint8_t*)t.data + cell.image * t.stride_n + c * t.stride_c + cell.begin * t.stride_y + x * apart;
      if (n == L && apart == 1) {
        for (int64_t j = 0; j < rows; ++j, out += step) {
          const auto bits = greater<T>(a * wa[j] + b * wb[j], limit);
          memcpy(out, &bits, L);
        }
        return;
      }
      for (int64_t j = 0; j < rows; ++j, out += step) {
        const auto bits = greater<T>(a * wa[j] + b * wb[j], limit);
        for (int64_t l = 0; l < n; ++l) out[l * apart] = bits[l];
      }
    });
  }
}

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::UpsampleKernels<float> FASTSEG_FOR_ISA(upsample_f32) = {
    fastseg::pack<float>, fastseg::unpack<float>, fastseg::bilinear<float>, fastseg::threshold<float>};
extern "C" const fastseg::UpsampleKernels<double> FASTSEG_FOR_ISA(upsample_f64) = {
    fastseg::pack<double>, fastseg::unpack<double>, fastseg::bilinear<double>, fastseg::threshold<double>};
