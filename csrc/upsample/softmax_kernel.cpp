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

  V<T> down(int64_t c, T wa, T wb) const { return load(top + c * L) * wa + load(bottom + c * L) * wb; }

  // Interpolates row y; returns the maximum.
  V<T> row(int64_t y) const {
    const T wa = p.y.lower_weight[y], wb = p.y.upper_weight[y];
    V<T> most = down(0, wa, wb);
    store(value, most);
    for (int64_t c = 1; c < p.source.c; ++c) {
      const V<T> v = down(c, wa, wb);
      store(value + c * L, v);
      most = maximum<T>(most, v);
    }
    return most;
  }

  // Sum of exp(value - most); kKeep stores the terms.
  template <bool kKeep>
  V<T> sum(V<T> most) const {
    V<T> total = {};
    for (int64_t c = 0; c < p.source.c; ++c) {
      const V<T> e = exponential(load(value + c * L) - most);
      if (kKeep) store(value + c * L, e);
      total += e;
    }
    return total;
  }
};

template <class T>
void put_class(const Strided& out, V<T> v, int64_t at, int64_t n) {
  constexpr int L = Simd<T>::lanes;
  char* to = (char*)out.data + at * size_of(out.type);
  if (out.type == (sizeof(T) == 4 ? Float::f32 : Float::f64) && out.stride_x == 1) return store_some((T*)to, v, n);
  T lanes[L];
  store(lanes, v);
  narrow(lanes, n, out.stride_x, to, out.type);
}

// Calls use(block, y, x, lanes, pixel index) after row y of each vector of columns was interpolated.
template <class T, class Use>
void each_row(const Softmax<T>& p, int64_t index, const Use& use) {
  constexpr int L = Simd<T>::lanes;
  const CellRow<T> cell(p.y, index);
  const Block<T> block(p, cell, p.scratch);
  for (int64_t x = 0; x < p.x.out && cell.begin < cell.end; x += L) {
    block.across(x);
    const int64_t n = least(L, p.x.out - x);
    for (int64_t y = cell.begin; y < cell.end; ++y)
      use(block, y, x, n, (cell.image * p.y.out + y) * p.x.out + x);
  }
}

template <class T>
void softmax(const Softmax<T>& p, int64_t begin, int64_t end) {
  constexpr int L = Simd<T>::lanes;
  for (int64_t i = begin; i < end; ++i)
    each_row(p, i, [&](const Block<T>& block, int64_t y, int64_t x, int64_t n, int64_t) {
      const V<T> most = block.row(y);
      const V<T> inverse = T(1) / block.template sum<true>(most);
      const int64_t at = block.cell.image * p.out.stride_n + y * p.out.stride_y + x * p.out.stride_x;
      for (int64_t c = 0; c < p.source.c; ++c)
        put_class<T>(p.out, load(block.value + c * L) * inverse, at + c * p.out.stride_c, n);
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

template <class T>
void cross_entropy(const Softmax<T>& p, int64_t begin, int64_t end) {
  constexpr int L = Simd<T>::lanes;
  const int32_t classes = int32_t(p.source.c);
  for (int64_t i = begin; i < end; ++i) {
    double losses[L] = {}, weights[L] = {};
    int64_t bad = -1;
    each_row(p, i, [&](const Block<T>& block, int64_t y, int64_t, int64_t n, int64_t pixel) {
      const V<T> most = block.row(y);
      V<T> uniform = {};
      T smooth = 0;
      if (p.smoothing != 0)
        for (int64_t c = 0; c < classes; ++c) {
          const T w = p.weight ? p.weight[c] : T(1);
          uniform += load(block.value + c * L) * w;
          smooth += w;
        }
      const V<T> lse = most + logarithm(block.template sum<false>(most));
      store_some(p.lse + pixel, lse, n);

      int32_t target[L];
      widen_labels((const char*)p.target + pixel * size_of(p.target_type), p.target_type, n, target);
      T chosen[L] = {}, scale[L] = {};
      for (int64_t l = 0; l < n; ++l) {
        const int32_t t = target[l];
        if (t == p.ignore_index) continue;
        if (t < 0 || t >= classes) {
          if (bad < 0 || pixel + l < bad) bad = pixel + l;
          continue;
        }
        chosen[l] = block.value[t * L + l];
        scale[l] = (p.weight ? p.weight[t] : T(1)) * (p.pixel_weight ? p.pixel_weight[pixel + l] : T(1));
      }
      V<T> loss = (lse - load(chosen)) * (1 - p.smoothing);
      loss *= load(scale);
      if (p.smoothing != 0) {
        T pixel_scale[L] = {};
        for (int64_t l = 0; l < n; ++l)
          if (target[l] != p.ignore_index) pixel_scale[l] = p.pixel_weight ? p.pixel_weight[pixel + l] : T(1);
        loss += (lse * smooth - uniform) * (p.smoothing / T(classes)) * load(pixel_scale);
      }
      for (int64_t l = 0; l < n; ++l)
        if (target[l] == p.ignore_index) loss[l] = 0;  // not 0 * NaN
      if (p.loss) store_some(p.loss + pixel, loss, n);
      for (int64_t l = 0; l < n; ++l) {
        losses[l] += loss[l];
        weights[l] += scale[l];
      }
    });
    double loss = 0, weight = 0;
    for (int l = 0; l < L; ++l) {
      loss += losses[l];
      weight += weights[l];
    }
    p.sums[2 * i] = loss;
    p.sums[2 * i + 1] = weight;
    p.bad[i] = bad;
  }
}

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::SoftmaxKernels<float> FASTSEG_FOR_ISA(softmax_f32) = {
    fastseg::softmax<float>, fastseg::confidence<float>, fastseg::cross_entropy<float>};
extern "C" const fastseg::SoftmaxKernels<double> FASTSEG_FOR_ISA(softmax_f64) = {
    fastseg::softmax<double>, fastseg::confidence<double>, fastseg::cross_entropy<double>};
