// Distance transforms. Shapes: a mask or labels [images, depth, height, width], and values of the same shape:
// distances, squared if Euclidean, of the axes that were passed along so far. The first pass goes along rows, the
// others along y and z on *strips*: all n elements of an axis for kStrip neighbours along x.
#pragma once
#include <stdint.h>

#include "../common/dtypes.h"
#include "../common/isa.h"

namespace fastseg {

constexpr int64_t kStrip = 16;                      // whole vectors of any type
constexpr int32_t kFar = 1 << 30;                   // of int32: nothing is there; it bears an offset below itself
constexpr int64_t kNoSite = 9223372036854775807LL;  // the index of no element

// What d steps along an axis add: table[d], to a sum, or as a bound from below where `largest`.
template <class T>
struct Offsets {
  const T* table;  // [n]
  bool largest;    // chessboard
  bool squares;    // Euclidean
};

template <class T>
struct RowPass {
  const void* mask;  // [rows, width]
  Int type;
  bool labels;
  int64_t width;
  const T *offset, *reversed;  // [width], from 0 up and down to 0
  T* values;                   // [rows, width]
  int64_t* sites;              // [rows, width]: flat indices in the image, or nullptr
  int64_t rows_of_image;
};

// Where a strip goes when the last axis is done.
struct Finish {
  void* out;
  bool wide;   // float64 and not float32
  bool root;   // of squares
  bool exact;  // values are whole and may pass 2^24
};

template <class T>
struct StripPass {
  const void* mask;  // whole, as in RowPass
  Int type;
  bool labels;
  T* values;              // whole
  int64_t* sites;         // whole, or nullptr
  int64_t size;           // elements of an image
  int64_t n, step;        // of the axis: elements, and how far apart they are
  int64_t planes, plane;  // how often the axis occurs beside x in an image, and how far apart
  int64_t width;
  Offsets<T> offsets;
  const Finish* finish;   // nullptr: values stay as they are
  const uint8_t* wanted;  // whole: 0 where a value is asked for; nullptr: everywhere
  int64_t limit;          // steps at most, beyond which values may be too large
  char* scratch;          // [strip_scratch]

  FASTSEG_INLINE int64_t strips() const { return (width + kStrip - 1) / kStrip; }
  FASTSEG_INLINE int64_t tasks() const { return planes * strips(); }  // of an image
};

// A strip of values, of results, of labels, of sites and of their results, and the envelope of a line.
template <class T>
inline int64_t strip_scratch(int64_t n) {
  return n * kStrip * int64_t(2 * sizeof(T) + sizeof(int32_t) + 2 * sizeof(int64_t)) +
         (n + 2) * int64_t(2 * sizeof(double) + sizeof(int64_t));
}

template <class T>
struct DistanceKernels {
  void (*rows)(const RowPass<T>&, int64_t, int64_t);
  void (*strips)(const StripPass<T>&, int64_t, int64_t);
};

FASTSEG_TABLES(DistanceKernels<int32_t>, distance_i32);
FASTSEG_TABLES(DistanceKernels<float>, distance_f32);
FASTSEG_TABLES(DistanceKernels<double>, distance_f64);

}  // namespace fastseg
