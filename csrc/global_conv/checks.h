// Checks of arguments, for the forward and the backward.
#pragma once
#include "arguments.h"

namespace fastseg {

// The weights and the biases of both branches, as they come.
struct Weights {
  const Tensor &column, &row, &row2, &column2;
};

struct Biases {
  const std::optional<Tensor>&column, &row, &row2, &column2;
};

inline void check_taps(const char* op, const char* argument, const Tensor& w, const Tensor& x, int64_t c, int64_t cin,
                       int64_t height, int64_t width) {
  FASTSEG_CHECK(w.dim() == 4 && w.scalar_type() == x.scalar_type(), op, argument,
                "be [C, C', k, k'] with the dtype of x, got ", w.dim(), " dimensions");
  FASTSEG_CHECK(w.size(0) == c && w.size(1) == cin && w.size(2) == height && w.size(3) == width, op, argument, "be ", c,
                "x", cin, "x", height, "x", width, ", got ", w.size(0), "x", w.size(1), "x", w.size(2), "x", w.size(3));
}

inline Shape check_global_conv(const char* op, const Tensor& x, const Weights& weights, const Biases& biases) {
  constexpr int64_t kLimit = int64_t(1) << 30;
  FASTSEG_CHECK(x.dim() == 4, op, "x", "be [N, C, H, W], got ", x.dim(), " dimensions");
  FASTSEG_CHECK(weights.column.dim() == 4, op, "column_weight", "be [C, C', k, 1], got ", weights.column.dim(),
                " dimensions");
  const Shape s{x.size(0),
                x.size(1),
                weights.column.size(0),
                x.size(2),
                x.size(3),
                weights.column.size(2),
                float_type(op, "x", x)};
  FASTSEG_CHECK(s.cin > 0 && s.c > 0 && s.cin < kLimit && s.c < kLimit && s.h < kLimit && s.w < kLimit, op, "x",
                "have at least one channel and less than 2^30 of anything, got ", s.cin, " x ", s.h, " x ", s.w);
  FASTSEG_CHECK(s.taps % 2 == 1 && s.taps < kLimit, op, "column_weight", "have an odd number of taps, got ", s.taps);
  check_taps(op, "column_weight", weights.column, x, s.c, s.cin, s.taps, 1);
  check_taps(op, "row_weight", weights.row, x, s.c, s.cin, 1, s.taps);
  check_taps(op, "row_weight2", weights.row2, x, s.c, s.c, 1, s.taps);
  check_taps(op, "column_weight2", weights.column2, x, s.c, s.c, s.taps, 1);
  const auto check_bias = [&](const char* argument, const std::optional<Tensor>& b) {
    FASTSEG_CHECK(!b || (b->dim() == 1 && b->size(0) == s.c), op, argument, "have a value for each of ", s.c,
                  " channels, got ", b->numel());
    if (b) float_type(op, argument, *b);
  };
  check_bias("column_bias", biases.column);
  check_bias("row_bias", biases.row);
  check_bias("row_bias2", biases.row2);
  check_bias("column_bias2", biases.column2);
  return s;
}

}  // namespace fastseg
