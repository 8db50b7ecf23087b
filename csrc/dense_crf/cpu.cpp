#include <cmath>

#include "../common/dispatch.h"
#include "../common/tensors.h"
#include "lattice.h"

namespace fastseg {
namespace {

constexpr const char* kFilter = "permutohedral_filter";

// The place values of what features within these extents can touch.
Digits digits_of(const char* op, const std::vector<Extent>& extents) {
  const int64_t d = int64_t(extents.size()), sides = d + 1;
  Digits digits{};
  double low[kMostDims], high[kMostDims], low_sum = 0, high_sum = 0, cells = double(sides);
  for (int64_t i = d - 1; i >= 0; --i) {
    digits.scale[i] = double(sides) * std::sqrt(2.0 / 3.0) / std::sqrt(double((i + 1) * (i + 2)));
    low[i] = extents[i].least * digits.scale[i];
    high[i] = extents[i].most * digits.scale[i];
    low_sum += low[i];
    high_sum += high[i];
  }
  digits.place[0] = sides;
  for (int64_t i = 0; i < d; ++i) {
    if (i > 0) {
      low_sum -= low[i - 1];
      high_sum -= high[i - 1];
    }
    const double least = i > 0 ? low_sum - double(i) * high[i - 1] : low_sum;
    const double most = i > 0 ? high_sum - double(i) * low[i - 1] : high_sum;
    digits.least[i] = std::floor(least / double(sides)) - 4;
    const double extent = std::ceil(most / double(sides)) + 5 - digits.least[i];
    cells *= extent;
    FASTSEG_CHECK(cells < 0x1p62, op, "features", "span fewer cells of the lattice than 2^62, got ", cells, " or more");
    digits.carry += digits.place[i];
    digits.place[i + 1] = i + 1 < d ? digits.place[i] * int64_t(extent) : 0;
  }
  return digits;
}

// Vertices by key, in memory that torch allocated.
struct VertexTable {
  Tensor memory;
  Slot* slots;
  int shift = 63;
  uint64_t mask = 1;

  VertexTable(const Tensor& like, int64_t most) {
    while (int64_t(mask) < 2 * most) {
      mask = 2 * mask + 1;
      --shift;
    }
    memory = empty(like, {int64_t(mask + 1) * int64_t(sizeof(Slot))}, ScalarType::Byte);
    slots = (Slot*)memory.data_ptr();
    for (uint64_t i = 0; i <= mask; ++i) slots[i].index = -1;
  }

  // The slot of a key, or the free one where it would be.
  Slot& operator[](int64_t key) const {
    uint64_t at = hash_of(key) >> shift;
    while (slots[at].index >= 0 && slots[at].key != key) at = (at + 1) & mask;
    return slots[at];
  }

  void prefetch(int64_t key) const { __builtin_prefetch(slots + (hash_of(key) >> shift)); }
};

// The lattice of one sample: the tables that LatticeValues points to.
template <class T>
struct Lattice {
  int64_t sides, count, tiles, vertices = 0;
  Tensor corners, weights, tile_rows, row_vertices, vertex_starts, vertex_rows, neighbours;

  Lattice(const char* op, const Tensor& like, const T* features, int64_t d, int64_t points);
};

template <class T>
T* data(const Tensor& x) {
  return (T*)x.data_ptr();
}

template <class T>
Lattice<T>::Lattice(const char* op, const Tensor& like, const T* features, int64_t d, int64_t points)
    : sides(d + 1), count(points), tiles((points + kTile - 1) / kTile) {
  const auto& kernels = FASTSEG_PICK_FOR(T, lattice);
  std::vector<Extent> extents(d);
  Ranges(d, points).run([&](int64_t, int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) extents[i] = kernels.extent(features + i * points, points);
  });
  for (const Extent& extent : extents) FASTSEG_CHECK(extent.odd == 0, op, "features", "be finite, got NaN or infinity");
  const Digits digits = digits_of(op, extents);

  corners = empty(like, {points, sides}, ScalarType::Short);
  weights = empty(like, {points, sides}, kScalar<T>);
  tile_rows = empty(like, {tiles + 1}, ScalarType::Int);
  const Tensor keys = empty(like, {points * sides}, ScalarType::Long);
  const Ranges ranges(tiles, kTile * sides * sides);
  const Tensor slots = empty(like, {ranges.slots, kSlots * int64_t(sizeof(Slot))}, ScalarType::Byte);
  int32_t* const first = data<int32_t>(tile_rows);
  ranges.run([&](int64_t slot, int64_t b, int64_t e) {
    Slot* const free = data<Slot>(slots) + slot * kSlots;
    for (int64_t i = 0; i < kSlots; ++i) free[i].index = -1;
    kernels.place(
        {d, points, features, digits, data<int16_t>(corners), data<T>(weights), data<int64_t>(keys), first + 1, free},
        b, e);
  });
  first[0] = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) first[tile + 1] += first[tile];

  // Vertices in the order of their first rows, and how many rows each has.
  const int64_t rows = first[tiles];
  row_vertices = empty(like, {rows}, ScalarType::Int);
  const VertexTable table(like, rows);
  const Tensor vertex_keys = empty(like, {rows}, ScalarType::Long);
  int32_t* const of_row = data<int32_t>(row_vertices);
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t* const key = data<int64_t>(keys) + tile * kTile * sides;
    const int64_t n = first[tile + 1] - first[tile];
    for (int64_t i = 0; i < n; ++i) {
      if (i + 8 < n) table.prefetch(key[i + 8]);
      Slot& slot = table[key[i]];
      if (slot.index < 0) {
        data<int64_t>(vertex_keys)[vertices] = key[i];
        slot = {key[i], int32_t(vertices++)};
      }
      of_row[first[tile] + i] = slot.index;
    }
  }

  vertex_starts = zeros(like, {vertices + 2}, ScalarType::Int);
  vertex_rows = empty(like, {rows}, ScalarType::Int);
  int32_t* const starts = data<int32_t>(vertex_starts);
  for (int64_t r = 0; r < rows; ++r) ++starts[of_row[r] + 2];
  for (int64_t v = 0; v < vertices; ++v) starts[v + 2] += starts[v + 1];
  for (int64_t r = 0; r < rows; ++r) data<int32_t>(vertex_rows)[starts[of_row[r] + 1]++] = int32_t(r);

  neighbours = empty(like, {sides, vertices, 2}, ScalarType::Int);
  int32_t* const beside = data<int32_t>(neighbours);
  const Ranges parts(vertices, sides * 16);
  parts.run([&](int64_t, int64_t b, int64_t e) {
    for (int64_t axis = 0; axis < sides; ++axis)
      std::fill(beside + (axis * vertices + b) * 2, beside + (axis * vertices + e) * 2, int32_t(vertices));
  });
  // Whoever has a vertex behind it is the one before that: nobody else writes there.
  parts.run([&](int64_t, int64_t b, int64_t e) {
    constexpr int64_t kAhead = 4;
    int64_t keys[kAhead][kMostDims + 1];
    const auto look = [&](int64_t v) {
      for (int64_t axis = 0; axis < sides; ++axis)
        table.prefetch(keys[v % kAhead][axis] = digits.behind(data<int64_t>(vertex_keys)[v], sides, axis));
    };
    for (int64_t v = b; v < std::min(b + kAhead, e); ++v) look(v);
    for (int64_t v = b; v < e; ++v) {
      for (int64_t axis = 0; axis < sides; ++axis) {
        const Slot& slot = table[keys[v % kAhead][axis]];
        if (slot.index < 0) continue;
        beside[(axis * vertices + v) * 2 + 1] = slot.index;
        beside[(axis * vertices + slot.index) * 2] = int32_t(v);
      }
      if (v + kAhead < e) look(v + kAhead);
    }
  });
}

// K or its transpose, on values [channels, P] times `before`; the results times `after`.
template <class T>
void filter(const Lattice<T>& lattice, const Tensor& like, const T* values, int64_t channels, const T* before,
            const T* after, bool transposed, T* out) {
  const auto& kernels = FASTSEG_PICK_FOR(T, lattice_filter);
  const int64_t pitch = pitch_of(std::min(channels, kMostChannels)), grid = (lattice.vertices + 1) * pitch;
  const Ranges tiles(lattice.tiles, kTile * lattice.sides * pitch), vertices(lattice.vertices, pitch * 4);
  const int64_t local_size = kTile * lattice.sides * pitch;
  const Tensor rows = empty(like, {lattice.row_vertices.numel() * pitch}, kScalar<T>);
  const Tensor grids = empty(like, {2 * grid}, kScalar<T>), local = empty(like, {tiles.slots, local_size}, kScalar<T>);
  for (int64_t channel = 0; channel < channels; channel += kMostChannels) {
    const int64_t n = std::min(channels - channel, kMostChannels), shift = channel * lattice.count;
    LatticeValues<T> p{lattice.sides,
                       lattice.count,
                       lattice.vertices,
                       n,
                       data<int16_t>(lattice.corners),
                       data<T>(lattice.weights),
                       data<int32_t>(lattice.tile_rows),
                       data<int32_t>(lattice.row_vertices),
                       data<int32_t>(lattice.vertex_starts),
                       data<int32_t>(lattice.vertex_rows),
                       data<int32_t>(lattice.neighbours),
                       values + shift,
                       before,
                       after,
                       out + shift,
                       data<T>(rows),
                       data<T>(grids),
                       data<T>(grids) + grid,
                       nullptr};
    const auto on_tiles = [&](auto kernel) {
      tiles.run([&](int64_t slot, int64_t b, int64_t e) {
        LatticeValues<T> mine = p;
        mine.local = data<T>(local) + slot * local_size;
        kernel(mine, b, e);
      });
    };
    on_tiles(kernels.splat);
    vertices.run([&](int64_t, int64_t b, int64_t e) { kernels.collect(p, b, e); });
    for (T* side : {p.grid, p.blurred}) std::fill_n(side + lattice.vertices * pitch_of(n), pitch_of(n), T(0));
    for (int64_t i = 0; i < lattice.sides; ++i) {
      const int64_t axis = transposed ? lattice.sides - 1 - i : i;
      vertices.run([&](int64_t, int64_t b, int64_t e) { kernels.blur(p, axis, b, e); });
      std::swap(p.grid, p.blurred);
    }
    on_tiles(kernels.slice);
  }
}

// The factors of values and of results that normalize a kernel with these sums of rows, in place of the sums.
template <class T>
void invert(T* sums, int64_t n, bool root) {
  for (int64_t i = 0; i < n; ++i) {
    const T sum = sums[i] + T(1e-20);
    sums[i] = T(1) / (root ? std::sqrt(sum) : sum);
  }
}

Tensor permutohedral_filter(const Tensor& values, const Tensor& features, std::string normalization, bool transposed) {
  const Float type = float_type(kFilter, "values", values);
  FASTSEG_CHECK(type == Float::f32 || type == Float::f64, kFilter, "values", "be float32 or float64, got scalar type ",
                int(values.scalar_type()));
  FASTSEG_CHECK(features.scalar_type() == values.scalar_type(), kFilter, "features",
                "have the dtype of values, got scalar type ", int(features.scalar_type()));
  FASTSEG_CHECK(values.dim() == 3, kFilter, "values", "be [N, C, P], got ", values.dim(), " dimensions");
  FASTSEG_CHECK(features.dim() == 3 && features.size(0) == values.size(0) && features.size(2) == values.size(2),
                kFilter, "features", "be [N, d, P] with N and P of values");
  const int64_t n = values.size(0), c = values.size(1), points = values.size(2), d = features.size(1);
  FASTSEG_CHECK(d >= 1 && d <= kMostDims, kFilter, "features", "have from 1 to 8 dimensions, got ", d);
  FASTSEG_CHECK(points * (d + 1) < int64_t(1) << 31, kFilter, "features", "have fewer than 2^31 / (d + 1) points, got ",
                points);
  took(kFilter);
  Tensor out = empty(values, {n, c, points}, values.scalar_type());
  if (out.numel() == 0) return out;
  const bool before = normalization == "before", after = normalization == "after", both = normalization == "symmetric";
  const Tensor v = torch::stable::contiguous(values), f = torch::stable::contiguous(features);
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    const Tensor ones = empty(values, {points}, kScalar<T>), sums = empty(values, {points}, kScalar<T>);
    std::fill_n(data<T>(ones), points, T(1));
    for (int64_t i = 0; i < n; ++i) {
      const Lattice<T> lattice(kFilter, values, data<T>(f) + i * d * points, d, points);
      const T* factor = nullptr;
      if (before || after || both) {
        filter<T>(lattice, values, data<T>(ones), 1, nullptr, nullptr, false, data<T>(sums));
        invert(data<T>(sums), points, both);
        factor = data<T>(sums);
      }
      const bool first = both || before != transposed;
      filter<T>(lattice, values, data<T>(v) + i * c * points, c, first ? factor : nullptr,
                both || !first ? factor : nullptr, transposed, data<T>(out) + i * c * points);
    }
  });
  return out;
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) {
  m.impl("permutohedral_filter", TORCH_BOX(&fastseg::permutohedral_filter));
}
