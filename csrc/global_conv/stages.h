// The first stages, by frequencies or by a library, for the forward and the backward.
#pragma once
#include "checks.h"

namespace fastseg {

template <class T>
void analyse(const Lines<const T>& lines, const Layout& at, const Windows& windows, int64_t used, const Tensor& table,
             T* out) {
  const Analysis<T> p{lines,   at.lanes,  windows,  used,     (const T*)table.data_ptr(), out, at.bin,
                      at.part, at.window, at.outer, at.turned};
  Ranges(at.groups, at.lanes * windows.count * windows.size * 8).run([&](int64_t, int64_t b, int64_t e) {
    FASTSEG_PICK_FOR(T, spectrum).analyse(p, b, e);
  });
}

template <class T>
void synthesise(const Synthesis<T>& p, int64_t groups) {
  Ranges(groups, p.lanes * p.windows.count * p.windows.step * p.windows.size).run([&](int64_t, int64_t b, int64_t e) {
    FASTSEG_PICK_FOR(T, spectrum).synthesise(p, b, e);
  });
}

// Lines that are taken at a time, so that their spectra of c channels fit the caches.
inline int64_t slice_of(const Stage& s, int64_t c, int64_t bytes) {
  const int64_t most = kSliceBytes / (c * s.windows.count * s.windows.size * bytes);
  const int64_t slices = (s.across + std::max(most, kLine) - 1) / std::max(most, kLine);
  return std::min(s.across, ((s.across + slices - 1) / slices + kLine - 1) / kLine * kLine);
}

// The spectra of weights [c, cin, taps]: bin after bin a matrix [2 c, cin], real parts first.
template <class T>
struct WeightSpectra {
  Tensor memory, matrices;

  WeightSpectra(const Stage& s, const Tensor& w, const Tensor& table) {
    const int64_t c = w.size(0), cin = w.size(1), taps = w.size(2) * w.size(3), bin = 2 * c * cin + kLine;
    const bool last = is_channels_last(w);
    const Tensor dense = dense_maps<T>(w, last);
    memory = empty(w, {s.bins() * bin}, kScalar<T>);
    matrices = strided_view(memory, {s.bins(), 2 * c, cin}, {bin, cin, 1});
    const int64_t axis = last ? cin : 1, used = 2 * s.reach + 1;
    const Lines<const T> lines{(const T*)dense.data_ptr() + s.skipped * axis, cin * taps, last ? 1 : taps, axis, used};
    Layout at(s, c, cin, false);
    at.bin = bin, at.part = c * cin, at.outer = cin;
    analyse<T>(lines, at, {s.windows.size, 1, used, 0}, used, table, (T*)memory.data_ptr());
  }
};

// One first stage by frequencies, a slice of the lines of an image at a time.
template <class T>
struct Spectral {
  const Shape& s;
  const Stage& stage;
  bool last;
  Tensor x, forth, back;  // tables
  WeightSpectra<T> weights;
  int64_t slice, bins;
  Tensor spectra, products;

  Spectral(const Shape& s_, const Stage& stage_, const Tensor& x_, const Tensor& weight)
      : s(s_),
        stage(stage_),
        last(is_channels_last(x_)),
        x(x_),
        forth(analysis_table<T>(x_, stage.windows.size)),
        back(synthesis_table<T>(x_, stage.windows.size, stage.windows.step, -stage.reach - stage.windows.start)),
        weights(stage, weight, forth),
        slice(slice_of(stage, s.cin, sizeof(T))),
        bins(stage.bins()),
        spectra(empty(x_, {bins * Layout(stage, s.cin, slice, last).bin}, kScalar<T>)),
        products(empty(x_, {bins * 2 * s.c * Layout(stage, s.c, slice, false).columns}, kScalar<T>)) {}

  // Calls use(image, first line, lines) on every slice.
  template <class Use>
  void each_slice(const Use& use) const {
    for (int64_t image = 0; image < s.n; ++image)
      for (int64_t first = 0; first < stage.across; first += slice)
        use(image, first, std::min(slice, stage.across - first));
  }

  // The spectra of a slice of x, for each bin [cin, columns].
  Tensor analysed(int64_t image, int64_t first, int64_t lines) const {
    const Layout at(stage, s.cin, lines, last);
    const Planes<const T> maps{(const T*)x.data_ptr(), s.cin, s.h, s.w, last};
    analyse<T>(maps.lines(stage.rows, image, first), at, stage.windows, stage.windows.size, forth,
               (T*)spectra.data_ptr());
    return strided_view(spectra, {bins, s.cin, at.columns}, {at.bin, at.row, at.column});
  }

  void convolve(const Tensor& matrices, int64_t image, int64_t first, int64_t lines, const Tensor& bias,
                const Middle<T>& middle) const {
    const int64_t columns = matrices.size(2), bin = 2 * s.c * columns;
    aten::bmm(strided_view(products, {bins, 2 * s.c, columns}, {bin, columns, 1}), weights.matrices, matrices);
    const Synthesis<T> p{(const T*)products.data_ptr(),
                         bin,
                         columns / 2,
                         lines,
                         columns,
                         s.c * columns,
                         lines,
                         stage.windows,
                         (const T*)back.data_ptr(),
                         middle.lines(s, stage.rows, image, first),
                         (const T*)bias.data_ptr(),
                         false};
    synthesise(p, s.c);
  }
};

// A first stage by a library's convolution.
template <class T>
void convolve_directly(const Shape& s, const Stage& stage, const Tensor& x, const Tensor& weight, const Tensor& bias,
                       const Middle<T>& middle) {
  const Tensor y = aten::convolution(x, torch::stable::to(weight, kScalar<T>), steps_of(s, stage.rows));
  middle.fill(s, dense_maps<T>(y, false), (const T*)bias.data_ptr());
}

// A vector of c values, zero without one.
template <class T>
Tensor vector_of(const Tensor& like, const std::optional<Tensor>& v, int64_t c) {
  return v ? torch::stable::contiguous(torch::stable::to(*v, kScalar<T>)) : zeros(like, {c}, kScalar<T>);
}

template <class T>
bool finite(const Tensor& x) {
  return FASTSEG_PICK_FOR(T, mix).finite((const T*)x.data_ptr(), x.numel());
}

// The taps of a second stage [c, c, taps] that meet the map, as `mix` reads them; of the adjoint with `adjoint`.
template <class T>
Tensor packed(const Shape& s, const Stage& stage, const Tensor& weight, bool adjoint = false) {
  const Tensor dense = torch::stable::contiguous(torch::stable::to(weight, kScalar<T>));
  const int64_t taps = 2 * stage.reach + 1, blocks = (s.c + kTogether - 1) / kTogether;
  const Tensor out = zeros(weight, {blocks, s.c, taps, kTogether}, kScalar<T>);
  for (int64_t o = 0; o < s.c; ++o)
    for (int64_t m = 0; m < s.c; ++m)
      for (int64_t t = 0; t < taps; ++t) {
        const int64_t from = adjoint ? (m * s.c + o) * s.taps + taps - 1 - t : (o * s.c + m) * s.taps + t;
        ((T*)out.data_ptr())[((o / kTogether * s.c + m) * taps + t) * kTogether + o % kTogether] =
            ((const T*)dense.data_ptr())[from + stage.skipped];
      }
  return out;
}

// The second stages of one branch or of both; `row` and `column` are packed taps, or null.
template <class T>
void mix(const Shape& s, const Stage (&stages)[2], const Middle<T>& first, const Middle<T>& second, const Tensor* row,
         const Tensor* column, const T* bias, const Tensor& out) {
  const auto pointer = [](const Tensor* t) { return t ? (const T*)t->data_ptr() : nullptr; };
  const Mix<T> p{first.data, second.data, pointer(row), pointer(column), bias,           (T*)out.data_ptr(), s.c,
                 s.h,        s.w,         first.pitch,  stages[1].reach, stages[0].reach};
  Ranges(s.n * s.h, 2 * s.w * s.c * s.c * (stages[0].reach + stages[1].reach + 1))
      .run([&](int64_t, int64_t b, int64_t e) { FASTSEG_PICK_FOR(T, mix).mix(p, b, e); });
}

}  // namespace fastseg
