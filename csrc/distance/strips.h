// What kernels on strips share: vectors of int32, float or double, reading and writing strips, and the last step of a
// distance. Internal linkage, as everything in a kernel.
#pragma once
#include "distance.h"

namespace fastseg {
namespace {

template <class T>
struct Lanes {
  using F = V<T>;
  using M = I<T>;
};
template <>
struct Lanes<int32_t> {
  using F = I<float>;
  using M = I<float>;
};
template <class T>
using Vec = typename Lanes<T>::F;
template <class T>
constexpr int64_t kLanes = kVectorBytes / sizeof(T);

template <class T>
constexpr T kNothing = T(__builtin_inf());
template <>
constexpr int32_t kNothing<int32_t> = kFar;

template <class T>
inline Vec<T> at(const T* p) {
  Vec<T> v;
  memcpy(&v, p, sizeof v);
  return v;
}

template <class T>
inline bool some(typename Lanes<T>::M mask) {
  if constexpr (sizeof(T) == 4)
    return any<float>(mask);
  else
    return any<double>(mask);
}

template <class T>
inline Vec<T> least(Vec<T> a, Vec<T> b) {
  return a < b ? a : b;
}

// `count` values of a strip as distances.
template <class T>
inline void finish(const Finish& to, const T* in, int64_t count, int64_t at) {
  float* single = (float*)to.out + at;
  double* twice = (double*)to.out + at;
  constexpr T kNone = kNothing<T>;
  if (to.wide)
    for (int64_t l = 0; l < count; ++l) {
      const double v = in[l] < kNone ? double(in[l]) : __builtin_inf();
      twice[l] = to.root ? __builtin_sqrt(v) : v;
    }
  else if (to.root && (to.exact || sizeof(T) == 8))
    for (int64_t l = 0; l < count; ++l)
      single[l] = in[l] < kNone ? float(__builtin_sqrt(double(in[l]))) : float(__builtin_inf());
  else if (to.root)
    for (int64_t l = 0; l < count; ++l)
      single[l] = in[l] < kNone ? __builtin_sqrtf(float(in[l])) : float(__builtin_inf());
  else
    for (int64_t l = 0; l < count; ++l) single[l] = in[l] < kNone ? float(in[l]) : float(__builtin_inf());
}

// Lanes that are none are 0: at once done.
template <class E>
inline void read_strip(const E* from, int64_t lanes, E* to) {
  if (lanes == kStrip) {
    memcpy(to, from, kStrip * sizeof(E));
    return;
  }
  for (int64_t l = 0; l < kStrip; ++l) to[l] = l < lanes ? from[l] : E(0);
}

template <class E>
inline void write_strip(const E* from, int64_t lanes, E* to) {
  if (lanes == kStrip) {
    memcpy(to, from, kStrip * sizeof(E));
    return;
  }
  for (int64_t l = 0; l < lanes; ++l) to[l] = from[l];
}

}  // namespace
}  // namespace fastseg
