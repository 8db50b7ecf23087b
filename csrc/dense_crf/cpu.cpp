#include "lattice_filter.h"
#include "normalization.h"

namespace fastseg {
namespace {

constexpr const char* kFilter = "permutohedral_filter";

Tensor permutohedral_filter(const Tensor& values, const Tensor& features, std::string normalization, bool transposed) {
  const Float type = float_type(kFilter, "values", values);
  FASTSEG_CHECK(type == Float::f32 || type == Float::f64, kFilter, "values", "be float32 or float64, got scalar type ",
                int(values.scalar_type()));
  FASTSEG_CHECK(features.scalar_type() == values.scalar_type(), kFilter, "features",
                "have the dtype of values, got scalar type ", int(features.scalar_type()));
  FASTSEG_CHECK(values.dim() == 3, kFilter, "values", "be [N, C, P], got ", values.dim(), " dimensions");
  FASTSEG_CHECK(features.dim() == 3, kFilter, "features", "be [N, d, P], got ", features.dim(), " dimensions");
  FASTSEG_CHECK(features.size(0) == values.size(0) && features.size(2) == values.size(2), kFilter, "features", "be [",
                values.size(0), ", d, ", values.size(2), "], got ", features.size(0), " and ", features.size(2));
  const int64_t n = values.size(0), c = values.size(1), points = values.size(2), d = features.size(1);
  FASTSEG_CHECK(d >= 1 && d <= kMostDims, kFilter, "features", "have from 1 to 8 dimensions, got ", d);
  FASTSEG_CHECK(points * (d + 1) < int64_t(1) << 31, kFilter, "features", "have fewer than 2^31 / (d + 1) points, got ",
                points);
  Normalization norm(kFilter, normalization);
  if (transposed) std::swap(norm.before, norm.after);
  took(kFilter);
  Tensor out = empty(values, {n, c, points}, values.scalar_type());
  if (out.numel() == 0) return out;
  const Tensor v = torch::stable::contiguous(values), f = torch::stable::contiguous(features);
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    for (int64_t i = 0; i < n; ++i) {
      Lattice<T> lattice(kFilter, values, data<T>(f) + i * d * points, d, points);
      normalize(lattice, values, norm);
      filter<T>(lattice, values, data<T>(v) + i * c * points, c, transposed, data<T>(out) + i * c * points);
    }
  });
  return out;
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) {
  m.impl("permutohedral_filter", TORCH_BOX(&fastseg::permutohedral_filter));
}
