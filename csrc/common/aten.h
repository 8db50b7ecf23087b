// What the glue files of the CPU leave to ATen's libraries: GEMMs and convolutions, never called inside of a parallel
// loop. Matrices may be views with one dense dimension; results go where they are told to.
#pragma once
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>

#include <array>

#include "tensors.h"

namespace fastseg::aten {

// out = a b.
inline void mm(const Tensor& out, const Tensor& a, const Tensor& b) {
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_mm_out(out.get(), a.get(), b.get()));
}

// out += a b.
inline void add_mm(const Tensor& out, const Tensor& a, const Tensor& b) {
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_addmm_out(out.get(), out.get(), a.get(), b.get(), 1.0, 1.0));
}

// out[i] = a[i] b[i].
inline void bmm(const Tensor& out, const Tensor& a, const Tensor& b) {
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_bmm_out(out.get(), a.get(), b.get()));
}

// out[i] += a[i] b[i].
inline void add_bmm(const Tensor& out, const Tensor& a, const Tensor& b) {
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_baddbmm_out(out.get(), out.get(), a.get(), b.get(), 1.0, 1.0));
}

// How a convolution steps, along y and along x.
struct Steps {
  std::array<int64_t, 2> stride{1, 1}, padding{0, 0}, dilation{1, 1};
  int64_t groups = 1;
};

constexpr std::array<int64_t, 2> kNoOutputPadding{0, 0};

inline Tensor convolution(const Tensor& x, const Tensor& weight, const Steps& s) {
  AtenTensorHandle out;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_convolution(x.get(), weight.get(), nullptr, s.stride.data(), 2,
                                                           s.padding.data(), 2, s.dilation.data(), 2, false,
                                                           kNoOutputPadding.data(), 2, s.groups, &out));
  return Tensor(out);
}

// Where oneDNN's gradient of the weight writes past its buffers (AVX-512, torch 2.13): undilated kernels as tall as the
// map and its padding.
inline bool too_tall(const Tensor& x, const Tensor& weight, const Steps& s) {
  return s.padding[0] > 0 && s.dilation[0] == 1 && weight.size(2) >= x.size(2) + s.padding[0];
}

// x with rows of zeros above and below.
inline Tensor with_rows(const Tensor& x, int64_t rows) {
  Tensor padded = zeros(x, {x.size(0), x.size(1), x.size(2) + 2 * rows, x.size(3)}, x.scalar_type());
  Tensor inner = torch::stable::narrow(padded, 2, rows, x.size(2));
  torch::stable::copy_(inner, x);
  return padded;
}

// The gradient of the input, which has the shape of x, or of the weight.
inline Tensor convolution_backward(const Tensor& grad, const Tensor& x, const Tensor& weight, const Steps& s,
                                   bool of_input) {
  if (!of_input && too_tall(x, weight, s))
    return convolution_backward(grad, with_rows(x, s.padding[0]), weight,
                                {s.stride, {0, s.padding[1]}, s.dilation, s.groups}, of_input);
  AtenTensorHandle out[3] = {};
  const int32_t mask[3] = {of_input, !of_input, false};
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_convolution_backward(
      grad.get(), x.get(), weight.get(), nullptr, 0, s.stride.data(), 2, s.padding.data(), 2, s.dilation.data(), 2,
      false, kNoOutputPadding.data(), 2, s.groups, mask, 3, &out[0], &out[1], &out[2]));
  const Tensor result(out[of_input ? 0 : 1]);
  for (AtenTensorHandle rest : {out[of_input ? 1 : 0], out[2]})
    if (rest) aoti_torch_delete_tensor_object(rest);
  return result;
}

}  // namespace fastseg::aten
