#include "run.h"

namespace fastseg {
namespace {

constexpr int64_t kCost = 10;

Tensor upsample_softmax(const Tensor& logits, int64_t height, int64_t width, bool align_corners) {
  const Float type = check_maps("upsample_softmax", "logits", logits, height, width);
  took("upsample_softmax");
  const bool last = is_channels_last(logits);
  Tensor out = empty_images(logits, logits.size(0), logits.size(1), height, width, logits.scalar_type(), last);
  if (out.numel() == 0) return out;
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    run_cells<T>(logits, type, height, width, align_corners, kCost, kBlockScratch * logits.size(1),
                 [&](Softmax<T>& p, int64_t b, int64_t e) {
                   p.out = strided(out, type);
                   FASTSEG_PICK_FOR(T, softmax).softmax(p, b, e);
                 });
  });
  return out;
}

std::tuple<Tensor, Tensor> upsample_argmax_confidence(const Tensor& logits, int64_t height, int64_t width,
                                                      bool align_corners, ScalarType dtype) {
  const auto [type, label_type] = check_argmax("upsample_argmax_confidence", logits, height, width, dtype);
  took("upsample_argmax_confidence");
  const std::vector<int64_t> sizes{logits.size(0), height, width};
  Tensor labels = empty(logits, sizes, dtype);
  Tensor confidence = empty(logits, sizes, type == Float::f64 ? ScalarType::Double : ScalarType::Float);
  if (labels.numel() == 0) return {labels, confidence};
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    run_cells<T>(logits, type, height, width, align_corners, kCost, kBlockScratch * logits.size(1),
                 [&](Softmax<T>& p, int64_t b, int64_t e) {
                   p.labels = labels.data_ptr();
                   p.label_type = label_type;
                   p.confidence = (T*)confidence.data_ptr();
                   FASTSEG_PICK_FOR(T, softmax).confidence(p, b, e);
                 });
  });
  return {labels, confidence};
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
  return by_type(type, [&](auto zero) {
    using T = decltype(zero);
    const Tensor labels = torch::stable::contiguous(target);
    const auto plain = [](const std::optional<Tensor>& x) -> std::optional<Tensor> {
      if (!x) return std::nullopt;
      return torch::stable::contiguous(torch::stable::to(*x, kScalar<T>));
    };
    const auto class_weight = plain(weight), pixel = plain(pixel_weight);
    const int64_t rows = n * logits.size(2);
    Tensor lse = empty(logits, {n, height, width}, kScalar<T>);
    Tensor loss = reduction == 0 ? empty(logits, {n, height, width}, kScalar<T>) : lse;
    std::vector<double> sums(2 * rows, 0.0);
    std::vector<int64_t> bad(rows, -1);
    if (target.numel() > 0)
      run_cells<T>(logits, type, height, width, align_corners, kCost, kBlockScratch * logits.size(1),
                   [&](Softmax<T>& p, int64_t b, int64_t e) {
                     p.target = labels.data_ptr();
                     p.target_type = target_type;
                     p.ignore_index = int32_t(ignore_index);
                     p.weight = class_weight ? (const T*)class_weight->data_ptr() : nullptr;
                     p.pixel_weight = pixel ? (const T*)pixel->data_ptr() : nullptr;
                     p.smoothing = T(smoothing);
                     p.log_sum = (T*)lse.data_ptr();
                     p.loss = reduction == 0 ? (T*)loss.data_ptr() : nullptr;
                     p.sums = sums.data();
                     p.bad = bad.data();
                     FASTSEG_PICK_FOR(T, softmax).cross_entropy(p, b, e);
                   });
    double total_loss = 0, total_weight = 0;
    for (int64_t i = 0; i < rows; ++i) {
      if (bad[i] >= 0) fail_label(op, "target", labels, target_type, bad[i], logits.size(1));
      total_loss += sums[2 * i];
      total_weight += sums[2 * i + 1];
    }
    Tensor total = empty(logits, {}, kScalar<T>);
    *(T*)total.data_ptr() = T(total_weight);
    if (reduction != 0) {
      loss = empty(logits, {}, kScalar<T>);
      *(T*)loss.data_ptr() = T(reduction == 1 ? total_loss / total_weight : total_loss);
    }
    return std::tuple<Tensor, Tensor, Tensor>(torch::stable::to(loss, logits.scalar_type()), lse, total);
  });
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) {
  m.impl("upsample_argmax_confidence", TORCH_BOX(&fastseg::upsample_argmax_confidence));
  m.impl("upsample_softmax", TORCH_BOX(&fastseg::upsample_softmax));
  m.impl("upsample_cross_entropy", TORCH_BOX(&fastseg::upsample_cross_entropy));
}
