#include "build.h"
#include "normalization.h"

namespace fastseg {
namespace {

constexpr const char* kFilter = "permutohedral_filter";

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
  FASTSEG_CHECK(features.dim() == 3, kFilter, "features", "be [N, d, P], got ", features.dim(), " dimensions");
  FASTSEG_CHECK(features.size(0) == values.size(0) && features.size(2) == values.size(2), kFilter, "features", "be [",
                values.size(0), ", d, ", values.size(2), "], got ", features.size(0), " and ", features.size(2));
  const int64_t n = values.size(0), c = values.size(1), points = values.size(2), d = features.size(1);
  FASTSEG_CHECK(d >= 1 && d <= kMostDims, kFilter, "features", "have from 1 to 8 dimensions, got ", d);
  FASTSEG_CHECK(points * (d + 1) < int64_t(1) << 31, kFilter, "features", "have fewer than 2^31 / (d + 1) points, got ",
                points);
  Normalization norm(kFilter, normalization);
  if (transposed) std::swap(norm.before, norm.after);
  took(kFilter);
  Tensor out = empty(values, {n, c, points}, values.scalar_type());
  if (out.numel() == 0) return out;
  const Tensor v = torch::stable::contiguous(values), f = torch::stable::contiguous(features);
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    const int64_t normalized = norm.any() ? points : 0;
    const Tensor ones = empty(values, {normalized}, kScalar<T>), sums = empty(values, {normalized}, kScalar<T>);
    std::fill_n(data<T>(ones), normalized, T(1));
    for (int64_t i = 0; i < n; ++i) {
      const Lattice<T> lattice(kFilter, values, data<T>(f) + i * d * points, d, points);
      if (norm.any()) {
        filter<T>(lattice, values, data<T>(ones), 1, nullptr, nullptr, false, data<T>(sums));
        invert(data<T>(sums), points, norm.before && norm.after);
      }
      filter<T>(lattice, values, data<T>(v) + i * c * points, c, norm.before ? data<T>(sums) : nullptr,
                norm.after ? data<T>(sums) : nullptr, transposed, data<T>(out) + i * c * points);
    }
  });
  return out;
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) {
  m.impl("permutohedral_filter", TORCH_BOX(&fastseg::permutohedral_filter));
}
