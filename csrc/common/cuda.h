// What the launchers of CUDA kernels share: torch's current stream, launches, and data errors found on the device.
#pragma once
#include "kernel.cuh"
#include "tensors.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#define FASTSEG_DEVICE CUDA
#else
#define FASTSEG_DEVICE CPU
#endif

namespace fastseg {

// The storage type of a tensor as a type: use(S{}).
template <class Use>
auto by_storage(Float type, const Use& use) {
  switch (type) {
    case Float::f64:
      return use(double{});
    case Float::bf16:
      return use(__nv_bfloat16{});
    case Float::f16:
      return use(__half{});
    default:
      return use(float{});
  }
}

// The device of a tensor, made current, and torch's current stream there. Only `read` waits for the device, so that ops
// can be captured into a graph.
class Stream {
 public:
  explicit Stream(const Tensor& like);

  // Starts a kernel. `blocks` may be any number of tasks: kernels stride over what does not fit into a grid.
  template <class... P>
  void launch(void (*kernel)(P...), int64_t blocks, int threads, int64_t dynamic_bytes,
              std::type_identity_t<P>... arguments) const {
    if (blocks == 0) return;
#if defined(__CUDACC__)
    const int64_t grid = std::min<int64_t>(blocks, 2147483647);
    kernel<<<unsigned(grid), threads, dynamic_bytes, stream_>>>(arguments...);
    check(cudaGetLastError(), "start (`fastseg doctor` shows what the library was built for)");
#else
    host::launch(std::min(blocks, host::most_blocks()), threads, dynamic_bytes, [=] { kernel(arguments...); });
#endif
  }

  // Copies to the host and waits for the stream.
  void read(void* to, const void* from, int64_t bytes) const;

#if defined(__CUDACC__)
 private:
  static void check(cudaError_t error, const char* rule);
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
#endif
};

// FASTSEG_CHECK=1: ops wait for the device and throw for a data error.
bool checking();

// Where kernels note the first data error (see note_fault): always, or only where it will be thrown.
class Faults {
 public:
  Faults(const Tensor& like, bool always);
  Fault* first() const { return first_ ? (Fault*)first_->data_ptr() : nullptr; }

  // Throws for the label that was noted, where FASTSEG_CHECK asks for it.
  void raise(const Stream& stream, const char* op, const char* argument, const Tensor& labels, Int type,
             int64_t classes) const;

 private:
  std::optional<Tensor> first_;
};

}  // namespace fastseg
