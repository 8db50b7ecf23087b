// The kernels of a storage type on this machine.
#pragma once
#include "dtypes.h"
#include "isa.h"

namespace fastseg {

template <class T, class Single, class Double>
constexpr auto by_size(Single single, Double twice) {
  if constexpr (sizeof(T) == 4)
    return single;
  else
    return twice;
}

// The kernels of this machine for T: of the tables name_f32 and name_f64.
#define FASTSEG_PICK_FOR(T, name) (*::fastseg::by_size<T>(&FASTSEG_PICK(name##_f32), &FASTSEG_PICK(name##_f64)))

// use(T{}): float64 computes in double, everything else in float.
template <class Use>
auto by_type(Float type, const Use& use) {
  return type == Float::f64 ? use(double{}) : use(float{});
}

}  // namespace fastseg
