// Mean field on a map. Shapes, of one sample: blocks [chunks, n, pitch] of n points, with up to 32 channels beside each
// other in a chunk; chunks of a block are `stride` values apart.
#pragma once
#include <stdint.h>

#include "../common/isa.h"

namespace fastseg {

constexpr int kTapRows = 4;  // rows that are filtered together

// One axis of a Gaussian.
template <class T>
struct Taps {
  int64_t reach;
  const T* weights;  // by offset, of at most reach + kTapRows - 1; beyond `reach` they are 0
};

// Logits -(u + sum of compatibility * message), and what is kept of their softmax.
template <class T>
struct Settle {
  int64_t n, channels, chunks, pitch;
  const T* unary;
  int64_t unary_stride;
  const T* messages[2];  // of each kernel, or null
  int64_t message_stride;
  const T *after[2], *self[2];  // [n] or null: factors of messages, and of what was kept, which is taken off
  const T* compatibility[2];    // [chunks pitch] of a diagonal; [channels, chunks pitch] by columns if `full`
  bool full;
  const T *old, *kept;  // what was kept; [n] or null: factors of what is kept
  T* values;            // it
  int64_t stride;
};

template <class T>
struct FieldKernels {
  // Rows [begin, end) of n rows of `length` values: sums over the rows near each one, `step` apart.
  void (*down)(const T* const* rows, int64_t n, int64_t begin, int64_t end, int64_t length, Taps<T>, T* out,
               int64_t step);
  // The same for `length` values in a row whose neighbours are `pitch` values apart.
  void (*across)(const T* row, int64_t length, int64_t pitch, Taps<T>, T* out);
  void (*logits)(const Settle<T>&);
  void (*settle)(const Settle<T>&);
};

constexpr int64_t kMostChunks = 64;

FASTSEG_TABLES(FieldKernels<float>, mean_field_f32);
FASTSEG_TABLES(FieldKernels<double>, mean_field_f64);

}  // namespace fastseg
