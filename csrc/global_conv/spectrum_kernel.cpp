// Real discrete Fourier transforms of many short lines at once, a lane for each line: the first stage of the separable
// kernel as products of spectra (Cooley and Tukey 1965; convolution by parts, "overlap-save", Stockham 1966).
//
// A transform of N = 4^.. * samples halves N as often as it is divisible by 4: the frequencies that are odd are a
// product with a matrix of (N / 4)^2 cosines and one of as many sines, the even ones are a transform of half as many
// sums. About N^2 / 6 multiply-adds: for N <= 128 no more than a radix-2 network costs in shuffles and spills, and N =
// 24, 40, 72 need no code of their own. Windows are read once and spectra written once, in whole cache lines; lines
// whose samples are neighbours in memory are transposed in registers.
//
// Back, only the N - 2 * reach samples that no other window gives are computed, by one matrix: results have few
// channels.
#include "../conv/conv.h"
#include "global_conv.h"

namespace fastseg {
namespace {

template <class T>
constexpr int64_t kStrip = 2 * Simd<T>::lanes;  // lines at a time: a cache line of AVX2 floats

template <class T>
using Strip = T[kStrip<T>];

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

template <class T>
struct Pair {
  V<T> a, b;
};

template <class T>
inline Pair<T> load_pair(const T* p, int64_t n) {
  constexpr int64_t L = Simd<T>::lanes;
  if (n == 2 * L) return {load(p), load(p + L)};
  return {load_part(p, least(n, L)), load_part(p + L, most(n - L, 0))};
}

template <class T>
inline void store_pair(T* p, Pair<T> v, int64_t n) {
  constexpr int64_t L = Simd<T>::lanes;
  if (n == 2 * L) {
    store(p, v.a);
    store(p + L, v.b);
  } else {
    store_part(p, v.a, least(n, L));
    store_part(p + L, v.b, most(n - L, 0));
  }
}

// Loops over `rows` are unrolled early, or the sums would live in memory.
template <class T, int rows>
inline void dense_rows(const Strip<T>* in, const T* k, int64_t terms, Strip<T>* out, int64_t apart) {
  constexpr int64_t L = Simd<T>::lanes;
  V<T> a[rows], b[rows];
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) a[r] = b[r] = V<T>{};
  for (int64_t j = 0; j < terms; ++j) {
    const V<T> u = load(in[j]), v = load(in[j] + L);
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      const V<T> w = splat(k[r * terms + j]);
      a[r] = multiply_add<T>(u, w, a[r]);
      b[r] = multiply_add<T>(v, w, b[r]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
    store(out[r * apart], a[r]);
    store(out[r * apart] + L, b[r]);
  }
}

// out[r * apart] = sum over j of k[r, j] in[j] for each of the rows of k [rows, terms]; returns the end of k. A
// function of its own: inlined wherever it is called, it would not fit the instruction cache.
template <class T>
[[gnu::noinline]] const T* dense(const Strip<T>* in, const T* k, int64_t rows, int64_t terms, Strip<T>* out,
                                 int64_t apart) {
  for (; rows >= 6; rows -= 6, k += 6 * terms, out += 6 * apart) dense_rows<T, 6>(in, k, terms, out, apart);
  for (; rows >= 2; rows -= 2, k += 2 * terms, out += 2 * apart) dense_rows<T, 2>(in, k, terms, out, apart);
  if (rows == 0) return k;
  dense_rows<T, 1>(in, k, terms, out, apart);
  return k + terms;
}

// sum = a + b and difference = a - b, in place of them in either order.
template <class T>
inline void butterfly(T* a, T* b, T* sum, T* difference) {
  constexpr int64_t L = Simd<T>::lanes;
  for (int64_t l = 0; l < 2 * L; l += L) {
    const V<T> u = load(a + l), v = load(b + l);
    store(sum + l, u + v);
    store(difference + l, u - v);
  }
}

template <class T>
inline void negate(T* a) {
  constexpr int64_t L = Simd<T>::lanes;
  for (int64_t l = 0; l < 2 * L; l += L) store(a + l, -load(a + l));
}

// The packed spectrum of x [size], which is overwritten: y[2 f + part], and in y[size] what belongs to y[1]. `k` is
// analysis_table of arguments.h.
template <class T>
inline void spectrum(Strip<T>* x, int64_t size, const T* k, Strip<T>* y) {
  int64_t n = size, step = 1;
  for (; n % 4 == 0; n /= 2, step *= 2) {
    const int64_t h = n / 2, q = n / 4;
    for (int64_t j = 0; j < h; ++j) butterfly(x[j], x[h + j], x[j], x[h + j]);
    // About n / 4 the cosines of odd frequencies change their sign, the sines do not.
    for (int64_t j = 1; j < q; ++j) butterfly(x[h + j], x[n - j], x[n - j], x[h + j]);
    k = dense<T>(x + h, k, q, q, y + 2 * step, 4 * step);
    k = dense<T>(x + h + q, k, q, q, y + 2 * step + 1, 4 * step);
  }
  const int64_t q = n / 2, half = q / 2;  // q is odd: sums have the even frequencies, differences q less those
  for (int64_t j = 0; j < q; ++j) {
    butterfly(x[j], x[q + j], x[j], x[q + j]);
    if (j % 2) negate(x[q + j]);
  }
  for (int64_t sign = 1; sign >= -1; sign -= 2, x += q) {
    Strip<T>* first = sign > 0 ? y : y + size;
    for (int64_t j = 1; j <= half; ++j) butterfly(x[j], x[q - j], x[j], x[q - j]);
    k = dense<T>(x, k, half + 1, half + 1, first, sign * 4 * step);
    k = dense<T>(x + half + 1, k, half, half, first + sign * 4 * step + 1, sign * 4 * step);
  }
}

// A square of lanes, rows to columns.
template <class T>
inline void transpose_square(V<T>* v) {
  constexpr int L = Simd<T>::lanes;
  for (int round = 1; round < L; round *= 2) {
    V<T> next[L];
    for (int i = 0; i < L / 2; ++i) {
      T pairs[2 * L];
      store_pairs<T>(pairs, v[i], v[i + L / 2]);
      next[2 * i] = load(pairs);
      next[2 * i + 1] = load(pairs + L);
    }
    for (int i = 0; i < L; ++i) v[i] = next[i];
  }
}

// `count` samples from p on of n lines whose samples are neighbours -> x [count].
template <class T>
inline void gather_lines(const T* p, int64_t lane, int64_t n, int64_t count, Strip<T>* x) {
  constexpr int64_t L = Simd<T>::lanes;
  for (int64_t l = 0; l < kStrip<T>; l += L)
    for (int64_t s = 0; s < count; s += L) {
      // The last square overlaps the one before rather than to end in the middle of a vector.
      const int64_t at = count < L ? 0 : least(s, count - L), some = least(count, L);
      V<T> v[L];
      for (int64_t i = 0; i < L; ++i) {
        const T* line = p + (l + i) * lane + at;
        v[i] = l + i >= n ? V<T>{} : some == L ? load(line) : load_part(line, some);
      }
      transpose_square<T>(v);
      for (int64_t i = 0; i < some; ++i) store(x[at + i] + l, v[i]);
    }
}

template <class T>
inline void scatter_lines(const Strip<T>* y, int64_t count, T* p, int64_t lane, int64_t n, bool add) {
  constexpr int64_t L = Simd<T>::lanes;
  for (int64_t l = 0; l < n; l += L)
    for (int64_t s = 0; s < count; s += L) {
      const int64_t some = least(count - s, L);
      V<T> v[L];
      for (int64_t i = 0; i < L; ++i) v[i] = load(y[s + least(i, some - 1)] + l);
      transpose_square<T>(v);
      for (int64_t i = 0; i < least(n - l, L); ++i) {
        T* line = p + (l + i) * lane + s;
        if (some == L)
          store(line, add ? load(line) + v[i] : v[i]);
        else
          store_part(line, add ? load_part(line, some) + v[i] : v[i], some);
      }
    }
}

template <class T>
void analyse(const Analysis<T>& p, int64_t begin, int64_t end) {
  constexpr int64_t S = kStrip<T>;
  alignas(64) Strip<T> x[kMostSamples], y[kMostSamples + 1];
  const Lines<const T>& in = p.lines;
  const int64_t size = p.windows.size, part = p.part, turned = p.turned;
  for (int64_t g = begin; g < end; ++g)
    for (int64_t l = 0; l < p.lanes; l += S)
      for (int64_t t = 0; t < p.windows.count; ++t) {
        const int64_t start = t * p.windows.step + p.windows.start, n = least(S, p.lanes - l);
        const int64_t first = most(-start, 0), last = most(least(p.used, in.n - start), first);
        const T* line = in.data + g * in.outer + l * in.lane + start * in.axis;
        T* out = p.out + t * p.window + g * p.outer + l;
        const int64_t ahead = l + S < p.lanes ? S : in.outer - l;
        memset(x[0], 0, first * sizeof *x);
        if (in.lane == 1)
          for (int64_t s = first; s < last; ++s) {
            store_pair(x[s], load_pair(line + s * in.axis, n), S);
            __builtin_prefetch(line + s * in.axis + ahead);  // far strides are not foreseen by the processor
          }
        else
          gather_lines<T>(line + first, in.lane, n, last - first, x + first);
        memset(x[last], 0, (size - last) * sizeof *x);
        spectrum<T>(x, size, p.table, y);
        memcpy(y[1], y[size], sizeof *y);
        for (int64_t f = 0; f < size / 2; ++f, out += p.bin) {
          const Pair<T> re = load_pair(y[2 * f], S), im = load_pair(y[2 * f + 1], S);
          if (turned && f == 0) {  // two numbers without imaginary part
            store_pair(out, re, n);
            store_pair(out + part, Pair<T>{}, n);
            store_pair(out + turned, Pair<T>{}, n);
            store_pair(out + turned + part, im, n);
            continue;
          }
          store_pair(out, re, n);
          store_pair(out + part, im, n);
          if (!turned) continue;
          store_pair(out + turned, Pair<T>{-im.a, -im.b}, n);
          store_pair(out + turned + part, re, n);
        }
      }
}

template <class T>
void synthesise(const Synthesis<T>& p, int64_t begin, int64_t end) {
  constexpr int64_t S = kStrip<T>, L = Simd<T>::lanes;
  alignas(64) Strip<T> z[kMostSamples], y[kMostSamples];
  const Lines<T>& to = p.lines;
  const int64_t size = p.windows.size, part = p.part, factor = p.factor;
  for (int64_t g = begin; g < end; ++g) {
    const V<T> bias = splat(p.bias ? p.bias[g] : T(0));
    for (int64_t l = 0; l < p.lanes; l += S)
      for (int64_t t = 0; t < p.windows.count; ++t) {
        const int64_t n = least(S, p.lanes - l), rows = least(p.windows.step, to.n - t * p.windows.step);
        const T* in = p.in + t * p.window + g * p.outer + l;
        for (int64_t f = 0; f < size / 2; ++f, in += p.bin) {
          Pair<T> re = load_pair(in, n), im = load_pair(in + part + (f ? 0 : factor), n);
          if (factor && f) {  // conj(w) x, of the four products of their parts
            const Pair<T> turned = load_pair(in + factor, n), both = load_pair(in + factor + part, n);
            re = {re.a + both.a, re.b + both.b};
            im = {im.a - turned.a, im.b - turned.b};
          }
          store_pair(z[2 * f], re, S);
          store_pair(z[2 * f + 1], im, S);
        }
        T* line = to.data + g * to.outer + l * to.lane + t * p.windows.step * to.axis;
        dense<T>(z, p.table, rows, size, y, 1);
        if (p.bias)
          for (int64_t j = 0; j < rows; ++j)
            for (int64_t i = 0; i < S; i += L) store(y[j] + i, load(y[j] + i) + bias);
        if (to.lane != 1) {
          scatter_lines<T>(y, rows, line, to.lane, n, p.add);
          continue;
        }
        for (int64_t j = 0; j < rows; ++j, line += to.axis) {
          Pair<T> v = load_pair(y[j], S);
          if (p.add) {
            const Pair<T> before = load_pair(line, n);
            v = {v.a + before.a, v.b + before.b};
          }
          store_pair(line, v, n);
        }
      }
  }
}

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::SpectrumTable<float> FASTSEG_FOR_ISA(spectrum_f32) = {fastseg::analyse<float>,
                                                                                fastseg::synthesise<float>};
extern "C" const fastseg::SpectrumTable<double> FASTSEG_FOR_ISA(spectrum_f64) = {fastseg::analyse<double>,
                                                                                 fastseg::synthesise<double>};
