#include "arguments.h"
#include "lattice_cuda.h"

namespace fastseg {
namespace {

constexpr const char* kApply = "permutohedral_apply";
constexpr const char* kFilter = "permutohedral_filter";

// Sorted along dimension 1, and where each one was; equal ones keep their order.
std::pair<Tensor, Tensor> sorted(const Tensor& x) {
  const auto found = call_torch("aten::sort", "stable", x, std::optional<bool>(true), int64_t(1), false);
  return {tensor_of(found[0]), tensor_of(found[1])};
}

}  // namespace

template <class T>
DeviceFactors<T>::DeviceFactors(const Stream& stream, const Tensor& sums, const std::optional<Tensor>& diagonal,
                                Normalization norm)
    : before(empty(sums, {sums.numel()}, kScalar<T>)), after(empty(sums, {sums.numel()}, kScalar<T>)) {
  const int64_t n = sums.numel();
  stream.launch(find_factors<T>, blocks_for(n, kFilterThreads), kFilterThreads, 0, data<T>(sums),
                diagonal ? data<T>(*diagonal) : nullptr, n, norm.before, norm.after, data<T>(before), data<T>(after));
}

template <class T>
DeviceLattice<T>::DeviceLattice(const Stream& stream, const LatticeState& state, int64_t channels)
    : stream_(stream),
      state_(state),
      n_(state.vertices.size(0)),
      points_(state.vertices.size(1)),
      sides_(state.vertices.size(2)),
      corners_(points_ * sides_),
      by_vertex_(sorted(torch::stable::reshape(state.vertices, {n_, corners_}))),
      owners_(empty(state.vertices, {n_ * corners_}, ScalarType::Int)),
      shares_(empty(state.vertices, {n_ * corners_}, kScalar<T>)),
      starts_(empty(state.vertices, {n_ * (corners_ + 1)}, ScalarType::Int)),
      grids_(empty(state.vertices, {2 * n_ * corners_ * channels}, kScalar<T>)),
      parts_(empty(state.vertices, {n_ * blocks_for(corners_, kPiece) * channels}, kScalar<T>)) {
  list(nullptr);
  stream.launch(find_starts<T>, blocks_for(corners_ + 1, kFilterThreads), kFilterThreads, 0, on(channels));
}

template <class T>
void DeviceLattice<T>::list(const T* before) const {
  stream_.launch(list_corners<T>, blocks_for(n_ * corners_, kFilterThreads), kFilterThreads, 0, on(1),
                 data<int64_t>(by_vertex_.second), before);
}

template <class T>
OnLattice<T> DeviceLattice<T>::on(int64_t channels) const {
  int shift = 0;
  while (shift < 5 && 1 << shift < channels) ++shift;
  return {n_,
          points_,
          channels,
          int(sides_),
          data<int>(state_.vertices),
          data<T>(state_.weights),
          data<int>(state_.neighbours),
          data<int64_t>(state_.count),
          state_.unsound ? data<int>(*state_.unsound) : nullptr,
          data<int>(by_vertex_.first),
          data<int>(owners_),
          data<T>(shares_),
          data<int>(starts_),
          alpha<T>(sides_),
          shift};
}

template <class T>
const T* DeviceLattice<T>::blurred(const T* rows, int64_t channels, bool transposed) const {
  const OnLattice<T> p = on(channels);
  const int64_t blocks = blocks_for(corners_ << p.shift, kFilterThreads);
  T *grid = data<T>(grids_), *other = grid + n_ * corners_ * channels;
  stream_.launch(splat<T>, blocks_for(n_ * blocks_for(corners_, kPiece), kFilterWarps), kFilterThreads, 0, p, rows,
                 grid, data<T>(parts_));
  stream_.launch(join<T>, blocks, kFilterThreads, 0, p, data<T>(parts_), grid);
  for (int64_t i = 0; i < sides_; ++i) {
    stream_.launch(blur<T>, blocks, kFilterThreads, 0, p, int(transposed ? sides_ - 1 - i : i), grid, other);
    std::swap(grid, other);
  }
  return grid;
}

template <class T>
void DeviceLattice<T>::filter(const T* rows, int64_t channels, bool transposed, const T* after, T* out) const {
  const T* const grid = blurred(rows, channels, transposed);
  const OnLattice<T> p = on(channels);
  stream_.launch(slice<T>, blocks_for(n_ * points_ << p.shift, kFilterThreads), kFilterThreads, 0, p, grid, after, out);
}

template <class T>
Tensor DeviceLattice<T>::sums() const {
  Tensor ones = empty(state_.vertices, {n_, points_}, kScalar<T>), out = empty(ones, {n_, points_}, kScalar<T>);
  torch::stable::fill_(ones, 1);
  filter(data<T>(ones), 1, false, nullptr, data<T>(out));
  return out;
}

template struct DeviceFactors<float>;
template struct DeviceFactors<double>;
template class DeviceLattice<float>;
template class DeviceLattice<double>;

namespace {

template <class T>
Tensor filter(const Tensor& values, const LatticeState& state, Normalization norm, bool transposed) {
  const Stream stream(values);
  const int64_t channels = values.size(1);
  const DeviceLattice<T> lattice(stream, state, channels);
  std::optional<DeviceFactors<T>> factors;
  if (norm.any()) {
    factors.emplace(stream, lattice.sums(), std::nullopt, norm);
    lattice.list(data<T>(factors->before));
  }
  const Tensor rows = swapped(values), out = empty(values, {values.size(0), values.size(2), channels}, kScalar<T>);
  lattice.filter(data<T>(rows), channels, transposed, factors ? data<T>(factors->after) : nullptr, data<T>(out));
  return swapped(out);
}

Tensor permutohedral_apply(const Tensor& values, const Tensor& vertices, const Tensor& weights,
                           const Tensor& neighbours, const Tensor& count, bool transposed) {
  check_state(kApply, vertices, weights, neighbours, count);
  const Float type = check_applied(kApply, values, vertices, weights);
  took(kApply);
  if (values.numel() == 0) return empty(values, {values.size(0), values.size(1), values.size(2)}, values.scalar_type());
  const LatticeState state = sound_state(Stream(values), kApply, vertices, weights, neighbours, count);
  const Normalization none(kApply, "none");
  return type == Float::f64 ? filter<double>(values, state, none, transposed)
                            : filter<float>(values, state, none, transposed);
}

Tensor permutohedral_filter(const Tensor& values, const Tensor& features, std::string normalization, bool transposed) {
  const Float type = check_filter(kFilter, values, features);
  Normalization norm(kFilter, normalization);
  if (transposed) std::swap(norm.before, norm.after);
  took(kFilter);
  if (values.numel() == 0) return empty(values, {values.size(0), values.size(1), values.size(2)}, values.scalar_type());
  const Stream stream(values);
  const Tensor f = torch::stable::contiguous(features);
  return type == Float::f64
             ? filter<double>(values, build_lattice<double>(stream, kFilter, "features", f), norm, transposed)
             : filter<float>(values, build_lattice<float>(stream, kFilter, "features", f), norm, transposed);
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, FASTSEG_DEVICE, m) {
  m.impl("permutohedral_apply", TORCH_BOX(&fastseg::permutohedral_apply));
  m.impl("permutohedral_filter", TORCH_BOX(&fastseg::permutohedral_filter));
}
