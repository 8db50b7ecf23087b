// Splat, blur and slice on the permutohedral lattice (Adams, Baek, Davis 2010, "Fast High-Dimensional Filtering Using
// the Permutohedral Lattice", section 3; scale and blur of Kraehenbuehl, Koltun 2011).
//
// A point takes O(d^2) operations to place and d + 1 lookups in the table of its tile; a filter O((d + 1) C) a point
// and O((d + 1) C) a vertex. Where we deviate: points are splatted onto the vertices of their tile first, which needs
// no atomics and reads and writes each vertex of a tile once, and the same way back.
#include "../common/simd.h"
#include "lattice.h"

namespace fastseg {
namespace {

using D = V<double>;
constexpr int64_t L = Simd<double>::lanes;

// To the nearest whole number, halves to the even one: |x| < 2^51. `whole` makes such a number an integer, which
// instruction sets before AVX-512 convert lane by lane: it is how far its bits are from those of 0.
inline D rounded(D x) { return (x + 0x1.8p52) - 0x1.8p52; }
inline I<double> whole(D x) { return (I<double>)(x + 0x1.8p52) - (I<double>)splat(0x1.8p52); }

// n of L features; the lanes behind them are 0.
template <class T>
inline D load_features(const T* p, int64_t n) {
  typename Narrow<T, L>::type x{};
  if (n == L)
    memcpy(&x, p, sizeof x);
  else
    memcpy(&x, p, n * sizeof(T));
  return __builtin_convertvector(x, D);
}

template <class T>
Extent extent(const T* features, int64_t n) {
  constexpr int64_t W = Simd<T>::lanes;
  T least = features[0], most = features[0], odd = 0;
  V<T> low = splat(least), high = low, off{};
  int64_t i = 0;
  for (; i + W <= n; i += W) {
    const V<T> x = load(features + i);
    low = minimum<T>(x, low);
    high = maximum<T>(x, high);
    off = off + x * T(0);
  }
  for (int64_t l = 0; l < W; ++l) {
    least = low[l] < least ? low[l] : least;
    most = high[l] > most ? high[l] : most;
    odd += off[l];
  }
  for (; i < n; ++i) {
    const T x = features[i];
    least = x < least ? x : least;
    most = x > most ? x : most;
    odd += x * 0;
  }
  return {double(least), double(most), double(odd)};
}

// The index of a key among the rows of a tile, to which it may be new.
struct Table {
  Slot* slots;
  int64_t* keys;
  int32_t found;
  uint16_t used[kTile * (kMostDims + 1)];

  FASTSEG_INLINE int16_t row(int64_t key) {
    uint64_t at = hash_of(key) >> 51;
    static_assert(kSlots == int64_t(1) << 13);
    while (slots[at].index >= 0 && slots[at].key != key) at = (at + 1) % kSlots;
    if (slots[at].index < 0) {
      slots[at] = {key, found};
      used[found] = uint16_t(at);
      keys[found++] = key;
    }
    return int16_t(slots[at].index);
  }

  void clear() {
    for (int32_t i = 0; i < found; ++i) slots[used[i]].index = -1;
  }
};

// `rank` and `offset` [sides][L] of L points, and the numbers of their remainder-0 vertices.
template <int d>
FASTSEG_INLINE void find_simplices(const Digits& digits, const D* f, int64_t* number, int64_t* rank, double* offset) {
  constexpr int S = d + 1;
  D y[S], nearest[S], sum{};
  for (int i = d; i >= 1; --i) {
    const D c = f[i - 1] * digits.scale[i - 1];
    y[i] = sum - double(i) * c;
    sum = sum + c;
  }
  y[0] = sum;
  D shift{};
  I<double> order[S];
  for (int i = 0; i < S; ++i) {
    nearest[i] = double(S) * rounded(y[i] / double(S));
    shift = shift + nearest[i];
  }
  const I<double> turns = whole(rounded(shift / double(S)));
  for (int i = 0; i < S; ++i) {
    y[i] = y[i] - nearest[i];
    order[i] = turns;
  }
  for (int i = 0; i < S; ++i)
    for (int j = i + 1; j < S; ++j) {
      const I<double> below = y[i] < y[j];  // -1 where true
      order[i] = order[i] - below;
      order[j] = order[j] + 1 + below;
    }
  I<double> base{};
  for (int i = 0; i < S; ++i) {
    const I<double> low = order[i] < 0, high = order[i] >= S;  // -1 where true
    order[i] = order[i] + (high - low) * S;
    const D side = splat(double(S)), none{}, moved = (low ? side : none) - (high ? side : none);
    store((double*)offset + i * L, (y[i] - moved) / double(S));
    memcpy(rank + i * L, &order[i], sizeof order[i]);
    if (i < d) {
      const D digit = (nearest[i] + moved) / double(S) - digits.least[i];
      base = base + whole(digit) * digits.place[i];
    }
  }
  memcpy(number, &base, sizeof base);
}

template <int d, class T>
void place_on(const Points<T>& p, int64_t begin, int64_t end) {
  constexpr int S = d + 1;
  Table table{p.slots, nullptr, 0, {}};
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t first = tile * kTile, last = first + kTile < p.count ? first + kTile : p.count;
    table.keys = p.keys + first * S;
    table.found = 0;
    for (int64_t at = first; at < last; at += L) {
      const int64_t n = last - at < L ? last - at : L;
      D f[d];
      for (int i = 0; i < d; ++i) f[i] = load_features(p.features + i * p.count + at, n);
      int64_t number[L], rank[S * L];
      double offset[S * L];
      find_simplices<d>(p.digits, f, number, rank, offset);
      for (int64_t lane = 0; lane < n; ++lane) {
        int64_t axis[S];
        double sorted[S];
        for (int i = 0; i < S; ++i) {
          axis[rank[i * L + lane]] = i;
          sorted[rank[i * L + lane]] = offset[i * L + lane];
        }
        int16_t* const corners = p.corners + (at + lane) * S;
        T* const weights = p.weights + (at + lane) * S;
        int64_t key = number[lane];
        corners[0] = table.row(key);
        weights[0] = T(sorted[d] + (1.0 - sorted[0]));
        for (int k = 1; k < S; ++k) {
          key += 1 - p.digits.place[axis[S - k]];
          corners[k] = table.row(key);
          weights[k] = T(sorted[d - k] - sorted[S - k]);
        }
      }
    }
    p.found[tile] = table.found;
    table.clear();
    list_points(p.corners + first * S, p.weights + first * S, last - first, S, table.found, p.points + first * S,
                p.shares + first * S, p.ends + first * S);
  }
}

template <class T>
void place(const Points<T>& p, int64_t begin, int64_t end) {
  switch (p.d) {
    case 1:
      return place_on<1>(p, begin, end);
    case 2:
      return place_on<2>(p, begin, end);
    case 3:
      return place_on<3>(p, begin, end);
    case 4:
      return place_on<4>(p, begin, end);
    case 5:
      return place_on<5>(p, begin, end);
    case 6:
      return place_on<6>(p, begin, end);
    case 7:
      return place_on<7>(p, begin, end);
    case 8:
      return place_on<8>(p, begin, end);
  }
}

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::LatticeKernels<float> FASTSEG_FOR_ISA(lattice_f32) = {fastseg::extent<float>,
                                                                                fastseg::place<float>};
extern "C" const fastseg::LatticeKernels<double> FASTSEG_FOR_ISA(lattice_f64) = {fastseg::extent<double>,
                                                                                 fastseg::place<double>};
