// Sums over pixels that region losses are made of, of logits that are upsampled on the way, and the Lovász extension of
// the Jaccard loss. Shapes: logits [n, c, h, w], targets [n, H, W].
#pragma once
#include <type_traits>

#include "../upsample/upsample.h"

namespace fastseg {

// The sums of a class: y p, p, p^2, y, -y log p, -y (1 - p)^gamma log p, and the last two with y and p inverted.
enum Sums : int64_t { kOverlap, kPredicted, kSquared, kTrue, kEntropy, kFocal, kOtherEntropy, kOtherFocal };
constexpr int64_t kSoftmaxSums = 6, kSigmoidSums = 8;

// What a backward keeps of a class lies so far apart: a power of two would place all classes in the same cache lines.
constexpr int64_t kKept = kTile * kTileRows + kPadding;

// Classes of pixels: those that are of none but count, and those that do not count.
constexpr int32_t kNone = -1, kIgnored = -2;

template <class T>
struct Statistics {   // ranges over n * h cell rows
  Softmax<T> pixels;  // source, axes, target, ignore_index, bad; scratch: softmax [8 + kRows, c, lanes] and [6, c,
                      // lanes] doubles, sigmoid [kTileRows, kTile] integers; one per range
  int32_t first;      // label of the first class
  bool focal;         // else its sums are 0
  T gamma;
  double* sums;  // [n * h, c, kSoftmaxSums or kSigmoidSums]
};

template <class T>
struct StatisticsAdjoint {  // ranges over n * chunks
  Adjoint<T> pixels;        // source, axes, target, ignore_index; scratch: [kTile, 2 c] and, softmax
                            // [kTile, 2 c + 4 kTileRows] and [c, kKept], sigmoid [kTile, kTileRows]
  int32_t first;
  bool focal, squares;  // whether the gradient of sum p^2 is not 0 everywhere
  T gamma;
  const T* grad;  // [n, c, kSoftmaxSums or kSigmoidSums]
};

template <class T>
struct StatisticsKernels {
  void (*softmax)(const Statistics<T>&, int64_t, int64_t);
  void (*sigmoid)(const Statistics<T>&, int64_t, int64_t);
};

template <class T>
struct StatisticsAdjointKernels {
  void (*softmax)(const StatisticsAdjoint<T>&, int64_t, int64_t);
  void (*sigmoid)(const StatisticsAdjoint<T>&, int64_t, int64_t);
};

FASTSEG_TABLES(StatisticsKernels<float>, statistics_f32);
FASTSEG_TABLES(StatisticsKernels<double>, statistics_f64);
FASTSEG_TABLES(StatisticsAdjointKernels<float>, statistics_adjoint_f32);
FASTSEG_TABLES(StatisticsAdjointKernels<double>, statistics_adjoint_f64);

// The class of each pixel, and how many there are; ranges over n * h rows.
struct Classes {
  int64_t h, w;  // rows of a segment, columns
  const void* target;
  Int type;
  int32_t ignore_index, first, classes;
  int32_t* own;    // [n, h, w]: class, or kNone or kIgnored
  int64_t* count;  // [segments, classes + 1]: of each class, and of all that count; one per range, zeroed
  int64_t* bad;    // [n * h]
};

// A pixel on its way through the sort by falling errors, ties by place.
template <class T>
struct Item {
  std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t> key;
  uint32_t place;  // in the segment; the highest bit: whether it is of the class
};

template <class T>
struct Lovasz {                   // ranges over segments * c
  int64_t images, classes, area;  // images of a segment, pixels of an image
  const int32_t* own;             // [n, area]
  const int64_t* count;           // [segments, c + 1]
  const double* share;            // [segments, c]: of each loss in the mean
  const T* values;                // [n, c, area]: probabilities, or logits for the hinge; may be `slope`
  T* slope;                       // [n, c, area]: of the mean in the values
  Item<T>* items;                 // [2, images * area], one per range
  double* loss;                   // [segments, c]
};

template <class T>
struct LovaszAdjoint {  // ranges over n * h rows
  Maps<T> source;
  const T* slope;  // [n, c, h, w]
  T scale;         // gradient of the loss
  T* scratch;      // [2, c, kTile], one per range
  T* grad;         // [n, c, h, w]
};

template <class T>
struct LovaszKernels {
  void (*softmax)(const Lovasz<T>&, int64_t, int64_t);
  void (*hinge)(const Lovasz<T>&, int64_t, int64_t);
  void (*softmax_backward)(const LovaszAdjoint<T>&, int64_t, int64_t);
};

FASTSEG_TABLES(LovaszKernels<float>, lovasz_f32);
FASTSEG_TABLES(LovaszKernels<double>, lovasz_f64);
using ClassesKernel = void (*)(const Classes&, int64_t, int64_t);
FASTSEG_TABLES(ClassesKernel, classes);

}  // namespace fastseg
