// The smoothness term of a dense CRF, exactly: one axis of the map after the other.
#pragma once
#include "terms.h"

namespace fastseg {

// The taps of an axis of n pixels, and the sums of what is within the map. Weights below 2^-18 of the largest (2^-55 in
// double) are left out: less than 6e-7 of their sum.
template <class T>
struct Axis {
  int64_t reach;
  std::vector<T> weights;    // by offset, from -(reach + kTapRows - 1) on
  std::vector<double> sums;  // [n]

  Axis(int64_t n, double sigma) : sums(n) {
    const double within = std::ceil(sigma * std::sqrt(2 * (sizeof(T) == 4 ? 18 : 55) * std::log(2.0)));
    reach = within < double(n - 1) ? int64_t(within) : n - 1;
    const int64_t middle = reach + kTapRows - 1;
    weights.assign(2 * middle + 1, T(0));
    std::vector<double> up_to(n);  // a distance, the sum of weights
    for (int64_t k = 0; k < n; ++k) {
      const double weight = k > reach ? 0 : k ? std::exp(-0.5 * (double(k) / sigma) * (double(k) / sigma)) : 1;
      if (k <= reach) weights[middle - k] = weights[middle + k] = T(weight);
      up_to[k] = weight + (k ? up_to[k - 1] : 0);
    }
    for (int64_t i = 0; i < n; ++i) sums[i] = up_to[i] + up_to[n - 1 - i] - 1;
  }

  Taps<T> taps() const { return {reach, weights.data() + reach + kTapRows - 1}; }
};

template <class T>
class SmoothnessTerm : public Term<T> {
 public:
  // sigma: of the last axis of the map, of the one before, ...
  SmoothnessTerm(const Tensor& like, const Map<T>& map, const double* sigma, Block block, int64_t slots,
                 Normalization norm, bool include_self)
      : map_(map),
        block_(block),
        stride_(stride_of(block, map.order.count())),
        z_(map.order.depth, map.order.depth > 1 ? sigma[2] : 1),
        y_(map.order.height, sigma[1]),
        x_(map.order.width, sigma[0]),
        row_((Order::kWide + 2 * x_.taps().reach) * block.pitch + kSlack),
        band_(Order::kHigh * map.order.width * block.pitch + kSlack),
        rows_(empty(like, {slots * (row_ + block.chunks * band_)}, kScalar<T>)),
        bands_(slots) {
    if (map.order.depth > 1) planes_ = empty(like, {block.chunks * stride_}, kScalar<T>);
    const Tensor sums = empty(like, {map.order.count()}, kScalar<T>);
    T* to = data<T>(sums);
    for (const Run& run : map.runs) {
      const int64_t row = run.pixel / map.order.width, x = run.pixel - row * map.order.width;
      const double sum = z_.sums[row / map.order.height] * y_.sums[row % map.order.height];
      for (int64_t i = 0; i < run.length; ++i) *to++ = T(sum * x_.sums[x + i]);
    }
    if (!include_self) {
      this->self = empty(like, {map.order.count()}, kScalar<T>);
      std::fill_n(data<T>(*this->self), map.order.count(), T(1));
    }
    const Factors<T> factors(like, sums, this->self, norm, nullptr);
    if (norm.before) this->kept = factors.before;
    if (norm.after) this->after = factors.after;
    if (!norm.before || include_self) return;
    // What is kept has the factor already.
    T *const self = data<T>(*this->self), *const before = data<T>(factors.before);
    for (int64_t i = 0; i < map.order.count(); ++i) self[i] /= before[i];
  }

  void meet(const T* values) override {
    values_ = values;
    std::fill(bands_.begin(), bands_.end(), -1);
    if (map_.order.depth == 1) return;
    const int64_t plane = map_.order.height * map_.order.width * block_.pitch, rows = map_.order.height;
    Ranges(block_.chunks * rows, plane / rows * map_.order.depth).run([&](int64_t, int64_t b, int64_t e) {
      std::vector<const T*> from(map_.order.depth);
      for (int64_t task = b; task < e; ++task) {
        const int64_t shift = task / rows * stride_ + task % rows * (plane / rows);
        for (int64_t z = 0; z < map_.order.depth; ++z) from[z] = values + shift + z * plane;
        FASTSEG_PICK_FOR(T, mean_field)
            .down(from.data(), map_.order.depth, 0, map_.order.depth, plane / rows, z_.taps(),
                  data<T>(*planes_) + shift, plane);
      }
    });
    values_ = data<T>(*planes_);
  }

  void give(int64_t slot, int64_t tile, T* messages) override {
    const auto& kernels = FASTSEG_PICK_FOR(T, mean_field);
    const int64_t pitch = block_.pitch, wide = map_.order.width, reach = x_.taps().reach;
    T *const padded = row(slot), *out = messages;
    for (int64_t r = map_.first[tile]; r < map_.first[tile + 1]; ++r) {
      const Run run = map_.runs[r];
      const int64_t x = run.pixel % wide, end = x + run.length, y = run.pixel / wide % map_.order.height;
      find_band(slot, run.pixel / wide / map_.order.height, y / Order::kHigh * Order::kHigh);
      for (int64_t c = 0; c < block_.chunks; ++c) {
        const T* from = band(slot, c) + (y % Order::kHigh * wide + x) * pitch;
        if (x < reach || end + reach > wide) {
          const int64_t before = std::min(x, reach), after = std::min(wide - end, reach);
          T* to = std::fill_n(padded, (reach - before) * pitch, T(0));
          to = std::copy(from - before * pitch, from + (run.length + after) * pitch, to);
          std::fill_n(to, (reach - after) * pitch, T(0));
          from = padded + reach * pitch;
        }
        kernels.across(from, run.length * pitch, pitch, x_.taps(), out + c * block_.chunk());
      }
      out += run.length * pitch;
    }
  }

 private:
  const Map<T>& map_;
  Block block_;
  int64_t stride_;
  Axis<T> z_, y_, x_;
  std::optional<Tensor> planes_;  // of a volume, filtered along the first axis
  const T* values_ = nullptr;
  int64_t row_, band_;
  Tensor rows_;
  std::vector<int64_t> bands_;  // of each slot: the first row of the tiles whose columns are filtered

  T* row(int64_t slot) const { return data<T>(rows_) + slot * (row_ + block_.chunks * band_); }
  T* band(int64_t slot, int64_t chunk) const { return row(slot) + row_ + chunk * band_; }

  // Filters the columns of a row of tiles, from row y of plane z on, unless that is what the thread did last.
  void find_band(int64_t slot, int64_t z, int64_t y) {
    const int64_t name = z * map_.order.height + y, pitch = block_.pitch, wide = map_.order.width;
    if (bands_[slot] == name) return;
    bands_[slot] = name;
    const int64_t end = std::min(y + Order::kHigh, map_.order.height);
    const int64_t from = std::max<int64_t>(0, y - y_.taps().reach),
                  to = std::min(map_.order.height, end + y_.taps().reach);
    std::vector<const T*> rows(to - from);
    for (int64_t x = 0; x < wide; x += Order::kWide)
      for (int64_t c = 0; c < block_.chunks; ++c) {
        for (int64_t i = from; i < to; ++i) rows[i - from] = values_ + c * stride_ + map_.order.place(z, i, x) * pitch;
        FASTSEG_PICK_FOR(T, mean_field)
            .down(rows.data(), to - from, y - from, end - from, std::min(Order::kWide, wide - x) * pitch, y_.taps(),
                  band(slot, c) + x * pitch, wide * pitch);
      }
  }
};

}  // namespace fastseg
