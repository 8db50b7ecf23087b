// Atrous spatial pyramid pooling. x is brought to channels_last once for all branches. No concatenation: the projection
// is split by branches and accumulated, and the image pool is a bias of it for each image.
#include "../atrous_conv/convolve.h"

namespace fastseg {
namespace {

constexpr const char* kOp = "aspp_conv2d";

// What is computed of the arguments, in T.
struct Head {
  const Tensor &x, &pointwise;
  const std::vector<Tensor>& branches;
  const std::vector<Tensor>& packed;
  const std::vector<int64_t>& rates;
  const std::optional<Tensor>& pool;
  const Tensor& project;
  const std::optional<Tensor>&branch_scale, &branch_shift, &project_scale, &project_shift, &pooled;

  int64_t n() const { return x.size(0); }
  int64_t c() const { return x.size(1); }
  int64_t branch_channels() const { return pointwise.size(0); }
  int64_t outputs() const { return project.size(0); }
  int64_t parts() const { return int64_t(rates.size()) + 1 + pool.has_value(); }

  // Of branch i: 0 is the 1 x 1 convolution, then the rates, then the pool.
  After after(int64_t i) const {
    const auto row = [&](const std::optional<Tensor>& t) -> std::optional<Tensor> {
      if (!t) return std::nullopt;
      return torch::stable::select(torch::stable::contiguous(*t), 0, i);
    };
    return {std::nullopt, row(branch_scale), row(branch_shift), std::nullopt, Activation::relu};
  }
};

// The mean of each channel, [n, c] of T, from dense maps.
template <class T>
Tensor mean_of(const Tensor& maps, bool channels_last) {
  const int64_t n = maps.size(0), c = maps.size(1), pixels = maps.size(2) * maps.size(3);
  const Tensor flat =
      torch::stable::view(storage_of(maps, channels_last),
                          channels_last ? std::vector<int64_t>{n, pixels, c} : std::vector<int64_t>{n, c, pixels});
  const Tensor sums = torch::stable::sum(flat, std::vector<int64_t>{channels_last ? 1 : 2});
  for (int64_t i = 0; i < n * c; ++i) ((T*)sums.data_ptr())[i] /= T(pixels);
  return sums;
}

template <class T>
Tensor head(const Head& h) {
  const bool last = sizeof(T) == 4;  // where oneDNN and the tiles take it
  const int64_t n = h.n(), height = h.x.size(2), width = h.x.size(3), pixels = height * width, k = h.outputs();
  const int64_t b = h.branch_channels();
  const Tensor maps = dense_maps<T>(h.x, last);
  const bool stored_last = is_channels_last(maps);
  const Tensor project = torch::stable::reshape(torch::stable::to(h.project, kScalar<T>), {k, h.parts() * b});
  const Tensor y = empty_images(h.x, n, k, height, width, kScalar<T>, true);
  const Tensor rows = torch::stable::view(storage_of(y, true), {n * pixels, k});
  const auto part_of_project = [&](int64_t i) {
    return torch::stable::transpose(narrowed(project, 1, i * b, b), 0, 1);
  };
  if (h.pool) {
    const Tensor mean =
        h.pooled ? torch::stable::contiguous(torch::stable::to(*h.pooled, kScalar<T>)) : mean_of<T>(maps, stored_last);
    const Tensor matrix = torch::stable::reshape(torch::stable::to(*h.pool, kScalar<T>), {b, h.c()});
    const Tensor image = empty(h.x, {n, b, 1, 1}, kScalar<T>), bias = empty(h.x, {n, k}, kScalar<T>);
    aten::mm(torch::stable::view(image, {n, b}), mean, torch::stable::transpose(matrix, 0, 1));
    const EpilogueTensors<T> after = h.after(h.parts() - 1).on<T>(h.x, b, false);
    finish_maps<T>(image, false, after.epilogue);
    aten::mm(bias, torch::stable::view(image, {n, b}), part_of_project(h.parts() - 1));
    for (int64_t i = 0; i < n; ++i) {
      Tensor place = torch::stable::view(narrowed(rows, 0, i * pixels, pixels), {pixels, k});
      torch::stable::copy_(place, narrowed(bias, 0, i, 1));
    }
  }
  for (int64_t i = 0; i <= int64_t(h.rates.size()); ++i) {
    const Tensor& weight = i ? h.branches[i - 1] : h.pointwise;
    const int64_t rate = i ? h.rates[i - 1] : 1, padding = i ? rate : 0;
    const ConvArguments a(kOp, h.x, weight, {1, 1}, {padding, padding}, {rate, rate}, 1);
    const std::optional<Tensor> packed =
        i && !h.packed.empty() && h.packed[i - 1].numel() ? std::optional(h.packed[i - 1]) : std::nullopt;
    const int algorithm = choose_algorithm(a, packed ? scheme_of(kOp, *packed, a.c, a.k) : kNotPacked);
    const Tensor branch = dense_maps<T>(convolve<T>(a, algorithm, maps, weight, packed, h.after(i)), true);
    const Tensor part = torch::stable::view(storage_of(branch, true), {n * pixels, b});
    (i || h.pool ? aten::add_mm : aten::mm)(rows, part, part_of_project(i));
  }
  const EpilogueTensors<T> after(h.x, k, {}, h.project_scale, h.project_shift, {}, Activation::relu, true);
  finish_maps<T>(y, true, after.epilogue);
  return y;
}

Tensor aspp_conv2d(const Tensor& x, const Tensor& pointwise, std::vector<Tensor> branches, std::vector<Tensor> packed,
                   std::vector<int64_t> rates, const std::optional<Tensor>& pool, const Tensor& project,
                   const std::optional<Tensor>& branch_scale, const std::optional<Tensor>& branch_shift,
                   const std::optional<Tensor>& project_scale, const std::optional<Tensor>& project_shift,
                   const std::optional<Tensor>& pooled) {
  FASTSEG_CHECK(x.dim() == 4 && pointwise.dim() == 4 && project.dim() == 4, kOp, "x", "be [N, C, H, W], got ", x.dim(),
                " dimensions");
  const int64_t c = x.size(1), b = pointwise.size(0), k = project.size(0);
  const Head h{x,       pointwise,    branches,     packed,        rates,         pool,
               project, branch_scale, branch_shift, project_scale, project_shift, pooled};
  const Float type = float_type(kOp, "x", x);
  FASTSEG_CHECK(b > 0 && k > 0 && c > 0, kOp, "x", "have channels, as its weights, got ", c, ", ", b, " and ", k);
  FASTSEG_CHECK(branches.size() == rates.size() && (packed.empty() || packed.size() == rates.size()), kOp, "rates",
                "be as many as branch_weights, got ", rates.size(), " for ", branches.size());
  const auto check = [&](const char* name, const std::optional<Tensor>& t, const std::vector<int64_t>& shape) {
    check_shape(kOp, name, t, shape);
  };
  check("pointwise_weight", pointwise, {b, c, 1, 1});
  for (const Tensor& branch : branches) check("branch_weights", branch, {b, c, 3, 3});
  for (const int64_t rate : rates)
    FASTSEG_CHECK(rate > 0 && rate < int64_t(1) << 30, kOp, "rates", "be in [1, 2^30), got ", rate);
  check("pool_weight", pool, {b, c, 1, 1});
  check("project_weight", project, {k, h.parts() * b, 1, 1});
  check("branch_scale", branch_scale, {h.parts(), b});
  check("branch_shift", branch_shift, {h.parts(), b});
  check("project_scale", project_scale, {k});
  check("project_shift", project_shift, {k});
  check("pooled", pooled, {x.size(0), c});
  took(kOp);
  if (x.numel() == 0) return empty_images(x, x.size(0), k, x.size(2), x.size(3), x.scalar_type(), is_channels_last(x));
  return by_type(type, [&](auto zero) {
    using T = decltype(zero);
    return result_like<T>(head<T>(h), x);
  });
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) { m.impl("aspp_conv2d", TORCH_BOX(&fastseg::aspp_conv2d)); }
