// Bilinear algorithms for 3 x 3 taps on the sub-grids of an atrous convolution: y = A [(G g G') * (B d B')] A', of the
// filter g and the inputs d of a tile.
//
// Sources: Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks" (arXiv 1509.09308), equations 5 to
// 12, for Winograd's F(m x m, 3 x 3) with m = 2, 3, 4; its transforms are made of interpolation points by Toom's and
// Cook's rule, at compile time. Karatsuba's product, transposed (Fan and Hasan 2007, "A New Approach to Subquadratic
// Space Complexity Parallel Multipliers"), for sub-grids of at most two outputs a side: both neighbours of
// such a pair are padding, and 3 products along an axis do where F(2, 3) takes 4. One output by itself takes 1.
//
// Multiplications per output, channel in and channel out: (1 + 2 / m)^2, that is 4, 2.8 and 2.25, in place of 9, where
// the tiles divide the sub-grids; 2.25 for pairs. They are one GEMM for each point, a library's. The transforms here
// move each pixel and each product through memory once and compute about 7 FLOPs for each.
//
// Deviation: the points. Those of the paper, 0, 1, -1, 2, -2, let the error of m = 4 grow three times as far, and of
// m = 3 as well. All entries of B and A are exact in float.
#include "atrous_conv.h"

namespace fastseg {
namespace {

constexpr int kLine = 16;  // floats of a cache line: what a tile moves at once
constexpr int kVectors = kLine / Simd<float>::lanes;

// The matrices of a scheme, and which tap its first input is read by.
template <int points, int count, int m>
struct Matrices {
  static constexpr int n = points, inputs = count, outputs = m;
  int first_tap = 0;
  double input[points][count] = {}, weight[points][3] = {}, output[m][points] = {};
};

// Products of polynomials modulo (x - p) for each finite point p and at infinity, transposed.
template <int m>
constexpr Matrices<m + 2, m + 2, m> winograd(const double (&p)[m + 1]) {
  constexpr int n = m + 2;
  Matrices<n, n, m> made;
  for (int i = 0; i < n; ++i) {
    const bool finite = i < n - 1;
    double product[n] = {1}, others = 1;  // of (x - q) over the other finite points q, and its value at p[i]
    for (int q = 0, degree = 0; q < n - 1; ++q) {
      if (q == i) continue;
      ++degree;
      for (int j = degree; j > 0; --j) product[j] = product[j - 1] - p[q] * product[j];
      product[0] *= -p[q];
      if (finite) others *= p[i] - p[q];
    }
    for (int j = 0; j < n; ++j) made.input[i][j] = product[j];
    double power = 1;
    for (int j = 0; j < n; ++j) {
      if (j < 3) made.weight[i][j] = finite ? power / others : double(j == 2);
      if (j < m) made.output[j][i] = finite ? power : double(j == m - 1);
      if (finite) power *= p[i];
    }
  }
  return made;
}

constexpr auto kWinograd2 = winograd<2>({0, 1, -1});
constexpr auto kWinograd3 = winograd<3>({0.5, -0.5, 1.25, -1.25});
constexpr auto kWinograd4 = winograd<4>({0, 0.75, -0.75, 1.5, -1.5});
constexpr Matrices<3, 2, 2> kToeplitz2{
    1, {{1, 1}, {0, 1}, {1, 0}}, {{0, 1, 0}, {0, -1, 1}, {1, -1, 0}}, {{1, 1, 0}, {1, 0, 1}}};

template <int scheme>
constexpr const auto& matrices() {
  if constexpr (scheme == winograd2)
    return kWinograd2;
  else if constexpr (scheme == winograd3)
    return kWinograd3;
  else if constexpr (scheme == winograd4)
    return kWinograd4;
  else
    return kToeplitz2;
}

enum class Which { input, weight, output };

template <int scheme, Which which, int i, int j>
constexpr float entry() {
  if constexpr (which == Which::input)
    return float(matrices<scheme>().input[i][j]);
  else if constexpr (which == Which::weight)
    return float(matrices<scheme>().weight[i][j]);
  else
    return float(matrices<scheme>().output[i][j]);
}

// Row i of a matrix times `count` vectors that stand `step` apart; products with 0 are left out.
template <int scheme, Which which, int i, int count, int j = 0>
inline V<float> row(const V<float>* v, int step, V<float> sum) {
  if constexpr (j < count) {
    constexpr float factor = entry<scheme, which, i, j>();
    if constexpr (factor != 0) sum = multiply_add<float>(splat(factor), v[j * step], sum);
    return row<scheme, which, i, count, j + 1>(v, step, sum);
  } else {
    return sum;
  }
}

// All `rows` rows, to places that stand `out_step` apart.
template <int scheme, Which which, int rows, int count, int i = 0>
inline void apply(const V<float>* v, int step, V<float>* out, int out_step) {
  if constexpr (i < rows) {
    out[i * out_step] = row<scheme, which, i, count>(v, step, V<float>{});
    apply<scheme, which, rows, count, i + 1>(v, step, out, out_step);
  }
}

// in [count, count] -> out [rows, rows], along both axes.
template <int scheme, Which which, int rows, int count>
inline void apply_twice(const V<float>* in, V<float>* out) {
  V<float> half[rows * count];
  for (int j = 0; j < count; ++j) apply<scheme, which, rows, count>(in + j, count, half + j, count);
  for (int i = 0; i < rows; ++i) apply<scheme, which, rows, count>(half + i * count, 1, out + i * rows, 1);
}

// Outputs of a tile along an axis, of which the last ones may lie beyond the map.
inline int live_outputs(const ConvAxis& a, int64_t first, int m) {
  const int64_t left = (a.out - first + a.dilation - 1) / a.dilation;
  return left < m ? int(left) : m;
}

// Whether a product is read by the outputs [height, width] of a tile: a pair that is none has one along that axis.
template <int scheme>
inline bool wanted(int point, int height, int width) {
  return scheme != toeplitz2 || ((height > 1 || point < 3) && (width > 1 || point % 3 == 0));
}

// A line of n <= kLine floats.
inline void load_line(const float* from, int64_t n, V<float>* line) {
  constexpr int L = Simd<float>::lanes;
  if (n >= kLine) {
    for (int v = 0; v < kVectors; ++v) line[v] = load(from + v * L);
    return;
  }
  for (int v = 0; v < kVectors; ++v)
    line[v] = n > v * L ? load_part(from + v * L, n - v * L < L ? n - v * L : L) : V<float>{};
}

inline void store_line(float* to, int64_t n, const V<float>* line) {
  constexpr int L = Simd<float>::lanes;
  for (int v = 0; v < kVectors; ++v) {
    if (n >= (v + 1) * L)
      store(to + v * L, line[v]);
    else if (n > v * L)
      store_part(to + v * L, line[v], n - v * L);
  }
}

template <int scheme>
void inputs(const Tiles& p, int64_t begin, int64_t end) {
  constexpr auto& use = matrices<scheme>();
  constexpr int n = use.n, in = use.inputs, m = use.outputs;
  for (int64_t i = begin; i < end; ++i) {
    const Tile& tile = p.tiles[i];
    const int height = live_outputs(p.rows, tile.y, m), width = live_outputs(p.columns, tile.x, m);
    const float* pixel[in * in];
    for (int a = 0; a < in; ++a)
      for (int b = 0; b < in; ++b) {
        const int64_t y = tile.y - p.rows.padding + (a + use.first_tap) * p.rows.dilation;
        const int64_t x = tile.x - p.columns.padding + (b + use.first_tap) * p.columns.dilation;
        const bool inside = y >= 0 && y < p.rows.in && x >= 0 && x < p.columns.in;
        pixel[a * in + b] = inside ? p.x + ((tile.image * p.rows.in + y) * p.columns.in + x) * p.pitch : p.zeros;
      }
    float* out = p.inputs + i * p.slice;
    for (int64_t c = 0; c < p.slice; c += kLine) {
      V<float> line[kVectors], d[kVectors][in * in], t[kVectors][n * n];
      for (int e = 0; e < in * in; ++e) {
        load_line(pixel[e] + c, p.slice - c, line);
        for (int v = 0; v < kVectors; ++v) d[v][e] = line[v];
      }
      for (int v = 0; v < kVectors; ++v) apply_twice<scheme, Which::input, n, in>(d[v], t[v]);
      for (int e = 0; e < n * n; ++e) {
        if (!wanted<scheme>(e, height, width)) continue;
        for (int v = 0; v < kVectors; ++v) line[v] = t[v][e];
        store_line(out + e * p.band * p.slice + c, p.slice - c, line);
      }
    }
  }
}

template <int scheme>
void outputs(const Tiles& p, int64_t begin, int64_t end) {
  constexpr auto& use = matrices<scheme>();
  constexpr int n = use.n, m = use.outputs, L = Simd<float>::lanes;
  const Epilogue<float>& e = p.epilogue;
  for (int64_t i = begin; i < end; ++i) {
    const Tile& tile = p.tiles[i];
    const int height = live_outputs(p.rows, tile.y, m), width = live_outputs(p.columns, tile.x, m);
    V<float> poison{};
    for (int64_t k = 0; k < p.k; k += L) {
      const int64_t left = p.k - k < L ? p.k - k : L;
      const auto part = [&](const float* at) { return left == L ? load(at) : load_part(at, left); };
      V<float> d[n * n], t[m * m];
      for (int j = 0; j < n * n; ++j)
        d[j] = wanted<scheme>(j, height, width) ? part(p.products + (j * p.band + i) * p.k + k) : V<float>{};
      apply_twice<scheme, Which::output, m, n>(d, t);
      const V<float> scale = e.scale ? part(e.scale + k) : splat(1.0f),
                     shift = e.shift ? part(e.shift + k) : V<float>{};
      for (int a = 0; a < height; ++a)
        for (int b = 0; b < width; ++b) {
          const int64_t y = tile.y + a * p.rows.dilation, x = tile.x + b * p.columns.dilation;
          const int64_t at = ((tile.image * p.rows.out + y) * p.columns.out + x) * p.k + k;
          const V<float> value = t[a * m + b];
          poison = poison + value * 0.0f;
          const V<float> residual = e.residual ? part(e.residual + at) : V<float>{};
          const V<float> result = finished<float>(value, scale, shift, residual, e.activation);
          if (left == L)
            store(p.y + at, result);
          else
            store_part(p.y + at, result, left);
        }
    }
    if (any<float>(poison != 0.0f)) __atomic_store_n(p.not_finite + tile.image, 1, __ATOMIC_RELAXED);
  }
}

// Filters of 16 channels and a vector of outputs at a time, which lie on few cache lines: neighbours among the outputs
// are often a power of two apart.
template <int scheme>
void weights(const float* weight, float* out, int64_t c, int64_t k, int64_t first, int64_t channels, int64_t begin,
             int64_t end) {
  constexpr int n = matrices<scheme>().n, L = Simd<float>::lanes;
  float near[L][9 * kLine], lanes[9][L] = {};
  for (int64_t block = begin; block < end; block += kLine) {
    const int64_t width = end - block < kLine ? end - block : kLine;
    for (int64_t o = 0; o < k; o += L) {
      const int64_t left = k - o < L ? k - o : L;
      for (int64_t l = 0; l < left; ++l) memcpy(near[l], weight + ((o + l) * c + block) * 9, width * 9 * sizeof(float));
      for (int64_t i = 0; i < width; ++i) {
        for (int t = 0; t < 9; ++t)
          for (int64_t l = 0; l < left; ++l) lanes[t][l] = near[l][i * 9 + t];
        V<float> g[9], transformed[n * n];
        for (int t = 0; t < 9; ++t) g[t] = load(lanes[t]);
        apply_twice<scheme, Which::weight, n, 3>(g, transformed);
        float* to = out + (block + i - first) * k + o;
        for (int e = 0; e < n * n; ++e, to += channels * k) {
          if (left == L)
            store(to, transformed[e]);
          else
            store_part(to, transformed[e], left);
        }
      }
    }
  }
}

template <int scheme>
constexpr SchemeTable table() {
  return {weights<scheme>, inputs<scheme>, outputs<scheme>};
}

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::SchemeTables FASTSEG_FOR_ISA(schemes) = {
    {fastseg::table<fastseg::winograd2>(), fastseg::table<fastseg::winograd3>(), fastseg::table<fastseg::winograd4>(),
     fastseg::table<fastseg::toeplitz2>()}};
