#include "tiles.h"

namespace fastseg {
namespace {

// First outputs of the tiles along an axis, sub-grid after sub-grid.
std::vector<int32_t> origins(const ConvAxis& a, int64_t m) {
  std::vector<int32_t> found;
  for (int64_t grid = 0; grid < std::min(a.dilation, a.out); ++grid)
    for (int64_t o = grid; o < a.out; o += m * a.dilation) found.push_back(int32_t(o));
  return found;
}

// Products of all tiles along an axis.
int64_t count_products(const ConvAxis& a, int scheme) {
  const int64_t size = a.out / a.dilation, longer = a.out % a.dilation;  // sub-grids with one output more
  if (scheme == toeplitz2) return a.out <= a.dilation ? a.out : 3 * (a.out - a.dilation) + 2 * a.dilation - a.out;
  const int64_t m = kTile[scheme], tiles = longer * ((size + m) / m) + (a.dilation - longer) * ((size + m - 1) / m);
  return tiles * (m + 2);
}

// The tiles of all images, in an order in which those that take a product are neighbours.
struct TileList {
  std::vector<Tile> tiles;
  int64_t narrow = 0, pairs = 0, flat = 0;  // toeplitz2: pairs of rows of one column, of two, single rows of two
  bool whole;                               // each tile takes each product

  TileList(const ConvArguments& a, int scheme) : whole(scheme != toeplitz2) {
    const std::vector<int32_t> rows = origins(a.rows, kTile[scheme]), columns = origins(a.columns, kTile[scheme]);
    const auto add = [&](const std::vector<int32_t>& ys, const std::vector<int32_t>& xs) {
      for (int64_t i = 0; i < a.n; ++i)
        for (const int32_t y : ys)
          for (const int32_t x : xs) tiles.push_back({int32_t(i), y, x});
      return a.n * int64_t(ys.size() * xs.size());
    };
    if (whole) {
      add(rows, columns);
      return;
    }
    const auto split = [](const std::vector<int32_t>& all, const ConvAxis& axis) {  // those of two outputs, the others
      const auto middle = all.begin() + std::max<int64_t>(0, axis.out - axis.dilation);
      return std::array<std::vector<int32_t>, 2>{{{all.begin(), middle}, {middle, all.end()}}};
    };
    const auto y = split(rows, a.rows), x = split(columns, a.columns);
    narrow = add(y[0], x[1]), pairs = add(y[0], x[0]), flat = add(y[1], x[0]);
    add(y[1], x[1]);
  }

  int64_t size() const { return int64_t(tiles.size()); }
  int64_t begin(int64_t point) const { return point % 3 ? narrow : 0; }
  int64_t end(int64_t point) const { return point > 2 ? narrow + pairs : point ? narrow + pairs + flat : size(); }
};

// What a kind of machine reaches with one thread: GFLOP/s of ATen's GEMMs, and of its convolutions in channels_last on
// the taps that are live, GB/s of the transforms, and microseconds of a GEMM of a batch beside its FLOPs.
struct Machine {
  double gemm, convolution, transform, call;
};

constexpr Machine kMachines[] = {{18, 18, 6, 2}, {75, 75, 10, 2}, {120, 120, 12, 2}};  // base, avx2, avx512

double live_share(const ConvAxis& a) {
  int64_t live = 0;
  for (int64_t t = 0; t < a.taps; ++t) {
    const int64_t offset = t * a.dilation - a.padding;
    live += std::max<int64_t>(0, std::min(a.out, a.in - offset) - std::max<int64_t>(0, -offset));
  }
  return double(live) / double(a.out * a.taps);
}

double direct_ms(const ConvArguments& a, const Machine& machine) {
  const double flops = 18.0 * double(a.n * a.pixels()) * double(a.c) * double(a.k);
  const double weights = 4 * 3 * 9 * double(a.c) * double(a.k);  // oneDNN reorders them in each call
  return flops * live_share(a.rows) * live_share(a.columns) / machine.convolution / 1e6 +
         weights / machine.transform / 1e6;
}

double tiles_ms(const ConvArguments& a, int scheme, bool packed, const Machine& machine) {
  const double points = double(kPoints[scheme]), c = double(a.c), k = double(a.k);
  const double products = double(a.n * count_products(a.rows, scheme) * count_products(a.columns, scheme));
  const double flops = 2 * products * c * k;
  const double moved = 4 * (double(a.n * a.rows.in * a.columns.in) * c + 2 * products * (c + k));
  const double weights = 4 * points * c * k * (packed ? 1 : 3);
  return flops / machine.gemm / 1e6 + (moved + weights) / machine.transform / 1e6 + points * machine.call / 1e3;
}

// The part of a flat scratch that holds so many matrices.
Tensor matrices(const Tensor& flat, int64_t count, int64_t rows, int64_t columns) {
  return torch::stable::view(narrowed(flat, 0, 0, count * rows * columns), {count, rows, columns});
}

void transform_weight(const Tensor& weight, int scheme, int64_t first, int64_t channels, float* out) {
  const int64_t k = weight.size(0), c = weight.size(1);
  Ranges(channels, 40 * k).run([&](int64_t, int64_t b, int64_t e) {
    FASTSEG_PICK(schemes).of[scheme].weights((const float*)weight.data_ptr(), out, c, k, first, channels, first + b,
                                             first + e);
  });
}

}  // namespace

const char* why_not(const ConvArguments& a, int scheme) {
  if (a.type != Float::f32) return "x must be float32";
  if (a.groups != 1) return "groups must be 1";
  if (a.rows.taps != 3 || a.columns.taps != 3) return "weight must be 3x3";
  if (a.rows.stride != 1 || a.columns.stride != 1) return "stride must be 1";
  if (std::max(a.rows.out, a.columns.out) > INT32_MAX) return "the result must be smaller than 2^31 a side";
  if (scheme == toeplitz2)
    for (const ConvAxis* axis : {&a.rows, &a.columns})
      if (axis->padding != axis->dilation || axis->out > 2 * axis->dilation)
        return "the map must be at most twice the dilation a side, with padding 'same'";
  return nullptr;
}

int choose_algorithm(const ConvArguments& a, int packed_for) {
  if (a.empty()) return kDirect;
  Machine machine = kMachines[int(isa())];
  const double threads = double(torch::stable::get_num_threads());
  machine = {machine.gemm * threads, machine.convolution * threads, machine.transform * threads, machine.call};
  int best = kDirect;
  double least = direct_ms(a, machine);
  for (int s = 0; s < kSchemes; ++s) {
    if ((packed_for >= 0 && s != packed_for) || why_not(a, s)) continue;
    const double ms = tiles_ms(a, s, packed_for != kNotPacked, machine);
    if (ms < least) least = ms, best = s;
  }
  return best;
}

Tensor transformed_weight(const Tensor& weight, int scheme) {
  const Tensor w = torch::stable::contiguous(weight);
  const Tensor out = empty(w, {kPoints[scheme], w.size(1), w.size(0)}, ScalarType::Float);
  transform_weight(w, scheme, 0, w.size(1), (float*)out.data_ptr());
  return out;
}

std::vector<int32_t> run_tiles(const ConvArguments& a, int scheme, const Tensor& x, const Tensor& weight,
                               const std::optional<Tensor>& packed, const Tensor& y, const Epilogue<float>& epilogue) {
  const TileList list(a, scheme);
  const int64_t points = kPoints[scheme], all = list.size();
  const auto parts = [](int64_t n, int64_t bytes_each) {  // of equal size, and how much one is
    const int64_t count = (n * bytes_each + kTileScratch - 1) / kTileScratch;
    return (n + count - 1) / count;
  };
  // Slices of the input channels are added to the products of a band of tiles.
  const int64_t most = parts(all, points * 4 * std::max(a.k, std::min<int64_t>(a.c, 256)));
  const int64_t slice = parts(a.c, points * 4 * std::max(most, packed ? 1 : a.k));
  const Tensor products = empty(x, {points * most * a.k}, ScalarType::Float);
  const Tensor inputs = empty(x, {points * most * slice}, ScalarType::Float);
  const Tensor filters =
      packed ? torch::stable::contiguous(*packed) : empty(x, {points * slice * a.k}, ScalarType::Float);
  const Tensor zero_pixel = zeros(x, {slice}, ScalarType::Float);
  std::vector<int32_t> not_finite(a.n, 0);
  const SchemeTable& kernels = FASTSEG_PICK(schemes).of[scheme];
  // In channels_last: the maps, or, of maps that are large, a slice of the channels at a time.
  const int64_t in_pixels = a.rows.in * a.columns.in;
  const bool sliced = !is_channels_last(x) && most == all && 4 * x.numel() > kTileScratch;
  const Tensor maps = sliced ? empty(x, {a.n * in_pixels * slice}, ScalarType::Float) : dense_maps<float>(x, true);
  Tiles p{nullptr,
          (float*)y.data_ptr(),
          (float*)inputs.data_ptr(),
          (float*)products.data_ptr(),
          (const float*)zero_pixel.data_ptr(),
          a.c,
          a.k,
          slice,
          a.rows,
          a.columns,
          list.tiles.data(),
          most,
          not_finite.data(),
          epilogue};
  for (int64_t first = 0; first < all; first += most) {
    p.tiles = list.tiles.data() + first;
    p.band = std::min(most, all - first);
    const Tensor sums = matrices(products, points, p.band, a.k);
    for (int64_t channel = 0; channel < a.c; channel += slice) {
      p.slice = std::min(slice, a.c - channel);
      p.x = (const float*)maps.data_ptr() + (sliced ? 0 : channel);
      if (sliced) {
        transpose_all((const float*)x.data_ptr() + channel * in_pixels, a.c * in_pixels, (float*)maps.data_ptr(), a.n,
                      p.slice, in_pixels);
        p.pitch = p.slice;
      }
      Ranges(p.band, 8 * points * p.slice).run([&](int64_t, int64_t b, int64_t e) { kernels.inputs(p, b, e); });
      if (!packed) transform_weight(weight, scheme, channel, p.slice, (float*)filters.data_ptr());
      const Tensor filter = packed ? narrowed(filters, 1, channel, p.slice) : matrices(filters, points, p.slice, a.k);
      const Tensor transformed = matrices(inputs, points, p.band, p.slice);
      if (list.whole) {
        (channel ? aten::add_bmm : aten::bmm)(sums, transformed, filter);
        continue;
      }
      for (int64_t e = 0; e < points; ++e) {
        const int64_t begin = std::max(list.begin(e) - first, int64_t(0)), end = std::min(list.end(e) - first, p.band);
        if (begin >= end) continue;
        const auto part = [&](const Tensor& of) {
          return narrowed(torch::stable::select(of, 0, e), 0, begin, end - begin);
        };
        (channel ? aten::add_mm : aten::mm)(part(sums), part(transformed), torch::stable::select(filter, 0, e));
      }
    }
    Ranges(p.band, 8 * points * a.k).run([&](int64_t, int64_t b, int64_t e) { kernels.outputs(p, b, e); });
  }
  return not_finite;
}

}  // namespace fastseg
