#include <cmath>

#include "../../common/cuda.h"
#include "../arguments.h"
#include "../normalization.h"
#include "gaussian_kernel.cuh"
#include "pairwise_kernel.cuh"

namespace fastseg {
namespace {

constexpr const char* kSmooth = "gaussian_filter_2d";
constexpr const char* kFilter = "gaussian_filter";
constexpr const char* kGradient = "gaussian_filter_gradient";

template <class T>
T* data(const Tensor& x) {
  return (T*)x.data_ptr();
}

template <class T>
void smooth(const Tensor& values, const std::vector<double>& sigma, Normalization norm, const Tensor& out) {
  const Stream stream(values);
  const int64_t h = values.size(2), w = values.size(3), planes = values.size(0) * values.size(1);
  const Tensor between = empty(values, {values.numel()}, kScalar<T>);
  const double reach = std::sqrt(2 * (sizeof(T) == 4 ? 26 : 55) * std::log(2.0));
  const auto pass = [&](int64_t size, double deviation, const T* from, int64_t outer, int64_t inner, T* to) {
    const Tensor table = empty(values, {3 * size}, kScalar<T>);
    const double most = std::ceil(deviation * reach);
    T* const taps = data<T>(table);
    const Axis<T> axis{size, most < double(size) ? int64_t(most) : size, taps, taps + size, taps + 2 * size};
    const int64_t tasks = outer * size * inner;
    stream.launch(find_taps<T>, (size + kGaussianThreads - 1) / kGaussianThreads, kGaussianThreads, 0, axis, deviation,
                  norm.before, norm.after);
    stream.launch(filter_axis<T>, (tasks + kGaussianThreads - 1) / kGaussianThreads, kGaussianThreads, 0, axis, from,
                  outer, inner, to);
  };
  pass(h, sigma[0], data<T>(values), planes, w, data<T>(between));
  pass(w, sigma[1], data<T>(between), planes * h, 1, data<T>(out));
}

Tensor gaussian_filter_2d(const Tensor& values, std::vector<double> sigma, std::string normalization) {
  const Float type = float_type(kSmooth, "values", values);
  FASTSEG_CHECK(values.dim() == 4 && (type == Float::f32 || type == Float::f64), kSmooth, "values",
                "be float32 or float64 [N, C, H, W], got ", values.dim(), " dimensions");
  FASTSEG_CHECK(sigma.size() == 2, kSmooth, "sigma", "be two numbers, got ", sigma.size());
  for (const double s : sigma) FASTSEG_CHECK(s > 0, kSmooth, "sigma", "be positive, got ", s);
  const Normalization norm(kSmooth, normalization);
  took(kSmooth);
  const int64_t n = values.size(0), c = values.size(1), h = values.size(2), w = values.size(3);
  Tensor out = empty(values, {n, c, h, w}, values.scalar_type());
  const bool channels_last = is_channels_last(values);
  if (out.numel() > 0) {
    const Tensor v = torch::stable::contiguous(values);
    if (type == Float::f64)
      smooth<double>(v, sigma, norm, out);
    else
      smooth<float>(v, sigma, norm, out);
  }
  if (!channels_last) return out;
  Tensor last = empty_images(values, n, c, h, w, values.scalar_type(), true);
  torch::stable::copy_(last, out);
  return last;
}

template <class T>
Pairs<T> pairs_of(const Tensor& values, const Tensor& features) {
  return {values.size(0), values.size(1), features.size(1), values.size(2), data<T>(values), data<T>(features)};
}

Tensor gaussian_filter(const Tensor& values, const Tensor& features) {
  const Float type = check_pairs(kFilter, values, features);
  took(kFilter);
  Tensor out = empty(values, {values.size(0), values.size(1), values.size(2)}, values.scalar_type());
  if (out.numel() == 0) return out;
  const Tensor v = torch::stable::contiguous(values), f = torch::stable::contiguous(features);
  const Stream stream(values);
  const int64_t tasks = (v.size(2) + kPairThreads - 1) / kPairThreads;
  const int64_t blocks = v.size(0) * ((v.size(1) + kChannels - 1) / kChannels) * tasks;
  if (type == Float::f64)
    stream.launch(filter_pairs<double>, blocks, kPairThreads, 0, pairs_of<double>(v, f), data<double>(out));
  else
    stream.launch(filter_pairs<float>, blocks, kPairThreads, 0, pairs_of<float>(v, f), data<float>(out));
  return out;
}

Tensor gaussian_filter_gradient(const Tensor& grad, const Tensor& values, const Tensor& features) {
  const Float type = check_pairs(kGradient, values, features);
  check_gradient(kGradient, grad, values);
  took(kGradient);
  Tensor out = zeros(features, {features.size(0), features.size(1), features.size(2)}, features.scalar_type());
  if (out.numel() == 0 || values.size(1) == 0) return out;
  const Tensor g = torch::stable::contiguous(grad), v = torch::stable::contiguous(values);
  const Tensor f = torch::stable::contiguous(features);
  const Stream stream(values);
  const int64_t blocks = v.size(0) * ((v.size(2) + kPairThreads - 1) / kPairThreads);
  if (type == Float::f64)
    stream.launch(differentiate_pairs<double>, blocks, kPairThreads, 0, pairs_of<double>(v, f), data<double>(g),
                  data<double>(out));
  else
    stream.launch(differentiate_pairs<float>, blocks, kPairThreads, 0, pairs_of<float>(v, f), data<float>(g),
                  data<float>(out));
  return out;
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, FASTSEG_DEVICE, m) {
  m.impl("gaussian_filter_2d", TORCH_BOX(&fastseg::gaussian_filter_2d));
  m.impl("gaussian_filter", TORCH_BOX(&fastseg::gaussian_filter));
  m.impl("gaussian_filter_gradient", TORCH_BOX(&fastseg::gaussian_filter_gradient));
}
