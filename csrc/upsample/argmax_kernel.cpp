// Argmax of bilinearly upsampled logits.
//
// Between four source pixels the interpolation is a convex combination: a class that wins at all four wins in the whole
// cell, and a class whose largest corner lies below the smallest corner of another one wins nowhere in it. So: the
// argmax at source resolution once (c operations per source pixel), then per cell a fill where the corners agree;
// elsewhere 5 operations per output pixel and class that can win, or per class where a corner is not finite. Reads each
// source row at most twice, writes 1 label per output pixel.
#include "columns.h"

namespace fastseg {
namespace {

template <class T>
void corners(const Labels<T>& p, int64_t begin, int64_t end) {
  constexpr int L = Simd<T>::lanes;
  const Maps<T>& s = p.source;
  const V<T> infinity = splat(T(__builtin_inff()));
  for (int64_t i = begin; i < end; ++i) {
    const T* row = s.data + i / s.h * s.stride_n + i % s.h * s.stride_y;
    int32_t* out = p.corners + i * s.w;
    for (int64_t x = 0; x < s.w; x += L) {
      const int64_t at = x + L <= s.w || s.w < L ? x : s.w - L;
      V<T> best = load(row + at);
      I<T> winner = {}, finite = (best < infinity) & (best > -infinity);
      for (int64_t c = 1; c < s.c; ++c) {
        const V<T> v = load(row + c * s.stride_c + at);
        const I<T> wins = v > best;
        finite &= (v < infinity) & (v > -infinity);
        best = wins ? v : best;
        winner = wins ? I<T>{} + typename Simd<T>::Int(c) : winner;
      }
      winner |= ~finite;
      for (int64_t l = 0; l < least(L, s.w - at); ++l) out[at + l] = int32_t(winner[l]);
    }
  }
}

// For each cell of a row the classes that can win in it, as bits [(c + 31) / 32, w]: those whose largest corner is not
// below the largest of the smallest corners.
template <class T>
void candidates(const Labels<T>& p, const CellRow<T>& cell, uint32_t* out) {
  constexpr int L = Simd<T>::lanes;
  using Scalar = typename Simd<T>::Int;
  const Maps<T>& s = p.source;
  const T* top = s.data + cell.image * s.stride_n + cell.row * s.stride_y;
  const T* bottom = s.data + cell.image * s.stride_n + cell.below * s.stride_y;
  const int64_t pitch = s.w > kPadding ? s.w : kPadding;
  I<T> right = counting<T>() + 1;  // the last lane only serves the one before it
  right[L - 1] = L - 1;
  for (int64_t x = 0; x < s.w; x += L - 1) {
    const int64_t at = least(x, pitch - L), n = least(L, s.w - at);
    // The last cell of a row has no right corners: those of the padding or the lane itself stand for the left ones.
    const auto column = [&](int64_t c, const auto& pick) {
      const V<T> v = pick(load(top + c * s.stride_c + at), load(bottom + c * s.stride_c + at));
      return pick(v, permute<T>(v, right));
    };
    const auto low = [](V<T> a, V<T> b) { return minimum<T>(a, b); };
    const auto high = [](V<T> a, V<T> b) { return maximum<T>(a, b); };
    V<T> floor = splat(-T(__builtin_inff()));
    for (int64_t c = 0; c < s.c; ++c) floor = maximum<T>(floor, column(c, low));
    for (int64_t word = 0; word * 32 < s.c; ++word) {
      I<T> bits = {};
      for (int64_t c = word * 32; c < least(s.c, word * 32 + 32); ++c)
        bits |= column(c, high) >= floor ? splat_index<T>(Scalar(uint32_t(1) << (c % 32))) : I<T>{};
      const auto narrow = __builtin_convertvector(bits, typename Narrow<uint32_t, L>::type);
      memcpy(out + word * s.w + at, &narrow, n * sizeof(uint32_t));
    }
  }
}

template <class T, class Label>
struct Rows {
  const Labels<T>& p;
  CellRow<T> cell;
  Label* out;               // row cell.begin of the output
  const uint32_t* can_win;  // candidates of the cell row

  void put(I<T> winner, int64_t row, int64_t x, int64_t n) const {
    using N = typename Narrow<Label, Simd<T>::lanes>::type;
    const N narrow = __builtin_convertvector(winner, N);
    Label* at = out + row * p.x.out + x;
    if (n >= Simd<T>::lanes)
      memcpy(at, &narrow, sizeof narrow);
    else
      memcpy(at, &narrow, n * sizeof(Label));
  }

  // R output rows of one vector of columns, of which the first `rows` are wanted. next(c) gives the class to look at
  // after c, from -1 on and in ascending order.
  template <int R, bool kFinite, class Next>
  void full(const Columns<T>& k, int64_t row, int64_t rows, int64_t x, int64_t n, const Next& next) const {
    const Maps<T>& s = p.source;
    const T* top = s.data + cell.image * s.stride_n + cell.row * s.stride_y;
    const T* bottom = s.data + cell.image * s.stride_n + cell.below * s.stride_y;
    const T *wt = p.y.lower_weight + cell.begin + row, *wb = p.y.upper_weight + cell.begin + row;
    V<T> best[R];
    I<T> winner[R];
    int64_t c = next(-1);
    const V<T> a0 = along(top + c * s.stride_c, k), b0 = along(bottom + c * s.stride_c, k);
#pragma GCC unroll 8
    for (int j = 0; j < R; ++j) {
      best[j] = a0 * wt[j] + b0 * wb[j];
      winner[j] = splat_index<T>(c);
    }
    for (c = next(c); c < s.c; c = next(c)) {
      const V<T> a = along(top + c * s.stride_c, k), b = along(bottom + c * s.stride_c, k);
      const I<T> index = splat_index<T>(c);
#pragma GCC unroll 8
      for (int j = 0; j < R; ++j) {
        const V<T> v = a * wt[j] + b * wb[j];
        const I<T> wins = kFinite ? v > best[j] : ~(v <= best[j]) & (best[j] == best[j]);
        best[j] = wins ? v : best[j];
        winner[j] = wins ? index : winner[j];
      }
    }
#pragma GCC unroll 8
    for (int j = 0; j < R; ++j)
      if (j < rows) put(winner[j], row + j, x, n);
  }

  template <bool kFinite, class Next>
  void rows(const Columns<T>& k, int64_t x, int64_t n, const Next& next) const {
    for (int64_t row = 0, left = cell.end - cell.begin; left > 0; row += kRows, left -= kRows) {
      if (left > 4)
        full<kRows, kFinite>(k, row, left, x, n, next);
      else if (left > 2)
        full<4, kFinite>(k, row, left, x, n, next);
      else if (left > 1)
        full<2, kFinite>(k, row, left, x, n, next);
      else
        full<1, kFinite>(k, row, left, x, n, next);
    }
  }

  // All classes.
  template <bool kFinite>
  void mixed(int64_t x0, int64_t x1) const {
    for (int64_t x = x0; x < x1; x += Simd<T>::lanes)
      rows<kFinite>(columns(p.x, x), x, least(Simd<T>::lanes, x1 - x), [](int64_t c) { return c + 1; });
  }

  // The classes that can win in one of the cells of a vector; all of them where that leaves out too few.
  void contested(int64_t x0, int64_t x1) const {
    constexpr int L = Simd<T>::lanes;
    const int64_t words = (p.source.c + 31) / 32;
    uint32_t set[kWords];
    for (int64_t x = x0; x < x1; x += L) {
      const int64_t n = least(L, x1 - x);
      int64_t count = 0;
      for (int64_t word = 0; word < words; ++word) {
        set[word] = 0;
        for (int64_t i = p.x.lower[x]; i <= p.x.lower[x + n - 1]; ++i) set[word] |= can_win[word * p.source.w + i];
        count += __builtin_popcount(set[word]);
      }
      if (4 * count > 3 * p.source.c) {
        mixed<true>(x, x + n);
        continue;
      }
      rows<true>(columns(p.x, x), x, n, [&set, words](int64_t c) -> int64_t {
        ++c;
        for (int64_t word = c / 32; word < words; ++word, c = word * 32)
          if (const uint32_t rest = set[word] >> (c % 32)) return c + __builtin_ctz(rest);
        return words * 32;
      });
    }
  }

  void fill(int32_t label, int64_t x0, int64_t x1) const {
    for (int64_t row = 0; row < cell.end - cell.begin; ++row) {
      Label* at = out + row * p.x.out;
      if constexpr (sizeof(Label) == 1)
        memset(at + x0, label, x1 - x0);
      else
        for (int64_t x = x0; x < x1; ++x) at[x] = Label(label);
    }
  }

  void run() const {
    if (!p.corners) return mixed<false>(0, p.x.out);
    const int64_t w = p.source.w;
    const int32_t* top = p.corners + (cell.image * p.source.h + cell.row) * w;
    const int32_t* bottom = p.corners + (cell.image * p.source.h + cell.below) * w;
    // -2: corners disagree, -1: not finite, else the label of the whole cell
    const auto kind = [&](int64_t i) {
      const int64_t r = least(i + 1, w - 1);
      const int32_t a = top[i], b = top[r], c = bottom[i], d = bottom[r];
      return (a | b | c | d) < 0 ? -1 : a == b && a == c && a == d ? a : -2;
    };
    for (int64_t i = 0; i < w;) {
      const int32_t what = kind(i);
      int64_t j = i + 1;
      while (j < w && kind(j) == what) ++j;
      const int64_t x0 = p.x.first[i], x1 = p.x.first[j];
      if (what >= 0)
        fill(what, x0, x1);
      else if (what == -2 && can_win)
        contested(x0, x1);
      else if (what == -2)
        mixed<true>(x0, x1);
      else
        mixed<false>(x0, x1);
      i = j;
    }
  }
};

template <class T, class Label>
void argmax_to(const Labels<T>& p, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const CellRow<T> cell(p.y, i);
    if (cell.begin == cell.end) continue;
    uint32_t* can_win = p.candidates ? p.candidates + i * ((p.source.c + 31) / 32) * p.source.w : nullptr;
    if (can_win) candidates(p, cell, can_win);
    const int64_t row = cell.image * p.y.out + cell.begin - p.origin;
    Rows<T, Label>{p, cell, (Label*)p.out + row * p.x.out, can_win}.run();
  }
}

template <class T>
void argmax(const Labels<T>& p, int64_t begin, int64_t end) {
  switch (size_of(p.type)) {
    case 1:
      return argmax_to<T, uint8_t>(p, begin, end);
    case 2:
      return argmax_to<T, int16_t>(p, begin, end);
    case 4:
      return argmax_to<T, int32_t>(p, begin, end);
    default:
      return argmax_to<T, int64_t>(p, begin, end);
  }
}

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::LabelKernels<float> FASTSEG_FOR_ISA(labels_f32) = {fastseg::corners<float>,
                                                                             fastseg::argmax<float>};
extern "C" const fastseg::LabelKernels<double> FASTSEG_FOR_ISA(labels_f64) = {fastseg::corners<double>,
                                                                              fastseg::argmax<double>};
