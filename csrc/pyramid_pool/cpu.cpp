#include <tuple>

#include "../upsample/arguments.h"
#include "pyramid_pool.h"

namespace fastseg {
namespace {

constexpr const char *kPool = "pyramid_pool", *kBackward = "pyramid_pool_backward";
using Sides = std::vector<int64_t>;

// The cuts of one axis, as indices into a tensor that is kept.
struct CutTable {
  Tensor table;
  Cuts cuts;

  CutTable(const Tensor& like, int64_t size, const Sides& sides, int64_t bins)
      : table(torch::stable::new_empty(like, Sides{4 * bins}, ScalarType::Int)) {
    int32_t *edges = (int32_t*)table.data_ptr(), *first = edges + 2 * bins, *last = first + bins, *stop = edges;
    for (int64_t i = 0; const int64_t side : sides)
      for (int64_t bin = 0; bin < side; ++bin, ++i) {
        *stop++ = first[i] = int32_t(bin * size / side);
        *stop++ = last[i] = int32_t(((bin + 1) * size + side - 1) / side);
      }
    std::sort(edges, stop);
    stop = std::unique(edges, stop);
    for (int64_t i = 0; i < bins; ++i) {
      first[i] = int32_t(std::lower_bound(edges, stop, first[i]) - edges);
      last[i] = int32_t(std::lower_bound(edges, stop, last[i]) - edges);
    }
    cuts = {size, stop - edges - 1, edges, first, last};
  }
};

struct PyramidTable {
  CutTable rows, columns;
  Pyramid pyramid;

  PyramidTable(const Tensor& like, int64_t h, int64_t w, const Sides& sides, int64_t bins, int64_t total)
      : rows(like, h, sides, bins),
        columns(like, w, sides, bins),
        pyramid{rows.cuts, columns.cuts, sides.data(), int64_t(sides.size()), total} {}
};

// Bins along an axis and in a map, of all levels.
std::pair<int64_t, int64_t> check_sides(const char* op, const Sides& sides, int64_t h, int64_t w) {
  FASTSEG_CHECK(!sides.empty(), op, "bins", "have at least one level, got none");
  int64_t bins = 0, total = 0;
  for (const int64_t side : sides) {
    FASTSEG_CHECK(side >= 1 && side < 32768, op, "bins", "be from 1 to 32767, got ", side);
    bins += side;
    total += side * side;
  }
  constexpr int64_t kLimit = int64_t(1) << 31;
  FASTSEG_CHECK(h > 0 && w > 0 && h < kLimit && w < kLimit && h * w < kLimit, op, "x",
                "have from 1 to 2^31 - 1 pixels, got ", h, " x ", w);
  return {bins, total};
}

// Planes at a time whose scratch, in values of T, `values` says.
template <class T, class Values>
int64_t block_of(bool neighbours, const Values& values) {
  int64_t block = neighbours ? kChannels : kPlanes;
  while (block > kPlanes && values(block) * int64_t(sizeof(T)) > kScratchBytes) block /= 2;
  return block;
}

std::tuple<Tensor, Tensor> pyramid_pool(const Tensor& x, Sides sides, bool maximum) {
  FASTSEG_CHECK(x.dim() == 4, kPool, "x", "be [N, C, h, w], got ", x.dim(), " dimensions");
  const Float type = float_type(kPool, "x", x);
  const int64_t n = x.size(0), c = x.size(1), h = x.size(2), w = x.size(3);
  const auto [bins, total] = check_sides(kPool, sides, h, w);
  took(kPool);
  Tensor out = empty(x, {n, c * total}, x.scalar_type());
  Tensor positions = empty(x, {n, maximum ? c * total : 0}, ScalarType::Int);
  if (out.numel() == 0) return {out, positions};
  const PyramidTable table(x, h, w, sides, bins, total);
  // Short rows are no work for a vector: of 16 planes the pixels are gathered.
  const bool by_pixel = x.stride(1) < x.stride(3) || w < kPlanes;
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    const auto& kernels = FASTSEG_PICK_FOR(T, pyramid_pool);
    const Ranges ranges(n * c, h * w);
    const auto values = [&](int64_t block) { return forward_scratch(table.pyramid, block); };
    const int64_t block = block_of<T>(by_pixel && x.stride(1) == 1, values), each = values(block);
    Tensor scratch = empty(x, {ranges.slots, each}, kScalar<T>);
    ranges.run([&](int64_t slot, int64_t b, int64_t e) {
      const Pool<T> p{strided(x, type),
                      table.pyramid,
                      out.data_ptr(),
                      (int32_t*)positions.data_ptr(),
                      by_pixel,
                      block,
                      (T*)scratch.data_ptr() + slot * each};
      (maximum ? kernels.max : kernels.mean)(p, b, e);
    });
  });
  return {out, positions};
}

Tensor pyramid_pool_backward(const Tensor& grad, const Tensor& positions, Sides sides, int64_t h, int64_t w,
                             bool maximum, bool channels_last) {
  const auto [bins, total] = check_sides(kBackward, sides, h, w);
  FASTSEG_CHECK(grad.dim() == 2 && grad.size(1) % total == 0, kBackward, "grad", "be [N, C * ", total, "], got ",
                grad.dim(), " dimensions");
  const Float type = float_type(kBackward, "grad", grad);
  FASTSEG_CHECK(!maximum || (positions.dim() == 2 && positions.size(0) == grad.size(0) &&
                             positions.size(1) == grad.size(1) && positions.scalar_type() == ScalarType::Int),
                kBackward, "positions", "be int32 of the shape of grad, got ", positions.dim(), " dimensions");
  took(kBackward);
  const int64_t n = grad.size(0), c = grad.size(1) / total;
  Tensor out = empty_images(grad, n, c, h, w, grad.scalar_type(), channels_last);
  if (out.numel() == 0) return out;
  const Tensor g = torch::stable::contiguous(grad), at = torch::stable::contiguous(positions);
  const PyramidTable table(grad, h, w, sides, bins, total);
  const Ranges ranges(n * c, h * w);
  std::vector<int64_t> bad(ranges.slots, -1);
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    const auto& kernels = FASTSEG_PICK_FOR(T, pyramid_pool);
    const bool narrow = maximum && type != kNative<T>;  // maxima of other types need no scratch
    const auto values = [&](int64_t block) {
      return !maximum ? mean_backward_scratch(table.pyramid, block) : narrow ? h * w * block : 0;
    };
    const int64_t block = maximum && !channels_last ? 1 : block_of<T>(channels_last, values), each = values(block);
    Tensor scratch = empty(grad, {ranges.slots, each}, kScalar<T>);
    ranges.run([&](int64_t slot, int64_t b, int64_t e) {
      const Spread<T> p{table.pyramid, g.data_ptr(), (const int32_t*)at.data_ptr(),        strided(out, type),
                        channels_last, block,        (T*)scratch.data_ptr() + slot * each, &bad[slot]};
      (maximum ? kernels.max_backward : kernels.mean_backward)(p, b, e);
    });
  });
  for (const int64_t place : bad)
    if (place >= 0) {
      const int32_t value = ((const int32_t*)at.data_ptr())[place];
      fail(kBackward, "positions", "be in [0, ", h * w, "), got ", value, " at [", place / grad.size(1), ", ",
           place % grad.size(1), "]");
    }
  return out;
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) {
  m.impl("pyramid_pool", TORCH_BOX(&fastseg::pyramid_pool));
  m.impl("pyramid_pool_backward", TORCH_BOX(&fastseg::pyramid_pool_backward));
}
