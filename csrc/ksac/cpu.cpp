#include "arguments.h"

namespace fastseg {
namespace {

// What of a convolution is made at a time: `band` rows of `channels` of the result.
struct Portion {
  std::vector<Group> groups;
  int64_t band, channels;
};

template <class T>
Portion portion_of(const Plan& plan, const Dense<T>& x, const Dense<T>& out, int64_t channels, int64_t results,
                   int64_t fixed) {
  Portion p{plan.within({0, x.h}), x.h, 0};
  const auto room = [&] {
    const int64_t turned = out.last ? 0 : results * p.band * x.w, responses = values(p.groups, plan.strips);
    return Room{fixed, int64_t(sizeof(T)) * (kTaps * x.c + responses + turned), int64_t(sizeof(T)) * responses};
  };
  if (!room().suffices(channels)) {
    // The responses of whole maps leave few channels: rows are kept only as long as they are read.
    constexpr int64_t kPixels = 4096;
    p.band = std::min(x.h, std::max<int64_t>(8, kPixels / x.w));
    plan.keep(p.groups, p.band);
  }
  p.channels = room().slice(channels);
  return p;
}

// Computes what the results [row, row + height) read and earlier ones did not.
template <class T>
void respond(const Plan& plan, const Portion& p, const Responses<T>& responses, const Images<T>& images,
             const Slice<T>& slice, int64_t row, int64_t height) {
  for (const Group& g : p.groups) {
    const int64_t end = plan.until(g, row + height);
    for (int64_t at = row ? plan.until(g, row) : g.first; at < end;) {
      const int64_t rows = std::min(end - at, g.ring - (at - g.first) % g.ring);
      aten::mm(matrix_of(responses, g, at, rows), images.pixels(g, at, rows), slice.of(g, responses.channels, true));
      at += rows;
    }
  }
}

// A slice of channels of all rates after the other: slices need no halo, so that nothing is computed twice, and the map
// is read once more for each.
template <class T>
void convolve(const Dense<T>& x, const Tensor& weight, const Rates& rates, const std::optional<Tensor>& scale,
              const std::optional<Tensor>& shift, bool concat, Activation activation, const Dense<T>& out) {
  const int64_t channels = weight.size(0), count = int64_t(rates.size()), results = concat ? count : 1;
  const Plan plan(x.h, x.w, rates, may_copy(x));
  Images<T> images(x, plan, may_copy(x) && (plan.copies() || !x.last));
  const Portion p = portion_of(plan, x, out, channels, results, images.bytes());
  const Tensor memory = empty(weight, {values(p.groups, plan.strips) * p.channels}, kScalar<T>);
  const Tensor turned = empty(weight, {out.last ? 0 : results * p.band * x.w * p.channels}, kScalar<T>);
  Slice<T> slice(weight, p.channels);
  const std::optional<Tensor> scales = plain<T>(scale), shifts = plain<T>(shift);

  const auto gather = [&](const Responses<T>& responses, int64_t image, int64_t first, int64_t row, int64_t height) {
    const int64_t n = responses.channels;
    Gather<T> g{responses, rates.data(), count, nullptr, nullptr, channels, activation, !concat, nullptr, 0, 0, 0};
    if (scales) g.scale = (const T*)scales->data_ptr() + first;
    if (shifts) g.shift = (const T*)shifts->data_ptr() + first;
    if (out.last) {
      g.out = out.image(image) + first;
      g.pixel = out.c;
      g.rate = concat ? channels : 0;
    } else {
      g.out = (T*)turned.data_ptr();
      g.pixel = n;
      g.rate = concat ? height * x.w * n : 0;
      g.first = row;
    }
    Ranges(height, 10 * count * x.w * n).run([&](int64_t, int64_t b, int64_t e) {
      FASTSEG_PICK_FOR(T, ksac).gather(g, row + b, row + e);
    });
    const Strips whole{{{0, x.w}}, 1};
    for (int64_t k = 0; k < results && !out.last; ++k)
      run(out.regroup(image, k * channels + first, n, {row, row + height}, g.out + k * g.rate, whole),
          FASTSEG_PICK_FOR(T, regroup).from_strips);
  };
  for (int64_t image = 0; image < x.n; ++image) {
    images.read(image);
    each_portion(channels, p.channels, [&](int64_t first, int64_t n) {
      slice.read(first, n);
      const Responses<T> responses = laid_out(p.groups, plan.strips, x.h, x.w, n, (T*)memory.data_ptr());
      each_portion(x.h, p.band, [&](int64_t row, int64_t height) {
        respond(plan, p, responses, images, slice, row, height);
        gather(responses, image, first, row, height);
      });
    });
  }
}

void check(const char* op, const Tensor& x, const Tensor& weight, const Rates& rates) {
  check_maps(op, "x", x);
  check_weight(op, weight);
  check_rates(op, rates);
  FASTSEG_CHECK(weight.scalar_type() == x.scalar_type() && weight.size(1) == x.size(1), op, "weight",
                "have the dtype and the ", x.size(1), " channels of x, got ", weight.size(1));
}

Tensor ksac_conv2d(const Tensor& x, const Tensor& weight, const Rates& rates, const std::optional<Tensor>& scale,
                   const std::optional<Tensor>& shift, bool concat, const std::string& activation) {
  constexpr const char* kName = "ksac_conv2d";
  const Float type = float_type(kName, "x", x);
  check(kName, x, weight, rates);
  const int64_t count = int64_t(rates.size()), channels = weight.size(0);
  check_vectors(kName, "scale", scale, count, channels);
  check_vectors(kName, "shift", shift, count, channels);
  const Activation kind = activation_of(kName, activation);
  took(kName);
  return by_type(type, [&](auto zero) {
    using T = decltype(zero);
    const Tensor out = empty_images(x, x.size(0), concat ? count * channels : channels, x.size(2), x.size(3),
                                    kScalar<T>, is_channels_last(x));
    if (out.numel()) convolve<T>(Dense<T>(x), weight, rates, scale, shift, concat, kind, Dense<T>(out, true));
    return torch::stable::to(out, x.scalar_type());
  });
}

Tensor ksac_responses(const Tensor& x, const Tensor& weight, const Rates& rates) {
  constexpr const char* kName = "ksac_responses";
  const Float type = float_type(kName, "x", x);
  check(kName, x, weight, rates);
  took(kName);
  return by_type(type, [&](auto zero) {
    using T = decltype(zero);
    const Tensor out = empty_images(x, x.size(0), int64_t(rates.size()) * weight.size(0), x.size(2), x.size(3),
                                    kScalar<T>, is_channels_last(x));
    if (out.numel())
      convolve<T>(Dense<T>(x), weight, rates, std::nullopt, std::nullopt, true, Activation::none, Dense<T>(out, true));
    return out;
  });
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) {
  m.impl("ksac_conv2d", TORCH_BOX(&fastseg::ksac_conv2d));
  m.impl("ksac_responses", TORCH_BOX(&fastseg::ksac_responses));
}
