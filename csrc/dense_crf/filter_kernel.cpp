// Values through the lattice: lattice.h and lattice_kernel.cpp. A point is d + 1 products of a weight and `pitch`
// values each way, on rows in the cache; rows and vertices are read and written once, and vertices d + 1 times more to
// blur them.
#include "../common/simd.h"
#include "lattice.h"

namespace fastseg {
namespace {

constexpr int64_t kPoints = 16;  // at a time

template <class T>
FASTSEG_INLINE int64_t behind(const LatticeValues<T>& p, int64_t tile) {
  return (tile + 1) * kTile < p.count ? (tile + 1) * kTile : p.count;
}

// The values of a vertex, in vectors that are no wider than they are many.
template <int C, class T>
struct Row {
  static constexpr int lanes = C < Simd<T>::lanes ? C : Simd<T>::lanes, parts = C / lanes;
  typedef T Part __attribute__((vector_size(lanes * sizeof(T))));
  Part part[parts];

  static FASTSEG_INLINE Row of(const T* p) {
    Row row;
    memcpy(&row, p, sizeof row);
    return row;
  }

  FASTSEG_INLINE void to(T* p) const { memcpy(p, this, sizeof *this); }

  FASTSEG_INLINE void add(const Row& other) {
    for (int i = 0; i < parts; ++i) part[i] = part[i] + other.part[i];
  }

  FASTSEG_INLINE void add(const Row& other, T weight) {
    for (int i = 0; i < parts; ++i) part[i] = part[i] + weight * other.part[i];
  }

  FASTSEG_INLINE void scale(T factor) {
    for (int i = 0; i < parts; ++i) part[i] = factor * part[i];
  }
};

// n points [channels, P] -> [n, C], and back: a few at a time, so that both sides stay in the nearest cache.
template <int C, class T>
FASTSEG_INLINE void load_points(const LatticeValues<T>& p, int64_t first, int64_t n, T* block) {
  for (int64_t c = 0; c < p.channels; ++c) {
    const T* const v = p.values + c * p.count + first;
    for (int64_t i = 0; i < n; ++i) block[i * C + c] = p.before ? v[i] * p.before[first + i] : v[i];
  }
}

template <int C, class T>
FASTSEG_INLINE void store_points(const LatticeValues<T>& p, int64_t first, int64_t n, const T* block) {
  for (int64_t c = 0; c < p.channels; ++c) {
    T* const v = p.out + c * p.count + first;
    for (int64_t i = 0; i < n; ++i) v[i] = block[i * C + c];
  }
}

template <int C, class T>
void splat_on(const LatticeValues<T>& p, int64_t begin, int64_t end) {
  alignas(64) T block[kPoints * C] = {};
  for (int64_t tile = begin; tile < end; ++tile) {
    T* const rows = p.rows + p.tile_rows[tile] * int64_t(C);
    memset(rows, 0, (p.tile_rows[tile + 1] - p.tile_rows[tile]) * C * sizeof(T));
    const int16_t* corner = p.corners + tile * kTile * p.sides;
    const T* weight = p.weights + tile * kTile * p.sides;
    for (int64_t first = tile * kTile, last = behind(p, tile); first < last; first += kPoints) {
      const int64_t n = last - first < kPoints ? last - first : kPoints;
      n == kPoints ? load_points<C>(p, first, kPoints, block) : load_points<C>(p, first, n, block);
      for (int64_t i = 0; i < n; ++i) {
        const auto point = Row<C, T>::of(block + i * C);
        for (int64_t k = 0; k < p.sides; ++k) {
          T* const at = rows + *corner++ * int64_t(C);
          auto sum = Row<C, T>::of(at);
          sum.add(point, *weight++);
          sum.to(at);
        }
      }
    }
  }
}

template <int C, class T>
void collect_on(const LatticeValues<T>& p, int64_t begin, int64_t end) {
  constexpr int32_t kAhead = 12;
  const int32_t rows = p.vertex_starts[p.vertices];
  for (int64_t v = begin; v < end; ++v) {
    Row<C, T> sum{};
    for (int32_t at = p.vertex_starts[v]; at < p.vertex_starts[v + 1]; ++at) {
      const T* const later = p.rows + p.vertex_rows[at + kAhead < rows ? at + kAhead : at] * int64_t(C);
      for (int64_t byte = 0; byte < C * int64_t(sizeof(T)); byte += 64) __builtin_prefetch((const char*)later + byte);
      sum.add(Row<C, T>::of(p.rows + p.vertex_rows[at] * int64_t(C)));
    }
    sum.to(p.grid + v * C);
  }
}

template <int C, class T>
void blur_on(const LatticeValues<T>& p, int64_t axis, int64_t begin, int64_t end) {
  const int32_t* const neighbours = p.neighbours + axis * p.vertices * 2;
  for (int64_t v = begin; v < end; ++v) {
    auto both = Row<C, T>::of(p.grid + neighbours[2 * v] * int64_t(C));
    both.add(Row<C, T>::of(p.grid + neighbours[2 * v + 1] * int64_t(C)));
    auto sum = Row<C, T>::of(p.grid + v * C);
    sum.add(both, T(0.5));
    sum.to(p.blurred + v * C);
  }
}

template <int C, class T>
void slice_on(const LatticeValues<T>& p, int64_t begin, int64_t end) {
  const T alpha = T(1.0 / (1.0 + 1.0 / double(int64_t(1) << (p.sides - 1))));
  alignas(64) T block[kPoints * C];
  for (int64_t tile = begin; tile < end; ++tile) {
    for (int32_t r = p.tile_rows[tile]; r < p.tile_rows[tile + 1]; ++r)
      memcpy(p.local + (r - p.tile_rows[tile]) * C, p.grid + p.row_vertices[r] * int64_t(C), C * sizeof(T));
    const int16_t* corner = p.corners + tile * kTile * p.sides;
    const T* weight = p.weights + tile * kTile * p.sides;
    for (int64_t first = tile * kTile, last = behind(p, tile); first < last; first += kPoints) {
      const int64_t n = last - first < kPoints ? last - first : kPoints;
      for (int64_t i = 0; i < n; ++i) {
        Row<C, T> sum{};
        for (int64_t k = 0; k < p.sides; ++k) sum.add(Row<C, T>::of(p.local + *corner++ * int64_t(C)), *weight++);
        sum.scale(p.after ? alpha * p.after[first + i] : alpha);
        sum.to(block + i * C);
      }
      n == kPoints ? store_points<C>(p, first, kPoints, block) : store_points<C>(p, first, n, block);
    }
  }
}

template <int C>
struct Pitch {
  constexpr int operator()() const { return C; }
};

// Calls use(Pitch<C>) for the pitch of these channels.
template <class Use>
FASTSEG_INLINE void by_pitch(int64_t channels, const Use& use) {
  switch (pitch_of(channels)) {
    case 4:
      return use(Pitch<4>{});
    case 8:
      return use(Pitch<8>{});
    case 16:
      return use(Pitch<16>{});
    case 24:
      return use(Pitch<24>{});
    default:
      return use(Pitch<32>{});
  }
}

template <class T>
void splat(const LatticeValues<T>& p, int64_t begin, int64_t end) {
  by_pitch(p.channels, [&](auto pitch) { splat_on<pitch()>(p, begin, end); });
}

template <class T>
void collect(const LatticeValues<T>& p, int64_t begin, int64_t end) {
  by_pitch(p.channels, [&](auto pitch) { collect_on<pitch()>(p, begin, end); });
}

template <class T>
void blur(const LatticeValues<T>& p, int64_t axis, int64_t begin, int64_t end) {
  by_pitch(p.channels, [&](auto pitch) { blur_on<pitch()>(p, axis, begin, end); });
}

template <class T>
void slice(const LatticeValues<T>& p, int64_t begin, int64_t end) {
  by_pitch(p.channels, [&](auto pitch) { slice_on<pitch()>(p, begin, end); });
}

template <class T>
constexpr FilterKernels<T> kKernels{splat<T>, collect<T>, blur<T>, slice<T>};

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::FilterKernels<float> FASTSEG_FOR_ISA(lattice_filter_f32) = fastseg::kKernels<float>;
extern "C" const fastseg::FilterKernels<double> FASTSEG_FOR_ISA(lattice_filter_f64) = fastseg::kKernels<double>;
