// Backwards of the upsample family: the adjoint of bilinear interpolation, of a gradient that is read (bilinear),
// formed from two reads (softmax) or recomputed from the log-sum-exp (cross-entropy).
//
// Gathered, without atomics: a chunk of source rows walks its output rows in order and owns its gradient; what falls on
// the first row of the next chunk goes to an edge buffer that is added afterwards. Chunks depend on the shape alone, so
// results are bitwise equal at any thread count. The vertical sum is taken first (2 multiply-adds per class and pixel,
// in registers), the horizontal one once per cell row.
#include "columns.h"

namespace fastseg {
namespace {

// Output pixels [x0, x1) x [y0, y1) of one cell row; at most kTile x kTileRows.
template <class T>
struct Tile {
  int64_t image, x0, x1, y0, y1;
};

template <class T>
T* row_below(const Adjoint<T>& p, int64_t image, int64_t chunk, int64_t row, int64_t c, bool same) {
  const int64_t next = same ? row : row + 1;
  if (next < (chunk + 1) * p.chunk || next >= p.y.in) return p.grad + ((image * p.c + c) * p.y.in + next) * p.x.in;
  return p.edge + ((image * p.chunks + chunk) * p.c + c) * p.x.in;
}

// The horizontal weights of a tile as l l r r per column (l of the left neighbour, r of the right one).
template <class T>
void quads(const Axis<T>& x, int64_t x0, int64_t x1, T* out) {
  for (int64_t at = x0; at < x1; ++at, out += 4) {
    out[0] = out[1] = x.lower_weight[at];
    out[2] = out[3] = x.upper_weight[at];
  }
}

// Adds the columns of a tile to the source rows above and below it. Per column `pairs` holds its two sums over rows,
// with the weights of the row above and of the row below.
template <class T>
void gather(const Axis<T>& x, int64_t x0, int64_t x1, const T* weights, const T* pairs, T* above, T* below) {
  using Four = typename Narrow<T, 4>::type;
  const auto term = [=](int64_t at) {
    const T* p = pairs + 2 * (at - x0);
    Four w;
    memcpy(&w, weights + 4 * (at - x0), sizeof w);
    return w * Four{p[0], p[1], p[0], p[1]};
  };
  for (int64_t at = x0; at < x1;) {
    const int64_t i = x.lower[at], j = x.upper[at], stop = least(x.first[i + 1], x1);
    Four sum = {}, odd = {};  // two chains: the additions are what takes time
    for (; at + 2 <= stop; at += 2) {
      sum += term(at);
      odd += term(at + 1);
    }
    if (at < stop) sum += term(at++);
    sum += odd;
    above[i] += sum[0];
    below[i] += sum[1];
    above[j] += sum[2];
    below[j] += sum[3];
  }
}

// Walks the tiles of a chunk: prepare(tile), then term(tile, class, column, row) -> gradient of the upsampled value.
template <class T, class Prepare, class Term>
void each_tile(const Adjoint<T>& p, int64_t index, const Prepare& prepare, const Term& term) {
  constexpr int L = Simd<T>::lanes;
  const int64_t image = index / p.chunks, chunk = index % p.chunks;
  T pairs[2 * kTile], weights[4 * kTile];
  for (int64_t r = chunk * p.chunk; r < least((chunk + 1) * p.chunk, p.y.in); ++r) {
    const CellRow<T> cell(p.y, image * p.y.in + r);
    for (int64_t y = cell.begin; y < cell.end; y += kTileRows)
      for (int64_t x = 0; x < p.x.out; x += kTile) {
        const Tile<T> tile{image, x, least(x + kTile, p.x.out), y, least(y + kTileRows, cell.end)};
        prepare(tile, cell);
        quads(p.x, tile.x0, tile.x1, weights);
        for (int64_t c = 0; c < p.c; ++c) {
          for (int64_t at = tile.x0; at < tile.x1; at += L) {
            V<T> above = {}, below = {};
            const auto value = term(tile, cell, c, at);
            for (int64_t row = tile.y0; row < tile.y1; ++row) {
              const V<T> g = value(row);
              above += g * p.y.lower_weight[row];
              below += g * p.y.upper_weight[row];
            }
            store_pairs<T>(pairs + 2 * (at - tile.x0), above, below);
          }
          gather(p.x, tile.x0, tile.x1, weights, pairs, p.grad + ((image * p.c + c) * p.y.in + r) * p.x.in,
                 row_below(p, image, chunk, r, c, cell.below == r));
        }
      }
  }
}

// Up to one vector of row (n, c, y) of a strided tensor from column x on; zeros beyond the last column.
template <class T>
V<T> read(const Strided& t, int64_t n, int64_t c, int64_t y, int64_t x) {
  constexpr int L = Simd<T>::lanes;
  const int64_t at = n * t.stride_n + c * t.stride_c + y * t.stride_y + x * t.stride_x;
  if (t.stride_x == 1 && x + L <= t.w && t.type == kNative<T>) return load((const T*)t.data + at);
  T lanes[L] = {};
  widen((const char*)t.data + at * size_of(t.type), t.type, least(L, t.w - x), t.stride_x, lanes);
  return load(lanes);
}

template <class T>
void bilinear(const Adjoint<T>& p, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i)
    each_tile(
        p, i, [](const Tile<T>&, const CellRow<T>&) {},
        [&](const Tile<T>& tile, const CellRow<T>&, int64_t c, int64_t x) {
          return [&p, &tile, c, x](int64_t y) { return read<T>(p.upstream, tile.image, c, y, x); };
        });
}

template <class T>
void softmax(const Adjoint<T>& p, int64_t begin, int64_t end) {
  constexpr int L = Simd<T>::lanes;
  T* dot = p.scratch;  // [kTileRows, kTile]
  for (int64_t i = begin; i < end; ++i)
    each_tile(
        p, i,
        [&](const Tile<T>& tile, const CellRow<T>&) {
          for (int64_t y = tile.y0; y < tile.y1; ++y)
            for (int64_t x = tile.x0; x < tile.x1; x += L) {
              V<T> sum = {};
              for (int64_t c = 0; c < p.c; ++c)
                sum += read<T>(p.upstream, tile.image, c, y, x) * read<T>(p.output, tile.image, c, y, x);
              store(dot + (y - tile.y0) * kTile + (x - tile.x0), sum);
            }
        },
        [&](const Tile<T>& tile, const CellRow<T>&, int64_t c, int64_t x) {
          return [&p, &tile, dot, c, x](int64_t y) {
            const V<T> mean = load(dot + (y - tile.y0) * kTile + (x - tile.x0));
            return read<T>(p.output, tile.image, c, y, x) * (read<T>(p.upstream, tile.image, c, y, x) - mean);
          };
        });
}

// With g the gradient of a pixel's loss times its pixel weight, w the class weights and e the smoothing:
//   d/dz_c = p_c A - [c = t] B - w_c D,   A = B + D sum(w),   B = g (1 - e) w_t,   D = g e / C,   p_c = exp(z_c - lse)
template <class T, bool kSmooth>
void cross_entropy_as(const Adjoint<T>& p, int64_t begin, int64_t end) {
  constexpr int L = Simd<T>::lanes;
  constexpr int64_t kPixels = kTile * kTileRows;
  using Scalar = typename Simd<T>::Int;
  T *A = p.scratch, *B = A + kPixels, *D = B + kPixels, *lse = D + kPixels;
  Scalar* label = (Scalar*)(lse + kPixels);
  T total = 0;
  for (int64_t c = 0; c < p.c; ++c) total += p.weight ? p.weight[c] : T(1);

  const auto prepare = [&](const Tile<T>& tile, const CellRow<T>&) {
    const int64_t n = tile.x1 - tile.x0, m = (n + L - 1) / L * L;
    for (int64_t y = tile.y0; y < tile.y1; ++y) {
      const int64_t row = (tile.image * p.y.out + y) * p.x.out + tile.x0, at = (y - tile.y0) * kTile;
      int32_t target[kTile];
      T g[kTile];
      widen_labels((const char*)p.target + row * size_of(p.target_type), p.target_type, n, target);
      for (int64_t i = n; i < m; ++i) target[i] = -1;
      const int32_t ignored = p.ignore_index, classes = int32_t(p.c);
      for (int64_t i = 0; i < m; ++i)
        target[i] = (target[i] != ignored) & (target[i] >= 0) & (target[i] < classes) ? target[i] : -1;
      const T first = p.loss_grad[0] * p.scale;
      for (int64_t i = 0; i < m; ++i) g[i] = first;
      if (p.loss_grad_stride)
        for (int64_t i = 0; i < n; ++i) g[i] = p.loss_grad[row + i] * p.scale;
      if (p.pixel_weight)
        for (int64_t i = 0; i < n; ++i) g[i] *= p.pixel_weight[row + i];
      for (int64_t i = 0; i < m; ++i) g[i] = target[i] >= 0 ? g[i] : T(0);
      for (int64_t i = 0; i < m; ++i) B[at + i] = g[i] * (1 - p.smoothing);
      if (p.weight)
        for (int64_t i = 0; i < n; ++i) B[at + i] *= p.weight[target[i] < 0 ? 0 : target[i]];
      for (int64_t i = 0; i < m; ++i) D[at + i] = g[i] * (p.smoothing / T(p.c));
      for (int64_t i = 0; i < m; ++i) A[at + i] = B[at + i] + D[at + i] * total;
      for (int64_t i = 0; i < m; ++i) label[at + i] = target[i];
      memcpy(lse + at, p.lse + row, n * sizeof(T));
      for (int64_t i = n; i < m; ++i) lse[at + i] = 0;
    }
  };

  const auto term = [&](const Tile<T>& tile, const CellRow<T>& cell, int64_t c, int64_t x) {
    const Maps<T>& s = p.source;
    const Columns<T> k = columns(p.x, x);
    const T* plane = s.data + tile.image * s.stride_n + c * s.stride_c;
    const V<T> top = along(plane + cell.row * s.stride_y, k), bottom = along(plane + cell.below * s.stride_y, k);
    const T w = p.weight ? p.weight[c] : T(1);
    const int64_t from = tile.y0 * kTile + tile.x0 - x;
    return [=, wa = p.y.lower_weight, wb = p.y.upper_weight](int64_t y) {
      const int64_t at = y * kTile - from;
      const V<T> probability = exponential(top * wa[y] + (bottom * wb[y] - load(lse + at)));
      const I<T> hit = load_lanes<T>(label + at) == Scalar(c);
      V<T> g = probability * load(A + at) - (hit ? load(B + at) : V<T>{});
      if (kSmooth) g -= load(D + at) * w;
      return g;
    };
  };
  for (int64_t i = begin; i < end; ++i) each_tile(p, i, prepare, term);
}

template <class T>
void cross_entropy(const Adjoint<T>& p, int64_t begin, int64_t end) {
  if (p.smoothing != 0)
    cross_entropy_as<T, true>(p, begin, end);
  else
    cross_entropy_as<T, false>(p, begin, end);
}

// channels_last: lanes run over the channels of a pixel; rows are summed vertically in tiles first.
template <class T>
void bilinear_channels_last(const Adjoint<T>& p, int64_t begin, int64_t end) {
  const Strided& t = p.upstream;
  const bool direct = t.type == kNative<T>;
  constexpr int64_t kColumns = 96;
  const int64_t width = kColumns * p.c;
  T *a = p.scratch, *b = a + width, *wide = b + width;  // [kColumns, c] each
  for (int64_t index = begin; index < end; ++index) {
    const int64_t image = index / p.chunks, chunk = index % p.chunks;
    for (int64_t r = chunk * p.chunk; r < least((chunk + 1) * p.chunk, p.y.in); ++r) {
      const CellRow<T> cell(p.y, image * p.y.in + r);
      T* above = p.grad + (image * p.y.in + r) * p.x.in * p.c;
      const int64_t next = cell.below;
      T* below = next < (chunk + 1) * p.chunk ? p.grad + (image * p.y.in + next) * p.x.in * p.c
                                              : p.edge + index * p.x.in * p.c;
      for (int64_t x = 0; x < p.x.out && cell.begin < cell.end; x += kColumns) {
        const int64_t n = least(kColumns, p.x.out - x) * p.c;
        for (int64_t i = 0; i < n; ++i) a[i] = b[i] = 0;
        for (int64_t y = cell.begin; y < cell.end; ++y) {
          const char* from =
              (const char*)t.data + (image * t.stride_n + y * t.stride_y + x * t.stride_x) * size_of(t.type);
          if (!direct) widen(from, t.type, n, 1, wide);
          const T* g = direct ? (const T*)from : wide;
          const T wa = p.y.lower_weight[y], wb = p.y.upper_weight[y];
          for (int64_t i = 0; i < n; ++i) {
            a[i] += wa * g[i];
            b[i] += wb * g[i];
          }
        }
        for (int64_t at = x; at < least(x + kColumns, p.x.out); ++at) {
          const T l = p.x.lower_weight[at], u = p.x.upper_weight[at];
          const T *ga = a + (at - x) * p.c, *gb = b + (at - x) * p.c;
          const int64_t i = p.x.lower[at] * p.c, j = p.x.upper[at] * p.c;
          for (int64_t k = 0; k < p.c; ++k) {
            above[i + k] += l * ga[k];
            below[i + k] += l * gb[k];
          }
          for (int64_t k = 0; k < p.c; ++k) {
            above[j + k] += u * ga[k];
            below[j + k] += u * gb[k];
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::AdjointKernels<float> FASTSEG_FOR_ISA(adjoint_f32) = {
    fastseg::bilinear<float>, fastseg::bilinear_channels_last<float>, fastseg::softmax<float>,
    fastseg::cross_entropy<float>};
extern "C" const fastseg::AdjointKernels<double> FASTSEG_FOR_ISA(adjoint_f64) = {
    fastseg::bilinear<double>, fastseg::bilinear_channels_last<double>, fastseg::softmax<double>,
    fastseg::cross_entropy<double>};
