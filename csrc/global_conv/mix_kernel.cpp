// The second stage of both branches and their sum: 2 * k * c multiply-adds for an output, in registers; each middle map
// is read once for kTogether channels of the result, from the L1 and L2 caches, and the result is written once.
#include "../conv/conv.h"
#include "global_conv.h"

namespace fastseg {
namespace {

constexpr int kWide = 4;  // vectors of columns: 12 sums and 3 weights fill 16 registers

template <class T, int wide>
inline void add_taps(const T* map, int64_t step, const T* w, int64_t taps, V<T> (&sums)[kTogether][kWide]) {
  constexpr int64_t L = Simd<T>::lanes;
  for (int64_t t = 0; t < taps; ++t, map += step, w += kTogether) {
    const V<T> w0 = splat(w[0]), w1 = splat(w[1]), w2 = splat(w[2]);
    for (int v = 0; v < wide; ++v) {
      const V<T> m = load(map + v * L);
      sums[0][v] = multiply_add<T>(m, w0, sums[0][v]);
      sums[1][v] = multiply_add<T>(m, w1, sums[1][v]);
      sums[2][v] = multiply_add<T>(m, w2, sums[2][v]);
    }
  }
}

// Columns [x, x + n) of row y of the channels from o on, of one image.
template <class T, int wide>
inline void mix_columns(const Mix<T>& p, const T* first, const T* second, T* out, int64_t o, int64_t y, int64_t x,
                        int64_t n) {
  constexpr int64_t L = Simd<T>::lanes;
  const int64_t taps_x = 2 * p.reach_x + 1, taps_y = 2 * p.reach_y + 1, plane = p.h * p.pitch;
  const int64_t from = y < p.reach_y ? p.reach_y - y : 0;  // taps that reach into the map
  const int64_t to = p.h - y <= p.reach_y ? p.reach_y + p.h - y : taps_y;
  const T *row = p.row + o * p.c * taps_x, *column = p.column + o * p.c * taps_y + from * kTogether;
  const int64_t at = y * p.pitch + x;
  V<T> sums[kTogether][kWide];
  for (int64_t i = 0; i < kTogether; ++i)
    for (int v = 0; v < wide; ++v) sums[i][v] = splat(p.bias && o + i < p.c ? p.bias[o + i] : T(0));
  for (int64_t m = 0; m < p.c; ++m) {
    if (p.row) add_taps<T, wide>(first + m * plane + at - p.reach_x, 1, row + m * taps_x * kTogether, taps_x, sums);
    if (!p.column) continue;
    add_taps<T, wide>(second + m * plane + at + (from - p.reach_y) * p.pitch, p.pitch, column + m * taps_y * kTogether,
                      to - from, sums);
  }
  for (int64_t i = 0; i < kTogether && o + i < p.c; ++i)
    for (int64_t v = 0; v * L < n; ++v) {
      T* result = out + ((o + i) * p.h + y) * p.w + x + v * L;
      if (n - v * L >= L)
        store(result, sums[i][v]);
      else
        store_part(result, sums[i][v], n - v * L);
    }
}

template <class T>
void mix(const Mix<T>& p, int64_t begin, int64_t end) {
  constexpr int64_t L = Simd<T>::lanes;
  for (int64_t r = begin; r < end; ++r) {
    const int64_t image = r / p.h, y = r % p.h;
    const T *first = p.first + image * p.c * p.h * p.pitch, *second = p.second + image * p.c * p.h * p.pitch;
    T* out = p.out + image * p.c * p.h * p.w;
    for (int64_t x = 0; x < p.w; x += kWide * L)
      for (int64_t o = 0; o < p.c; o += kTogether) {
        const int64_t n = p.w - x;
        if (n > 2 * L)
          mix_columns<T, 4>(p, first, second, out, o, y, x, n < 4 * L ? n : 4 * L);
        else if (n > L)
          mix_columns<T, 2>(p, first, second, out, o, y, x, n);
        else
          mix_columns<T, 1>(p, first, second, out, o, y, x, n);
      }
  }
}

// Whether no value is NaN or infinite.
template <class T>
bool finite(const T* values, int64_t n) {
  constexpr int64_t L = Simd<T>::lanes;
  V<T> sum{};
  int64_t i = 0;
  for (; i + L <= n; i += L) sum += load(values + i) * T(0);
  sum += load_part(values + i, n - i) * T(0);
  return !any<T>(sum != sum);
}

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::MixTable<float> FASTSEG_FOR_ISA(mix_f32) = {fastseg::mix<float>, fastseg::finite<float>};
extern "C" const fastseg::MixTable<double> FASTSEG_FOR_ISA(mix_f64) = {fastseg::mix<double>, fastseg::finite<double>};
