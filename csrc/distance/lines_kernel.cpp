// Exact distance transforms, one pass along each axis: D[q] = min_i f[i] + w^2 (q - i)^2 for all lines of the axis.
//
// Rows are runs between sites. Along y and z lines that are neighbours in memory are the lanes of vectors, and each
// element looks outwards from its own place until no further one can be nearer: at most as many steps as its distance
// is long, two loads and four operations for as many lanes as a vector has. Most segmentations have distances of some
// dozen elements, where this beats the lower envelope of parabolas (Felzenszwalb and Huttenlocher 2012), whose stack is
// no work for vectors. A strip that turns out to need many steps is done by the envelope, so that a line of n elements
// costs O(n) in any case. Whole squares are int32, and so are their sums; separators of the envelope are quotients
// of integers in double, which is exact wherever it decides something (Meijster et al. 2000 divide integers).
//
// Labels need no more: an element with another label is itself a site, at distance 0 of its own, and one with the same
// label behind it is too far away to matter.
//
// Bytes of an element and axis: reads and writes 4 (8 in double).
#include "strips.h"

namespace fastseg {
namespace {

constexpr int64_t kSteps = 96;  // of an element on average, before the envelope takes over
constexpr int64_t kProbes = 4;  // elements that are asked first

template <class T, bool kLargest>
inline Vec<T> beyond(Vec<T> value, T offset) {
  if constexpr (kLargest) {
    const Vec<T> o = Vec<T>{} + offset;
    return value > o ? value : o;
  } else {
    return value + offset;
  }
}

// The labels of a strip, as wide as T.
template <class T>
inline auto label_lanes(const int32_t* p) {
  if constexpr (sizeof(T) == 4)
    return at<int32_t>(p);
  else
    return load_index<double>(p);
}

// Which elements of a vector of lines are asked for, and how far away sites may be.
struct Asked {
  const uint8_t* wanted;             // lanes beside each other, `step` apart along the lines
  int64_t step, lanes, limit, most;  // `most` steps for an element, on average

  FASTSEG_INLINE bool at(int64_t q) const {
    if (!wanted) return true;
    bool none = true;
    for (int64_t l = 0; l < lanes; ++l) none &= wanted[q * step + l] != 0;
    return !none;
  }
};

// The labels at q, where there are any.
template <class T, bool kLabels>
inline auto own_labels(const int32_t* label, int64_t q) {
  if constexpr (kLabels)
    return label_lanes<T>(label + q * kStrip);
  else
    return 0;
}

// One vector of lines. Returns false where it needs too many steps.
template <class T, bool kLargest, bool kLabels>
bool search(const T* f, const int32_t* label, int64_t n, const T* offset, const Asked& asked, T* out) {
  using F = Vec<T>;
  const auto steps = [&](int64_t q) {
    F best = at(f + q * kStrip);
    [[maybe_unused]] const auto own = own_labels<T, kLabels>(label, q);
    const auto seen = [&](int64_t i) {
      const F v = at(f + i * kStrip);
      if constexpr (!kLabels)
        return v;
      else
        return label_lanes<T>(label + i * kStrip) == own ? v : F{};
    };
    const int64_t below = q < asked.limit ? q : asked.limit, above = n - 1 - q < asked.limit ? n - 1 - q : asked.limit;
    const int64_t both = below < above ? below : above, reach = below < above ? above : below;
    int64_t d = 1;
    for (; d <= both && some<T>(best > offset[d]); ++d)
      best = least<T>(best, beyond<T, kLargest>(least<T>(seen(q - d), seen(q + d)), offset[d]));
    if (d > both) {
      const int64_t sign = below < above ? 1 : -1;
      for (; d <= reach && some<T>(best > offset[d]); ++d)
        best = least<T>(best, beyond<T, kLargest>(seen(q + sign * d), offset[d]));
    }
    memcpy(out + q * kStrip, &best, sizeof best);
    return d;
  };
  int64_t taken = 0;
  if (asked.limit > asked.most)
    for (int64_t i = 0; i < kProbes; ++i) taken += steps((2 * i + 1) * n / (2 * kProbes));
  if (taken > asked.most * kProbes) return false;
  taken = 0;
  for (int64_t q = 0; q < n && taken <= 2 * asked.most * n; ++q)
    if (asked.at(q)) taken += steps(q);
  return taken <= 2 * asked.most * n;
}

// The same for doubles that bring a site along, of which the lower wins a tie.
template <bool kLargest, bool kLabels>
void search_sites(const double* f, const int64_t* site, const int32_t* label, int64_t n, const double* offset,
                  const int64_t* own_site, int64_t step, double* out, int64_t* out_site) {
  using F = V<double>;
  using S = I<double>;
  for (int64_t q = 0; q < n; ++q) {
    F best = load(f + q * kStrip);
    S chosen = load_lanes<double>(site + q * kStrip);
    [[maybe_unused]] const auto own = own_labels<double, kLabels>(label, q);
    const auto look = [&](int64_t i, int64_t d) {
      F v = load(f + i * kStrip);
      S s = load_lanes<double>(site + i * kStrip);
      if constexpr (kLabels) {
        const S other = label_lanes<double>(label + i * kStrip) != own;
        v = other ? F{} : v;
        s = other ? load_lanes<double>(own_site) + i * step : s;
      }
      v = beyond<double, kLargest>(v, offset[d]);
      const S nearer = (v < best) | ((v == best) & (s < chosen));
      best = nearer ? v : best;
      chosen = nearer ? s : chosen;
    };
    const int64_t reach = q < n - 1 - q ? n - 1 - q : q;
    for (int64_t d = 1; d <= reach && any<double>(best >= offset[d]); ++d) {
      if (d <= q) look(q - d, d);
      if (d < n - q) look(q + d, d);
    }
    store(out + q * kStrip, best);
    memcpy(out_site + q * kStrip, &chosen, sizeof chosen);
  }
}

// Parabolas of one line, kept where they are the lowest.
template <class T>
class Envelope {
 public:
  Envelope(char* scratch, int64_t n, const T* offset)
      : offset_(offset), weight_(n > 1 ? double(offset[1]) : 1.0), start_((double*)scratch) {
    height_ = start_ + n + 2;
    place_ = (int64_t*)(height_ + n + 2);
  }

  void clear() { size_ = 0; }

  void push(int64_t place, T height) {
    const double h = double(height) / weight_;
    double start = -__builtin_inf();
    while (size_ > 0) {
      const int64_t v = place_[size_ - 1];
      start = 0.5 * ((h - height_[size_ - 1]) / double(place - v) + double(place + v));
      if (start > start_[size_ - 1]) break;
      --size_;
      start = -__builtin_inf();
    }
    start_[size_] = start;
    height_[size_] = h;
    place_[size_++] = place;
  }

  // Whether there are any; `height(v)` is the height at v as it was pushed.
  template <class Height>
  void read(int64_t begin, int64_t end, const Height& height, T* out) const {
    if (size_ == 0) {
      for (int64_t q = begin; q < end; ++q) out[q * kStrip] = kNothing<T>;
      return;
    }
    for (int64_t q = begin, k = 0; q < end; ++q) {
      while (k + 1 < size_ && start_[k + 1] < double(q)) ++k;
      const int64_t v = place_[k];
      out[q * kStrip] = height(v) + offset_[v < q ? q - v : v - q];
    }
  }

 private:
  const T* offset_;
  double weight_;
  double *start_, *height_;
  int64_t* place_;
  int64_t size_ = 0;
};

// One line of a strip.
template <class T>
void envelope(const T* f, const int32_t* label, int64_t n, const T* offset, char* scratch, T* out) {
  Envelope<T> low(scratch, n, offset);
  for (int64_t begin = 0; begin < n;) {
    int64_t end = label ? begin + 1 : n;
    while (end < n && label[end * kStrip] == label[begin * kStrip]) ++end;
    low.clear();
    if (begin > 0) low.push(begin - 1, T(0));
    for (int64_t i = begin; i < end; ++i)
      if (f[i * kStrip] < kNothing<T>) low.push(i, f[i * kStrip]);
    if (end < n) low.push(end, T(0));
    low.read(begin, end, [&](int64_t v) { return v < begin || v >= end ? T(0) : f[v * kStrip]; }, out);
    begin = end;
  }
}

template <class T, bool kLargest>
void pass_group(const T* f, const int32_t* label, int64_t n, const T* offset, const Asked& asked, char* scratch,
                T* out) {
  bool empty = true, varied = false;
  for (int64_t q = 0; q < n; ++q) {
    empty &= !some<T>(at(f + q * kStrip) < kNothing<T>);
    if (label) varied |= some<T>(label_lanes<T>(label + q * kStrip) != label_lanes<T>(label));
  }
  if (empty && !varied) {
    for (int64_t q = 0; q < n; ++q) memcpy(out + q * kStrip, f + q * kStrip, kVectorBytes);
    return;
  }
  if (varied ? search<T, kLargest, true>(f, label, n, offset, asked, out)
             : search<T, kLargest, false>(f, nullptr, n, offset, asked, out))
    return;
  for (int64_t l = 0; l < kLanes<T>; ++l) envelope(f + l, varied ? label + l : nullptr, n, offset, scratch, out + l);
}

template <class T, bool kLargest>
void pass_strip(const StripPass<T>& p, int64_t task) {
  const int64_t image = task / p.tasks(), rest = task % p.tasks(), x = rest % p.strips() * kStrip;
  const int64_t lanes = p.width - x < kStrip ? p.width - x : kStrip;
  const int64_t within = rest / p.strips() * p.plane + x, first = image * p.size + within, n = p.n;
  if (p.wanted) {
    const Asked whole{p.wanted + first, p.step, lanes, 0, 0};
    int64_t q = 0;
    while (q < n && !whole.at(q)) ++q;
    if (q == n) return;
  }
  T *f = (T*)p.scratch, *out = f + n * kStrip;
  int64_t *site = (int64_t*)(out + n * kStrip), *out_site = site + n * kStrip;
  int32_t* label = (int32_t*)(out_site + n * kStrip);
  char* stack = (char*)(label + n * kStrip);
  for (int64_t q = 0; q < n; ++q) {
    const int64_t from = first + q * p.step;
    read_strip(p.values + from, lanes, f + q * kStrip);
    if (p.sites) read_strip(p.sites + from, lanes, site + q * kStrip);
    if (p.labels) {
      for (int64_t l = lanes; l < kStrip; ++l) label[q * kStrip + l] = 0;
      widen_labels((const char*)p.mask + from * size_of(p.type), p.type, lanes, label + q * kStrip);
    }
  }
  for (int64_t l = 0; l < kStrip; l += kLanes<T>) {
    if constexpr (sizeof(T) == 8) {
      if (p.sites) {
        int64_t own[kLanes<T>];
        for (int64_t k = 0; k < kLanes<T>; ++k) own[k] = within + l + k;
        (p.labels ? search_sites<kLargest, true> : search_sites<kLargest, false>)(f + l, site + l, label + l, n,
                                                                                  p.offsets.table, own, p.step, out + l,
                                                                                  out_site + l);
        continue;
      }
    }
    if (l >= lanes) break;
    const Asked asked{p.wanted ? p.wanted + first + l : nullptr, p.step, lanes - l < kLanes<T> ? lanes - l : kLanes<T>,
                      p.limit, p.offsets.squares ? kSteps : int64_t(1) << 31};
    pass_group<T, kLargest>(f + l, p.labels ? label + l : nullptr, n, p.offsets.table, asked, stack, out + l);
  }
  for (int64_t q = 0; q < n; ++q) {
    const int64_t to = first + q * p.step;
    if (p.finish)
      finish(*p.finish, out + q * kStrip, lanes, to);
    else
      write_strip(out + q * kStrip, lanes, p.values + to);
    if (p.sites)
      for (int64_t l = 0; l < lanes; ++l) {
        const int64_t site = out_site[q * kStrip + l];
        p.sites[to + l] = p.finish && site == kNoSite ? -1 : site;
      }
  }
}

template <class T>
void strips(const StripPass<T>& p, int64_t begin, int64_t end) {
  for (int64_t task = begin; task < end; ++task)
    p.offsets.largest ? pass_strip<T, true>(p, task) : pass_strip<T, false>(p, task);
}

inline int64_t first_byte(uint64_t marked) { return __builtin_ctzll(marked) / 8; }

// The first element from x on that ends a run: another label, or a zero.
template <class E>
int64_t end_of_run(const E* m, bool labels, int64_t x, int64_t width) {
  const E own = labels ? m[x] : E(0);
  if constexpr (sizeof(E) == 1) {
    constexpr uint64_t kOnes = 0x0101010101010101, kHigh = 0x8080808080808080;
    for (uint64_t v; x + 8 <= width; x += 8) {
      memcpy(&v, m + x, 8);
      v ^= uint8_t(own) * kOnes;
      const uint64_t found = labels ? v : (v - kOnes) & ~v & kHigh;
      if (found) return x + first_byte(found);
    }
  }
  while (x < width && (labels ? m[x] == own : m[x] != 0)) ++x;
  return x;
}

template <class T>
inline void copy_run(T* out, const T* from, int64_t n) {
  if (n >= 16) {
    memcpy(out, from, n * sizeof(T));
    return;
  }
  for (int64_t i = 0; i < n; ++i) out[i] = from[i];
}

// Runs without a site, from one to the next: offsets going up from the left and down to the right.
template <class T, class E>
void row(const RowPass<T>& p, const E* m, int64_t base, T* out, int64_t* sites) {
  const int64_t width = p.width;
  const T *up = p.offset + 1, *down = p.reversed + width - 1;
  for (int64_t x = 0, end; x < width; x = end) {
    if (!p.labels && m[x] == 0) {
      out[x] = 0;
      if (sites) sites[x] = base + x;
      end = x + 1;
      continue;
    }
    end = end_of_run(m, p.labels, x, width);
    const bool left = x > 0, right = end < width;
    const int64_t n = end - x, half = left ? (right ? (n + 1) / 2 : n) : 0;
    if (left) copy_run(out + x, up, half);
    if (right) copy_run(out + x + half, down - (n - half), n - half);
    if (!left && !right)
      for (int64_t i = 0; i < n; ++i) out[i] = kNothing<T>;
    if (sites)
      for (int64_t i = 0; i < n; ++i) sites[x + i] = !left && !right ? kNoSite : base + (i < half ? x - 1 : end);
  }
}

template <class T>
void rows(const RowPass<T>& p, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const int64_t at = r * p.width, base = r % p.rows_of_image * p.width;
    int64_t* sites = p.sites ? p.sites + at : nullptr;
    T* out = p.values + at;
    const char* m = (const char*)p.mask + at * size_of(p.type);
    switch (p.type) {
      case Int::u8:
      case Int::i8:
        row(p, (const uint8_t*)m, base, out, sites);
        break;
      case Int::i16:
        row(p, (const int16_t*)m, base, out, sites);
        break;
      case Int::i32:
        row(p, (const int32_t*)m, base, out, sites);
        break;
      case Int::i64:
        row(p, (const int64_t*)m, base, out, sites);
        break;
    }
  }
}

}  // namespace
}  // namespace fastseg

#define FASTSEG_DISTANCE(T, name) \
  extern "C" const fastseg::DistanceKernels<T> FASTSEG_FOR_ISA(name) = {fastseg::rows<T>, fastseg::strips<T>}
FASTSEG_DISTANCE(int32_t, distance_i32);
FASTSEG_DISTANCE(float, distance_f32);
FASTSEG_DISTANCE(double, distance_f64);
