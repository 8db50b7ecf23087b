// Sums over pixels that region losses are made of, of logits that are upsampled on the way, and the Lovász extension of
// the Jaccard loss. Shapes: logits [n, c, h, w], targets [n, H, W].
#pragma once
#include "../upsample/upsample.h"

namespace fastseg {

// The sums of a class: y p, p, p^2, y, -y log p, -y (1 - p)^gamma log p, and the last two with y and p inverted.
enum Sums : int64_t { kOverlap, kPredicted, kSquared, kTrue, kEntropy, kFocal, kOtherEntropy, kOtherFocal };
constexpr int64_t kSoftmaxSums = 6, kSigmoidSums = 8;

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
                            // [kTile, 2 c + (4 + c) kTileRows], sigmoid [kTile, kTileRows]
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

}  // namespace fastseg
