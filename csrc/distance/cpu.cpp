#include "passes.h"

namespace fastseg {
namespace {

constexpr const char* kOp = "distance_transform";

std::tuple<Tensor, Tensor> distance_transform(const Tensor& given, std::vector<double> spacing, std::string metric,
                                              bool squared, bool labels, bool indices, ScalarType dtype) {
  const auto [type, grid, longest] = check_images(kOp, "mask", given, spacing);
  FASTSEG_CHECK(metric == "euclidean" || metric == "taxicab" || metric == "chessboard", kOp, "metric",
                "be euclidean, taxicab or chessboard, got ", metric);
  took(kOp);
  std::vector<int64_t> shape{grid.images, grid.depth, grid.height, grid.width};
  Tensor out = empty(given, shape, dtype);
  if (!indices) shape = {grid.images, 0};
  Tensor sites = empty(given, shape, ScalarType::Long);
  if (out.numel() == 0) return {out, sites};
  const Tensor mask = torch::stable::contiguous(given);
  if (labels) check_labels(kOp, "mask", mask, type);

  const bool squares = metric == "euclidean", wide = dtype == ScalarType::Double;
  const Measure measure{{spacing[0], spacing[1], spacing[2]}, squares, metric == "taxicab"};
  const Finish last{out.data_ptr(), wide, squares && !squared, measure.reach(grid) >= double(1 << 24)};
  by_reach(measure, grid, wide, indices, [&, type = type, grid = grid, longest = longest](auto zero) {
    using T = decltype(zero);
    const int64_t threads = torch::stable::get_num_threads();
    Tensor memory = empty(out, {Passes<T>::bytes(longest, threads)}, ScalarType::Byte);
    const bool in_place = element_size(dtype) == int64_t(sizeof(T));
    Tensor values = in_place ? out : empty(out, {out.numel() * int64_t(sizeof(T))}, ScalarType::Byte);
    Passes<T>(grid, measure, longest, threads, (char*)memory.data_ptr())
        .run(mask.data_ptr(), type, labels, (T*)values.data_ptr(), indices ? (int64_t*)sites.data_ptr() : nullptr,
             &last);
  });
  return {out, sites};
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) { m.impl("distance_transform", TORCH_BOX(&fastseg::distance_transform)); }
