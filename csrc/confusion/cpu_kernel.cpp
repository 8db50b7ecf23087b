// Histogram of (target, prediction) pairs: widen and check a block of labels with vectors, then one increment per
// pixel. Neighbouring pixels mostly share their pair, so alternating between copies keeps increments from waiting for
// each other's stores.
#include "confusion.h"

namespace fastseg {
namespace {

constexpr int64_t kBlock = 512;

// The cell of each pair of a block, `cells` for what is ignored; returns whether a label is out of range.
template <class Target, class Prediction>
bool index_cells(const Pairs& p, const Target* target, const Prediction* prediction, int64_t n, uint32_t* cell) {
  const int32_t classes = p.classes, ignored = p.ignore_index, cells = classes * classes;
  int32_t wrong = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int32_t t = target[i], q = prediction[i];
    const int32_t counted = t != ignored;
    const int32_t out = (uint32_t(t) >= uint32_t(classes)) | (uint32_t(q) >= uint32_t(classes));
    wrong |= counted & out;
    cell[i] = counted & !out ? uint32_t(t) * uint32_t(classes) + uint32_t(q) : uint32_t(cells);
  }
  return wrong;
}

void count_pairs(Pairs& p) {
  const int64_t cells = int64_t(p.classes) * p.classes;
  const bool bytes = p.target_type == Int::u8 && p.prediction_type == Int::u8;
  int32_t target[kBlock], prediction[kBlock];
  uint32_t cell[kBlock];
  for (int64_t at = 0; at < p.n; at += kBlock) {
    const int64_t n = p.n - at < kBlock ? p.n - at : kBlock;
    const char* t = (const char*)p.target + at * size_of(p.target_type);
    const char* q = (const char*)p.prediction + at * size_of(p.prediction_type);
    bool wrong = bytes && index_cells(p, (const uint8_t*)t, (const uint8_t*)q, n, cell);
    if (!bytes || wrong) {
      widen_labels(t, p.target_type, n, target);
      widen_labels(q, p.prediction_type, n, prediction);
    }
    if (!bytes) wrong = index_cells(p, target, prediction, n, cell);
    if (wrong)
      for (int64_t i = 0; i < n; ++i) {
        if (target[i] == p.ignore_index) continue;
        if (p.bad_target < 0 && uint32_t(target[i]) >= uint32_t(p.classes)) p.bad_target = at + i;
        if (p.bad_prediction < 0 && uint32_t(prediction[i]) >= uint32_t(p.classes)) p.bad_prediction = at + i;
      }
    int64_t i = 0;
    if (p.copies == kCopies)
      for (; i + kCopies <= n; i += kCopies)
        for (int64_t k = 0; k < kCopies; ++k) ++p.counts[k * (cells + 1) + cell[i + k]];
    for (; i < n; ++i) ++p.counts[cell[i]];
  }
}

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::CountPairs FASTSEG_FOR_ISA(count_pairs) = fastseg::count_pairs;
