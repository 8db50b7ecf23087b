// Kernel-sharing atrous convolution. Shapes: maps [n, c, h, w]; the nine responses of a map, one for each tap t = 3 i +
// j of the 3x3 kernel, which a rate r reads (i - 1) r rows and (j - 1) r columns away.
//
// Pixels of a map are kept strip by strip: up to three ranges of columns, of which each tap either reads all or none.
// In a strip pixels follow one another by rows, and a pixel holds its channels: so what a tap reads of a strip is a run
// of rows, and a matrix for a GEMM.
#pragma once
#include <stdint.h>

#include "../common/activation.h"
#include "../common/dtypes.h"
#include "../common/isa.h"

namespace fastseg {

constexpr int kTaps = 9, kStrips = 3;
constexpr int64_t kBlock = 16;  // pixels at a time that change places
constexpr int64_t kRun = 256;   // values that are added up before their sum is added to others

// The columns [begin, end) of a strip; pixels of a strip of a map h high start at begin * h.
struct Strip {
  int64_t begin, end;
};

struct Strips {
  Strip of[kStrips];
  int count;
};

// The responses of one tap in one strip, rows [first, last), of which `ring` are kept at a time. (y, x, c) lies at
// data[((y - first) % ring * width + x - begin) * pixel + c]. Null where no rate reads it.
template <class T>
struct Piece {
  T* data;
  int64_t first, last, ring, pixel;
};

template <class T>
struct Responses {
  Piece<T> of[kStrips][kTaps];
  Strips strips;
  int64_t h, w, channels;
};

template <class T>
struct Gather {  // responses -> result; ranges over rows of the map
  Responses<T> responses;
  const int64_t* rates;
  int64_t count;
  const T *scale, *shift;  // of rate k at k * vector; null: 1 and 0
  int64_t vector;
  Activation activation;
  bool sum;
  T* out;  // of rate k: (y, x, c) at k * rate + ((y - first) * w + x) * pixel + c
  int64_t rate, pixel, first;
};

template <class T>
struct Spread {  // gradients of all rates -> those of the responses; ranges over rows of the map
  Responses<T> responses;
  const int64_t* rates;
  int64_t count;
  const T* grad;  // [count, rows, w, channels], rows from `first` on
  int64_t first, rows;
};

template <class T>
struct Regroup {  // maps <-> strips; ranges over blocks of kBlock pixels
  T* maps;        // (y, x, c) at (y * w + x) * pixel + c * plane: one of these two is 1
  int64_t pixel, plane;
  T* pixels;  // strip by strip, [h, width, channels]
  int64_t h, w, channels;
  Strips strips;
};

template <class T>
struct Weights {  // of channels of the result; ranges over channels
  T* weight;      // (c, k, i, j) at the strides
  int64_t stride_c, stride_k, stride_i, stride_j;
  T* taps;  // [9, channels, inputs]
  int64_t channels, inputs;
};

template <class T>
struct Fuse {      // what follows responses that were kept, and its gradients
  const T* terms;  // [images, count * channels, pixels], or channels_last
  int64_t images, count, channels, pixels;
  bool last, sum;
  const T *scale, *shift;  // [count, channels]; null: 1 and 0
  Activation activation;
  T* result;     // forward; backward: its gradient
  T* of_terms;   // backward
  double* sums;  // backward: of each range's runs, for scale and shift
};

template <class T>
struct FuseTable {
  void (*fuse)(const Fuse<T>&, int64_t, int64_t);    // ranges over pixels (channels_last) or planes of a rate
  void (*unfuse)(const Fuse<T>&, int64_t, int64_t);  // ranges over runs of kRun pixels or planes of a rate
};

template <class T>
struct KsacTable {
  void (*gather)(const Gather<T>&, int64_t, int64_t);
  void (*spread)(const Spread<T>&, int64_t, int64_t);
};

template <class T>
struct RegroupTable {
  void (*to_strips)(const Regroup<T>&, int64_t, int64_t);
  void (*from_strips)(const Regroup<T>&, int64_t, int64_t);
  void (*to_taps)(const Weights<T>&, int64_t, int64_t);
  void (*add_taps)(const Weights<T>&, int64_t, int64_t);
};

FASTSEG_TABLES(KsacTable<float>, ksac_f32);
FASTSEG_TABLES(KsacTable<double>, ksac_f64);
FASTSEG_TABLES(FuseTable<float>, fuse_f32);
FASTSEG_TABLES(FuseTable<double>, fuse_f64);
FASTSEG_TABLES(RegroupTable<float>, regroup_f32);
FASTSEG_TABLES(RegroupTable<double>, regroup_f64);

}  // namespace fastseg
