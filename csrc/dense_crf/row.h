// Values of a point or of a vertex beside each other, `pitch` of them: a few channels, padded.
#pragma once
#include <utility>

#include "../common/simd.h"

namespace fastseg {
namespace {

// The values of a vertex, in vectors of which each is within a line of the cache.
template <int C, class T>
struct Row {
  static constexpr int lanes = C % Simd<T>::lanes == 0 ? Simd<T>::lanes : C < 8 ? C : 8, parts = C / lanes;
  typedef T Part __attribute__((vector_size(lanes * sizeof(T))));
  typedef Part Loose
      __attribute__((aligned(sizeof(T)), may_alias));  // in memory; with memcpy, rows would stay there too
  typedef typename Simd<T>::Int Lanes __attribute__((vector_size(lanes * sizeof(T))));
  Part part[parts];

  static FASTSEG_INLINE Row of(const T* p) {
    Row row;
    for (int i = 0; i < parts; ++i) row.part[i] = *(const Loose*)(p + i * lanes);
    return row;
  }

  FASTSEG_INLINE void to(T* p) const {
    for (int i = 0; i < parts; ++i) *(Loose*)(p + i * lanes) = part[i];
  }

  FASTSEG_INLINE void add(const Row& other) {
    for (int i = 0; i < parts; ++i) part[i] = part[i] + other.part[i];
  }

  FASTSEG_INLINE void add(const Row& other, T weight) {
    for (int i = 0; i < parts; ++i) part[i] = part[i] + weight * other.part[i];
  }

  FASTSEG_INLINE void scale(T factor) {
    for (int i = 0; i < parts; ++i) part[i] = factor * part[i];
  }

  // e^x of values up to 88, of n rows; NaN stays NaN; 0 for floats below -87.3. Narrow vectors go side by side; what is
  // left of the last whole one repeats others.
  template <int n>
  static FASTSEG_INLINE void exponentiate(Row (&rows)[n]) {
    constexpr int all = n * parts, beside = sizeof(T) == 8 ? 1 : Simd<T>::lanes / lanes;
    for (int i = 0; i < all; i += beside) {
      [[maybe_unused]] Part& first = rows[i / parts].part[i % parts];
      if constexpr (sizeof(T) == 8)
        for (int l = 0; l < lanes; ++l) first[l] = __builtin_exp(first[l]);
      else if constexpr (beside == 1)
        first = exponential(first);
      else
        [&]<int... k>(std::integer_sequence<int, k...>) {
          const auto at = [&](int j) -> Part& { return rows[j % all / parts].part[j % parts]; };
          V<T> x{};
          ((x = put<k>(x, at(i + k))), ...);
          x = exponential(x);
          ((i + k < all ? void(at(i + k) = get<k>(x)) : void()), ...);
        }(std::make_integer_sequence<int, beside>{});
    }
  }

  // The largest of all values, and their sum: halves against each other, then quarters, ...
  FASTSEG_INLINE T most() const {
    Part top = part[0];
    for (int i = 1; i < parts; ++i) top = top > part[i] ? top : part[i];
    return across<lanes / 2>(top, [](Part a, Part b) { return a > b ? a : b; });
  }

  FASTSEG_INLINE T total() const {
    Part sum = part[0];
    for (int i = 1; i < parts; ++i) sum = sum + part[i];
    return across<lanes / 2>(sum, [](Part a, Part b) { return a + b; });
  }

 private:
  // The k-th part of a whole vector.
  template <int k>
  static FASTSEG_INLINE V<T> put(V<T> all, Part x) {
#if defined(__AVX512F__)
    if constexpr (lanes == 8)
      return (V<T>)_mm512_insertf32x8((__m512)all, (__m256)x, k);
    else
      return (V<T>)_mm512_insertf32x4((__m512)all, (__m128)x, k);
#elif defined(__AVX2__)
    return (V<T>)_mm256_insertf128_ps((__m256)all, (__m128)x, k);
#endif
  }

  template <int k>
  static FASTSEG_INLINE Part get(V<T> all) {
#if defined(__AVX512F__)
    if constexpr (lanes == 8)
      return (Part)_mm512_extractf32x8_ps((__m512)all, k);
    else
      return (Part)_mm512_extractf32x4_ps((__m512)all, k);
#elif defined(__AVX2__)
    return (Part)_mm256_extractf128_ps((__m256)all, k);
#endif
  }

  // Halves against each other, then quarters, ...
  template <int by, class Use>
  static FASTSEG_INLINE T across(Part x, const Use& use) {
    if constexpr (by == 0)
      return x[0];
    else
      return across<by / 2>(use(x, crossed<by>(x)), use);
  }

  // Lanes change places with those `by` further.
  template <int by>
  static FASTSEG_INLINE Part crossed(Part x) {
#if defined(__GNUC__) && !defined(__clang__)
    Lanes at;
    for (int l = 0; l < lanes; ++l) at[l] = l ^ by;
    return __builtin_shuffle(x, at);
#else
    Part r;
    for (int l = 0; l < lanes; ++l) r[l] = x[l ^ by];
    return r;
#endif
  }
};

template <int C>
struct Pitch {
  constexpr int operator()() const { return C; }
};

// Calls use(Pitch<C>) for this pitch.
template <class Use>
FASTSEG_INLINE void by_pitch(int64_t pitch, const Use& use) {
  switch (pitch) {
    case 4:
      return use(Pitch<4>{});
    case 8:
      return use(Pitch<8>{});
    case 16:
      return use(Pitch<16>{});
    case 24:
      return use(Pitch<24>{});
    default:
      return use(Pitch<32>{});
  }
}

}  // namespace
}  // namespace fastseg
