#include <exception>

#include "field.h"

namespace fastseg {
namespace {

constexpr const char* kOp = "dense_crf";

Output output_of(const std::string& name) {
  FASTSEG_CHECK(name == "logits" || name == "probabilities" || name == "labels", kOp, "output",
                "be logits, probabilities or labels, got ", name);
  return name == "logits" ? Output::logits : name == "labels" ? Output::labels : Output::probabilities;
}

bool is_exact(const char* argument, const std::string& name) {
  FASTSEG_CHECK(name == "exact" || name == "lattice", kOp, argument, "be exact or lattice, got ", name);
  return name == "exact";
}

Tensor dense_crf(const Tensor& unary, const Tensor& features, std::vector<double> sigma, const Tensor& compatibility,
                 int64_t iterations, std::string normalization, bool include_self, std::string spatial,
                 std::string bilateral, std::string output) {
  const Float type = float_type(kOp, "unary", unary);
  const int64_t dims = unary.dim() - 2;
  FASTSEG_CHECK((dims == 2 || dims == 3) && (type == Float::f32 || type == Float::f64), kOp, "unary",
                "be float32 or float64 [N, C, H, W] or [N, C, D, H, W], got ", unary.dim(), " dimensions");
  FASTSEG_CHECK(features.dim() == unary.dim() && features.scalar_type() == unary.scalar_type(), kOp, "features",
                "have the dtype and the dimensions of unary, got ", features.dim());
  for (int64_t i = 0; i < unary.dim(); ++i)
    FASTSEG_CHECK(i == 1 || features.size(i) == unary.size(i), kOp, "features", "have the size of unary, got ",
                  features.size(i), " along ", i);
  FASTSEG_CHECK(int64_t(sigma.size()) == dims, kOp, "sigma", "be ", dims, " numbers, got ", sigma.size());
  for (const double x : sigma) FASTSEG_CHECK(x > 0, kOp, "spatial_sigma", "be positive, got ", x);
  const int64_t n = unary.size(0), c = unary.size(1), d = features.size(1);
  int64_t points = 1;
  for (int64_t i = 2; i < unary.dim(); ++i) points *= unary.size(i);
  FASTSEG_CHECK(compatibility.dim() == 3 && compatibility.size(0) == 2 && compatibility.size(1) == c &&
                    compatibility.size(2) == c && compatibility.scalar_type() == unary.scalar_type(),
                kOp, "compatibility", "be [2, ", c, ", ", c, "] of unary's dtype, got ", compatibility.dim(),
                " dimensions");
  FASTSEG_CHECK(c <= kMostChunks * kMostChannels, kOp, "unary", "have at most ", kMostChunks * kMostChannels,
                " labels, got ", c);
  FASTSEG_CHECK(iterations >= 0, kOp, "iterations", "be at least 0, got ", iterations);
  const Options options{iterations,
                        Normalization(kOp, normalization),
                        include_self,
                        is_exact("spatial", spatial),
                        is_exact("bilateral", bilateral),
                        output_of(output)};
  const bool lattice = iterations > 0 && !(options.exact_spatial && options.exact_bilateral);
  FASTSEG_CHECK(!lattice || points * (std::max(d, dims) + 1) < int64_t(1) << 31, kOp, "unary",
                "have fewer than 2^31 / (dimensions + 1) pixels where a lattice is used, got ", points);
  FASTSEG_CHECK(options.exact_bilateral || (d >= 1 && d <= kMostDims), kOp, "features",
                "have from 1 to 8 dimensions on a lattice, got ", d);
  took(kOp);
  const bool labels = options.output == Output::labels;
  std::vector<int64_t> sizes{n, c};
  if (labels) sizes.pop_back();
  for (int64_t i = 2; i < unary.dim(); ++i) sizes.push_back(unary.size(i));
  Tensor out = empty(unary, sizes, labels ? ScalarType::Long : unary.scalar_type());
  if (unary.numel() == 0) return out;
  const Tensor u = torch::stable::contiguous(unary), f = torch::stable::contiguous(features);
  const Tensor table = torch::stable::contiguous(compatibility);
  std::reverse(sigma.begin(), sigma.end());
  const Order order{dims == 3 ? unary.size(2) : 1, unary.size(dims), unary.size(dims + 1)};
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    for (int64_t i = 0; options.exact_bilateral && i < n * d; ++i)
      FASTSEG_CHECK(FASTSEG_PICK_FOR(T, lattice).extent(data<T>(f) + i * points, points).odd == 0, kOp, "features",
                    "be finite, got NaN or infinity");
    const Compatibility<T> tables(data<T>(table), c, Block(c));
    const Map<T> map(dims, order);
    const Field<T> field(unary, map, c, options);
    std::vector<std::exception_ptr> failures(n);
    // Samples side by side where every thread has as many; what runs in parallel within them then does not.
    const int64_t threads = torch::stable::get_num_threads();
    const auto infer = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) try {
          T* const to = data<T>(out) + (labels ? 0 : i * c * points);
          field.infer(data<T>(u) + i * c * points, data<T>(f) + i * d * points, d, sigma.data(), tables,
                      labels ? (void*)(data<int64_t>(out) + i * points) : to);
        } catch (...) {
          failures[i] = std::current_exception();
        }
    };
    if (n % threads == 0)
      torch::stable::parallel_for(0, n, n / threads, infer);
    else
      infer(0, n);
    for (const std::exception_ptr& failure : failures)
      if (failure) std::rethrow_exception(failure);
  });
  return out;
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) { m.impl("dense_crf", TORCH_BOX(&fastseg::dense_crf)); }
