#include "arguments.h"
#include "lattice_filter.h"
#include "pairwise.h"

namespace fastseg {
namespace {

constexpr const char* kFilter = "gaussian_filter";
constexpr const char* kGradient = "gaussian_filter_gradient";

// Planes [channels, P] as blocks [chunks, P, pitch].
template <class T>
void load_blocks(const T* planes, int64_t channels, int64_t points, Block block, T* blocks) {
  for (int64_t c = 0; c < block.chunks; ++c) {
    const int64_t some = std::min(kMostChannels, channels - c * kMostChannels);
    FASTSEG_PICK_FOR(T, lattice_filter)
        .load(planes + c * kMostChannels * points, points, some, points, block.pitch, T(0),
              blocks + c * points * block.pitch);
  }
}

template <class T>
Pairs<T> pairs_of(const Tensor& features, int64_t i, Block block, const T* blocks) {
  const int64_t d = features.size(1), points = features.size(2);
  return {d,       points, block.pitch, block.chunks, points * block.pitch, data<T>(features) + i * d * points,
          nullptr, blocks};
}

Tensor gaussian_filter(const Tensor& values, const Tensor& features) {
  const Float type = check_pairs(kFilter, values, features);
  took(kFilter);
  const int64_t n = values.size(0), c = values.size(1), points = values.size(2), d = features.size(1);
  Tensor out = empty(values, {n, c, points}, values.scalar_type());
  if (out.numel() == 0) return out;
  const Tensor v = torch::stable::contiguous(values), f = torch::stable::contiguous(features);
  const Block block(c);
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    const auto& kernels = FASTSEG_PICK_FOR(T, pairwise);
    const int64_t size = block.chunks * points * block.pitch;
    const Tensor blocks = empty(values, {size}, kScalar<T>), results = empty(values, {size}, kScalar<T>);
    for (int64_t i = 0; i < n; ++i) {
      load_blocks(data<T>(v) + i * c * points, c, points, block, data<T>(blocks));
      const Pairs<T> pairs = pairs_of<T>(f, i, block, data<T>(blocks));
      Ranges(points, points * (d + c)).run([&](int64_t, int64_t b, int64_t e) {
        kernels.filter(pairs, b, e, pairs.stride, data<T>(results) + b * block.pitch);
      });
      for (int64_t k = 0; k < block.chunks; ++k)
        FASTSEG_PICK_FOR(T, lattice_filter)
            .store(data<T>(results) + k * pairs.stride, block.pitch, std::min(kMostChannels, c - k * kMostChannels),
                   points, points, data<T>(out) + (i * c + k * kMostChannels) * points);
    }
  });
  return out;
}

Tensor gaussian_filter_gradient(const Tensor& grad, const Tensor& values, const Tensor& features) {
  const Float type = check_pairs(kGradient, values, features);
  check_gradient(kGradient, grad, values);
  took(kGradient);
  const int64_t n = values.size(0), c = values.size(1), points = values.size(2), d = features.size(1);
  Tensor out = zeros(values, {n, d, points}, values.scalar_type());
  if (out.numel() == 0 || c == 0) return out;
  const Tensor g = torch::stable::contiguous(grad), v = torch::stable::contiguous(values);
  const Tensor f = torch::stable::contiguous(features);
  const Block block(c);
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    const int64_t size = block.chunks * points * block.pitch;
    const Tensor blocks = empty(values, {size}, kScalar<T>), grads = empty(values, {size}, kScalar<T>);
    for (int64_t i = 0; i < n; ++i) {
      load_blocks(data<T>(v) + i * c * points, c, points, block, data<T>(blocks));
      load_blocks(data<T>(g) + i * c * points, c, points, block, data<T>(grads));
      const Pairs<T> pairs = pairs_of<T>(f, i, block, data<T>(blocks));
      Ranges(points, points * (d + 2 * c)).run([&](int64_t, int64_t b, int64_t e) {
        FASTSEG_PICK_FOR(T, pairwise).gradient(pairs, data<T>(grads), b, e, data<T>(out) + i * d * points);
      });
    }
  });
  return out;
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) {
  m.impl("gaussian_filter", TORCH_BOX(&fastseg::gaussian_filter));
  m.impl("gaussian_filter_gradient", TORCH_BOX(&fastseg::gaussian_filter_gradient));
}
