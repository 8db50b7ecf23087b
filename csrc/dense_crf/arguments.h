// What the ops on any device ask of their arguments.
#pragma once
#include "../common/tensors.h"

namespace fastseg {

inline Float check_float(const char* op, const char* argument, const Tensor& x) {
  const Float type = float_type(op, argument, x);
  FASTSEG_CHECK(type == Float::f32 || type == Float::f64, op, argument, "be float32 or float64, got scalar type ",
                int(x.scalar_type()));
  return type;
}

// Features [N, d, P], of a lattice.
inline Float check_features(const char* op, const Tensor& features) {
  const Float type = check_float(op, "features", features);
  FASTSEG_CHECK(features.dim() == 3, op, "features", "be [N, d, P], got ", features.dim(), " dimensions");
  const int64_t d = features.size(1), points = features.size(2);
  FASTSEG_CHECK(d >= 1 && d <= 8, op, "features", "have from 1 to 8 dimensions, got ", d);
  FASTSEG_CHECK(points * (d + 1) < int64_t(1) << 31, op, "features", "have fewer than 2^31 / (d + 1) points, got ",
                points);
  return type;
}

// Values [N, C, P] and the features of their lattice.
inline Float check_filter(const char* op, const Tensor& values, const Tensor& features) {
  const Float type = check_float(op, "values", values);
  FASTSEG_CHECK(values.dim() == 3, op, "values", "be [N, C, P], got ", values.dim(), " dimensions");
  FASTSEG_CHECK(features.scalar_type() == values.scalar_type(), op, "features",
                "have the dtype of values, got scalar type ", int(features.scalar_type()));
  check_features(op, features);
  FASTSEG_CHECK(features.size(0) == values.size(0) && features.size(2) == values.size(2), op, "features", "be [",
                values.size(0), ", d, ", values.size(2), "], got ", features.size(0), " and ", features.size(2));
  return type;
}

// x [N, C, H, W] as it is, or stored as channels_last.
inline Tensor stored(const Tensor& x, bool channels_last) {
  if (!channels_last) return x;
  Tensor out = empty_images(x, x.size(0), x.size(1), x.size(2), x.size(3), x.scalar_type(), true);
  torch::stable::copy_(out, x);
  return out;
}

// Maps [N, C, H, W] and a deviation for each axis.
inline Float check_maps(const char* op, const Tensor& values, const std::vector<double>& sigma) {
  const Float type = check_float(op, "values", values);
  FASTSEG_CHECK(values.dim() == 4, op, "values", "be [N, C, H, W], got ", values.dim(), " dimensions");
  FASTSEG_CHECK(sigma.size() == 2, op, "sigma", "be two numbers, got ", sigma.size());
  for (const double s : sigma) FASTSEG_CHECK(s > 0, op, "sigma", "be positive, got ", s);
  return type;
}

// vertices int32 [N, P, d + 1], weights alike, neighbours int32 [N, d + 1, P (d + 1), 2], count int64 [N].
inline void check_state(const char* op, const Tensor& vertices, const Tensor& weights, const Tensor& neighbours,
                        const Tensor& count) {
  FASTSEG_CHECK(vertices.dim() == 3 && vertices.scalar_type() == ScalarType::Int, op, "vertices",
                "be int32 [N, P, d + 1], got ", vertices.dim(), " dimensions");
  const int64_t n = vertices.size(0), points = vertices.size(1), sides = vertices.size(2);
  FASTSEG_CHECK(sides >= 2 && sides <= 9, op, "vertices", "have from 2 to 9 corners, got ", sides);
  FASTSEG_CHECK(points * sides < int64_t(1) << 31, op, "vertices", "be fewer than 2^31, got ", points * sides);
  FASTSEG_CHECK(weights.dim() == 3 && weights.size(0) == n && weights.size(1) == points && weights.size(2) == sides, op,
                "weights", "have the shape of vertices, got ", weights.dim(), " dimensions");
  FASTSEG_CHECK(neighbours.dim() == 4 && neighbours.scalar_type() == ScalarType::Int && neighbours.size(0) == n &&
                    neighbours.size(1) == sides && neighbours.size(2) == points * sides && neighbours.size(3) == 2,
                op, "neighbours", "be int32 [", n, ", ", sides, ", ", points * sides, ", 2], got ", neighbours.dim(),
                " dimensions");
  FASTSEG_CHECK(count.dim() == 1 && count.scalar_type() == ScalarType::Long && count.size(0) == n, op, "count",
                "be int64 [", n, "], got ", count.dim(), " dimensions");
}

// Values [N, C, P] for such a state, of one sample or more.
inline Float check_applied(const char* op, const Tensor& values, const Tensor& vertices, const Tensor& weights) {
  const Float type = check_float(op, "values", values);
  FASTSEG_CHECK(values.dim() == 3 && values.size(0) == vertices.size(0) && values.size(2) == vertices.size(1), op,
                "values", "be [", vertices.size(0), ", C, ", vertices.size(1), "], got ", values.dim(), " dimensions");
  FASTSEG_CHECK(weights.scalar_type() == values.scalar_type(), op, "weights",
                "have the dtype of values, got scalar type ", int(weights.scalar_type()));
  return type;
}

// values [N, C, P] and features [N, d, P] of one dtype, which is returned.
inline Float check_pairs(const char* op, const Tensor& values, const Tensor& features) {
  const Float type = check_float(op, "values", values);
  FASTSEG_CHECK(values.dim() == 3, op, "values", "be [N, C, P], got ", values.dim(), " dimensions");
  FASTSEG_CHECK(features.dim() == 3 && features.scalar_type() == values.scalar_type() &&
                    features.size(0) == values.size(0) && features.size(2) == values.size(2),
                op, "features", "be [", values.size(0), ", d, ", values.size(2), "] of the dtype of values, got ",
                features.dim(), " dimensions");
  return type;
}

inline void check_gradient(const char* op, const Tensor& grad, const Tensor& values) {
  FASTSEG_CHECK(grad.dim() == 3 && grad.scalar_type() == values.scalar_type() && grad.size(0) == values.size(0) &&
                    grad.size(1) == values.size(1) && grad.size(2) == values.size(2),
                op, "grad", "have the shape and dtype of values, got ", grad.dim(), " dimensions");
}

}  // namespace fastseg
