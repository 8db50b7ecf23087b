#include <tuple>

#include "../arguments.h"
#include "lattice_cuda.h"
#include "lattice_kernel.cuh"

namespace fastseg {
namespace {

constexpr const char* kBuild = "permutohedral_lattice";
constexpr const char* kDiagonal = "permutohedral_diagonal";

// Sums up to each place along dimension 1, as int64.
Tensor sums_up_to(const Tensor& x) { return tensor_of(call_torch("aten::cumsum", "", x, int64_t(1), std::nullopt)[0]); }

Tensor filled(const Tensor& like, int64_t size, ScalarType type, double value) {
  Tensor x = empty(like, {size}, type);
  return torch::stable::fill_(x, value);
}

// Throws for features [N, d, P] that no key holds.
template <class T>
void check_geometry(const Stream& stream, const char* op, const Tensor& f, const Tensor& geometry, const Fault* first) {
  const int64_t d = f.size(1), points = f.size(2);
  Fault fault;
  stream.read(&fault, first, sizeof fault);
  if (fault) {
    const int64_t at = int64_t(kNoIndex - fault);
    T value;
    stream.read(&value, data<T>(f) + at, sizeof value);
    fail(op, "features", "be finite, got ", value, " at [", at / points / d, ", ", at / points % d, ", ", at % points,
         "]");
  }
  for (int64_t i = 0; i < f.size(0); ++i) {
    Geometry found;
    stream.read(&found, data<Geometry>(geometry) + i, sizeof found);
    FASTSEG_CHECK(!found.bad, op, "features", "span fewer than 2^62 cells of the lattice, got more in sample ", i);
  }
}

// The digits of keys of each sample, an array of Geometry.
template <class T>
Tensor find_geometry(const Stream& stream, const char* op, const Tensor& f) {
  const int64_t n = f.size(0), d = f.size(1), points = f.size(2);
  const Tensor least = filled(f, n * d, ScalarType::Long, -1), most = zeros(f, {n * d}, ScalarType::Long);
  const Tensor bad = zeros(f, {n}, ScalarType::Int);
  const Faults faults(f, false);
  const Spans spans{data<unsigned long long>(least), data<unsigned long long>(most), data<int>(bad), faults.first()};
  stream.launch(measure<T>, n * d * blocks_for(points, kLatticeThreads * kMeasured), kLatticeThreads, 0, data<T>(f),
                n * d, int(d), points, spans);
  const Tensor geometry = empty(f, {n * int64_t(sizeof(Geometry))}, ScalarType::Byte);
  stream.launch(find_digits, blocks_for(n, kLatticeThreads), kLatticeThreads, 0, spans, n, int(d),
                data<Geometry>(geometry));
  if (checking()) check_geometry<T>(stream, op, f, geometry, faults.first());
  return geometry;
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

}  // namespace

template <class T>
LatticeState build_lattice(const Stream& stream, const char* op, const Tensor& f) {
  const int64_t n = f.size(0), d = f.size(1), points = f.size(2), sides = d + 1, corners = points * sides;
  const LatticeState state{empty(f, {n, points, sides}, ScalarType::Int), empty(f, {n, points, sides}, kScalar<T>),
                           empty(f, {n, sides, corners, 2}, ScalarType::Int), zeros(f, {n}, ScalarType::Long)};
  if (n * points == 0) return state;
  const Tensor geometry = find_geometry<T>(stream, op, f);
  const Geometry* const g = data<Geometry>(geometry);
  const Tensor keys = empty(f, {n, corners}, ScalarType::Long), slots = empty(f, {n, corners}, ScalarType::Long);
  place_corners<T>(stream, f, g, data<int64_t>(keys), data<T>(state.weights));
  int shift = 63;
  while (int64_t(1) << (64 - shift) < 2 * corners) --shift;
  const int64_t capacity = int64_t(1) << (64 - shift), blocks = blocks_for(n * corners, kLatticeThreads);
  const Tensor table_keys = filled(f, n * capacity, ScalarType::Long, -1);
  const Tensor table_values = filled(f, n * capacity, ScalarType::Int, 2147483647);
  const Table table{data<unsigned long long>(table_keys), data<int>(table_values), capacity, shift};
  stream.launch(insert, blocks, kLatticeThreads, 0, data<int64_t>(keys), n, corners, table, data<int64_t>(slots));
  const Tensor first = empty(f, {n, corners}, ScalarType::Int);
  stream.launch(mark, blocks, kLatticeThreads, 0, data<int64_t>(slots), n, corners, table, data<int>(first));
  const Tensor sums = sums_up_to(first), vertex_keys = empty(f, {n, corners}, ScalarType::Long);
  stream.launch(number, blocks, kLatticeThreads, 0, data<int64_t>(keys), data<int64_t>(slots), data<int>(first),
                data<int64_t>(sums), n, corners, table, data<int64_t>(vertex_keys), data<int64_t>(state.count));
  stream.launch(name_corners, blocks, kLatticeThreads, 0, data<int64_t>(slots), n, corners, table,
                data<int>(state.vertices));
  stream.launch(find_neighbours, blocks_for(n * sides * corners, kLatticeThreads), kLatticeThreads, 0,
                data<int64_t>(vertex_keys), data<int64_t>(state.count), g, n, int(sides), corners, table,
                data<int>(state.neighbours));
  return state;
}

template <class T>
Tensor diagonal_of(const Stream& stream, const LatticeState& state) {
  const int64_t n = state.vertices.size(0), points = state.vertices.size(1), sides = state.vertices.size(2);
  Tensor out = empty(state.vertices, {n, points}, kScalar<T>);
  stream.launch(find_diagonal<T>, blocks_for(n * points, kLatticeThreads), kLatticeThreads, 0,
                data<int>(state.vertices), data<T>(state.weights), data<int>(state.neighbours),
                data<int64_t>(state.count), n, points, int(sides), alpha<T>(sides), data<T>(out));
  return out;
}

template LatticeState build_lattice<float>(const Stream&, const char*, const Tensor&);
template LatticeState build_lattice<double>(const Stream&, const char*, const Tensor&);
template Tensor diagonal_of<float>(const Stream&, const LatticeState&);
template Tensor diagonal_of<double>(const Stream&, const LatticeState&);

namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> permutohedral_lattice(const Tensor& features) {
  const Float type = check_features(kBuild, features);
  took(kBuild);
  const Stream stream(features);
  const Tensor f = torch::stable::contiguous(features);
  const auto [vertices, weights, neighbours, count] =
      type == Float::f64 ? build_lattice<double>(stream, kBuild, f) : build_lattice<float>(stream, kBuild, f);
  return {vertices, weights, neighbours, count};
}

Tensor permutohedral_diagonal(const Tensor& vertices, const Tensor& weights, const Tensor& neighbours,
                              const Tensor& count) {
  const Float type = check_float(kDiagonal, "weights", weights);
  check_state(kDiagonal, vertices, weights, neighbours, count);
  took(kDiagonal);
  const LatticeState state{torch::stable::contiguous(vertices), torch::stable::contiguous(weights),
                           torch::stable::contiguous(neighbours), torch::stable::contiguous(count)};
  const Stream stream(weights);
  return type == Float::f64 ? diagonal_of<double>(stream, state) : diagonal_of<float>(stream, state);
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, FASTSEG_DEVICE, m) {
  m.impl("permutohedral_lattice", TORCH_BOX(&fastseg::permutohedral_lattice));
  m.impl("permutohedral_diagonal", TORCH_BOX(&fastseg::permutohedral_diagonal));
}
