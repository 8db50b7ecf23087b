// The gradients. With g the upstream and G = the second stage's adjoint of g, the gradient of a first stage's weights
// is a correlation of G with x along the lines, that of x a convolution of G with the weights: both are products at
// each frequency again, and share the spectra of x, of the weights and, but for its windows, of G.
#include "stages.h"

namespace fastseg {
namespace {

using Optional = std::optional<Tensor>;
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

// Of a first stage: the gradient of its weights [c, cin, taps], and what x gets, from dense G [n, c, h, w].
template <class T>
Tensor differentiate(const Spectral<T>& f, const Tensor& upstream, const Tensor& bias, const Middle<T>& middle, T* of_x,
                     bool add) {
  const Shape& s = f.s;
  const Stage& stage = f.stage;
  const Windows& windows = stage.windows;
  const Planes<const T> maps{(const T*)upstream.data_ptr(), s.c, s.h, s.w, false};
  const Layout most(stage, s.c, f.slice, false, true);
  const Tensor turned = empty(upstream, {f.bins * most.bin}, kScalar<T>);
  const Tensor of_spectra = empty(upstream, {of_x ? f.bins * s.cin * most.columns : 0}, kScalar<T>);
  const Tensor of_weights = empty(upstream, {f.bins, 2 * s.c, s.cin}, kScalar<T>);
  const Tensor back = synthesis_table<T>(upstream, windows.size, windows.step, stage.reach - windows.start);
  f.each_slice([&](int64_t image, int64_t first, int64_t lines) {
    const Layout at(stage, s.c, lines, false, true), of(stage, s.cin, lines, f.last);
    const Tensor spectra = f.analysed(image, first, lines);
    const Tensor matrices = strided_view(turned, {f.bins, 2 * s.c, at.columns}, {at.bin, at.columns, 1});
    f.convolve(spectra, image, first, lines, bias, middle);
    // The samples that belong to a window and to no other, against all that their taps meet.
    analyse<T>(maps.lines(stage.rows, image, first), at, {windows.size, windows.count, windows.step, 0}, windows.step,
               f.forth, (T*)turned.data_ptr());
    (image == 0 && first == 0 ? aten::bmm : aten::add_bmm)(of_weights, matrices,
                                                           torch::stable::transpose(spectra, 1, 2));
    if (!of_x) return;
    analyse<T>(maps.lines(stage.rows, image, first), at, windows, windows.size, f.forth, (T*)turned.data_ptr());
    const int64_t bin = s.cin * at.columns;
    const Tensor weights = f.weights.matrices;
    if (f.last)
      aten::bmm(strided_view(of_spectra, {f.bins, at.columns, s.cin}, {bin, s.cin, 1}),
                torch::stable::transpose(matrices, 1, 2), weights);
    else
      aten::bmm(strided_view(of_spectra, {f.bins, s.cin, at.columns}, {bin, at.columns, 1}),
                torch::stable::transpose(weights, 1, 2), matrices);
    const Planes<T> result{of_x, s.cin, s.h, s.w, f.last};
    synthesise<T>({(const T*)of_spectra.data_ptr(), bin, of.part, of.window, of.outer, 0, of.lanes, windows,
                   (const T*)back.data_ptr(), result.lines(stage.rows, image, first), nullptr, add},
                  of.groups);
  });
  const int64_t taps = 2 * stage.reach + 1;
  const Tensor result = zeros(upstream, {s.c, s.cin, s.taps}, kScalar<T>);
  const Tensor lags = synthesis_table<T>(upstream, windows.size, taps, -stage.reach - windows.start);
  synthesise<T>({(const T*)of_weights.data_ptr(),
                 2 * s.c * s.cin,
                 s.c * s.cin,
                 0,
                 s.cin,
                 0,
                 s.cin,
                 {windows.size, 1, taps, 0},
                 (const T*)lags.data_ptr(),
                 {(T*)result.data_ptr() + stage.skipped, s.cin * s.taps, s.taps, 1, taps},
                 nullptr,
                 false},
                s.c);
  return result;
}

// Of a second stage: [c, c, taps], a GEMM of padded maps for each tap. Where `g` is padded it is zero.
template <class T>
Tensor correlate(const Shape& s, const Stage& stage, const Middle<T>& g, const Middle<T>& middle) {
  const int64_t plane = s.h * g.pitch, step = stage.rows ? 1 : g.pitch;
  const Tensor sums = zeros(g.memory, {s.taps, s.c, s.c}, kScalar<T>);
  for (int64_t image = 0; image < s.n; ++image)
    for (int64_t t = -stage.reach; t <= stage.reach; ++t) {
      const int64_t cut = stage.rows ? 0 : std::abs(t) * g.pitch;  // rows that the tap moves out of the map
      const int64_t from = image * s.c * plane + (t < 0 ? cut : 0) + (g.data - (T*)g.memory.data_ptr());
      const Tensor out = torch::stable::select(sums, 0, t + s.taps / 2);
      aten::add_mm(out, strided_view(g.memory, {s.c, plane - cut}, {plane, 1}, from),
                   strided_view(middle.memory, {plane - cut, s.c}, {1, plane}, from + t * step));
    }
  return torch::stable::contiguous(torch::stable::transpose(torch::stable::transpose(sums, 0, 1), 1, 2));
}

// [n, c, h, w] -> [c].
template <class T>
Tensor summed(const Shape& s, const Tensor& maps) {
  const Tensor out = empty(maps, {s.c}, kScalar<T>);
  for (int64_t c = 0; c < s.c; ++c) {
    double sum = 0;
    for (int64_t n = 0; n < s.n; ++n)
      for (int64_t i = 0; i < s.h * s.w; ++i) sum += ((const T*)maps.data_ptr())[(n * s.c + c) * s.h * s.w + i];
    ((T*)out.data_ptr())[c] = T(sum);
  }
  return out;
}

// Gradients in T: of x, or empty, of the four weights, of the biases of the first stages and of the second.
template <class T>
struct Result {
  Tensor x, column, row, row2, column2, column_bias, row_bias, bias2;
};

template <class T>
Result<T> by_frequencies(const Shape& s, const Stage (&stages)[2], const Tensor& g, const Tensor& x,
                         const Weights& weights, const Biases& biases, bool of_x) {
  const Middle<T> padded(x, s), first(x, s), second(x, s);
  padded.fill(s, g, nullptr);
  const Tensor of_first = empty(x, {s.n, s.c, s.h, s.w}, kScalar<T>),
               of_second = empty(x, {s.n, s.c, s.h, s.w}, kScalar<T>);
  const Tensor row = packed<T>(s, stages[1], weights.row2, true);
  const Tensor column = packed<T>(s, stages[0], weights.column2, true);
  mix<T>(s, stages, padded, padded, &row, nullptr, nullptr, of_first);
  mix<T>(s, stages, padded, padded, nullptr, &column, nullptr, of_second);
  const Tensor of_input =
      of_x ? empty_images(x, s.n, s.cin, s.h, s.w, kScalar<T>, is_channels_last(x)) : empty(x, {0}, kScalar<T>);
  T* to = of_x ? (T*)of_input.data_ptr() : nullptr;
  const Tensor of_column = differentiate<T>({s, stages[0], x, weights.column}, of_first,
                                            vector_of<T>(x, biases.column, s.c), first, to, false);
  const Tensor of_row =
      differentiate<T>({s, stages[1], x, weights.row}, of_second, vector_of<T>(x, biases.row, s.c), second, to, true);
  return {of_input,
          of_column,
          of_row,
          correlate<T>(s, stages[1], padded, first),
          correlate<T>(s, stages[0], padded, second),
          summed<T>(s, of_first),
          summed<T>(s, of_second),
          summed<T>(s, g)};
}

template <class T>
Result<T> by_library(const Shape& s, const Stage (&stages)[2], const Tensor& g, const Tensor& x, const Weights& weights,
                     const Biases& biases, bool of_x) {
  const auto wide = [](const Tensor& w) { return torch::stable::to(w, kScalar<T>); };
  const auto middle = [&](const Stage& stage, const Tensor& weight, const Optional& bias) {
    const Tensor y = dense_maps<T>(aten::convolution(x, wide(weight), steps_of(s, stage.rows)), false);
    const Tensor b = vector_of<T>(x, bias, s.c);
    for (int64_t i = 0; i < y.numel(); ++i) ((T*)y.data_ptr())[i] += ((const T*)b.data_ptr())[i / (s.h * s.w) % s.c];
    return y;
  };
  const Tensor first = middle(stages[0], weights.column, biases.column);
  const Tensor second = middle(stages[1], weights.row, biases.row);
  const auto adjoint = [&](const Tensor& upstream, const Tensor& y, const Tensor& weight, bool rows, bool of_y) {
    return aten::convolution_backward(upstream, y, wide(weight), steps_of(s, rows), of_y);
  };
  const Tensor of_first = dense_maps<T>(adjoint(g, first, weights.row2, true, true), false);
  const Tensor of_second = dense_maps<T>(adjoint(g, second, weights.column2, false, true), false);
  Tensor of_input = empty(x, {0}, kScalar<T>);
  if (of_x) {
    const bool last = is_channels_last(x);
    of_input = dense_maps<T>(adjoint(of_first, x, weights.column, false, true), last);
    const Tensor other = dense_maps<T>(adjoint(of_second, x, weights.row, true, true), last);
    for (int64_t i = 0; i < other.numel(); ++i) ((T*)of_input.data_ptr())[i] += ((const T*)other.data_ptr())[i];
  }
  return {of_input,
          adjoint(of_first, x, weights.column, false, false),
          adjoint(of_second, x, weights.row, true, false),
          adjoint(g, first, weights.row2, true, false),
          adjoint(g, second, weights.column2, false, false),
          summed<T>(s, of_first),
          summed<T>(s, of_second),
          summed<T>(s, g)};
}

template <class T>
Gradients backward(const Shape& s, const Tensor& grad, const Tensor& x_, const Weights& weights, const Biases& biases,
                   bool of_x) {
  const Tensor x = dense_maps<T>(x_, is_channels_last(x_)), g = dense_maps<T>(grad, false);
  const Stage stages[2] = {Stage(s, false), Stage(s, true)};
  bool spectral = stages[0].spectral && stages[1].spectral;
  std::optional<Result<T>> r;
  if (spectral) {
    r = by_frequencies<T>(s, stages, g, x, weights, biases, of_x);
    // As in the forward: what is not finite has spread.
    for (const Tensor& t : {r->x, r->column, r->row, r->row2, r->column2}) spectral = spectral && finite<T>(t);
  }
  if (!spectral) r = by_library<T>(s, stages, g, x, weights, biases, of_x);
  took("global_conv2d_backward", spectral ? "spectral" : "direct");
  const auto of_weight = [&](const Tensor& t, const Tensor& w) {
    const Tensor dense = torch::stable::contiguous(torch::stable::to(t, w.scalar_type()));
    return torch::stable::view(dense, {w.size(0), w.size(1), w.size(2), w.size(3)});
  };
  return {of_x ? torch::stable::to(r->x, x_.scalar_type()) : empty(x_, {0}, x_.scalar_type()),
          of_weight(r->column, weights.column),
          of_weight(r->row, weights.row),
          of_weight(r->row2, weights.row2),
          of_weight(r->column2, weights.column2),
          r->column_bias,
          r->row_bias,
          r->bias2};
}

Gradients global_conv2d_backward(const Tensor& grad, const Tensor& x, const Tensor& column_weight,
                                 const Tensor& row_weight, const Tensor& row_weight2, const Tensor& column_weight2,
                                 const Optional& column_bias, const Optional& row_bias, bool of_x) {
  constexpr const char* op = "global_conv2d_backward";
  const Weights weights{column_weight, row_weight, row_weight2, column_weight2};
  const Biases biases{column_bias, row_bias, std::nullopt, std::nullopt};
  const Shape s = check_global_conv(op, x, weights, biases);
  FASTSEG_CHECK(grad.dim() == 4 && grad.scalar_type() == x.scalar_type() && grad.size(0) == s.n &&
                    grad.size(1) == s.c && grad.size(2) == s.h && grad.size(3) == s.w,
                op, "grad", "be a result, got ", grad.dim(), " dimensions of ", grad.numel(), " values");
  if (s.n * s.h * s.w == 0) {
    took(op);
    const ScalarType type = x.scalar_type(), wide = s.type == Float::f64 ? ScalarType::Double : ScalarType::Float;
    const auto none = [&](const Tensor& w) { return zeros(w, {w.size(0), w.size(1), w.size(2), w.size(3)}, type); };
    return {of_x ? empty_images(x, s.n, s.cin, s.h, s.w, type, is_channels_last(x)) : empty(x, {0}, type),
            none(column_weight),
            none(row_weight),
            none(row_weight2),
            none(column_weight2),
            zeros(x, {s.c}, wide),
            zeros(x, {s.c}, wide),
            zeros(x, {s.c}, wide)};
  }
  return by_type(s.type, [&](auto zero) { return backward<decltype(zero)>(s, grad, x, weights, biases, of_x); });
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) {
  m.impl("global_conv2d_backward", TORCH_BOX(&fastseg::global_conv2d_backward));
}
