// The lattice of the features of one sample, for the glue files: simplices, then vertices, their rows and neighbours.
#pragma once
#include "../common/dispatch.h"
#include "keys.h"

namespace fastseg {

template <class T>
T* data(const Tensor& x) {
  return (T*)x.data_ptr();
}

// A lattice as its op returns it, of one sample: what it is on any device.
template <class T>
struct State {
  int64_t sides, points, reserved, count;  // reserved: vertices that there is room for
  const int32_t* vertices;                 // [points, sides]
  const T* weights;
  const Tensor neighbours;  // [sides, reserved, 2], the vertex before and behind, or `count`
};

// The lattice of one sample: the tables that LatticeValues points to.
template <class T>
class Lattice {
 public:
  int64_t sides, count, tiles, vertices = 0, reserved = 0;  // reserved: vertices that there is room for
  Tensor corners, weights, points, shares, ends, tile_rows, row_vertices, vertex_starts, vertex_rows, neighbours, lines;
  std::vector<int64_t> line_counts;  // [sides], of vertices in `lines` [sides, vertices]

  // `argument` is what the features come from.
  Lattice(const char* op, const char* argument, const Tensor& like, const T* features, int64_t d, int64_t points)
      : sides(d + 1), count(points), tiles((points + kTile - 1) / kTile) {
    const Digits digits = measure(op, argument, features);
    const Tensor keys = place(like, features, digits);
    const int64_t rows = data<int32_t>(tile_rows)[tiles];
    const VertexTable table(like, rows);
    const Tensor vertex_keys = number(like, keys, table, rows);
    list_rows(like, rows);
    find_neighbours(like, digits, table, data<int64_t>(vertex_keys));
    list_lines(like);
  }

  Lattice(const Tensor& like, const State<T>& state)
      : sides(state.sides),
        count(state.points),
        tiles((count + kTile - 1) / kTile),
        vertices(state.count),
        reserved(state.reserved),
        neighbours(state.neighbours) {
    reserve(like);
    const Tensor found = find_rows(like, state);
    const int32_t* const first = data<int32_t>(tile_rows);
    row_vertices = empty(like, {first[tiles]}, ScalarType::Int);
    for (int64_t tile = 0; tile < tiles; ++tile)
      std::copy_n(data<int32_t>(found) + tile * kTile * sides, first[tile + 1] - first[tile],
                  data<int32_t>(row_vertices) + first[tile]);
    list_rows(like, first[tiles]);
    list_lines(like);
  }

  T alpha() const { return T(1.0 / (1.0 + 1.0 / double(int64_t(1) << (sides - 1)))); }

  // Results are multiplied by alpha, as the kernel has it, and by these factors; values by those, which may be null.
  void scale(const T* before, const T* after) {
    T *const weight = data<T>(weights), *const share = data<T>(shares);
    const int16_t* const point = data<int16_t>(points);
    Ranges(tiles, kTile * sides).run([&](int64_t, int64_t b, int64_t e) {
      for (int64_t tile = b; tile < e; ++tile) {
        const int64_t first = tile * kTile, last = std::min(first + kTile, count);
        for (int64_t i = first; i < last; ++i) {
          const T factor = after ? alpha() * after[i] : alpha();
          for (int64_t at = i * sides; at < (i + 1) * sides; ++at) weight[at] *= factor;
        }
        for (int64_t at = first * sides; before && at < last * sides; ++at) share[at] *= before[first + point[at]];
      }
    });
  }

 private:
  void reserve(const Tensor& like) {
    corners = empty(like, {count, sides}, ScalarType::Short);
    weights = empty(like, {count, sides}, kScalar<T>);
    points = empty(like, {count, sides}, ScalarType::Short);
    shares = empty(like, {count, sides}, kScalar<T>);
    ends = empty(like, {count, sides}, ScalarType::Short);
    tile_rows = empty(like, {tiles + 1}, ScalarType::Int);
  }

  // How many rows the tiles have -> the first row of each.
  void add_up() {
    int32_t* const first = data<int32_t>(tile_rows);
    first[0] = 0;
    for (int64_t tile = 0; tile < tiles; ++tile) first[tile + 1] += first[tile];
  }

  Digits measure(const char* op, const char* argument, const T* features) const {
    std::vector<Extent> extents(sides - 1);
    Ranges(sides - 1, count).run([&](int64_t, int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) extents[i] = FASTSEG_PICK_FOR(T, lattice).extent(features + i * count, count);
    });
    for (const Extent& extent : extents) FASTSEG_CHECK(extent.odd == 0, op, argument, "be finite, got NaN or infinity");
    return digits_of(op, argument, extents);
  }

  // The simplex around each point; returns the keys of the rows of each tile.
  Tensor place(const Tensor& like, const T* features, const Digits& digits) {
    reserve(like);
    const Tensor keys = empty(like, {count * sides}, ScalarType::Long);
    const Ranges ranges(tiles, kTile * sides * sides);
    const Tensor slots = empty(like, {ranges.slots, kSlots * int64_t(sizeof(Slot))}, ScalarType::Byte);
    int32_t* const first = data<int32_t>(tile_rows);
    ranges.run([&](int64_t slot, int64_t b, int64_t e) {
      Slot* const free = data<Slot>(slots) + slot * kSlots;
      for (int64_t i = 0; i < kSlots; ++i) free[i].index = -1;
      const Points<T> p{sides - 1,
                        count,
                        features,
                        digits,
                        data<int16_t>(corners),
                        data<T>(weights),
                        data<int16_t>(points),
                        data<T>(shares),
                        data<int16_t>(ends),
                        data<int64_t>(keys),
                        first + 1,
                        free};
      FASTSEG_PICK_FOR(T, lattice).place(p, b, e);
    });
    add_up();
    return keys;
  }

  // The rows of each tile from the vertices of its points; returns the vertices of the rows.
  Tensor find_rows(const Tensor& like, const State<T>& state) {
    Tensor found = empty(like, {count * sides}, ScalarType::Int);
    int32_t* const rows = data<int32_t>(tile_rows) + 1;
    std::copy_n(state.weights, count * sides, data<T>(weights));
    Ranges(tiles, kTile * sides * sides).run([&](int64_t, int64_t b, int64_t e) {
      std::vector<int16_t> row_of(vertices, -1);
      for (int64_t tile = b; tile < e; ++tile) {
        const int64_t first = tile * kTile * sides, n = std::min(kTile, count - tile * kTile);
        int16_t* const corner = data<int16_t>(corners) + first;
        int32_t* const known = data<int32_t>(found) + first;
        int32_t some = 0;
        for (int64_t i = 0; i < n * sides; ++i) {
          int16_t& row = row_of[state.vertices[first + i]];
          if (row < 0) {
            known[some] = state.vertices[first + i];
            row = int16_t(some++);
          }
          corner[i] = row;
        }
        for (int32_t r = 0; r < some; ++r) row_of[known[r]] = -1;
        rows[tile] = some;
        list_points(corner, state.weights + first, n, sides, some, data<int16_t>(points) + first,
                    data<T>(shares) + first, data<int16_t>(ends) + first);
      }
    });
    add_up();
    return found;
  }

  // Numbers the vertices in the order of their first rows; returns their keys.
  Tensor number(const Tensor& like, const Tensor& keys, const VertexTable& table, int64_t rows) {
    constexpr int64_t kAhead = 8;
    row_vertices = empty(like, {rows}, ScalarType::Int);
    Tensor vertex_keys = empty(like, {rows}, ScalarType::Long);
    const int32_t* const first = data<int32_t>(tile_rows);
    int32_t* const vertex = data<int32_t>(row_vertices);
    int64_t* const known = data<int64_t>(vertex_keys);
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t* const key = data<int64_t>(keys) + tile * kTile * sides;
      const int64_t n = first[tile + 1] - first[tile];
      for (int64_t i = 0; i < n; ++i) {
        if (i + kAhead < n) table.prefetch(key[i + kAhead]);
        Slot& slot = table[key[i]];
        if (slot.index < 0) {
          known[vertices] = key[i];
          slot = {key[i], int32_t(vertices++)};
        }
        vertex[first[tile] + i] = slot.index;
      }
    }
    return vertex_keys;
  }

  // The rows of each vertex, in their order: counted, then filed.
  void list_rows(const Tensor& like, int64_t rows) {
    vertex_starts = zeros(like, {vertices + 2}, ScalarType::Int);
    vertex_rows = empty(like, {rows}, ScalarType::Int);
    const int32_t* const vertex = data<int32_t>(row_vertices);
    int32_t *const starts = data<int32_t>(vertex_starts), *const listed = data<int32_t>(vertex_rows);
    for (int64_t r = 0; r < rows; ++r) ++starts[vertex[r] + 2];
    for (int64_t v = 0; v < vertices; ++v) starts[v + 2] += starts[v + 1];
    for (int64_t r = 0; r < rows; ++r) listed[starts[vertex[r] + 1]++] = int32_t(r);
  }

  // The vertices of each axis, line after line, without those that have no neighbour there. The first of a line as ~v.
  void list_lines(const Tensor& like) {
    lines = empty(like, {sides, vertices}, ScalarType::Int);
    line_counts.resize(sides);
    Ranges(sides, vertices * 8).run([&](int64_t, int64_t b, int64_t e) {
      for (int64_t axis = b; axis < e; ++axis) {
        const int32_t* const beside = data<int32_t>(neighbours) + axis * reserved * 2;
        int32_t *const first = data<int32_t>(lines) + axis * vertices, *to = first;
        for (int32_t v = 0; v < vertices; ++v) {
          int64_t next = beside[2 * int64_t(v) + 1];
          if (beside[2 * int64_t(v)] < vertices || next == vertices || to == first + vertices) continue;
          *to++ = ~v;
          for (; next < vertices && to < first + vertices; next = beside[2 * next + 1]) *to++ = int32_t(next);
        }
        line_counts[axis] = to - first;
      }
    });
  }

  void find_neighbours(const Tensor& like, const Digits& digits, const VertexTable& table, const int64_t* keys) {
    reserved = vertices;
    neighbours = empty(like, {sides, vertices, 2}, ScalarType::Int);
    int32_t* const beside = data<int32_t>(neighbours);
    const Ranges ranges(vertices, sides * 16);
    ranges.run([&](int64_t, int64_t b, int64_t e) {
      for (int64_t axis = 0; axis < sides; ++axis)
        std::fill(beside + (axis * vertices + b) * 2, beside + (axis * vertices + e) * 2, int32_t(vertices));
    });
    // Whoever has a vertex behind it is the one before that: nobody else writes there.
    ranges.run([&](int64_t, int64_t b, int64_t e) {
      constexpr int64_t kAhead = 4;
      int64_t wanted[kAhead][kMostDims + 1];
      const auto look = [&](int64_t v) {
        for (int64_t axis = 0; axis < sides; ++axis)
          table.prefetch(wanted[v % kAhead][axis] = digits.behind(keys[v], sides, axis));
      };
      for (int64_t v = b; v < std::min(b + kAhead, e); ++v) look(v);
      for (int64_t v = b; v < e; ++v) {
        for (int64_t axis = 0; axis < sides; ++axis) {
          const Slot& slot = table[wanted[v % kAhead][axis]];
          if (slot.index < 0) continue;
          beside[(axis * vertices + v) * 2 + 1] = slot.index;
          beside[(axis * vertices + slot.index) * 2] = int32_t(v);
        }
        if (v + kAhead < e) look(v + kAhead);
      }
    });
  }
};

}  // namespace fastseg
