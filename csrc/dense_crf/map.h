// Values of a map between planes of pixels and blocks of points in their order, for the glue files.
#pragma once
#include <limits>

#include "lattice_filter.h"
#include "order.h"

namespace fastseg {

template <class T>
class Map {
 public:
  int64_t dims;  // 2 or 3
  Order order;
  std::vector<Run> runs;
  std::vector<int64_t> first;  // run of each tile of kTile points

  Map(int64_t dims_, const Order& order_) : dims(dims_), order(order_) { order.list(kTile, runs, first); }

  int64_t tiles() const { return int64_t(first.size()) - 1; }

  // Planes [d, P] in the order.
  Tensor in_order(const Tensor& like, const T* planes, int64_t d) const {
    const int64_t points = order.count();
    const Tensor ordered = empty(like, {d, points}, kScalar<T>);
    Ranges(d, points).run([&](int64_t, int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        T* to = data<T>(ordered) + i * points;
        for (const Run& run : runs) to = std::copy_n(planes + i * points + run.pixel, run.length, to);
      }
    });
    return ordered;
  }

  // Coordinates over their deviations [2 or 3, P], the last axis first.
  Tensor positions(const Tensor& like, const double* sigma) const {
    const int64_t points = order.count();
    const Tensor at = empty(like, {dims, points}, kScalar<T>);
    T* const to = data<T>(at);
    int64_t i = 0;
    for (const Run& run : runs) {
      const int64_t row = run.pixel / order.width, x = run.pixel - row * order.width;
      const T y = T(double(row % order.height) / sigma[1]),
              z = T(dims == 3 ? double(row / order.height) / sigma[2] : 0);
      for (int64_t j = 0; j < run.length; ++j) to[i + j] = T(double(x + j) / sigma[0]);
      std::fill_n(to + points + i, run.length, y);
      if (dims == 3) std::fill_n(to + 2 * points + i, run.length, z);
      i += run.length;
    }
    return at;
  }

  // The energies of a tile as a block, padded with labels that nothing is.
  void load(const T* planes, int64_t channels, int64_t tile, Block block, int64_t stride, T* to) const {
    for (int64_t c = 0; c < block.chunks; ++c) {
      T* row = to + c * stride;
      for (int64_t r = first[tile]; r < first[tile + 1]; ++r) {
        const T* const from = planes + c * kMostChannels * order.count() + runs[r].pixel;
        FASTSEG_PICK_FOR(T, lattice_filter)
            .load(from, order.count(), std::min(channels - c * kMostChannels, kMostChannels), runs[r].length,
                  block.pitch, std::numeric_limits<T>::infinity(), row);
        row += runs[r].length * block.pitch;
      }
    }
  }

  void store(const T* values, int64_t channels, int64_t tile, Block block, int64_t stride, T* planes) const {
    for (int64_t c = 0; c < block.chunks; ++c) {
      const T* row = values + c * stride;
      for (int64_t r = first[tile]; r < first[tile + 1]; ++r) {
        FASTSEG_PICK_FOR(T, lattice_filter)
            .store(row, block.pitch, std::min(channels - c * kMostChannels, kMostChannels), runs[r].length,
                   order.count(), planes + c * kMostChannels * order.count() + runs[r].pixel);
        row += runs[r].length * block.pitch;
      }
    }
  }

  // The first label of the largest logit of each pixel of a tile; NaN is larger than all.
  void store_labels(const T* logits, int64_t channels, int64_t tile, Block block, int64_t stride,
                    int64_t* labels) const {
    for (int64_t r = first[tile], i = 0; r < first[tile + 1]; ++r)
      for (int64_t j = 0; j < runs[r].length; ++j, ++i) {
        int64_t best = 0;
        T most = logits[i * block.pitch];
        for (int64_t c = 1; c < channels; ++c) {
          const T x = logits[c / kMostChannels * stride + i * block.pitch + c % kMostChannels];
          if (!(x > most || (x != x && most == most))) continue;
          best = c;
          most = x;
        }
        labels[runs[r].pixel + j] = best;
      }
  }
};

}  // namespace fastseg
