// Tensors -> the parameters of upsample.h, for the glue files of every stem that upsamples.
#pragma once
#include "../common/dispatch.h"
#include "checks.h"
#include "upsample.h"

namespace fastseg {

inline Strided strided(const Tensor& x, Float type = Float::f32) {
  return {x.data_ptr(), type,        x.size(0),   x.size(1),   x.size(2),
          x.size(3),    x.stride(0), x.stride(1), x.stride(2), x.stride(3)};
}

// The table of one axis. Coordinates are computed in double and rounded once, whatever T. Where the size stays, each
// value is its own neighbour, as in PyTorch: an infinity makes no NaN of the one before it.
template <class T>
struct AxisTable {
  Tensor indices, weights;
  Axis<T> axis;

  AxisTable(const Tensor& like, int64_t in, int64_t out, bool align_corners)
      : indices(torch::stable::new_empty(like, std::vector<int64_t>{2 * (out + kPadding) + in + 1}, ScalarType::Int)),
        weights(torch::stable::new_empty(like, std::vector<int64_t>{2 * (out + kPadding)}, kScalar<T>)) {
    const int64_t n = out + kPadding;
    int32_t *lower = (int32_t*)indices.data_ptr(), *upper = lower + n, *first = upper + n;
    T *lower_weight = (T*)weights.data_ptr(), *upper_weight = lower_weight + n;
    const double scale = !align_corners ? double(in) / double(out) : out > 1 ? double(in - 1) / double(out - 1) : 0.0;
    for (int64_t i = 0; i < n; ++i) {
      const double p = double(std::min(i, out - 1));
      const double at = align_corners ? scale * p : std::max(scale * (p + 0.5) - 0.5, 0.0);
      lower[i] = int32_t(std::min(int64_t(at), in - 1));
      upper[i] = int32_t(std::min<int64_t>(lower[i] + (in != out), in - 1));
      const double between = std::min(std::max(at - lower[i], 0.0), 1.0);
      upper_weight[i] = T(between);
      lower_weight[i] = T(1.0 - between);
    }
    for (int64_t i = 0, p = 0; i <= in; ++i) {
      while (p < out && lower[p] < i) ++p;
      first[i] = int32_t(p);
    }
    axis = {in, out, lower, upper, lower_weight, upper_weight, first};
  }
};

// Both axes of a resize from h x w to height x width.
template <class T>
struct Axes {
  AxisTable<T> y, x;

  Axes(const Tensor& like, int64_t h, int64_t w, int64_t height, int64_t width, bool align_corners)
      : y(like, h, height, align_corners), x(like, w, width, align_corners) {}
};

// The maps of a tensor [n, c, h, w]: in place where rows are dense and long enough, else a padded copy.
template <class T>
struct Source {
  Tensor keep;
  Maps<T> maps;

  Source(const Tensor& x, Float type) : keep(x) {
    const int64_t n = x.size(0), c = x.size(1), h = x.size(2), w = x.size(3), pitch = std::max(w, kPadding);
    if (type == kNative<T> && x.stride(3) == 1 && w >= kPadding) {
      maps = {(const T*)x.data_ptr(), n, c, h, w, x.stride(0), x.stride(1), x.stride(2)};
      return;
    }
    keep = empty(x, {n, c, h, pitch}, kScalar<T>);
    const Pack<T> p{strided(x, type), (T*)keep.data_ptr(), pitch};
    Ranges(n * h, c * w).run([&](int64_t, int64_t b, int64_t e) { FASTSEG_PICK_FOR(T, upsample).pack(p, b, e); });
    maps = {(const T*)keep.data_ptr(), n, c, h, w, c * h * pitch, h * pitch, pitch};
  }
};

// Labels of upsampled logits, ready for its `argmax` kernel: sources, axes and the argmax at source resolution.
template <class T>
struct LabelJob {
  Source<T> source;
  Axes<T> axes;
  std::optional<Tensor> corners, candidates;
  Labels<T> labels;

  LabelJob(const Tensor& logits, Float type, int64_t height, int64_t width, bool align_corners)
      : source(logits, type),
        axes(logits, logits.size(2), logits.size(3), height, width, align_corners),
        labels{source.maps, axes.y.axis, axes.x.axis, nullptr, nullptr, nullptr, Int::u8, 0} {
    const Maps<T>& s = source.maps;
    if (s.c < 2 || height * width < 2 * s.h * s.w) return;  // too few pixels per cell to pay for the corners
    corners = empty(logits, {s.n, s.h, s.w}, ScalarType::Int);
    labels.corners = (int32_t*)corners->data_ptr();
    if (s.c > 2 && s.c <= 32 * kWords) {
      candidates = empty(logits, {s.n, s.h, (s.c + 31) / 32, s.w}, ScalarType::Int);
      labels.candidates = (uint32_t*)candidates->data_ptr();
    }
    Ranges(s.n * s.h, s.c * s.w).run([&](int64_t, int64_t b, int64_t e) {
      FASTSEG_PICK_FOR(T, labels).corners(labels, b, e);
    });
  }
};

}  // namespace fastseg
