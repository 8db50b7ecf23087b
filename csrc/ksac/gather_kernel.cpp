// Every rate of a kernel-sharing atrous convolution from one set of tap responses, with what follows it, and the
// adjoint: docs/ops/ksac.md.
//
// Source: Huang et al. 2019, "See More Than Once: Kernel-Sharing Atrous Convolution" (arXiv 1908.09443), algorithm 1.
// By linearity a convolution at rate r is nine responses Y_t = W_t x, each read from its own distance,
//
//   T_r(p) = sum_t Y_t(p + r d_t),
//
// so the product with the weights is shared by all rates, and a rate costs 9 additions per value. Per output value and
// rate 9 loads, 8 additions, a multiply-add and the activation; the centre is loaded again for every rate, from the
// first-level cache, because sums of all rates at once would need more registers than there are.
// A row is cut into runs of columns in which each tap reads one strip or none, so that the loop over channels adds
// rows from at most nine places without a condition. Sums are in the order of the taps, then of the rates, whatever the
// number of threads.
#include "../conv/conv.h"
#include "ksac.h"

namespace fastseg {
namespace {

constexpr int64_t kTogether =
    128;  // pixels of whole rows that all rates add to while they are in the second-level cache

// Columns [begin, end) of a result, of which the taps of each j read this strip; -1: none.
struct Run {
  int64_t begin, end;
  int strip[3];
};

struct Runs {
  Run of[3 * (kStrips + 1)];
  int count;
};

inline Runs runs_of(const Strips& strips, int64_t width, int64_t rate) {
  int64_t edges[3 * (kStrips + 1)];
  int n = 0;
  for (int j = 0; j < 3; ++j)
    for (int s = 0; s <= strips.count; ++s) {
      const int64_t column = (s < strips.count ? strips.of[s].begin : width) - (j - 1) * rate;
      int64_t at = column < 0 ? 0 : column > width ? width : column;
      for (int k = 0; k < n; ++k)
        if (edges[k] > at) {
          const int64_t larger = edges[k];
          edges[k] = at;
          at = larger;
        }
      edges[n++] = at;
    }
  Runs runs;
  runs.count = 0;
  for (int k = 0; k + 1 < n; ++k) {
    if (edges[k] == edges[k + 1]) continue;
    Run& run = runs.of[runs.count++];
    run = {edges[k], edges[k + 1], {-1, -1, -1}};
    for (int j = 0; j < 3; ++j)
      for (int s = 0; s < strips.count; ++s) {
        const int64_t column = run.begin + (j - 1) * rate;
        if (strips.of[s].begin <= column && column < strips.of[s].end) run.strip[j] = s;
      }
  }
  return runs;
}

// Where up to nine taps are read from, and how far on the next pixel is.
template <class T>
struct Places {
  const T* from[kTaps];
  int64_t step[kTaps];
  int count;
};

template <class T>
inline Places<T> places_of(const Responses<T>& r, const Run& run, int64_t row, int64_t rate) {
  Places<T> places;
  places.count = 0;
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j) {
      const int64_t y = row + (i - 1) * rate;
      if (run.strip[j] < 0) continue;
      const Piece<T>& piece = r.of[run.strip[j]][3 * i + j];
      if (!piece.data || y < piece.first || y >= piece.last) continue;
      const Strip& strip = r.strips.of[run.strip[j]];
      const int64_t x = run.begin + (j - 1) * rate - strip.begin;
      const int64_t kept = (y - piece.first) % piece.ring;
      places.from[places.count] = piece.data + (kept * (strip.end - strip.begin) + x) * piece.pixel;
      places.step[places.count++] = piece.pixel;
    }
  return places;
}

// `vectors` vectors of channels from k on: their sums over the places, and what follows; n lanes of each are there.
template <class T, Activation kind, int vectors>
inline void finish(const Places<T>& p, const T* scale, const T* shift, bool add, T* out, int64_t k, int64_t n) {
  constexpr int64_t L = Simd<T>::lanes;
  const auto at = [=](const T* values, int v) {
    return vectors > 1 || n == L ? load(values + k + v * L) : load_part(values + k, n);
  };
  V<T> sum[vectors];
  for (int v = 0; v < vectors; ++v) sum[v] = at(p.from[0], v);
  for (int t = 1; t < p.count; ++t)
    for (int v = 0; v < vectors; ++v) sum[v] = sum[v] + at(p.from[t], v);
  for (int v = 0; v < vectors; ++v) {
    V<T> y = multiply_add<T>(sum[v], scale ? at(scale, v) : splat(T(1)), shift ? at(shift, v) : V<T>{});
    y = activate<T>(y, kind);
    if (add) y = at(out, v) + y;
    if (vectors > 1 || n == L)
      store(out + k + v * L, y);
    else
      store_part(out + k, y, n);
  }
}

template <class T, Activation kind>
void gather_row(const Gather<T>& g, const Runs& runs, int64_t row, int64_t k) {
  constexpr int64_t L = Simd<T>::lanes;
  const int64_t channels = g.responses.channels;
  const T* scale = g.scale ? g.scale + k * g.vector : nullptr;
  const T* shift = g.shift ? g.shift + k * g.vector : nullptr;
  const bool add = g.sum && k > 0;
  T* line = g.out + k * g.rate + (row - g.first) * g.responses.w * g.pixel;
  for (int m = 0; m < runs.count; ++m) {
    Places<T> places = places_of(g.responses, runs.of[m], row, g.rates[k]);
    for (int64_t x = runs.of[m].begin; x < runs.of[m].end; ++x) {
      T* out = line + x * g.pixel;
      for (int t = 0; t < places.count; ++t)
        for (int64_t c = 0; c < channels; c += 64 / sizeof(T))
          __builtin_prefetch(places.from[t] + 4 * places.step[t] + c);
      int64_t c = 0;
      for (; c + 4 * L <= channels; c += 4 * L) finish<T, kind, 4>(places, scale, shift, add, out, c, L);
      for (; c + 2 * L <= channels; c += 2 * L) finish<T, kind, 2>(places, scale, shift, add, out, c, L);
      for (; c < channels; c += L)
        finish<T, kind, 1>(places, scale, shift, add, out, c, channels - c < L ? channels - c : L);
      for (int t = 0; t < places.count; ++t) places.from[t] += places.step[t];
    }
  }
}

template <class T>
void gather(const Gather<T>& g, int64_t begin, int64_t end) {
  using Row = void (*)(const Gather<T>&, const Runs&, int64_t, int64_t);
  constexpr Row kRowOf[] = {gather_row<T, Activation::none>, gather_row<T, Activation::relu>,
                            gather_row<T, Activation::relu6>, gather_row<T, Activation::silu>};
  const int64_t rows = g.responses.w < kTogether ? kTogether / g.responses.w : 1;
  for (int64_t first = begin; first < end; first += rows) {
    const int64_t last = end - first < rows ? end : first + rows;
    for (int64_t k = 0; k < g.count; ++k) {
      const Runs runs = runs_of(g.responses.strips, g.responses.w, g.rates[k]);
      for (int64_t row = first; row < last; ++row) kRowOf[int(g.activation)](g, runs, row, k);
    }
  }
}

// The gradient of the responses of tap t in columns [x, stop) of a strip of row y: the sum over the rates of what they
// made of them.
template <class T>
void spread_block(const Spread<T>& p, const Piece<T>& piece, const Strip& strip, int t, int64_t y, int64_t x,
                  int64_t stop) {
  constexpr int64_t L = Simd<T>::lanes;
  const Responses<T>& r = p.responses;
  T* to = piece.data + ((y - piece.first) * (strip.end - strip.begin) - strip.begin) * piece.pixel;
  for (int64_t q = x; q < stop; ++q) memset(to + q * piece.pixel, 0, r.channels * sizeof(T));
  for (int64_t k = 0; k < p.count; ++k) {
    const int64_t row = y - (t / 3 - 1) * p.rates[k] - p.first, shift = (t % 3 - 1) * p.rates[k];
    if (row < 0 || row >= p.rows) continue;
    const int64_t first = x > shift ? x : shift, last = stop < r.w + shift ? stop : r.w + shift;
    for (int64_t q = first; q < last; ++q) {
      const T* from = p.grad + ((k * p.rows + row) * r.w + q - shift) * r.channels;
      T* sum = to + q * piece.pixel;
      int64_t c = 0;
      for (; c + L <= r.channels; c += L) store(sum + c, load(sum + c) + load(from + c));
      for (; c < r.channels; ++c) sum[c] += from[c];
    }
  }
}

template <class T>
void spread(const Spread<T>& p, int64_t begin, int64_t end) {
  constexpr int64_t kColumns = 32;  // their sums stay in the first-level cache
  for (int64_t y = begin; y < end; ++y)
    for (int s = 0; s < p.responses.strips.count; ++s) {
      const Strip& strip = p.responses.strips.of[s];
      for (int t = 0; t < kTaps; ++t) {
        const Piece<T>& piece = p.responses.of[s][t];
        if (!piece.data || y < piece.first || y >= piece.last) continue;
        for (int64_t x = strip.begin; x < strip.end; x += kColumns)
          spread_block(p, piece, strip, t, y, x, x + kColumns < strip.end ? x + kColumns : strip.end);
      }
    }
}

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::KsacTable<float> FASTSEG_FOR_ISA(ksac_f32) = {fastseg::gather<float>, fastseg::spread<float>};
extern "C" const fastseg::KsacTable<double> FASTSEG_FOR_ISA(ksac_f64) = {fastseg::gather<double>,
                                                                         fastseg::spread<double>};
