// Depthwise atrous convolution on the CPU, forward and backward, for the glue files.
#pragma once
#include "arguments.h"

namespace fastseg {

constexpr int64_t kPieceBytes = 320 << 10;  // of what a piece reads, so that it stays in the L2 cache

// Where along a row the taps change that read inside of the map.
inline std::vector<Segment> segments_of(const ConvAxis& a) {
  std::vector<Segment> found;
  for (int64_t o = 0; o < a.out; ++o) {
    const int64_t start = o * a.stride - a.padding;
    const int64_t first = start < 0 ? (-start + a.dilation - 1) / a.dilation : 0;
    const int64_t last = std::min(a.taps, start < a.in ? (a.in - 1 - start) / a.dilation + 1 : 0);
    if (found.empty() || found.back().first != first || found.back().last != last) found.push_back({o, first, last});
  }
  found.push_back({a.out, 0, 0});
  return found;
}

// The kernel's parameters for dense maps of T; the weight is in the kernel's order.
template <class T>
Depthwise<T> depthwise_of(const ConvArguments& a, const Tensor& x, const Tensor& weight, bool channels_last) {
  Depthwise<T> p{};
  p.x = (const T*)x.data_ptr();
  p.weight = (const T*)weight.data_ptr();
  p.images = a.n;
  p.c = a.c;
  p.rows = a.rows;
  p.columns = a.columns;
  p.row_count = a.rows.out;
  p.channels_last = channels_last;
  const int64_t lines = a.c / p.kLine, window = std::min(p.halo() + 1, a.rows.in) * a.columns.in * a.c;
  if (channels_last && lines * p.kLine == a.c && window * int64_t(sizeof(T)) <= kPieceBytes + (kPieceBytes >> 2)) {
    p.in_place = true;
    p.lines = lines;
    p.piece = 1;
    return p;
  }
  // As many lines of each pixel as let the map fit, or several times the rows that are copied twice: neighbouring lines
  // share a page. Pieces with more halo than rows of their own would copy more than they compute.
  for (p.lines = 4;; p.lines /= 2) {
    const int64_t rows = kPieceBytes / (int64_t(sizeof(T)) * p.row_size());
    p.piece = rows >= a.rows.in ? a.rows.out : std::min(a.rows.out, std::max(rows - p.halo(), p.halo() + 1));
    if (!channels_last || p.lines == 1 || rows >= std::min(a.rows.in, 4 * p.halo())) break;
  }
  return p;
}

// [c, 1, kh, kw] -> [c, taps] or [taps, c] of T.
template <class T>
Tensor depthwise_weight_of(const Tensor& weight, bool channels_last) {
  const Tensor flat = torch::stable::reshape(torch::stable::to(weight, kScalar<T>), {weight.size(0), -1});
  return torch::stable::contiguous(channels_last ? torch::stable::transpose(flat, 0, 1) : flat);
}

// Runs rows [first, first + count) of the results into y, which holds these rows alone.
template <class T>
void run_depthwise(Depthwise<T> p, const Tensor& like, T* y, int64_t first, int64_t count) {
  p.y = y;
  p.first_row = first;
  p.row_count = count;
  p.piece = std::min(p.piece, count);
  const std::vector<Segment> segments = segments_of(p.columns);
  p.segments = segments.data();
  const int64_t taps = p.rows.taps * p.columns.taps;
  const Ranges ranges(p.tasks(), taps * p.images * p.c * count * p.columns.out / p.tasks());
  const Tensor scratch = empty(like, {ranges.slots, p.scratch_size()}, kScalar<T>);
  ranges.run([&](int64_t slot, int64_t b, int64_t e) {
    Depthwise<T> mine = p;
    mine.scratch = (T*)scratch.data_ptr() + slot * p.scratch_size();
    FASTSEG_PICK_FOR(T, depthwise).forward(mine, b, e);
  });
}

// Any maps -> dense maps of T in their memory format.
template <class T>
Tensor depthwise_conv(const ConvArguments& a, const Tensor& x, const Tensor& weight, const Epilogue<T>& epilogue) {
  const bool last = a.channels_last;
  const Tensor maps = dense_maps<T>(x, last), w = depthwise_weight_of<T>(weight, last);
  const Tensor y = empty_images(x, a.n, a.k, a.rows.out, a.columns.out, kScalar<T>, last);
  Depthwise<T> p = depthwise_of<T>(a, maps, w, last);
  p.epilogue = epilogue;
  run_depthwise<T>(p, x, (T*)y.data_ptr(), 0, a.rows.out);
  return y;
}

// At stride 1 the gradient of the input is a convolution of the gradient with the filters turned around.
inline bool has_depthwise_grad_input(const ConvArguments& a) {
  const auto turns = [](const ConvAxis& axis) {
    return axis.stride == 1 && (axis.taps - 1) * axis.dilation >= axis.padding;
  };
  return turns(a.rows) && turns(a.columns);
}

template <class T>
Tensor depthwise_grad_input(const ConvArguments& a, const Tensor& grad, const Tensor& weight) {
  ConvArguments turned = a;
  for (ConvAxis* axis : {&turned.rows, &turned.columns}) {
    std::swap(axis->in, axis->out);
    axis->padding = (axis->taps - 1) * axis->dilation - axis->padding;
  }
  turned.channels_last = is_channels_last(grad);
  const Tensor w = torch::stable::contiguous(torch::stable::to(weight, kScalar<T>));
  const Tensor reversed = empty(w, {a.c, 1, a.rows.taps, a.columns.taps}, kScalar<T>);
  const int64_t taps = a.rows.taps * a.columns.taps;
  for (int64_t i = 0; i < a.c * taps; ++i)
    ((T*)reversed.data_ptr())[i] = ((const T*)w.data_ptr())[i / taps * taps + taps - 1 - i % taps];
  return depthwise_conv<T>(turned, grad, reversed, {});
}

// [c, 1, kh, kw] of T.
template <class T>
Tensor depthwise_grad_weight(const ConvArguments& a, const Tensor& grad, const Tensor& x) {
  const Tensor maps = dense_maps<T>(x, false), upstream = dense_maps<T>(grad, false);
  const Tensor out = empty(x, {a.c, 1, a.rows.taps, a.columns.taps}, kScalar<T>);
  Depthwise<T> p = depthwise_of<T>(a, maps, out, false);
  p.piece = a.rows.out;  // a filter is summed over its plane by one thread
  p.y = (T*)upstream.data_ptr();
  const int64_t taps = a.rows.taps * a.columns.taps;
  const Ranges ranges(a.c, taps * a.n * a.pixels());
  const Tensor scratch = empty(x, {ranges.slots, p.scratch_size()}, kScalar<T>);
  const Tensor sums = empty(x, {ranges.slots, taps}, ScalarType::Double);
  ranges.run([&](int64_t slot, int64_t b, int64_t e) {
    Depthwise<T> mine = p;
    mine.scratch = (T*)scratch.data_ptr() + slot * p.scratch_size();
    FASTSEG_PICK_FOR(T, depthwise)
        .weight_gradient(mine, (double*)sums.data_ptr() + slot * taps, (T*)out.data_ptr(), b, e);
  });
  return out;
}

}  // namespace fastseg
