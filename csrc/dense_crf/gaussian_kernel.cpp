// The smoothness kernel of a dense CRF, exactly: exp(-|i - j|^2 / 2 s^2) is a product over the axes, so that its matrix
// need never be. 2 (reach_y + reach_x) + 2 products a value; each value is read once from memory, and 2 reach_y + 1
// times from the cache; a result is written once.
#include "../common/simd.h"
#include "gaussian.h"

namespace fastseg {
namespace {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// `vectors` of a sum of rows of `in`, `step` apart, with a weight each, times `factor`.
template <int vectors, class T>
FASTSEG_INLINE void down(const T* in, int64_t step, const T* weights, int64_t n, const T* factor, T* out) {
  constexpr int64_t L = Simd<T>::lanes;
  V<T> sums[vectors] = {};
  for (int64_t i = 0; i < n; ++i) {
    const V<T> w = splat(weights[i]);
    for (int v = 0; v < vectors; ++v) sums[v] = multiply_add<T>(w, load(in + i * step + v * L), sums[v]);
  }
  for (int v = 0; v < vectors; ++v) store(out + v * L, sums[v] * load(factor + v * L));
}

// `vectors` of a row: pairs at equal distances share a product.
template <int vectors, class T>
FASTSEG_INLINE void across(const T* row, const Window<T>& p, V<T>* sums) {
  constexpr int64_t L = Simd<T>::lanes;
  for (int v = 0; v < vectors; ++v) sums[v] = splat(p.weights[0]) * load(row + v * L);
  for (int64_t k = 1; k <= p.reach; ++k) {
    const V<T> w = splat(p.weights[k]);
    for (int v = 0; v < vectors; ++v)
      sums[v] = multiply_add<T>(w, load(row + v * L - k) + load(row + v * L + k), sums[v]);
  }
}

template <class T>
void filter(const Gaussian<T>& p, int64_t begin, int64_t end) {
  constexpr int64_t L = Simd<T>::lanes;
  constexpr int kVectors = 4;
  static_assert(kVectors * L <= kBeyond);
  const int64_t h = p.rows.size, w = p.columns.size;
  T* const row = p.scratch + p.columns.reach;
  T* const weights = p.scratch + w + 2 * p.columns.reach + kBeyond;
  memset(p.scratch, 0, (w + 2 * p.columns.reach + kBeyond) * sizeof(T));
  for (int64_t task = begin; task < end; ++task) {
    const int64_t y = task % h, first = larger(0, y - p.rows.reach), last = smaller(h, y + p.rows.reach + 1);
    for (int64_t i = first; i < last; ++i)
      weights[i - first] = p.rows.weights[i < y ? y - i : i - y] * p.rows.before[i] * p.rows.after[y];
    const T* const in = p.values + (task - y + first) * w;
    int64_t x = 0;
    for (; x + kVectors * L <= w; x += kVectors * L)
      down<kVectors>(in + x, w, weights, last - first, p.columns.before + x, row + x);
    for (; x + L <= w; x += L) down<1>(in + x, w, weights, last - first, p.columns.before + x, row + x);
    for (; x < w; ++x) {
      T sum = 0;
      for (int64_t i = 0; i < last - first; ++i) sum += weights[i] * in[i * w + x];
      row[x] = sum * p.columns.before[x];
    }
    T* const out = p.out + task * w;
    V<T> sums[kVectors];
    for (x = 0; x + kVectors * L <= w; x += kVectors * L) {
      across<kVectors>(row + x, p.columns, sums);
      for (int v = 0; v < kVectors; ++v) store(out + x + v * L, sums[v] * load(p.columns.after + x + v * L));
    }
    for (; x < w; x += L) {
      across<1>(row + x, p.columns, sums);
      for (int64_t l = 0; l < smaller(L, w - x); ++l) out[x + l] = sums[0][l] * p.columns.after[x + l];
    }
  }
}

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::GaussianKernels<float> FASTSEG_FOR_ISA(gaussian_f32) = {fastseg::filter<float>};
extern "C" const fastseg::GaussianKernels<double> FASTSEG_FOR_ISA(gaussian_f64) = {fastseg::filter<double>};
