// What dense_crf asks of its arguments on any device, and what they mean.
#pragma once
#include <algorithm>

#include "arguments.h"
#include "normalization.h"

namespace fastseg {

enum class Output { logits, probabilities, labels };

struct Options {
  int64_t iterations;
  Normalization norm;
  bool include_self, exact_spatial, exact_bilateral;
  Output output;

  // unary [N, C, ...], features [N, d, ...], a deviation for each axis, compatibility [2, C, C].
  Options(const char* op, const Tensor& unary, const Tensor& features, const std::vector<double>& sigma,
          const Tensor& compatibility, int64_t iterations_, const std::string& normalization, bool include_self_,
          const std::string& spatial, const std::string& bilateral, const std::string& output_)
      : iterations(iterations_),
        norm(op, normalization),
        include_self(include_self_),
        exact_spatial(is_exact(op, "spatial", spatial)),
        exact_bilateral(is_exact(op, "bilateral", bilateral)),
        output(output_of(op, output_)) {
    check_float(op, "unary", unary);
    const int64_t dims = unary.dim() - 2, c = dims > 0 ? unary.size(1) : 0;
    FASTSEG_CHECK(dims == 2 || dims == 3, op, "unary", "be [N, C, H, W] or [N, C, D, H, W], got ", unary.dim(),
                  " dimensions");
    FASTSEG_CHECK(features.dim() == unary.dim() && features.scalar_type() == unary.scalar_type(), op, "features",
                  "have the dtype and the dimensions of unary, got ", features.dim());
    int64_t points = 1;
    for (int64_t i = 0; i < unary.dim(); ++i) {
      FASTSEG_CHECK(i == 1 || features.size(i) == unary.size(i), op, "features", "have the size of unary, got ",
                    features.size(i), " along ", i);
      if (i >= 2) points *= unary.size(i);
    }
    FASTSEG_CHECK(int64_t(sigma.size()) == dims, op, "spatial_sigma", "be ", dims, " numbers, got ", sigma.size());
    for (const double x : sigma) FASTSEG_CHECK(x > 0, op, "spatial_sigma", "be positive, got ", x);
    FASTSEG_CHECK(compatibility.dim() == 3 && compatibility.size(0) == 2 && compatibility.size(1) == c &&
                      compatibility.size(2) == c && compatibility.scalar_type() == unary.scalar_type(),
                  op, "compatibility", "be [2, ", c, ", ", c, "] of unary's dtype, got ", compatibility.dim(),
                  " dimensions");
    FASTSEG_CHECK(iterations >= 0, op, "iterations", "be at least 0, got ", iterations);
    const bool lattice = iterations > 0 && !(exact_spatial && exact_bilateral);
    const int64_t d = features.size(1);
    FASTSEG_CHECK(!lattice || points * (std::max(d, dims) + 1) < int64_t(1) << 31, op, "unary",
                  "have fewer than 2^31 / (dimensions + 1) pixels where a lattice is used, got ", points);
    FASTSEG_CHECK(exact_bilateral || (d >= 1 && d <= 8), op, "features",
                  "have from 1 to 8 dimensions on a lattice, got ", d);
  }

  // Of the result: as unary, or without the labels.
  std::vector<int64_t> sizes(const Tensor& unary) const {
    std::vector<int64_t> found;
    for (int64_t i = 0; i < unary.dim(); ++i)
      if (i != 1 || output != Output::labels) found.push_back(unary.size(i));
    return found;
  }

 private:
  static Output output_of(const char* op, const std::string& name) {
    FASTSEG_CHECK(name == "logits" || name == "probabilities" || name == "labels", op, "output",
                  "be logits, probabilities or labels, got ", name);
    return name == "logits" ? Output::logits : name == "labels" ? Output::labels : Output::probabilities;
  }

  static bool is_exact(const char* op, const char* argument, const std::string& name) {
    FASTSEG_CHECK(name == "exact" || name == "lattice", op, argument, "be exact or lattice, got ", name);
    return name == "exact";
  }
};

}  // namespace fastseg
