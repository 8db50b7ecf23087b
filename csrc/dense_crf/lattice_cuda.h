// The dense CRF on a GPU, for the glue files: the lattice, its filter, and the kernels that are exact.
#pragma once
#include <array>

#include "../common/cuda.h"
#include "filter_kernel.cuh"
#include "normalization.h"

namespace fastseg {

template <class T>
T* data(const Tensor& x) {
  return (T*)x.data_ptr();
}

inline int64_t blocks_for(int64_t tasks, int64_t threads) { return (tasks + threads - 1) / threads; }

// So that a point on a vertex of a full lattice has a kernel of 1 with itself.
template <class T>
T alpha(int64_t sides) {
  return T(1.0 / (1.0 + 1.0 / double(int64_t(1) << (sides - 1))));
}

// An op of torch's: what it returns lies where its arguments were.
template <class... A>
std::array<StableIValue, sizeof...(A)> call_torch(const char* name, const char* overload, const A&... arguments) {
  std::array<StableIValue, sizeof...(A)> stack{torch::stable::detail::from(arguments)...};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(name, overload, stack.data(), TORCH_ABI_VERSION));
  return stack;
}

inline Tensor tensor_of(StableIValue value) { return torch::stable::detail::to<Tensor>(value); }

// Planes [N, C, P] as rows [N, P, C], or back.
inline Tensor swapped(const Tensor& x) { return torch::stable::contiguous(torch::stable::transpose(x, 1, 2)); }

// What permutohedral_lattice returns, dense.
struct LatticeState {
  Tensor vertices, weights, neighbours, count;
  std::optional<Tensor> unsound;  // [N], of states that index what is not theirs; none if it was made here
};

// A state that somebody may have written; its shapes are right.
LatticeState sound_state(const Stream& stream, const char* op, const Tensor& vertices, const Tensor& weights,
                         const Tensor& neighbours, const Tensor& count);

// Which samples of features [N, d, P], dense, have some that are not finite: [N], which raises if it is asked to.
// `argument` is what the features come from.
template <class T>
Tensor unfit_samples(const Stream& stream, const char* op, const char* argument, const Tensor& features);

// Of such features; NaN in all weights of a sample that no lattice holds.
template <class T>
LatticeState build_lattice(const Stream& stream, const char* op, const char* argument, const Tensor& features);

// What the kernel takes from each point to itself, [N, P].
template <class T>
Tensor diagonal_of(const Stream& stream, const LatticeState& state);

// Factors [N, P] of a kernel with these sums of rows [N, P]. The diagonal becomes that of messages.
template <class T>
struct DeviceFactors {
  Tensor before, after;
  DeviceFactors(const Stream& stream, const Tensor& sums, const std::optional<Tensor>& diagonal, Normalization norm);
};

// Values of up to `channels` channels through the lattice, as rows.
template <class T>
class DeviceLattice {
 public:
  DeviceLattice(const Stream& stream, const LatticeState& state, int64_t channels);

  // Values are multiplied by these factors from now on, or by none.
  void list(const T* before) const;
  OnLattice<T> on(int64_t channels) const;
  // Rows [N, P, channels] -> the grid to slice.
  const T* blurred(const T* rows, int64_t channels, bool transposed = false) const;
  // Rows -> rows, times `after` [N, P], or not.
  void filter(const T* rows, int64_t channels, bool transposed, const T* after, T* out) const;
  // Of rows of the kernel, [N, P].
  Tensor sums() const;

 private:
  const Stream& stream_;
  LatticeState state_;
  int64_t n_, points_, sides_, corners_;
  std::pair<Tensor, Tensor> by_vertex_;  // sorted corners, and which they are
  Tensor owners_, shares_, starts_, grids_, parts_;
};

// An axis of a map: [outer, size, inner] values, `channels` of each pixel beside each other.
struct Pass {
  int64_t outer, size, inner, channels;
  double sigma;
};

// Values times `factors` of pixels, or not, along an axis; normalized as in gaussian_filter_2d.
template <class T>
void filter_along(const Stream& stream, const Tensor& like, const Pass& pass, const T* values, const T* factors,
                  Normalization norm, T* out);

// Values [N, P, C], if they are `rows`, or [N, C, P], times factors [N, P], or not: all pairs of features [N, d, P].
template <class T>
void filter_all_pairs(const Stream& stream, const Tensor& features, int64_t channels, bool rows, const T* values,
                      const T* before, T* out);

}  // namespace fastseg
