// Vectors of the width of the instruction set that this file is compiled for. Everything has internal linkage: a weak
// AVX symbol could be handed by the linker to code that runs on machines without AVX.
#pragma once
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define FASTSEG_CAT_(a, b) a##_##b
#define FASTSEG_CAT(a, b) FASTSEG_CAT_(a, b)
#define FASTSEG_FOR_ISA(name) FASTSEG_CAT(name, FASTSEG_ISA)

namespace fastseg {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kRows = 8;  // accumulator rows that fit the 32 registers
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kRows = 4;
#else
constexpr int kVectorBytes = 16;
constexpr int kRows = 4;
#endif

template <class T>
struct IntOf;
template <>
struct IntOf<float> {
  using type = int32_t;
};
template <>
struct IntOf<double> {
  using type = int64_t;
};

template <class T>
struct Simd {
  using Int = typename IntOf<T>::type;
  typedef T V __attribute__((vector_size(kVectorBytes)));
  typedef Int I __attribute__((vector_size(kVectorBytes)));
  static constexpr int lanes = kVectorBytes / sizeof(T);
};

// n values of E, narrower than a vector.
template <class E, int n>
struct Narrow {
  typedef E type __attribute__((vector_size(n * sizeof(E))));
};

template <class T>
using V = typename Simd<T>::V;
template <class T>
using I = typename Simd<T>::I;

template <class T>
inline V<T> load(const T* p) {
  V<T> v;
  memcpy(&v, p, sizeof v);
  return v;
}

template <class T>
inline void store(T* p, V<T> v) {
  memcpy(p, &v, sizeof v);
}

template <class T>
inline V<T> splat(T x) {
  return x - V<T>{};  // x + 0 would be an addition: it is not x for -0
}

template <class T>
inline I<T> splat_index(int64_t x) {
  return I<T>{} + typename Simd<T>::Int(x);
}

// int32 [lanes] -> the integer lanes of T.
template <class T>
inline I<T> load_index(const int32_t* p) {
  typename Narrow<int32_t, Simd<T>::lanes>::type v;
  memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, I<T>);
}

template <class T>
inline I<T> load_lanes(const typename Simd<T>::Int* p) {
  I<T> v;
  memcpy(&v, p, sizeof v);
  return v;
}

// The lanes of v at the indices i, each in [0, lanes).
template <class T>
inline V<T> permute(V<T> v, I<T> i) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return (V<T>)_mm512_permutexvar_ps((__m512i)i, (__m512)v);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) return (V<T>)_mm256_permutevar8x32_ps((__m256)v, (__m256i)i);
#endif
  V<T> r = v;
  for (int l = 0; l < Simd<T>::lanes; ++l) r[l] = v[i[l]];
  return r;
}

// p[i] for each lane i of an index.
template <class T>
inline V<T> gather_lanes(const T* p, I<T> i) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return (V<T>)_mm512_i32gather_ps((__m512i)i, p, 4);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) return (V<T>)_mm256_i32gather_ps(p, (__m256i)i, 4);
#endif
  V<T> r;
  for (int l = 0; l < Simd<T>::lanes; ++l) r[l] = p[i[l]];
  return r;
}

// 0, 1, 2, ...
template <class T>
inline I<T> counting() {
  I<T> r;
  for (int l = 0; l < Simd<T>::lanes; ++l) r[l] = l;
  return r;
}

// a0 b0 a1 b1 ... to p [2 * lanes].
template <class T>
inline void store_pairs(T* p, V<T> a, V<T> b) {
  constexpr int L = Simd<T>::lanes;
#if defined(__GNUC__) && !defined(__clang__)
  I<T> low, high;
  for (int l = 0; l < L; ++l) {
    low[l] = l / 2 + (l % 2) * L;
    high[l] = L / 2 + l / 2 + (l % 2) * L;
  }
  store(p, __builtin_shuffle(a, b, low));
  store(p + L, __builtin_shuffle(a, b, high));
#else
  for (int l = 0; l < L; ++l) {
    p[2 * l] = a[l];
    p[2 * l + 1] = b[l];
  }
#endif
}

// a * b + c, rounded once where the instruction set can. Written as a product and a sum, the compiler might fuse
// another product in another place, and equal inputs would not give equal floats.
template <class T>
inline V<T> multiply_add(V<T> a, V<T> b, V<T> c) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (V<T>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
  else
    return (V<T>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return (V<T>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
  else
    return (V<T>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__ARM_FEATURE_FMA)
  for (int l = 0; l < Simd<T>::lanes; ++l)
    c[l] = sizeof(T) == 4 ? __builtin_fmaf(a[l], b[l], c[l]) : __builtin_fma(a[l], b[l], c[l]);
  return c;
#else
  return a * b + c;
#endif
}

template <class T>
inline V<T> maximum(V<T> a, V<T> b) {
  return a > b ? a : b;
}

template <class T>
inline V<T> minimum(V<T> a, V<T> b) {
  return a < b ? a : b;
}

// Whether any lane of a comparison is true.
template <class T>
inline bool any(I<T> mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
  return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#else
  typename Simd<T>::Int all = 0;
  for (int l = 0; l < Simd<T>::lanes; ++l) all |= mask[l];
  return all != 0;
#endif
}

// Lanes of a > b as bytes 0 and 1.
template <class T>
inline typename Narrow<uint8_t, Simd<T>::lanes>::type greater(V<T> a, V<T> b) {
  using Bytes = typename Narrow<uint8_t, Simd<T>::lanes>::type;
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (Bytes)_mm_maskz_set1_epi8(_mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ), 1);
#endif
  return __builtin_convertvector(a > b, Bytes) & 1;
}

// e^x for x in [-87.3, 88], as n ln 2 + r and a polynomial on |r| <= ln 2 / 2 (degree 6, minimax relative
// error 3.1e-9): below 1.5e-7 with rounding. Elsewhere any number. Adding 1.5 * 2^23 leaves n in the low bits of the
// sum.
inline V<float> exponential_within(V<float> x) {
  using F = V<float>;
  const F shifted = x * 1.44269504f + 12582912.0f;
  const F r = x - (shifted - 12582912.0f) * 0.693147182f;
  // Estrin's order: a shorter chain than Horner's, which the scheduler of the processor would fill up with.
  const F r2 = r * r;
  const F low = 4.9999993e-1f + r * 1.6666521e-1f, high = 4.166839e-2f + r * 8.36872e-3f;
  const F p = (1.0f + r) + r2 * (low + r2 * (high + r2 * 1.38146e-3f));
  return (F)((I<float>)p + ((I<float>)shifted << 23));
}

// e^x for x up to 88; 0 below -87.3; NaN stays NaN.
inline V<float> exponential(V<float> x) {
  const V<float> y = exponential_within(x);
  return x < -87.3f ? V<float>{} : x == x ? y : x;
}

inline V<double> exponential(V<double> x) {
  for (int l = 0; l < Simd<double>::lanes; ++l) x[l] = __builtin_exp(x[l]);
  return x;
}

inline V<double> exponential_within(V<double> x) { return exponential(x); }

// ln x for normal positive x (Cephes logf: mantissa in [sqrt(1/2), sqrt(2)), degree 8); NaN stays NaN.
inline V<float> logarithm(V<float> x) {
  using F = V<float>;
  const I<float> bits = (I<float>)x;
  I<float> e = (bits >> 23) - 126;
  F m = (F)((bits & 0x007fffff) | 0x3f000000);
  const I<float> small = m < 0.707106781f;
  e = e + small;  // a true lane is -1
  m = small ? m + m : m;
  m = m - 1.0f;
  F p = splat(-1.1514610310e-1f) + m * 7.0376836292e-2f;
  p = 1.1676998740e-1f + m * p;
  p = -1.2420140846e-1f + m * p;
  p = 1.4249322787e-1f + m * p;
  p = -1.6668057665e-1f + m * p;
  p = 2.0000714765e-1f + m * p;
  p = -2.4999993993e-1f + m * p;
  p = 3.3333331174e-1f + m * p;
  const F z = m * m, n = __builtin_convertvector(e, F);
  const F y = m + (m * z * p - 0.5f * z) + n * 0.693147182f;
  return x == x ? y : x;
}

inline V<double> logarithm(V<double> x) {
  for (int l = 0; l < Simd<double>::lanes; ++l) x[l] = __builtin_log(x[l]);
  return x;
}

}  // namespace
}  // namespace fastseg
