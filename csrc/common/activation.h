// What follows a convolution: activation(scale * (convolution + bias) + shift + residual), as a x + b per channel.
#pragma once
#include <stdint.h>

#if defined(FASTSEG_ISA)
#include "simd.h"
#endif

namespace fastseg {

enum class Activation : int32_t { none, relu, relu6, silu };

#if defined(FASTSEG_ISA)
namespace {

// As PyTorch's: NaN stays NaN, and silu of -infinity is NaN.
template <class T>
inline V<T> activate(V<T> x, Activation kind) {
  switch (kind) {
    case Activation::none:
      return x;
    case Activation::relu:
      return x < T(0) ? V<T>{} : x;
    case Activation::relu6:
      x = x < T(0) ? V<T>{} : x;
      return x > T(6) ? splat(T(6)) : x;
    case Activation::silu:
      return x < T(-87) ? x * T(0) : x / (T(1) + exponential(-x > T(87) ? splat(T(87)) : -x));
  }
  return x;
}

}  // namespace
#endif
}  // namespace fastseg
