#include <cmath>
#include <limits>
#include <tuple>

#include "../common/dispatch.h"
#include "../common/tensors.h"
#include "points.h"

namespace fastseg {
namespace {

constexpr const char* kOp = "directed_hausdorff";
constexpr int64_t kFirst = 256;  // queries that are asked first: what they find lets most others be given up at once

// Cells of a grid over two sets, along a curve on which neighbours are near (Morton 1966).
template <class T>
struct Curve {
  int64_t dims, bits;
  T low[kMostDims], scale[kMostDims];

  Curve(const T* a, int64_t n, const T* b, int64_t m, int64_t dims_)
      : dims(dims_), bits(std::min<int64_t>(16, 30 / dims_)) {
    for (int64_t k = 0; k < dims; ++k) {
      T high = low[k] = a[k];
      for (int64_t i = 0; i < n; ++i)
        low[k] = std::min(low[k], a[i * dims + k]), high = std::max(high, a[i * dims + k]);
      for (int64_t i = 0; i < m; ++i)
        low[k] = std::min(low[k], b[i * dims + k]), high = std::max(high, b[i * dims + k]);
      const T cells = T((int64_t(1) << bits) - 1), side = high - low[k];
      scale[k] = side > 0 && std::isfinite(cells / side) && std::isfinite(side) ? cells / side : T(0);
    }
  }

  uint32_t cell(const T* point) const {
    uint32_t code = 0;
    for (int64_t k = 0; k < dims; ++k) {
      const uint32_t at = uint32_t((point[k] - low[k]) * scale[k]);
      for (int64_t bit = 0; bit < bits; ++bit) code |= (at >> bit & 1) << (bit * dims + k);
    }
    return code;
  }

  // Points in the order of their cells: a cell above its point's number.
  Tensor sorted(const T* points, int64_t n, const Tensor& like) const {
    Tensor keys = empty(like, {2 * n}, ScalarType::Long);
    uint64_t *from = (uint64_t*)keys.data_ptr(), *to = from + n;
    for (int64_t i = 0; i < n; ++i) from[i] = uint64_t(cell(points + i * dims)) << 32 | uint64_t(i);
    constexpr int kDigit = 8;
    for (int shift = 32; shift < 64; shift += kDigit, std::swap(from, to)) {
      int64_t first[(1 << kDigit) + 1] = {};
      for (int64_t i = 0; i < n; ++i) ++first[(from[i] >> shift & 255) + 1];
      for (int d = 0; d < 1 << kDigit; ++d) first[d + 1] += first[d];
      for (int64_t i = 0; i < n; ++i) to[first[from[i] >> shift & 255]++] = from[i];
    }
    return keys;
  }
};

// A set of points as a tree over their order along a curve.
template <class T>
class Tree {
 public:
  Tree(const T* points, int64_t n, const Curve<T>& curve, const Tensor& like)
      : keys_(curve.sorted(points, n, like)), dims_(curve.dims) {
    while (n > kLeaf << levels_) ++levels_;
    const int64_t leaves = int64_t(1) << levels_, side = 2 * dims_;
    memory_ = empty(like, {(2 * leaves * side + leaves * dims_ * kLeaf) * int64_t(sizeof(T))}, ScalarType::Byte);
    order_ = empty(like, {leaves, kLeaf}, ScalarType::Long);
    starts_ = empty(like, {leaves}, ScalarType::Int);
    const uint64_t* keys = (const uint64_t*)keys_.data_ptr();
    T* boxes = (T*)memory_->data_ptr();
    Ranges(leaves, 400).run([&](int64_t, int64_t begin, int64_t end) {
      for (int64_t leaf = begin; leaf < end; ++leaf) {
        const int64_t first = leaf * n >> levels_, last = (leaf + 1) * n >> levels_;
        ((int32_t*)starts_->data_ptr())[leaf] = int32_t(keys[first < n ? first : n - 1] >> 32);
        fill(points, keys, leaf, first, last, boxes + (leaves + leaf) * side, boxes + 2 * leaves * side);
      }
    });
    for (int64_t node = leaves - 1; node > 0; --node)
      for (int64_t k = 0; k < dims_; ++k) {
        const T *left = boxes + 2 * node * side + k, *right = left + side;
        boxes[node * side + k] = std::min(left[0], right[0]);
        boxes[node * side + dims_ + k] = std::max(left[dims_], right[dims_]);
      }
  }

  PointTree<T> tree() const {
    const T* boxes = (const T*)memory_->data_ptr();
    return {levels_,
            dims_,
            boxes,
            boxes + (int64_t(4) << levels_) * dims_,
            (const int64_t*)order_->data_ptr(),
            (const int32_t*)starts_->data_ptr()};
  }

 private:
  void fill(const T* points, const uint64_t* keys, int64_t leaf, int64_t first, int64_t last, T* box, T* leaves) {
    int64_t* order = (int64_t*)order_->data_ptr() + leaf * kLeaf;
    for (int64_t k = 0; k < dims_; ++k) {
      box[k] = std::numeric_limits<T>::infinity(), box[dims_ + k] = -box[k];
      for (int64_t l = 0; l < kLeaf; ++l) {
        const bool is = first + l < last;
        const int64_t i = is ? int64_t(keys[first + l] & 0xffffffff) : std::numeric_limits<int64_t>::max();
        const T x = is ? points[i * dims_ + k] : std::numeric_limits<T>::infinity();
        order[l] = i;
        leaves[(leaf * dims_ + k) * kLeaf + l] = x;
        if (is) box[k] = std::min(box[k], x), box[dims_ + k] = std::max(box[dims_ + k], x);
      }
    }
  }

  Tensor keys_;
  int64_t dims_, levels_ = 0;
  std::optional<Tensor> memory_, order_, starts_;
};

template <class T>
Furthest<T> furthest(const T* queries, int64_t n, const Tensor& sorted, const PointTree<T>& tree) {
  const auto& kernels = FASTSEG_PICK_FOR(T, distance_points);
  const Queries<T> asked{queries, (const uint64_t*)sorted.data_ptr()};
  Furthest<T> first{-1, 0, 0};
  kernels.furthest(tree, asked, 0, n, std::max<int64_t>(1, n / kFirst), &first);
  const Ranges ranges(n, 200);
  std::vector<Furthest<T>> found(ranges.slots, first);
  ranges.run([&](int64_t slot, int64_t b, int64_t e) { kernels.furthest(tree, asked, b, e, 1, &found[slot]); });
  for (const Furthest<T>& f : found)
    if (f.squared > first.squared || (f.squared == first.squared && f.query < first.query)) first = f;
  return first;
}

template <class T>
void check_finite(const char* argument, const T* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    FASTSEG_CHECK(std::isfinite(x[i]), kOp, argument, "be finite, got ", x[i], " at coordinate ", i);
}

std::tuple<Tensor, Tensor> directed_hausdorff(const Tensor& given_a, const Tensor& given_b) {
  FASTSEG_CHECK(given_a.dim() == 3 && given_b.dim() == 3, kOp, "points", "be [N, points, dims], got ", given_a.dim(),
                " dimensions");
  const int64_t images = given_a.size(0), n = given_a.size(1), m = given_b.size(1), dims = given_a.size(2);
  FASTSEG_CHECK(given_b.size(0) == images && given_b.size(2) == dims && dims >= 1 && dims <= kMostDims, kOp, "points_b",
                "be as many sets of 1 to ", kMostDims, " coordinates as points_a, got ", given_b.size(2));
  const Float type = float_type(kOp, "points_a", given_a);
  FASTSEG_CHECK(float_type(kOp, "points_b", given_b) == type && size_of(type) >= 4, kOp, "points",
                "be float32 or float64, both, got scalar type ", int(given_b.scalar_type()));
  FASTSEG_CHECK(std::max(n, m) < int64_t(1) << 31, kOp, "points", "be fewer than 2^31, got ", std::max(n, m));
  took(kOp);
  const Tensor a = torch::stable::contiguous(given_a), b = torch::stable::contiguous(given_b);
  Tensor distance = zeros(a, {images}, a.scalar_type());
  Tensor indices = empty(a, {images, 2}, ScalarType::Long);
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    check_finite("points_a", (const T*)a.data_ptr(), a.numel());
    check_finite("points_b", (const T*)b.data_ptr(), b.numel());
    for (int64_t i = 0; i < images; ++i) {
      T& out = ((T*)distance.data_ptr())[i];
      int64_t* at = (int64_t*)indices.data_ptr() + 2 * i;
      at[0] = at[1] = -1;
      if (n == 0) continue;
      out = std::numeric_limits<T>::infinity();
      if (m == 0) continue;
      const T *queries = (const T*)a.data_ptr() + i * n * dims, *points = (const T*)b.data_ptr() + i * m * dims;
      const Curve<T> curve(queries, n, points, m, dims);
      const Tree<T> tree(points, m, curve, b);
      const Furthest<T> f = furthest(queries, n, curve.sorted(queries, n, a), tree.tree());
      out = std::sqrt(f.squared);
      at[0] = f.query, at[1] = f.nearest;
    }
  });
  return {distance, indices};
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) { m.impl("directed_hausdorff", TORCH_BOX(&fastseg::directed_hausdorff)); }
