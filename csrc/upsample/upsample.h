// Bilinear upsampling and its fusions. Shapes: sources [n, c, h, w], results [n, c, H, W] or [n, H, W].
//
// A source row r and its lower neighbour form a *cell row*: the output rows whose lower source index is r. Kernels work
// on ranges of cell rows (n * h of them in all), so that the horizontal interpolation of two source rows serves every
// output row between them.
#pragma once
#include <stdint.h>

#include "../common/dtypes.h"
#include "../common/isa.h"

namespace fastseg {

constexpr int64_t kPadding = 16;  // source rows and axis tables are readable that far: one vector of any ISA

// One axis of a resize: output p lies between the source indices lower[p] and upper[p].
template <class T>
struct Axis {
  int64_t in, out;
  const int32_t *lower, *upper;          // [out + kPadding], the last one repeated
  const T *lower_weight, *upper_weight;  // [out + kPadding], sum 1
  const int32_t* first;                  // [in + 1]: the outputs of cell i are [first[i], first[i + 1])
};

// Source maps, unit stride along a row of max(w, kPadding) readable values.
template <class T>
struct Maps {
  const T* data;
  int64_t n, c, h, w;
  int64_t stride_n, stride_c, stride_y;
};

// A tensor [n, c, h, w] of any float type and strides (in elements).
struct Strided {
  void* data;
  Float type;
  int64_t n, c, h, w;
  int64_t stride_n, stride_c, stride_y, stride_x;
};

template <class T>
struct Pack {  // strided <-> packed planes [n, c, h, pitch]; ranges over n * h rows
  Strided tensor;
  T* planes;
  int64_t pitch;
};

template <class T>
struct Resize {  // bilinear forward and threshold; ranges over n * h cell rows
  Maps<T> source;
  Axis<T> y, x;
  Strided out;  // bool for threshold (type is then unused)
  bool channels_last;
  T threshold;
  T* scratch;  // channels_last: [3 * w * c + W * c], one per range
};

constexpr int64_t kWords = 32;  // of 32 classes each, which a set of candidates holds

template <class T>
struct Labels {  // argmax; ranges over n * h rows or cell rows
  Maps<T> source;
  Axis<T> y, x;
  int32_t* corners;      // [n, h, w] argmax at source resolution, -1 where a class is not finite; null: no shortcut
  uint32_t* candidates;  // [n, h, (c + 31) / 32, w] scratch; null: none, and none where c > 32 * kWords
  void* out;             // labels of the output rows from `origin` (an index into n * H) on
  Int type;
  int64_t origin;
};

template <class T>
struct Softmax {  // softmax, confidence and cross-entropy forward; ranges over n * h cell rows
  Maps<T> source;
  Axis<T> y, x;
  T* scratch;   // [2 + kRows, c, lanes], one per range
  Strided out;  // softmax
  bool channels_last;
  void* labels;  // confidence: [n, H, W]
  Int label_type;
  T* confidence;       // [n, H, W]
  const void* target;  // cross-entropy: [n, H, W]
  Int target_type;
  int32_t ignore_index;
  const T *weight, *pixel_weight;  // [c], [n, H, W]; null: ones
  T smoothing;
  T *log_sum, *loss;  // [n, H, W]: log of the sum of exp(logit - what was subtracted); loss null: only the sums
  double* sums;       // [n * h, 2]: loss and weight of each cell row
  int64_t* bad;       // [n * h]: first place of a label out of range, or -1
};

template <class T>
struct Adjoint {  // backwards; ranges over n * chunks
  Axis<T> y, x;
  int64_t n, c, chunk, chunks;  // source rows per chunk
  T* grad;                      // [n, c, h, w] planes, or [n, h, w, c] for channels_last; zeroed
  T* edge;                      // [n, chunks, c, w] (or [.., w, c]): what a chunk adds to the row below it; zeroed
  T* scratch;                   // one per range
  Strided upstream, output;     // bilinear, softmax: [n, c, H, W]; output = the probabilities
  Maps<T> source;               // cross-entropy
  const void* target;
  Int target_type;
  int32_t ignore_index;
  const T *weight, *pixel_weight, *log_sum;
  const T* loss_grad;  // a scalar, or [n, H, W] with loss_grad_stride 1
  int64_t loss_grad_stride;
  T scale, smoothing;
};

template <class T>
struct UpsampleKernels {
  void (*pack)(const Pack<T>&, int64_t, int64_t);
  void (*unpack)(const Pack<T>&, int64_t, int64_t);
  void (*bilinear)(const Resize<T>&, int64_t, int64_t);
  void (*threshold)(const Resize<T>&, int64_t, int64_t);
};

template <class T>
struct LabelKernels {
  void (*corners)(const Labels<T>&, int64_t, int64_t);
  void (*argmax)(const Labels<T>&, int64_t, int64_t);
};

template <class T>
struct SoftmaxKernels {
  void (*softmax)(const Softmax<T>&, int64_t, int64_t);
  void (*confidence)(const Softmax<T>&, int64_t, int64_t);
  void (*cross_entropy)(const Softmax<T>&, int64_t, int64_t);
};

template <class T>
struct AdjointKernels {
  void (*bilinear)(const Adjoint<T>&, int64_t, int64_t);
  void (*bilinear_channels_last)(const Adjoint<T>&, int64_t, int64_t);
  void (*softmax)(const Adjoint<T>&, int64_t, int64_t);
  void (*cross_entropy)(const Adjoint<T>&, int64_t, int64_t);
};

FASTSEG_TABLES(UpsampleKernels<float>, upsample_f32);
FASTSEG_TABLES(UpsampleKernels<double>, upsample_f64);
FASTSEG_TABLES(LabelKernels<float>, labels_f32);
FASTSEG_TABLES(LabelKernels<double>, labels_f64);
FASTSEG_TABLES(SoftmaxKernels<float>, softmax_f32);
FASTSEG_TABLES(SoftmaxKernels<double>, softmax_f64);
FASTSEG_TABLES(AdjointKernels<float>, adjoint_f32);
FASTSEG_TABLES(AdjointKernels<double>, adjoint_f64);

constexpr int64_t kTile = 128;     // output columns that a backward tile spans
constexpr int64_t kTileRows = 16;  // output rows that it spans
constexpr int64_t kTogether = 4;   // classes whose horizontal sums are taken at once
constexpr int64_t kWide = 256;     // output columns at a time of a backward that takes few classes at a time

}  // namespace fastseg
