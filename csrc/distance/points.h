// Directed Hausdorff distance of point sets. Shapes: queries [n, dims]; the other set as a tree of 2^levels leaves,
// nodes numbered as in a heap: boxes [2^(levels + 1), 2, dims], least and largest coordinates, and leaves [2^levels,
// dims, kLeaf], whose points that are none are infinitely far away.
#pragma once
#include <stdint.h>

#include "../common/dtypes.h"
#include "../common/isa.h"

namespace fastseg {

constexpr int64_t kLeaf = 16;  // points: whole vectors of any type
constexpr int64_t kMostDims = 8;

template <class T>
struct PointTree {
  int64_t levels, dims;
  const T *boxes, *leaves;
  const int64_t* order;   // [2^levels, kLeaf]: which points of the set they are
  const int32_t* starts;  // [2^levels]: the cell of the first point of a leaf; they go up
};

// Queries in the order of their cells: of each the cell above its number.
template <class T>
struct Queries {
  const T* points;
  const uint64_t* keys;
};

// The point that is furthest away so far, of several the first, and the nearest of the other set to it.
template <class T>
struct Furthest {
  T squared;  // below 0: none
  int64_t query, nearest;
};

template <class T>
struct PointKernels {
  void (*furthest)(const PointTree<T>&, const Queries<T>&, int64_t, int64_t, int64_t, Furthest<T>*);
};

FASTSEG_TABLES(PointKernels<float>, distance_points_f32);
FASTSEG_TABLES(PointKernels<double>, distance_points_f64);

}  // namespace fastseg
