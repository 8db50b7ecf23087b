// What nothing may fuse: nvcc makes one instruction, with one rounding, of a product in a sum.
#pragma once
#include "kernel.cuh"

namespace fastseg {

// a * b, rounded before anything is added to it, as on the CPU.
__device__ inline double rounded_product(double a, double b) {
#if defined(__CUDACC__)
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}

}  // namespace fastseg
