#include <cmath>
#include <limits>

#include "arguments.h"
#include "gaussian_kernel.cuh"
#include "lattice_cuda.h"
#include "pairwise_kernel.cuh"

namespace fastseg {
namespace {

constexpr const char* kSmooth = "gaussian_filter_2d";
constexpr const char* kFilter = "gaussian_filter";
constexpr const char* kGradient = "gaussian_filter_gradient";

// Values of `channels` channels, rows or planes, with features [N, d, P].
template <class T>
Pairs<T> pairs_of(const Tensor& features, int64_t channels, bool rows, const T* values, const T* before) {
  const int64_t points = features.size(2);
  return {features.size(0),  channels, features.size(1), points,           rows ? channels : 1,
          rows ? 1 : points, values,   before,           data<T>(features)};
}

}  // namespace

template <class T>
void filter_along(const Stream& stream, const Tensor& like, const Pass& pass, const T* values, const T* factors,
                  Normalization norm, T* out) {
  const Tensor table = empty(like, {3 * pass.size}, kScalar<T>);
  const double most = std::ceil(pass.sigma * std::sqrt(2 * (sizeof(T) == 4 ? 26 : 55) * std::log(2.0)));
  const double far = norm.any() ? std::ceil(9 * pass.sigma) : -1;  // beyond, less than the last bit of a sum
  T* const taps = data<T>(table);
  const auto within = [&](double distance) { return distance < double(pass.size) ? int64_t(distance) : pass.size; };
  const Axis<T> axis{pass.size, within(most), within(far), taps, taps + pass.size, taps + 2 * pass.size};
  stream.launch(find_taps<T>, blocks_for(pass.size, kGaussianThreads), kGaussianThreads, 0, axis, pass.sigma,
                norm.before, norm.after);
  // Of the axis's own factors, all lines have the same.
  const Factors<T> by = factors
                            ? Factors<T>{factors, pass.channels, pass.inner / pass.channels}
                            : Factors<T>{norm.before ? axis.before : nullptr, std::numeric_limits<int64_t>::max(), 1};
  stream.launch(filter_axis<T>, blocks_for(pass.outer * pass.size * pass.inner, kGaussianThreads), kGaussianThreads, 0,
                axis, values, by, pass.outer, pass.inner, out);
}

template <class T>
void filter_all_pairs(const Stream& stream, const Tensor& features, int64_t channels, bool rows, const T* values,
                      const T* before, T* out) {
  const Pairs<T> pairs = pairs_of(features, channels, rows, values, before);
  const int64_t blocks = pairs.samples * blocks_for(channels, kChannels) * blocks_for(pairs.points, kPairThreads);
  stream.launch(filter_pairs<T>, blocks, kPairThreads, 0, pairs, out);
}

template void filter_along<float>(const Stream&, const Tensor&, const Pass&, const float*, const float*, Normalization,
                                  float*);
template void filter_along<double>(const Stream&, const Tensor&, const Pass&, const double*, const double*,
                                   Normalization, double*);
template void filter_all_pairs<float>(const Stream&, const Tensor&, int64_t, bool, const float*, const float*, float*);
template void filter_all_pairs<double>(const Stream&, const Tensor&, int64_t, bool, const double*, const double*,
                                       double*);

namespace {

template <class T>
void smooth(const Tensor& values, const std::vector<double>& sigma, Normalization norm, const Tensor& out) {
  const Stream stream(values);
  const int64_t h = values.size(2), w = values.size(3), planes = values.size(0) * values.size(1);
  const Tensor between = empty(values, {values.numel()}, kScalar<T>);
  filter_along<T>(stream, values, {planes, h, w, 1, sigma[0]}, data<T>(values), nullptr, norm, data<T>(between));
  filter_along<T>(stream, values, {planes * h, w, 1, 1, sigma[1]}, data<T>(between), nullptr, norm, data<T>(out));
}

Tensor gaussian_filter_2d(const Tensor& values, std::vector<double> sigma, std::string normalization) {
  const Float type = check_maps(kSmooth, values, sigma);
  const Normalization norm(kSmooth, normalization);
  took(kSmooth);
  const int64_t n = values.size(0), c = values.size(1), h = values.size(2), w = values.size(3);
  Tensor out = empty(values, {n, c, h, w}, values.scalar_type());
  if (out.numel() > 0) {
    const Tensor v = torch::stable::contiguous(values);
    if (type == Float::f64)
      smooth<double>(v, sigma, norm, out);
    else
      smooth<float>(v, sigma, norm, out);
  }
  return stored(out, is_channels_last(values));
}

Tensor gaussian_filter(const Tensor& values, const Tensor& features) {
  const Float type = check_pairs(kFilter, values, features);
  took(kFilter);
  const int64_t channels = values.size(1);
  Tensor out = empty(values, {values.size(0), channels, values.size(2)}, values.scalar_type());
  if (out.numel() == 0) return out;
  const Tensor v = torch::stable::contiguous(values), f = torch::stable::contiguous(features);
  const Stream stream(values);
  if (type == Float::f64)
    filter_all_pairs<double>(stream, f, channels, false, data<double>(v), nullptr, data<double>(out));
  else
    filter_all_pairs<float>(stream, f, channels, false, data<float>(v), nullptr, data<float>(out));
  return out;
}

Tensor gaussian_filter_gradient(const Tensor& grad, const Tensor& values, const Tensor& features) {
  const Float type = check_pairs(kGradient, values, features);
  check_gradient(kGradient, grad, values);
  took(kGradient);
  Tensor out = zeros(features, {features.size(0), features.size(1), features.size(2)}, features.scalar_type());
  const int64_t channels = values.size(1);
  if (out.numel() == 0 || channels == 0) return out;
  const Tensor g = torch::stable::contiguous(grad), v = torch::stable::contiguous(values);
  const Tensor f = torch::stable::contiguous(features);
  const Stream stream(values);
  const int64_t blocks = f.size(0) * blocks_for(f.size(2), kPairThreads);
  if (type == Float::f64)
    stream.launch(differentiate_pairs<double>, blocks, kPairThreads, 0,
                  pairs_of<double>(f, channels, false, data<double>(v), nullptr), data<double>(g), data<double>(out));
  else
    stream.launch(differentiate_pairs<float>, blocks, kPairThreads, 0,
                  pairs_of<float>(f, channels, false, data<float>(v), nullptr), data<float>(g), data<float>(out));
  return out;
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, FASTSEG_DEVICE, m) {
  m.impl("gaussian_filter_2d", TORCH_BOX(&fastseg::gaussian_filter_2d));
  m.impl("gaussian_filter", TORCH_BOX(&fastseg::gaussian_filter));
  m.impl("gaussian_filter_gradient", TORCH_BOX(&fastseg::gaussian_filter_gradient));
}
