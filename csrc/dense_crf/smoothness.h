// The smoothness term of a dense CRF, exactly: one axis of the map after the other.
#pragma once
#include "terms.h"

namespace fastseg {

// The taps of an axis of n pixels, and the sums of what is within the map. Weights below 2^-18 of the largest (2^-55 in
// double) are left out: less than 6e-7 of their sum.
template <class T>
struct Axis {
  std::vector<T> weights;
  std::vector<double> sums;  // [n]

  Axis(int64_t n, double sigma) : sums(n) {
    const double reach = std::ceil(sigma * std::sqrt(2 * (sizeof(T) == 4 ? 18 : 55) * std::log(2.0)));
    const int64_t most = std::min(double(n - 1), reach) >= 0 ? int64_t(std::min(double(n - 1), reach)) : 0;
    std::vector<double> up_to;  // a distance, the sum of weights
    for (int64_t k = 0; k <= most; ++k) {
      const double weight = k ? std::exp(-0.5 * (double(k) / sigma) * (double(k) / sigma)) : 1;
      weights.push_back(T(weight));
      up_to.push_back(weight + (k ? up_to.back() : 0));
    }
    for (int64_t i = 0; i < n; ++i) sums[i] = up_to[std::min(i, most)] + up_to[std::min(n - 1 - i, most)] - 1;
  }

  Taps<T> taps() const { return {int64_t(weights.size()) - 1, weights.data()}; }
};

template <class T>
class SmoothnessTerm : public Term<T> {
 public:
  std::optional<Tensor> kept;  // [P], factors of values, in the order

  // sigma: of the last axis of the map, of the one before, ...
  SmoothnessTerm(const Tensor& like, const Order& order, const std::vector<Run>& runs,
                 const std::vector<int64_t>& first, const double* sigma, Block block, int64_t slots, Normalization norm,
                 bool include_self)
      : order_(order),
        runs_(runs),
        first_(first),
        block_(block),
        stride_(stride_of(block, order.count())),
        z_(order.depth, order.depth > 1 ? sigma[2] : 1),
        y_(order.height, sigma[1]),
        x_(order.width, sigma[0]),
        columns_(empty(like, {block.chunks * stride_}, kScalar<T>)),
        planes_(order.depth > 1 ? empty(like, {block.chunks * stride_}, kScalar<T>) : columns_),
        row_((Order::kWide + 2 * x_.taps().reach) * block.pitch + kSlack),
        rows_(empty(like, {slots * row_}, kScalar<T>)) {
    const Tensor sums = empty(like, {order.count()}, kScalar<T>);
    int64_t at = 0;
    for (const Run& run : runs)
      for (int64_t x = run.pixel % order.width, left = run.length; left > 0; ++x, --left) {
        const int64_t row = run.pixel / order.width;
        data<T>(sums)[at++] = T(z_.sums[row / order.height] * y_.sums[row % order.height] * x_.sums[x]);
      }
    if (!include_self) {
      this->self = empty(like, {order.count()}, kScalar<T>);
      std::fill_n(data<T>(*this->self), order.count(), T(1));
    }
    const Factors<T> factors(like, sums, this->self, norm, nullptr);
    if (norm.before) kept = factors.before;
    if (norm.after) this->after = factors.after;
    if (!norm.before || include_self) return;
    // What is kept has the factor already.
    for (int64_t i = 0; i < order.count(); ++i) data<T>(*this->self)[i] /= data<T>(factors.before)[i];
  }

  void meet(const T* values) override {
    const auto& kernels = FASTSEG_PICK_FOR(T, mean_field);
    const int64_t high = order_.height, wide = order_.width, pitch = block_.pitch;
    const int64_t strips = (wide + Order::kWide - 1) / Order::kWide;
    Ranges(block_.chunks * order_.depth * strips, high * Order::kWide * pitch).run([&](int64_t, int64_t b, int64_t e) {
      std::vector<int64_t> at(high);
      for (int64_t task = b; task < e; ++task) {
        const int64_t x = task % strips * Order::kWide, z = task / strips % order_.depth;
        const int64_t chunk = task / strips / order_.depth * stride_;
        for (int64_t y = 0; y < high; ++y) at[y] = order_.place(z, y, x) * pitch;
        const int64_t length = std::min(Order::kWide, wide - x) * pitch;
        T* const out = data<T>(columns_) + chunk + (z * high * wide + x) * pitch;
        kernels.down(values + chunk, at.data(), high, length, y_.taps(), out, wide * pitch);
      }
    });
    if (order_.depth == 1) return;
    Ranges(block_.chunks * high, order_.depth * wide * pitch).run([&](int64_t, int64_t b, int64_t e) {
      std::vector<int64_t> at(order_.depth);
      for (int64_t task = b; task < e; ++task) {
        const int64_t row = task % high * wide * pitch, chunk = task / high * stride_;
        for (int64_t z = 0; z < order_.depth; ++z) at[z] = z * high * wide * pitch + row;
        kernels.down(data<T>(columns_) + chunk, at.data(), order_.depth, wide * pitch, z_.taps(),
                     data<T>(planes_) + chunk + row, high * wide * pitch);
      }
    });
  }

  void give(int64_t slot, int64_t tile, T* messages) override {
    const int64_t pitch = block_.pitch, reach = x_.taps().reach;
    T* const padded = data<T>(rows_) + slot * row_;
    for (int64_t c = 0; c < block_.chunks; ++c) {
      T* out = messages + c * block_.chunk();
      for (int64_t r = first_[tile]; r < first_[tile + 1]; ++r) {
        const Run run = runs_[r];
        const int64_t x = run.pixel % order_.width, end = x + run.length;
        const T* row = data<T>(planes_) + c * stride_ + run.pixel * pitch;
        if (x < reach || end + reach > order_.width) {
          const int64_t before = std::min(x, reach), after = std::min(order_.width - end, reach);
          T* to = std::fill_n(padded, (reach - before) * pitch, T(0));
          to = std::copy(row - before * pitch, row + (run.length + after) * pitch, to);
          std::fill_n(to, (reach - after) * pitch, T(0));
          row = padded + reach * pitch;
        }
        FASTSEG_PICK_FOR(T, mean_field).across(row, run.length * pitch, pitch, x_.taps(), out);
        out += run.length * pitch;
      }
    }
  }

 private:
  Order order_;
  const std::vector<Run>& runs_;
  const std::vector<int64_t>& first_;
  Block block_;
  int64_t stride_;
  Axis<T> z_, y_, x_;
  Tensor columns_, planes_;
  int64_t row_;
  Tensor rows_;
};

}  // namespace fastseg
