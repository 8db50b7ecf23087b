// One convolution on the CPU by a chosen algorithm, for the glue files of the convolution family.
#pragma once
#include "depthwise.h"
#include "tiles.h"

namespace fastseg {

// Through ATen, of the taps that read inside of the map. Dense maps of T, channels_last where oneDNN takes it.
template <class T>
Tensor direct_conv(const ConvArguments& a, const Tensor& x, const Tensor& weight) {
  const bool last = sizeof(T) == 4;
  const int64_t kh = live_taps_of(a.rows), kw = live_taps_of(a.columns);
  Tensor w = torch::stable::to(weight, kScalar<T>);
  aten::Steps steps = a.steps();
  steps.padding = {a.rows.padding - (a.rows.taps - kh) / 2 * a.rows.dilation,
                   a.columns.padding - (a.columns.taps - kw) / 2 * a.columns.dilation};
  w = narrowed(w, 2, (a.rows.taps - kh) / 2, kh);
  w = narrowed(w, 3, (a.columns.taps - kw) / 2, kw);
  return aten::convolution(dense_maps<T>(x, last), torch::stable::contiguous(w), steps);
}

// What follows the sum, as it came.
struct After {
  std::optional<Tensor> bias, scale, shift, residual;
  Activation activation = Activation::none;

  template <class T>
  EpilogueTensors<T> on(const Tensor& like, int64_t channels, bool channels_last) const {
    return {like, channels, bias, scale, shift, residual, activation, channels_last};
  }

  After of_image(int64_t i) const {
    After its = *this;
    if (residual) its.residual = narrowed(*residual, 0, i, 1);
    return its;
  }
};

// Any maps -> dense maps of T in either memory format. `packed` is taken if it is for the algorithm.
template <class T>
Tensor convolve(const ConvArguments& a, int algorithm, const Tensor& x, const Tensor& weight,
                const std::optional<Tensor>& packed, const After& after) {
  if (a.own_depthwise()) {
    const EpilogueTensors<T> epilogue = after.on<T>(x, a.k, a.channels_last);
    return depthwise_conv<T>(a, x, weight, epilogue.epilogue);
  }
  if (algorithm == kDirect) {
    const Tensor y = direct_conv<T>(a, x, weight);
    const bool last = is_channels_last(y);
    const Tensor dense = dense_maps<T>(y, last);
    finish_maps<T>(dense, last, after.on<T>(x, a.k, last).epilogue);
    return dense;
  }
  const Tensor maps = dense_maps<float>(x, is_channels_last(x)), w = torch::stable::contiguous(weight);
  const Tensor y = empty_images(x, a.n, a.k, a.rows.out, a.columns.out, ScalarType::Float, true);
  const EpilogueTensors<float> epilogue = after.on<float>(x, a.k, true);
  const bool ready = packed && packed->size(0) == kPoints[algorithm];
  const std::vector<int32_t> not_finite =
      run_tiles(a, algorithm, maps, w, ready ? packed : std::nullopt, y, epilogue.epilogue);
  for (int64_t i = 0; i < a.n; ++i) {
    if (!not_finite[i]) continue;
    ConvArguments one = a;
    one.n = 1;
    Tensor place = narrowed(y, 0, i, 1);
    const Tensor image = convolve<float>(one, kDirect, narrowed(maps, 0, i, 1), w, std::nullopt, after.of_image(i));
    torch::stable::copy_(place, image);
  }
  return y;
}

}  // namespace fastseg
