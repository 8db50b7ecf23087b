#include "arguments.h"
#include "lattice_filter.h"
#include "normalization.h"

namespace fastseg {
namespace {

constexpr const char* kFilter = "permutohedral_filter";

Tensor permutohedral_filter(const Tensor& values, const Tensor& features, std::string normalization, bool transposed) {
  const Float type = check_filter(kFilter, values, features);
  const int64_t n = values.size(0), c = values.size(1), points = values.size(2), d = features.size(1);
  Normalization norm(kFilter, normalization);
  if (transposed) std::swap(norm.before, norm.after);
  took(kFilter);
  Tensor out = empty(values, {n, c, points}, values.scalar_type());
  if (out.numel() == 0) return out;
  const Tensor v = torch::stable::contiguous(values), f = torch::stable::contiguous(features);
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    for (int64_t i = 0; i < n; ++i) {
      Lattice<T> lattice(kFilter, "features", values, data<T>(f) + i * d * points, d, points);
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
