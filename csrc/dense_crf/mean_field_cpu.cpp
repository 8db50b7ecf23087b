#include <exception>

#include "field.h"

namespace fastseg {
namespace {

constexpr const char* kOp = "dense_crf";

Tensor dense_crf(const Tensor& unary, const Tensor& features, std::vector<double> sigma, const Tensor& compatibility,
                 int64_t iterations, std::string normalization, bool include_self, std::string spatial,
                 std::string bilateral, std::string output) {
  const Options options(kOp, unary, features, sigma, compatibility, iterations, normalization, include_self, spatial,
                        bilateral, output);
  const int64_t n = unary.size(0), c = unary.size(1), d = features.size(1), dims = unary.dim() - 2;
  FASTSEG_CHECK(c <= kMostChunks * kMostChannels, kOp, "unary", "have at most ", kMostChunks * kMostChannels,
                " labels, got ", c);
  took(kOp);
  const bool labels = options.output == Output::labels;
  Tensor out = empty(unary, options.sizes(unary), labels ? ScalarType::Long : unary.scalar_type());
  if (unary.numel() == 0) return out;
  const Tensor u = torch::stable::contiguous(unary), f = torch::stable::contiguous(features);
  const Tensor table = torch::stable::contiguous(compatibility);
  std::reverse(sigma.begin(), sigma.end());
  const int64_t points = unary.numel() / (n * c);
  const Order order{dims == 3 ? unary.size(2) : 1, unary.size(dims), unary.size(dims + 1)};
  by_type(float_type(kOp, "unary", unary), [&](auto zero) {
    using T = decltype(zero);
    for (int64_t i = 0; options.exact_bilateral && i < n * d; ++i)
      FASTSEG_CHECK(FASTSEG_PICK_FOR(T, lattice).extent(data<T>(f) + i * points, points).odd == 0, kOp, "image",
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
  return stored(out, dims == 2 && !labels && is_channels_last(unary));
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) { m.impl("dense_crf", TORCH_BOX(&fastseg::dense_crf)); }
