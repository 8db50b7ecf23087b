#include <array>
#include <tuple>

#include "../../common/cuda.h"
#include "../arguments.h"
#include "filter_kernel.cuh"
#include "lattice_kernel.cuh"

namespace fastseg {
namespace {

constexpr const char* kBuild = "permutohedral_lattice";
constexpr const char* kApply = "permutohedral_apply";
constexpr const char* kDiagonal = "permutohedral_diagonal";

template <class T>
T* data(const Tensor& x) {
  return (T*)x.data_ptr();
}

// So that a point on a vertex of a full lattice has a kernel of 1 with itself.
template <class T>
T alpha(int64_t sides) {
  return T(1.0 / (1.0 + 1.0 / double(int64_t(1) << (sides - 1))));
}

int64_t blocks_for(int64_t tasks, int64_t threads) { return (tasks + threads - 1) / threads; }

// Sums up to each place along dimension 1, as int64.
Tensor sums_up_to(const Tensor& x) {
  std::array<StableIValue, 3> stack{torch::stable::detail::from(x), torch::stable::detail::from(int64_t(1)),
                                    torch::stable::detail::from(std::nullopt)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::cumsum", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// Sorted along dimension 1, and where each one was; equal ones keep their order.
std::pair<Tensor, Tensor> sorted(const Tensor& x) {
  std::array<StableIValue, 4> stack{torch::stable::detail::from(x),
                                    torch::stable::detail::from(std::optional<bool>(true)),
                                    torch::stable::detail::from(int64_t(1)), torch::stable::detail::from(false)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  return {torch::stable::detail::to<Tensor>(stack[0]), torch::stable::detail::to<Tensor>(stack[1])};
}

template <class T>
void place_corners(const Stream& stream, const Tensor& features, const Geometry* geometry, int64_t* keys, T* weights) {
  const int64_t n = features.size(0), points = features.size(2), blocks = blocks_for(n * points, kLatticeThreads);
  const auto start = [&](auto kernel) {
    stream.launch(kernel, blocks, kLatticeThreads, 0, data<T>(features), n, points, geometry, keys, weights);
  };
  switch (features.size(1)) {
    case 1:
      return start(place<1, T>);
    case 2:
      return start(place<2, T>);
    case 3:
      return start(place<3, T>);
    case 4:
      return start(place<4, T>);
    case 5:
      return start(place<5, T>);
    case 6:
      return start(place<6, T>);
    case 7:
      return start(place<7, T>);
    default:
      return start(place<8, T>);
  }
}

template <class T>
void build(const Tensor& f, const Tensor& vertices, const Tensor& weights, const Tensor& neighbours,
           const Tensor& count) {
  const Stream stream(f);
  const int64_t n = f.size(0), d = f.size(1), points = f.size(2), sides = d + 1, corners = points * sides;
  const auto fill = [&](auto* values, int64_t size, auto value) {
    stream.launch(clear<std::remove_pointer_t<decltype(values)>>, blocks_for(size, kLatticeThreads), kLatticeThreads, 0,
                  values, size, value);
  };
  const Tensor spans = empty(f, {2 * n * d}, ScalarType::Long), bad = zeros(f, {n}, ScalarType::Int);
  const Spans s{data<unsigned long long>(spans), data<unsigned long long>(spans) + n * d, data<int>(bad)};
  fill(s.least, n * d, kFree);
  fill(s.most, n * d, 0ull);
  const int64_t chunks = blocks_for(points, kLatticeThreads * kMeasured);
  stream.launch(measure<T>, n * d * chunks, kLatticeThreads, 0, data<T>(f), n * d, int(d), points, s);
  const Tensor geometry = empty(f, {n * int64_t(sizeof(Geometry))}, ScalarType::Byte);
  Geometry* const g = data<Geometry>(geometry);
  stream.launch(find_digits, blocks_for(n, kLatticeThreads), kLatticeThreads, 0, s, n, int(d), g);

  if (checking())
    for (int64_t i = 0; i < n; ++i) {
      Geometry found;
      stream.read(&found, g + i, sizeof found);
      FASTSEG_CHECK(!found.bad, kBuild, "features",
                    "be finite and span fewer cells of the lattice than 2^62, got others in sample ", i);
    }

  const Tensor keys = empty(f, {n, corners}, ScalarType::Long), slots = empty(f, {n, corners}, ScalarType::Long);
  place_corners<T>(stream, f, g, data<int64_t>(keys), data<T>(weights));
  int shift = 63;
  while (int64_t(1) << (64 - shift) < 2 * corners) --shift;
  const int64_t capacity = int64_t(1) << (64 - shift);
  const Tensor table_keys = empty(f, {n * capacity}, ScalarType::Long);
  const Tensor table_values = empty(f, {n * capacity}, ScalarType::Int);
  const Table table{data<unsigned long long>(table_keys), data<int>(table_values), capacity, shift};
  fill(table.keys, n * capacity, kFree);
  fill(table.values, n * capacity, 2147483647);
  const int64_t blocks = blocks_for(n * corners, kLatticeThreads);
  stream.launch(insert, blocks, kLatticeThreads, 0, data<int64_t>(keys), n, corners, table, data<int64_t>(slots));
  const Tensor first = empty(f, {n, corners}, ScalarType::Int);
  stream.launch(mark, blocks, kLatticeThreads, 0, data<int64_t>(slots), n, corners, table, data<int>(first));
  const Tensor sums = sums_up_to(first), vertex_keys = empty(f, {n, corners}, ScalarType::Long);
  stream.launch(number, blocks, kLatticeThreads, 0, data<int64_t>(keys), data<int64_t>(slots), data<int>(first),
                data<int64_t>(sums), n, corners, table, data<int64_t>(vertex_keys), data<int64_t>(count));
  stream.launch(name_corners, blocks, kLatticeThreads, 0, data<int64_t>(slots), n, corners, table, data<int>(vertices));
  stream.launch(find_neighbours, blocks_for(n * sides * corners, kLatticeThreads), kLatticeThreads, 0,
                data<int64_t>(vertex_keys), data<int64_t>(count), g, n, int(sides), corners, table,
                data<int>(neighbours));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> permutohedral_lattice(const Tensor& features) {
  const Float type = float_type(kBuild, "features", features);
  FASTSEG_CHECK(features.dim() == 3 && (type == Float::f32 || type == Float::f64), kBuild, "features",
                "be float32 or float64 [N, d, P], got ", features.dim(), " dimensions");
  const int64_t n = features.size(0), d = features.size(1), points = features.size(2), corners = points * (d + 1);
  FASTSEG_CHECK(d >= 1 && d <= kMostAxes, kBuild, "features", "have from 1 to 8 dimensions, got ", d);
  FASTSEG_CHECK(corners < int64_t(1) << 31, kBuild, "features", "have fewer than 2^31 / (d + 1) points, got ", points);
  took(kBuild);
  const Tensor f = torch::stable::contiguous(features);
  Tensor vertices = empty(f, {n, points, d + 1}, ScalarType::Int);
  Tensor weights = empty(f, {n, points, d + 1}, f.scalar_type());
  Tensor neighbours = empty(f, {n, d + 1, corners, 2}, ScalarType::Int), count = zeros(f, {n}, ScalarType::Long);
  if (vertices.numel() == 0) return {vertices, weights, neighbours, count};
  if (type == Float::f64)
    build<double>(f, vertices, weights, neighbours, count);
  else
    build<float>(f, vertices, weights, neighbours, count);
  return {vertices, weights, neighbours, count};
}

template <class T>
Tensor apply(const Tensor& values, const Tensor& vertices, const Tensor& weights, const Tensor& neighbours,
             const Tensor& count, bool transposed) {
  const Stream stream(values);
  const int64_t n = values.size(0), c = values.size(1), points = values.size(2), sides = vertices.size(2);
  const int64_t corners = points * sides;
  const auto [by_vertex, order] = sorted(torch::stable::reshape(vertices, {n, corners}));
  const Tensor starts = empty(values, {n * (corners + 1)}, ScalarType::Int);
  stream.launch(find_starts, blocks_for(n * corners, kFilterThreads), kFilterThreads, 0, data<int>(by_vertex), n,
                corners, data<int>(starts));
  const Tensor rows = torch::stable::contiguous(torch::stable::transpose(values, 1, 2));
  const Tensor grids = empty(values, {2, n * corners * c}, kScalar<T>), out = empty(values, {n, points, c}, kScalar<T>);
  T *grid = data<T>(grids), *other = grid + n * corners * c;
  const OnLattice<T> p{n,
                       points,
                       c,
                       int(sides),
                       data<int>(vertices),
                       data<T>(weights),
                       data<int>(neighbours),
                       data<int64_t>(count),
                       data<int64_t>(order),
                       data<int>(starts),
                       alpha<T>(sides)};
  const int64_t blocks = std::min(blocks_for(n * corners, kFilterWarps), kFilterBlocks);
  stream.launch(splat<T>, blocks, kFilterThreads, 0, p, data<T>(rows), grid);
  for (int64_t i = 0; i < sides; ++i) {
    const int axis = int(transposed ? sides - 1 - i : i);
    stream.launch(blur<T>, blocks, kFilterThreads, 0, p, axis, grid, other);
    std::swap(grid, other);
  }
  stream.launch(slice<T>, blocks_for(n * points, kFilterWarps), kFilterThreads, 0, p, grid, data<T>(out));
  return torch::stable::contiguous(torch::stable::transpose(out, 1, 2));
}

Tensor permutohedral_apply(const Tensor& values, const Tensor& vertices, const Tensor& weights,
                           const Tensor& neighbours, const Tensor& count, bool transposed) {
  const Float type = float_type(kApply, "values", values);
  check_state(kApply, vertices, weights, neighbours, count);
  FASTSEG_CHECK(values.dim() == 3 && values.size(0) == vertices.size(0) && values.size(2) == vertices.size(1) &&
                    (type == Float::f32 || type == Float::f64),
                kApply, "values", "be float32 or float64 [", vertices.size(0), ", C, ", vertices.size(1), "], got ",
                values.dim(), " dimensions");
  FASTSEG_CHECK(weights.scalar_type() == values.scalar_type(), kApply, "weights",
                "have the dtype of values, got scalar type ", int(weights.scalar_type()));
  took(kApply);
  if (values.numel() == 0) return empty(values, {values.size(0), values.size(1), values.size(2)}, values.scalar_type());
  const Tensor v = torch::stable::contiguous(vertices), w = torch::stable::contiguous(weights);
  const Tensor beside = torch::stable::contiguous(neighbours), some = torch::stable::contiguous(count);
  return type == Float::f64 ? apply<double>(values, v, w, beside, some, transposed)
                            : apply<float>(values, v, w, beside, some, transposed);
}

Tensor permutohedral_diagonal(const Tensor& vertices, const Tensor& weights, const Tensor& neighbours,
                              const Tensor& count) {
  const Float type = float_type(kDiagonal, "weights", weights);
  check_state(kDiagonal, vertices, weights, neighbours, count);
  FASTSEG_CHECK(type == Float::f32 || type == Float::f64, kDiagonal, "weights",
                "be float32 or float64, got scalar type ", int(weights.scalar_type()));
  took(kDiagonal);
  const int64_t n = vertices.size(0), points = vertices.size(1), sides = vertices.size(2);
  Tensor out = empty(weights, {n, points}, weights.scalar_type());
  if (out.numel() == 0) return out;
  const Tensor v = torch::stable::contiguous(vertices), w = torch::stable::contiguous(weights);
  const Tensor beside = torch::stable::contiguous(neighbours), some = torch::stable::contiguous(count);
  const Stream stream(w);
  const auto start = [&](auto zero) {
    using T = decltype(zero);
    stream.launch(find_diagonal<T>, blocks_for(n * points, kLatticeThreads), kLatticeThreads, 0, data<int>(v),
                  data<T>(w), data<int>(beside), data<int64_t>(some), n, points, int(sides), alpha<T>(sides),
                  data<T>(out));
  };
  type == Float::f64 ? start(double{}) : start(float{});
  return out;
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, FASTSEG_DEVICE, m) {
  m.impl("permutohedral_lattice", TORCH_BOX(&fastseg::permutohedral_lattice));
  m.impl("permutohedral_apply", TORCH_BOX(&fastseg::permutohedral_apply));
  m.impl("permutohedral_diagonal", TORCH_BOX(&fastseg::permutohedral_diagonal));
}
