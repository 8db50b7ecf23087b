// Checked arguments of an atrous convolution.
#pragma once
#include "../conv/arguments.h"
#include "atrous_conv.h"

namespace fastseg {

using Pair = std::vector<int64_t>;

inline ConvAxis conv_axis(const char* op, int64_t in, int64_t taps, const Pair& stride, const Pair& padding,
                          const Pair& dilation, int axis) {
  constexpr int64_t kLimit = int64_t(1) << 30;
  for (const auto& [name, values, least] :
       {std::tuple("stride", &stride, 1), std::tuple("padding", &padding, 0), std::tuple("dilation", &dilation, 1)}) {
    FASTSEG_CHECK(values->size() == 2, op, name, "be two numbers, got ", values->size());
    const int64_t value = (*values)[axis];
    FASTSEG_CHECK(value >= least && kLimit > value, op, name, "be in [", least, ", 2^30), got ", value);
  }
  FASTSEG_CHECK(in < kLimit && taps > 0 && taps < kLimit, op, "x", "be smaller than 2^30 a side, got ", in, " with ",
                taps, " taps");
  const int64_t span = in + 2 * padding[axis] - (taps - 1) * dilation[axis] - 1;
  FASTSEG_CHECK(span >= 0 || in == 0, op, "padding", "let the kernel of ", (taps - 1) * dilation[axis] + 1,
                " fit into the padded map, got ", padding[axis], " around ", in);
  return {in, in ? span / stride[axis] + 1 : 0, taps, stride[axis], padding[axis], dilation[axis]};
}

// Taps that read inside of the map for some output, if they lie about the middle of the kernel; all of them otherwise.
inline int64_t live_taps_of(const ConvAxis& a) {
  if (2 * a.padding != (a.taps - 1) * a.dilation) return a.taps;
  const int64_t beyond = std::max<int64_t>(a.padding - (a.in - 1), 0);  // the outermost tap is `padding` off the middle
  return a.taps - 2 * std::min((beyond + a.dilation - 1) / a.dilation, (a.taps - 1) / 2);
}

struct ConvArguments {
  Float type;
  int64_t n, c, k, groups;
  ConvAxis rows, columns;
  bool channels_last;

  // A 3 x 3 convolution in float32 with padding 'same'.
  ConvArguments(const char* op, const Pair& shape, int64_t outputs, const Pair& dilation)
      : type(Float::f32), n(shape[0]), c(shape[1]), k(outputs), groups(1), channels_last(true) {
    rows = conv_axis(op, shape[2], 3, {1, 1}, dilation, dilation, 0);
    columns = conv_axis(op, shape[3], 3, {1, 1}, dilation, dilation, 1);
  }

  ConvArguments(const char* op, const Tensor& x, const Tensor& weight, const Pair& stride, const Pair& padding,
                const Pair& dilation, int64_t groups_)
      : type(float_type(op, "x", x)), groups(groups_) {
    FASTSEG_CHECK(x.dim() == 4, op, "x", "be [N, C, H, W], got ", x.dim(), " dimensions");
    FASTSEG_CHECK(weight.dim() == 4 && weight.scalar_type() == x.scalar_type(), op, "weight",
                  "be [K, C, kh, kw] in the dtype of x, got ", weight.dim(), " dimensions");
    n = x.size(0), c = x.size(1), k = weight.size(0);
    FASTSEG_CHECK(groups > 0 && c % groups == 0 && k % groups == 0 && c && k && weight.size(1) == c / groups, op,
                  "groups", "divide the channels of x and weight, got ", groups, " for ", c, " and ", k, " x ",
                  weight.size(1));
    rows = conv_axis(op, x.size(2), weight.size(2), stride, padding, dilation, 0);
    columns = conv_axis(op, x.size(3), weight.size(3), stride, padding, dilation, 1);
    channels_last = is_channels_last(x);
  }

  // Whether the depthwise kernels take it, which copy rows between their zeros.
  bool depthwise() const {
    constexpr int64_t kWidest = 1 << 14;
    return groups > 1 && groups == c && k == c && std::max(columns.padding, columns.stride) < kWidest;
  }
  // Forward oneDNN's kernel takes maps in channels_last where they lie and is up to twice as fast. With more padding it
  // has none, and takes 25 times as long.
  bool own_depthwise() const {
    constexpr int64_t kPaddingOfLibrary = 4;
    return depthwise() && !(channels_last && type == Float::f32 && columns.padding <= kPaddingOfLibrary);
  }
  int64_t pixels() const { return rows.out * columns.out; }
  bool empty() const { return n * k * pixels() == 0; }
  aten::Steps steps() const {
    return {{rows.stride, columns.stride}, {rows.padding, columns.padding}, {rows.dilation, columns.dilation}, groups};
  }
};

inline void check_shape(const char* op, const char* argument, const std::optional<Tensor>& x,
                        const std::vector<int64_t>& shape) {
  if (!x) return;
  float_type(op, argument, *x);
  bool same = x->dim() == int64_t(shape.size());
  for (size_t d = 0; same && d < shape.size(); ++d) same = x->size(d) == shape[d];
  FASTSEG_CHECK(same, op, argument, "have ", shape.size(), " dimensions that fit x and weight, the last of ",
                shape.back(), ", got ", x->dim());
}

}  // namespace fastseg
