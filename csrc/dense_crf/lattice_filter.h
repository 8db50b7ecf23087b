// Values on a lattice, for the glue files: splatted by tiles, blurred, sliced by tiles.
#pragma once
#include "build.h"
#include "normalization.h"

namespace fastseg {

// Values that vectors may read and write beyond what they are asked for.
constexpr int64_t kSlack = 64;

// Values [chunks, kTile, pitch] of the points of a tile, chunks a little further apart: channels are beside each other,
// up to 32 in a chunk.
struct Block {
  int64_t chunks, pitch;

  explicit Block(int64_t channels)
      : chunks((channels + kMostChannels - 1) / kMostChannels), pitch(pitch_of(std::min(channels, kMostChannels))) {}

  int64_t chunk() const { return kTile * pitch + kSlack; }
  int64_t size() const { return chunks * chunk(); }
};

// Splats and slices of different tiles may be done at once, each thread with a `slot` of its own.
template <class T>
class LatticeFilter {
 public:
  LatticeFilter(const Lattice<T>& lattice, const Tensor& like, Block block, int64_t slots)
      : lattice_(lattice),
        block_(block),
        row_count_(lattice.row_vertices.numel() * block.pitch),
        grid_(lattice.vertices * block.pitch),
        local_(kTile * lattice.sides * block.pitch),
        rows_(empty(like, {block.chunks * row_count_}, kScalar<T>)),
        grids_(empty(like, {block.chunks * grid_}, kScalar<T>)),
        locals_(empty(like, {slots * local_}, kScalar<T>)) {}

  // Values [chunks, n, pitch], chunks `stride` apart.
  void splat(int64_t tile, const T* values, int64_t stride) const {
    for (int64_t c = 0; c < block_.chunks; ++c) kernels().splat(chunk(c), tile, values + c * stride);
  }

  // Adds up the rows of each vertex, and blurs: the axes in the other order for the transposed kernel.
  void blur(bool transposed = false) {
    for (int64_t c = 0; c < block_.chunks; ++c) {
      const LatticeValues<T> p = chunk(c);
      Ranges(lattice_.vertices, block_.pitch * 4).run([&](int64_t, int64_t b, int64_t e) {
        kernels().collect(p, b, e);
      });
      for (int64_t i = 0; i < lattice_.sides; ++i) {
        const int64_t axis = transposed ? lattice_.sides - 1 - i : i, count = lattice_.line_counts[axis];
        const int32_t* const line = data<int32_t>(lattice_.lines) + axis * lattice_.vertices;
        Ranges(count, block_.pitch * 4).run([&](int64_t, int64_t b, int64_t e) {
          kernels().blur(p, line, count, b, e);
        });
      }
    }
  }

  void slice(int64_t slot, int64_t tile, T* results) const {
    for (int64_t c = 0; c < block_.chunks; ++c)
      kernels().slice(chunk(c), tile, data<T>(locals_) + slot * local_, results + c * block_.chunk());
  }

 private:
  const Lattice<T>& lattice_;
  Block block_;
  int64_t row_count_, grid_, local_;
  Tensor rows_, grids_, locals_;

  static const FilterKernels<T>& kernels() { return FASTSEG_PICK_FOR(T, lattice_filter); }

  LatticeValues<T> chunk(int64_t c) const {
    const Lattice<T>& l = lattice_;
    return {l.sides,
            l.count,
            l.vertices,
            block_.pitch,
            data<int16_t>(l.corners),
            data<T>(l.weights),
            data<int16_t>(l.points),
            data<T>(l.shares),
            data<int16_t>(l.ends),
            data<int32_t>(l.tile_rows),
            data<int32_t>(l.row_vertices),
            data<int32_t>(l.vertex_starts),
            data<int32_t>(l.vertex_rows),
            data<T>(rows_) + c * row_count_,
            data<T>(grids_) + c * grid_};
  }
};

// K or its transpose, on values [channels, P].
template <class T>
void filter(const Lattice<T>& lattice, const Tensor& like, const T* values, int64_t channels, bool transposed, T* out) {
  const auto& kernels = FASTSEG_PICK_FOR(T, lattice_filter);
  const Block block(std::min(channels, kMostChannels));
  const Ranges tiles(lattice.tiles, kTile * lattice.sides * block.pitch);
  const Tensor blocks = empty(like, {tiles.slots, block.size()}, kScalar<T>);
  LatticeFilter<T> on(lattice, like, block, tiles.slots);
  const auto by_tiles = [&](const auto& use) {
    tiles.run([&](int64_t slot, int64_t b, int64_t e) {
      T* const mine = data<T>(blocks) + slot * block.size();
      for (int64_t tile = b; tile < e; ++tile) use(slot, tile, std::min(kTile, lattice.count - tile * kTile), mine);
    });
  };
  for (int64_t channel = 0; channel < channels; channel += kMostChannels) {
    const int64_t some = std::min(channels - channel, kMostChannels), shift = channel * lattice.count;
    by_tiles([&](int64_t, int64_t tile, int64_t n, T* mine) {
      kernels.load(values + shift + tile * kTile, lattice.count, some, n, block.pitch, T(0), mine);
      on.splat(tile, mine, 0);
    });
    on.blur(transposed);
    by_tiles([&](int64_t slot, int64_t tile, int64_t n, T* mine) {
      on.slice(slot, tile, mine);
      kernels.store(mine, block.pitch, some, n, lattice.count, out + shift + tile * kTile);
    });
  }
}

// The sums of rows of the kernel, [P].
template <class T>
Tensor sums_of(const Lattice<T>& lattice, const Tensor& like) {
  const Block block(1);
  const Ranges tiles(lattice.tiles, kTile * lattice.sides * block.pitch);
  const Tensor blocks = zeros(like, {tiles.slots, block.size()}, kScalar<T>),
               sums = empty(like, {lattice.count}, kScalar<T>);
  LatticeFilter<T> on(lattice, like, block, tiles.slots);
  tiles.run([&](int64_t slot, int64_t b, int64_t e) {
    T* const ones = data<T>(blocks) + slot * block.size();
    for (int64_t i = 0; i < kTile; ++i) ones[i * block.pitch] = T(1);
    for (int64_t tile = b; tile < e; ++tile) on.splat(tile, ones, 0);
  });
  on.blur();
  tiles.run([&](int64_t slot, int64_t b, int64_t e) {
    T *const results = data<T>(blocks) + slot * block.size(), *const to = data<T>(sums);
    for (int64_t tile = b; tile < e; ++tile) {
      on.slice(slot, tile, results);
      for (int64_t i = tile * kTile; i < std::min(lattice.count, (tile + 1) * kTile); ++i)
        to[i] = lattice.alpha() * results[(i - tile * kTile) * block.pitch];
    }
  });
  return sums;
}

// The factors of values and of results that normalize a kernel with these sums of rows, in place of the sums.
template <class T>
void invert(T* sums, int64_t n, bool root) {
  for (int64_t i = 0; i < n; ++i) {
    const T sum = sums[i] + T(1e-20);
    sums[i] = T(1) / (root ? std::sqrt(sum) : sum);
  }
}

// From here on the lattice filters with the normalized kernel.
template <class T>
void normalize(Lattice<T>& lattice, const Tensor& like, Normalization norm) {
  if (!norm.any()) return lattice.scale(nullptr, nullptr);
  const Tensor sums = sums_of(lattice, like);
  T* const factors = data<T>(sums);
  invert(factors, lattice.count, norm.before && norm.after);
  lattice.scale(norm.before ? factors : nullptr, norm.after ? factors : nullptr);
}

}  // namespace fastseg
