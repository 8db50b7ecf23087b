// Checks of arguments, for the glue of every stem that upsamples, on any device.
#pragma once
#include "../common/tensors.h"

namespace fastseg {

// Checks that hold for every op of the family; only a backward may resize from nothing.
inline Float check_maps(const char* op, const char* argument, const Tensor& x, int64_t height, int64_t width,
                        bool backward = false) {
  FASTSEG_CHECK(x.dim() == 4, op, argument, "be [N, C, h, w], got ", x.dim(), " dimensions");
  constexpr int64_t kLimit = int64_t(1) << 30;
  FASTSEG_CHECK(height >= 0 && width >= 0 && height < kLimit && width < kLimit, op, "size", "be in [0, 2^30), got (",
                height, ", ", width, ")");
  FASTSEG_CHECK(x.size(2) < kLimit && x.size(3) < kLimit, op, argument, "be smaller than 2^30 pixels a side, got ",
                x.size(2), " x ", x.size(3));
  FASTSEG_CHECK(backward || (x.size(2) && x.size(3)) || !height || !width || !x.size(0), op, argument,
                "have pixels, got ", x.size(2), " x ", x.size(3));
  return float_type(op, argument, x);
}

inline void check_weights(const char* op, const std::optional<Tensor>& weight,
                          const std::optional<Tensor>& pixel_weight, const Tensor& logits, const Tensor& target) {
  FASTSEG_CHECK(!weight || weight->numel() == logits.size(1), op, "weight", "have one value per class, got ",
                weight->numel(), " for ", logits.size(1));
  FASTSEG_CHECK(!pixel_weight || pixel_weight->numel() == target.numel(), op, "pixel_weight",
                "have one value per pixel, got ", pixel_weight->numel(), " for ", target.numel());
}

}  // namespace fastseg
