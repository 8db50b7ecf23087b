// Pixels in tiles of a map [depth, height, width]: what is near in the map is near in memory.
#pragma once
#include <stdint.h>

#include <algorithm>
#include <vector>

namespace fastseg {

// Consecutive pixels of a row of the map, which are consecutive in the order too.
struct Run {
  int64_t pixel, length;
};

struct Order {
  static constexpr int64_t kHigh = 16, kWide = 32;
  int64_t depth, height, width;

  int64_t count() const { return depth * height * width; }

  // The place of a pixel: tiles by rows, and pixels by rows of a tile.
  int64_t place(int64_t z, int64_t y, int64_t x) const {
    const int64_t top = y / kHigh * kHigh, left = x / kWide * kWide;
    const int64_t high = std::min(kHigh, height - top), wide = std::min(kWide, width - left);
    return (z * height + top) * width + left * high + (y - top) * wide + x - left;
  }

  // The runs of all pixels in their order, cut where a multiple of `chunk` pixels is full; the first run of each chunk.
  void list(int64_t chunk, std::vector<Run>& runs, std::vector<int64_t>& first) const {
    int64_t at = 0;
    for (int64_t z = 0; z < depth; ++z)
      for (int64_t top = 0; top < height; top += kHigh)
        for (int64_t left = 0; left < width; left += kWide)
          for (int64_t y = top; y < std::min(top + kHigh, height); ++y)
            for (int64_t x = left, end = std::min(left + kWide, width); x < end;) {
              if (at % chunk == 0) first.push_back(int64_t(runs.size()));
              const int64_t length = std::min(end - x, chunk - at % chunk);
              runs.push_back({(z * height + y) * width + x, length});
              x += length;
              at += length;
            }
    first.push_back(int64_t(runs.size()));
  }
};

}  // namespace fastseg
