// max over queries of the distance to the nearest point of a tree, by early break (Taha and Hanbury 2015): a query is
// given up as soon as one point is near enough that it cannot be the furthest. The first leaf that it comes to mostly
// is.
#include "points.h"

namespace fastseg {
namespace {

template <class T>
inline T below(const PointTree<T>& tree, int64_t node, const T* q) {
  const T *low = tree.boxes + node * 2 * tree.dims, *high = low + tree.dims;
  T sum = 0;
  for (int64_t k = 0; k < tree.dims; ++k) {
    const T under = low[k] - q[k], over = q[k] - high[k], d = under > over ? under : over;
    sum += d > 0 ? d * d : T(0);
  }
  return sum;
}

// The nearest point of a leaf, of several the one of the lowest index.
template <class T>
inline void visit(const PointTree<T>& tree, int64_t leaf, const T* q, T& best, int64_t& nearest) {
  const T* points = tree.leaves + leaf * tree.dims * kLeaf;
  T squared[kLeaf] = {};
  for (int64_t k = 0; k < tree.dims; ++k)
    for (int64_t l = 0; l < kLeaf; ++l) {
      const T d = points[k * kLeaf + l] - q[k];
      squared[l] += d * d;
    }
  T least = squared[0];
  for (int64_t l = 1; l < kLeaf; ++l) least = squared[l] < least ? squared[l] : least;
  if (!(least <= best)) return;
  const int64_t* order = tree.order + leaf * kLeaf;
  for (int64_t l = 0; l < kLeaf; ++l)
    if (squared[l] == least && (least < best || order[l] < nearest)) {
      best = least;
      nearest = order[l];
    }
}

// Goes down the tree for one query, the nearer half first, until it is beaten.
template <class T, class Beaten>
void descend(const PointTree<T>& tree, const T* q, T& best, int64_t& nearest, const Beaten& beaten) {
  const int64_t leaves = int64_t(1) << tree.levels;
  struct Waiting {
    int64_t node;
    T bound;
  } waiting[64];
  int64_t size = 0;
  waiting[size++] = {1, T(0)};
  while (size > 0) {
    const Waiting next = waiting[--size];
    if (next.bound > best) continue;
    int64_t node = next.node;
    T bound = next.bound;
    while (node < leaves && bound <= best) {
      const T left = below(tree, 2 * node, q), right = below(tree, 2 * node + 1, q);
      const bool go_left = left <= right;
      const T further = go_left ? right : left;
      if (further <= best) waiting[size++] = {2 * node + (go_left ? 1 : 0), further};
      node = 2 * node + (go_left ? 0 : 1);
      bound = go_left ? left : right;
    }
    if (node < leaves || bound > best) continue;
    visit(tree, node - leaves, q, best, nearest);
    if (beaten()) return;
  }
}

template <class T>
void furthest(const PointTree<T>& tree, const Queries<T>& queries, int64_t begin, int64_t end, int64_t step,
              Furthest<T>* found) {
  const int64_t leaves = int64_t(1) << tree.levels;
  int64_t home = 0;
  for (int64_t at = begin; at < end; at += step) {
    const int64_t i = int64_t(queries.keys[at] & 0xffffffff);
    const int32_t cell = int32_t(queries.keys[at] >> 32);
    const T* q = queries.points + i * tree.dims;
    T best = T(__builtin_inf());
    int64_t nearest = 0x7fffffffffffffff;
    const auto beaten = [&] { return best < found->squared || (best == found->squared && i > found->query); };
    while (home + 1 < leaves && tree.starts[home + 1] <= cell) ++home;
    visit(tree, home, q, best, nearest);
    if (!beaten()) descend(tree, q, best, nearest, beaten);
    if (!beaten()) *found = {best, i, nearest};
  }
}

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::PointKernels<float> FASTSEG_FOR_ISA(distance_points_f32) = {fastseg::furthest<float>};
extern "C" const fastseg::PointKernels<double> FASTSEG_FOR_ISA(distance_points_f64) = {fastseg::furthest<double>};
