#include "run.h"

namespace fastseg {
namespace {

Tensor upsample_bilinear_backward(const Tensor& grad, int64_t h, int64_t w, bool align_corners) {
  const Float type = check_maps("upsample_bilinear_backward", "grad", grad, h, w, true);
  took("upsample_bilinear_backward");
  const bool last = is_channels_last(grad);
  const int64_t n = grad.size(0), c = grad.size(1);
  if (grad.numel() == 0 || h * w == 0) {
    Tensor out = empty_images(grad, n, c, h, w, grad.scalar_type(), last);
    return torch::stable::zero_(out);
  }
  return by_type(type, [&](auto zero) {
    using T = decltype(zero);
    const auto& k = FASTSEG_PICK_FOR(T, adjoint);
    return run_adjoint<T>(grad, n, c, h, w, grad.size(2), grad.size(3), align_corners, last,
                          last ? 3 * 96 * c : 2 * kTogether * kWide, last, type,
                          [&](Adjoint<T>& p, int64_t b, int64_t e) {
                            p.upstream = strided(grad, type);
                            (last ? k.bilinear_channels_last : k.bilinear)(p, b, e);
                          });
  });
}

Tensor upsample_softmax_backward(const Tensor& grad, const Tensor& output, int64_t h, int64_t w, bool align_corners) {
  const Float type = check_softmax_backward(grad, output, h, w);
  took("upsample_softmax_backward");
  const bool last = is_channels_last(output);
  const int64_t n = grad.size(0), c = grad.size(1);
  if (grad.numel() == 0 || h * w == 0) {
    Tensor out = empty_images(grad, n, c, h, w, grad.scalar_type(), last);
    return torch::stable::zero_(out);
  }
  return by_type(type, [&](auto zero) {
    using T = decltype(zero);
    return run_adjoint<T>(grad, n, c, h, w, grad.size(2), grad.size(3), align_corners, false,
                          kTile * (kTileRows + 2 * c), last, type, [&](Adjoint<T>& p, int64_t b, int64_t e) {
                            p.upstream = strided(grad, type);
                            p.output = strided(output, type);
                            FASTSEG_PICK_FOR(T, adjoint).softmax(p, b, e);
                          });
  });
}

Tensor upsample_cross_entropy_backward(const Tensor& grad, const Tensor& logits, const Tensor& target,
                                       const std::optional<Tensor>& weight, const std::optional<Tensor>& pixel_weight,
                                       const Tensor& lse, const Tensor& total, int64_t ignore_index, double smoothing,
                                       int64_t reduction, bool align_corners) {
  constexpr const char* op = "upsample_cross_entropy_backward";
  const auto [type, target_type] = check_cross_entropy(op, logits, target, weight, pixel_weight);
  const int64_t n = target.size(0), height = target.size(1), width = target.size(2);
  check_loss_grad(op, grad, lse, target, reduction);
  took(op);
  const bool last = is_channels_last(logits);
  const int64_t c = logits.size(1), h = logits.size(2), w = logits.size(3);
  if (target.numel() == 0 || logits.numel() == 0) {
    Tensor out = empty_images(logits, n, c, h, w, logits.scalar_type(), last);
    return torch::stable::zero_(out);
  }
  return by_type(type, [&](auto zero) {
    using T = decltype(zero);
    const auto plain = [](const Tensor& x) { return torch::stable::contiguous(torch::stable::to(x, kScalar<T>)); };
    const Source<T> source(logits, type);
    const Tensor labels = torch::stable::contiguous(target), upstream = plain(grad), log_sum = plain(lse);
    const Tensor divisor = plain(total);
    const std::optional<Tensor> class_weight = weight ? std::optional(plain(*weight)) : std::nullopt;
    const std::optional<Tensor> pixel = pixel_weight ? std::optional(plain(*pixel_weight)) : std::nullopt;
    return run_adjoint<T>(logits, n, c, h, w, height, width, align_corners, false, kTile * (5 * kTileRows + 4 * c),
                          last, type, [&](Adjoint<T>& p, int64_t b, int64_t e) {
                            p.source = source.maps;
                            p.target = labels.data_ptr();
                            p.target_type = target_type;
                            p.ignore_index = int32_t(ignore_index);
                            p.weight = class_weight ? (const T*)class_weight->data_ptr() : nullptr;
                            p.pixel_weight = pixel ? (const T*)pixel->data_ptr() : nullptr;
                            p.log_sum = (const T*)log_sum.data_ptr();
                            p.loss_grad = (const T*)upstream.data_ptr();
                            p.loss_grad_stride = reduction == 0 ? 1 : 0;
                            p.scale = reduction == 1 ? T(1) / *(const T*)divisor.data_ptr() : T(1);
                            p.smoothing = T(smoothing);
                            FASTSEG_PICK_FOR(T, adjoint).cross_entropy(p, b, e);
                          });
  });
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) {
  m.impl("upsample_bilinear_backward", TORCH_BOX(&fastseg::upsample_bilinear_backward));
  m.impl("upsample_softmax_backward", TORCH_BOX(&fastseg::upsample_softmax_backward));
  m.impl("upsample_cross_entropy_backward", TORCH_BOX(&fastseg::upsample_cross_entropy_backward));
}
