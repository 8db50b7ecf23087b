// Distances to the nearest and to the second nearest instance, all instances in one pass along each axis.
//
// The minimum over all sites separates as in lines_kernel.cpp, and so do the least two distances to different
// instances: of the elements of another line that belong to one instance, or come third there, none can be among the
// two here. Each element looks outwards until the second distance is reached; there is no envelope, so that a line of n
// elements costs n steps for each at worst. Along x lines are rows, which are read and written by columns.
//
// Bytes of an element and axis: reads and writes 16 (32 in double).
#include "instances.h"
#include "strips.h"

namespace fastseg {
namespace {

template <class T>
using Ids = typename Lanes<T>::M;

template <class T>
inline Ids<T> ids_at(const InstanceOf<T>* p) {
  Ids<T> v;
  memcpy(&v, p, sizeof v);
  return v;
}

// The two nearest instances of some elements.
template <class T>
struct Two {
  Vec<T> first, second;
  Ids<T> first_id, second_id;

  FASTSEG_INLINE void insert(Vec<T> distance, Ids<T> id) {
    const Ids<T> same = id == first_id, nearer = distance < first;
    const Ids<T> next = ~same & ~nearer & (distance < second), moved = ~same & nearer;
    second = moved ? first : next ? distance : second;
    second_id = moved ? first_id : next ? id : second_id;
    first = nearer ? distance : first;
    first_id = nearer ? id : first_id;
  }
};

// A strip of such: four arrays [n, kStrip], one behind the other.
template <class T>
struct TwoStrip {
  T *first, *second;
  InstanceOf<T>*first_id, *second_id;

  TwoStrip(char* memory, int64_t n)
      : first((T*)memory),
        second(first + n * kStrip),
        first_id((InstanceOf<T>*)(second + n * kStrip)),
        second_id(first_id + n * kStrip) {}

  FASTSEG_INLINE Two<T> at_place(int64_t i) const {
    return {at(first + i), at(second + i), ids_at<T>(first_id + i), ids_at<T>(second_id + i)};
  }

  FASTSEG_INLINE void put(int64_t i, const Two<T>& two) const {
    memcpy(first + i, &two.first, kVectorBytes);
    memcpy(second + i, &two.second, kVectorBytes);
    memcpy(first_id + i, &two.first_id, kVectorBytes);
    memcpy(second_id + i, &two.second_id, kVectorBytes);
  }
};

template <class T>
void look(const TwoStrip<T>& from, int64_t n, const T* offset, const TwoStrip<T>& to) {
  for (int64_t l = 0; l < kStrip; l += kLanes<T>)
    for (int64_t q = 0; q < n; ++q) {
      Two<T> best = from.at_place(q * kStrip + l);
      const int64_t below = q, above = n - 1 - q, reach = below < above ? above : below;
      for (int64_t d = 1; d <= reach && some<T>(best.second > offset[d]); ++d)
        for (int side = -1; side <= 1; side += 2) {
          if (d > (side < 0 ? below : above)) continue;
          const Two<T> there = from.at_place((q + side * d) * kStrip + l);
          best.insert(there.first + offset[d], there.first_id);
          best.insert(there.second + offset[d], there.second_id);
        }
      to.put(q * kStrip + l, best);
    }
}

template <class T>
void strips(const InstancePass<T>& p, int64_t begin, int64_t end) {
  const TwoStrip<T> from(p.scratch, p.n), to(p.scratch + instance_scratch<T>(p.n) / 2, p.n);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t plane = task / p.strips(), x = task % p.strips() * kStrip;
    const int64_t lanes = p.width - x < kStrip ? p.width - x : kStrip;
    const int64_t base = plane / p.inner * p.far + plane % p.inner * p.near + x;
    for (int64_t q = 0; q < p.n; ++q) {
      const int64_t place = base + q * p.step;
      read_strip(p.first + place, lanes, from.first + q * kStrip);
      read_strip(p.second + place, lanes, from.second + q * kStrip);
      read_strip(p.first_id + place, lanes, from.first_id + q * kStrip);
      read_strip(p.second_id + place, lanes, from.second_id + q * kStrip);
    }
    look(from, p.n, p.offset, to);
    for (int64_t q = 0; q < p.n; ++q) {
      const int64_t place = base + q * p.step;
      if (p.first_out) {
        finish(*p.first_out, to.first + q * kStrip, lanes, place);
        finish(*p.second_out, to.second + q * kStrip, lanes, place);
        continue;
      }
      write_strip(to.first + q * kStrip, lanes, p.first + place);
      write_strip(to.second + q * kStrip, lanes, p.second + place);
      write_strip(to.first_id + q * kStrip, lanes, p.first_id + place);
      write_strip(to.second_id + q * kStrip, lanes, p.second_id + place);
    }
  }
}

// The last two instances that a sweep has met, and where.
struct Met {
  int32_t id = 0, id_before = 0;
  int64_t place = -1, place_before = -1;

  FASTSEG_INLINE void meet(int32_t next, int64_t x) {
    if (next == 0) return;
    if (next != id) {
      id_before = id, place_before = place;
      id = next;
    }
    place = x;
  }
};

template <class T>
void row(const InstancePass<T>& p, const int32_t* ids, int64_t at) {
  T *first = p.first + at, *second = p.second + at;
  InstanceOf<T>*first_id = p.first_id + at, *second_id = p.second_id + at;
  Met left, right;
  for (int64_t x = 0; x < p.width; ++x) {
    left.meet(ids[x], x);
    first[x] = left.id ? p.offset[x - left.place] : kNothing<T>;
    second[x] = left.id_before ? p.offset[x - left.place_before] : kNothing<T>;
    first_id[x] = left.id, second_id[x] = left.id_before;
  }
  const auto insert = [&](int64_t x, int32_t id, T distance) {
    if (id == first_id[x]) {
      if (distance < first[x]) first[x] = distance;
    } else if (distance < first[x]) {
      second[x] = first[x], second_id[x] = first_id[x];
      first[x] = distance, first_id[x] = id;
    } else if (distance < second[x]) {
      second[x] = distance, second_id[x] = id;
    }
  };
  for (int64_t x = p.width - 1; x >= 0; --x) {
    right.meet(ids[x], x);
    if (right.id) insert(x, right.id, p.offset[right.place - x]);
    if (right.id_before) insert(x, right.id_before, p.offset[right.place_before - x]);
  }
}

template <class T>
void rows(const void* instances, Int type, const InstancePass<T>& p, int64_t begin, int64_t end) {
  int32_t* ids = (int32_t*)p.scratch;
  for (int64_t r = begin; r < end; ++r) {
    widen_labels((const char*)instances + r * p.width * size_of(type), type, p.width, ids);
    row(p, ids, r * p.width);
  }
}

}  // namespace
}  // namespace fastseg

#define FASTSEG_INSTANCES(T, name) \
  extern "C" const fastseg::InstanceKernels<T> FASTSEG_FOR_ISA(name) = {fastseg::rows<T>, fastseg::strips<T>}
FASTSEG_INSTANCES(int32_t, distance_instances_i32);
FASTSEG_INSTANCES(float, distance_instances_f32);
FASTSEG_INSTANCES(double, distance_instances_f64);
