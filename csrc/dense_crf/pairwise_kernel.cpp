// O(P^2): for each pair d differences, an exponential and C products. A vector of points i meets all points j, a few
// at a time, whose kernel values stay in the nearest cache for all channels.
#include "../common/simd.h"
#include "pairwise.h"

namespace fastseg {
namespace {

constexpr int64_t kBeside = 64;  // points j at a time
constexpr int kTogether = 4;     // channels at a time
constexpr int64_t kMostChannelsBeside = 32;

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// n of p as a vector; the last one again where there are fewer.
template <class T>
FASTSEG_INLINE V<T> some(const T* p, int64_t n, int64_t step = 1) {
  V<T> v;
  for (int64_t l = 0; l < Simd<T>::lanes; ++l) v[l] = p[(l < n ? l : n - 1) * step];
  return v;
}

// exp(-|f_i - f_j|^2 / 2) of a vector of points i and n points j.
template <class T>
FASTSEG_INLINE void weigh(const Pairs<T>& p, int64_t i, int64_t lanes, int64_t j, int64_t n, V<T>* weights) {
  for (int64_t k = 0; k < n; ++k) weights[k] = V<T>{};
  for (int64_t axis = 0; axis < p.d; ++axis) {
    const T* const f = p.features + axis * p.count;
    const V<T> mine = some(f + i, lanes);
    for (int64_t k = 0; k < n; ++k) {
      const V<T> between = mine - f[j + k];
      weights[k] = multiply_add<T>(between, between, weights[k]);
    }
  }
  for (int64_t k = 0; k < n; ++k) weights[k] = exponential(T(-0.5) * weights[k]);
}

template <class T>
void filter(const Pairs<T>& p, int64_t begin, int64_t end, int64_t stride, T* results) {
  constexpr int64_t L = Simd<T>::lanes;
  V<T> weights[kBeside];
  for (int64_t i = begin; i < end; i += L) {
    const int64_t lanes = smaller(L, end - i);
    for (int64_t c = 0; c < p.chunks; ++c) {
      V<T> sums[kMostChannelsBeside] = {};
      for (int64_t j = 0; j < p.count; j += kBeside) {
        const int64_t n = smaller(kBeside, p.count - j);
        weigh(p, i, lanes, j, n, weights);
        if (p.before)
          for (int64_t k = 0; k < n; ++k) weights[k] = weights[k] * p.before[j + k];
        const T* const values = p.values + c * p.stride + j * p.pitch;
        for (int64_t first = 0; first < p.pitch; first += kTogether) {
          for (int64_t k = 0; k < n; ++k)
            for (int v = 0; v < kTogether; ++v)
              sums[first + v] = multiply_add<T>(weights[k], splat(values[k * p.pitch + first + v]), sums[first + v]);
        }
      }
      for (int64_t lane = 0; lane < lanes; ++lane)
        for (int64_t v = 0; v < p.pitch; ++v) results[c * stride + (i - begin + lane) * p.pitch + v] = sums[v][lane];
    }
  }
}

template <class T>
void gradient(const Pairs<T>& p, const T* g, int64_t begin, int64_t end, T* out) {
  constexpr int64_t L = Simd<T>::lanes;
  V<T> weights[kBeside], products[kBeside];
  for (int64_t axis = 0; axis < p.d; ++axis)
    for (int64_t i = begin; i < end; ++i) out[axis * p.count + i] = 0;
  for (int64_t i = begin; i < end; i += L) {
    const int64_t lanes = smaller(L, end - i);
    for (int64_t j = 0; j < p.count; j += kBeside) {
      const int64_t n = smaller(kBeside, p.count - j);
      weigh(p, i, lanes, j, n, weights);
      for (int64_t k = 0; k < n; ++k) products[k] = V<T>{};
      for (int64_t at = 0; at < p.chunks * p.pitch; ++at) {
        const int64_t channel = at / p.pitch * p.stride + at % p.pitch;
        const V<T> mine = some(p.values + channel + i * p.pitch, lanes, p.pitch);
        const V<T> my_g = some(g + channel + i * p.pitch, lanes, p.pitch);
        for (int64_t k = 0; k < n; ++k) {
          const int64_t other = channel + (j + k) * p.pitch;
          products[k] = multiply_add<T>(my_g, splat(p.values[other]), products[k]);
          products[k] = multiply_add<T>(mine, splat(g[other]), products[k]);
        }
      }
      for (int64_t k = 0; k < n; ++k) weights[k] = weights[k] * products[k];
      for (int64_t axis = 0; axis < p.d; ++axis) {
        const T* const f = p.features + axis * p.count;
        const V<T> mine = some(f + i, lanes);
        V<T> sum{};
        for (int64_t k = 0; k < n; ++k) sum = multiply_add<T>(weights[k], f[j + k] - mine, sum);
        for (int64_t lane = 0; lane < lanes; ++lane) out[axis * p.count + i + lane] += sum[lane];
      }
    }
  }
}

template <class T>
constexpr PairwiseKernels<T> kKernels{filter<T>, gradient<T>};

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::PairwiseKernels<float> FASTSEG_FOR_ISA(pairwise_f32) = fastseg::kKernels<float>;
extern "C" const fastseg::PairwiseKernels<double> FASTSEG_FOR_ISA(pairwise_f64) = fastseg::kKernels<double>;
