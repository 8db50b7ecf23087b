#include "stages.h"

namespace fastseg {
namespace {

using Optional = std::optional<Tensor>;

template <class T>
void convolve(const Shape& s, const Stage& stage, bool spectral, const Tensor& x, const Tensor& weight,
              const Tensor& bias, const Middle<T>& middle) {
  if (!spectral) return convolve_directly<T>(s, stage, x, weight, bias, middle);
  const Spectral<T> f(s, stage, x, weight);
  f.each_slice([&](int64_t image, int64_t first, int64_t lines) {
    f.convolve(f.analysed(image, first, lines), image, first, lines, bias, middle);
  });
}

template <class T>
Tensor global_conv(const Shape& s, const Tensor& x_, const Weights& weights, const Biases& biases) {
  const Tensor x = dense_maps<T>(x_, is_channels_last(x_));
  const Stage stages[2] = {Stage(s, false), Stage(s, true)};
  bool columns = stages[0].spectral, rows = stages[1].spectral;
  const Middle<T> first(x, s), second(x, s);
  const auto convolve_both = [&] {
    convolve<T>(s, stages[0], columns, x, weights.column, vector_of<T>(x, biases.column, s.c), first);
    convolve<T>(s, stages[1], rows, x, weights.row, vector_of<T>(x, biases.row, s.c), second);
  };
  convolve_both();
  // A frequency is made of all samples: one that is not finite, or an overflow, has spread.
  if ((columns || rows) && !(finite<T>(first.memory) && finite<T>(second.memory))) {
    columns = rows = false;
    convolve_both();
  }
  took("global_conv2d", columns && rows ? "spectral" : columns || rows ? "mixed" : "direct");
  const Tensor row = packed<T>(s, stages[1], weights.row2), column = packed<T>(s, stages[0], weights.column2);
  const Tensor one = vector_of<T>(x, biases.row2, s.c), other = vector_of<T>(x, biases.column2, s.c);
  const Tensor bias = empty(x, {s.c}, kScalar<T>);
  for (int64_t o = 0; o < s.c; ++o)
    ((T*)bias.data_ptr())[o] = ((const T*)one.data_ptr())[o] + ((const T*)other.data_ptr())[o];
  const Tensor out = empty_images(x, s.n, s.c, s.h, s.w, kScalar<T>, false);
  mix<T>(s, stages, first, second, &row, &column, (const T*)bias.data_ptr(), out);
  return result_like<T>(out, x_);
}

Tensor global_conv2d(const Tensor& x, const Tensor& column_weight, const Tensor& row_weight, const Tensor& row_weight2,
                     const Tensor& column_weight2, const Optional& column_bias, const Optional& row_bias,
                     const Optional& row_bias2, const Optional& column_bias2) {
  const Weights weights{column_weight, row_weight, row_weight2, column_weight2};
  const Biases biases{column_bias, row_bias, row_bias2, column_bias2};
  const Shape s = check_global_conv("global_conv2d", x, weights, biases);
  if (s.n * s.h * s.w == 0) {
    took("global_conv2d");
    return empty_images(x, s.n, s.c, s.h, s.w, x.scalar_type(), is_channels_last(x));
  }
  return by_type(s.type, [&](auto zero) { return global_conv<decltype(zero)>(s, x, weights, biases); });
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) { m.impl("global_conv2d", TORCH_BOX(&fastseg::global_conv2d)); }
