// The passes of a distance transform, on memory that is given to it.
#pragma once
#include <array>
#include <tuple>

#include "../common/dispatch.h"
#include "../common/tensors.h"
#include "distance.h"

namespace fastseg {

struct Grid {
  int64_t images, depth, height, width;

  int64_t size() const { return depth * height * width; }
};

// What a distance is made of.
struct Measure {
  std::array<double, 3> spacing;  // z, y, x
  bool squares, taxicab;

  bool whole() const { return spacing[0] == 1 && spacing[1] == 1 && spacing[2] == 1; }

  double offset(int axis, int64_t d) const {
    const double s = spacing[axis];
    return squares ? s * s * double(d * d) : s * double(d);
  }

  // The largest distance that there may be.
  double reach(const Grid& g) const {
    const int64_t sides[3] = {g.depth, g.height, g.width};
    double sum = 0;
    for (int axis = 0; axis < 3; ++axis) sum += offset(axis, sides[axis] > 0 ? sides[axis] - 1 : 0);
    return sum;
  }
};

// The type, the shape and the longest side of a mask [images, depth, height, width].
inline std::tuple<Int, Grid, int64_t> check_images(const char* op, const char* argument, const Tensor& x,
                                                   const std::vector<double>& spacing) {
  FASTSEG_CHECK(x.dim() == 4, op, argument, "be [N, D, H, W], got ", x.dim(), " dimensions");
  const Int type = int_type(op, argument, x.scalar_type());
  const Grid grid{x.size(0), x.size(1), x.size(2), x.size(3)};
  const int64_t longest = std::max({grid.depth, grid.height, grid.width});
  FASTSEG_CHECK(longest < int64_t(1) << 29, op, argument, "have fewer than 2^29 elements along an axis, got ", longest);
  FASTSEG_CHECK(spacing.size() == 3, op, "spacing", "have three numbers, got ", spacing.size());
  return {type, grid, longest};
}

// Kernels compare labels as int32.
inline void check_labels(const char* op, const char* argument, const Tensor& x, Int type) {
  if (type != Int::i64) return;
  const int64_t* label = (const int64_t*)x.data_ptr();
  for (int64_t i = 0; i < x.numel(); ++i)
    FASTSEG_CHECK(label[i] == int32_t(label[i]), op, argument, "hold labels of int32, got ", label[i]);
}

template <class T>
const DistanceKernels<T>& distance_kernels() {
  if constexpr (std::is_same_v<T, int32_t>)
    return FASTSEG_PICK(distance_i32);
  else
    return FASTSEG_PICK_FOR(T, distance);
}

template <class T>
class Passes {
 public:
  // Of the memory, for so many threads; `longest` bounds the sides of all grids that it is used for.
  static int64_t bytes(int64_t longest, int64_t threads) {
    return rounded(4 * longest * int64_t(sizeof(T))) + threads * rounded(strip_scratch<T>(longest));
  }

  Passes(const Grid& grid, const Measure& measure, int64_t longest, int64_t threads, char* memory)
      : grid_(grid),
        measure_(measure),
        threads_(threads),
        offsets_((T*)memory),
        each_(rounded(strip_scratch<T>(longest))) {
    const int64_t sides[3] = {grid.depth, grid.height, grid.width};
    for (int axis = 0; axis < 3; ++axis)
      for (int64_t d = 0; d < sides[axis]; ++d) offsets_[axis * longest + d] = T(measure.offset(axis, d));
    along_ = longest;
    for (int64_t d = 0; d < grid.width; ++d) offsets_[3 * longest + d] = offsets_[2 * longest + grid.width - 1 - d];
    scratch_ = memory + rounded(4 * longest * int64_t(sizeof(T)));
  }

  // Values and sites [images, depth, height, width] of a mask of this shape; see StripPass.
  void run(const void* mask, Int type, bool labels, T* values, int64_t* sites, const Finish* last,
           int64_t limit = kNoSite, const uint8_t* wanted = nullptr) const {
    const Grid& g = grid_;
    const auto& k = distance_kernels<T>();
    const RowPass<T> rows{
        mask, type, labels, g.width, offsets_ + 2 * along_, offsets_ + 3 * along_, values, sites, g.depth * g.height};
    const bool flat = g.depth == 1;
    const Offsets<T> steps{nullptr, !measure_.squares && !measure_.taxicab, measure_.squares};
    StripPass<T> ys{mask,
                    type,
                    labels,
                    values,
                    sites,
                    g.size(),
                    g.height,
                    g.width,
                    g.depth,
                    g.height * g.width,
                    g.width,
                    steps,
                    flat ? last : nullptr,
                    flat ? wanted : nullptr,
                    limit,
                    nullptr};
    StripPass<T> zs{mask,     type,    labels,  values, sites, g.size(), g.depth, g.height * g.width,
                    g.height, g.width, g.width, steps,  last,  wanted,   limit,   nullptr};
    ys.offsets.table = offsets_ + along_;
    zs.offsets.table = offsets_;
    const auto run_rows = [&](int64_t, int64_t b, int64_t e) { k.rows(rows, b, e); };
    const auto run_strips = [&](const StripPass<T>& pass, int64_t slot, int64_t b, int64_t e) {
      StripPass<T> mine = pass;
      mine.scratch = scratch_ + slot * each_;
      k.strips(mine, b, e);
    };
    const int64_t planes = g.images * g.depth;
    if (planes >= 4 * threads_)  // while a plane is in the cache
      ranges(planes, g.height * g.width * 8).run([&](int64_t slot, int64_t b, int64_t e) {
        for (int64_t plane = b; plane < e; ++plane) {
          run_rows(slot, plane * g.height, (plane + 1) * g.height);
          run_strips(ys, slot, plane * ys.strips(), (plane + 1) * ys.strips());
        }
      });
    else {
      ranges(planes * g.height, g.width * 4).run(run_rows);
      ranges(g.images * ys.tasks(), g.height * kStrip * 4).run([&](int64_t slot, int64_t b, int64_t e) {
        run_strips(ys, slot, b, e);
      });
    }
    if (!flat)
      ranges(g.images * zs.tasks(), g.depth * kStrip * 4).run([&](int64_t slot, int64_t b, int64_t e) {
        run_strips(zs, slot, b, e);
      });
  }

 private:
  static int64_t rounded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

  Ranges ranges(int64_t tasks, int64_t cost) const {
    Ranges r(tasks, cost);
    r.slots = std::min(r.slots, threads_);
    return r;
  }

  Grid grid_;
  const Measure& measure_;
  int64_t threads_, along_;
  T* offsets_;  // [4, longest]: along z, y and x, and the last in reverse
  char* scratch_;
  int64_t each_;
};

// The type that is exact enough and fastest, or has sites: use(T{}).
template <class Use>
void by_reach(const Measure& measure, const Grid& grid, bool wide, bool sites, const Use& use) {
  if (measure.whole() && measure.reach(grid) < kFar && !sites)
    use(int32_t{});
  else if (wide || sites || measure.whole())
    use(double{});
  else
    use(float{});
}

}  // namespace fastseg
