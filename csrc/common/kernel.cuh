// What CUDA kernels share: shared memory, storage types and the types they compute in, labels of any integer type. No
// torch headers: nvcc compiles it for GPUs, and csrc/testing runs it on the host.
#pragma once
#include <math.h>

#include "dtypes.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define FASTSEG_SHARED(T, name, count) __shared__ T name[count]
#define FASTSEG_DYNAMIC_SHARED(T, name)                            \
  extern __shared__ __align__(16) unsigned char fastseg_dynamic[]; \
  T* const name = reinterpret_cast<T*>(fastseg_dynamic)
#else
#include "../testing/cuda_on_host.h"
#endif

namespace fastseg {

constexpr unsigned kWarp = 0xffffffffu;  // the mask of a whole warp

// Half precision is computed in float.
template <class S>
struct Computed {
  using type = float;
};
template <>
struct Computed<double> {
  using type = double;
};
template <class S>
using Wide = typename Computed<S>::type;

__device__ inline float widen(float x) { return x; }
__device__ inline double widen(double x) { return x; }
__device__ inline float widen(__half x) { return __half2float(x); }
__device__ inline float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

__device__ inline void narrow(float x, float& out) { out = x; }
__device__ inline void narrow(double x, double& out) { out = x; }
__device__ inline void narrow(float x, __half& out) { out = __float2half_rn(x); }
__device__ inline void narrow(float x, __nv_bfloat16& out) { out = __float2bfloat16_rn(x); }

__device__ inline float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ inline double multiply_add(double a, double b, double c) { return fma(a, b, c); }
__device__ inline float exponential(float x) { return expf(x); }
__device__ inline double exponential(double x) { return exp(x); }
__device__ inline float logarithm(float x) { return logf(x); }
__device__ inline double logarithm(double x) { return log(x); }

template <class T>
__device__ inline T larger(T a, T b) {
  return a < b ? b : a;
}

template <class T>
__device__ inline T smaller(T a, T b) {
  return b < a ? b : a;
}

template <class T>
__device__ inline bool finite(T x) {
  return x - x == T(0);
}

// a * wa + b * wb, the same bits for the same inputs everywhere: a backward finds the values of its forward again.
template <class T>
__device__ inline T blend(T a, T wa, T b, T wb) {
  return multiply_add(a, wa, b * wb);
}

// The first data error of a launch: kNoIndex less its index, so that 0 is none and the largest is the first.
using Fault = unsigned long long;
constexpr Fault kNoIndex = Fault(1) << 62;

__device__ inline void note_fault(Fault* first, int64_t index) {
  if (first) atomicMax(first, kNoIndex - Fault(index));
}

__device__ inline int32_t load_label(const void* labels, Int type, int64_t i) {
  switch (type) {
    case Int::u8:
      return ((const uint8_t*)labels)[i];
    case Int::i8:
      return ((const int8_t*)labels)[i];
    case Int::i16:
      return ((const int16_t*)labels)[i];
    case Int::i32:
      return ((const int32_t*)labels)[i];
    default: {
      constexpr int64_t kLimit = kLabelLimit;
      return int32_t(smaller(larger(((const int64_t*)labels)[i], -kLimit), kLimit));
    }
  }
}

__device__ inline void store_label(void* labels, Int type, int64_t i, int32_t value) {
  switch (type) {
    case Int::u8:
      ((uint8_t*)labels)[i] = uint8_t(value);
      break;
    case Int::i8:
      ((int8_t*)labels)[i] = int8_t(value);
      break;
    case Int::i16:
      ((int16_t*)labels)[i] = int16_t(value);
      break;
    case Int::i32:
      ((int32_t*)labels)[i] = value;
      break;
    default:
      ((int64_t*)labels)[i] = value;
  }
}

}  // namespace fastseg
