// Softmax, its maximum, and cross-entropy of bilinearly upsampled logits, forward.
//
// Per vector of output columns the c classes are interpolated horizontally once, into scratch that stays in the
// first-level cache. Down the rows of a cell a logit is linear, its exponential a geometric progression: about 6
// operations per class and pixel at a scale of 8, where an exponential for each takes 18. What must not overflow is
// subtracted first, at the source rows: the largest value of each. Between them that is not the largest value of a
// pixel but a line above it; where a value lies further than kExponents below, or is not finite, rows are taken one by
// one, less their own largest value. The full-size logits never reach memory: softmax writes its output once,
// cross-entropy one float per pixel, the logarithm of its sum. Their common offset appears in none of them, so that a
// large one costs no digits.
#include "block.h"

namespace fastseg {
namespace {

// Writes row y: terms [c], `apart` elements from each other, times the inverse of their sum.
template <class T>
void write_row(const Block<T>& block, int64_t y, int64_t x, int64_t n, const T* terms, int64_t apart, V<T> sum) {
  constexpr int L = Simd<T>::lanes;
  const Strided& out = block.p.out;
  const V<T> inverse = T(1) / sum;
  const int64_t classes = block.p.source.c, stride = out.stride_c;
  const int64_t at = block.cell.image * out.stride_n + y * out.stride_y + x * out.stride_x;
  if (out.type == kNative<T> && out.stride_x == 1) {
    T* to = (T*)out.data + at;
    for (int64_t c = 0; c < classes; ++c, to += stride, terms += apart) store_some(to, load(terms) * inverse, n);
    return;
  }
  char* to = (char*)out.data + at * size_of(out.type);
  T lanes[L];
  for (int64_t c = 0; c < classes; ++c, to += stride * size_of(out.type), terms += apart) {
    store(lanes, load(terms) * inverse);
    narrow(lanes, n, out.stride_x, to, out.type);
  }
}

template <class T>
void softmax(const Softmax<T>& p, int64_t begin, int64_t end) {
  constexpr int L = Simd<T>::lanes;
  for (int64_t i = begin; i < end; ++i)
    each_run(p, i, [](const Block<T>& block, const Run<T>& run, int64_t x, int64_t n) {
      V<T> sum[kRows];
      const int64_t rows = run.n > 4 ? kRows : 4;
      if (block.progressive(run)) {
        block.template sums<true>(run, sum);
        for (int64_t j = 0; j < run.n; ++j) write_row(block, run.y + j, x, n, block.value + j * L, rows * L, sum[j]);
        return;
      }
      for (int64_t y = run.y; y < run.y + run.n; ++y) {
        const V<T> total = block.template sum<true>(block.row(y));
        write_row(block, y, x, n, block.value, int64_t(L), total);
      }
    });
}

// Calls use(block, y, lanes, pixel index) for each row of each run.
template <class T, class Use>
void each_row(const Softmax<T>& p, int64_t index, const Use& use) {
  each_run(p, index, [&](const Block<T>& block, const Run<T>& run, int64_t x, int64_t n) {
    for (int64_t y = run.y; y < run.y + run.n; ++y) use(block, y, n, (block.cell.image * p.y.out + y) * p.x.out + x);
  });
}

template <class T>
void confidence(const Softmax<T>& p, int64_t begin, int64_t end) {
  constexpr int L = Simd<T>::lanes;
  for (int64_t i = begin; i < end; ++i)
    each_row(p, i, [&](const Block<T>& block, int64_t y, int64_t n, int64_t pixel) {
      const V<T> reference = block.row(y);
      I<T> winner = {};
      V<T> best = load(block.value);
      for (int64_t c = 1; c < p.source.c; ++c) {
        const V<T> v = load(block.value + c * L);
        const I<T> wins = ~(v <= best) & (best == best);
        best = wins ? v : best;
        winner = wins ? I<T>{} + typename Simd<T>::Int(c) : winner;
      }
      store_some(p.confidence + pixel, exponential(best - reference) / block.template sum<false>(reference), n);
      char* label = (char*)p.labels + pixel * size_of(p.label_type);
      for (int64_t l = 0; l < n; ++l) {
        const int64_t v = winner[l];
        memcpy(label + l * size_of(p.label_type), &v, size_of(p.label_type));  // little endian
      }
    });
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

  // The losses of a vector of pixels whose sums of exp(value - reference) are known.
  const auto finish = [&](const Block<T>& block, int64_t y, int64_t n, int64_t pixel, V<T> reference, V<T> sum) {
    const I<T> target = load_labels<T>(p.target, p.target_type, pixel, n, p.ignore_index);
    const I<T> counted = target != ignored, inside = (target >= 0) & (target < classes);
    if (any<T>(counted & ~inside))
      for (int64_t l = 0; l < n; ++l)
        if (counted[l] && !inside[l] && (bad < 0 || pixel + l < bad)) bad = pixel + l;
    const I<T> valid = counted & inside, index = valid ? target : I<T>{};
    const I<T> place = index * Scalar(L) + counting<T>();
    const V<T> chosen = block.between(gather_lanes<T>(block.top, place), gather_lanes<T>(block.bottom, place), y);
    const V<T> log_sum = logarithm(sum);
    store_some(p.log_sum + pixel, log_sum, n);

    V<T> pixel_scale = valid ? splat(T(1)) : V<T>{};
    if (p.pixel_weight)
      for (int64_t l = 0; l < n; ++l) pixel_scale[l] *= p.pixel_weight[pixel + l];
    V<T> scale = pixel_scale;
    if (p.weight)
      for (int64_t l = 0; l < n; ++l)
        if (valid[l]) scale[l] *= p.weight[index[l]];

    V<T> loss = (log_sum - (chosen - reference)) * scale;
    if (kSmooth) {
      V<T> uniform = (log_sum + reference) * class_total;
      for (int64_t c = 0; c < classes; ++c)
        uniform -=
            block.between(load(block.top + c * L), load(block.bottom + c * L), y) * (p.weight ? p.weight[c] : T(1));
      loss = loss * (1 - p.smoothing) + uniform * rest * pixel_scale;
    }
    loss = valid ? loss : V<T>{};  // 0 * NaN is not 0
    if (p.loss) store_some(p.loss + pixel, loss, n);
    losses.add(loss);
    weights.add(scale);
  };

  for (int64_t i = begin; i < end; ++i) {
    losses = weights = {};
    bad = -1;
    // The logarithms of a run come after its sums: one by one, each would wait for the chain before it.
    each_run(p, i, [&](const Block<T>& block, const Run<T>& run, int64_t x, int64_t n) {
      const int64_t pixel = (block.cell.image * p.y.out + run.y) * p.x.out + x;
      V<T> reference[kRows] = {}, sum[kRows];
      if (block.progressive(run))
        block.template sums<false>(run, sum);
      else
        for (int64_t j = 0; j < run.n; ++j) {
          reference[j] = block.row(run.y + j);
          sum[j] = block.template sum<false>(reference[j]);
        }
      for (int64_t j = 0; j < run.n; ++j) finish(block, run.y + j, n, pixel + j * p.x.out, reference[j], sum[j]);
    });
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
