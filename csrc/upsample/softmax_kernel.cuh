// Softmax of bilinearly upsampled logits, and what takes one number of it: the confidence of the argmax, and
// cross-entropy with its log-sum-exp (docs/ops/upsample.md).
//
// One pass over the classes finds maximum and sum of exponentials together (Milakov and Gimelshein 2018): where a logit
// exceeds the maximum so far, the sum is scaled, so that each logit takes one exponential. Softmax interpolates once
// more and writes; the logit of the target is interpolated by itself.
//
// Reads 4 C h w bytes of float32 in a pass; source rows come from the L2 cache when the next cell row reads them again.
// Softmax writes 4 C bytes for each output pixel; confidence 5; cross-entropy reads a label and writes 4. About 12
// operations and an exponential for each class, output pixel and pass.
// CUDA C++ and not Triton: the number of classes is known at run time only. Triton would hold a padded power of two of
// them in registers, or give up the reuse of the two source rows.
#pragma once
#include "cells.cuh"

namespace fastseg {

template <class S>
struct Softmax {
  Planes<S> logits;
  Cells cells;
};

// Maximum and sum of exponentials of the logits so far, for each row.
template <class T>
struct Online {
  T most[kRows], sum[kRows];

  __device__ Online() {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      most[r] = lowest(T(0));  // not -inf: the difference of two of those is NaN
      sum[r] = 0;
    }
  }

  __device__ void add(int r, T v) {
    const T above = v - most[r], scale = exponential(above > 0 ? -above : above);
    sum[r] = above > 0 ? multiply_add(sum[r], scale, T(1)) : sum[r] + scale;
    most[r] = above > 0 ? v : most[r];
  }

  // PyTorch's softmax is NaN where a logit is NaN or +inf, or all are -inf.
  __device__ bool defined(int r) const { return finite(most[r]) && sum[r] > 0; }

 private:
  static __device__ float lowest(float) { return -3.402823466e38f; }
  static __device__ double lowest(double) { return -1.7976931348623157e308; }
};

// The rows of a column that a thread has in hand.
template <class T>
struct RowGroup {
  int32_t y, count;  // the first one, and what is left of the cell row from there on
  T weight[kRows];

  __device__ RowGroup(const Cells& cells, const CellTile& tile, int32_t first) : y(first), count(tile.end - first) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) weight[r] = upper_weight<T>(cells.y, y + r, tile.row);
  }

  __device__ T at(int r, T above, T below) const { return blend(above, 1 - weight[r], below, weight[r]); }
};

template <class S>
__device__ inline Column<S> column_of(const Softmax<S>& p, const CellTile& tile, int32_t x) {
  using T = Wide<S>;
  const int32_t width = p.cells.x.out, below = tap<T>(p.cells.y, tile.begin).upper;
  return Column<S>(p.logits, tile.image, tile.row, below, tap<T>(p.cells.x, smaller(x, width - 1)));
}

template <class S>
__device__ inline Online<Wide<S>> sums(const Column<S>& column, int32_t classes, const RowGroup<Wide<S>>& rows) {
  Online<Wide<S>> online;
  for (int32_t c = 0; c < classes; ++c) {
    Wide<S> above, below;
    column.at(c, above, below);
#pragma unroll
    for (int r = 0; r < kRows; ++r) online.add(r, rows.at(r, above, below));
  }
  return online;
}

// Classes that a warp turns round in shared memory, so that channels_last is stored in runs and not in single values.
template <class T>
constexpr int kTurned = sizeof(T) == 8 ? 4 : 8;

template <class S, bool kChannelsLast>
__global__ void __launch_bounds__(kThreads, kResident<S>) softmax(const Softmax<S> p, S* out) {
  using T = Wide<S>;
  constexpr int n = kChannelsLast ? kTurned<T> : 4;  // classes in flight
  FASTSEG_SHARED(T, turned, kChannelsLast ? kThreads * kRows * (n + 1) : 1);
  const int32_t classes = p.logits.classes, width = p.cells.x.out, height = p.cells.y.out;
  const int lane = threadIdx.x % 32;
  for (int64_t task = blockIdx.x; task < p.cells.tasks(); task += gridDim.x) {
    const CellTile tile(p.cells, task);
    const int32_t x = tile.column + int32_t(threadIdx.x);
    const Column<S> column = column_of(p, tile, x);
    for (const int32_t y : tile.groups()) {
      const RowGroup<T> rows(p.cells, tile, y);
      Online<T> online = sums(column, classes, rows);
#pragma unroll
      for (int r = 0; r < kRows; ++r) online.sum[r] = online.defined(r) ? 1 / online.sum[r] : T(NAN);
      for (int32_t first = 0; first < classes; first += n) {
#pragma unroll
        for (int k = 0; k < n; ++k) {
          if (first + k >= classes) break;
          T above, below;
          column.at(first + k, above, below);
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            const T value = exponential(rows.at(r, above, below) - online.most[r]) * online.sum[r];
            if (kChannelsLast)
              turned[(threadIdx.x * kRows + r) * (n + 1) + k] = value;
            else if (x < width && r < rows.count)
              narrow(value, out[((tile.image * classes + first + k) * height + y + r) * width + x]);
          }
        }
        if (!kChannelsLast) continue;
        __syncwarp();
        const int k = lane % n;
        for (int from = lane / n; from < 32; from += 32 / n) {
          const int32_t thread = int32_t(threadIdx.x) - lane + from, place = tile.column + thread;
          for (int r = 0; r < kRows && r < rows.count; ++r)
            if (place < width && first + k < classes)
              narrow(turned[(thread * kRows + r) * (n + 1) + k],
                     out[((tile.image * height + y + r) * width + place) * classes + first + k]);
        }
        __syncwarp();
      }
    }
  }
}

template <class S>
__global__ void __launch_bounds__(kThreads, kResident<S>)
    confidence(const Softmax<S> p, void* labels, Int type, Wide<S>* out) {
  using T = Wide<S>;
  for (int64_t task = blockIdx.x; task < p.cells.tasks(); task += gridDim.x) {
    const CellTile tile(p.cells, task);
    const int32_t x = tile.column + int32_t(threadIdx.x), width = p.cells.x.out;
    if (x >= width) continue;
    const Column<S> column = column_of(p, tile, x);
    for (const int32_t y : tile.groups()) {
      const RowGroup<T> rows(p.cells, tile, y);
      Online<T> online;
      int32_t label[kRows] = {};
      for (int32_t c = 0; c < p.logits.classes; ++c) {
        T above, below;
        column.at(c, above, below);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          const T v = rows.at(r, above, below);
          // The lowest class of equals, and the first NaN, as torch.argmax. The least number wins over -inf.
          const bool wins = v > online.most[r] || (v == online.most[r] && online.sum[r] == 0) ||
                            (v != v && online.most[r] == online.most[r]);
          label[r] = wins ? c : label[r];
          online.add(r, v);
          if (v != v) online.most[r] = v;
        }
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (r >= rows.count) break;
        const int64_t at = (tile.image * p.cells.y.out + y + r) * width + x;
        store_label(labels, type, at, label[r]);
        out[at] = online.defined(r) ? 1 / online.sum[r] : T(NAN);
      }
    }
  }
}

template <class S>
struct CrossEntropy {
  Softmax<S> softmax;
  const void* target;  // [n, H, W]
  Int target_type;
  int32_t ignore_index;
  const Wide<S>*weight, *pixel_weight;  // [c], [n, H, W]; null: ones
  Wide<S> smoothing;
  Wide<S>* log_sum;  // [n, H, W]: log-sum-exp less the logit of the target (class 0 where that is none), if finite
  S* loss;           // [n, H, W] or null
  double* sums;      // [tasks, 2]: loss and weight of each block of pixels
  Fault* fault;
};

// Adds up the pairs of a block in a fixed order; the first thread gets the sums.
__device__ inline void add_up(double& a, double& b, double* scratch) {
  for (int by = 16; by > 0; by /= 2) {
    a += __shfl_down_sync(kWarp, a, by);
    b += __shfl_down_sync(kWarp, b, by);
  }
  if (threadIdx.x % 32 == 0) {
    scratch[threadIdx.x / 32 * 2] = a;
    scratch[threadIdx.x / 32 * 2 + 1] = b;
  }
  __syncthreads();
  if (threadIdx.x == 0)
    for (int warp = 1; warp < kThreads / 32; ++warp) {
      a += scratch[2 * warp];
      b += scratch[2 * warp + 1];
    }
  __syncthreads();
}

template <class S>
constexpr int kLossResident = sizeof(Wide<S>) == 8 ? 1 : 2;

template <class S>
__global__ void __launch_bounds__(kThreads, kLossResident<S>) cross_entropy(const CrossEntropy<S> p) {
  using T = Wide<S>;
  FASTSEG_SHARED(double, scratch, kThreads / 32 * 2);
  const Cells& cells = p.softmax.cells;
  const int32_t classes = p.softmax.logits.classes, width = cells.x.out;
  for (int64_t task = blockIdx.x; task < cells.tasks(); task += gridDim.x) {
    const CellTile tile(cells, task);
    const int32_t x = tile.column + int32_t(threadIdx.x);
    double total_loss = 0, total_weight = 0;
    if (x < width) {
      const Column<S> column = column_of(p.softmax, tile, x);
      for (const int32_t y : tile.groups()) {
        const RowGroup<T> rows(cells, tile, y);
        const Online<T> online = sums(column, classes, rows);
        T uniform[kRows] = {};
        if (p.smoothing > 0)
          for (int32_t c = 0; c < classes; ++c) {
            T above, below;
            column.at(c, above, below);
            const T w = p.weight ? p.weight[c] : T(1);
#pragma unroll
            for (int r = 0; r < kRows; ++r)
              uniform[r] += w * (online.most[r] - rows.at(r, above, below) + logarithm(online.sum[r]));
          }
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (r >= rows.count) break;
          const int64_t at = (tile.image * cells.y.out + y + r) * width + x;
          const T log_sum = online.defined(r) ? logarithm(online.sum[r]) : T(NAN);
          const int32_t label = load_label(p.target, p.target_type, at);
          const bool known = uint32_t(label) < uint32_t(classes), counts = label != p.ignore_index;
          if (counts && !known) note_fault(p.fault, at);
          T above, below;
          column.at(known ? label : 0, above, below);
          // Less the chosen logit, so that an offset that all classes share costs no digits.
          const T chosen = rows.at(r, above, below), relative = online.most[r] - chosen + log_sum;
          p.log_sum[at] = finite(chosen) ? relative : online.most[r] + log_sum;
          T loss = 0, weight = 0;
          if (counts) {
            const T pixel = p.pixel_weight ? p.pixel_weight[at] : T(1);
            const T own = !known ? T(NAN) : p.weight ? p.weight[label] : T(1);
            weight = own * pixel;
            loss = pixel * (own * (1 - p.smoothing) * relative + p.smoothing / T(classes) * uniform[r]);
          }
          if (p.loss) narrow(loss, p.loss[at]);
          total_loss += loss;
          total_weight += weight;
        }
      }
    }
    add_up(total_loss, total_weight, scratch);
    if (threadIdx.x == 0) {
      p.sums[2 * task] = total_loss;
      p.sums[2 * task + 1] = total_weight;
    }
  }
}

// One block: the sums of all tasks, in order; reduction as in fastseg.reference.upsample.REDUCTIONS.
template <class S>
__global__ void __launch_bounds__(kThreads, kResident<S>)
    reduce_loss(const double* sums, int64_t tasks, int64_t reduction, S* loss, Wide<S>* total) {
  FASTSEG_SHARED(double, scratch, kThreads / 32 * 2);
  double a = 0, b = 0;
  for (int64_t i = threadIdx.x; i < tasks; i += kThreads) {
    a += sums[2 * i];
    b += sums[2 * i + 1];
  }
  add_up(a, b, scratch);
  if (threadIdx.x != 0) return;
  *total = Wide<S>(b);
  if (reduction != 0) narrow(Wide<S>(reduction == 1 ? a / b : a), *loss);
}

}  // namespace fastseg
