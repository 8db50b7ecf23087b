// Confusion matrices. Shapes: labels of any integer type, flat; counts [classes, classes], rows the target.
#pragma once
#include <stdint.h>

#include "../common/dtypes.h"
#include "../common/isa.h"

namespace fastseg {

constexpr int64_t kCopies = 4;  // histograms that consecutive pixels alternate between, for few classes

struct Pairs {
  const void *prediction, *target;
  Int prediction_type, target_type;
  int64_t n;
  int32_t classes, ignore_index;
  int64_t* counts;                     // [copies, classes * classes + 1], the last one for ignored pixels; added to
  int64_t copies;                      // 1 or kCopies
  int64_t bad_target, bad_prediction;  // first index out of range, or -1
};

using CountPairs = void (*)(Pairs&);
FASTSEG_TABLES(CountPairs, count_pairs);

}  // namespace fastseg
