#include "cuda.h"
#include "softmax_kernel.cuh"

namespace fastseg {
namespace {

template <class S>
Softmax<S> softmax_of(const Tensor& logits, int64_t height, int64_t width, bool align_corners) {
  return {planes<S>(logits), cells(logits, height, width, align_corners)};
}

Tensor upsample_softmax(const Tensor& logits, int64_t height, int64_t width, bool align_corners) {
  const Float type = check_maps("upsample_softmax", "logits", logits, height, width);
  took("upsample_softmax");
  const bool last = is_channels_last(logits);
  Tensor out = empty_images(logits, logits.size(0), logits.size(1), height, width, logits.scalar_type(), last);
  if (out.numel() == 0) return out;
  const Stream stream(logits);
  by_storage(type, [&](auto zero) {
    using S = decltype(zero);
    const Softmax<S> p = softmax_of<S>(logits, height, width, align_corners);
    stream.launch(last ? softmax<S, true> : softmax<S, false>, p.cells.tasks(), kThreads, 0, p, (S*)out.data_ptr());
  });
  return out;
}

std::tuple<Tensor, Tensor> upsample_argmax_confidence(const Tensor& logits, int64_t height, int64_t width,
                                                      bool align_corners, ScalarType dtype) {
  const auto [type, label_type] = check_argmax("upsample_argmax_confidence", logits, height, width, dtype);
  took("upsample_argmax_confidence");
  const std::vector<int64_t> sizes{logits.size(0), height, width};
  Tensor labels = empty(logits, sizes, dtype);
  Tensor certainty = empty(logits, sizes, type == Float::f64 ? ScalarType::Double : ScalarType::Float);
  if (labels.numel() == 0) return {labels, certainty};
  const Stream stream(logits);
  by_storage(type, [&](auto zero) {
    using S = decltype(zero);
    const Softmax<S> p = softmax_of<S>(logits, height, width, align_corners);
    stream.launch(confidence<S>, p.cells.tasks(), kThreads, 0, p, labels.data_ptr(), label_type,
                  (Wide<S>*)certainty.data_ptr());
  });
  return {labels, certainty};
}

std::tuple<Tensor, Tensor, Tensor> upsample_cross_entropy(const Tensor& logits, const Tensor& target,
                                                          const std::optional<Tensor>& weight,
                                                          const std::optional<Tensor>& pixel_weight,
                                                          int64_t ignore_index, double smoothing, int64_t reduction,
                                                          bool align_corners) {
  constexpr const char* op = "upsample_cross_entropy";
  const auto [type, target_type] = check_cross_entropy(op, logits, target, weight, pixel_weight);
  const int64_t n = target.size(0), height = target.size(1), width = target.size(2);
  took(op);
  const Stream stream(logits);
  return by_storage(type, [&](auto zero) {
    using S = decltype(zero);
    using T = Wide<S>;
    const auto plain = [](const std::optional<Tensor>& x) -> std::optional<Tensor> {
      if (!x) return std::nullopt;
      return torch::stable::contiguous(torch::stable::to(*x, kScalar<T>));
    };
    const Tensor labels = torch::stable::contiguous(target);
    const auto class_weight = plain(weight), pixel = plain(pixel_weight);
    Tensor lse = empty(logits, {n, height, width}, kScalar<T>), total = empty(logits, {}, kScalar<T>);
    Tensor loss = empty(logits, reduction ? std::vector<int64_t>{} : std::vector<int64_t>{n, height, width},
                        logits.scalar_type());
    const Softmax<S> p = softmax_of<S>(logits, height, width, align_corners);
    const int64_t tasks = target.numel() > 0 ? p.cells.tasks() : 0;
    const Tensor sums = empty(logits, {tasks, 2}, ScalarType::Double);
    const Faults faults(logits, false);
    stream.launch(cross_entropy<S>, tasks, kThreads, 0,
                  CrossEntropy<S>{p, labels.data_ptr(), target_type, int32_t(ignore_index),
                                  class_weight ? (const T*)class_weight->data_ptr() : nullptr,
                                  pixel ? (const T*)pixel->data_ptr() : nullptr, T(smoothing), (T*)lse.data_ptr(),
                                  reduction ? nullptr : (S*)loss.data_ptr(), (double*)sums.data_ptr(), faults.first()});
    stream.launch(reduce_loss<S>, 1, kThreads, 0, (const double*)sums.data_ptr(), tasks, reduction, (S*)loss.data_ptr(),
                  (T*)total.data_ptr());
    faults.raise(stream, op, "target", labels, target_type, logits.size(1));
    return std::tuple<Tensor, Tensor, Tensor>(loss, lse, total);
  });
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, FASTSEG_DEVICE, m) {
  m.impl("upsample_argmax_confidence", TORCH_BOX(&fastseg::upsample_argmax_confidence));
  m.impl("upsample_softmax", TORCH_BOX(&fastseg::upsample_softmax));
  m.impl("upsample_cross_entropy", TORCH_BOX(&fastseg::upsample_cross_entropy));
}
