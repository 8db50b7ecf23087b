#include <cmath>

#include "../common/dispatch.h"
#include "arguments.h"
#include "gaussian.h"
#include "normalization.h"

namespace fastseg {
namespace {

constexpr const char* kOp = "gaussian_filter_2d";

// The window of an axis, in a tensor that is kept: weights, and factors that normalize by the sum of each place.
template <class T>
struct WindowTable {
  Tensor table;
  Window<T> window;

  WindowTable(const Tensor& like, int64_t size, double sigma, Normalization norm)
      : table(empty(like, {3 * size}, kScalar<T>)) {
    T *weights = (T*)table.data_ptr(), *before = weights + size, *after = before + size;
    const double bits = sizeof(T) == 4 ? 26 : 55, reach = std::ceil(sigma * std::sqrt(2 * bits * std::log(2.0)));
    window = {size, reach < double(size - 1) ? int64_t(reach) : size - 1, weights, before, after};
    std::vector<double> sums(size);  // of the weights up to a distance
    for (int64_t k = 0; k < size; ++k) {
      const double weight = std::exp(-0.5 * (double(k) / sigma) * (double(k) / sigma));
      weights[k] = T(weight);
      sums[k] = weight + (k ? sums[k - 1] : 0);
    }
    for (int64_t i = 0; i < size; ++i) {
      const double sum = sums[i] + sums[size - 1 - i] - 1;
      const T factor = T(norm.before && norm.after ? 1 / std::sqrt(sum) : 1 / sum);
      before[i] = norm.before ? factor : T(1);
      after[i] = norm.after ? factor : T(1);
    }
  }
};

Tensor gaussian_filter_2d(const Tensor& values, std::vector<double> sigma, std::string normalization) {
  const Float type = check_maps(kOp, values, sigma);
  const Normalization norm(kOp, normalization);
  took(kOp);
  const int64_t planes = values.size(0) * values.size(1), h = values.size(2), w = values.size(3);
  Tensor out = empty(values, {values.size(0), values.size(1), h, w}, values.scalar_type());
  if (out.numel() == 0) return out;
  const Tensor v = torch::stable::contiguous(values);
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    const WindowTable<T> rows(values, h, sigma[0], norm), columns(values, w, sigma[1], norm);
    const Gaussian<T> p{rows.window, columns.window, (const T*)v.data_ptr(), (T*)out.data_ptr(), nullptr};
    const Ranges ranges(planes * h, w * (rows.window.reach + columns.window.reach + 1) / 4);
    const int64_t each = gaussian_scratch(p);
    const Tensor scratch = empty(values, {ranges.slots, each}, kScalar<T>);
    ranges.run([&](int64_t slot, int64_t b, int64_t e) {
      Gaussian<T> mine = p;
      mine.scratch = (T*)scratch.data_ptr() + slot * each;
      FASTSEG_PICK_FOR(T, gaussian).filter(mine, b, e);
    });
  });
  return stored(out, is_channels_last(values));
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) { m.impl("gaussian_filter_2d", TORCH_BOX(&fastseg::gaussian_filter_2d)); }
