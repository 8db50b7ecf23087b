// The Lovász extension of the Jaccard loss: Berman et al. 2018 (arXiv 1705.08790), alg. 1, for each class of each
// segment (an image, or all of them).
//
// Errors are not negative, so that their bits are ordered as they are: a radix sort of (bits, place) in passes of
// kDigit bits, three for float, each a sequential read and 2^kDigit sequential writes. It is stable: of equal errors
// the first pixel comes first. Neither one-hot copies nor the sorted truth exist: the highest bit of a place says
// whether the pixel is of the class. Steps of the Jaccard loss are computed by themselves, 1 / U inside and I / (U (U +
// 1)) outside, where differences of numbers near 1 would lose their digits. The hinge leaves out what has no error: it
// comes last and changes nothing.
#include "../upsample/columns.h"
#include "region_loss.h"

namespace fastseg {
namespace {

constexpr int kDigit = 10;
constexpr int64_t kDigits = 1 << kDigit;
constexpr uint32_t kInside = uint32_t(1) << 31;

template <class T>
struct Keys {
  using Key = decltype(Item<T>::key);
  static constexpr int kBits = 8 * sizeof(Key) - 1, kPasses = (kBits + kDigit - 1) / kDigit;
  static constexpr Key kMost = Key(-1) >> 1;
  uint32_t first[kPasses][kDigits] = {};  // counts, then places

  // Rises as the error falls; not a number comes first.
  static Key of(T error) {
    Key bits;
    memcpy(&bits, &error, sizeof bits);
    return error == error ? kMost - bits : 0;
  }
  static T error(Key key) {
    T x;
    const Key bits = kMost - key;
    memcpy(&x, &bits, sizeof x);
    return x;
  }
  static uint32_t digit(Key key, int pass) { return uint32_t(key >> (pass * kDigit)) & (kDigits - 1); }

  void count(Key key, uint32_t times) {
    for (int pass = 0; pass < kPasses; ++pass) first[pass][digit(key, pass)] += times;
  }

  // Sorts n items, which are counted; returns which of the two buffers they are in.
  Item<T>* sort(Item<T>* from, Item<T>* to, int64_t n) {
    for (int pass = 0; pass < kPasses && n > 0; ++pass) {
      uint32_t* place = first[pass];
      if (place[digit(from[0].key, pass)] == n) continue;
      uint32_t sum = 0;
      for (int64_t d = 0; d < kDigits; ++d) {
        const uint32_t here = place[d];
        place[d] = sum;
        sum += here;
      }
      for (int64_t i = 0; i < n; ++i) to[place[digit(from[i].key, pass)]++] = from[i];
      exchange(from, to);
    }
    return from;
  }
};

// One class of a segment; error_of(value, inside) is its error, and kZeros whether those of 0 have a place.
template <class T, bool kZeros, class Error>
void one_class(const Lovasz<T>& p, int64_t index, const Error& error_of) {
  const int64_t segment = index / p.classes, c = index % p.classes, pixels = p.images * p.area;
  const int64_t total = p.count[segment * (p.classes + 1) + c];
  const double share = p.share[index];
  const int32_t* own = p.own + segment * pixels;
  const int64_t plane = (segment * p.images * p.classes + c) * p.area, apart = p.classes * p.area;
  p.loss[index] = 0;
  if (share == 0) {
    for (int64_t i = 0; i < p.images; ++i) memset(p.slope + plane + i * apart, 0, p.area * sizeof(T));
    return;
  }

  Keys<T> keys;
  int64_t n = 0;
  for (int64_t image = 0; image < p.images; ++image, own += p.area) {
    const T* value = p.values + plane + image * apart;
    T* slope = p.slope + plane + image * apart;
    for (int64_t i = 0; i < p.area; ++i) {
      const uint32_t inside = own[i] == c;
      const T error = error_of(value[i], inside);
      const uint32_t kept = (own[i] != kIgnored) & (kZeros | !(error <= T(0)));
      const auto key = Keys<T>::of(error);
      p.items[n] = {key, uint32_t(image * p.area + i) | inside << 31};
      keys.count(key, kept);
      n += kept;
      slope[i] = 0;
    }
  }

  const Item<T>* sorted = keys.sort(p.items, p.items + pixels, n);
  // Of several images in the buffer that is free: a division for each pixel would cost more.
  T* to = p.images == 1 ? p.slope + plane : (T*)(sorted == p.items ? p.items + pixels : p.items);
  if (p.images > 1) memset(to, 0, pixels * sizeof(T));
  if (total == 0) n = least(n, 1);  // of a class that is not there the largest error has the only step
  double loss = 0, left = double(total), joined = total == 0 ? 1.0 : double(total);
  for (int64_t i = 0; i < n; ++i) {
    const bool inside = sorted[i].place & kInside;
    const double before = joined, numerator = inside | (total == 0) ? 1.0 : left;
    joined += inside ? 0.0 : 1.0;
    left -= inside ? 1.0 : 0.0;
    const double step = numerator / (inside | (total == 0) ? before : before * joined);
    loss += Keys<T>::error(sorted[i].key) * step;
    to[sorted[i].place & ~kInside] = T(inside ? -step * share : step * share);
  }
  p.loss[index] = loss;
  for (int64_t i = 0; i < p.images && p.images > 1; ++i)
    memcpy(p.slope + plane + i * apart, to + i * p.area, p.area * sizeof(T));
}

template <class T>
void softmax(const Lovasz<T>& p, int64_t begin, int64_t end) {
  // A probability may be rounded to more than 1.
  const auto error = [](T value, bool inside) { return inside ? (value > T(1) ? T(0) : T(1) - value) : value; };
  for (int64_t i = begin; i < end; ++i) one_class<T, true>(p, i, error);
}

template <class T>
void hinge(const Lovasz<T>& p, int64_t begin, int64_t end) {
  const auto error = [](T value, bool inside) { return T(1) - (inside ? value : -value); };
  for (int64_t i = begin; i < end; ++i) one_class<T, false>(p, i, error);
}

// n values, and zeros up to a whole vector.
template <class T>
void copy_some(const T* from, int64_t n, T* to) {
  memcpy(to, from, n * sizeof(T));
  for (; n % Simd<T>::lanes; ++n) to[n] = 0;
}

// d/dz_c = p_c (s_c - sum_k p_k s_k), class by class for a tile of a row: planes may lie a power of two apart, and
// vectors of all of them at a place would share few lines of the cache.
template <class T>
void softmax_backward(const LovaszAdjoint<T>& p, int64_t begin, int64_t end) {
  constexpr int L = Simd<T>::lanes;
  const Maps<T>& source = p.source;
  const int64_t plane = source.h * source.w;
  T *term = p.scratch, *slope = term + source.c * kTile;  // [c, kTile] each
  T most[kTile], factor[kTile], mean[kTile];
  const auto each = [&](int64_t n, const auto& use) {
    for (int64_t c = 0; c < source.c; ++c)
      for (int64_t x = 0; x < n; x += L) use(c, x, c * kTile + x);
  };
  for (int64_t i = begin; i < end; ++i)
    for (int64_t x0 = 0; x0 < source.w; x0 += kTile) {
      const int64_t image = i / source.h, row = i % source.h, n = least(kTile, source.w - x0);
      const T* from = source.data + image * source.stride_n + row * source.stride_y + x0;
      const int64_t place = image * source.c * plane + row * source.w + x0;
      for (int64_t c = 0; c < source.c; ++c) {
        copy_some(from + c * source.stride_c, n, term + c * kTile);
        copy_some(p.slope + place + c * plane, n, slope + c * kTile);
      }
      for (int64_t x = 0; x < n; x += L) {
        store(most + x, load(term + x));
        store(factor + x, V<T>{});
        store(mean + x, V<T>{});
      }
      each(n, [&](int64_t, int64_t x, int64_t at) { store(most + x, maximum<T>(load(term + at), load(most + x))); });
      each(n, [&](int64_t, int64_t x, int64_t at) {
        const V<T> e = exponential(load(term + at) - load(most + x));
        store(term + at, e);
        store(factor + x, load(factor + x) + e);
        store(mean + x, load(mean + x) + e * load(slope + at));
      });
      for (int64_t x = 0; x < n; x += L) {
        const V<T> inverse = T(1) / load(factor + x);
        store(mean + x, load(mean + x) * inverse);
        store(factor + x, inverse * p.scale);
      }
      each(n, [&](int64_t c, int64_t x, int64_t at) {
        const V<T> g = load(term + at) * load(factor + x) * (load(slope + at) - load(mean + x));
        store_some(p.grad + place + c * plane + x, g, n - x);
      });
    }
}

void classes(const Classes& p, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    int32_t* own = p.own + i * p.w;
    int64_t* count = p.count + i / p.h * (p.classes + 1);
    widen_labels((const char*)p.target + i * p.w * size_of(p.type), p.type, p.w, own);
    p.bad[i] = -1;
    for (int64_t x = 0; x < p.w; ++x) {
      const int32_t label = own[x], c = label - p.first;
      const bool counted = label != p.ignore_index, inside = label >= 0 && c < p.classes;
      if (counted && !inside && p.bad[i] < 0) p.bad[i] = i * p.w + x;
      own[x] = counted ? c : kIgnored;
      if (counted && inside) {
        count[p.classes] += 1;
        if (c >= 0) count[c] += 1;
      }
    }
  }
}

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::LovaszKernels<float> FASTSEG_FOR_ISA(lovasz_f32) = {
    fastseg::softmax<float>, fastseg::hinge<float>, fastseg::softmax_backward<float>};
extern "C" const fastseg::LovaszKernels<double> FASTSEG_FOR_ISA(lovasz_f64) = {
    fastseg::softmax<double>, fastseg::hinge<double>, fastseg::softmax_backward<double>};
extern "C" const fastseg::ClassesKernel FASTSEG_FOR_ISA(classes) = fastseg::classes;
