#include "../upsample/arguments.h"
#include "checks.h"
#include "confusion.h"

namespace fastseg {
namespace {

// One histogram per range of threads, added to `out` at the end; integers, so that any order gives the same counts.
struct Histograms {
  int64_t classes, copies, size;
  Tensor counts;
  std::vector<Pairs> ranges;

  Histograms(const Tensor& like, int64_t classes_, int64_t slots)
      : classes(classes_),
        copies(classes_ <= 32 ? kCopies : 1),
        size(copies * (classes_ * classes_ + 1)),
        counts(zeros(like, {slots, size}, ScalarType::Long)),
        ranges(slots) {}

  void add_to(Tensor& out) const {
    int64_t* total = (int64_t*)out.data_ptr();
    for (int64_t k = 0; k < int64_t(ranges.size()) * copies; ++k) {
      const int64_t* part = (const int64_t*)counts.data_ptr() + k * (classes * classes + 1);
      for (int64_t i = 0; i < classes * classes; ++i) total[i] += part[i];
    }
  }
};

// Threads at most, so that the histograms stay below 64 MiB.
int64_t bounded(int64_t slots, int64_t classes) {
  return std::max<int64_t>(1, std::min(slots, (int64_t(8) << 20) / (classes * classes + 1)));
}

void confusion_matrix(const Tensor& prediction, const Tensor& target, Tensor out, int64_t ignore_index) {
  const int64_t classes = check_matrix(target, out);
  const Int predicted = check_prediction(prediction, target);
  const Int type = int_type(kConfusionMatrix, "target", target.scalar_type());
  took(kConfusionMatrix);
  const Tensor p = torch::stable::contiguous(prediction), t = torch::stable::contiguous(target);
  Ranges ranges(t.numel(), 4);
  ranges.slots = bounded(ranges.slots, classes);
  Histograms histograms(t, classes, ranges.slots);
  ranges.run([&](int64_t slot, int64_t b, int64_t e) {
    Pairs& mine = histograms.ranges[slot];
    mine = {(const char*)p.data_ptr() + b * size_of(predicted),
            (const char*)t.data_ptr() + b * size_of(type),
            predicted,
            type,
            e - b,
            int32_t(classes),
            int32_t(ignore_index),
            (int64_t*)histograms.counts.data_ptr() + slot * histograms.size,
            histograms.copies,
            -1,
            -1};
    FASTSEG_PICK(count_pairs)(mine);
  });
  for (int64_t s = 0; s < ranges.slots; ++s) {
    const int64_t begin = ranges.tasks * s / ranges.slots;
    const Pairs& r = histograms.ranges[s];
    if (r.bad_target >= 0) fail_label(kConfusionMatrix, "target", t, type, begin + r.bad_target, classes);
    if (r.bad_prediction >= 0)
      fail_label(kConfusionMatrix, "prediction", p, predicted, begin + r.bad_prediction, classes);
  }
  histograms.add_to(out);
}

void upsample_confusion_matrix(const Tensor& logits, const Tensor& target, Tensor out, int64_t ignore_index,
                               bool align_corners) {
  const int64_t classes = check_matrix(target, out), height = target.size(1), width = target.size(2);
  const Float float_kind = check_logits(logits, target, out.size(0));
  const Int type = int_type(kConfusionMatrix, "target", target.scalar_type());
  took("upsample_confusion_matrix");
  if (target.numel() == 0) return;
  const Tensor t = torch::stable::contiguous(target);
  by_type(float_kind, [&](auto zero) {
    using T = decltype(zero);
    const LabelJob<T> job(logits, float_kind, height, width, align_corners);
    const int64_t h = logits.size(2);
    int64_t tallest = 0;  // output rows of a cell row
    for (int64_t i = 0; i < h; ++i)
      tallest = std::max<int64_t>(tallest, job.axes.y.axis.first[i + 1] - job.axes.y.axis.first[i]);
    Ranges ranges(logits.size(0) * h, classes * (height / h + 1) * width);
    ranges.slots = bounded(ranges.slots, classes);
    Histograms histograms(t, classes, ranges.slots);
    const ScalarType label = classes <= 256 ? ScalarType::Byte : ScalarType::Int;
    Tensor bands = empty(t, {ranges.slots, tallest * width}, label);
    ranges.run([&](int64_t slot, int64_t b, int64_t e) {
      Labels<T> labels = job.labels;
      labels.type = classes <= 256 ? Int::u8 : Int::i32;
      labels.out = (char*)bands.data_ptr() + slot * tallest * width * size_of(labels.type);
      Pairs& mine = histograms.ranges[slot];
      mine = {labels.out,
              nullptr,
              labels.type,
              type,
              0,
              int32_t(classes),
              int32_t(ignore_index),
              (int64_t*)histograms.counts.data_ptr() + slot * histograms.size,
              histograms.copies,
              -1,
              -1};
      int64_t bad = -1;
      for (int64_t i = b; i < e && bad < 0; ++i) {
        const int64_t image = i / h, first = job.axes.y.axis.first[i % h], last = job.axes.y.axis.first[i % h + 1];
        labels.origin = image * height + first;
        FASTSEG_PICK_FOR(T, labels).argmax(labels, i, i + 1);
        mine.target = (const char*)t.data_ptr() + labels.origin * width * size_of(type);
        mine.n = (last - first) * width;
        FASTSEG_PICK(count_pairs)(mine);
        if (mine.bad_target >= 0) bad = labels.origin * width + mine.bad_target;
      }
      mine.bad_target = bad;
    });
    for (const Pairs& r : histograms.ranges)
      if (r.bad_target >= 0) fail_label(kConfusionMatrix, "target", t, type, r.bad_target, classes);
    histograms.add_to(out);
  });
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) {
  m.impl("confusion_matrix", TORCH_BOX(&fastseg::confusion_matrix));
  m.impl("upsample_confusion_matrix", TORCH_BOX(&fastseg::upsample_confusion_matrix));
}
