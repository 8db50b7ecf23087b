// Tensors -> the parameters of global_conv.h, for the forward and the backward.
#pragma once
#include <cmath>

#include "../conv/arguments.h"
#include "global_conv.h"

namespace fastseg {

constexpr int64_t kSliceBytes = 4 << 20;  // of spectra of maps at a time: they stay in the caches
constexpr int64_t kLine = 16;             // values of a cache line; no two bins are a power of two apart

// What the arguments are, checked.
struct Shape {
  int64_t n, cin, c, h, w, taps;
  Float type;
};

// One first stage: lines of n samples, `across` of them in a map, and 2 * reach + 1 taps, those that can meet it.
struct Stage {
  bool rows, spectral;
  int64_t n, across, reach, skipped;  // taps before the first that meets the map
  Windows windows{};

  // Multiply-adds for a channel of x, by frequencies; those of a transform count twice: they run at half the speed.
  static double price(const Shape& s, int64_t lines, int64_t count, int64_t size) {
    const double transform = double(size * size) / 3 + double(8 * size);
    return double(lines * count) * (double(2 * size * s.c) + transform) + double(s.c) * transform;
  }

  Stage(const Shape& s, bool rows_)
      : rows(rows_),
        n(rows ? s.w : s.h),
        across(rows ? s.h : s.w),
        reach(std::min(s.taps / 2, n - 1)),
        skipped(s.taps / 2 - reach) {
    double best = double(s.n * across * n) * double(s.c * (2 * reach + 1));
    for (int64_t size = 8; size <= kMostSamples; size += 4) {
      const bool whole = size >= n + reach;  // the zeros behind a line are those before it, too
      if (!whole && size <= 2 * reach) continue;
      const int64_t step = whole ? n : size - 2 * reach, count = (n + step - 1) / step;
      const double p = price(s, across * s.n, count, size);
      if (p < best) windows = {size, count, step, whole ? 0 : -reach}, best = p;
    }
    spectral = windows.size > 0 && s.cin >= kLine;
  }

  int64_t bins() const { return windows.size / 2; }
};

inline aten::Steps steps_of(const Shape& s, bool rows) {
  aten::Steps steps;
  steps.padding[rows] = s.taps / 2;
  return steps;
}

// cos(2 pi i / size) and sin, each rounded once whatever T is.
struct Circle {
  std::vector<double> cosines, sines;

  explicit Circle(int64_t size) : cosines(size), sines(size) {
    for (int64_t i = 0; i < size; ++i) {
      const double angle = 2 * M_PI * double(i) / double(size);
      cosines[i] = std::cos(angle);
      sines[i] = std::sin(angle);
    }
  }
  int64_t at(int64_t i) const { return ((i % int64_t(cosines.size())) + cosines.size()) % cosines.size(); }
  double cosine(int64_t i) const { return cosines[at(i)]; }
  double sine(int64_t i) const { return sines[at(i)]; }
};

// The matrices of `spectrum`, one after the other.
template <class T>
Tensor analysis_table(const Tensor& like, int64_t size) {
  const Circle circle(size);
  const Tensor table = empty(like, {size * size}, kScalar<T>);
  T* k = (T*)table.data_ptr();
  int64_t n = size;
  for (; n % 4 == 0; n /= 2) {
    const int64_t q = n / 4, step = size / n;
    for (int64_t r = 0; r < q; ++r)
      for (int64_t j = 0; j < q; ++j) *k++ = T(circle.cosine((2 * r + 1) * j * step));
    for (int64_t r = 0; r < q; ++r)
      for (int64_t j = q; j > 0; --j) *k++ = T(-circle.sine((2 * r + 1) * j * step));
  }
  const int64_t half = n / 4, step = 2 * size / n;
  for (const int sign : {-1, 1}) {
    for (int64_t r = 0; r <= half; ++r)
      for (int64_t j = 0; j <= half; ++j) *k++ = T(circle.cosine(r * j * step));
    for (int64_t r = 1; r <= half; ++r)
      for (int64_t j = half; j > 0; --j) *k++ = T(sign * circle.sine(r * j * step));
  }
  return table;
}

// [samples, size]: sample j + offset of a window from its packed spectrum.
template <class T>
Tensor synthesis_table(const Tensor& like, int64_t size, int64_t samples, int64_t offset) {
  const Circle circle(size);
  const Tensor table = empty(like, {samples, size}, kScalar<T>);
  T* k = (T*)table.data_ptr();
  for (int64_t j = offset; j < samples + offset; ++j) {
    *k++ = T(1.0 / double(size));
    *k++ = T((j % 2 ? -1.0 : 1.0) / double(size));
    for (int64_t f = 1; f < size / 2; ++f) {
      *k++ = T(2 * circle.cosine(f * j) / double(size));
      *k++ = T(-2 * circle.sine(f * j) / double(size));
    }
  }
  return table;
}

inline Tensor strided_view(const Tensor& x, const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides,
                           int64_t offset = 0) {
  AtenTensorHandle view;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch__reinterpret_tensor(x.get(), int64_t(sizes.size()), sizes.data(), strides.data(), offset, &view));
  return Tensor(view);
}

// Dense maps [n, c, h, w] in either memory format, as lines.
template <class T>
struct Planes {
  T* data;
  int64_t c, h, w;
  bool last;

  // Of image i, from line `first` on: a group is a channel, or in channels_last a line whose lanes are channels.
  Lines<T> lines(bool rows, int64_t i, int64_t first) const {
    T* image = data + i * c * h * w;
    if (rows && last) return {image + first * w * c, w * c, 1, c, w};
    if (rows) return {image + first * w, h * w, w, 1, w};
    if (last) return {image + first * c, c, 1, w * c, h};
    return {image + first, h * w, 1, w, h};
  }
};

// Where the spectra of `lines` lines of c channels lie, [bin, c, part, window, line] or [bin, part, window, line, c],
// as a matrix of each bin that has a row for a channel; with a second half of them `turned` by i, of twice the rows.
struct Layout {
  int64_t groups, lanes, bin, part, window, outer, turned, columns, row, column;

  Layout(const Stage& s, int64_t c, int64_t lines, bool last, bool halves = false) {
    columns = 2 * s.windows.count * lines;
    groups = last ? lines : c;
    lanes = last ? c : lines;
    bin = (halves ? 2 : 1) * c * columns + kLine;
    part = columns / 2 * (last ? c : 1);
    window = lines * (last ? c : 1);
    outer = last ? c : columns;
    row = last ? 1 : columns;
    column = last ? c : 1;
    turned = halves ? c * columns : 0;
  }
};

// Middle maps of a branch with zeros around each row, as the second stage reads them.
template <class T>
struct Middle {
  Tensor memory;
  int64_t pitch;
  T* data;  // column 0 of the first row

  Middle(const Tensor& like, const Shape& s) : pitch(s.w + std::min(s.taps / 2, s.w - 1)) {
    const int64_t reach = pitch - s.w;
    memory = zeros(like, {s.n * s.c * s.h * pitch + 2 * reach + kBeyond}, kScalar<T>);
    data = (T*)memory.data_ptr() + reach;
  }

  // Dense maps [n, c, h, w] and a bias for each channel, or null.
  void fill(const Shape& s, const Tensor& maps, const T* bias) const {
    for (int64_t row = 0; row < s.n * s.c * s.h; ++row) {
      const T *from = (const T*)maps.data_ptr() + row * s.w, b = bias ? bias[row / s.h % s.c] : T(0);
      for (int64_t i = 0; i < s.w; ++i) data[row * pitch + i] = from[i] + b;
    }
  }

  Lines<T> lines(const Shape& s, bool rows, int64_t image, int64_t first) const {
    T* at = data + image * s.c * s.h * pitch + first * (rows ? pitch : 1);
    return rows ? Lines<T>{at, s.h * pitch, pitch, 1, s.w} : Lines<T>{at, s.h * pitch, 1, pitch, s.h};
  }
};

}  // namespace fastseg
