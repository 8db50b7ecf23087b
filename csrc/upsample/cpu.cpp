#include "arguments.h"

namespace fastseg {
namespace {

Tensor upsample_bilinear(const Tensor& x, int64_t height, int64_t width, bool align_corners) {
  const Float type = check_maps("upsample_bilinear", "x", x, height, width);
  took("upsample_bilinear");
  const bool last = is_channels_last(x);
  Tensor out = empty_images(x, x.size(0), x.size(1), height, width, x.scalar_type(), last);
  if (out.numel() == 0) return out;
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    const Source<T> source(x, type);
    const Axes<T> axes(x, x.size(2), x.size(3), height, width, align_corners);
    const Ranges ranges(x.size(0) * x.size(2), x.size(1) * (height / x.size(2) + 1) * width);
    const int64_t per_range = last ? (3 * x.size(3) + width) * x.size(1) : 0;
    Tensor scratch = empty(x, {ranges.slots, per_range}, kScalar<T>);
    ranges.run([&](int64_t slot, int64_t b, int64_t e) {
      T* mine = (T*)scratch.data_ptr() + slot * per_range;
      FASTSEG_PICK_FOR(T, upsample)
          .bilinear({source.maps, axes.y.axis, axes.x.axis, strided(out, type), last, T(0), mine}, b, e);
    });
  });
  return out;
}

Tensor upsample_threshold(const Tensor& x, int64_t height, int64_t width, double threshold, bool align_corners) {
  const Float type = check_maps("upsample_threshold", "mask_logits", x, height, width);
  took("upsample_threshold");
  const bool last = is_channels_last(x);
  Tensor out = empty_images(x, x.size(0), x.size(1), height, width, ScalarType::Bool, last);
  if (out.numel() == 0) return out;
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    const Source<T> source(x, type);
    const Axes<T> axes(x, x.size(2), x.size(3), height, width, align_corners);
    const Resize<T> p{source.maps, axes.y.axis, axes.x.axis, strided(out), last, T(threshold), nullptr};
    Ranges(x.size(0) * x.size(2), x.size(1) * (height / x.size(2) + 1) * width).run([&](int64_t, int64_t b, int64_t e) {
      FASTSEG_PICK_FOR(T, upsample).threshold(p, b, e);
    });
  });
  return out;
}

Tensor upsample_argmax(const Tensor& logits, int64_t height, int64_t width, bool align_corners, ScalarType dtype) {
  const auto [type, label_type] = check_argmax("upsample_argmax", logits, height, width, dtype);
  took("upsample_argmax");
  Tensor out = empty(logits, {logits.size(0), height, width}, dtype);
  if (out.numel() == 0) return out;
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    LabelJob<T> job(logits, type, height, width, align_corners);
    job.labels.out = out.data_ptr();
    job.labels.type = label_type;
    Ranges(logits.size(0) * logits.size(2), logits.size(1) * (height / logits.size(2) + 1) * width)
        .run([&](int64_t, int64_t b, int64_t e) { FASTSEG_PICK_FOR(T, labels).argmax(job.labels, b, e); });
  });
  return out;
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) {
  m.impl("upsample_bilinear", TORCH_BOX(&fastseg::upsample_bilinear));
  m.impl("upsample_threshold", TORCH_BOX(&fastseg::upsample_threshold));
  m.impl("upsample_argmax", TORCH_BOX(&fastseg::upsample_argmax));
}
