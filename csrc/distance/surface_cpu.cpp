#include <atomic>
#include <limits>
#include <tuple>

#include "passes.h"
#include "surface.h"

namespace fastseg {
namespace {

constexpr const char* kOp = "surface_distances";
constexpr int64_t kLarge = 1 << 18;               // elements of a box that all threads share
constexpr int64_t kLimits[] = {16, 64, kNoSite};  // steps of each try

inline int64_t rounded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// One pair of objects.
struct Item {
  int64_t image;
  Object object;
  Box box;
  int64_t counts[2], at;  // boundary elements of prediction and target, and where their distances begin
};

struct Job {
  const Tensor &prediction, &target;
  Int types[2];
  int64_t depth, height, width;
  bool volume, dual;
  Measure measure;
  const double* weights;

  Surface surface(const Item& item, int side) const {
    const Tensor& x = side ? target : prediction;
    const int64_t bytes = depth * height * width * size_of(types[side]);
    Surface s{(const char*)x.data_ptr() + item.image * bytes,
              types[side],
              height,
              width,
              item.object,
              item.box,
              volume,
              dual,
              nullptr,
              nullptr,
              nullptr};
    return s;
  }

  Grid grid(const Item& item) const {
    const Surface s = surface(item, 0);
    return {1, s.grid(0), s.grid(1), s.grid(2)};
  }
};

// The memory of one item: both boundaries, what is waited for, and a distance transform.
class Workspace {
 public:
  static int64_t bytes(const Job& job, const Item& item, int64_t threads) {
    const Grid g = job.grid(item);
    const Surface s = job.surface(item, 0);
    const int64_t longest = std::max({g.depth, g.height, g.width});
    return rounded(s.framed(0) * s.framed(1) * s.framed(2)) + 5 * rounded(g.size()) + rounded(8 * g.size()) +
           rounded(4 * job.width * threads) + Passes<double>::bytes(longest, threads);
  }

  Workspace(const Job& job, const Item& item, int64_t threads, char* memory)
      : job_(job), item_(item), grid_(job.grid(item)), threads_(threads) {
    const auto take = [&](int64_t bytes) {
      char* p = memory;
      memory += rounded(bytes);
      return p;
    };
    for (int side = 0; side < 2; ++side) {
      surfaces_[side] = job.surface(item, side);
      surfaces_[side].element = (uint8_t*)take(grid_.size());
      surfaces_[side].code = (uint8_t*)take(grid_.size());
    }
    Surface& s = surfaces_[0];
    surfaces_[1].inside = s.inside = (uint8_t*)take(s.framed(0) * s.framed(1) * s.framed(2));
    pending_ = (uint8_t*)take(grid_.size());
    values_ = take(8 * grid_.size());
    rows_ = (int32_t*)take(4 * job.width * threads);
    passes_ = memory;
  }

  // Finds both boundaries.
  void outline(int64_t* counts) const {
    const SurfaceKernels& k = FASTSEG_PICK(distance_surface);
    for (int side = 0; side < 2; ++side) {
      const Surface& s = surfaces_[side];
      ranges(s.framed(0), s.framed(1) * s.framed(2)).run([&](int64_t slot, int64_t b, int64_t e) {
        k.fill(s, b, e, rows_ + slot * job_.width);
      });
      std::atomic<int64_t> count{0};
      ranges(grid_.depth, grid_.height * grid_.width).run([&](int64_t, int64_t b, int64_t e) {
        count += k.outline(s, b, e);
      });
      counts[side] = count;
    }
  }

  // Distances of the elements of one boundary to the other.
  void measure(int side, double* out) const {
    const Surface &from = surfaces_[side], &to = surfaces_[1 - side];
    if (item_.counts[1 - side] == 0) {
      std::fill(out, out + item_.counts[side], std::numeric_limits<double>::infinity());
      return;
    }
    by_reach(job_.measure, grid_, true, false, [&](auto zero) {
      using T = decltype(zero);
      if constexpr (!std::is_same_v<T, float>) {
        const int64_t longest = std::max({grid_.depth, grid_.height, grid_.width});
        const Passes<T> passes(grid_, job_.measure, longest, threads_, passes_);
        memcpy(pending_, from.element, grid_.size());
        for (const int64_t limit : kLimits) {
          passes.run(to.element, Int::u8, false, (T*)values_, nullptr, nullptr, limit, pending_);
          const Samples<T> samples{from.element, pending_, (const T*)values_, trusted<T>(limit), grid_.size(), out};
          const SurfaceKernels& k = FASTSEG_PICK(distance_surface);
          int64_t left;
          if constexpr (sizeof(T) == 4)
            left = k.sample_i32(samples);
          else
            left = k.sample_f64(samples);
          if (left == 0) break;
        }
      }
    });
  }

  // Sizes of the elements of one boundary.
  void weigh(int side, double* out) const {
    const Surface& s = surfaces_[side];
    for (int64_t i = 0; i < grid_.size(); ++i)
      if (!s.element[i]) *out++ = job_.weights[s.code[i]];
  }

 private:
  // Whatever lies beyond so many steps along y or z is at least this far away.
  template <class T>
  T trusted(int64_t limit) const {
    const int64_t y = grid_.height - 1, z = grid_.depth - 1;
    double bound = std::numeric_limits<double>::infinity();
    if (limit < y) bound = std::min(bound, job_.measure.offset(1, limit));
    if (limit < z) bound = std::min(bound, job_.measure.offset(0, limit));
    return bound < double(std::numeric_limits<T>::max()) ? T(bound) : std::numeric_limits<T>::max();
  }

  Ranges ranges(int64_t tasks, int64_t cost) const {
    Ranges r(tasks, cost);
    r.slots = std::min(r.slots, threads_);
    return r;
  }

  const Job& job_;
  const Item& item_;
  Grid grid_;
  int64_t threads_;
  Surface surfaces_[2];
  uint8_t* pending_;
  char *values_, *passes_;
  int32_t* rows_;
};

// Large items one after the other, with all threads; the others side by side, the largest first.
class Schedule {
 public:
  Schedule(const Job& job, std::vector<Item>& items, const Tensor& like) : job_(job) {
    for (Item& item : items)
      if (!item.box.empty()) (job.grid(item).size() >= kLarge ? large_ : small_).push_back(&item);
    std::sort(small_.begin(), small_.end(),
              [&](const Item* a, const Item* b) { return job.grid(*a).size() > job.grid(*b).size(); });
    threads_ = torch::stable::get_num_threads();
    for (const Item* item : small_) each_ = std::max(each_, Workspace::bytes(job, *item, 1));
    int64_t most = each_ * threads_;
    for (const Item* item : large_) most = std::max(most, Workspace::bytes(job, *item, threads_));
    memory_ = empty(like, {most}, ScalarType::Byte);
  }

  template <class Work>
  void run(const Work& work) {
    char* memory = (char*)memory_->data_ptr();
    for (Item* item : large_) work(*item, Workspace(job_, *item, threads_, memory));
    std::atomic<int64_t> next{0};
    torch::stable::parallel_for(0, threads_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t slot = begin; slot < end; ++slot)
        for (int64_t i; (i = next++) < int64_t(small_.size());)
          work(*small_[i], Workspace(job_, *small_[i], 1, memory + slot * each_));
    });
  }

 private:
  const Job& job_;
  std::vector<Item*> large_, small_;
  int64_t threads_, each_ = 0;
  std::optional<Tensor> memory_;
};

std::vector<Item> find_items(const Job& job, int64_t images, const std::vector<int64_t>& classes) {
  std::vector<Object> objects;
  for (const int64_t c : classes) objects.push_back({false, int32_t(c)});
  if (classes.empty()) objects.push_back({true, 0});
  const int64_t count = int64_t(objects.size()), threads = torch::stable::get_num_threads();
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  std::vector<Box> boxes(images * count, Box{{kMost, kMost, kMost}, {0, 0, 0}});
  Tensor scratch = empty(job.prediction, {threads, std::max<int64_t>(job.width, 1)}, ScalarType::Int);
  const SurfaceKernels& k = FASTSEG_PICK(distance_surface);
  Ranges(images, job.depth * job.height * job.width).run([&](int64_t slot, int64_t b, int64_t e) {
    for (int64_t image = b; image < e; ++image)
      for (int side = 0; side < 2; ++side) {
        Item item{};
        item.image = image;
        const Surface s = job.surface(item, side);
        k.bounds({s.image, s.type, job.depth, job.height, job.width, objects.data(), count, &boxes[image * count],
                  (int32_t*)scratch.data_ptr() + slot * job.width});
      }
  });
  std::vector<Item> items;
  for (int64_t i = 0; i < images * count; ++i) items.push_back({i / count, objects[i % count], boxes[i], {0, 0}, 0});
  return items;
}

std::tuple<Tensor, Tensor, Tensor> surface_distances(const Tensor& given_prediction, const Tensor& given_target,
                                                     std::vector<int64_t> classes, int64_t spatial_dims,
                                                     std::vector<double> spacing, std::optional<Tensor> weights) {
  FASTSEG_CHECK(given_prediction.dim() == 4, kOp, "prediction", "be [N, D, H, W], got ", given_prediction.dim(),
                " dimensions");
  const Tensor prediction = torch::stable::contiguous(given_prediction),
               target = torch::stable::contiguous(given_target);
  for (int axis = 0; axis < 4; ++axis)
    FASTSEG_CHECK(target.dim() == 4 && target.size(axis) == prediction.size(axis), kOp, "target",
                  "have the shape of prediction, got ", target.dim(), " dimensions");
  FASTSEG_CHECK(spacing.size() == 3, kOp, "spacing", "have three numbers, got ", spacing.size());
  const bool volume = spatial_dims == 3;
  FASTSEG_CHECK(volume || (spatial_dims == 2 && prediction.size(1) == 1), kOp, "spatial_dims",
                "be 3, or 2 for one plane, got ", spatial_dims);
  FASTSEG_CHECK(!weights || (weights->numel() == (volume ? 256 : 16) && weights->is_contiguous() &&
                             weights->scalar_type() == ScalarType::Double),
                kOp, "weights", "be float64 of a value for each code, got ", weights ? weights->numel() : 0);
  took(kOp);
  Job job{prediction,
          target,
          {int_type(kOp, "prediction", prediction.scalar_type()), int_type(kOp, "target", target.scalar_type())},
          prediction.size(1),
          prediction.size(2),
          prediction.size(3),
          volume,
          weights.has_value(),
          {{spacing[0], spacing[1], spacing[2]}, true, false},
          weights ? (const double*)weights->data_ptr() : nullptr};
  std::vector<Item> items;
  const int64_t count = prediction.size(0) * std::max<int64_t>(int64_t(classes.size()), 1);
  if (prediction.numel()) items = find_items(job, prediction.size(0), classes);
  Tensor counts = zeros(prediction, {count, 2}, ScalarType::Long);
  Schedule schedule(job, items, prediction);
  schedule.run([&](Item& item, const Workspace& workspace) { workspace.outline(item.counts); });
  int64_t total = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    items[i].at = total;
    for (int side = 0; side < 2; ++side) {
      ((int64_t*)counts.data_ptr())[2 * i + side] = items[i].counts[side];
      total += items[i].counts[side];
    }
  }
  Tensor distances = empty(prediction, {total}, ScalarType::Double);
  Tensor sizes = empty(prediction, {job.dual ? total : 0}, ScalarType::Double);
  schedule.run([&](Item& item, const Workspace& workspace) {
    int64_t again[2];
    workspace.outline(again);
    for (int side = 0; side < 2; ++side) {
      const int64_t at = item.at + side * item.counts[0];
      workspace.measure(side, (double*)distances.data_ptr() + at);
      if (job.dual) workspace.weigh(side, (double*)sizes.data_ptr() + at);
    }
  });
  return {distances, sizes, counts};
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) { m.impl("surface_distances", TORCH_BOX(&fastseg::surface_distances)); }
