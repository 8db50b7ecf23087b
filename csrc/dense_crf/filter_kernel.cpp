// Values through the lattice: lattice.h and lattice_kernel.cpp. A point is d + 1 products of a weight and `pitch`
// values each way, within the cache, and each sum is made in registers; rows and vertices are read and written once,
// and vertices d + 1 times more to blur them.
#include "lattice.h"
#include "row.h"

namespace fastseg {
namespace {

template <int C, class T>
void splat_on(const LatticeValues<T>& p, int64_t tile, const T* block) {
  const int64_t first = tile * kTile * p.sides;
  const int16_t *const points = p.points + first, *const ends = p.ends + first;
  const T* const shares = p.shares + first;
  T* const rows = p.rows + p.tile_rows[tile] * int64_t(C);
  const int64_t count = p.tile_rows[tile + 1] - p.tile_rows[tile];
  int64_t at = 0;
  for (int64_t r = 0; r < count; ++r) {
    Row<C, T> sum{}, other{};  // two, so that one need not wait for the other
    const int64_t end = ends[r];
    for (; at + 1 < end; at += 2) {
      sum.add(Row<C, T>::of(block + points[at] * int64_t(C)), shares[at]);
      other.add(Row<C, T>::of(block + points[at + 1] * int64_t(C)), shares[at + 1]);
    }
    if (at < end) {
      sum.add(Row<C, T>::of(block + points[at] * int64_t(C)), shares[at]);
      ++at;
    }
    sum.add(other);
    sum.to(rows + r * C);
  }
}

// Asks for a row that will be needed soon.
template <int C, class T>
FASTSEG_INLINE void fetch(const T* row) {
  for (int64_t byte = 0; byte < C * int64_t(sizeof(T)); byte += 64) __builtin_prefetch((const char*)row + byte);
}

template <int C, class T>
void collect_on(const LatticeValues<T>& p, int64_t begin, int64_t end) {
  constexpr int32_t kAhead = 12;
  const int32_t rows = p.vertex_starts[p.vertices];
  for (int64_t v = begin; v < end; ++v) {
    Row<C, T> sum{};
    for (int32_t at = p.vertex_starts[v]; at < p.vertex_starts[v + 1]; ++at) {
      fetch<C>(p.rows + p.vertex_rows[at + kAhead < rows ? at + kAhead : at] * int64_t(C));
      sum.add(Row<C, T>::of(p.rows + p.vertex_rows[at] * int64_t(C)));
    }
    sum.to(p.grid + v * C);
  }
}

// Lines of vertices that follow each other along an axis, in their place: what was before is still in registers. Those
// that begin within [begin, end) of the list.
template <int C, class T>
void blur_on(const LatticeValues<T>& p, const int32_t* line, int64_t count, int64_t begin, int64_t end) {
  constexpr int64_t kAhead = 8;
  while (begin < end && line[begin] >= 0) ++begin;
  Row<C, T> before{}, here{};
  for (int64_t i = begin; i < count; ++i) {
    const bool starts = line[i] < 0;
    if (starts && i >= end) break;
    if (i + kAhead < count) {
      const int32_t later = line[i + kAhead];
      fetch<C>(p.grid + (later < 0 ? ~later : later) * int64_t(C));
    }
    const int64_t v = starts ? ~line[i] : line[i];
    if (starts) {
      before = Row<C, T>{};
      here = Row<C, T>::of(p.grid + v * C);
    }
    auto both = before;
    before = here;
    const bool ends = i + 1 == count || line[i + 1] < 0;
    if (!ends) {
      here = Row<C, T>::of(p.grid + line[i + 1] * int64_t(C));
      both.add(here);
    }
    auto sum = before;
    sum.add(both, T(0.5));
    sum.to(p.grid + v * C);
  }
}

// Of S corners, or of p.sides where S is 0.
template <int C, int S, class T>
void slice_on(const LatticeValues<T>& p, int64_t tile, T* local, T* block) {
  const int64_t sides = S ? S : p.sides;
  const int32_t first_row = p.tile_rows[tile];
  for (int32_t r = first_row; r < p.tile_rows[tile + 1]; ++r)
    Row<C, T>::of(p.grid + p.row_vertices[r] * int64_t(C)).to(local + (r - first_row) * C);
  const int64_t first = tile * kTile, n = p.count - first < kTile ? p.count - first : kTile;
  const int16_t* corner = p.corners + first * sides;
  const T* weight = p.weights + first * sides;
  for (int64_t i = 0; i < n; ++i, corner += sides, weight += sides) {
    Row<C, T> sum{};
    for (int64_t k = 0; k < sides; ++k) sum.add(Row<C, T>::of(local + corner[k] * int64_t(C)), weight[k]);
    sum.to(block + i * C);
  }
}

template <class T>
void splat(const LatticeValues<T>& p, int64_t tile, const T* block) {
  by_pitch(p.pitch, [&](auto pitch) { splat_on<pitch()>(p, tile, block); });
}

template <class T>
void collect(const LatticeValues<T>& p, int64_t begin, int64_t end) {
  by_pitch(p.pitch, [&](auto pitch) { collect_on<pitch()>(p, begin, end); });
}

template <class T>
void blur(const LatticeValues<T>& p, const int32_t* line, int64_t count, int64_t begin, int64_t end) {
  by_pitch(p.pitch, [&](auto pitch) { blur_on<pitch()>(p, line, count, begin, end); });
}

template <class T>
void slice(const LatticeValues<T>& p, int64_t tile, T* local, T* block) {
  by_pitch(p.pitch, [&](auto pitch) {
    switch (p.sides) {
      case 3:
        return slice_on<pitch(), 3>(p, tile, local, block);
      case 6:
        return slice_on<pitch(), 6>(p, tile, local, block);
      default:
        return slice_on<pitch(), 0>(p, tile, local, block);
    }
  });
}

// to[j step + i] = from[i apart + j]. Squares of four floats change places in registers.
template <class T>
FASTSEG_INLINE void transpose(const T* from, int64_t apart, int64_t rows, int64_t columns, T* to, int64_t step) {
  for (int64_t i = 0; i < rows; i += 4)
    for (int64_t j = 0; j < columns; j += 4) {
      const T* const in = from + i * apart + j;
      T* const out = to + j * step + i;
      const int64_t high = rows - i < 4 ? rows - i : 4, wide = columns - j < 4 ? columns - j : 4;
#if defined(__x86_64__)
      if constexpr (sizeof(T) == 4)
        if (high == 4 && wide == 4) {
          __m128 a = _mm_loadu_ps(in), b = _mm_loadu_ps(in + apart);
          __m128 c = _mm_loadu_ps(in + 2 * apart), d = _mm_loadu_ps(in + 3 * apart);
          _MM_TRANSPOSE4_PS(a, b, c, d);
          _mm_storeu_ps(out, a);
          _mm_storeu_ps(out + step, b);
          _mm_storeu_ps(out + 2 * step, c);
          _mm_storeu_ps(out + 3 * step, d);
          continue;
        }
#endif
      for (int64_t k = 0; k < high; ++k)
        for (int64_t l = 0; l < wide; ++l) out[l * step + k] = in[k * apart + l];
    }
}

// A few points at a time, so that both sides stay in the nearest cache.
constexpr int64_t kPoints = 16;

template <class T>
void load_points(const T* values, int64_t plane, int64_t channels, int64_t n, int64_t pitch, T pad, T* block) {
  for (int64_t first = 0; first < n; first += kPoints) {
    const int64_t last = n - first < kPoints ? n : first + kPoints;
    transpose(values + first, plane, channels, last - first, block + first * pitch, pitch);
    for (int64_t i = first; i < last; ++i)
      for (int64_t c = channels; c < pitch; ++c) block[i * pitch + c] = pad;
  }
}

template <class T>
void store_points(const T* block, int64_t pitch, int64_t channels, int64_t n, int64_t plane, T* out) {
  for (int64_t first = 0; first < n; first += kPoints) {
    const int64_t some = n - first < kPoints ? n - first : kPoints;
    transpose(block + first * pitch, pitch, some, channels, out + first, plane);
  }
}

template <class T>
constexpr FilterKernels<T> kKernels{splat<T>, collect<T>, blur<T>, slice<T>, load_points<T>, store_points<T>};

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::FilterKernels<float> FASTSEG_FOR_ISA(lattice_filter_f32) = fastseg::kKernels<float>;
extern "C" const fastseg::FilterKernels<double> FASTSEG_FOR_ISA(lattice_filter_f64) = fastseg::kKernels<double>;
