#include "../upsample/checks.h"
#include "../upsample/run.h"
#include "region_loss.h"

namespace fastseg {
namespace {

Types check_statistics(const char* op, const Tensor& logits, const Tensor& target) {
  return check_cross_entropy(op, logits, target, std::nullopt, std::nullopt);
}

// The label of the first class: a single one under sigmoid is that of label 1.
int32_t first_label(const Tensor& logits, bool sigmoid) { return sigmoid && logits.size(1) == 1; }

Tensor region_statistics(const Tensor& logits, const Tensor& target, bool sigmoid, std::optional<double> gamma,
                         int64_t ignore_index, bool align_corners) {
  constexpr const char* op = "region_statistics";
  const auto [type, target_type] = check_statistics(op, logits, target);
  took(op);
  const int64_t n = logits.size(0), c = logits.size(1), h = logits.size(2);
  const int64_t columns = sigmoid ? kSigmoidSums : kSoftmaxSums;
  return by_type(type, [&](auto zero) {
    using T = decltype(zero);
    Tensor out = zeros(logits, {n, c, columns}, kScalar<T>);
    if (target.numel() == 0) return out;
    const Tensor labels = torch::stable::contiguous(target);
    Tensor sums = empty(logits, {n * h, c * columns}, ScalarType::Double);
    std::vector<int64_t> bad(n * h, -1);
    // A double is two floats.
    const int64_t per_range = sigmoid ? kTile * kTileRows : (kBlockScratch + 3 * kSoftmaxSums * kPadding) * c;
    run_cells<T>(logits, type, target.size(1), target.size(2), align_corners, sigmoid ? 40 : 20, per_range,
                 [&](const Softmax<T>& pixels, int64_t b, int64_t e) {
                   Statistics<T> s{pixels, first_label(logits, sigmoid), gamma.has_value(), T(gamma.value_or(0)),
                                   (double*)sums.data_ptr()};
                   s.pixels.target = labels.data_ptr();
                   s.pixels.target_type = target_type;
                   s.pixels.ignore_index = int32_t(ignore_index);
                   s.pixels.bad = bad.data();
                   const auto& kernels = FASTSEG_PICK_FOR(T, statistics);
                   (sigmoid ? kernels.sigmoid : kernels.softmax)(s, b, e);
                 });
    for (const int64_t at : bad)
      if (at >= 0) fail_label(op, "target", labels, target_type, at, c + first_label(logits, sigmoid));
    std::vector<double> total(c * columns);
    for (int64_t i = 0; i < n; ++i) {
      std::fill(total.begin(), total.end(), 0.0);
      const double* rows = (const double*)sums.data_ptr() + i * h * c * columns;
      for (int64_t k = 0; k < h * c * columns; ++k) total[k % (c * columns)] += rows[k];
      for (int64_t k = 0; k < c * columns; ++k) ((T*)out.data_ptr())[i * c * columns + k] = T(total[k]);
    }
    return out;
  });
}

Tensor region_statistics_backward(const Tensor& grad, const Tensor& logits, const Tensor& target, bool sigmoid,
                                  std::optional<double> gamma, int64_t ignore_index, bool align_corners) {
  constexpr const char* op = "region_statistics_backward";
  const auto [type, target_type] = check_statistics(op, logits, target);
  const int64_t n = logits.size(0), c = logits.size(1), h = logits.size(2), w = logits.size(3);
  const int64_t columns = sigmoid ? kSigmoidSums : kSoftmaxSums;
  FASTSEG_CHECK(grad.dim() == 3 && grad.size(0) == n && grad.size(1) == c && grad.size(2) == columns, op, "grad",
                "be [", n, ", ", c, ", ", columns, "], got ", grad.dim(), " dimensions, ", grad.numel(), " values");
  took(op);
  const bool last = is_channels_last(logits);
  if (target.numel() == 0 || logits.numel() == 0) {
    Tensor out = empty_images(logits, n, c, h, w, logits.scalar_type(), last);
    return torch::stable::zero_(out);
  }
  return by_type(type, [&](auto zero) {
    using T = decltype(zero);
    const Source<T> source(logits, type);
    const Tensor labels = torch::stable::contiguous(target);
    const Tensor upstream = torch::stable::contiguous(torch::stable::to(grad, kScalar<T>));
    const T* given = (const T*)upstream.data_ptr();
    bool squares = false;
    for (int64_t i = 0; i < n * c; ++i) squares |= given[i * columns + kSquared] != 0;
    const int64_t per_range = kTile * (2 * c + kTileRows) + (sigmoid ? 0 : kTile * (2 * c + 3 * kTileRows) + c * kKept);
    return run_adjoint<T>(logits, n, c, h, w, target.size(1), target.size(2), align_corners, false, per_range, last,
                          type, [&](const Adjoint<T>& pixels, int64_t b, int64_t e) {
                            StatisticsAdjoint<T> s{pixels,  first_label(logits, sigmoid), gamma.has_value(),
                                                   squares, T(gamma.value_or(0)),         given};
                            s.pixels.source = source.maps;
                            s.pixels.target = labels.data_ptr();
                            s.pixels.target_type = target_type;
                            s.pixels.ignore_index = int32_t(ignore_index);
                            const auto& kernels = FASTSEG_PICK_FOR(T, statistics_adjoint);
                            (sigmoid ? kernels.sigmoid : kernels.softmax)(s, b, e);
                          });
  });
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) {
  m.impl("region_statistics", TORCH_BOX(&fastseg::region_statistics));
  m.impl("region_statistics_backward", TORCH_BOX(&fastseg::region_statistics_backward));
}
