#include <tuple>

#include "arguments.h"
#include "diagonal.h"
#include "lattice_filter.h"

namespace fastseg {
namespace {

constexpr const char* kBuild = "permutohedral_lattice";
constexpr const char* kApply = "permutohedral_apply";
constexpr const char* kDiagonal = "permutohedral_diagonal";

// [N, P, d + 1] vertices and weights, [N, d + 1, P (d + 1), 2] neighbours, [N] counts.
struct States {
  Tensor vertices, weights, neighbours, count;
  int64_t n, points, sides, reserved;

  // Everything that indexes memory is looked at: a state is data that anybody may have written.
  States(const char* op, const Tensor& vertices_, const Tensor& weights_, const Tensor& neighbours_,
         const Tensor& count_)
      : vertices(torch::stable::contiguous(vertices_)),
        weights(torch::stable::contiguous(weights_)),
        neighbours(torch::stable::contiguous(neighbours_)),
        count(torch::stable::contiguous(count_)) {
    check_state(op, vertices, weights, neighbours, count);
    n = vertices.size(0);
    points = vertices.size(1);
    sides = vertices.size(2);
    reserved = points * sides;
    for (int64_t i = 0; i < n; ++i) check(op, i);
  }

  template <class T>
  State<T> of(int64_t i) const {
    const Tensor beside = torch::stable::narrow(*const_cast<Tensor*>(&neighbours), 0, i, 1);
    return {sides,
            points,
            reserved,
            data<int64_t>(count)[i],
            data<int32_t>(vertices) + i * reserved,
            data<T>(weights) + i * reserved,
            beside};
  }

 private:
  void check(const char* op, int64_t i) const {
    const int64_t some = data<int64_t>(count)[i];
    FASTSEG_CHECK(some >= 0 && some <= reserved, op, "count", "be in [0, ", reserved, "], got ", some);
    const auto within = [&](const char* argument, const int32_t* at, int64_t length, int64_t most) {
      int32_t least = 0, largest = 0;
      for (int64_t k = 0; k < length; ++k) {
        least = std::min(least, at[k]);
        largest = std::max(largest, at[k]);
      }
      FASTSEG_CHECK(least >= 0 && largest < most, op, argument, "be in [0, ", most, "), got ",
                    least < 0 ? least : largest);
    };
    if (points) within("vertices", data<int32_t>(vertices) + i * reserved, reserved, some);
    for (int64_t axis = 0; axis < sides; ++axis)
      within("neighbours", data<int32_t>(neighbours) + (i * sides + axis) * reserved * 2, some * 2, some + 1);
    check_pairs_of_neighbours(op, i, some);
  }

  // Lines along an axis share no vertex: threads blur them in place.
  void check_pairs_of_neighbours(const char* op, int64_t i, int64_t some) const {
    std::vector<int64_t> alone(sides, -1);
    Ranges(sides, some * 2).run([&](int64_t, int64_t b, int64_t e) {
      for (int64_t axis = b; axis < e; ++axis) {
        const int32_t* const beside = data<int32_t>(neighbours) + (i * sides + axis) * reserved * 2;
        for (int64_t k = 0; k < 2 * some; ++k)
          if (beside[k] < some && beside[2 * int64_t(beside[k]) + 1 - k % 2] != k / 2) alone[axis] = k / 2;
      }
    });
    for (const int64_t v : alone)
      FASTSEG_CHECK(v < 0, op, "neighbours", "be mutual, got vertex ", v, " beside one that is not beside it");
  }
};

std::tuple<Tensor, Tensor, Tensor, Tensor> permutohedral_lattice(const Tensor& features) {
  const Float type = check_features(kBuild, features);
  const int64_t n = features.size(0), d = features.size(1), points = features.size(2), reserved = points * (d + 1);
  took(kBuild);
  const Tensor f = torch::stable::contiguous(features);
  Tensor vertices = empty(f, {n, points, d + 1}, ScalarType::Int);
  Tensor weights = empty(f, {n, points, d + 1}, f.scalar_type());
  Tensor neighbours = empty(f, {n, d + 1, reserved, 2}, ScalarType::Int), count = zeros(f, {n}, ScalarType::Long);
  if (points == 0) return {vertices, weights, neighbours, count};
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    for (int64_t i = 0; i < n; ++i) {
      const Lattice<T> lattice(kBuild, "features", f, data<T>(f) + i * d * points, d, points);
      data<int64_t>(count)[i] = lattice.vertices;
      std::copy_n(data<T>(lattice.weights), reserved, data<T>(weights) + i * reserved);
      const int32_t *const first = data<int32_t>(lattice.tile_rows), *const row = data<int32_t>(lattice.row_vertices);
      const int16_t* const corners = data<int16_t>(lattice.corners);
      int32_t* const vertex = data<int32_t>(vertices) + i * reserved;
      Ranges(lattice.tiles, kTile * (d + 1)).run([&](int64_t, int64_t b, int64_t e) {
        for (int64_t tile = b; tile < e; ++tile)
          for (int64_t k = tile * kTile * (d + 1); k < std::min((tile + 1) * kTile * (d + 1), reserved); ++k)
            vertex[k] = row[first[tile] + corners[k]];
      });
      Ranges(d + 1, reserved).run([&](int64_t, int64_t b, int64_t e) {
        for (int64_t axis = b; axis < e; ++axis) {
          int32_t* const to = data<int32_t>(neighbours) + (i * (d + 1) + axis) * reserved * 2;
          std::copy_n(data<int32_t>(lattice.neighbours) + axis * lattice.vertices * 2, lattice.vertices * 2, to);
          std::fill_n(to + lattice.vertices * 2, (reserved - lattice.vertices) * 2, int32_t(lattice.vertices));
        }
      });
    }
  });
  return {vertices, weights, neighbours, count};
}

Tensor permutohedral_apply(const Tensor& values, const Tensor& vertices, const Tensor& weights,
                           const Tensor& neighbours, const Tensor& count, bool transposed) {
  const States states(kApply, vertices, weights, neighbours, count);
  const Float type = check_applied(kApply, values, vertices, weights);
  took(kApply);
  const int64_t c = values.size(1), points = states.points;
  Tensor out = empty(values, {states.n, c, points}, values.scalar_type());
  if (out.numel() == 0) return out;
  const Tensor v = torch::stable::contiguous(values);
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    for (int64_t i = 0; i < states.n; ++i) {
      Lattice<T> lattice(values, states.of<T>(i));
      lattice.scale(nullptr, nullptr);
      filter<T>(lattice, values, data<T>(v) + i * c * points, c, transposed, data<T>(out) + i * c * points);
    }
  });
  return out;
}

Tensor permutohedral_diagonal(const Tensor& vertices, const Tensor& weights, const Tensor& neighbours,
                              const Tensor& count) {
  const Float type = check_float(kDiagonal, "weights", weights);
  const States states(kDiagonal, vertices, weights, neighbours, count);
  took(kDiagonal);
  Tensor out = empty(weights, {states.n, states.points}, weights.scalar_type());
  if (out.numel() == 0) return out;
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    for (int64_t i = 0; i < states.n; ++i) {
      const Tensor diagonal = diagonal_of(Lattice<T>(weights, states.of<T>(i)), weights);
      std::copy_n(data<T>(diagonal), states.points, data<T>(out) + i * states.points);
    }
  });
  return out;
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) {
  m.impl("permutohedral_lattice", TORCH_BOX(&fastseg::permutohedral_lattice));
  m.impl("permutohedral_apply", TORCH_BOX(&fastseg::permutohedral_apply));
  m.impl("permutohedral_diagonal", TORCH_BOX(&fastseg::permutohedral_diagonal));
}
