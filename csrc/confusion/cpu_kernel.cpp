// Histogram of (target, prediction) pairs: widen and check a block of labels with vectors, then one increment per
// pixel. Neighbouring pixels mostly share their pair, so alternating between copies keeps increments from waiting for
// each other's stores.
#include "confusion.h"

namespace fastseg {
namespace {

void count_pairs(Pairs& p) {
  constexpr int64_t kBlock = 512;
  const int64_t cells = int64_t(p.classes) * p.classes;
  int32_t target[kBlock], prediction[kBlock];
  int64_t cell[kBlock];
  for (int64_t at = 0; at < p.n; at += kBlock) {
    const int64_t n = p.n - at < kBlock ? p.n - at : kBlock;
    widen_labels((const char*)p.target + at * size_of(p.target_type), p.target_type, n, target);
    widen_labels((const char*)p.prediction + at * size_of(p.prediction_type), p.prediction_type, n, prediction);
    int32_t wrong = 0;
    for (int64_t i = 0; i < n; ++i) {
      const int32_t t = target[i], q = prediction[i];
      const int32_t counted = t != p.ignore_index;
      const int32_t out = (uint32_t(t) >= uint32_t(p.classes)) | (uint32_t(q) >= uint32_t(p.classes));
      wrong |= counted & out;
      cell[i] = counted & !out ? int64_t(t) * p.classes + q : cells;
    }
    if (wrong)
      for (int64_t i = 0; i < n; ++i) {
        if (target[i] == p.ignore_index) continue;
        if (p.bad_target < 0 && uint32_t(target[i]) >= uint32_t(p.classes)) p.bad_target = at + i;
        if (p.bad_prediction < 0 && uint32_t(prediction[i]) >= uint32_t(p.classes)) p.bad_prediction = at + i;
      }
    if (p.copies == kCopies) {
      int64_t i = 0;
      for (; i + kCopies <= n; i += kCopies)
        for (int64_t k = 0; k < kCopies; ++k) ++p.counts[k * (cells + 1) + cell[i + k]];
      for (; i < n; ++i) ++p.counts[cell[i]];
    } else {
      for (int64_t i = 0; i < n; ++i) ++p.counts[cell[i]];
    }
  }
}

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::CountPairs FASTSEG_FOR_ISA(count_pairs) = fastseg::count_pairs;
