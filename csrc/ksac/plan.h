// Which responses are computed, as which matrices, and in what portions: for the glue files.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "ksac.h"

namespace fastseg {

constexpr int64_t kWorkspace = 64 << 20;  // bytes beside arguments and results
constexpr int64_t kCopy = 44 << 20;       // of these for a copy of a map
constexpr int64_t kNear = 20 << 20;       // of these for responses, so that they stay in the last cache
constexpr int64_t kSlice = 128;           // channels of a result at a time: wide enough for a GEMM, small for caches

// Rows [first, last).
struct Range {
  int64_t first, last;
};

// Taps [tap, tap + taps) in rows [first, last) of a strip: a matrix of pixels by taps and channels, of which `ring`
// rows are kept at a time.
struct Group {
  int strip, tap, taps;
  int64_t first, last, ring;

  int64_t width(const Strips& strips) const { return strips.of[strip].end - strips.of[strip].begin; }
};

class Plan {
 public:
  Strips strips{};

  // Rows and columns that no rate reads of a tap are left out where they are worth a GEMM of their own; a strip costs a
  // copy of the map, which `may_copy` grants.
  Plan(int64_t h, int64_t w, const std::vector<int64_t>& rates, bool may_copy)
      : h_(h), least_(*std::min_element(rates.begin(), rates.end())), most_(0), rows_apart_(worth(h)) {
    for (const int64_t r : rates)
      if (r < h) most_ = std::max(most_, r);
    const int64_t reach = std::min(least_, w);
    if (reach == w) {
      strips = {{{0, w}}, 1};
      alive_[0] = {1, 2};
    } else if (!may_copy || !worth(w)) {
      strips = {{{0, w}}, 1};
      alive_[0] = {0, 3};
    } else {
      const int64_t inner = std::min(reach, w - reach), outer = std::max(reach, w - reach);
      for (const auto& [begin, end] : {Strip{0, inner}, Strip{inner, outer}, Strip{outer, w}}) {
        if (begin == end) continue;
        alive_[strips.count] = {begin < w - reach ? 0 : 1, begin >= reach ? 3 : 2};
        strips.of[strips.count++] = {begin, end};
      }
    }
  }

  bool copies() const { return strips.count > 1; }

  // The most rows between a result and what it reads.
  int64_t reach() const { return most_; }

  // The responses in these rows; those of the middle row of taps, which are all alive, come first in each strip.
  std::vector<Group> within(Range rows) const {
    const Range part[] = {
        {rows.first, std::min(rows.last, h_ - least_)}, rows, {std::max(rows.first, least_), rows.last}};
    std::vector<Group> groups;
    for (int s = 0; s < strips.count; ++s) {
      const auto [from, to] = alive_[s];
      const auto add = [&, s = s](int tap, int taps, const Range& r) {
        if (r.first < r.last) groups.push_back({s, tap, taps, r.first, r.last, r.last - r.first});
      };
      if (!rows_apart_ && to - from == 3)
        add(0, kTaps, rows);
      else
        for (const int i : {1, 0, 2}) add(3 * i + from, to - from, rows_apart_ ? part[i] : rows);
    }
    return groups;
  }

  // Where the rows of a group end that the results before row `end` read.
  int64_t until(const Group& g, int64_t end) const {
    const int i = g.tap / 3;
    const int64_t row = !rows_apart_ || i == 2 ? end + most_ : i == 1 ? end : end - least_;
    return std::clamp(row, g.first, g.last);
  }

  // Keeps of each group only the rows that `band` rows of the result read.
  void keep(std::vector<Group>& groups, int64_t band) const {
    for (Group& g : groups) {
      const int64_t more = !rows_apart_ ? 2 * most_ : g.tap / 3 == 1 ? 0 : std::max<int64_t>(0, most_ - least_);
      g.ring = std::min(g.last - g.first, band + more);
    }
  }

 private:
  int64_t h_, least_, most_;
  bool rows_apart_;
  std::array<std::array<int, 2>, kStrips> alive_{};  // the j that are read in a strip: [from, to)

  // Two thirds of the taps are spared a part of an axis. Below a twentieth, more and smaller GEMMs cost as much.
  bool worth(int64_t extent) const { return 40 * std::min(least_, extent) >= 3 * extent; }
};

// Values per channel that are kept of these groups.
inline int64_t values(const std::vector<Group>& groups, const Strips& strips) {
  int64_t sum = 0;
  for (const Group& g : groups) sum += g.ring * g.width(strips) * g.taps;
  return sum;
}

// The responses of a slice of channels in `memory`, one matrix after the other.
template <class T>
Responses<T> laid_out(const std::vector<Group>& groups, const Strips& strips, int64_t h, int64_t w, int64_t channels,
                      T* memory) {
  Responses<T> r{};
  r.strips = strips;
  r.h = h;
  r.w = w;
  r.channels = channels;
  for (const Group& g : groups) {
    for (int t = 0; t < g.taps; ++t)
      r.of[g.strip][g.tap + t] = {memory + t * channels, g.first, g.last, g.ring, g.taps * channels};
    memory += g.ring * g.width(strips) * g.taps * channels;
  }
  return r;
}

// What a channel of a result takes, in bytes: all in all, and for its responses, which are read again and again.
struct Room {
  int64_t fixed, per_channel, responses;

  int64_t fit() const { return std::min({(kWorkspace - fixed) / per_channel, kNear / responses, kSlice}); }
  bool suffices(int64_t channels) const { return fit() >= std::min(channels, kSlice); }

  // As few slices as fit, of whole vectors.
  int64_t slice(int64_t channels) const {
    constexpr int64_t kLanes = 16;
    const int64_t most = std::max(kLanes, fit() / kLanes * kLanes), slices = (channels + most - 1) / most;
    return std::min(channels, ((channels + slices - 1) / slices + kLanes - 1) / kLanes * kLanes);
  }
};

}  // namespace fastseg
