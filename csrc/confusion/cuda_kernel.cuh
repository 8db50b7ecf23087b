// Confusion matrices: pairs of target and prediction, counted in shared memory.
//
// Each block has a histogram of 32 bits a cell in shared memory, each thread the length of its current run of equal
// pairs, so that smooth labels cost one atomic for a run and not for a pixel. Blocks add their histograms to int64
// counts; integers, so that any order gives the same. More than 108 classes, or 2^32 pixels and more, which one block
// may meet, are counted in device memory.
//
// Reads a target and a prediction for each pixel, 16 labels of a byte at a time, and little else; from logits the
// prediction is a label of upsample/argmax_kernel.cuh that is never stored.
// CUDA C++ and not Triton: shared memory with atomics is what the work is, and Triton's histogram knows no pairs.
#pragma once
#include "../common/kernel.cuh"

namespace fastseg {

constexpr int kCountThreads = 256;
constexpr int kLabels = 16;             // consecutive pixels of a thread
constexpr int kSharedClasses = 108;     // a matrix of 46 KiB of int32
constexpr int64_t kCountBlocks = 1024;  // a histogram each: more would cost more to add than they hide

// Counts the labels that a thread is given. All threads of a block begin and end together.
struct Histogram {
  const void* target;
  Int target_type;
  int32_t classes, ignore_index;
  Fault* counts;  // [classes, classes], zero at first
  Fault *bad_target, *bad_prediction;
  bool in_shared;  // whether each block counts in shared memory
  int32_t cell = -1;
  unsigned run = 0;

  __host__ __device__ int32_t cells() const { return classes * classes; }

  __device__ void begin() const {
    if (!in_shared) return;
    FASTSEG_DYNAMIC_SHARED(unsigned, mine);
    for (int32_t i = threadIdx.x; i < cells(); i += blockDim.x) mine[i] = 0;
    __syncthreads();
  }

  __device__ void put(int64_t at, int32_t prediction) { pair(at, load_label(target, target_type, at), prediction); }

  __device__ void pair(int64_t at, int32_t expected, int32_t predicted) {
    if (expected == ignore_index) return;
    if (uint32_t(expected) >= uint32_t(classes)) return note_fault(bad_target, at);
    if (uint32_t(predicted) >= uint32_t(classes)) return note_fault(bad_prediction, at);
    const int32_t now = expected * classes + predicted;
    if (now != cell) {
      flush();
      cell = now;
      run = 0;
    }
    ++run;
  }

  __device__ void flush() const {
    if (run == 0) return;
    FASTSEG_DYNAMIC_SHARED(unsigned, mine);
    if (in_shared)
      atomicAdd(&mine[cell], run);
    else
      atomicAdd(&counts[cell], Fault(run));
  }

  __device__ void end() const {
    flush();
    if (!in_shared) return;
    FASTSEG_DYNAMIC_SHARED(unsigned, mine);
    __syncthreads();
    for (int32_t i = threadIdx.x; i < cells(); i += blockDim.x)
      if (mine[i]) atomicAdd(&counts[i], Fault(mine[i]));
  }
};

struct Bytes {
  uint8_t label[kLabels];
};

__device__ inline Bytes load_bytes(const void* labels, int64_t at) {
  const uint4 words = *reinterpret_cast<const uint4*>((const uint8_t*)labels + at);
  Bytes out;
  memcpy(&out, &words, sizeof out);
  return out;
}

// `bytes`: both are uint8 at addresses divisible by 16.
__global__ void __launch_bounds__(kCountThreads, 4)
    count_pairs(Histogram histogram, const void* prediction, Int prediction_type, int64_t n, bool bytes) {
  histogram.begin();
  const int64_t runs = (n + kLabels - 1) / kLabels;
  for (int64_t i = int64_t(blockIdx.x) * kCountThreads + threadIdx.x; i < runs;
       i += int64_t(gridDim.x) * kCountThreads) {
    const int64_t first = i * kLabels;
    if (bytes && first + kLabels <= n) {
      const Bytes expected = load_bytes(histogram.target, first), predicted = load_bytes(prediction, first);
#pragma unroll
      for (int k = 0; k < kLabels; ++k) histogram.pair(first + k, expected.label[k], predicted.label[k]);
    } else {
      for (int64_t at = first; at < first + kLabels && at < n; ++at)
        histogram.put(at, load_label(prediction, prediction_type, at));
    }
  }
  histogram.end();
}

// Adds the counts to the result. After a data error every entry is the largest integer, and stays that.
__global__ void __launch_bounds__(kCountThreads) add_counts(const Histogram histogram, int64_t* out) {
  const bool bad = *histogram.bad_target || *histogram.bad_prediction;
  const int64_t cells = histogram.cells();
  for (int64_t i = int64_t(blockIdx.x) * kCountThreads + threadIdx.x; i < cells;
       i += int64_t(gridDim.x) * kCountThreads)
    out[i] = bad || out[i] == INT64_MAX ? INT64_MAX : out[i] + int64_t(histogram.counts[i]);
}

}  // namespace fastseg
