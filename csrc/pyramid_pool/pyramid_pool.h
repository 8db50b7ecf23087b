// Pyramid pooling. Shapes: maps [n, c, h, w]; pooled vectors [n, c * total] of all levels, level after level, each
// [c, side, side], where total is the sum of side^2.
//
// A bin of a level is the product of a run of rows and a run of columns. The edges of all bins of all levels cut each
// axis into *runs*, and the map into *cells*, which no bin divides: kernels reduce each cell once and combine cells
// into bins. Kernels work on ranges of the n * c planes.
#pragma once
#include <stdint.h>

#include "../upsample/upsample.h"

namespace fastseg {

// Planes at a time, a whole number of vectors. Where channels are neighbours in memory they are more, in long stretches
// of memory, as long as the scratch of a thread stays below kScratchBytes.
constexpr int64_t kPlanes = 16, kChannels = 512, kScratchBytes = 1 << 20;

// One axis: `sides` lists the bins of each level.
struct Cuts {
  int64_t size, runs;
  const int32_t* edges;         // [runs + 1], from 0 to size
  const int32_t *first, *last;  // [sum of sides]: the runs of a bin are [first, last), level after level
};

struct Pyramid {
  Cuts rows, columns;
  const int64_t* sides;  // [levels]
  int64_t levels, total;
};

template <class T>
struct Pool {  // forward
  Strided x;
  Pyramid pyramid;
  void* out;           // [n, c * total], of the type of x
  int32_t* positions;  // [n, c * total]: y * w + x of each maximum; of means nothing
  bool by_pixel;       // lanes over channels and not over columns
  int64_t block;       // planes at a time
  T* scratch;          // [forward_scratch]
};

template <class T>
struct Spread {  // backward
  Pyramid pyramid;
  const void* grad;          // [n, c * total], of the type of out
  const int32_t* positions;  // as above
  Strided out;               // dense, channels_last if by_pixel
  bool by_pixel;
  int64_t block;
  T* scratch;    // means: [mean_backward_scratch]; maxima of narrow types: the planes of a block
  int64_t* bad;  // the first index of a position that is none, or -1
};

// A pixel or row, a row of a plane, the same for a block of planes side by side, and its cells; from the second on each
// value has a place beside it.
inline int64_t forward_scratch(const Pyramid& p, int64_t block) {
  const int64_t width = p.columns.size;
  return (width + block) + 2 * (width + width * block + p.rows.runs * p.columns.runs * block);
}

// A gradient of a bin, the cells of a block, and a row of a plane.
inline int64_t mean_backward_scratch(const Pyramid& p, int64_t block) {
  return (1 + p.rows.runs * p.columns.runs) * block + p.columns.size;
}

template <class T>
struct PyramidPoolKernels {
  void (*max)(const Pool<T>&, int64_t, int64_t);
  void (*mean)(const Pool<T>&, int64_t, int64_t);
  void (*max_backward)(const Spread<T>&, int64_t, int64_t);
  void (*mean_backward)(const Spread<T>&, int64_t, int64_t);
};

FASTSEG_TABLES(PyramidPoolKernels<float>, pyramid_pool_f32);
FASTSEG_TABLES(PyramidPoolKernels<double>, pyramid_pool_f64);

}  // namespace fastseg
