// What follows the responses where autograd records them: activation(scale * T_r + shift), summed over the rates or
// not, and its gradients. One pass over the terms each: per term a multiply-add, the activation and an addition, and
// twice that backwards, where plain PyTorch passes over them five and nine times, into fresh memory. The gradients of
// scale and shift are sums over fixed runs of kRun values, which are added up in double, in order.
#include "../conv/conv.h"
#include "ksac.h"

namespace fastseg {
namespace {

// The derivative of an activation at z times g; NaN at z passes g on, as in PyTorch.
template <class T>
inline V<T> deactivate(V<T> g, V<T> z, Activation kind) {
  switch (kind) {
    case Activation::none:
      return g;
    case Activation::relu:
      return z <= T(0) ? V<T>{} : g;
    case Activation::relu6:
      return (z <= T(0)) | (z >= T(6)) ? V<T>{} : g;
    case Activation::silu: {
      const V<T> s = T(1) / (T(1) + exponential(-z > T(87) ? splat(T(87)) : -z));
      return g * s * (T(1) + z * (T(1) - s));
    }
  }
  return g;
}

// A line: a pixel with its channels (channels_last) or a plane. The same line of all rates.
template <class T>
struct Line {
  int64_t length, first, apart, vector;  // of terms: the first rate's, how far apart rates are; of scales
  int64_t result, results_apart;
};

template <class T>
inline Line<T> line_of(const Fuse<T>& f, int64_t line) {
  const int64_t all = f.count * f.channels, image = f.last ? 0 : line / f.channels, c = f.last ? 0 : line % f.channels;
  const int64_t length = f.last ? f.channels : f.pixels;
  const int64_t first = f.last ? line * all : (image * all + c) * f.pixels,
                apart = f.last ? f.channels : f.channels * f.pixels;
  return {length, first, apart, c, f.sum ? line * length : first, f.sum ? 0 : apart};
}

// The scale and the shift of rate k at i of a line; n lanes of them are there.
template <class T>
struct Affine {
  V<T> scale, shift;

  Affine(const Fuse<T>& f, const Line<T>& line, int64_t k, int64_t i, int64_t n) {
    const int64_t at = k * f.channels + line.vector;
    const auto get = [&](const T* values, T otherwise) {
      if (!values) return splat(otherwise);
      if (!f.last) return splat(values[at]);
      return n == Simd<T>::lanes ? load(values + at + i) : load_part(values + at + i, n);
    };
    scale = get(f.scale, T(1));
    shift = get(f.shift, T(0));
  }
};

template <class T>
inline V<T> load_some(const T* p, int64_t n) {
  return n == Simd<T>::lanes ? load(p) : load_part(p, n);
}

template <class T>
inline void store_some(T* p, V<T> v, int64_t n) {
  if (n == Simd<T>::lanes)
    store(p, v);
  else
    store_part(p, v, n);
}

template <class T>
void fuse(const Fuse<T>& f, int64_t begin, int64_t end) {
  constexpr int64_t L = Simd<T>::lanes;
  for (int64_t at = begin; at < end; ++at) {
    const Line<T> line = line_of(f, at);
    for (int64_t i = 0; i < line.length; i += L) {
      const int64_t n = line.length - i < L ? line.length - i : L;
      V<T> sum{};
      for (int64_t k = 0; k < f.count; ++k) {
        const Affine<T> a(f, line, k, i, n);
        const V<T> z = multiply_add<T>(load_some(f.terms + line.first + k * line.apart + i, n), a.scale, a.shift);
        const V<T> y = activate<T>(z, f.activation);
        sum = k && f.sum ? sum + y : y;
        if (!f.sum) store_some(f.result + line.result + k * line.results_apart + i, y, n);
      }
      if (f.sum) store_some(f.result + line.result + i, sum, n);
    }
  }
}

// The gradient of a term, and what it adds to those of its scale and shift.
template <class T>
inline void unfuse_at(const Fuse<T>& f, const Line<T>& line, int64_t k, int64_t i, int64_t n, V<T>& of_scale,
                      V<T>& of_shift) {
  const Affine<T> a(f, line, k, i, n);
  const V<T> term = load_some(f.terms + line.first + k * line.apart + i, n);
  const V<T> g = load_some(f.result + line.result + k * line.results_apart + i, n);
  const V<T> inner = deactivate<T>(g, multiply_add<T>(term, a.scale, a.shift), f.activation);
  store_some(f.of_terms + line.first + k * line.apart + i, inner * a.scale, n);
  of_scale = multiply_add<T>(inner, term, of_scale);
  of_shift = of_shift + inner;
}

// A run of kRun pixels of all channels, or of one plane; sums [2, count, channels] or [2, count].
template <class T>
void unfuse(const Fuse<T>& f, int64_t begin, int64_t end) {
  constexpr int64_t L = Simd<T>::lanes;
  const int64_t vectors = f.count * f.channels, lines = f.last ? f.images * f.pixels : f.images * f.channels;
  for (int64_t at = begin; at < end; ++at) {
    double* sums = f.sums + at * 2 * (f.last ? vectors : f.count);
    const int64_t first = f.last ? at * kRun : at, last = !f.last                ? at + 1
                                                          : first + kRun < lines ? first + kRun
                                                                                 : lines;
    for (int64_t k = 0; k < f.count; ++k) {
      if (f.last) {
        for (int64_t c = 0; c < f.channels; c += L) {
          const int64_t n = f.channels - c < L ? f.channels - c : L;
          V<T> of_scale{}, of_shift{};
          for (int64_t p = first; p < last; ++p) unfuse_at(f, line_of(f, p), k, c, n, of_scale, of_shift);
          for (int64_t l = 0; l < n; ++l) {
            sums[k * f.channels + c + l] = of_scale[l];
            sums[vectors + k * f.channels + c + l] = of_shift[l];
          }
        }
        continue;
      }
      const Line<T> line = line_of(f, at);
      double of_scales = 0, of_shifts = 0;
      for (int64_t run = 0; run < line.length; run += kRun) {
        V<T> of_scale{}, of_shift{};
        const int64_t stop = run + kRun < line.length ? run + kRun : line.length;
        for (int64_t i = run; i < stop; i += L)
          unfuse_at(f, line, k, i, stop - i < L ? stop - i : L, of_scale, of_shift);
        for (int64_t l = 0; l < L; ++l) {
          of_scales += of_scale[l];
          of_shifts += of_shift[l];
        }
      }
      sums[k] = of_scales;
      sums[f.count + k] = of_shifts;
    }
  }
}

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::FuseTable<float> FASTSEG_FOR_ISA(fuse_f32) = {fastseg::fuse<float>, fastseg::unfuse<float>};
extern "C" const fastseg::FuseTable<double> FASTSEG_FOR_ISA(fuse_f64) = {fastseg::fuse<double>,
                                                                         fastseg::unfuse<double>};
