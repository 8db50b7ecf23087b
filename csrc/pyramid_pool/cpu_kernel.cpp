// Adaptive max and mean pooling into several grids at once, and their gradients (He et al. 2014, "Spatial Pyramid
// Pooling in Deep Convolutional Networks", section 2.2; bins as in torch's adaptive pools).
//
// Forward: reads each value once, whatever the number of levels: 1 comparison or addition for each, in lanes over the
// columns of a row or the channels of a pixel. What is left, a row for each run of rows, is turned so that lanes are
// planes; 1 operation a value there, and 1 for each cell of each bin. Per plane in float32 4 h w bytes are read and 4
// total written (8 total with positions). Backward: the same bytes the other way.
//
// Order of sums: rows of a run, columns of a run, cells of a bin, levels; it depends on no lane and on no thread, so
// that all layouts give the same bits. Where we deviate: torch's pools add a bin in one go, once for each level.
#include "../common/simd.h"
#include "pyramid_pool.h"

namespace fastseg {
namespace {

template <class T>
using Place = typename Simd<T>::Int;

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

template <class T>
inline int64_t whole_vectors(int64_t n) {
  constexpr int L = Simd<T>::lanes;
  return (n + L - 1) / L * L;
}

// Calls use(image, channel, count) for the planes [begin, end), at most `most` of one image at a time.
template <class Use>
void each_block(int64_t channels, int64_t most, int64_t begin, int64_t end, const Use& use) {
  for (int64_t count; begin < end; begin += count) {
    const int64_t channel = begin % channels;
    count = smaller(most, smaller(channels - channel, end - begin));
    use(begin / channels, channel, count);
  }
}

struct Bin {
  int64_t at, apart;                 // of channel 0 in the vector of an image, and between channels
  int64_t top, bottom, left, right;  // runs
  int64_t area;
};

template <class Use>
void each_bin(const Pyramid& p, int64_t channels, const Use& use) {
  const Cuts &rows = p.rows, &columns = p.columns;
  int64_t at = 0, axis = 0;
  for (int64_t level = 0; level < p.levels; ++level) {
    const int64_t side = p.sides[level];
    for (int64_t y = axis; y < axis + side; ++y)
      for (int64_t x = axis; x < axis + side; ++x, ++at) {
        Bin bin{at, side * side, rows.first[y], rows.last[y], columns.first[x], columns.last[x], 0};
        bin.area = int64_t(rows.edges[bin.bottom] - rows.edges[bin.top]) *
                   (columns.edges[bin.right] - columns.edges[bin.left]);
        use(bin);
      }
    at += (channels - 1) * side * side;
    axis += side;
  }
}

inline char* address(const Strided& t, int64_t n, int64_t c, int64_t y, int64_t x) {
  return (char*)t.data + (n * t.stride_n + c * t.stride_c + y * t.stride_y + x * t.stride_x) * size_of(t.type);
}

// n values in place where they are dense and of this type, else widened to `buffer`.
template <class T>
inline const T* values(const char* p, Float type, int64_t n, int64_t stride, T* buffer) {
  if (stride == 1 && type == kNative<T>) return (const T*)p;
  widen(p, type, n, stride, buffer);
  return buffer;
}

// Row after row: value[i] and in[i] become one. NaN wins, and the last of them, as in torch's pools; else the first of
// equal values.
template <bool kMax, class T>
inline void fold(const T* __restrict in, int64_t n, Place<T> at, bool first, T* __restrict value,
                 Place<T>* __restrict place) {
  if (first) {
    memcpy(value, in, n * sizeof(T));
    if (kMax)
      for (int64_t i = 0; i < n; ++i) place[i] = at;
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (kMax) {
      const bool take = (in[i] > value[i]) | (in[i] != in[i]);
      value[i] = take ? in[i] : value[i];
      place[i] = take ? at : place[i];
    } else {
      value[i] += in[i];
    }
  }
}

// The same for vectors in any order, by their places.
template <bool kMax, class T>
inline void join(V<T>& value, I<T>& place, V<T> v, I<T> at) {
  if constexpr (kMax) {
    const I<T> take = (v > value) | ((v == value) & (at < place)) | ((v != v) & ((value == value) | (at > place)));
    value = take ? v : value;
    place = take ? at : place;
  } else {
    value += v;
  }
}

template <class E>
inline void spread(const E* __restrict in, int64_t n, int64_t apart, E* __restrict out) {
  for (int64_t i = 0; i < n; ++i) out[i * apart] = in[i];
}

template <bool kMax, class T>
struct Block {
  const Pool<T>& p;
  int64_t image, channel, count, pitch;
  int64_t width = p.x.w;
  T *buffer = p.scratch, *line = buffer + width + p.block, *row = line + width;
  T *cells = row + width * pitch, *end = cells + p.pyramid.rows.runs * p.pyramid.columns.runs * pitch;
  // A place for each value from `line` on.
  Place<T>* places = (Place<T>*)end;

  Block(const Pool<T>& pool, int64_t n, int64_t c, int64_t size)
      : p(pool), image(n), channel(c), count(size), pitch(whole_vectors<T>(size)) {}

  Place<T>* place_of(const T* value) const { return places + (value - line); }

  // A run of rows of each plane -> `row` [w, pitch], lanes over columns.
  void rows_of_planes(int64_t begin, int64_t stop) const {
    for (int64_t k = 0; k < count; ++k) {
      for (int64_t y = begin; y < stop; ++y) {
        const T* in = values(address(p.x, image, channel + k, y, 0), p.x.type, width, p.x.stride_x, buffer);
        fold<kMax>(in, width, Place<T>(y * width), y == begin, line, place_of(line));
      }
      spread(line, width, pitch, row + k);
      if (kMax) spread(place_of(line), width, pitch, place_of(row + k));
    }
  }

  // The same, lanes over channels.
  void rows_of_pixels(int64_t begin, int64_t stop) const {
    for (int64_t y = begin; y < stop; ++y)
      for (int64_t x = 0; x < width; ++x) {
        const T* in = values(address(p.x, image, channel, y, x), p.x.type, count, p.x.stride_c, buffer);
        fold<kMax>(in, count, Place<T>(y * width), y == begin, row + x * pitch, place_of(row + x * pitch));
      }
  }

  // `row` -> the cells of a run of rows.
  void columns(T* to) const {
    constexpr int L = Simd<T>::lanes;
    const Cuts& cuts = p.pyramid.columns;
    for (int64_t i = 0; i < cuts.runs; ++i)
      for (int64_t k = 0; k < pitch; k += L) {
        V<T> value{};
        I<T> place{};
        for (int64_t x = cuts.edges[i]; x < cuts.edges[i + 1]; ++x) {
          const T* in = row + x * pitch + k;
          const V<T> v = load(in);
          const I<T> at = kMax ? load_lanes<T>(place_of(in)) + Place<T>(x) : I<T>{};
          if (x > cuts.edges[i]) {
            join<kMax, T>(value, place, v, at);
          } else {
            value = v;
            place = at;
          }
        }
        store(to + i * pitch + k, value);
        if (kMax) memcpy(place_of(to + i * pitch + k), &place, sizeof place);
      }
  }

  // The cells of a bin -> the start of `row` [pitch].
  void join_cells(const Bin& bin) const {
    constexpr int L = Simd<T>::lanes;
    const T* corner = cells + (bin.top * p.pyramid.columns.runs + bin.left) * pitch;
    for (int64_t k = 0; k < pitch; k += L) {
      V<T> value = load(corner + k);
      I<T> place = kMax ? load_lanes<T>(place_of(corner + k)) : I<T>{};
      for (int64_t r = bin.top; r < bin.bottom; ++r)
        for (int64_t c = bin.left + (r == bin.top); c < bin.right; ++c) {
          const T* in = cells + (r * p.pyramid.columns.runs + c) * pitch + k;
          join<kMax, T>(value, place, load(in), kMax ? load_lanes<T>(place_of(in)) : I<T>{});
        }
      store(row + k, kMax ? value : value / splat(T(bin.area)));
      if (kMax) memcpy(place_of(row + k), &place, sizeof place);
    }
  }

  void run() const {
    const Cuts& cuts = p.pyramid.rows;
    for (int64_t i = 0; i < cuts.runs; ++i) {
      if (p.by_pixel)
        rows_of_pixels(cuts.edges[i], cuts.edges[i + 1]);
      else
        rows_of_planes(cuts.edges[i], cuts.edges[i + 1]);
      columns(cells + i * p.pyramid.columns.runs * pitch);
    }
    const int64_t total = p.pyramid.total;
    each_bin(p.pyramid, p.x.c, [&](const Bin& bin) {
      join_cells(bin);
      const int64_t at = image * p.x.c * total + bin.at + channel * bin.apart;
      narrow(row, count, bin.apart, (char*)p.out + at * size_of(p.x.type), p.x.type);
      if (kMax)
        for (int64_t k = 0; k < count; ++k) p.positions[at + k * bin.apart] = int32_t(place_of(row)[k]);
    });
  }
};

template <bool kMax, class T>
void pool(const Pool<T>& p, int64_t begin, int64_t end) {
  each_block(p.x.c, p.block, begin, end,
             [&](int64_t n, int64_t c, int64_t count) { Block<kMax, T>(p, n, c, count).run(); });
}

// Scattered, but by one thread within a plane and in the order of the bins. Narrow types are summed in planes of T.
template <class T>
void max_backward(const Spread<T>& p, int64_t begin, int64_t end) {
  const Strided& out = p.out;
  const int64_t pixels = out.h * out.w, total = p.pyramid.total;
  const bool direct = out.type == kNative<T>;
  each_block(out.c,
             !p.by_pixel ? 1
             : direct    ? kChannels
                         : kPlanes,
             begin, end, [&](int64_t n, int64_t c, int64_t count) {
               char* const first = address(out, n, c, 0, 0);
               T* const to = direct ? (T*)first : p.scratch;
               // Of pixels: one plane is dense, of several the channels are.
               const int64_t apart = !p.by_pixel ? 1 : direct ? out.c : count, length = p.by_pixel ? count : pixels;
               for (int64_t i = 0; i < count * pixels / length; ++i) memset(to + i * apart, 0, length * sizeof(T));
               each_bin(p.pyramid, out.c, [&](const Bin& bin) {
                 for (int64_t k = 0; k < count; ++k) {
                   const int64_t at = n * out.c * total + bin.at + (c + k) * bin.apart;
                   const int64_t position = p.positions[at];
                   T grad;
                   widen((const char*)p.grad + at * size_of(out.type), out.type, 1, 1, &grad);
                   if (position >= 0 && position < pixels)
                     to[position * apart + k] += grad;
                   else if (*p.bad < 0 || at < *p.bad)
                     *p.bad = at;
                 }
               });
               if (direct) return;
               for (int64_t i = 0; i < count * pixels / length; ++i)
                 narrow(to + i * length, length, 1, first + i * out.c * size_of(out.type), out.type);
             });
}

template <class T>
void mean_backward(const Spread<T>& p, int64_t begin, int64_t end) {
  constexpr int L = Simd<T>::lanes;
  const Strided& out = p.out;
  const Cuts &rows = p.pyramid.rows, &columns = p.pyramid.columns;
  const int64_t size = size_of(out.type);
  each_block(out.c, p.block, begin, end, [&](int64_t n, int64_t c, int64_t count) {
    const int64_t pitch = whole_vectors<T>(count);
    T *grad = p.scratch, *cells = grad + p.block, *line = cells + rows.runs * columns.runs * pitch;
    memset(grad, 0, (line - grad) * sizeof(T));
    each_bin(p.pyramid, out.c, [&](const Bin& bin) {
      const int64_t at = n * out.c * p.pyramid.total + bin.at + c * bin.apart;
      widen((const char*)p.grad + at * size, out.type, count, bin.apart, grad);
      for (int64_t k = 0; k < pitch; k += L) {
        const V<T> g = load(grad + k) / splat(T(bin.area));
        for (int64_t r = bin.top; r < bin.bottom; ++r)
          for (int64_t i = bin.left; i < bin.right; ++i) {
            T* cell = cells + (r * columns.runs + i) * pitch + k;
            store(cell, load(cell) + g);
          }
      }
    });
    for (int64_t r = 0; r < rows.runs; ++r) {
      const T* of_run = cells + r * columns.runs * pitch;
      const int64_t top = rows.edges[r], bottom = rows.edges[r + 1];
      if (p.by_pixel) {
        for (int64_t y = top; y < bottom; ++y)
          for (int64_t i = 0; i < columns.runs; ++i)
            for (int64_t x = columns.edges[i]; x < columns.edges[i + 1]; ++x)
              narrow(of_run + i * pitch, count, 1, address(out, n, c, y, x), out.type);
        continue;
      }
      for (int64_t k = 0; k < count; ++k) {
        for (int64_t i = 0; i < columns.runs; ++i)
          for (int64_t x = columns.edges[i]; x < columns.edges[i + 1]; ++x) line[x] = of_run[i * pitch + k];
        char* const row = address(out, n, c + k, top, 0);
        narrow(line, out.w, 1, row, out.type);
        for (int64_t y = 1; y < bottom - top; ++y) memcpy(row + y * out.w * size, row, out.w * size);
      }
    }
  });
}

template <class T>
constexpr PyramidPoolKernels<T> kKernels{pool<true, T>, pool<false, T>, max_backward<T>, mean_backward<T>};

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::PyramidPoolKernels<float> FASTSEG_FOR_ISA(pyramid_pool_f32) = fastseg::kKernels<float>;
extern "C" const fastseg::PyramidPoolKernels<double> FASTSEG_FOR_ISA(pyramid_pool_f64) = fastseg::kKernels<double>;
