#include "argmax_kernel.cuh"
#include "cuda.h"

namespace fastseg {
namespace {

Tensor upsample_argmax(const Tensor& logits, int64_t height, int64_t width, bool align_corners, ScalarType dtype) {
  const auto [type, label_type] = check_argmax("upsample_argmax", logits, height, width, dtype);
  took("upsample_argmax");
  Tensor out = empty(logits, {logits.size(0), height, width}, dtype);
  if (out.numel() == 0) return out;
  const Stream stream(logits);
  by_storage(type, [&](auto zero) {
    using S = decltype(zero);
    const Argmax<S> p = argmax_of<S>(logits, height, width, align_corners);
    stream.launch(argmax<S, StoreLabels>, p.cells.tasks(), kThreads, 0, p, StoreLabels{out.data_ptr(), label_type});
  });
  return out;
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, FASTSEG_DEVICE, m) {
  m.impl("upsample_argmax", TORCH_BOX(&fastseg::upsample_argmax));
}
