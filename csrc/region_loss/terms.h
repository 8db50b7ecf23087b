// What the sums have of a pixel: its class, and the powers of the focal loss.
#pragma once
#include "../upsample/block.h"
#include "region_loss.h"

namespace fastseg {
namespace {

// The classes of n pixels from `pixel` on, of a Softmax or an Adjoint; notes the first label that is none.
template <class T, class P>
I<T> classes_of(const P& p, int32_t first, int64_t classes, int64_t pixel, int64_t n, int64_t* bad) {
  using Scalar = typename Simd<T>::Int;
  const I<T> label = load_labels<T>(p.target, p.target_type, pixel, n, p.ignore_index);
  const I<T> counted = label != Scalar(p.ignore_index), inside = (label >= 0) & (label < Scalar(first + classes));
  if (bad && any<T>(counted & ~inside))
    for (int64_t l = 0; l < n; ++l)
      if (counted[l] && !inside[l] && (*bad < 0 || pixel + l < *bad)) *bad = pixel + l;
  return (counted & inside) ? label - Scalar(first) : I<T>{} + Scalar(kIgnored);
}

// x^gamma of x in [0, 1]; 0 at 0 (and below the normal numbers), where its slope may be infinite.
template <class T>
V<T> power(V<T> x, T gamma) {
  const T least = sizeof(T) == 4 ? T(1.17549435e-38) : T(2.2250738585072014e-308);
  const V<T> y = exponential(gamma * logarithm(x));
  return x < least ? V<T>{} : y;
}

// p, 1 - p, and minus the logarithms of both, of a logit: no digits are lost at either end.
template <class T>
struct Sigmoid {
  V<T> p, q, yes, no;

  explicit Sigmoid(V<T> z) {
    const I<T> positive = z > T(0);
    const V<T> e = exponential(positive ? -z : z), sum = T(1) + e, more = T(1) / sum, less = e * more;
    const V<T> log = logarithm(sum) + (e - (sum - T(1))) * more;  // ln (1 + e), what the sum lost of e added
    p = positive ? more : less;
    q = positive ? less : more;
    yes = positive ? log : log - z;
    no = positive ? log + z : log;
  }
};

// (1 - p)^gamma, and d/d(log p) of -(1 - p)^gamma log p, of p and log p.
template <class T>
struct Focal {
  V<T> weight, slope;

  Focal(V<T> log, V<T> own, V<T> other, T gamma) : weight(power<T>(other, gamma)) {
    const V<T> steep = gamma * weight * log * own / other - weight;
    slope = weight > T(0) ? steep : weight != weight ? weight : V<T>{};
  }
};

}  // namespace
}  // namespace fastseg
