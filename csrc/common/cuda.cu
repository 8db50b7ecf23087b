#include <cstdlib>

#include "cuda.h"

#if defined(__CUDACC__)
#include <torch/csrc/stable/library.h>

#include "current_stream.h"
#include "path.h"
#endif

namespace fastseg {

#if defined(__CUDACC__)

std::string path_name() { return "cuda"; }

Stream::Stream(const Tensor& like) : guard_(like.get_device_index()) {
  static const CurrentStream current = find_current_stream();
  void* stream = nullptr;
  if (!current)
    fail("cuda", "torch", "give its current stream, got no aoti_torch_get_current_cuda_stream in libtorch_cuda.so");
  if (current(like.get_device_index(), &stream)) fail("cuda", "torch", "give its current stream, got an error");
  stream_ = (cudaStream_t)stream;
}

void Stream::check(cudaError_t error, const char* rule) {
  if (error != cudaSuccess) fail("cuda", "a kernel", rule, ", got ", cudaGetErrorString(error));
}

void Stream::read(void* to, const void* from, int64_t bytes) const {
  constexpr const char* kRule = "end without a fault";
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), kRule);
  check(cudaStreamSynchronize(stream_), kRule);
}

#else

Stream::Stream(const Tensor&) {}
void Stream::read(void* to, const void* from, int64_t bytes) const { memcpy(to, from, bytes); }

#endif

bool checking() {
  const char* asked = std::getenv("FASTSEG_CHECK");
  return asked && asked[0] == '1';
}

Faults::Faults(const Tensor& like, bool always) {
  if (always || checking()) first_ = zeros(like, {1}, ScalarType::Long);
}

void Faults::raise(const Stream& stream, const char* op, const char* argument, const Tensor& labels, Int type,
                   int64_t classes) const {
  if (!checking()) return;
  Fault first = 0;
  stream.read(&first, first_->data_ptr(), sizeof first);
  if (!first) return;
  const int64_t at = int64_t(kNoIndex - first);
  int64_t value = 0;  // holds any label
  stream.read(&value, (const char*)labels.data_ptr() + at * size_of(type), size_of(type));
  fail_label(op, argument, labels, type, at, classes, &value);
}

}  // namespace fastseg

#if defined(__CUDACC__)
namespace fastseg {
namespace {

__global__ void probe() {}

// Why no kernel of this library can run on the current device, or nothing.
std::string cuda_fault() {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, probe);
  cudaGetLastError();  // it is told here, and not by the next launch
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_FRAGMENT(fastseg, m) { m.def("_cuda_fault() -> str"); }

STABLE_TORCH_LIBRARY_IMPL(fastseg, CompositeExplicitAutograd, m) {
  m.impl("_cuda_fault", TORCH_BOX(&fastseg::cuda_fault));
}
#endif
