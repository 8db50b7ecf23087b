// Winograd and its kind on the CPU: whether they pay, and the run.
#pragma once
#include "arguments.h"

namespace fastseg {

// Bytes of the transformed inputs, of the products and of the transformed weights that are held at once, each. Blocks
// beyond 32 MiB would come from the system afresh in each call and cost more than the kernels, in page faults.
constexpr int64_t kTileScratch = int64_t(16) << 20;

constexpr int kAuto = -2, kDirect = -1;  // beside the schemes

inline const char* algorithm_name(int algorithm) {
  return algorithm == kAuto ? "auto" : algorithm == kDirect ? "direct" : kSchemeNames[algorithm];
}

inline int algorithm_of(const char* op, const std::string& name) {
  for (int a = kAuto; a < kSchemes; ++a)
    if (name == algorithm_name(a)) return a;
  fail(op, "algorithm", "be one of auto, direct, winograd2, winograd3, winograd4, toeplitz2, got ", name);
}

// The scheme that a packed weight was made for.
inline int scheme_of(const char* op, const Tensor& packed, int64_t c, int64_t k) {
  const int64_t points = packed.dim() == 3 ? packed.size(0) : 0;
  for (int s = 0; s < kSchemes; ++s)
    if (points == kPoints[s] && packed.size(1) == c && packed.size(2) == k && packed.scalar_type() == ScalarType::Float)
      return s;
  fail(op, "packed", "be float32 [9, 16, 25 or 36, ", c, ", ", k, "], got ", packed.dim(), " dimensions of ", points);
}

// Why a scheme cannot compute this convolution; nothing if it can.
const char* why_not(const ConvArguments&, int scheme);

constexpr int kNotPacked = -1, kAnyPacked = -2;

// The fastest algorithm by the model of the machine. `packed_for` is the scheme that a packed weight is for: only that
// one competes with ATen then; or none, or any.
int choose_algorithm(const ConvArguments&, int packed_for);

// weight [k, c, 3, 3] in float32 -> [points, c, k].
Tensor transformed_weight(const Tensor& weight, int scheme);

// x dense float32 -> y in channels_last; the weight is transformed here unless it comes packed. Returns for each
// image whether a result is not finite, before the epilogue: then that image has to be computed otherwise.
std::vector<int32_t> run_tiles(const ConvArguments&, int scheme, const Tensor& x, const Tensor& weight,
                               const std::optional<Tensor>& packed, const Tensor& y, const Epilogue<float>&);

}  // namespace fastseg
