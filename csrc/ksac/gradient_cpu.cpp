#include "arguments.h"

namespace fastseg {
namespace {

// The gradients of the responses of a slice of channels, band by band: gathered from those of all rates, so that
// nothing is computed twice.
template <class T>
class Gradients {
 public:
  Gradients(const Dense<T>& grad, const Rates& rates, const Plan& plan, int64_t channels, int64_t inputs, int64_t fixed)
      : grad_(grad), rates_(rates), plan_(plan), channels_(channels), band_(grad.h) {
    const auto room = [&] {
      return Room{fixed, int64_t(sizeof(T)) * (kTaps * inputs + read() + spread()), int64_t(sizeof(T)) * spread()};
    };
    // Two sums, over a band and over bands: a GEMM alone may add all pixels up one after the other.
    constexpr int64_t kPixels = 16384;
    while ((band_ * grad.w > kPixels || !room().suffices(channels)) && band_ > std::max(2 * plan.reach(), kBlock))
      band_ = (band_ + 1) / 2;
    slice_ = room().slice(channels);
    read_ = empty(grad.tensor, {read() * slice_}, kScalar<T>);
    spread_ = empty(grad.tensor, {spread() * slice_}, kScalar<T>);
  }

  int64_t slice() const { return slice_; }

  // For the channels [first, first + n) of an image: calls use(group, gradients [pixels, taps and channels]) for each
  // group of a band, and done() after each band.
  template <class Use, class Done>
  void each(int64_t image, int64_t first, int64_t n, const Use& use, const Done& done) const {
    each_portion(grad_.h, band_, [&](int64_t row, int64_t height) {
      const int64_t top = std::max<int64_t>(0, row - plan_.reach());
      const int64_t rows = std::min(grad_.h, row + height + plan_.reach()) - top;
      const Strips whole{{{0, grad_.w}}, 1};
      const auto count = int64_t(rates_.size());
      for (int64_t k = 0; k < count; ++k)
        run(grad_.regroup(image, k * channels_ + first, n, {top, top + rows},
                          (T*)read_.data_ptr() + k * rows * grad_.w * n, whole),
            FASTSEG_PICK_FOR(T, regroup).to_strips);
      const std::vector<Group> groups = plan_.within({row, row + height});
      const Responses<T> responses = laid_out(groups, plan_.strips, grad_.h, grad_.w, n, (T*)spread_.data_ptr());
      const Spread<T> p{responses, rates_.data(), count, (const T*)read_.data_ptr(), top, rows};
      Ranges(height, kTaps * count * grad_.w * n).run([&](int64_t, int64_t b, int64_t e) {
        FASTSEG_PICK_FOR(T, ksac).spread(p, row + b, row + e);
      });
      for (const Group& g : groups) use(g, matrix_of(responses, g, g.first, g.ring));
      done();
    });
  }

 private:
  const Dense<T>& grad_;
  const Rates& rates_;
  const Plan& plan_;
  int64_t channels_, band_, slice_;
  Tensor read_, spread_;

  // Values per channel of a band.
  int64_t read() const { return int64_t(rates_.size()) * std::min(grad_.h, band_ + 2 * plan_.reach()) * grad_.w; }
  int64_t spread() const { return kTaps * band_ * grad_.w; }
};

template <class T>
void input_gradient(const Dense<T>& grad, const Tensor& weight, const Rates& rates, const Dense<T>& out) {
  const Plan plan(grad.h, grad.w, rates, may_copy(out));
  Images<T> images(out, plan, may_copy(out) && (plan.copies() || !out.last));
  const Gradients<T> gradients(grad, rates, plan, weight.size(0), weight.size(1), images.bytes());
  Slice<T> slice(weight, gradients.slice());
  for (int64_t image = 0; image < grad.n; ++image) {
    images.begin(image);
    each_portion(weight.size(0), gradients.slice(), [&](int64_t first, int64_t n) {
      slice.read(first, n);
      const auto add = [&](const Group& g, const Tensor& of_responses) {
        // The first group of a strip has all of its rows.
        const bool fresh = first == 0 && (g.taps == kTaps || g.tap / 3 == 1);
        (fresh ? aten::mm : aten::add_mm)(images.pixels(g, g.first, g.ring), of_responses, slice.of(g, n, false));
      };
      gradients.each(image, first, n, add, [] {});
    });
    images.write();
  }
}

template <class T>
void weight_gradient(const Dense<T>& grad, const Dense<T>& x, const Rates& rates, const Tensor& out) {
  const Plan plan(grad.h, grad.w, rates, may_copy(x));
  Images<T> images(x, plan, may_copy(x) && (plan.copies() || !x.last));
  const Gradients<T> gradients(grad, rates, plan, out.size(0), x.c, images.bytes());
  Slice<T> slice(out, gradients.slice());
  each_portion(out.size(0), gradients.slice(), [&](int64_t first, int64_t n) {
    slice.clear(n);
    const auto add = [&](const Group& g, const Tensor& of_responses) {
      aten::add_mm(slice.of(g, n, false), torch::stable::transpose(of_responses, 0, 1),
                   images.pixels(g, g.first, g.ring));
    };
    for (int64_t image = 0; image < grad.n; ++image) {
      images.read(image);
      gradients.each(image, first, n, add, [&] {
        slice.add(first, n);
        slice.clear(n);
      });
    }
  });
}

Float check_gradient(const char* op, const Tensor& grad, const Tensor& other, const Rates& rates) {
  const Float type = float_type(op, "grad", grad);
  check_maps(op, "grad", grad);
  check_rates(op, rates);
  const Float stored = float_type(op, "weight", other);
  FASTSEG_CHECK(type == (stored == Float::f64 ? Float::f64 : Float::f32), op, "grad",
                "have the dtype that is computed in, got scalar type ", int(grad.scalar_type()));
  return type;
}

Tensor ksac_responses_input(const Tensor& grad, const Tensor& weight, const Rates& rates) {
  constexpr const char* kName = "ksac_responses_input";
  const Float type = check_gradient(kName, grad, weight, rates);
  check_weight(kName, weight);
  FASTSEG_CHECK(grad.size(1) == int64_t(rates.size()) * weight.size(0), kName, "grad", "have ",
                rates.size() * weight.size(0), " channels, got ", grad.size(1));
  took(kName);
  return by_type(type, [&](auto zero) {
    using T = decltype(zero);
    const Tensor out = empty_images(grad, grad.size(0), weight.size(1), grad.size(2), grad.size(3), kScalar<T>,
                                    is_channels_last(grad));
    if (out.numel()) input_gradient<T>(Dense<T>(grad), weight, rates, Dense<T>(out, true));
    return torch::stable::to(out, weight.scalar_type());
  });
}

Tensor ksac_responses_weight(const Tensor& grad, const Tensor& x, const Rates& rates) {
  constexpr const char* kName = "ksac_responses_weight";
  const Float type = check_gradient(kName, grad, x, rates);
  check_maps(kName, "x", x);
  const int64_t count = int64_t(rates.size());
  FASTSEG_CHECK(grad.size(1) % count == 0, kName, "grad", "have channels for each of ", count, " rates, got ",
                grad.size(1));
  FASTSEG_CHECK(grad.size(0) == x.size(0) && grad.size(2) == x.size(2) && grad.size(3) == x.size(3), kName, "grad",
                "have the maps of x, got another batch or size");
  took(kName);
  return by_type(type, [&](auto zero) {
    using T = decltype(zero);
    const std::vector<int64_t> shape{grad.size(1) / count, x.size(1), 3, 3};
    const Tensor out = zeros(grad, shape, kScalar<T>);
    if (grad.numel()) weight_gradient<T>(Dense<T>(grad), Dense<T>(x), rates, out);
    return torch::stable::to(out, x.scalar_type());
  });
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) {
  m.impl("ksac_responses_input", TORCH_BOX(&fastseg::ksac_responses_input));
  m.impl("ksac_responses_weight", TORCH_BOX(&fastseg::ksac_responses_weight));
}
