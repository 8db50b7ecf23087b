#include "arguments.h"

namespace fastseg {
namespace {

// Runs one of the adjoint kernels over fixed chunks of source rows, adds the edges, and returns the gradient
// [n, c, h, w] in `dtype` and the wanted memory format.
template <class T, class Fill>
Tensor run_adjoint(void (*kernel)(const Adjoint<T>&, int64_t, int64_t), const Tensor& like, int64_t n, int64_t c,
                   int64_t h, int64_t w, int64_t height, int64_t width, bool align_corners, bool pixels,
                   int64_t per_range, bool channels_last, Float type, const Fill& fill) {
  const Axes<T> axes(like, h, w, height, width, align_corners);
  Adjoint<T> base{};
  base.y = axes.y.axis;
  base.x = axes.x.axis;
  base.n = n;
  base.c = c;
  base.chunk = std::max<int64_t>(2, (h + 15) / 16);
  base.chunks = (h + base.chunk - 1) / base.chunk;
  Tensor grad = zeros(like, pixels ? std::vector<int64_t>{n, h, w, c} : std::vector<int64_t>{n, c, h, w}, kScalar<T>);
  Tensor edge = zeros(like, {n * base.chunks, c * w}, kScalar<T>);
  base.grad = (T*)grad.data_ptr();
  base.edge = (T*)edge.data_ptr();
  const Ranges ranges(n * base.chunks, 10 * c * (height / base.chunks + 1) * width);
  Tensor scratch = empty(like, {ranges.slots, per_range}, kScalar<T>);
  ranges.run([&](int64_t slot, int64_t b, int64_t e) {
    Adjoint<T> p = base;
    p.scratch = (T*)scratch.data_ptr() + slot * per_range;
    fill(p);
    kernel(p, b, e);
  });
  for (int64_t i = 0; i < n * base.chunks; ++i) {
    const int64_t image = i / base.chunks, row = (i % base.chunks + 1) * base.chunk;
    if (row >= h) continue;
    const T* from = base.edge + i * c * w;
    for (int64_t k = 0; k < c * w; ++k)
      base.grad[pixels ? (image * h + row) * w * c + k : ((image * c + k / w) * h + row) * w + k % w] += from[k];
  }
  if (pixels) grad = torch::stable::transpose(torch::stable::transpose(grad, 1, 3), 2, 3);
  const bool same = type == kNative<T>;
  if (same && (pixels || !channels_last)) return grad;
  Tensor out = empty_images(like, n, c, h, w, like.scalar_type(), channels_last);
  if (pixels) return torch::stable::copy_(out, grad), out;
  const Pack<T> p{strided(out, type), base.grad, w};
  Ranges(n * h, c * w).run([&](int64_t, int64_t b, int64_t e) { FASTSEG_PICK_FOR(T, upsample).unpack(p, b, e); });
  return out;
}

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
    return run_adjoint<T>(last ? k.bilinear_channels_last : k.bilinear, grad, n, c, h, w, grad.size(2), grad.size(3),
                          align_corners, last, last ? 3 * 96 * c : 2 * kTogether * kWide, last, type,
                          [&](Adjoint<T>& p) { p.upstream = strided(grad, type); });
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
    return run_adjoint<T>(FASTSEG_PICK_FOR(T, adjoint).softmax, grad, n, c, h, w, grad.size(2), grad.size(3),
                          align_corners, false, kTile * (kTileRows + 2 * c), last, type, [&](Adjoint<T>& p) {
                            p.upstream = strided(grad, type);
                            p.output = strided(output, type);
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
    return run_adjoint<T>(FASTSEG_PICK_FOR(T, adjoint).cross_entropy, logits, n, c, h, w, height, width, align_corners,
                          false, kTile * (5 * kTileRows + 4 * c), last, type, [&](Adjoint<T>& p) {
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
