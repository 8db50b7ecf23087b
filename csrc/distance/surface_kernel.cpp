// Boundaries of objects, and distances read there. All of it is bytes: a read and a write of each for a step.
#include "surface.h"

namespace fastseg {
namespace {

constexpr uint64_t kNone = 0x0101010101010101;  // eight elements off the boundary

inline uint64_t eight(const uint8_t* p) {
  uint64_t v;
  memcpy(&v, p, 8);
  return v;
}

template <class E>
inline bool holds(const Object& o, E v) {
  return o.nonzero ? v != 0 : int32_t(v) == o.label;
}

inline void grow(Box& b, int64_t z, int64_t y, int64_t x, int64_t end) {
  const int64_t low[3] = {z, y, x}, high[3] = {z + 1, y + 1, end};
  for (int axis = 0; axis < 3; ++axis) {
    if (low[axis] < b.first[axis]) b.first[axis] = low[axis];
    if (high[axis] > b.last[axis]) b.last[axis] = high[axis];
  }
}

// Runs of equal labels, of which only the ends matter.
template <class E>
void bound_row(const Bounds& p, const E* row, int64_t z, int64_t y) {
  for (int64_t x = 0, end; x < p.width; x = end) {
    const E v = row[x];
    for (end = x + 1; end < p.width && row[end] == v;) ++end;
    for (int64_t i = 0; i < p.count; ++i)
      if (holds(p.objects[i], v)) {
        grow(p.boxes[i], z, y, x, end);
        break;
      }
  }
}

void bounds(const Bounds& p) {
  for (int64_t r = 0; r < p.depth * p.height; ++r) {
    const char* row = (const char*)p.image + r * p.width * size_of(p.type);
    if (p.type == Int::u8) {
      bound_row(p, (const uint8_t*)row, r / p.height, r % p.height);
    } else {
      widen_labels(row, p.type, p.width, p.scratch);
      bound_row(p, p.scratch, r / p.height, r % p.height);
    }
  }
}

template <class E>
void fill_row(const Object& o, const E* row, int64_t n, uint8_t* out) {
  if (o.nonzero)
    for (int64_t x = 0; x < n; ++x) out[x] = row[x] != 0;
  else if (sizeof(E) == 1 && (o.label < 0 || o.label > 255))
    memset(out, 0, n);
  else
    for (int64_t x = 0, label = o.label; x < n; ++x) out[x] = row[x] == E(label);
}

void fill(const Surface& s, int64_t begin, int64_t end, int32_t* scratch) {
  const int64_t d = s.box.side(0), h = s.box.side(1), w = s.box.side(2), rows = h + 2, columns = w + 2;
  for (int64_t plane = begin; plane < end; ++plane) {
    uint8_t* to = s.inside + plane * rows * columns;
    const int64_t z = plane - s.frame();
    if (z < 0 || z >= d) {
      memset(to, 0, rows * columns);
      continue;
    }
    memset(to, 0, columns);
    memset(to + (rows - 1) * columns, 0, columns);
    for (int64_t y = 0; y < h; ++y) {
      uint8_t* out = to + (y + 1) * columns;
      const int64_t at = ((s.box.first[0] + z) * s.height + s.box.first[1] + y) * s.width + s.box.first[2];
      const char* row = (const char*)s.image + at * size_of(s.type);
      out[0] = out[columns - 1] = 0;
      if (s.type == Int::u8) {
        fill_row(s.object, (const uint8_t*)row, w, out + 1);
      } else {
        widen_labels(row, s.type, w, scratch);
        fill_row(s.object, scratch, w, out + 1);
      }
    }
  }
}

// Elements inside with a neighbour outside.
int64_t outline_elements(const Surface& s, int64_t z) {
  const int64_t h = s.box.side(1), w = s.box.side(2), columns = w + 2, plane = (h + 2) * columns;
  const int64_t around = s.volume ? plane : 0;
  int64_t count = 0;
  for (int64_t y = 0; y < h; ++y) {
    const uint8_t* c = s.inside + (z + s.frame()) * plane + (y + 1) * columns + 1;
    uint8_t* out = s.element + (z * h + y) * w;
    int32_t found = 0;
    for (int64_t x = 0; x < w; ++x) {
      const uint8_t within = c[x - 1] & c[x + 1] & c[x - columns] & c[x + columns] & c[x - around] & c[x + around];
      out[x] = uint8_t((c[x] ^ 1) | within);
      found += out[x] ^ 1;
    }
    count += found;
  }
  return count;
}

// Corners with an element inside and one outside; bit 0 of a code is the last element.
int64_t outline_corners(const Surface& s, int64_t z) {
  const int64_t h = s.grid(1), w = s.grid(2), columns = w + 1, plane = (h + 1) * columns;
  const uint8_t all = s.volume ? 255 : 15;
  int64_t count = 0;
  for (int64_t y = 0; y < h; ++y) {
    const uint8_t *a = s.inside + z * plane + y * columns, *b = a + columns;
    const uint8_t *c = a + (s.volume ? plane : 0), *d = c + columns;
    uint8_t *code = s.code + (z * h + y) * w, *out = s.element + (z * h + y) * w;
    int32_t found = 0;
    for (int64_t x = 0; x < w; ++x) {
      const uint8_t front = uint8_t(a[x] << 3 | a[x + 1] << 2 | b[x] << 1 | b[x + 1]);
      const uint8_t back = uint8_t(c[x] << 3 | c[x + 1] << 2 | d[x] << 1 | d[x + 1]);
      code[x] = s.volume ? uint8_t(front << 4 | back) : front;
      out[x] = code[x] == 0 || code[x] == all;
      found += out[x] ^ 1;
    }
    count += found;
  }
  return count;
}

int64_t outline(const Surface& s, int64_t begin, int64_t end) {
  int64_t count = 0;
  for (int64_t z = begin; z < end; ++z) count += s.dual ? outline_corners(s, z) : outline_elements(s, z);
  return count;
}

template <class T>
int64_t sample(const Samples<T>& p) {
  int64_t left = 0, k = 0;
  for (int64_t i = 0; i < p.size; ++i) {
    while (i + 8 <= p.size && eight(p.element + i) == kNone) i += 8;
    if (i >= p.size) break;
    if (p.element[i]) continue;
    if (!p.pending[i]) {
      const bool right = p.values[i] <= p.trusted;
      if (right) p.out[k] = __builtin_sqrt(double(p.values[i]));
      p.pending[i] = right;
      left += !right;
    }
    ++k;
  }
  return left;
}

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::SurfaceKernels FASTSEG_FOR_ISA(distance_surface) = {
    fastseg::bounds, fastseg::fill, fastseg::outline, fastseg::sample<int32_t>, fastseg::sample<double>};
