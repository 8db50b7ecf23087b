#include <tuple>

#include "arguments.h"
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

// What features [N, d, P] span.
template <class T>
class Measured {
 public:
  Measured(const Stream& stream, const Tensor& f)
      : features_(f),
        least_(filled(f, f.size(0) * f.size(1), ScalarType::Long, -1)),
        most_(zeros(f, {f.size(0) * f.size(1)}, ScalarType::Long)),
        faults_(f, false) {
    const int64_t planes = f.size(0) * f.size(1), chunks = blocks_for(f.size(2), kLatticeThreads * kMeasured);
    stream.launch(measure<T>, planes * chunks, kLatticeThreads, 0, data<T>(f), planes, f.size(2), chunks, spans());
  }

  Spans spans() const { return {data<unsigned long long>(least_), data<unsigned long long>(most_), faults_.first()}; }

  void check(const Stream& stream, const char* op, const char* argument) const {
    Fault fault;
    stream.read(&fault, faults_.first(), sizeof fault);
    if (!fault) return;
    const int64_t at = int64_t(kNoIndex - fault), d = features_.size(1), points = features_.size(2);
    T value;
    stream.read(&value, data<T>(features_) + at, sizeof value);
    fail(op, argument, "be finite, got ", value, " at [", at / points / d, ", ", at / points % d, ", ", at % points,
         "] of features [N, d, P]");
  }

 private:
  Tensor features_, least_, most_;
  Faults faults_;
};

// The digits of keys of each sample, an array of Geometry.
template <class T>
Tensor find_geometry(const Stream& stream, const char* op, const char* argument, const Tensor& f) {
  const int64_t n = f.size(0);
  const Measured<T> measured(stream, f);
  const Tensor geometry = empty(f, {n * int64_t(sizeof(Geometry))}, ScalarType::Byte);
  stream.launch(find_digits, blocks_for(n, kLatticeThreads), kLatticeThreads, 0, measured.spans(), n, int(f.size(1)),
                data<Geometry>(geometry));
  if (!checking()) return geometry;
  measured.check(stream, op, argument);
  for (int64_t i = 0; i < n; ++i) {
    Geometry found;
    stream.read(&found, data<Geometry>(geometry) + i, sizeof found);
    FASTSEG_CHECK(!found.bad, op, argument,
                  "be less than 2^40 cells of the lattice from 0 and span fewer than 2^62, got more in sample ", i);
  }
  return geometry;
}

template <class T>
void place_corners(const Stream& stream, const Tensor& features, const Geometry* geometry, Key* keys, T* weights) {
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
Tensor unfit_samples(const Stream& stream, const char* op, const char* argument, const Tensor& features) {
  const Measured<T> measured(stream, features);
  if (checking()) measured.check(stream, op, argument);
  Tensor unfit = empty(features, {features.size(0)}, ScalarType::Int);
  stream.launch(find_unfit, blocks_for(features.size(0), kLatticeThreads), kLatticeThreads, 0, measured.spans(),
                features.size(0), int(features.size(1)), data<int>(unfit));
  return unfit;
}

LatticeState sound_state(const Stream& stream, const char* op, const Tensor& vertices, const Tensor& weights,
                         const Tensor& neighbours, const Tensor& count) {
  const int64_t n = vertices.size(0), sides = vertices.size(2), corners = vertices.size(1) * sides;
  LatticeState state{torch::stable::contiguous(vertices), torch::stable::contiguous(weights),
                     torch::stable::contiguous(neighbours), torch::stable::contiguous(count),
                     zeros(vertices, {n}, ScalarType::Int)};
  stream.launch(find_unsound, blocks_for(n * corners, kLatticeThreads), kLatticeThreads, 0, data<int>(state.vertices),
                data<int>(state.neighbours), data<int64_t>(state.count), n, int(sides), corners,
                data<int>(*state.unsound));
  for (int64_t i = 0; checking() && i < n; ++i) {
    int unsound;
    stream.read(&unsound, data<int>(*state.unsound) + i, sizeof unsound);
    FASTSEG_CHECK(!unsound, op, "vertices, neighbours and count", "be those of a lattice, got others in sample ", i);
  }
  return state;
}

template <class T>
LatticeState build_lattice(const Stream& stream, const char* op, const char* argument, const Tensor& f) {
  const int64_t n = f.size(0), d = f.size(1), points = f.size(2), sides = d + 1, corners = points * sides;
  const LatticeState state{empty(f, {n, points, sides}, ScalarType::Int), empty(f, {n, points, sides}, kScalar<T>),
                           empty(f, {n, sides, corners, 2}, ScalarType::Int), zeros(f, {n}, ScalarType::Long),
                           std::nullopt};
  if (n * points == 0) return state;
  const Tensor geometry = find_geometry<T>(stream, op, argument, f);
  const Geometry* const g = data<Geometry>(geometry);
  const Tensor keys = empty(f, {n, corners}, ScalarType::Long), slots = empty(f, {n, corners}, ScalarType::Long);
  place_corners<T>(stream, f, g, data<Key>(keys), data<T>(state.weights));
  int shift = 63;
  while (int64_t(1) << (64 - shift) < 2 * corners) --shift;
  const int64_t capacity = int64_t(1) << (64 - shift), blocks = blocks_for(n * corners, kLatticeThreads);
  const Tensor table_keys = filled(f, n * capacity, ScalarType::Long, -1);
  const Tensor table_values = filled(f, n * capacity, ScalarType::Int, 2147483647);
  const Table table{data<Key>(table_keys), data<int>(table_values), capacity, shift};
  stream.launch(insert, blocks, kLatticeThreads, 0, data<Key>(keys), n, corners, table, data<int64_t>(slots));
  const Tensor first = empty(f, {n, corners}, ScalarType::Int);
  stream.launch(mark, blocks, kLatticeThreads, 0, data<int64_t>(slots), n, corners, table, data<int>(first));
  const Tensor sums = sums_up_to(first), vertex_keys = filled(f, n * corners, ScalarType::Long, -0x1p62);
  stream.launch(number, blocks, kLatticeThreads, 0, data<Key>(keys), data<int64_t>(slots), data<int>(first),
                data<int64_t>(sums), n, corners, table, data<Key>(vertex_keys), data<int64_t>(state.count));
  stream.launch(name_corners, blocks, kLatticeThreads, 0, data<int64_t>(slots), n, corners, table,
                data<int>(state.vertices));
  stream.launch(find_neighbours, blocks_for(n * sides * corners, kLatticeThreads), kLatticeThreads, 0,
                data<Key>(vertex_keys), data<int64_t>(state.count), g, n, int(sides), corners, table,
                data<int>(state.neighbours));
  return state;
}

template <class T>
Tensor diagonal_of(const Stream& stream, const LatticeState& state) {
  const int64_t n = state.vertices.size(0), points = state.vertices.size(1), sides = state.vertices.size(2);
  Tensor out = empty(state.vertices, {n, points}, kScalar<T>);
  stream.launch(find_diagonal<T>, blocks_for(n * points, kLatticeThreads), kLatticeThreads, 0,
                data<int>(state.vertices), data<T>(state.weights), data<int>(state.neighbours),
                data<int64_t>(state.count), state.unsound ? data<int>(*state.unsound) : nullptr, n, points, int(sides),
                alpha<T>(sides), data<T>(out));
  return out;
}

template Tensor unfit_samples<float>(const Stream&, const char*, const char*, const Tensor&);
template Tensor unfit_samples<double>(const Stream&, const char*, const char*, const Tensor&);
template LatticeState build_lattice<float>(const Stream&, const char*, const char*, const Tensor&);
template LatticeState build_lattice<double>(const Stream&, const char*, const char*, const Tensor&);
template Tensor diagonal_of<float>(const Stream&, const LatticeState&);
template Tensor diagonal_of<double>(const Stream&, const LatticeState&);

namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> permutohedral_lattice(const Tensor& features) {
  const Float type = check_features(kBuild, features);
  took(kBuild);
  const Stream stream(features);
  const Tensor f = torch::stable::contiguous(features);
  const LatticeState state = type == Float::f64 ? build_lattice<double>(stream, kBuild, "features", f)
                                                : build_lattice<float>(stream, kBuild, "features", f);
  return {state.vertices, state.weights, state.neighbours, state.count};
}

Tensor permutohedral_diagonal(const Tensor& vertices, const Tensor& weights, const Tensor& neighbours,
                              const Tensor& count) {
  const Float type = check_float(kDiagonal, "weights", weights);
  check_state(kDiagonal, vertices, weights, neighbours, count);
  took(kDiagonal);
  const Stream stream(weights);
  const LatticeState state = sound_state(stream, kDiagonal, vertices, weights, neighbours, count);
  return type == Float::f64 ? diagonal_of<double>(stream, state) : diagonal_of<float>(stream, state);
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, FASTSEG_DEVICE, m) {
  m.impl("permutohedral_lattice", TORCH_BOX(&fastseg::permutohedral_lattice));
  m.impl("permutohedral_diagonal", TORCH_BOX(&fastseg::permutohedral_diagonal));
}
