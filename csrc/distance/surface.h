// Boundaries of masks. Shapes: an image [depth, height, width], of which a box is looked at; `inside` is the box with a
// frame of one element all around (not along z in two dimensions). Boundary elements live on a *grid*: the elements of
// the box themselves, or, of the dual grid, the corners between them, one more along each side.
#pragma once
#include <stdint.h>

#include "../common/dtypes.h"
#include "../common/isa.h"

namespace fastseg {

// What is inside of an object: nonzero elements, or those of one label.
struct Object {
  bool nonzero;
  int32_t label;
};

struct Box {
  int64_t first[3], last[3];  // z, y, x; behind the last one

  FASTSEG_INLINE int64_t side(int axis) const { return last[axis] > first[axis] ? last[axis] - first[axis] : 0; }
  FASTSEG_INLINE bool empty() const { return last[0] <= first[0]; }
};

struct Surface {
  const void* image;
  Int type;
  int64_t height, width;
  Object object;
  Box box;
  bool volume, dual;
  uint8_t* inside;   // framed box
  uint8_t* element;  // grid: 0 on the boundary, 1 elsewhere
  uint8_t* code;     // grid, dual only: which of the 4 or 8 elements around a corner are inside

  FASTSEG_INLINE int64_t frame() const { return volume ? 1 : 0; }
  FASTSEG_INLINE int64_t framed(int axis) const { return box.side(axis) + (axis > 0 || volume ? 2 : 0); }
  FASTSEG_INLINE int64_t grid(int axis) const { return box.side(axis) + (dual && (axis > 0 || volume) ? 1 : 0); }
};

// The boxes of objects in an image.
struct Bounds {
  const void* image;
  Int type;
  int64_t depth, height, width;
  const Object* objects;
  int64_t count;
  Box* boxes;        // grown
  int32_t* scratch;  // [width]
};

// Distances at the elements of a grid that are still waited for.
template <class T>
struct Samples {
  const uint8_t* element;
  uint8_t* pending;  // 0 where waited for
  const T* values;   // squared
  T trusted;         // up to which they are right
  int64_t size;
  double* out;
};

struct SurfaceKernels {
  void (*bounds)(const Bounds&);
  void (*fill)(const Surface&, int64_t, int64_t, int32_t*);  // planes of `inside`; a scratch [width]
  int64_t (*outline)(const Surface&, int64_t, int64_t);      // planes of the grid; returns how many elements there are
  int64_t (*sample_i32)(const Samples<int32_t>&);            // returns how many are left
  int64_t (*sample_f64)(const Samples<double>&);
};

FASTSEG_TABLES(SurfaceKernels, distance_surface);

}  // namespace fastseg
