// Depthwise atrous convolution: y(o) = sum_t w_t x(o s - p + t r), one filter for each channel.
//
// 2 FLOPs per tap and output. Memory moves each input once and each output once: 8 bytes per output in float32 at
// stride 1, which binds.
//
// What a piece of rows reads is copied between columns of zeros, in the L1 or L2 cache, so that the taps need no bounds
// along x; rows outside of the map are left out. NCHW: lanes are columns of a plane. channels_last: lanes are channels
// of a pixel, and a column is a vector; the copy also brings lines together that lie a power of two apart in many maps
// and would compete for the same few places of the caches.
#include "atrous_conv.h"

namespace fastseg {
namespace {

// FASTSEG_INLINE where constant arguments make the code of their own case; this is for lambdas.
#define FASTSEG_INLINE_LAMBDA __attribute__((always_inline))

// Sums that are formed side by side, so that a multiplication does not wait for the last: of a row, at most, and of a
// line of channels.
constexpr int kMost = 6, kVectors = 8;

template <int n>
struct Constant {
  constexpr int operator()() const { return n; }
};

// Rows or taps [first, last).
struct Range {
  int64_t first, last;
};

// Taps of an axis that read inside of the map for output o.
inline Range live_taps(const ConvAxis& a, int64_t o) {
  const int64_t start = o * a.stride - a.padding;  // of tap 0
  if (start >= 0 && start + (a.taps - 1) * a.dilation < a.in) return {0, a.taps};
  const int64_t first = start < 0 ? (-start + a.dilation - 1) / a.dilation : 0;
  int64_t last = start < a.in ? (a.in - 1 - start) / a.dilation + 1 : 0;
  if (last > a.taps) last = a.taps;
  return {first, first < last ? last : first};
}

// Rows of the source that the outputs [first, last) read.
template <class T>
Range window_of(const Depthwise<T>& p, int64_t first, int64_t last) {
  const int64_t top = first * p.rows.stride - p.rows.padding;
  const int64_t bottom = (last - 1) * p.rows.stride - p.rows.padding + p.halo() + 1;
  return {top < 0 ? 0 : top, bottom < p.rows.in ? bottom : p.rows.in};
}

template <class T>
inline void copy_row(const T* from, T* to, int64_t n) {
  constexpr int64_t L = Simd<T>::lanes;
  if (n < L) {
    memcpy(to, from, n * sizeof(T));
    return;
  }
  for (int64_t i = 0; i + L <= n; i += L) store(to + i, load(from + i));
  store(to + n - L, load(from + n - L));
}

// Copies rows of a plane to the scratch, `padding` behind a row's begin; the zeros about them are there.
template <class T>
void copy_plane(const Depthwise<T>& p, const T* x, Range window) {
  const int64_t width = p.padded_width(), in = p.columns.in;
  for (int64_t y = window.first; y < window.last; ++y)
    copy_row(x + y * in, p.scratch + (y - window.first) * width + p.columns.padding, in);
}

// Copies `channels` of the pixels of an image to the scratch, pixel by pixel, a block for each.
template <class T>
void copy_pixels(const Depthwise<T>& p, const T* x, int64_t channels, Range window) {
  const T* from = x + window.first * p.columns.in * p.c;
  T* to = p.scratch;
  for (int64_t i = 0; i < (window.last - window.first) * p.columns.in; ++i, from += p.c, to += p.block())
    copy_row(from, to, channels);
}

// `stride` apart, from p on.
template <class T>
inline V<T> load_apart(const T* p, int64_t stride) {
  if (stride == 1) return load(p);
  V<T> v;
  for (int l = 0; l < Simd<T>::lanes; ++l) v[l] = p[l * stride];
  return v;
}

// The same, of n <= lanes; the other lanes are zero.
template <class T>
inline V<T> load_apart(const T* p, int64_t stride, int64_t n) {
  if (n == Simd<T>::lanes) return load_apart(p, stride);
  V<T> v{};
  for (int64_t l = 0; l < n; ++l) v[l] = p[l * stride];
  return v;
}

template <Activation act, class T>
FASTSEG_INLINE void write(T* y, const T* residual, int64_t left, V<T> sum, V<T> scale, V<T> shift) {
  const bool whole = left >= Simd<T>::lanes;
  V<T> z{};
  if (residual) z = whole ? load(residual) : load_part(residual, left);
  const V<T> r = finished<T>(sum, scale, shift, z, act);
  if (whole)
    store(y, r);
  else
    store_part(y, r, left);
}

// `vectors` of outputs of a row, of which `left` are there, whole vectors or one; `source` is what tap (0, 0) reads for
// the first. The last of several vectors begins earlier where it would pass the end.
template <Activation act, int vectors, class T>
FASTSEG_INLINE void columns(const T* source, const T* weight, Range live, int64_t row_step, int64_t step, int64_t kw,
                            int64_t stride, int64_t left, V<T> scale, V<T> shift, T* y, const T* residual) {
  constexpr int64_t L = Simd<T>::lanes;
  const int64_t tail = left >= L && left < vectors * L ? left - L : (vectors - 1) * L;
  const auto at = [&](int v) FASTSEG_INLINE_LAMBDA { return v < vectors - 1 ? v * L : tail; };
  V<T> sums[vectors];
  for (int v = 0; v < vectors; ++v) sums[v] = V<T>{};  // = {} would be a slow string instruction
  for (int64_t ky = live.first; ky < live.last; ++ky)
    for (int64_t kx = 0; kx < kw; ++kx) {
      const V<T> w = splat(weight[ky * kw + kx]);
      const T* tap = source + ky * row_step + kx * step;
      for (int v = 0; v < vectors; ++v)
        sums[v] = multiply_add<T>(w, load_apart<T>(tap + at(v) * stride, stride), sums[v]);
    }
  for (int v = 0; v < vectors; ++v)
    write<act>(y + at(v), residual ? residual + at(v) : nullptr, vectors > 1 ? L : left, sums[v], scale, shift);
}

// The last vectors of a row, `left` of them.
template <int most, class Part>
FASTSEG_INLINE void rest(const Part& part, int64_t x, int64_t left) {
  if constexpr (most > 0) {
    if (left == most)
      part(Constant<most>{}, x);
    else
      rest<most - 1>(part, x, left);
  }
}

template <Activation act, class T>
FASTSEG_INLINE void planes(const Depthwise<T>& p, int64_t kw, int64_t stride, int64_t begin, int64_t end) {
  constexpr int64_t L = Simd<T>::lanes;
  const int64_t width = p.padded_width(), out = p.columns.out;
  const Epilogue<T>& e = p.epilogue;
  memset(p.scratch, 0, p.scratch_size() * sizeof(T));
  for (int64_t task = begin; task < end; ++task) {
    const int64_t plane = task / p.pieces(), channel = plane % p.c, first = task % p.pieces() * p.piece;
    const int64_t last = p.row_count - first < p.piece ? p.row_count : first + p.piece;
    const Range window = window_of(p, p.first_row + first, p.first_row + last);
    copy_plane(p, p.x + plane * p.rows.in * p.columns.in, window);
    const T* weight = p.weight + channel * p.taps();
    const V<T> scale = splat(e.scale ? e.scale[channel] : T(1)), shift = splat(e.shift ? e.shift[channel] : T(0));
    for (int64_t i = first; i < last; ++i) {
      const int64_t o = p.first_row + i, at = (plane * p.row_count + i) * out;
      const Range live = live_taps(p.rows, o);
      const T* source = p.scratch + (o * p.rows.stride - p.rows.padding - window.first) * width;
      const auto part = [&](auto vectors, int64_t x) FASTSEG_INLINE_LAMBDA {
        columns<act, vectors()>(source + x * stride, weight, live, p.rows.dilation * width, p.columns.dilation, kw,
                                stride, out - x, scale, shift, p.y + at + x,
                                e.residual ? e.residual + at + x : nullptr);
      };
      int64_t x = 0;
      for (; x + kMost * L <= out; x += kMost * L) part(Constant<kMost>{}, x);
      rest<kMost>(part, x, (out - x + L - 1) / L);
    }
  }
}

// `pixels` of outputs of a line of channels, of which `left` are there; `source` is what tap (ky, kx) = (0, 0) reads.
template <Activation act, int pixels, class T>
FASTSEG_INLINE void line(const T* source, const T* weight, Range live_y, Range live_x, int64_t row_step, int64_t step,
                         int64_t pixel_step, int64_t kw, int64_t left, const Epilogue<T>& e, int64_t channel, T* y,
                         const T* residual, int64_t c) {
  constexpr int64_t L = Simd<T>::lanes, kLine = Depthwise<T>::kLine;
  constexpr int kParts = int(kLine / L);
  V<T> sums[pixels * kParts];
  for (V<T>& sum : sums) sum = V<T>{};
  for (int64_t ky = live_y.first; ky < live_y.last; ++ky)
    for (int64_t kx = live_x.first; kx < live_x.last; ++kx)
      for (int v = 0; v < kParts; ++v) {
        const V<T> w = load(weight + (ky * kw + kx) * kLine + v * L);
        for (int i = 0; i < pixels; ++i)
          sums[i * kParts + v] = multiply_add<T>(w, load(source + ky * row_step + kx * step + i * pixel_step + v * L),
                                                 sums[i * kParts + v]);
      }
  for (int v = 0; v < kParts; ++v) {
    const int64_t n = left - v * L;
    if (n <= 0) return;
    const auto part = [&](const T* from) {
      return n >= L ? load(from + channel + v * L) : load_part(from + channel + v * L, n);
    };
    const V<T> scale = e.scale ? part(e.scale) : splat(T(1)), shift = e.shift ? part(e.shift) : V<T>{};
    for (int i = 0; i < pixels; ++i)
      write<act>(y + i * c + v * L, residual ? residual + i * c + v * L : nullptr, n, sums[i * kParts + v], scale,
                 shift);
  }
}

template <Activation act, class T>
FASTSEG_INLINE void pixels(const Depthwise<T>& p, int64_t kw, int64_t begin, int64_t end) {
  constexpr int64_t kLine = Depthwise<T>::kLine;
  constexpr int kPixels = kVectors * Simd<T>::lanes / kLine > 1 ? int(kVectors * Simd<T>::lanes / kLine) : 1;
  const int64_t taps = p.taps(), row_step = p.rows.dilation * p.row_size(), step = p.columns.dilation * p.block();
  const int64_t pixel_step = p.columns.stride * p.block();
  T* weights = p.scratch + p.copy_size();
  memset(p.scratch, 0, p.scratch_size() * sizeof(T));  // channels that a last line lacks
  for (int64_t task = begin; task < end; ++task) {
    const int64_t image = task / (p.blocks() * p.pieces()), block = task / p.pieces() % p.blocks() * p.block();
    const int64_t first = task % p.pieces() * p.piece, channels = p.c - block < p.block() ? p.c - block : p.block();
    const int64_t last = p.row_count - first < p.piece ? p.row_count : first + p.piece;
    const Range window = window_of(p, p.first_row + first, p.first_row + last);
    const T* x = p.x + image * p.rows.in * p.columns.in * p.c + block;
    if (!p.in_place) copy_pixels(p, x, channels, window);
    const T* row_0 = p.in_place ? x : p.scratch - window.first * p.row_size();
    for (int64_t c = 0; c < channels; c += kLine)
      for (int64_t t = 0; t < taps; ++t)
        memcpy(weights + c * taps + t * kLine, p.weight + t * p.c + block + c,
               (channels - c < kLine ? channels - c : kLine) * sizeof(T));
    for (int64_t i = first; i < last; ++i) {
      const int64_t o = p.first_row + i, at = ((image * p.row_count + i) * p.columns.out) * p.c + block;
      const Range live_y = live_taps(p.rows, o);
      const T* source = row_0 + (o * p.rows.stride - p.rows.padding) * p.row_size() - p.columns.padding * p.block();
      for (const Segment* s = p.segments; s->start < p.columns.out; ++s) {
        const auto part = [&](auto count, int64_t x, Range live_y, Range live_x) FASTSEG_INLINE_LAMBDA {
          for (int64_t c = 0; c < channels; c += kLine) {
            const int64_t to = at + x * p.c + c;
            line<act, count()>(source + x * pixel_step + c, weights + c * taps, live_y, live_x, row_step, step,
                               pixel_step, kw, channels - c, p.epilogue, block + c, p.y + to,
                               p.epilogue.residual ? p.epilogue.residual + to : nullptr, p.c);
          }
        };
        int64_t x = s->start;
        if (kw == 3 && s->last - s->first == 3 && live_y.last - live_y.first == 3)  // the usual case, unrolled
          for (; x + kPixels <= s[1].start; x += kPixels) part(Constant<kPixels>{}, x, {0, 3}, {0, 3});
        for (; x + kPixels <= s[1].start; x += kPixels) part(Constant<kPixels>{}, x, live_y, {s->first, s->last});
        for (; x < s[1].start; ++x) part(Constant<1>{}, x, live_y, {s->first, s->last});
      }
    }
  }
}

template <Activation act, class T>
void walk(const Depthwise<T>& p, int64_t begin, int64_t end) {
  const int64_t kw = p.columns.taps, stride = p.columns.stride;
  if (p.channels_last)
    kw == 3 ? pixels<act>(p, 3, begin, end) : pixels<act>(p, kw, begin, end);
  else
    kw == 3 && stride == 1 ? planes<act>(p, 3, 1, begin, end) : planes<act>(p, kw, stride, begin, end);
}

template <class T>
void forward(const Depthwise<T>& p, int64_t begin, int64_t end) {
  switch (p.epilogue.activation) {
    case Activation::none:
      return walk<Activation::none>(p, begin, end);
    case Activation::relu:
      return walk<Activation::relu>(p, begin, end);
    case Activation::relu6:
      return walk<Activation::relu6>(p, begin, end);
    case Activation::silu:
      return walk<Activation::silu>(p, begin, end);
  }
}

template <class T>
inline T sum_of(V<T> v) {
  T sum = 0;
  for (int l = 0; l < Simd<T>::lanes; ++l) sum += v[l];
  return sum;
}

// The sum over the outputs of gradient times the input that a tap reads. Rows are summed in T, their sums in double.
template <class T>
void weight_gradient(const Depthwise<T>& p, double* sums, T* grad, int64_t begin, int64_t end) {
  constexpr int64_t L = Simd<T>::lanes;
  const int64_t width = p.padded_width(), out = p.columns.out, kw = p.columns.taps, stride = p.columns.stride;
  const int64_t taps = p.rows.taps * kw;
  memset(p.scratch, 0, p.piece_rows() * p.row_size() * sizeof(T));
  for (int64_t channel = begin; channel < end; ++channel) {
    memset(sums, 0, taps * sizeof(double));
    for (int64_t image = 0; image < p.images; ++image) {
      const int64_t plane = image * p.c + channel;
      const Range window = window_of(p, 0, p.rows.out);
      copy_plane(p, p.x + plane * p.rows.in * p.columns.in, window);
      const T* padded = p.scratch - window.first * width;
      const T* upstream = p.y + plane * p.rows.out * out;
      for (int64_t o = 0; o < p.rows.out; ++o) {
        const Range live = live_taps(p.rows, o);
        for (int64_t t = live.first * kw; t < live.last * kw; ++t) {
          const int64_t row = o * p.rows.stride - p.rows.padding + t / kw * p.rows.dilation;
          const T* from = padded + row * width + t % kw * p.columns.dilation;
          V<T> sum{};
          for (int64_t x = 0; x < out; x += L) {
            const int64_t n = out - x < L ? out - x : L;  // beyond them the tap reads nothing, were it NaN
            sum =
                multiply_add<T>(load_part(upstream + o * out + x, n), load_apart<T>(from + x * stride, stride, n), sum);
          }
          sums[t] += sum_of<T>(sum);
        }
      }
    }
    for (int64_t t = 0; t < taps; ++t) grad[channel * taps + t] = T(sums[t]);
  }
}

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::DepthwiseTable<float> FASTSEG_FOR_ISA(depthwise_f32) = {fastseg::forward<float>,
                                                                                  fastseg::weight_gradient<float>};
extern "C" const fastseg::DepthwiseTable<double> FASTSEG_FOR_ISA(depthwise_f64) = {fastseg::forward<double>,
                                                                                   fastseg::weight_gradient<double>};
