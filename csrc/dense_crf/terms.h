// The pairwise terms of a dense CRF, for the glue files: what gives each pixel a message from all others. Points are in
// the order of order.h; values are kept in blocks [chunks, P, pitch], times the factors `kept` of the smoothness term.
#pragma once
#include <optional>

#include "diagonal.h"
#include "map.h"
#include "mean_field.h"
#include "pairwise.h"

namespace fastseg {

// Chunks of values of all points are this far apart.
inline int64_t stride_of(const Block& block, int64_t points) { return points * block.pitch + kSlack; }

template <class T>
class Term {
 public:
  // [P]: factors of messages, and what they then have too much of the kept values of their own points. Or nothing.
  std::optional<Tensor> after, self;
  std::optional<Tensor> kept;  // [P], factors of the values that are kept; of the first term
  virtual ~Term() = default;
  // The values of a tile are as they will be: a block, its chunks so far apart.
  virtual void take(int64_t, const T*, int64_t) {}
  // Those of all tiles are.
  virtual void meet(const T*) {}
  // The messages of a tile, [chunks, kTile, pitch].
  virtual void give(int64_t slot, int64_t tile, T* messages) = 0;
};

// A point whose neighbours weigh less than this share of it all has none: it keeps its message, which is next to
// nothing.
constexpr double kAlone = 1e-4;

// Factors of a kernel with these sums of rows and this diagonal; the diagonal becomes that of messages.
template <class T>
struct Factors {
  Tensor before, after;  // [P]

  Factors(const Tensor& like, const Tensor& sums, const std::optional<Tensor>& self, Normalization norm,
          const T* kept) {
    T* const diagonal = self ? data<T>(*self) : nullptr;
    const int64_t n = sums.numel();
    before = empty(like, {n}, kScalar<T>);
    after = empty(like, {n}, kScalar<T>);
    T *const b = data<T>(before), *const a = data<T>(after);
    const T* const sum = data<T>(sums);
    Ranges(n, 16).run([&](int64_t, int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        T rest = sum[i] + T(1e-20);
        if (diagonal) rest = sum[i] - diagonal[i] > T(kAlone) * sum[i] ? sum[i] - diagonal[i] : T(1);
        const T factor = T(1) / (norm.before && norm.after ? std::sqrt(rest) : rest);
        b[i] = (norm.before ? factor : T(1)) / (kept ? kept[i] : T(1));
        a[i] = norm.after ? factor : T(1);
      }
      for (int64_t i = first; diagonal && i < last; ++i) diagonal[i] *= b[i] * a[i];
    });
  }
};

template <class T>
class LatticeTerm : public Term<T> {
 public:
  LatticeTerm(const Tensor& like, const char* argument, const T* features, int64_t d, int64_t points, Block block,
              int64_t slots, Normalization norm, bool include_self, const T* kept)
      : lattice_("dense_crf", argument, like, features, d, points) {
    if (!include_self) this->self = diagonal_of(lattice_, like);
    const Factors<T> factors(like, sums_of(lattice_, like), this->self, norm, kept);
    lattice_.scale(data<T>(factors.before), data<T>(factors.after));
    filter_.emplace(lattice_, like, block, slots);
  }

  void take(int64_t tile, const T* values, int64_t stride) override { filter_->splat(tile, values, stride); }
  void meet(const T*) override { filter_->blur(); }
  void give(int64_t slot, int64_t tile, T* messages) override { filter_->slice(slot, tile, messages); }

 private:
  Lattice<T> lattice_;
  std::optional<LatticeFilter<T>> filter_;
};

template <class T>
class PairwiseTerm : public Term<T> {
 public:
  PairwiseTerm(const Tensor& like, const Tensor& features, int64_t d, int64_t points, Block block, Normalization norm,
               bool include_self, const T* kept)
      : features_(features), before_(features), pairs_{d, points, 4, 1, 0, data<T>(features), nullptr, nullptr} {
    const Tensor ones = zeros(like, {points * 4}, kScalar<T>);
    Tensor sums = empty(like, {points * 4}, kScalar<T>);
    for (int64_t i = 0; i < points; ++i) data<T>(ones)[i * 4] = T(1);
    pairs_.values = data<T>(ones);
    Ranges(points, points * d).run([&](int64_t, int64_t b, int64_t e) {
      FASTSEG_PICK_FOR(T, pairwise).filter(pairs_, b, e, 0, data<T>(sums) + b * 4);
    });
    for (int64_t i = 0; i < points; ++i) data<T>(sums)[i] = data<T>(sums)[i * 4];
    if (!include_self) {
      this->self = empty(like, {points}, kScalar<T>);
      std::fill_n(data<T>(*this->self), points, T(1));
    }
    const Factors<T> factors(like, torch::stable::narrow(sums, 0, 0, points), this->self, norm, kept);
    before_ = factors.before;
    this->after = factors.after;
    const int64_t stride = stride_of(block, points);
    pairs_ = {d, points, block.pitch, block.chunks, stride, data<T>(features_), data<T>(before_), nullptr};
  }

  void meet(const T* values) override { pairs_.values = values; }

  void give(int64_t, int64_t tile, T* messages) override {
    const int64_t b = tile * kTile, e = std::min(b + kTile, pairs_.count);
    FASTSEG_PICK_FOR(T, pairwise).filter(pairs_, b, e, kTile * pairs_.pitch + kSlack, messages);
  }

 private:
  Tensor features_, before_;
  Pairs<T> pairs_;
};

}  // namespace fastseg
