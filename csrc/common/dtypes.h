// The storage types of tensors, and rows of them widened to and narrowed from the type that kernels compute in.
#pragma once
#include <stdint.h>

#if defined(FASTSEG_ISA)
#include "simd.h"
#endif

namespace fastseg {

enum class Float : int32_t { f32, f64, bf16, f16 };
enum class Int : int32_t { u8, i8, i16, i32, i64 };

template <class T>
constexpr Float kNative = sizeof(T) == 4 ? Float::f32 : Float::f64;

inline int size_of(Float t) { return t == Float::f64 ? 8 : t == Float::f32 ? 4 : 2; }
inline int size_of(Int t) { return t == Int::i64 ? 8 : t == Int::i32 ? 4 : t == Int::i16 ? 2 : 1; }

constexpr int32_t kLabelLimit = 2147483647;  // int64 labels beyond +-kLabelLimit become that: never a class

#if defined(FASTSEG_ISA)
namespace {

inline float from_bf16(uint16_t h) {
  const uint32_t bits = uint32_t(h) << 16;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

inline uint16_t to_bf16(float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return uint16_t(f == f ? rounded : 0x7fc0);
}

// n values of `type` at p, `stride` apart -> T.
template <class T>
inline void widen(const void* p, Float type, int64_t n, int64_t stride, T* out) {
  switch (type) {
    case Float::f32:
      for (int64_t i = 0; i < n; ++i) out[i] = T(((const float*)p)[i * stride]);
      break;
    case Float::f64:
      for (int64_t i = 0; i < n; ++i) out[i] = T(((const double*)p)[i * stride]);
      break;
    case Float::bf16:
      for (int64_t i = 0; i < n; ++i) out[i] = from_bf16(((const uint16_t*)p)[i * stride]);
      break;
    case Float::f16:
      for (int64_t i = 0; i < n; ++i) out[i] = T(((const _Float16*)p)[i * stride]);
      break;
  }
}

// n values of T -> `type` at p, `stride` apart.
template <class T>
inline void narrow(const T* in, int64_t n, int64_t stride, void* p, Float type) {
  switch (type) {
    case Float::f32:
      for (int64_t i = 0; i < n; ++i) ((float*)p)[i * stride] = float(in[i]);
      break;
    case Float::f64:
      for (int64_t i = 0; i < n; ++i) ((double*)p)[i * stride] = double(in[i]);
      break;
    case Float::bf16:
      for (int64_t i = 0; i < n; ++i) ((uint16_t*)p)[i * stride] = to_bf16(float(in[i]));
      break;
    case Float::f16:
      for (int64_t i = 0; i < n; ++i) ((_Float16*)p)[i * stride] = _Float16(float(in[i]));
      break;
  }
}

// n labels of `type` -> int32.
inline void widen_labels(const void* p, Int type, int64_t n, int32_t* out) {
  switch (type) {
    case Int::u8:
      for (int64_t i = 0; i < n; ++i) out[i] = ((const uint8_t*)p)[i];
      break;
    case Int::i8:
      for (int64_t i = 0; i < n; ++i) out[i] = ((const int8_t*)p)[i];
      break;
    case Int::i16:
      for (int64_t i = 0; i < n; ++i) out[i] = ((const int16_t*)p)[i];
      break;
    case Int::i32:
      for (int64_t i = 0; i < n; ++i) out[i] = ((const int32_t*)p)[i];
      break;
    case Int::i64:
      for (int64_t i = 0; i < n; ++i) {
        const int64_t v = ((const int64_t*)p)[i];
        out[i] = int32_t(v > kLabelLimit ? kLabelLimit : v < -kLabelLimit ? -kLabelLimit : v);
      }
      break;
  }
}

}  // namespace
#endif
}  // namespace fastseg
