// Keys of vertices: their digits from the features, and the table that finds a vertex by its key.
#pragma once
#include <algorithm>
#include <cmath>

#include "../common/tensors.h"
#include "lattice.h"

namespace fastseg {

// The place values of what features within these extents can touch. Beyond kFar cells from the origin doubles no longer
// tell corners apart.
inline Digits digits_of(const char* op, const char* argument, const std::vector<Extent>& extents) {
  constexpr double kFar = 0x1p40;
  const int64_t d = int64_t(extents.size()), sides = d + 1;
  double reach = 0;
  Digits digits{};
  double low[kMostDims], high[kMostDims], low_sum = 0, high_sum = 0, cells = double(sides);
  for (int64_t i = d - 1; i >= 0; --i) {
    digits.scale[i] = double(sides) * std::sqrt(2.0 / 3.0) / std::sqrt(double((i + 1) * (i + 2)));
    low[i] = extents[i].least * digits.scale[i];
    high[i] = extents[i].most * digits.scale[i];
    low_sum += low[i];
    high_sum += high[i];
    reach += std::max(std::abs(low[i]), std::abs(high[i]));
  }
  FASTSEG_CHECK(reach < kFar, op, argument, "be less than 2^40 cells of the lattice from 0, got ", reach);
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
    FASTSEG_CHECK(cells < 0x1p62, op, argument, "span fewer cells of the lattice than 2^62, got ", cells, " or more");
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

}  // namespace fastseg
