#include <tuple>

#include "arguments.h"

namespace fastseg {
namespace {

// Checked arguments that both directions share.
struct Steps {
  const char* op;
  const Tensor& terms;
  const std::optional<Tensor>&scale, &shift;
  int64_t count;
  bool concat;
  Activation activation;
  Float type;

  Steps(const char* op_, const Tensor& terms_, const std::optional<Tensor>& scale_, const std::optional<Tensor>& shift_,
        int64_t count_, bool concat_, const std::string& name)
      : op(op_), terms(terms_), scale(scale_), shift(shift_), count(count_), concat(concat_) {
    type = float_type(op, "terms", terms);
    FASTSEG_CHECK(type == Float::f32 || type == Float::f64, op, "terms", "be float32 or float64, got scalar type ",
                  int(terms.scalar_type()));
    check_maps(op, "terms", terms);
    FASTSEG_CHECK(count > 0 && terms.size(1) % count == 0, op, "terms", "have channels for each of ", count,
                  " rates, got ", terms.size(1));
    check_vectors(op, "scale", scale, count, channels());
    check_vectors(op, "shift", shift, count, channels());
    activation = activation_of(op, name);
  }

  int64_t channels() const { return terms.size(1) / count; }
};

template <class T>
Fuse<T> fuse_of(const Steps& s, const Dense<T>& terms, const std::optional<Tensor>& scale,
                const std::optional<Tensor>& shift) {
  Fuse<T> f{(const T*)terms.tensor.data_ptr(),
            terms.n,
            s.count,
            s.channels(),
            terms.h * terms.w,
            terms.last,
            !s.concat,
            nullptr,
            nullptr,
            s.activation,
            nullptr,
            nullptr,
            nullptr};
  if (scale) f.scale = (const T*)scale->data_ptr();
  if (shift) f.shift = (const T*)shift->data_ptr();
  return f;
}

Tensor ksac_fuse(const Tensor& terms_, const std::optional<Tensor>& scale, const std::optional<Tensor>& shift,
                 int64_t count, bool concat, const std::string& activation) {
  const Steps s("ksac_fuse", terms_, scale, shift, count, concat, activation);
  took(s.op);
  return by_type(s.type, [&](auto zero) {
    using T = decltype(zero);
    const Dense<T> terms(terms_);
    const Tensor out = empty_images(terms_, terms.n, concat ? terms.c : s.channels(), terms.h, terms.w, kScalar<T>,
                                    is_channels_last(terms_));
    if (out.numel() == 0) return out;
    const std::optional<Tensor> scales = plain<T>(scale), shifts = plain<T>(shift);
    Fuse<T> f = fuse_of(s, terms, scales, shifts);
    f.result = (T*)out.data_ptr();
    const int64_t lines = terms.n * (f.last ? f.pixels : f.channels);
    Ranges(lines, 8 * terms.n * terms.c * f.pixels / lines).run([&](int64_t, int64_t b, int64_t e) {
      FASTSEG_PICK_FOR(T, fuse).fuse(f, b, e);
    });
    return out;
  });
}

// The gradients of terms, of scale and of shift [count, channels].
std::tuple<Tensor, Tensor, Tensor> ksac_fuse_backward(const Tensor& grad, const Tensor& terms_,
                                                      const std::optional<Tensor>& scale,
                                                      const std::optional<Tensor>& shift, int64_t count, bool concat,
                                                      const std::string& activation) {
  const Steps s("ksac_fuse_backward", terms_, scale, shift, count, concat, activation);
  check_maps(s.op, "grad", grad);
  FASTSEG_CHECK(grad.scalar_type() == terms_.scalar_type() && grad.size(0) == terms_.size(0) &&
                    grad.size(1) == (concat ? terms_.size(1) : s.channels()) && grad.size(2) == terms_.size(2) &&
                    grad.size(3) == terms_.size(3),
                s.op, "grad", "be like the result, got another dtype or shape");
  took(s.op);
  return by_type(s.type, [&](auto zero) {
    using T = decltype(zero);
    const Dense<T> terms(terms_);
    const Tensor out = empty_images(terms_, terms.n, terms.c, terms.h, terms.w, kScalar<T>, is_channels_last(terms_));
    const Tensor of_scale = zeros(terms_, {count, s.channels()}, kScalar<T>),
                 of_shift = zeros(terms_, {count, s.channels()}, kScalar<T>);
    if (out.numel() == 0) return std::tuple(out, of_scale, of_shift);
    const Tensor given = dense_maps<T>(grad, terms.last);
    const std::optional<Tensor> scales = plain<T>(scale), shifts = plain<T>(shift);
    Fuse<T> f = fuse_of(s, terms, scales, shifts);
    f.result = (T*)given.data_ptr();
    f.of_terms = (T*)out.data_ptr();
    const int64_t pixels = terms.n * f.pixels, runs = f.last ? (pixels + kRun - 1) / kRun : terms.n * f.channels;
    const int64_t vectors = f.last ? terms.c : count;
    const Tensor sums = empty(terms_, {runs, 2, vectors}, ScalarType::Double);
    f.sums = (double*)sums.data_ptr();
    Ranges(runs, 16 * terms.c * pixels / runs).run([&](int64_t, int64_t b, int64_t e) {
      FASTSEG_PICK_FOR(T, fuse).unfuse(f, b, e);
    });
    // In the order of the runs, whoever computed them.
    for (int64_t v = 0; v < terms.c; ++v) {
      const int64_t c = v % f.channels, k = v / f.channels;
      double sum[2] = {};
      for (int64_t r = f.last ? 0 : c; r < runs; r += f.last ? 1 : f.channels)
        for (int j = 0; j < 2; ++j) sum[j] += f.sums[(2 * r + j) * vectors + (f.last ? v : k)];
      ((T*)of_scale.data_ptr())[v] = T(sum[0]);
      ((T*)of_shift.data_ptr())[v] = T(sum[1]);
    }
    return std::tuple(out, of_scale, of_shift);
  });
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) {
  m.impl("ksac_fuse", TORCH_BOX(&fastseg::ksac_fuse));
  m.impl("ksac_fuse_backward", TORCH_BOX(&fastseg::ksac_fuse_backward));
}
