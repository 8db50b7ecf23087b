// Distances to the two nearest instances. Shapes: instances [images, depth, height, width]; two distances, squared, of
// the axes that were passed along so far, and the instances that they are to, likewise.
#pragma once
#include <type_traits>

#include "distance.h"

namespace fastseg {

// The integer that is as wide as a distance.
template <class T>
using InstanceOf = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;

// Along y or z: `planes` times there are `width` lines of n elements, kStrip of them at a time. Along x: rows.
template <class T>
struct InstancePass {
  T *first, *second;                     // whole
  InstanceOf<T>*first_id, *second_id;    // whole; 0 where there is none
  int64_t n, step;                       // elements of a line, and how far apart they are
  int64_t width;                         // lines of a plane, beside each other
  int64_t inner, near, far;              // plane p begins at p / inner * far + p % inner * near
  const T* offset;                       // [n]
  const Finish *first_out, *second_out;  // nullptr: distances stay as they are
  char* scratch;                         // [instance_scratch]

  FASTSEG_INLINE int64_t strips() const { return (width + kStrip - 1) / kStrip; }
};

// Two distances and two instances of a strip, before and after; or the instances of a row.
template <class T>
inline int64_t instance_scratch(int64_t n) {
  return 8 * n * kStrip * int64_t(sizeof(T));
}

template <class T>
struct InstanceKernels {
  void (*rows)(const void*, Int, const InstancePass<T>&, int64_t, int64_t);
  void (*strips)(const InstancePass<T>&, int64_t, int64_t);  // of all planes
};

FASTSEG_TABLES(InstanceKernels<int32_t>, distance_instances_i32);
FASTSEG_TABLES(InstanceKernels<float>, distance_instances_f32);
FASTSEG_TABLES(InstanceKernels<double>, distance_instances_f64);

}  // namespace fastseg
