// Depthwise-separable atrous convolution: bands of rows of the depthwise result stay in the cache until the pointwise
// GEMM has read them, and never go to memory as a map.
#include "depthwise.h"

namespace fastseg {
namespace {

constexpr const char* kOp = "separable_atrous_conv2d";
constexpr int64_t kBandBytes = 3 << 20;  // less would let the GEMM read its weights too often: measured

template <class T>
Tensor separable(const ConvArguments& a, const Tensor& x, const Tensor& depthwise_weight,
                 const Tensor& pointwise_weight, const Epilogue<T>& between, const Epilogue<T>& after, int64_t k) {
  const bool last = a.channels_last;
  const Tensor maps = dense_maps<T>(x, last), filters = depthwise_weight_of<T>(depthwise_weight, last);
  const Tensor matrix = torch::stable::reshape(torch::stable::to(pointwise_weight, kScalar<T>), {k, a.c});
  const Tensor y = empty_images(x, a.n, k, a.rows.out, a.columns.out, kScalar<T>, last);
  const int64_t width = a.columns.out, pixels = a.pixels();
  const int64_t bands = std::min(a.rows.out, 1 + a.rows.out * width * a.c * int64_t(sizeof(T)) / kBandBytes);
  const int64_t band = (a.rows.out + bands - 1) / bands;
  const Tensor scratch = empty(x, {band * width * a.c}, kScalar<T>);
  Depthwise<T> p = depthwise_of<T>(a, maps, filters, last);
  p.images = 1;
  p.epilogue = between;
  const Tensor flat = torch::stable::view(storage_of(y, last), {a.n * (last ? pixels : k), last ? k : pixels});
  for (int64_t image = 0; image < a.n; ++image) {
    p.x = (const T*)maps.data_ptr() + image * a.c * a.rows.in * a.columns.in;
    for (int64_t row = 0; row < a.rows.out; row += band) {
      const int64_t count = std::min(band, a.rows.out - row) * width;
      run_depthwise<T>(p, x, (T*)scratch.data_ptr(), row, count / width);
      const Tensor part = narrowed(scratch, 0, 0, count * a.c);
      if (last) {
        const Tensor out = narrowed(flat, 0, image * pixels + row * width, count);
        aten::mm(out, torch::stable::view(part, {count, a.c}), torch::stable::transpose(matrix, 0, 1));
      } else {
        const Tensor out = narrowed(narrowed(flat, 0, image * k, k), 1, row * width, count);
        aten::mm(out, matrix, torch::stable::view(part, {a.c, count}));
      }
    }
  }
  finish_maps<T>(y, last, after);
  return y;
}

Tensor separable_atrous_conv2d(const Tensor& x, const Tensor& depthwise_weight, const Tensor& pointwise_weight,
                               const std::optional<Tensor>& depthwise_scale,
                               const std::optional<Tensor>& depthwise_shift, const std::optional<Tensor>& scale,
                               const std::optional<Tensor>& shift, Pair stride, Pair dilation,
                               std::string depthwise_activation, std::string activation) {
  FASTSEG_CHECK(x.dim() == 4 && depthwise_weight.dim() == 4 && dilation.size() == 2, kOp, "x", "be [N, C, H, W], got ",
                x.dim(), " dimensions");
  FASTSEG_CHECK(depthwise_weight.size(2) % 2 == 1 && depthwise_weight.size(3) % 2 == 1, kOp, "depthwise_weight",
                "have an odd kernel, got ", depthwise_weight.size(2), " x ", depthwise_weight.size(3));
  // Beyond the map every rate reads the centre alone.
  for (int axis : {0, 1}) dilation[axis] = std::min(dilation[axis], std::max<int64_t>(x.size(2 + axis), 1));
  const auto same = [&](int axis) { return dilation[axis] * (depthwise_weight.size(2 + axis) / 2); };
  const ConvArguments a(kOp, x, depthwise_weight, stride, {same(0), same(1)}, dilation, x.size(1));
  const int64_t k = pointwise_weight.dim() == 4 ? pointwise_weight.size(0) : 0;
  FASTSEG_CHECK(a.k == a.c, kOp, "depthwise_weight", "have a filter for each of ", a.c, " channels, got ", a.k);
  FASTSEG_CHECK(k > 0 && pointwise_weight.scalar_type() == x.scalar_type(), kOp, "pointwise_weight",
                "be [K, C, 1, 1] in the dtype of x, got ", pointwise_weight.dim(), " dimensions");
  check_shape(kOp, "pointwise_weight", pointwise_weight, {k, a.c, 1, 1});
  check_shape(kOp, "depthwise_scale", depthwise_scale, {a.c});
  check_shape(kOp, "depthwise_shift", depthwise_shift, {a.c});
  check_shape(kOp, "scale", scale, {k});
  check_shape(kOp, "shift", shift, {k});
  const Activation inner = activation_of(kOp, depthwise_activation), outer = activation_of(kOp, activation);
  took(kOp);
  if (a.n * a.pixels() == 0)
    return empty_images(x, a.n, k, a.rows.out, a.columns.out, x.scalar_type(), a.channels_last);
  return by_type(a.type, [&](auto zero) {
    using T = decltype(zero);
    const bool last = a.channels_last;
    const EpilogueTensors<T> between(x, a.c, {}, depthwise_scale, depthwise_shift, {}, inner, last);
    const EpilogueTensors<T> after(x, k, {}, scale, shift, {}, outer, last);
    return result_like<T>(separable<T>(a, x, depthwise_weight, pointwise_weight, between.epilogue, after.epilogue, k),
                          x);
  });
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) {
  m.impl("separable_atrous_conv2d", TORCH_BOX(&fastseg::separable_atrous_conv2d));
}
