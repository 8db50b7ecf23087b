#include <tuple>

#include "instances.h"
#include "passes.h"

namespace fastseg {
namespace {

constexpr const char* kOp = "instance_distances";

template <class T>
const InstanceKernels<T>& instance_kernels() {
  if constexpr (std::is_same_v<T, int32_t>)
    return FASTSEG_PICK(distance_instances_i32);
  else
    return FASTSEG_PICK_FOR(T, distance_instances);
}

template <class T>
void measure(const Tensor& instances, Int type, const Grid& g, const Measure& how, Tensor& first, Tensor& second) {
  const int64_t sides[3] = {g.depth, g.height, g.width}, longest = std::max({g.depth, g.height, g.width});
  const int64_t count = g.images * g.size(), threads = torch::stable::get_num_threads(),
                each = instance_scratch<T>(longest);
  Tensor memory = empty(first, {4 * count * int64_t(sizeof(T))}, ScalarType::Byte);
  Tensor scratch = empty(first, {threads, each}, ScalarType::Byte);
  Tensor offsets = empty(first, {3 * longest * int64_t(sizeof(T))}, ScalarType::Byte);
  T* offset = (T*)offsets.data_ptr();
  for (int axis = 0; axis < 3; ++axis)
    for (int64_t d = 0; d < sides[axis]; ++d) offset[axis * longest + d] = T(how.offset(axis, d));

  const bool exact = how.reach(g) >= double(1 << 24);
  const Finish outs[2] = {{first.data_ptr(), false, true, exact}, {second.data_ptr(), false, true, exact}};
  const int64_t plane = g.height * g.width;
  InstancePass<T> p{};
  p.first = (T*)memory.data_ptr(), p.second = p.first + count;
  p.first_id = (InstanceOf<T>*)(p.second + count), p.second_id = p.first_id + count;
  const auto& kernels = instance_kernels<T>();
  p.width = g.width;
  const auto with_scratch = [&](int64_t slot) {
    InstancePass<T> mine = p;
    mine.scratch = (char*)scratch.data_ptr() + slot * each;
    return mine;
  };
  const auto strips = [&](int64_t planes, int64_t axis, bool last) {
    p.n = sides[axis], p.offset = offset + axis * longest;
    p.first_out = last ? &outs[0] : nullptr, p.second_out = last ? &outs[1] : nullptr;
    Ranges(planes * p.strips(), p.n * kStrip * 16).run([&](int64_t slot, int64_t b, int64_t e) {
      kernels.strips(with_scratch(slot), b, e);
    });
  };
  p.offset = offset + 2 * longest;
  Ranges(g.images * g.depth * g.height, g.width * 16).run([&](int64_t slot, int64_t b, int64_t e) {
    kernels.rows(instances.data_ptr(), type, with_scratch(slot), b, e);
  });
  p.step = g.width, p.inner = 1, p.near = 0, p.far = plane;
  strips(g.images * g.depth, 1, g.depth == 1);
  p.step = plane, p.inner = g.height, p.near = g.width, p.far = g.size();
  if (g.depth > 1) strips(g.images * g.height, 0, true);
}

std::tuple<Tensor, Tensor> instance_distances(const Tensor& given, std::vector<double> spacing) {
  const auto [type, grid, longest] = check_images(kOp, "instances", given, spacing);
  took(kOp);
  const std::vector<int64_t> shape{grid.images, grid.depth, grid.height, grid.width};
  Tensor first = empty(given, shape, ScalarType::Float), second = empty(given, shape, ScalarType::Float);
  if (given.numel() == 0) return {first, second};
  const Tensor instances = torch::stable::contiguous(given);
  check_labels(kOp, "instances", instances, type);
  const Measure how{{spacing[0], spacing[1], spacing[2]}, true, false};
  by_reach(how, grid, false, false, [&, type = type, grid = grid](auto zero) {
    measure<decltype(zero)>(instances, type, grid, how, first, second);
  });
  return {first, second};
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) { m.impl("instance_distances", TORCH_BOX(&fastseg::instance_distances)); }
