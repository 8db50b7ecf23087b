// Checks of arguments, for the glue of every device.
#pragma once
#include "../upsample/checks.h"

namespace fastseg {

constexpr const char* kConfusionMatrix = "confusion_matrix";

// Returns the number of classes.
inline int64_t check_matrix(const Tensor& target, const Tensor& out) {
  FASTSEG_CHECK(target.dim() == 3, kConfusionMatrix, "target", "be [N, H, W], got ", target.dim(), " dimensions");
  FASTSEG_CHECK(out.dim() == 2 && out.size(0) == out.size(1) && out.size(0) > 0 && out.is_contiguous() &&
                    out.scalar_type() == ScalarType::Long,
                kConfusionMatrix, "out", "be contiguous int64 [C, C], got ", out.dim(), " dimensions");
  FASTSEG_CHECK(out.size(0) < 46341, kConfusionMatrix, "out", "have at most 46340 classes, got ", out.size(0));
  return out.size(0);
}

inline Int check_prediction(const Tensor& prediction, const Tensor& target) {
  FASTSEG_CHECK(prediction.numel() == target.numel(), kConfusionMatrix, "prediction", "have the shape of target, got ",
                prediction.numel(), " values");
  return int_type(kConfusionMatrix, "prediction", prediction.scalar_type());
}

inline Float check_logits(const Tensor& logits, const Tensor& target, int64_t classes) {
  const Float type = check_maps(kConfusionMatrix, "prediction", logits, target.size(1), target.size(2));
  FASTSEG_CHECK(logits.size(0) == target.size(0) && logits.size(1) == classes, kConfusionMatrix, "prediction", "be [",
                target.size(0), ", ", classes, ", h, w], got ", logits.size(0), " x ", logits.size(1));
  return type;
}

}  // namespace fastseg
