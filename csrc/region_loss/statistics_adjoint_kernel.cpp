// The backward of statistics_kernel.cpp, gathered as upsample/adjoint_kernel.cpp gathers. With g the gradients of the
// sums of a class c and t that of a pixel,
//   d/dz_c = p_c (a_c + b_c p_c - M) + [c = t] H,   M = H + sum_k p_k (a_k + b_k p_k),   a = g_P,   b = 2 g_P2,
//   H = g_TP p_t - g_CE + g_F (gamma (1 - p_t)^(gamma - 1) p_t log p_t - (1 - p_t)^gamma),
// where g_TP, g_CE and g_F are those of t. The exponentials of a tile, or the first ones and the ratios of their
// progressions, are kept in the second-level cache from the sums over classes to the gradient of each class: nothing
// has to be kept from the forward, and no exponential is computed twice. Sigmoid: each class by itself, with
//   d/dz = p q (a + b p) + [y = 1] (g_TP p q - q (g_CE + ...)) + [y = 0] p (g_CE- + ...).
#include "../upsample/adjoint.h"
#include "terms.h"

namespace fastseg {
namespace {

constexpr int64_t kPixels = kTile * kTileRows;

// The classes of the pixels of a tile: [kTileRows, kTile].
template <class T>
void fill_classes(const StatisticsAdjoint<T>& s, const Tile<T>& tile, typename Simd<T>::Int* own) {
  const Adjoint<T>& p = s.pixels;
  for (int64_t y = tile.y0; y < tile.y1; ++y)
    for (int64_t x = tile.x0; x < tile.x1; x += Simd<T>::lanes) {
      const int64_t pixel = (tile.image * p.y.out + y) * p.x.out + x, n = least(Simd<T>::lanes, tile.x1 - x);
      const I<T> mine = classes_of<T>(p, s.first, p.c, pixel, n, nullptr);
      memcpy(own + (y - tile.y0) * kTile + (x - tile.x0), &mine, sizeof mine);
    }
}

template <class T, bool kSquares>
void softmax_as(const StatisticsAdjoint<T>& s, int64_t begin, int64_t end) {
  constexpr int L = Simd<T>::lanes;
  using Scalar = typename Simd<T>::Int;
  const Adjoint<T>& p = s.pixels;
  T *inverse = p.scratch + 2 * p.c * kTile, *mean = inverse + kPixels, *extra = mean + kPixels;
  Scalar* own = (Scalar*)(extra + kPixels);
  T* rows = (T*)(own + kPixels);
  T* kept = rows + 2 * p.c * kTile;  // [c, kKept]: of a run its first row and the ratio [2, kTile], or each row
  Across<T> top{rows, -1, 0, {}}, bottom{rows + p.c * kTile, -1, 0, {}};
  bool progressive[kTile / L];
  Run<T> runs[kTileRows];
  int run_count = 0;
  const T* grad = nullptr;

  const auto between = [&](int64_t c, int64_t x, int64_t y) {
    return blend<T>(load(top.value + c * kTile + x), splat(p.y.lower_weight[y]), load(bottom.value + c * kTile + x),
                    splat(p.y.upper_weight[y]));
  };

  // Of a pixel, from the sums over its classes: what the gradients of all its classes have in common.
  const auto finish = [&](int64_t at, int64_t x, int64_t y, V<T> reference, V<T> sum, V<T> linear, V<T> squares) {
    const I<T> label = load_lanes<T>(own + at), hit = label >= Scalar(0), counted = label != Scalar(kIgnored);
    const I<T> index = hit ? label : I<T>{}, place = index * Scalar(kTile) + counting<T>();
    const V<T> value = blend<T>(gather_lanes<T>(top.value + x, place), splat(p.y.lower_weight[y]),
                                gather_lanes<T>(bottom.value + x, place), splat(p.y.upper_weight[y]));
    const V<T> log = (value - reference) - logarithm(sum), probability = exponential(log);
    const I<T> of = index * Scalar(kSoftmaxSums);
    V<T> h = gather_lanes<T>(grad + kOverlap, of) * probability - gather_lanes<T>(grad + kEntropy, of);
    if (s.focal)
      h += gather_lanes<T>(grad + kFocal, of) * Focal<T>(log, probability, T(1) - probability, s.gamma).slope;
    h = hit ? h : V<T>{};
    const V<T> factor = T(1) / sum;
    V<T> m = linear * factor;
    if (kSquares) m += squares * factor * factor;
    store(inverse + at, counted ? factor : V<T>{});
    store(mean + at, counted ? m + h : V<T>{});
    store(extra + at, h);
  };

  const auto sum_run = [&](int64_t x, const Tile<T>& tile, const Run<T>& run, int r, auto rows_) {
    constexpr int R = decltype(rows_)::value;
    V<T> sum[R] = {}, linear[R] = {}, squares[R] = {};
    const T* from = kept + 2 * r * kTile + x;
    for (int64_t c = 0; c < p.c; ++c, from += kKept) {
      V<T> terms[R];
      const V<T> a = splat(grad[c * kSoftmaxSums + kPredicted]), b = splat(2 * grad[c * kSoftmaxSums + kSquared]);
      progression<T, R>(load(from), load(from + kTile), terms);
#pragma GCC unroll 8
      for (int j = 0; j < R; ++j) {
        sum[j] += terms[j];
        linear[j] += terms[j] * a;
        if (kSquares) squares[j] += terms[j] * terms[j] * b;
      }
    }
    for (int j = 0; j < R; ++j)
      if (j < run.n) finish((run.y + j - tile.y0) * kTile + x, x, run.y + j, V<T>{}, sum[j], linear[j], squares[j]);
  };

  const auto sum_row = [&](int64_t x, const Tile<T>& tile, int64_t y, bool fits) {
    V<T> reference = between(0, x, y), sum = {}, linear = {}, squares = {};
    for (int64_t c = 1; c < p.c && !fits; ++c) reference = maximum<T>(reference, between(c, x, y));
    if (fits) reference = V<T>{};
    T* to = kept + (y - tile.y0) * kTile + x;
    for (int64_t c = 0; c < p.c; ++c, to += kKept) {
      const V<T> term = exponential(between(c, x, y) - reference);
      store(to, term);
      sum += term;
      linear += term * grad[c * kSoftmaxSums + kPredicted];
      squares += term * term * (2 * grad[c * kSoftmaxSums + kSquared]);
    }
    finish((y - tile.y0) * kTile + x, x, y, reference, sum, linear, squares);
  };

  const auto prepare = [&](const Tile<T>& tile, const CellRow<T>& cell) {
    const int64_t n = tile.x1 - tile.x0;
    grad = s.grad + tile.image * p.c * kSoftmaxSums;
    fill_classes(s, tile, own);
    run_count = 0;
    for (int64_t y = tile.y0; y < tile.y1; y += runs[run_count++].n) runs[run_count] = run_from(p.y, y, tile.y1);
    if (bottom.row == cell.row) exchange(top, bottom);
    top.fill(p, tile, cell.row);
    bottom.fill(p, tile, cell.below);
    // Two rows of `kept` for each run: no more than there are rows, where runs are not single ones.
    const bool long_runs = 2 * run_count <= tile.y1 - tile.y0;
    for (int64_t x = 0; x < n; x += L) progressive[x / L] = long_runs && top.fits[x / L] && bottom.fits[x / L];
    for (int r = 0; r < run_count && long_runs; ++r)
      for (int64_t c = 0; c < p.c; ++c) {
        const T *a = top.value + c * kTile, *b = bottom.value + c * kTile;
        T* to = kept + c * kKept + 2 * r * kTile;
        for (int64_t x = 0; x < n; x += L) {
          if (!progressive[x / L]) continue;
          store(to + x, exponential_within(between(c, x, runs[r].y)));
          store(to + kTile + x, exponential_within((load(b + x) - load(a + x)) * runs[r].step));
        }
      }
    for (int64_t x = 0; x < n; x += L) {
      if (progressive[x / L])
        for (int r = 0; r < run_count; ++r)
          runs[r].n > 4 ? sum_run(x, tile, runs[r], r, Count<kRows>{}) : sum_run(x, tile, runs[r], r, Count<4>{});
      else
        for (int64_t y = tile.y0; y < tile.y1; ++y) sum_row(x, tile, y, top.fits[x / L] && bottom.fits[x / L]);
    }
  };

  const auto add = [&](const Tile<T>& tile, const CellRow<T>&, int64_t c, T* above, T* below) {
    const V<T> a = splat(grad[c * kSoftmaxSums + kPredicted]), b = splat(2 * grad[c * kSoftmaxSums + kSquared]);
    const T* terms_of = kept + c * kKept;
    const auto take = [&](Column<T>& column, int64_t x, int64_t y, V<T> term) {
      const int64_t at = (y - tile.y0) * kTile + x;
      const V<T> probability = term * load(inverse + at);
      V<T> g = a - load(mean + at);
      if (kSquares) g += b * probability;
      column.add(probability * g + (load_lanes<T>(own + at) == Scalar(c) ? load(extra + at) : V<T>{}), y);
    };
    const auto descend = [&](Column<T>& column, int64_t x, const Run<T>& run, const T* from, auto rows_) {
      constexpr int R = decltype(rows_)::value;
      V<T> terms[R];
      progression<T, R>(load(from), load(from + kTile), terms);
#pragma GCC unroll 8
      for (int j = 0; j < R; ++j)
        if (j < run.n) take(column, x, run.y + j, terms[j]);
    };
    for (int64_t x = 0; x < tile.x1 - tile.x0; x += L) {
      Column<T> column(p.y, above + x, below + x);
      if (!progressive[x / L])
        for (int64_t y = tile.y0; y < tile.y1; ++y) take(column, x, y, load(terms_of + (y - tile.y0) * kTile + x));
      else
        for (int r = 0; r < run_count; ++r) {
          const T* from = terms_of + 2 * r * kTile + x;
          runs[r].n > 4 ? descend(column, x, runs[r], from, Count<kRows>{})
                        : descend(column, x, runs[r], from, Count<4>{});
        }
    }
  };
  for (int64_t i = begin; i < end; ++i) {
    top.row = bottom.row = -1;  // rows of another image may have the same number
    each_tile(p, i, prepare, add);
  }
}

template <class T>
void softmax(const StatisticsAdjoint<T>& s, int64_t begin, int64_t end) {
  s.squares ? softmax_as<T, true>(s, begin, end) : softmax_as<T, false>(s, begin, end);
}

template <class T>
void sigmoid(const StatisticsAdjoint<T>& s, int64_t begin, int64_t end) {
  using Scalar = typename Simd<T>::Int;
  const Adjoint<T>& p = s.pixels;
  Scalar* own = (Scalar*)(p.scratch + 2 * p.c * kTile);
  const auto prepare = [&](const Tile<T>& tile, const CellRow<T>&) { fill_classes(s, tile, own); };
  const auto add = [&](const Tile<T>& tile, const CellRow<T>& cell, int64_t c, T* above, T* below) {
    const T* g = s.grad + (tile.image * p.c + c) * kSigmoidSums;
    const T* map = p.source.data + tile.image * p.source.stride_n + c * p.source.stride_c;
    for (int64_t x = 0; x < tile.x1 - tile.x0; x += Simd<T>::lanes) {
      const Columns<T> k = columns(p.x, tile.x0 + x);
      const V<T> top = along(map + cell.row * p.source.stride_y, k);
      const V<T> bottom = along(map + cell.below * p.source.stride_y, k);
      Column<T> column(p.y, above + x, below + x);
      for (int64_t y = tile.y0; y < tile.y1; ++y) {
        const Sigmoid<T> of(blend<T>(top, splat(p.y.lower_weight[y]), bottom, splat(p.y.upper_weight[y])));
        const I<T> label = load_lanes<T>(own + (y - tile.y0) * kTile + x), hit = label == Scalar(c);
        V<T> up = hit ? splat(g[kPredicted] + g[kOverlap]) : splat(g[kPredicted]);
        up = (up + 2 * g[kSquared] * of.p) * of.p * of.q;
        // The logarithm of what is true, whose slope in z is q or -p.
        const V<T> right = hit ? of.p : of.q, wrong = hit ? of.q : of.p;
        V<T> slope = hit ? splat(-g[kEntropy]) : splat(-g[kOtherEntropy]);
        if (s.focal)
          slope += (hit ? splat(g[kFocal]) : splat(g[kOtherFocal])) *
                   Focal<T>(-(hit ? of.yes : of.no), right, wrong, s.gamma).slope;
        up += slope * (hit ? of.q : -of.p);
        column.add(label != Scalar(kIgnored) ? up : V<T>{}, y);
      }
    }
  };
  for (int64_t i = begin; i < end; ++i) each_tile(p, i, prepare, add);
}

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::StatisticsAdjointKernels<float> FASTSEG_FOR_ISA(statistics_adjoint_f32) = {
    fastseg::softmax<float>, fastseg::sigmoid<float>};
extern "C" const fastseg::StatisticsAdjointKernels<double> FASTSEG_FOR_ISA(statistics_adjoint_f64) = {
    fastseg::softmax<double>, fastseg::sigmoid<double>};
