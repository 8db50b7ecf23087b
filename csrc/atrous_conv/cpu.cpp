#include "convolve.h"

namespace fastseg {

namespace {

constexpr const char* kOp = "atrous_conv2d";

Tensor atrous_conv2d(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                     const std::optional<Tensor>& scale, const std::optional<Tensor>& shift,
                     const std::optional<Tensor>& residual, const std::optional<Tensor>& packed, Pair stride,
                     Pair padding, Pair dilation, int64_t groups, std::string activation, std::string algorithm) {
  const ConvArguments a(kOp, x, weight, stride, padding, dilation, groups);
  for (const auto& [name, vector] : {std::pair("bias", &bias), std::pair("scale", &scale), std::pair("shift", &shift)})
    check_shape(kOp, name, *vector, {a.k});
  check_shape(kOp, "residual", residual, {a.n, a.k, a.rows.out, a.columns.out});
  const Activation act = activation_of(kOp, activation);
  int chosen = algorithm_of(kOp, algorithm);
  const int packed_for = packed ? scheme_of(kOp, *packed, a.c, a.k) : kNotPacked;
  FASTSEG_CHECK(!packed || chosen == kAuto || chosen == packed_for, kOp, "packed", "be made for algorithm ", algorithm,
                ", got that for ", algorithm_name(packed_for));
  if (chosen == kAuto) chosen = choose_algorithm(a, packed_for);
  const char* reason = chosen >= 0 ? why_not(a, chosen) : nullptr;
  FASTSEG_CHECK(!reason, kOp, "algorithm", "be able to run, got ", algorithm, ": ", reason);
  took(kOp, a.own_depthwise() ? "depthwise" : algorithm_name(chosen));
  if (a.empty()) return empty_images(x, a.n, a.k, a.rows.out, a.columns.out, x.scalar_type(), a.channels_last);
  return by_type(a.type, [&](auto zero) {
    using T = decltype(zero);
    return result_like<T>(convolve<T>(a, chosen, x, weight, packed, {bias, scale, shift, residual, act}), x);
  });
}

// What `auto` would take for a 3 x 3 convolution in float32 whose weight is packed for it.
std::string atrous_algorithm(Pair shape, int64_t outputs, Pair dilation) {
  FASTSEG_CHECK(shape.size() == 4 && dilation.size() == 2 && *std::min_element(shape.begin(), shape.end()) >= 0, kOp,
                "x", "have a shape [N, C, H, W], got ", shape.size(), " extents");
  return algorithm_name(choose_algorithm({kOp, shape, outputs, dilation}, kAnyPacked));
}

Tensor prepack_atrous_weight(const Tensor& weight, std::string algorithm) {
  constexpr const char* op = "prepack_atrous_weight";
  const int scheme = algorithm_of(op, algorithm);
  FASTSEG_CHECK(scheme >= 0, op, "algorithm", "be one of winograd2, winograd3, winograd4, toeplitz2, got ", algorithm);
  FASTSEG_CHECK(
      weight.dim() == 4 && weight.size(2) == 3 && weight.size(3) == 3 && weight.scalar_type() == ScalarType::Float, op,
      "weight", "be float32 [K, C, 3, 3], got ", weight.dim(), " dimensions");
  took(op);
  return transformed_weight(weight, scheme);
}

// The gradients of all but depthwise convolutions, where the maths of ATen is as fast: of x in channels_last, which
// leaves dead taps out, and of the weight in NCHW.
template <class T>
Tensor aten_gradient(const ConvArguments& a, const Tensor& grad, const Tensor& x, const Tensor& weight, bool of_input) {
  const bool last = sizeof(T) == 4 && of_input;
  const Tensor w = torch::stable::contiguous(torch::stable::to(weight, kScalar<T>));
  return aten::convolution_backward(dense_maps<T>(grad, last), dense_maps<T>(x, last), w, a.steps(), of_input);
}

void check_grad(const char* op, const Tensor& grad, const ConvArguments& a) {
  check_shape(op, "grad", grad, {a.n, a.k, a.rows.out, a.columns.out});
  FASTSEG_CHECK(float_type(op, "grad", grad) == a.type, op, "grad", "have the dtype of the rest, got scalar type ",
                int(grad.scalar_type()));
}

Tensor atrous_conv2d_grad_input(const Tensor& grad, const Tensor& weight, int64_t height, int64_t width, Pair stride,
                                Pair padding, Pair dilation, int64_t groups) {
  constexpr const char* op = "atrous_conv2d_grad_input";
  FASTSEG_CHECK(grad.dim() == 4 && weight.dim() == 4 && height >= 0 && width >= 0, op, "grad", "be [N, K, H, W], got ",
                grad.dim(), " dimensions");
  const bool last = is_channels_last(grad);
  const Tensor x = empty_images(grad, grad.size(0), weight.size(1) * groups, height, width, grad.scalar_type(), last);
  const ConvArguments a(op, x, weight, stride, padding, dilation, groups);
  check_grad(op, grad, a);
  took(op, a.depthwise() ? "depthwise" : "direct");
  if (x.numel() == 0) return x;
  if (a.empty()) return zeroed(x);
  return by_type(a.type, [&](auto zero) {
    using T = decltype(zero);
    if (a.depthwise() && has_depthwise_grad_input(a))
      return result_like<T>(depthwise_grad_input<T>(a, grad, weight), grad);
    return result_like<T>(aten_gradient<T>(a, grad, x, weight, true), grad);
  });
}

Tensor atrous_conv2d_grad_weight(const Tensor& grad, const Tensor& x, int64_t kernel_height, int64_t kernel_width,
                                 Pair stride, Pair padding, Pair dilation, int64_t groups) {
  constexpr const char* op = "atrous_conv2d_grad_weight";
  FASTSEG_CHECK(grad.dim() == 4 && x.dim() == 4 && groups > 0, op, "grad", "be [N, K, H, W], got ", grad.dim(),
                " dimensions");
  const Tensor weight = empty(x, {grad.size(1), x.size(1) / groups, kernel_height, kernel_width}, x.scalar_type());
  const ConvArguments a(op, x, weight, stride, padding, dilation, groups);
  check_grad(op, grad, a);
  took(op, a.depthwise() ? "depthwise" : "direct");
  if (a.empty()) return zeroed(weight);
  return by_type(a.type, [&](auto zero) {
    using T = decltype(zero);
    const Tensor found =
        a.depthwise() ? depthwise_grad_weight<T>(a, grad, x) : aten_gradient<T>(a, grad, x, weight, false);
    return torch::stable::contiguous(torch::stable::to(found, x.scalar_type()));
  });
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_FRAGMENT(fastseg, m) {
  m.def("_atrous_algorithm(int[] shape, int outputs, int[] dilation) -> str");
}

STABLE_TORCH_LIBRARY_IMPL(fastseg, CompositeExplicitAutograd, m) {
  m.impl("_atrous_algorithm", TORCH_BOX(&fastseg::atrous_algorithm));
}

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) {
  m.impl("atrous_conv2d", TORCH_BOX(&fastseg::atrous_conv2d));
  m.impl("atrous_conv2d_grad_input", TORCH_BOX(&fastseg::atrous_conv2d_grad_input));
  m.impl("atrous_conv2d_grad_weight", TORCH_BOX(&fastseg::atrous_conv2d_grad_weight));
  m.impl("prepack_atrous_weight", TORCH_BOX(&fastseg::prepack_atrous_weight));
}
