// Softmax, its maximum, and cross-entropy of bilinearly upsampled logits, forward.
//
// Per vector of output columns the c classes are interpolated once into scratch that stays in the first-level cache; a
// second pass takes the exponentials. About 14 operations per class and pixel, 10 of them in the exponential. The
// full-size logits never reach memory: softmax writes its output once, cross-entropy one float (the log-sum-exp) per
// pixel.
#include "columns.h"

namespace fastseg {
namespace {

// The classes of one vector of columns: at the two source rows, then at one output row.
template <class T>
struct Block {
  static constexpr int L = Simd<T>::lanes;
  const Softmax<T>& p;
  const CellRow<T>& cell;
  T *top, *bottom, *value;  // [c, lanes]

  Block(const Softmax<T>& p_, const CellRow<T>& cell_, T* scratch)
      : p(p_), cell(cell_), top(scratch), bottom(top + p.source.c * L), value(bottom + p.source.c * L) {}

  void across(int64_t x) const {
    const Maps<T>& s = p.source;
    const Columns<T> k = columns(p.x, x);
    const T* a = s.data + cell.image * s.stride_n + cell.row * s.stride_y;
    const T* b = s.data + cell.image * s.stride_n + cell.below * s.stride_y;
    for (int64_t c = 0; c < s.c; ++c) {
      store(top + c * L, along(a + c * s.stride_c, k));
      store(bottom + c * L, along(b + c * s.stride_c, k));
    }
  }

  // Interpolates row y; returns the maximum.
  V<T> row(int64_t y) const {
    const T wa = p.y.lower_weight[y], wb = p.y.upper_weight[y];
    const int64_t stop = p.source.c * L;  // a local: the stores below could alias the parameters
    V<T> most = load(top) * wa + load(bottom) * wb;
    store(value, most);
    for (int64_t i = L; i < stop; i += L) {
      const V<T> v = load(top + i) * wa + load(bottom + i) * wb;
      store(value + i, v);
      most = maximum<T>(most, v);
    }
    return most;
  }

  // Sum of exp(value - most); kKeep stores the terms.
  template <bool kKeep>
  V<T> sum(V<T> most) const {
    const int64_t stop = p.source.c * L;
    V<T> total = {}, even = {};  // two sums: half the round-off, and no wait for the last addition
    for (int64_t i = 0; i < stop; i += L) {
      const V<T> e = exponential(load(value + i) - most);
      if (kKeep) store(value + i, e);
      const V<T> next = even + e;
      even = total;
      total = next;
    }
    return total + even;
  }
};

// Calls use(block, y, x, lanes, pixel index) after row y of each vector of columns was interpolated.
template <class T, class Use>
void each_row(const Softmax<T>& p, int64_t index, const Use& use) {
  constexpr int L = Simd<T>::lanes;
  const CellRow<T> cell(p.y, index);
  const Block<T> block(p, cell, p.scratch);
  for (int64_t x = 0; x < p.x.out && cell.begin < cell.end; x += L) {
    block.across(x);
    const int64_t n = least(L, p.x.out - x);
    for (int64_t y = cell.begin; y < cell.end; ++y) use(block, y, x, n, (cell.image * p.y.out + y) * p.x.out + x);
  }
}

template <class T>
void softmax(const Softmax<T>& p, int64_t begin, int64_t end) {
  constexpr int L = Simd<T>::lanes;
  const Strided out = p.out;
  const bool direct = out.type == kNative<T> && out.stride_x == 1;
  for (int64_t i = begin; i < end; ++i)
    each_row(p, i, [&](const Block<T>& block, int64_t y, int64_t x, int64_t n, int64_t) {
      const V<T> most = block.row(y);
      const V<T> inverse = T(1) / block.template sum<true>(most);
      const int64_t at = block.cell.image * out.stride_n + y * out.stride_y + x * out.stride_x;
      const int64_t classes = p.source.c;
      if (direct) {
        T* to = (T*)out.data + at;
        for (int64_t c = 0; c < classes; ++c, to += out.stride_c)
          store_some(to, load(block.value + c * L) * inverse, n);
        return;
      }
      char* to = (char*)out.data + at * size_of(out.type);
      T lanes[L];
      for (int64_t c = 0; c < classes; ++c, to += out.stride_c * size_of(out.type)) {
        store(lanes, load(block.value + c * L) * inverse);
        narrow(lanes, n, out.stride_x, to, out.type);
      }
    });
}

template <class T>
void confidence(const Softmax<T>& p, int64_t begin, int64_t end) {
  constexpr int L = Simd<T>::lanes;
  for (int64_t i = begin; i < end; ++i)
    each_row(p, i, [&](const Block<T>& block, int64_t y, int64_t, int64_t n, int64_t pixel) {
      V<T> most = block.row(y);
      I<T> winner = {};
      V<T> best = load(block.value);
      for (int64_t c = 1; c < p.source.c; ++c) {
        const V<T> v = load(block.value + c * L);
        const I<T> wins = ~(v <= best) & (best == best);
        best = wins ? v : best;
        winner = wins ? I<T>{} + typename Simd<T>::Int(c) : winner;
      }
      store_some(p.confidence + pixel, T(1) / block.template sum<false>(most), n);
      char* label = (char*)p.labels + pixel * size_of(p.label_type);
      for (int64_t l = 0; l < n; ++l) {
        const int64_t v = winner[l];
        memcpy(label + l * size_of(p.label_type), &v, size_of(p.label_type));  // little endian
      }
    });
}

// n labels as the integer lanes of T; lanes beyond n are `fill`.
template <class T>
I<T> load_labels(const void* labels, Int type, int64_t at, int64_t n, int32_t fill) {
  constexpr int L = Simd<T>::lanes;
  int32_t lanes[L];
  const char* from = (const char*)labels + at * size_of(type);
  if (n == L) {
    widen_labels(from, type, L, lanes);
  } else {
    for (int l = 0; l < L; ++l) lanes[l] = fill;
    widen_labels(from, type, n, lanes);
  }
  return load_index<T>(lanes);
}

// Sums in double of what is added as vectors.
template <class T>
struct Sum {
  double lanes[Simd<T>::lanes] = {};
  void add(V<T> v) {
    T terms[Simd<T>::lanes];
    store(terms, v);
    for (int l = 0; l < Simd<T>::lanes; ++l) lanes[l] += terms[l];
  }
  double total() const {
    double all = 0;
    for (const double x : lanes) all += x;
    return all;
  }
};

// One vector of pixels between the sum of exponentials and its logarithm.
template <class T>
struct Pending {
  V<T> most, sum, chosen, uniform;  // uniform: sum of the weighted values, for label smoothing
  I<T> valid;
};

template <class T, bool kSmooth>
void cross_entropy_as(const Softmax<T>& p, int64_t begin, int64_t end) {
  constexpr int L = Simd<T>::lanes;
  using Scalar = typename Simd<T>::Int;
  const Scalar classes = Scalar(p.source.c), ignored = p.ignore_index;
  const T rest = p.smoothing / T(classes);
  T class_total = 0;
  for (int64_t c = 0; c < classes; ++c) class_total += p.weight ? p.weight[c] : T(1);
  Sum<T> losses, weights;
  int64_t bad = -1;

  // The logarithms of a tile come after its sums: one by one, each would wait for the chain before it.
  const auto open = [&](const Block<T>& block, int64_t y, int64_t n, int64_t pixel) {
    Pending<T> out;
    out.most = block.row(y);
    const I<T> target = load_labels<T>(p.target, p.target_type, pixel, n, p.ignore_index);
    const I<T> counted = target != ignored, inside = (target >= 0) & (target < classes);
    if (any<T>(counted & ~inside))
      for (int64_t l = 0; l < n; ++l)
        if (counted[l] && !inside[l] && (bad < 0 || pixel + l < bad)) bad = pixel + l;
    out.valid = counted & inside;
    const I<T> index = out.valid ? target : I<T>{};
    Scalar places[L];
    T chosen[L];
    memcpy(places, &index, sizeof index);
    for (int l = 0; l < L; ++l) chosen[l] = block.value[places[l] * L + l];
    out.chosen = load(chosen);
    out.uniform = V<T>{};
    if (kSmooth)
      for (int64_t c = 0; c < classes; ++c) out.uniform += load(block.value + c * L) * (p.weight ? p.weight[c] : T(1));
    out.sum = block.template sum<false>(out.most);
    return out;
  };

  const auto close = [&](const Pending<T>& at, int64_t n, int64_t pixel) {
    const V<T> lse = at.most + logarithm(at.sum);
    store_some(p.lse + pixel, lse, n);
    V<T> pixel_scale = at.valid ? splat(T(1)) : V<T>{};
    if (p.pixel_weight)
      for (int64_t l = 0; l < n; ++l) pixel_scale[l] *= p.pixel_weight[pixel + l];
    V<T> scale = pixel_scale;
    if (p.weight) {
      const I<T> target = load_labels<T>(p.target, p.target_type, pixel, n, p.ignore_index);
      for (int64_t l = 0; l < n; ++l)
        if (at.valid[l]) scale[l] *= p.weight[target[l]];
    }
    V<T> loss = (lse - at.chosen) * scale;
    if (kSmooth) loss = loss * (1 - p.smoothing) + (lse * class_total - at.uniform) * rest * pixel_scale;
    loss = at.valid ? loss : V<T>{};  // 0 * NaN is not 0
    if (p.loss) store_some(p.loss + pixel, loss, n);
    losses.add(loss);
    weights.add(scale);
  };

  for (int64_t i = begin; i < end; ++i) {
    losses = weights = {};
    bad = -1;
    const CellRow<T> cell(p.y, i);
    const Block<T> block(p, cell, p.scratch);
    for (int64_t x = 0; x < p.x.out && cell.begin < cell.end; x += L) {
      block.across(x);
      const int64_t n = least(L, p.x.out - x);
      for (int64_t y = cell.begin; y < cell.end; y += kRows) {
        Pending<T> rows[kRows];
        const int64_t count = least(kRows, cell.end - y), pixel = (cell.image * p.y.out + y) * p.x.out + x;
        for (int64_t j = 0; j < count; ++j) rows[j] = open(block, y + j, n, pixel + j * p.x.out);
        for (int64_t j = 0; j < count; ++j) close(rows[j], n, pixel + j * p.x.out);
      }
    }
    p.sums[2 * i] = losses.total();
    p.sums[2 * i + 1] = weights.total();
    p.bad[i] = bad;
  }
}

template <class T>
void cross_entropy(const Softmax<T>& p, int64_t begin, int64_t end) {
  if (p.smoothing != 0)
    cross_entropy_as<T, true>(p, begin, end);
  else
    cross_entropy_as<T, false>(p, begin, end);
}

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::SoftmaxKernels<float> FASTSEG_FOR_ISA(softmax_f32) = {
    fastseg::softmax<float>, fastseg::confidence<float>, fastseg::cross_entropy<float>};
extern "C" const fastseg::SoftmaxKernels<double> FASTSEG_FOR_ISA(softmax_f64) = {
    fastseg::softmax<double>, fastseg::confidence<double>, fastseg::cross_entropy<double>};
