#include "../upsample/checks.h"
#include "../upsample/run.h"
#include "region_loss.h"

namespace fastseg {
namespace {

// Whose pixels are of which class, and the share of each class of each segment in the mean.
struct Truth {
  int64_t segments, classes;
  Tensor own;
  std::vector<int64_t> count, bad;
  std::vector<double> share;

  Truth(const Tensor& target, Int type, int64_t ignore_index, int32_t first, int64_t classes_, bool per_image,
        bool present)
      : segments(per_image ? target.size(0) : 1),
        classes(classes_),
        own(empty(target, {target.size(0), target.size(1), target.size(2)}, ScalarType::Int)),
        count(segments * (classes + 1)),
        bad(target.size(0) * target.size(1), -1),
        share(segments * classes) {
    const int64_t h = target.size(1), w = target.size(2), rows = target.size(0) * h;
    const Ranges ranges(rows, w);
    std::vector<int64_t> counts(ranges.slots * count.size());
    ranges.run([&](int64_t slot, int64_t b, int64_t e) {
      FASTSEG_PICK(classes)
      ({per_image ? h : rows, w, target.data_ptr(), type, int32_t(ignore_index), first, int32_t(classes),
        (int32_t*)own.data_ptr(), counts.data() + slot * count.size(), bad.data()},
       b, e);
    });
    for (size_t k = 0; k < counts.size(); ++k) count[k % count.size()] += counts[k];
    for (int64_t s = 0; s < segments; ++s) {
      const int64_t* here = count.data() + s * (classes + 1);
      const auto counted = [&](int64_t c) { return here[present ? c : classes] > 0; };
      int64_t all = 0;
      for (int64_t c = 0; c < classes; ++c) all += counted(c);
      for (int64_t c = 0; c < classes; ++c)
        if (counted(c)) share[s * classes + c] = 1.0 / double(all) / double(segments);
    }
  }
};

// Sorts each class of each segment; returns the mean of their losses.
template <class T>
Tensor mean_loss(void (*kernel)(const Lovasz<T>&, int64_t, int64_t), const Truth& truth, const T* values,
                 const Tensor& slope, ScalarType type) {
  const int64_t n = truth.own.size(0), area = truth.own.size(1) * truth.own.size(2), images = n / truth.segments;
  const Ranges ranges(truth.segments * truth.classes, 40 * images * area);
  const int64_t per_range = 2 * images * area;
  Tensor items = empty(slope, {ranges.slots, per_range * int64_t(sizeof(Item<T>))}, ScalarType::Byte);
  std::vector<double> losses(truth.segments * truth.classes);
  ranges.run([&](int64_t slot, int64_t b, int64_t e) {
    kernel({images, truth.classes, area, (const int32_t*)truth.own.data_ptr(), truth.count.data(), truth.share.data(),
            values, (T*)slope.data_ptr(), (Item<T>*)items.data_ptr() + slot * per_range, losses.data()},
           b, e);
  });
  double mean = 0;
  for (size_t i = 0; i < losses.size(); ++i) mean += losses[i] * truth.share[i];
  Tensor loss = empty(slope, {}, kScalar<T>);
  *(T*)loss.data_ptr() = T(mean);
  return torch::stable::to(loss, type);
}

Types check_lovasz(const char* op, const Tensor& logits, const Tensor& target) {
  const Types types = check_cross_entropy(op, logits, target, std::nullopt, std::nullopt);
  FASTSEG_CHECK(logits.size(2) == target.size(1) && logits.size(3) == target.size(2), op, "logits",
                "have the size of target, got ", logits.size(2), " x ", logits.size(3));
  FASTSEG_CHECK(target.numel() < int64_t(1) << 31, op, "target", "have less than 2^31 pixels, got ", target.numel());
  return types;
}

std::tuple<Tensor, Tensor> lovasz_softmax(const Tensor& logits, const Tensor& target, int64_t ignore_index,
                                          bool present, bool per_image) {
  constexpr const char* op = "lovasz_softmax";
  const auto [type, target_type] = check_lovasz(op, logits, target);
  took(op);
  const int64_t c = logits.size(1), h = logits.size(2), w = logits.size(3);
  return by_type(type, [&](auto zero) {
    using T = decltype(zero);
    Tensor slope = empty(logits, {logits.size(0), c, h, w}, kScalar<T>);
    if (target.numel() == 0) return std::tuple<Tensor, Tensor>(zeros(logits, {}, logits.scalar_type()), slope);
    const Tensor labels = torch::stable::contiguous(target);
    const Truth truth(labels, target_type, ignore_index, 0, c, per_image, present);
    for (const int64_t at : truth.bad)
      if (at >= 0) fail_label(op, "target", labels, target_type, at, c);
    run_cells<T>(logits, type, h, w, false, 20, kBlockScratch * c, [&](Softmax<T>& p, int64_t b, int64_t e) {
      p.out = strided(slope, kNative<T>);
      FASTSEG_PICK_FOR(T, softmax).softmax(p, b, e);
    });
    const T* values = (const T*)slope.data_ptr();
    Tensor loss = mean_loss<T>(FASTSEG_PICK_FOR(T, lovasz).softmax, truth, values, slope, logits.scalar_type());
    return std::tuple<Tensor, Tensor>(loss, slope);
  });
}

Tensor lovasz_softmax_backward(const Tensor& grad, const Tensor& logits, const Tensor& slope) {
  constexpr const char* op = "lovasz_softmax_backward";
  const int64_t n = logits.size(0), c = logits.size(1), h = logits.size(2), w = logits.size(3);
  const Float type = check_maps(op, "logits", logits, h, w);
  FASTSEG_CHECK(grad.numel() == 1, op, "grad", "be a scalar, got ", grad.numel(), " values");
  FASTSEG_CHECK(slope.numel() == logits.numel(), op, "slope", "have the shape of logits, got ", slope.numel(),
                " values");
  took(op);
  const bool last = is_channels_last(logits);
  Tensor out = empty_images(logits, n, c, h, w, logits.scalar_type(), last);
  if (out.numel() == 0) return out;
  return by_type(type, [&](auto zero) {
    using T = decltype(zero);
    const Source<T> source(logits, type);
    const Tensor given = torch::stable::contiguous(torch::stable::to(slope, kScalar<T>));
    const Tensor scale = torch::stable::contiguous(torch::stable::to(grad, kScalar<T>));
    const bool direct = type == kNative<T> && !last;
    Tensor planes = direct ? out : empty(logits, {n, c, h, w}, kScalar<T>);
    const Ranges ranges(n * h, 30 * c * w);
    Tensor scratch = empty(logits, {ranges.slots, 2 * c * kTile}, kScalar<T>);
    ranges.run([&](int64_t slot, int64_t b, int64_t e) {
      FASTSEG_PICK_FOR(T, lovasz).softmax_backward(
          {source.maps, (const T*)given.data_ptr(), *(const T*)scale.data_ptr(),
           (T*)scratch.data_ptr() + slot * 2 * c * kTile, (T*)planes.data_ptr()},
          b, e);
    });
    if (direct) return out;
    const Pack<T> p{strided(out, type), (T*)planes.data_ptr(), w};
    Ranges(n * h, c * w).run([&](int64_t, int64_t b, int64_t e) { FASTSEG_PICK_FOR(T, upsample).unpack(p, b, e); });
    return out;
  });
}

std::tuple<Tensor, Tensor> lovasz_hinge(const Tensor& logits, const Tensor& target, int64_t ignore_index,
                                        bool per_image) {
  constexpr const char* op = "lovasz_hinge";
  const auto [type, target_type] = check_lovasz(op, logits, target);
  FASTSEG_CHECK(logits.size(1) == 1, op, "logits", "be [N, 1, H, W], got ", logits.size(1), " channels");
  took(op);
  return by_type(type, [&](auto zero) {
    using T = decltype(zero);
    Tensor slope = empty(logits, {logits.size(0), 1, logits.size(2), logits.size(3)}, kScalar<T>);
    if (target.numel() == 0) return std::tuple<Tensor, Tensor>(zeros(logits, {}, logits.scalar_type()), slope);
    const Tensor labels = torch::stable::contiguous(target);
    const Truth truth(labels, target_type, ignore_index, 1, 1, per_image, false);
    for (const int64_t at : truth.bad)
      if (at >= 0) fail_label(op, "target", labels, target_type, at, 2);
    const Tensor values = torch::stable::contiguous(torch::stable::to(logits, kScalar<T>));
    Tensor loss = mean_loss<T>(FASTSEG_PICK_FOR(T, lovasz).hinge, truth, (const T*)values.data_ptr(), slope,
                               logits.scalar_type());
    return std::tuple<Tensor, Tensor>(loss, slope);
  });
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) {
  m.impl("lovasz_softmax", TORCH_BOX(&fastseg::lovasz_softmax));
  m.impl("lovasz_softmax_backward", TORCH_BOX(&fastseg::lovasz_softmax_backward));
  m.impl("lovasz_hinge", TORCH_BOX(&fastseg::lovasz_hinge));
}
