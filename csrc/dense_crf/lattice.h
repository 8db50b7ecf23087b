// The permutohedral lattice. Shapes, of one sample: features [d, P]; corners and weights [P, d + 1], the simplex around
// each point; values and results [C, P].
//
// Points are cut into tiles of kTile. The vertices that a tile touches are its *rows*: points are splatted onto the
// rows of their tile, which stay in a core's cache, and each vertex adds up its rows in the order of tiles. No sum
// depends on the number of threads. What a point weighs is found in double, whatever T: no simplex differs from the
// truth's.
#pragma once
#include <stdint.h>

#include "../common/dtypes.h"
#include "../common/isa.h"

namespace fastseg {

constexpr int64_t kTile = 512, kMostDims = 8, kSlots = 8192;  // slots: a power of 2, and more than a tile has corners

// Keys of vertices as numbers. All d + 1 coordinates of a key are equal modulo d + 1, and the last follows from the
// others: this remainder and d quotients, from `least` on and with room for neighbours, are digits of these place
// values.
struct Digits {
  double scale[kMostDims], least[kMostDims];
  int64_t place[kMostDims + 1];  // that of the last coordinate is 0
  int64_t carry;                 // the sum of place

  // The vertex behind a key along an axis.
  FASTSEG_INLINE int64_t behind(int64_t key, int64_t sides, int64_t axis) const {
    return key + 1 - place[axis] + (key % sides == sides - 1 ? carry - sides : 0);
  }
};

FASTSEG_INLINE uint64_t hash_of(int64_t key) { return uint64_t(key) * 0x9E3779B97F4A7C15u; }

struct Slot {
  int64_t key;
  int32_t index;  // -1: the slot is free
};

template <class T>
struct Points {
  int64_t d, count;
  const T* features;
  Digits digits;
  int16_t* corners;  // rows of the tile
  T* weights;
  int16_t* points;  // [count (d + 1)], of the tile, row after row
  T* shares;        // their weights
  int16_t* ends;    // [count (d + 1)], of each row in the two above, from the tile's first place on
  int64_t* keys;    // [tiles, kTile (d + 1)], of the rows of each tile
  int32_t* found;   // [tiles], how many rows
  Slot* slots;      // [kSlots], free
};

// The points of each row of a tile, and their weights, from the rows of its n points: counted, then filed.
template <class T>
FASTSEG_INLINE void list_points(const int16_t* corners, const T* weights, int64_t n, int64_t sides, int64_t rows,
                                int16_t* points, T* shares, int16_t* ends) {
  int16_t next[kTile * (kMostDims + 1) + 1] = {};
  for (int64_t i = 0; i < n * sides; ++i) ++next[corners[i] + 1];
  for (int64_t r = 0; r < rows; ++r) ends[r] = next[r + 1] = int16_t(next[r + 1] + next[r]);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t k = i * sides; k < (i + 1) * sides; ++k) {
      const int64_t at = next[corners[k]]++;
      points[at] = int16_t(i);
      shares[at] = weights[k];
    }
}

// Least and largest value of n features; `odd` is NaN if any is not finite.
struct Extent {
  double least, most, odd;
};

template <class T>
struct LatticeValues {
  int64_t sides, count, vertices, pitch;  // pitch: values beside each other
  const int16_t* corners;
  const T* weights;
  const int16_t* points;
  const T* shares;
  const int16_t* ends;
  const int32_t *tile_rows, *row_vertices;     // [tiles + 1], [rows]
  const int32_t *vertex_starts, *vertex_rows;  // [vertices + 1], [rows]
  T *rows, *grid;                              // [rows, pitch], [vertices, pitch]
};

constexpr int64_t kMostChannels = 32;
// What vectors are wasted little on, and lines of the cache are not crossed by.
inline int64_t pitch_of(int64_t channels) {
  return channels <= 4 ? 4 : channels > 16 ? (channels + 7) / 8 * 8 : channels <= 8 ? 8 : 16;
}

template <class T>
struct LatticeKernels {
  Extent (*extent)(const T* features, int64_t n);
  void (*place)(const Points<T>&, int64_t begin, int64_t end);  // tiles
};

template <class T>
struct FilterKernels {
  void (*splat)(const LatticeValues<T>&, int64_t tile, const T* block);  // [kTile, pitch], onto its rows
  void (*collect)(const LatticeValues<T>&, int64_t begin, int64_t end);  // vertices
  // Lines [count] of vertices along an axis, in their place: those that begin in [begin, end).
  void (*blur)(const LatticeValues<T>&, const int32_t* line, int64_t count, int64_t begin, int64_t end);
  void (*slice)(const LatticeValues<T>&, int64_t tile, T* local, T* block);  // local [kTile sides, pitch]
  // n points, of planes that are `plane` apart, to and from rows of a block.
  void (*load)(const T* values, int64_t plane, int64_t channels, int64_t n, int64_t pitch, T pad, T* block);
  void (*store)(const T* block, int64_t pitch, int64_t channels, int64_t n, int64_t plane, T* out);
};

FASTSEG_TABLES(LatticeKernels<float>, lattice_f32);
FASTSEG_TABLES(LatticeKernels<double>, lattice_f64);
FASTSEG_TABLES(FilterKernels<float>, lattice_filter_f32);
FASTSEG_TABLES(FilterKernels<double>, lattice_filter_f64);

}  // namespace fastseg
