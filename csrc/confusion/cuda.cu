#include "../upsample/cuda.h"
#include "checks.h"
#include "cuda_kernel.cuh"

namespace fastseg {
namespace {

// Counts on the device, from zero to added.
class Counting {
 public:
  Counting(const Tensor& target, const Tensor& out, int64_t ignore_index)
      : labels_(torch::stable::contiguous(target)),
        type_(int_type(kConfusionMatrix, "target", target.scalar_type())),
        counts_(zeros(out, {out.numel()}, ScalarType::Long)),
        bad_target_(out, true),
        bad_prediction_(out, true),
        histogram{labels_.data_ptr(),         type_,
                  int32_t(out.size(0)),       int32_t(ignore_index),
                  (Fault*)counts_.data_ptr(), bad_target_.first(),
                  bad_prediction_.first(),    out.size(0) <= kSharedClasses && target.numel() >> 32 == 0} {}

  int64_t dynamic_bytes() const { return histogram.in_shared ? histogram.cells() * int64_t(sizeof(unsigned)) : 0; }

  void add_to(Tensor& out, const Stream& stream, const Tensor* prediction = nullptr, Int predicted = Int::u8) const {
    bad_target_.raise(stream, kConfusionMatrix, "target", labels_, type_, histogram.classes);
    if (prediction)
      bad_prediction_.raise(stream, kConfusionMatrix, "prediction", *prediction, predicted, histogram.classes);
    const int64_t blocks = (out.numel() + kCountThreads - 1) / kCountThreads;
    stream.launch(add_counts, blocks, kCountThreads, 0, histogram, (int64_t*)out.data_ptr());
  }

 private:
  Tensor labels_;
  Int type_;
  Tensor counts_;
  Faults bad_target_, bad_prediction_;

 public:
  const Histogram histogram;
};

void confusion_matrix(const Tensor& prediction, const Tensor& target, Tensor out, int64_t ignore_index) {
  check_matrix(target, out);
  const Int predicted = check_prediction(prediction, target);
  took(kConfusionMatrix);
  const Tensor p = torch::stable::contiguous(prediction);
  const Stream stream(target);
  const Counting counting(target, out, ignore_index);
  const Histogram& h = counting.histogram;
  const bool bytes = predicted == Int::u8 && h.target_type == Int::u8 &&
                     (uintptr_t(p.data_ptr()) | uintptr_t(h.target)) % kLabels == 0;
  const int64_t blocks = (p.numel() + kCountThreads * kLabels - 1) / (kCountThreads * kLabels);
  stream.launch(count_pairs, std::min(blocks, kCountBlocks), kCountThreads, counting.dynamic_bytes(), h,
                (const void*)p.data_ptr(), predicted, p.numel(), bytes);
  counting.add_to(out, stream, &p, predicted);
}

void upsample_confusion_matrix(const Tensor& logits, const Tensor& target, Tensor out, int64_t ignore_index,
                               bool align_corners) {
  check_matrix(target, out);
  const int64_t height = target.size(1), width = target.size(2);
  const Float type = check_logits(logits, target, out.size(0));
  took("upsample_confusion_matrix");
  if (target.numel() == 0) return;
  const Stream stream(logits);
  const Counting counting(target, out, ignore_index);
  by_storage(type, [&](auto zero) {
    using S = decltype(zero);
    const Argmax<S> p = argmax_of<S>(logits, height, width, align_corners);
    stream.launch(argmax<S, Histogram>, std::min(p.cells.tasks(), kCountBlocks), kThreads, counting.dynamic_bytes(), p,
                  counting.histogram);
  });
  counting.add_to(out, stream);
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, FASTSEG_DEVICE, m) {
  m.impl("confusion_matrix", TORCH_BOX(&fastseg::confusion_matrix));
  m.impl("upsample_confusion_matrix", TORCH_BOX(&fastseg::upsample_confusion_matrix));
}
