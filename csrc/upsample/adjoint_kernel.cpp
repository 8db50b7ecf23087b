// Backwards of the upsample family: the adjoint of bilinear interpolation, of a gradient that is read (bilinear),
// formed from two reads (softmax) or recomputed from the logarithms of the sums (cross-entropy).
//
// Gathered, without atomics: a chunk of source rows walks its output rows in order and owns its gradient; what falls on
// the first row of the next chunk goes to an edge buffer that is added afterwards. Chunks depend on the shape alone, so
// results are bitwise equal at any thread count. The vertical sum is taken first (2 multiply-adds per class and pixel);
// what the output rows above and below a source row give is summed before the horizontal one, once per source row.
#include "adjoint.h"

namespace fastseg {
namespace {

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

// A few classes at a time and row by row, so that the gradient is read as it lies in memory.
template <class T>
void bilinear(const Adjoint<T>& p, int64_t begin, int64_t end) {
  constexpr int64_t kRowsAtOnce = 4;
  const auto sum_rows = [&](const CellRow<T>& cell, int64_t c, int64_t x0, int64_t x1, T* above, T* below) {
    for (int64_t y = cell.begin; y < cell.end; y += kRowsAtOnce)
      for (int64_t at = 0; at < x1 - x0; at += Simd<T>::lanes) {
        Column<T> column(p.y, above + at, below + at);
        for (int64_t row = y; row < least(y + kRowsAtOnce, cell.end); ++row)
          column.add(read<T>(p.upstream, cell.image, c, row, x0 + at), row);
      }
  };
  for (int64_t i = begin; i < end; ++i)
    for (int64_t c0 = 0; c0 < p.c; c0 += kTogether) {
      const int64_t c1 = least(c0 + kTogether, p.c);
      each_strip<kWide>(p, i, c0, c1, p.scratch,
                        [&](const CellRow<T>& cell, int64_t x0, int64_t x1, T* above, T* below) {
                          for (int64_t c = c0; c < c1; ++c, above += kWide, below += kWide)
                            sum_rows(cell, c, x0, x1, above, below);
                        });
    }
}

template <class T>
void softmax(const Adjoint<T>& p, int64_t begin, int64_t end) {
  constexpr int L = Simd<T>::lanes;
  T* dot = p.scratch + 2 * p.c * kTile;  // [kTileRows, kTile]
  const auto prepare = [&](const Tile<T>& tile, const CellRow<T>&) {
    for (int64_t y = tile.y0; y < tile.y1; ++y)
      for (int64_t x = tile.x0; x < tile.x1; x += L) {
        V<T> sum = {};
        for (int64_t c = 0; c < p.c; ++c)
          sum += read<T>(p.upstream, tile.image, c, y, x) * read<T>(p.output, tile.image, c, y, x);
        store(dot + (y - tile.y0) * kTile + (x - tile.x0), sum);
      }
  };
  const auto add = [&](const Tile<T>& tile, const CellRow<T>&, int64_t c, T* above, T* below) {
    for (int64_t x = tile.x0; x < tile.x1; x += L) {
      const int64_t i = x - tile.x0;
      Column<T> column(p.y, above + i, below + i);
      for (int64_t y = tile.y0; y < tile.y1; ++y) {
        const V<T> mean = load(dot + (y - tile.y0) * kTile + i);
        column.add(read<T>(p.output, tile.image, c, y, x) * (read<T>(p.upstream, tile.image, c, y, x) - mean), y);
      }
    }
  };
  for (int64_t i = begin; i < end; ++i) each_tile(p, i, prepare, add);
}

// With g the gradient of a pixel's loss times its pixel weight, w the class weights and e the smoothing:
//   d/dz_c = p_c A - [c = t] B - w_c D,   A = B + D sum(w),   B = g (1 - e) w_t,   D = g e / C,   p_c = exp(z_c) / sum
// The first factor of p_c is a geometric progression down the rows (see softmax_kernel.cpp), the second one does not
// depend on the class and is put into A.
template <class T, bool kSmooth>
void cross_entropy_as(const Adjoint<T>& p, int64_t begin, int64_t end) {
  constexpr int L = Simd<T>::lanes;
  constexpr int64_t kPixels = kTile * kTileRows;
  using Scalar = typename Simd<T>::Int;
  T *A = p.scratch + 2 * p.c * kTile, *B = A + kPixels, *D = B + kPixels, *reference = D + kPixels;
  Scalar* label = (Scalar*)(reference + kPixels);
  T* rows = (T*)(label + kPixels);
  Across<T> top{rows, -1, 0, {}}, bottom{rows + p.c * kTile, -1, 0, {}};
  bool fits[kTile / L];
  Run<T> runs[kTileRows];
  int run_count = 0;
  T total = 0;
  for (int64_t c = 0; c < p.c; ++c) total += p.weight ? p.weight[c] : T(1);

  const auto between = [&](int64_t c, int64_t x, int64_t y) {
    return blend<T>(load(top.value + c * kTile + x), splat(p.y.lower_weight[y]), load(bottom.value + c * kTile + x),
                    splat(p.y.upper_weight[y]));
  };
  // Of a pixel: its log-sum, then what is subtracted from its values.
  const auto prepare = [&](const Tile<T>& tile, const CellRow<T>& cell) {
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
      memcpy(reference + at, p.log_sum + row, n * sizeof(T));
      for (int64_t i = n; i < m; ++i) reference[at + i] = 0;
    }
    run_count = 0;
    for (int64_t y = tile.y0; y < tile.y1; y += runs[run_count++].n) runs[run_count] = run_from(p.y, y, tile.y1);
    if (bottom.row == cell.row) exchange(top, bottom);
    top.fill(p, tile, cell.row);
    bottom.fill(p, tile, cell.below);
    for (int64_t x = 0; x < n; x += L) {
      fits[x / L] = top.fits[x / L] && bottom.fits[x / L];
      for (int64_t y = tile.y0; y < tile.y1; ++y) {
        const int64_t at = (y - tile.y0) * kTile + x;
        store(A + at, load(A + at) * exponential(-load(reference + at)));
        V<T> most = between(0, x, y);
        for (int64_t c = 1; c < p.c && !fits[x / L]; ++c) most = maximum<T>(most, between(c, x, y));
        store(reference + at, fits[x / L] ? V<T>{} : most);
      }
    }
  };

  const auto add = [&](const Tile<T>& tile, const CellRow<T>&, int64_t c, T* above, T* below) {
    const T w = p.weight ? p.weight[c] : T(1);
    const int64_t n = tile.x1 - tile.x0;
    const auto take = [&](Column<T>& column, int64_t x, int64_t y, V<T> probability) {
      const int64_t at = (y - tile.y0) * kTile + x;
      const I<T> hit = load_lanes<T>(label + at) == Scalar(c);
      V<T> g = probability * load(A + at) - (hit ? load(B + at) : V<T>{});
      if (kSmooth) g -= load(D + at) * w;
      column.add(g, y);
    };
    const bool short_runs = tile.y1 - tile.y0 < kShortestRun;
    for (int64_t x = 0; x < n; x += L) {
      if (fits[x / L] && !short_runs) continue;
      Column<T> column(p.y, above + x, below + x);
      for (int64_t y = tile.y0; y < tile.y1; ++y)
        take(column, x, y, exponential(between(c, x, y) - load(reference + (y - tile.y0) * kTile + x)));
    }
    if (short_runs) return;
    const T *a = top.value + c * kTile, *b = bottom.value + c * kTile;
    T first[kTile], ratio[kTile];
    const auto descend = [&](const Run<T>& run, auto rows) {
      constexpr int R = decltype(rows)::value;
      // The exponentials of all columns first: what waits for them would fill the scheduler of the processor.
      for (int64_t x = 0; x < n; x += L) {
        store(first + x, exponential_within(between(c, x, run.y)));
        store(ratio + x, exponential_within((load(b + x) - load(a + x)) * run.step));
      }
      for (int64_t x = 0; x < n; x += L) {
        if (!fits[x / L]) continue;
        Column<T> column(p.y, above + x, below + x);
        V<T> terms[R];
        progression<T, R>(load(first + x), load(ratio + x), terms);
#pragma GCC unroll 8
        for (int j = 0; j < R; ++j)
          if (j < run.n) take(column, x, run.y + j, terms[j]);
      }
    };
    for (int i = 0; i < run_count; ++i) runs[i].n > 4 ? descend(runs[i], Count<kRows>{}) : descend(runs[i], Count<4>{});
  };
  for (int64_t i = begin; i < end; ++i) {
    top.row = bottom.row = -1;  // rows of another image may have the same number
    each_tile(p, i, prepare, add);
  }
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
