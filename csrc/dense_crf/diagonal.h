// What a lattice takes from a point to itself.
#pragma once
#include "build.h"

namespace fastseg {

// Walks from vertex to vertex along the axes in their order, by steps of -1, 0 or 1 each; half a value goes on at every
// step, and none at all through vertices that are missing.
template <class T>
double share_of(const Lattice<T>& lattice, int32_t from, const int* steps, int32_t to) {
  const int32_t* const neighbours = data<int32_t>(lattice.neighbours);
  double share = 1;
  for (int64_t axis = 0; axis < lattice.sides; ++axis) {
    if (steps[axis] == 0) continue;
    from = neighbours[(axis * lattice.reserved + from) * 2 + (steps[axis] > 0)];
    if (from == lattice.vertices) return 0;
    share /= 2;
  }
  return from == to ? share : 0;
}

// The shares [sides, sides] of the values of the corners of a simplex that blurring takes to its corners. Corners
// follow each other along an axis each, and all axes together lead back: there are two ways from one to another.
template <class T>
void find_shares(const Lattice<T>& lattice, const int32_t* corners, double* shares) {
  constexpr int64_t kMostSides = kMostDims + 1;
  const int64_t sides = lattice.sides;
  const int32_t* const neighbours = data<int32_t>(lattice.neighbours);
  int64_t along[kMostSides] = {};
  bool used[kMostSides] = {};
  const auto leads = [&](int64_t axis, int64_t k) {
    return neighbours[(axis * lattice.reserved + corners[k]) * 2 + 1] == corners[k + 1];
  };
  for (int64_t k = 0; k + 1 < sides; ++k) {
    while (along[k] + 1 < sides && !leads(along[k], k)) ++along[k];
    used[along[k]] = true;
  }
  along[sides - 1] = std::find(used, used + sides - 1, false) - used;
  for (int64_t a = 0; a < sides; ++a)
    for (int64_t b = 0; b < sides; ++b) {
      int there[kMostSides] = {}, around[kMostSides], back[kMostSides];
      for (int64_t k = std::min(a, b); k < std::max(a, b); ++k) there[along[k]] = a < b ? 1 : -1;
      for (int64_t axis = 0; axis < sides; ++axis) {
        around[axis] = there[axis] + (a < b ? -1 : 1);
        back[axis] = -1;
      }
      double& share = shares[a * sides + b] = share_of(lattice, corners[a], there, corners[b]);
      share += share_of(lattice, corners[a], around, corners[b]);
      if (a == b) share += share_of(lattice, corners[a], back, corners[b]);
    }
}

// The diagonal [P] of the kernel, before it is scaled.
template <class T>
Tensor diagonal_of(const Lattice<T>& lattice, const Tensor& like) {
  const int64_t sides = lattice.sides;
  const Tensor diagonal = empty(like, {lattice.count}, kScalar<T>);
  const int32_t *const first = data<int32_t>(lattice.tile_rows), *const vertex = data<int32_t>(lattice.row_vertices);
  Ranges(lattice.tiles, kTile * sides * sides * sides).run([&](int64_t, int64_t b, int64_t e) {
    int32_t corners[kMostDims + 1] = {}, known[kMostDims + 1] = {};
    double shares[(kMostDims + 1) * (kMostDims + 1)] = {};
    for (int64_t i = b * kTile; i < std::min(e * kTile, lattice.count); ++i) {
      const int16_t* const rows = data<int16_t>(lattice.corners) + i * sides;
      const T* const weights = data<T>(lattice.weights) + i * sides;
      for (int64_t k = 0; k < sides; ++k) corners[k] = vertex[first[i / kTile] + rows[k]];
      // Neighbours in the image are often in one simplex.
      if (i == b * kTile || !std::equal(corners, corners + sides, known)) {
        find_shares(lattice, corners, shares);
        std::copy(corners, corners + sides, known);
      }
      double sum = 0;
      for (int64_t k = 0; k < sides; ++k)
        for (int64_t l = 0; l < sides; ++l) sum += shares[k * sides + l] * double(weights[k]) * double(weights[l]);
      data<T>(diagonal)[i] = lattice.alpha() * T(sum);
    }
  });
  return diagonal;
}

}  // namespace fastseg
