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
  FASTSEG_CHECK(x.size(1) < kLimit, op, argument, "have less than 2^30 channels, got ", x.size(1));
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

// What the arguments are stored as.
struct Types {
  Float maps;
  Int labels;
};

inline Types check_argmax(const char* op, const Tensor& logits, int64_t height, int64_t width, ScalarType dtype) {
  const Types types{check_maps(op, "logits", logits, height, width), int_type(op, "dtype", dtype)};
  FASTSEG_CHECK(logits.size(1) > 0, op, "logits", "have at least one class, got 0");
  return types;
}

inline Float check_softmax_backward(const Tensor& grad, const Tensor& output, int64_t h, int64_t w) {
  constexpr const char* op = "upsample_softmax_backward";
  const Float type = check_maps(op, "grad", grad, h, w, true);
  FASTSEG_CHECK(output.dim() == 4 && output.scalar_type() == grad.scalar_type(), op, "output",
                "have the rank and dtype of grad, got ", output.dim(), " dimensions");
  for (int d = 0; d < 4; ++d)
    FASTSEG_CHECK(output.size(d) == grad.size(d), op, "output", "have the shape of grad, got ", output.size(d),
                  " in dimension ", d);
  return type;
}

// Of the loss and of its backward.
inline Types check_cross_entropy(const char* op, const Tensor& logits, const Tensor& target,
                                 const std::optional<Tensor>& weight, const std::optional<Tensor>& pixel_weight) {
  FASTSEG_CHECK(target.dim() == 3, op, "target", "be [N, H, W], got ", target.dim(), " dimensions");
  const Types types{check_maps(op, "logits", logits, target.size(1), target.size(2)),
                    int_type(op, "target", target.scalar_type())};
  FASTSEG_CHECK(logits.size(0) == target.size(0) && logits.size(1) > 0, op, "logits",
                "have the batch of target and classes, got ", logits.size(0), " x ", logits.size(1));
  check_weights(op, weight, pixel_weight, logits, target);
  return types;
}

inline void check_loss_grad(const char* op, const Tensor& grad, const Tensor& lse, const Tensor& target,
                            int64_t reduction) {
  FASTSEG_CHECK(lse.numel() == target.numel(), op, "lse", "have one value per pixel, got ", lse.numel());
  FASTSEG_CHECK(grad.numel() == (reduction == 0 ? target.numel() : 1), op, "grad", "fit the reduction, got ",
                grad.numel(), " values");
}

}  // namespace fastseg
