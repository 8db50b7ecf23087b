#include "lattice_cuda.h"
#include "mean_field_kernel.cuh"
#include "options.h"

namespace fastseg {
namespace {

constexpr const char* kOp = "dense_crf";

// Whether compatibilities [2, C, C] say anything of two labels, as a bool on the device.
Tensor coupling(const Tensor& tables) {
  const auto part = [&](const char* name, int64_t k) { return tensor_of(call_torch(name, "", tables, k)[0]); };
  const auto any = [](const Tensor& x) { return tensor_of(call_torch("aten::any", "", x)[0]); };
  const Tensor above = any(part("aten::triu", 1)), below = any(part("aten::tril", -1));
  return tensor_of(call_torch("aten::logical_or", "", above, below)[0]);
}

// Mean field of all samples at once, with values as rows [N, P, C]. Nothing waits for the device.
template <class T>
class DeviceField {
 public:
  // energies [N, C, ...] and features [N, d, ...], dense; sigma: of the axes in their order; tables [2, C, C].
  DeviceField(const Tensor& energies, const Tensor& features, const std::vector<double>& sigma, const Tensor& tables,
              const Options& options)
      : stream_(energies),
        options_(options),
        n_(energies.size(0)),
        channels_(energies.size(1)),
        points_(energies.numel() / (n_ * channels_)),
        unary_(swapped(torch::stable::reshape(energies, {n_, channels_, points_}))),
        features_(torch::stable::reshape(features, {n_, features.size(1), points_})),
        tables_(swapped(tables)),
        coupled_(coupling(tables)),
        grid_{{1, 1, 1}, {1, 1, 1}, int(sigma.size())} {
    for (int axis = 0; axis < grid_.axes; ++axis) {
      grid_.size[3 - grid_.axes + axis] = energies.size(2 + axis);
      grid_.sigma[3 - grid_.axes + axis] = sigma[axis];
    }
    if (options.exact_bilateral) unfit_ = unfit_samples<T>(stream_, kOp, "image", features_);
    for (int kernel = 0; options.iterations > 0 && kernel < 2; ++kernel) prepare(kernel);
  }

  // Rows of logits or probabilities.
  Tensor infer() const {
    const int64_t pixels = n_ * points_;
    Tensor old = rows(channels_), now = rows(channels_);
    for (int64_t iteration = 0; iteration <= options_.iterations; ++iteration) {
      const bool messages = iteration > 0;
      const bool softmax = iteration < options_.iterations || options_.output == Output::probabilities;
      stream_.launch(settle<T>, blocks_for(pixels, kFieldWarps), kFieldThreads, 0, message(0, old, messages),
                     message(1, old, messages), messages, data<bool>(coupled_), softmax,
                     unfit_ ? data<int>(*unfit_) : nullptr, data<T>(unary_), data<T>(old), data<T>(now));
      std::swap(old, now);
    }
    return old;
  }

 private:
  // The spatial or the bilateral kernel.
  struct Kernel {
    std::optional<DeviceLattice<T>> lattice;
    std::optional<Tensor> self, map;  // map: the messages of an exact one
    std::optional<DeviceFactors<T>> factors;
  };

  const Stream stream_;
  Options options_;
  int64_t n_, channels_, points_;
  Tensor unary_, features_, tables_, coupled_;
  std::optional<Tensor> unfit_;  // [N], where no lattice tells
  Grid grid_;
  Kernel kernels_[2];

  Tensor rows(int64_t channels) const { return empty(unary_, {n_, points_, channels}, kScalar<T>); }

  void prepare(int which) {
    Kernel& kernel = kernels_[which];
    Tensor ones = rows(1), sums = rows(1);
    torch::stable::fill_(ones, 1);
    if (which == 0 ? options_.exact_spatial : options_.exact_bilateral) {
      filter_exactly(which, ones, 1, nullptr, sums);
      kernel.map = rows(channels_);
      if (!options_.include_self) kernel.self = ones;
    } else {
      const LatticeState state = which == 0 ? build_lattice<T>(stream_, kOp, "spatial_sigma", positions())
                                            : build_lattice<T>(stream_, kOp, "image", features_);
      if (!options_.include_self) kernel.self = diagonal_of<T>(stream_, state);
      kernel.lattice.emplace(stream_, state, channels_);
      sums = kernel.lattice->sums();
    }
    kernel.factors.emplace(stream_, sums, kernel.self, options_.norm);
    if (kernel.lattice) kernel.lattice->list(data<T>(kernel.factors->before));
  }

  Tensor positions() const {
    const Tensor features = empty(unary_, {n_, grid_.axes, points_}, kScalar<T>);
    stream_.launch(find_positions<T>, blocks_for(n_ * points_, kFieldThreads), kFieldThreads, 0, grid_, n_,
                   data<T>(features));
    return features;
  }

  // The rows `out`, of an exact kernel.
  void filter_exactly(int which, const Tensor& values, int64_t channels, const T* before, const Tensor& out) const {
    if (which == 1) return filter_all_pairs(stream_, features_, channels, true, data<T>(values), before, data<T>(out));
    const Normalization none(kOp, "none");
    Tensor from = values;
    int64_t outer = n_, inner = points_ * channels;
    for (int axis = 3 - grid_.axes; axis < 3; ++axis) {
      const Tensor to = axis == 2 ? out : rows(channels);
      inner /= grid_.size[axis];
      filter_along(stream_, unary_, {outer, grid_.size[axis], inner, channels, grid_.sigma[axis]}, data<T>(from),
                   axis == 3 - grid_.axes ? before : nullptr, none, data<T>(to));
      outer *= grid_.size[axis];
      from = to;
    }
  }

  // What a kernel makes of the values.
  Message<T> message(int which, const Tensor& values, bool wanted) const {
    const Kernel& kernel = kernels_[which];
    Message<T> message{};
    if (kernel.lattice) message.lattice = kernel.lattice->on(channels_);
    message.lattice.samples = n_;
    message.lattice.points = points_;
    message.lattice.channels = channels_;
    if (!wanted) return message;
    message.after = data<T>(kernel.factors->after);
    message.self = kernel.self ? data<T>(*kernel.self) : nullptr;
    message.table = data<T>(tables_) + which * channels_ * channels_;
    if (kernel.lattice) {
      message.grid = kernel.lattice->blurred(data<T>(values), channels_);
    } else {
      filter_exactly(which, values, channels_, data<T>(kernel.factors->before), *kernel.map);
      message.map = data<T>(*kernel.map);
    }
    return message;
  }
};

template <class T>
Tensor infer(const Tensor& unary, const Tensor& features, const std::vector<double>& sigma, const Tensor& tables,
             const Options& options) {
  const Tensor u = torch::stable::contiguous(unary), f = torch::stable::contiguous(features);
  const Tensor rows = DeviceField<T>(u, f, sigma, tables, options).infer();
  const Tensor found = options.output == Output::labels
                           ? tensor_of(call_torch("aten::argmax", "", rows, std::optional<int64_t>(2), false)[0])
                           : swapped(rows);
  const Tensor out = torch::stable::reshape(found, options.sizes(unary));
  return stored(out, unary.dim() == 4 && options.output != Output::labels && is_channels_last(unary));
}

Tensor dense_crf(const Tensor& unary, const Tensor& features, std::vector<double> sigma, const Tensor& compatibility,
                 int64_t iterations, std::string normalization, bool include_self, std::string spatial,
                 std::string bilateral, std::string output) {
  const Options options(kOp, unary, features, sigma, compatibility, iterations, normalization, include_self, spatial,
                        bilateral, output);
  took(kOp);
  const ScalarType type = options.output == Output::labels ? ScalarType::Long : unary.scalar_type();
  if (unary.numel() == 0) return empty(unary, options.sizes(unary), type);
  return unary.scalar_type() == ScalarType::Double ? infer<double>(unary, features, sigma, compatibility, options)
                                                   : infer<float>(unary, features, sigma, compatibility, options);
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, FASTSEG_DEVICE, m) { m.impl("dense_crf", TORCH_BOX(&fastseg::dense_crf)); }
