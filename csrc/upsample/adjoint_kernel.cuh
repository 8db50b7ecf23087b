// Backwards of the upsample family: the adjoint of bilinear interpolation (docs/ops/upsample.md, "Gradients"), of a
// gradient that is read (bilinear), formed from two reads (softmax) or recomputed from the logits (cross-entropy).
//
// Gathered, without atomics: a block owns the gradient of a chunk of source rows, a tile of source columns and a group
// of classes, and walks the cell rows that reach it. Each thread first sums output rows, weighted for the source rows
// above and below; then, through shared memory, threads sum output columns into three sums per source column: what this
// cell row gives to the row above, to the row below, and what the cell row before it gave to the row they share. So a
// source pixel is always cell row + cell row: the same bits for any chunks and any grid.
//
// Bytes: inputs once, outputs once, and no scratch. The cell row between two chunks is read by both; neighbouring
// chunks walk towards each other and away from each other, so that they are there at the same time and the second read
// comes from the L2 cache, as do those of a tile's border and of the labels by other groups of classes. Per pixel, with
// b bytes a value: bilinear C b; softmax 2 C b (the second pass over a row reads it from L2: with two blocks a
// multiprocessor 512 threads x 8 C bytes lie in between, 10 MB of 132 multiprocessors at 19 classes); cross-entropy 5
// bytes (uint8 label, log-sum-exp). Per pixel and source pixel of scale s, C b (1 + 1 / s^2) at most.
//
// FLOPs per class and pixel: 4 for the rows and 8 / rows for the columns; softmax 4 more, cross-entropy about 20 with
// its exponential. CUDA C++ and not Triton: sums that stay in shared memory along a walk, at places that depend on the
// data's scale, are atomics or a sum over all pairs of output and source columns there.
//
// It falls short where a source column has more output columns than a block has threads: these are summed by one thread
// for each class.
#pragma once
#include "cells.cuh"

namespace fastseg {

// Classes that a block sums between two barriers: of 32 bytes where classes lie side by side.
template <class T>
constexpr int kTogether = sizeof(T) == 4 ? 8 : 4;

// Values in shared memory are padded so that reads a power of two apart hit different banks; so are rows of them.
__host__ __device__ constexpr int32_t slot(int32_t column) { return column + column / 16; }
constexpr int kPitch = slot(kThreads) + 2;

constexpr int32_t kRun = 16;  // output columns that are added one by one

// Blocks that a multiprocessor should hold at once: bounds the registers, without spilling any.
template <class T>
constexpr int kBlocks = sizeof(T) == 4 ? 2 : 1;

constexpr int kSumBytes = 24 << 10;  // of dynamic shared memory for sums; with what is static, below 48 KiB

// The three sums of a source column: what is carried, which the first cell row writes before it is read, and what a
// cell row gives to the source rows above and below.
enum { kCarried, kAbove, kBelow, kSums };

template <class S>
struct Adjoint {
  S* grad;  // [n, c, h, w]
  int64_t stride_n, stride_c, stride_y, stride_x;
  Resample y, x;
  int64_t images;
  int32_t classes;
  int32_t group, columns, rows;  // of a block: classes, source columns, source rows
  int32_t log2_columns;          // rounded up

  __host__ __device__ int64_t groups() const { return (classes + group - 1) / group; }
  __host__ __device__ int64_t tiles() const { return (x.in + columns - 1) / columns; }
  __host__ __device__ int64_t chunks() const { return (y.in + rows - 1) / rows; }
  __host__ __device__ int64_t tasks() const { return images * chunks() * tiles() * groups(); }
};

// What a block owns. Groups of classes of the same pixels, then tiles, are neighbours in the grid.
struct Owned {
  int64_t image;
  int32_t class_begin, classes, column, columns, row, row_end;
  bool downwards;

  template <class S>
  __device__ void take(const Adjoint<S>& p, int64_t task) {
    const int64_t tile = quotient(task, p.groups()), chunk = quotient(tile, p.tiles());
    image = quotient(chunk, p.chunks());
    class_begin = int32_t(task - tile * p.groups()) * p.group;
    classes = smaller(p.group, p.classes - class_begin);
    column = int32_t(tile - chunk * p.tiles()) * p.columns;
    columns = smaller(p.columns, p.x.in - column);
    const int32_t k = int32_t(chunk - image * p.chunks());
    row = k * p.rows;
    row_end = smaller(p.rows, p.y.in - row) + row;
    downwards = k % 2 == 0;
  }
};

// Output pixels of one cell row: what a block has in hand. A thread's own column is x + threadIdx.x.
struct Strip {
  int64_t image;
  int32_t x, columns;    // at most kThreads
  int32_t y, rows;       // left in the cell row; Upstream::kDeep of them at most are its own
  int32_t above, below;  // source rows
};

// Sums over output rows, of one class and output column.
template <class T>
struct alignas(2 * sizeof(T)) Pair {
  T above, below;
};

// Whether classes lie side by side in memory.
template <class Maps>
__device__ inline bool channels_last(const Maps& maps) {
  return maps.stride_c < maps.stride_x;
}

// How a stage of kTogether classes x kThreads columns is dealt to the threads, kTogether places each: a column with all
// classes or, where classes lie side by side in memory, one class in every so many columns.
template <class T>
struct Deal {
  bool by_class;

  __device__ int32_t place(int32_t j) const { return by_class ? threadIdx.x % kTogether<T> : j; }
  __device__ int32_t column(int32_t j) const {
    return by_class ? int32_t(threadIdx.x / kTogether<T>) + j * (kThreads / kTogether<T>) : int32_t(threadIdx.x);
  }
};

// An upstream gives the gradient of upsampled values. `known` is what a thread keeps of a strip, by all threads of the
// block; `read` gives the rows of one class and column, 0 beyond the strip.

// Of upsample_bilinear: as it is.
template <class S>
struct Given {
  using T = Wide<S>;
  static constexpr bool kEveryClass = false;
  static constexpr int kDeep = 4;
  Planes<S> grad;

  struct Constants {};
  struct Known {};
  __device__ Constants constants() const { return {}; }
  __device__ Deal<T> deal() const { return {channels_last(grad)}; }
  __device__ Known known(const Constants&, const Strip&, int32_t, T, const T (&)[kDeep]) const { return {}; }

  __device__ void read(const Known&, const Strip& s, const T (&)[kDeep], int32_t c, int32_t column,
                       T (&value)[kDeep]) const {
    const S* from =
        grad.data + s.image * grad.stride_n + c * grad.stride_c + s.y * grad.stride_y + (s.x + column) * grad.stride_x;
#pragma unroll
    for (int r = 0; r < kDeep; ++r) value[r] = r < s.rows ? widen(from[r * grad.stride_y]) : T(0);
  }
};

// Of upsample_softmax: p (g - sum of g p). A row at a time, so that the second read of a strip hits a cache.
template <class S>
struct Probabilities {
  using T = Wide<S>;
  static constexpr bool kEveryClass = true;
  static constexpr int kDeep = 1;
  Planes<S> grad, output;

  struct Constants {};
  struct Known {
    const T* mean;  // [kThreads]
  };
  __device__ Constants constants() const { return {}; }
  __device__ Deal<T> deal() const { return {channels_last(output)}; }

  __device__ static const S* at(const Planes<S>& p, const Strip& s, int32_t c, int32_t column) {
    return p.data + s.image * p.stride_n + c * p.stride_c + s.y * p.stride_y + (s.x + column) * p.stride_x;
  }

  __device__ Known known(const Constants&, const Strip& s, int32_t, T, const T (&)[kDeep]) const {
    FASTSEG_SHARED(T, mean, kThreads);
    const Deal<T> dealt = deal();
    const int32_t start = dealt.place(0), step = dealt.by_class ? kTogether<T> : 1;
    for (int32_t j = 0; j < step; ++j) {
      const int32_t column = dealt.column(j);
      T sum = 0;
      if (column < s.columns) {
        const S *g = at(grad, s, 0, column), *p = at(output, s, 0, column);
#pragma unroll 4
        for (int32_t c = start; c < output.classes; c += step)
          sum = multiply_add(widen(g[c * grad.stride_c]), widen(p[c * output.stride_c]), sum);
      }
      for (int32_t bits = step / 2; bits > 0; bits /= 2) sum += __shfl_xor_sync(kWarp, sum, bits);
      if (start == 0) mean[column] = sum;
    }
    __syncthreads();
    return {mean};
  }

  __device__ void read(const Known& known, const Strip& s, const T (&)[kDeep], int32_t c, int32_t column,
                       T (&value)[kDeep]) const {
    static_assert(kDeep == 1);
    value[0] = widen(*at(output, s, c, column)) * (widen(*at(grad, s, c, column)) - known.mean[column]);
  }
};

// Of upsample_cross_entropy, with g the gradient of a pixel's loss times its pixel weight, w the class weights and e
// the smoothing: exp(z_c - L) A - [c = t] B - w_c D with B = g (1 - e) w_t, D = g e / C and A = B + D sum(w).
template <class S>
struct Losses {
  using T = Wide<S>;
  static constexpr bool kEveryClass = false;
  static constexpr int kDeep = 4;
  Planes<S> logits;
  Cells cells;
  const void* target;  // [n, H, W], as are log_sum, pixel_weight and, unless it is one value, grad
  Int target_type;
  int32_t ignore_index;
  const T *weight, *pixel_weight;  // or null
  const T *log_sum, *grad;
  bool grad_per_pixel;
  const T* total;  // what the loss was divided by, or null
  T smoothing;

  struct Constants {
    T scale, weights;
  };
  struct Known {
    Column<S> column;
    int32_t label[kDeep];  // -1: ignored; then a, b and d are 0, and NaN logits still make NaN, as in PyTorch
    T chosen[kDeep], log_sum[kDeep], a[kDeep], b[kDeep], d[kDeep];  // chosen: the logit that log_sum is relative to
  };

  __device__ Constants constants() const {
    T sum = weight ? T(0) : T(logits.classes);
    for (int32_t c = 0; weight && c < logits.classes; ++c) sum += weight[c];
    return {(grad_per_pixel ? T(1) : *grad) / (total ? *total : T(1)), sum};
  }

  __device__ Deal<T> deal() const { return {false}; }

  __device__ Known known(const Constants& constants, const Strip& s, int32_t left, T right,
                         const T (&lower)[kDeep]) const {
    const Resample& x = cells.x;
    const Tap<T> across{left, x.upper(left), 1 - right, right};
    Known k{Column<S>(logits, s.image, s.above, s.below, across), {}, {}, {}, {}, {}, {}};
    const bool mine = int32_t(threadIdx.x) < s.columns;
    const int64_t first = (s.image * cells.y.out + s.y) * x.out + s.x + threadIdx.x;
#pragma unroll
    for (int r = 0; r < kDeep; ++r) {
      const int64_t at = first + int64_t(r) * x.out;
      k.label[r] = -1;
      if (!mine || r >= s.rows) continue;
      k.log_sum[r] = log_sum[at];
      const int32_t label = load_label(target, target_type, at);
      const bool known = uint32_t(label) < uint32_t(logits.classes);
      const int32_t c = known ? label : 0;
      T above, below;
      k.column.at(c, above, below);
      const T z = blend(above, 1 - lower[r], below, lower[r]);
      k.chosen[r] = finite(z) ? z : T(0);
      if (label == ignore_index) continue;
      // A label that is no class makes the gradient NaN: the forward has said so, or could not.
      T g = known ? constants.scale : T(NAN);
      if (grad_per_pixel) g *= grad[at];
      if (pixel_weight) g *= pixel_weight[at];
      k.label[r] = known ? label : logits.classes;
      k.b[r] = g * (1 - smoothing) * (weight ? weight[c] : T(1));
      k.d[r] = g * (smoothing / T(logits.classes));
      k.a[r] = multiply_add(k.d[r], constants.weights, k.b[r]);
    }
    return k;
  }

  __device__ void read(const Known& k, const Strip& s, const T (&lower)[kDeep], int32_t c, int32_t,
                       T (&value)[kDeep]) const {
    T above, below;
    k.column.at(c, above, below);
    const T w = weight ? weight[c] : T(1);
#pragma unroll
    for (int r = 0; r < kDeep; ++r) {
      const T z = blend(above, 1 - lower[r], below, lower[r]);
      const T own = multiply_add(w, k.d[r], k.label[r] == c ? k.b[r] : T(0));
      value[r] = r < s.rows ? multiply_add(exponential(z - k.chosen[r] - k.log_sum[r]), k.a[r], -own) : T(0);
    }
  }
};

// Sums the output rows of a strip for `classes` classes from c on. lower: weights of the source row below.
template <class Upstream, class T>
__device__ inline void sum_rows(const Upstream& upstream, const typename Upstream::Known& known, const Strip& s,
                                const T (&lower)[Upstream::kDeep], int32_t c, int32_t classes, Pair<T>* stage) {
  const Deal<T> dealt = upstream.deal();
#pragma unroll 2
  for (int32_t j = 0; j < kTogether<T>; ++j) {
    const int32_t place = dealt.place(j), column = dealt.column(j);
    if (place >= classes || column >= s.columns) continue;
    T value[Upstream::kDeep];
    upstream.read(known, s, lower, c + place, column, value);
    Pair<T> sum{0, 0};
#pragma unroll
    for (int r = 0; r < Upstream::kDeep; ++r) {
      sum.above = multiply_add(value[r], 1 - lower[r], sum.above);
      sum.below = multiply_add(value[r], lower[r], sum.below);
    }
    stage[place * kPitch + slot(column)] = sum;
  }
}

// Adds the output columns of a strip, from both cells beside a source column, to the sums of `classes` classes.
// first[k]: the first output column of the cell left of source column k of the tile. right: weights of the columns.
template <class S, class T>
__device__ inline void sum_columns(const Adjoint<S>& p, const Owned& own, const Strip& s, const int32_t* first,
                                   const T* right, const Pair<T>* stage, int32_t classes, T* sums) {
  const int32_t plane = p.group * p.columns;
  const auto within = [&](int32_t x) { return smaller(larger(x - s.x, 0), s.columns); };
  for (int32_t i = threadIdx.x; i < classes << p.log2_columns; i += kThreads) {
    const int32_t place = i >> p.log2_columns, k = i & ((1 << p.log2_columns) - 1);
    if (k >= own.columns) continue;
    const Pair<T>* from = stage + place * kPitch;
    const int32_t here = within(first[k + 1]), end = within(first[k + 2]);
    const bool last = own.column + k + 1 == p.x.in;  // its outputs have no neighbour on the right
    T above = 0, below = 0;
    const auto add = [&](int32_t x, int32_t stop, auto weigh) {
      while (x < stop) {  // sums of sums: long ones keep their digits
        const int32_t pause = smaller(stop, x + kRun);
        T run_above = 0, run_below = 0;
#pragma unroll 2
        for (; x < pause; ++x) {
          const T weight = weigh(right[slot(x)]);
          run_above = multiply_add(from[slot(x)].above, weight, run_above);
          run_below = multiply_add(from[slot(x)].below, weight, run_below);
        }
        above += run_above;
        below += run_below;
      }
    };
    if (p.x.in != p.x.out) add(within(first[k]), here, [](T w) { return w; });
    add(here, end, [&](T w) { return last ? T(1) : 1 - w; });
    T* const sum = sums + place * p.columns + k;
    const bool paired = s.above != s.below;
    sum[kAbove * plane] += paired ? above : above + below;
    if (paired) sum[kBelow * plane] += below;
  }
}

// After a cell row: stores the source row that has all its sums now, and carries what the next cell row shares.
template <class S, class T>
__device__ inline void finish(const Adjoint<S>& p, const Owned& own, int32_t cell, T* sums) {
  const int32_t plane = p.group * p.columns, row = own.downwards ? cell : cell + 1;
  const bool stored = row >= own.row && row < own.row_end, by_class = channels_last(p);
  const int32_t inner = by_class ? own.classes : own.columns;
  S* const out = p.grad + own.image * p.stride_n + row * p.stride_y;
  for (int32_t i = threadIdx.x; i < own.classes * own.columns; i += kThreads) {
    const int32_t outer = i / inner, rest = i - outer * inner;
    const int32_t c = by_class ? rest : outer, k = by_class ? outer : rest;
    T* const sum = sums + c * p.columns + k;
    const T above = sum[kAbove * plane], below = sum[kBelow * plane];
    if (stored)
      narrow(sum[kCarried * plane] + (own.downwards ? above : below),
             out[(own.class_begin + c) * p.stride_c + (own.column + k) * p.stride_x]);
    sum[kCarried * plane] = own.downwards ? below : above;
    sum[kAbove * plane] = sum[kBelow * plane] = 0;
  }
}

template <class S, class Upstream>
__global__ void __launch_bounds__(kThreads, kBlocks<Wide<S>>) adjoint(const Adjoint<S> p, const Upstream upstream) {
  using T = Wide<S>;
  constexpr int kDeep = Upstream::kDeep;
  FASTSEG_SHARED(Pair<T>, stage, kTogether<T> * kPitch);
  FASTSEG_SHARED(int32_t, left, kThreads);
  FASTSEG_SHARED(T, right, slot(kThreads));
  FASTSEG_SHARED(T, down, kDeep);
  FASTSEG_SHARED(typename Upstream::Constants, constants, 1);
  FASTSEG_SHARED(Owned, block, 1);
  FASTSEG_SHARED(Strip, strip, 1);
  FASTSEG_DYNAMIC_SHARED(T, sums);  // [kSums, group, columns]
  int32_t* const first = (int32_t*)(sums + kSums * p.group * p.columns);
  if (threadIdx.x == 0) *constants = upstream.constants();
  for (int64_t task = blockIdx.x; task < p.tasks(); task += gridDim.x) {
    __syncthreads();  // the task before this one is done
    if (threadIdx.x == 0) block->take(p, task);
    __syncthreads();
    const Owned& own = *block;
    for (int32_t i = threadIdx.x; i < own.columns + 2; i += kThreads) first[i] = first_of(p.x, own.column - 1 + i);
    for (int32_t i = kAbove * p.group * p.columns + threadIdx.x; i < kSums * p.group * p.columns; i += kThreads)
      sums[i] = 0;
    __syncthreads();
    int32_t tapped = -1;  // the strip whose columns `left` and `right` hold
    for (int32_t i = 0; i <= own.row_end - own.row; ++i) {
      const int32_t cell = own.downwards ? own.row - 1 + i : own.row_end - 1 - i;
      const int32_t begin = first_of(p.y, cell), end = first_of(p.y, cell + 1);
      for (int32_t x = first[0]; x < first[own.columns + 1]; x += kThreads) {
        if (x != tapped) {
          const Tap<T> across = tap<T>(p.x, x + int32_t(threadIdx.x));
          left[threadIdx.x] = across.lower;
          right[slot(threadIdx.x)] = across.upper_weight;
          tapped = x;
        }
        for (int32_t y = begin; y < end; y += kDeep) {
          if (threadIdx.x < kDeep) down[threadIdx.x] = upper_weight<T>(p.y, y + int32_t(threadIdx.x), cell);
          if (threadIdx.x == 0)
            *strip = {own.image, x, smaller(kThreads, first[own.columns + 1] - x), y, end - y, cell, p.y.upper(cell)};
          __syncthreads();
          T lower[kDeep];
#pragma unroll
          for (int r = 0; r < kDeep; ++r) lower[r] = down[r];
          const auto known = upstream.known(*constants, *strip, left[threadIdx.x], right[slot(threadIdx.x)], lower);
          for (int32_t c = 0; c < (Upstream::kEveryClass ? own.classes : 1); c += kTogether<T>) {
            const int32_t classes = smaller(kTogether<T>, own.classes - c);
            sum_rows(upstream, known, *strip, lower, own.class_begin + c, classes, stage);
            __syncthreads();
            sum_columns(p, own, *strip, first, right, stage, classes, sums + c * p.columns);
            __syncthreads();
          }
        }
      }
      finish(p, own, cell, sums);
    }
  }
}

}  // namespace fastseg
