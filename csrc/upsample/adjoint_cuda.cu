#include <bit>

#include "adjoint_kernel.cuh"
#include "cuda.h"

namespace fastseg {
namespace {

// The gradient [n, c, h, w] in the dtype of `like` and the wanted memory format; make(S{}) gives the upstream.
template <class Make>
Tensor run_adjoint(const Tensor& like, Float type, int64_t n, int64_t c, int64_t h, int64_t w, int64_t height,
                   int64_t width, bool align_corners, bool channels_last, const Make& make) {
  Tensor out = empty_images(like, n, c, h, w, like.scalar_type(), channels_last);
  if (n * c * height * width == 0 || h * w == 0) return torch::stable::zero_(out);
  const Stream stream(like);
  by_storage(type, [&](auto zero) {
    using S = decltype(zero);
    using T = Wide<S>;
    const auto upstream = make(zero);
    using Upstream = std::decay_t<decltype(upstream)>;
    Adjoint<S> p{(S*)out.data_ptr(),
                 out.stride(0),
                 out.stride(1),
                 out.stride(2),
                 out.stride(3),
                 {int32_t(h), int32_t(height), align_corners},
                 {int32_t(w), int32_t(width), align_corners},
                 n,
                 int32_t(c),
                 0,
                 0,
                 16,
                 0};
    // Columns whose outputs keep all threads busy, but not so few that a tile is mostly border.
    p.columns = int32_t(std::min(w, std::clamp<int64_t>(kThreads * w / width - 1, 15, 127)));
    p.log2_columns = std::bit_width(uint32_t(p.columns - 1));
    const int64_t fit = kSumBytes / int64_t(kSums * p.columns * sizeof(T));
    const int64_t most = Upstream::kEveryClass ? fit / kTogether<T> * kTogether<T> : kTogether<T>,
                  groups = (c + most - 1) / most;
    p.group = int32_t((c + groups - 1) / groups);
    while (p.rows > 4 && p.tasks() < 512) p.rows /= 2;  // a few blocks for each multiprocessor
    stream.launch(adjoint<S, Upstream>, p.tasks(), kThreads,
                  kSums * p.group * p.columns * sizeof(T) + (p.columns + 2) * sizeof(int32_t), p, upstream);
  });
  return out;
}

Tensor upsample_bilinear_backward(const Tensor& grad, int64_t h, int64_t w, bool align_corners) {
  const Float type = check_maps("upsample_bilinear_backward", "grad", grad, h, w, true);
  took("upsample_bilinear_backward");
  return run_adjoint(grad, type, grad.size(0), grad.size(1), h, w, grad.size(2), grad.size(3), align_corners,
                     is_channels_last(grad), [&](auto zero) {
                       using S = decltype(zero);
                       return Given<S>{planes<S>(grad)};
                     });
}

Tensor upsample_softmax_backward(const Tensor& grad, const Tensor& output, int64_t h, int64_t w, bool align_corners) {
  const Float type = check_softmax_backward(grad, output, h, w);
  took("upsample_softmax_backward");
  return run_adjoint(grad, type, grad.size(0), grad.size(1), h, w, grad.size(2), grad.size(3), align_corners,
                     is_channels_last(output), [&](auto zero) {
                       using S = decltype(zero);
                       return Probabilities<S>{planes<S>(grad), planes<S>(output)};
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
  // Of the type that is computed in, and dense; kept until the kernel is launched, the stream keeps them after that.
  const ScalarType wide = type == Float::f64 ? ScalarType::Double : ScalarType::Float;
  const auto plain = [&](const Tensor& x) { return torch::stable::contiguous(torch::stable::to(x, wide)); };
  const Tensor labels = torch::stable::contiguous(target), upstream = plain(grad), log_sum = plain(lse);
  const std::optional<Tensor> divisor = reduction == 1 ? std::optional(plain(total)) : std::nullopt;
  const std::optional<Tensor> class_weight = weight ? std::optional(plain(*weight)) : std::nullopt;
  const std::optional<Tensor> pixel = pixel_weight ? std::optional(plain(*pixel_weight)) : std::nullopt;
  return run_adjoint(logits, type, n, logits.size(1), logits.size(2), logits.size(3), height, width, align_corners,
                     is_channels_last(logits), [&](auto zero) {
                       using S = decltype(zero);
                       using T = Wide<S>;
                       const auto data = [](const std::optional<Tensor>& x) {
                         return x ? (const T*)x->data_ptr() : nullptr;
                       };
                       return Losses<S>{planes<S>(logits),     cells(logits, height, width, align_corners),
                                        labels.data_ptr(),     target_type,
                                        int32_t(ignore_index), data(class_weight),
                                        data(pixel),           data(log_sum),
                                        data(upstream),        reduction == 0,
                                        data(divisor),         T(smoothing)};
                     });
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, FASTSEG_DEVICE, m) {
  m.impl("upsample_bilinear_backward", TORCH_BOX(&fastseg::upsample_bilinear_backward));
  m.impl("upsample_softmax_backward", TORCH_BOX(&fastseg::upsample_softmax_backward));
  m.impl("upsample_cross_entropy_backward", TORCH_BOX(&fastseg::upsample_cross_entropy_backward));
}
